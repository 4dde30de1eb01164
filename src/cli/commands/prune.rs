//! `kiln prune`: frees what nothing needs.

use std::io::Write;
use std::time::Duration;

use super::{locate, print};
use crate::cli::args::PruneArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::wire;

/// Removes images without a name (all images with `--all`), then every blob that no image needs.
pub(super) fn run(args: &PruneArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let store = wire::open_store(&environment.store_root(args.store.root.as_ref()))?;
    for tagged in store.tags()? {
        let goes = args.all || locate::is_nameless(&tagged.reference);
        if goes && store.remove_tag(&tagged.reference)? {
            print(out, &format!("removed {}", tagged.reference))?;
        }
    }
    // No grace: what a running build may need is kept whatever its age.
    let collected = store.collect_garbage(Duration::ZERO)?;
    print(out, &format!("freed {} in {} blobs", bytes(collected.bytes), collected.blobs))
}
