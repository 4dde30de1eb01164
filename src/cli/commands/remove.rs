//! `kiln rm`: takes names from images of the store.

use std::io::Write;

use super::{locate, open_store, print};
use crate::cli::args::RemoveArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;

/// Removes images: a name loses itself, a digest all names it has. Their bytes go with `kiln prune`.
pub(super) fn run(args: &RemoveArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let store = open_store(&args.store, environment)?;
    for image in &args.images {
        let found = locate::matching(&store.tags()?, image)?;
        if found.is_empty() {
            return Err(Failure::NoImage { name: image.clone() });
        }
        for tagged in found {
            if store.remove_tag(&tagged.reference)? {
                print(out, &format!("removed {}", tagged.reference))?;
            }
        }
    }
    Ok(())
}
