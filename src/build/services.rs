//! What a build works with: every socket opened, by `cli/` alone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::blob::Store;
use crate::cache::{Caches, MountCaches};
use crate::context::Fetch;
use crate::event::Reporter;
use crate::oci::Platform;
use crate::output::Output;
use crate::own_files::OwnFiles;
use crate::registry::Client;
use crate::rootfs::Storage;
use crate::sandbox::{Cancel, Ground, Launch, MemoryDir};
use crate::tree::Timestamp;

/// The parts a build is wired to.
pub struct Services {
    /// Where events go.
    pub reporter: Reporter,
    /// Where blobs are kept.
    pub store: Arc<Store>,
    /// How registries are reached.
    pub registry: Client,
    /// How steps run.
    pub launch: Arc<dyn Launch>,
    /// What kiln's files have to do with steps.
    pub ground: Arc<Ground>,
    /// Where stages' files live.
    pub storage: Arc<dyn Storage>,
    /// Where the image goes.
    pub outputs: Vec<Arc<dyn Output>>,
    /// What earlier builds left, and what this one leaves to later ones.
    pub caches: Arc<Caches>,
    /// Where cache mounts are saved, and restored from.
    pub mount_caches: MountCaches,
    /// How files are downloaded.
    pub fetch: Arc<dyn Fetch>,
    /// Variables for the `git` program: `PATH`, proxies, `GIT_SSL_CAINFO`.
    pub git_environment: Vec<(OsString, OsString)>,
    /// Whether kiln's own programs and files are in their places.
    pub own_files: OwnFiles,
    /// A directory of this build's own; the caller removes it.
    pub work_dir: PathBuf,
    /// Where secrets are while a step has them: in memory wherever kiln may mount.
    pub secrets: MemoryDir,
    /// Where cache mounts persist.
    pub cache_mounts_dir: PathBuf,
    /// Stops the build.
    pub cancel: Arc<Cancel>,
    /// How many steps run at the moment: nobody may end the process while this is not 0.
    pub steps_running: Arc<AtomicUsize>,
    /// The time of the build, where no source epoch is given.
    pub now: Timestamp,
    /// The platform kiln runs on.
    pub build_platform: Platform,
    /// Whether blobs of base images have to be in the store at the end (an output reads them from there).
    pub keep_base_blobs: bool,
}
