//! `kiln prune`: frees what nothing needs.

use std::io::Write;
use std::sync::Arc;

use super::cache::keep;
use super::{home, locate, print};
use crate::cli::args::{ProgressArg, PruneArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::{Progress, bytes};
use crate::cli::wire;
use crate::{build, cache, rootfs};

/// Removes images without a name (all images with `--all`), then every blob that no image needs, unpacked
/// layers, cache mounts and results of steps (within limits: those beyond); nothing that a running build uses.
pub(super) fn run(args: &PruneArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let reporter = Progress::open(ProgressArg::Plain, args.store.debug, environment).reporter();
    let home = home(&args.store, environment, &reporter)?;
    let store = wire::open_store(&home, &reporter)?;
    for tagged in store.tags()? {
        let goes = args.all || locate::is_nameless(&tagged.reference);
        if goes && store.remove_tag(&tagged.reference)? {
            print(out, &format!("removed {}", tagged.reference))?;
        }
    }
    let limits = keep(&args.limits)?;
    let cache = cache::open_store(store.clone(), true, &Arc::default());
    let going = limits.split(&cache.entries()?);
    let trees = rootfs::prune(&home.trees(), &reporter)?;
    let caches = build::prune_cache_mounts(&home.mounts()).map_err(|source| Failure::File {
        action: "remove the cache mounts in",
        path: home.mounts(),
        source,
    })?;
    print(out, &format!("removed {trees} unpacked layers and {caches} cache mounts"))?;
    // No grace: what a running build may need is kept whatever its age. Removing records collects garbage too.
    let removed = cache.remove(&going)?;
    print(out, &format!("removed {} results of steps", removed.records))?;
    print(out, &format!("freed {} in {} blobs", bytes(removed.bytes), removed.blobs))
}
