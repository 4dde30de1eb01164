//! `kiln prune`: frees what nothing needs.

use std::io::Write;
use std::time::Duration;

use super::{locate, print};
use crate::cli::args::PruneArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::wire;
use crate::{build, rootfs};

/// Removes images without a name (all images with `--all`), then every blob that no image needs, unpacked
/// layers and cache mounts; nothing that a running build uses.
pub(super) fn run(args: &PruneArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let store = wire::open_store(&environment.store_root(args.store.root.as_ref()))?;
    for tagged in store.tags()? {
        let goes = args.all || locate::is_nameless(&tagged.reference);
        if goes && store.remove_tag(&tagged.reference)? {
            print(out, &format!("removed {}", tagged.reference))?;
        }
    }
    let root = environment.store_root(args.store.root.as_ref());
    let trees = rootfs::prune(&root.join("trees"))?;
    let caches = build::prune_cache_mounts(&root.join("mounts")).map_err(|source| Failure::File {
        action: "remove the cache mounts in",
        path: root.join("mounts"),
        source,
    })?;
    print(out, &format!("removed {trees} unpacked layers and {caches} cache mounts"))?;
    // No grace: what a running build may need is kept whatever its age.
    let collected = store.collect_garbage(Duration::ZERO)?;
    print(out, &format!("freed {} in {} blobs", bytes(collected.bytes), collected.blobs))
}
