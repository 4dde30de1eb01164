//! Opens the sockets: the only place that knows which implementations there are.
//!
//! Layout of kiln's root directory: `store` is an OCI image layout, `trees` unpacked layers, `mounts` what
//! `RUN --mount=type=cache` keeps, `sandbox` the sandbox's state, `work` one directory for each running build.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::fail::Failure;
use super::request::{Invocation, writes_stdout};
use crate::blob::Store;
use crate::build::{BuildError, Problem, Request, SecretSource, Services};
use crate::context::{Fetch, HttpFetch, HttpOptions, Proxies};
use crate::event::Reporter;
use crate::oci::{Platform, Reference};
use crate::output::{self, Output, OutputParts, OutputSpec};
use crate::registry::{Client, RegistryConfig};
use crate::rootfs::{self, WorkDir};
use crate::sandbox::{self, Cancel, Entered, LaunchOptions};
use crate::tree::Timestamp;

/// Everything a build is wired to, and the directory that goes when it is over.
pub struct Workshop {
    /// The parts.
    pub services: Services,
    /// The build's own directory, removed with this value.
    work_dir: WorkDir,
    /// Whether standard output carries an archive.
    pub stdout_is_taken: bool,
}

impl Workshop {
    /// Removes the build's directory now; says where it is if something stands in the way.
    pub fn close(self) -> Result<(), PathBuf> {
        let Self { services, work_dir, .. } = self;
        // The storage's mounts go first.
        drop(services);
        let path = work_dir.path().to_owned();
        drop(work_dir);
        if path.exists() { Err(path) } else { Ok(()) }
    }
}

/// Opens the store below kiln's root directory.
pub fn open_store(root: &Path) -> Result<Arc<Store>, Failure> {
    Ok(Store::open(&root.join("store"))?)
}

/// Opens the registry client.
pub fn open_client(config: RegistryConfig, reporter: Reporter) -> Result<Client, Failure> {
    Ok(Client::new(config, reporter)?)
}

/// Opens an output.
pub fn open_output(
    spec: &OutputSpec,
    client: Client,
    store: Arc<Store>,
    reporter: Reporter,
    names: &[Reference],
) -> Result<Box<dyn Output>, Failure> {
    let parts = OutputParts { client, store, reporter, stdout: stdout(), names: names.to_vec() };
    Ok(output::open(spec, &parts)?)
}

/// Returns what outputs to standard output write to.
fn stdout() -> output::OpenStdout {
    Arc::new(|| Box::new(std::io::stdout()))
}

/// Opens what downloads files, with the proxies and authorities that registries have.
pub fn open_fetch(registry: &RegistryConfig, reporter: Reporter) -> Result<Arc<dyn Fetch>, Failure> {
    let reveal = |secret: &Option<crate::registry::Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
    let options = HttpOptions {
        proxies: Proxies {
            http: reveal(&registry.proxies.http),
            https: reveal(&registry.proxies.https),
            no_proxy: registry.proxies.no_proxy.clone(),
        },
        extra_authorities: registry.extra_authorities.clone(),
        ..HttpOptions::default()
    };
    let fetch = HttpFetch::new(options, reporter).map_err(context_failure)?;
    Ok(Arc::new(fetch))
}

fn context_failure(error: crate::context::ContextError) -> Failure {
    Failure::from(BuildError::from(Problem::from(error)))
}

/// Opens a directory of this process's own below kiln's root, and removes what killed ones left.
pub fn open_work_dir(root: &Path, reporter: &Reporter) -> Result<WorkDir, Failure> {
    Ok(WorkDir::create(&root.join("work"), reporter)?)
}

/// Returns where the sandbox keeps its state below kiln's root.
pub fn sandbox_state(root: &Path) -> PathBuf {
    root.join("sandbox")
}

/// Opens everything for a build.
pub fn open_workshop(
    invocation: &Invocation,
    entered: &Entered,
    cancel: Arc<Cancel>,
    reporter: &Reporter,
) -> Result<Workshop, Failure> {
    let root = &invocation.root;
    let store = open_store(root)?;
    let work_dir = open_work_dir(root, reporter)?;
    let client = open_client(invocation.registry.clone(), reporter.clone())?;
    let parts = OutputParts {
        client: client.clone(),
        store: Arc::clone(&store),
        reporter: reporter.clone(),
        stdout: stdout(),
        names: invocation.request.names.clone(),
    };
    let outputs = invocation.outputs.iter().map(|spec| output::open(spec, &parts).map(Arc::from));
    let outputs = outputs.collect::<Result<Vec<Arc<dyn Output>>, _>>()?;
    // Steps ask the name servers that kiln itself asks; read before any step can be in the way.
    let dns = invocation.registry.resolv_conf.clone().unwrap_or_default();
    let options =
        LaunchOptions { state_dir: sandbox_state(root), dns, private_files: private_files(invocation) };
    let launch = sandbox::open(entered, options)?;
    let (kind, reason) = rootfs::choose(entered, work_dir.path());
    reporter.debug(format!("steps: {}; {}", launch.name(), entered.description));
    reporter.debug(format!("storage: {reason}"));
    let trees: PathBuf = root.join("trees");
    let storage = rootfs::open(kind, work_dir.path(), &trees, reporter.clone())?;
    let services = Services {
        reporter: reporter.clone(),
        fetch: open_fetch(&invocation.registry, reporter.clone())?,
        git_environment: invocation.git_environment.clone(),
        store,
        registry: client,
        launch,
        storage,
        outputs,
        work_dir: work_dir.path().to_owned(),
        cache_mounts_dir: root.join("mounts"),
        cancel,
        steps_running: Arc::default(),
        now: now(),
        build_platform: Platform::host(),
        keep_base_blobs: invocation.outputs.iter().any(|spec| matches!(spec, OutputSpec::Store { .. })),
    };
    let stdout_is_taken = invocation.outputs.iter().any(writes_stdout);
    Ok(Workshop { services, work_dir, stdout_is_taken })
}

/// Lists the files that hold credentials and secrets.
fn private_files(invocation: &Invocation) -> Vec<PathBuf> {
    let auth = invocation.registry.credentials.files.iter().map(|file| PathBuf::from(&file.origin));
    let secrets = invocation.request.secrets.values().filter_map(|source| match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Value(_) => None,
    });
    // Others have the name of a variable where these have their path.
    auth.filter(|path| path.is_absolute()).chain(secrets).collect()
}

/// Returns `request` with its secrets read: during a step in place their files are elsewhere, and empty.
pub fn read_secrets(request: &Request) -> Result<Request, Failure> {
    let mut request = request.clone();
    for source in request.secrets.values_mut() {
        if let SecretSource::File(path) = source {
            let failed = |source| Failure::File { action: "read the secret", path: path.clone(), source };
            *source = SecretSource::Value(std::fs::read(&*path).map_err(failed)?);
        }
    }
    Ok(request)
}

/// Returns the time.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanoseconds: since.subsec_nanos() }
}
