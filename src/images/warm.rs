//! Images into a store before builds need them.

use super::{ImagesError, Origin, is_index, keep};
use crate::blob::Store;
use crate::oci::{Descriptor, Platform, Reference};
use crate::registry::Client;

/// Which images of an index are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// All of them.
    All,
    /// Those for these platforms.
    These(Vec<Platform>),
}

/// Brings an image into a store under its own name and returns what the name stands for: the index as the
/// registry has it, even if only some of its images are wanted, so that a build from the store has the same
/// base digest as one from the registry.
pub fn warm(
    client: &Client,
    reference: &Reference,
    platforms: &Platforms,
    store: &Store,
) -> Result<Descriptor, ImagesError> {
    let origin = Origin::registry(client, reference)?;
    match platforms {
        Platforms::These(wanted) if is_index(&origin.descriptor) => {
            // All of them are looked for before anything is fetched.
            let images =
                wanted.iter().map(|platform| origin.choose(platform)).collect::<Result<Vec<_>, _>>()?;
            for image in images {
                keep(&image, store)?;
            }
            store.put(&origin.read(&origin.descriptor, "index")?)?;
        }
        _ => keep(&origin, store)?,
    }
    store.set_tag(&reference.to_string(), &origin.descriptor)?;
    Ok(origin.descriptor)
}
