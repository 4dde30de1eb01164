//! Opens the sockets: the only place that knows which implementations there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::fail::Failure;
use super::home::{Home, Site};
use super::request::{Invocation, writes_stdout};
use super::values::CachePlace;
use crate::blob::{RECORDS_DIRECTORY, Store};
use crate::build::{
    BuildError, ContextSource, NamedContext, Problem, Request, SecretSource, Services, SshKey, SshSource,
};
use crate::cache::{self, CacheError, Caches, MountCaches, MountSink, SharedCache, Sink};
use crate::context::{Fetch, HttpFetch, HttpOptions, Proxies};
use crate::dns::Resolver;
use crate::event::{Event, Reporter};
use crate::oci::{Platform, Reference};
use crate::output::{self, Output, OutputParts, OutputSpec};
use crate::registry::{Client, RegistryConfig};
use crate::rootfs::{self, StorageKind, WorkDir};
use crate::sandbox::{
    self, CacheDirectory, Cancel, Entered, Ground, KilnFiles, LaunchOptions, MemoryDir, OWN_IMAGE_MARKER,
    SecretValues,
};
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
        work_dir.remove()
    }
}

/// Opens the store; who keeps it waiting is told to `reporter`.
pub fn open_store(home: &Home, reporter: &Reporter) -> Result<Arc<Store>, Failure> {
    Ok(Store::open_telling(&home.store(), reporter)?)
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
pub fn stdout() -> output::OpenStdout {
    Arc::new(|| Box::new(std::io::stdout()))
}

/// Opens what downloads files, with the proxies and authorities that registries have.
pub fn open_fetch(registry: &RegistryConfig, reporter: Reporter) -> Arc<dyn Fetch> {
    let reveal = |secret: &Option<crate::registry::Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
    let options = HttpOptions {
        proxies: Proxies {
            http: reveal(&registry.proxies.http),
            https: reveal(&registry.proxies.https),
            no_proxy: registry.proxies.no_proxy.clone(),
        },
        resolver: Arc::new(Resolver::new(registry.resolv_conf.as_deref(), registry.hosts_file.as_deref())),
        extra_authorities: registry.extra_authorities.clone(),
        connect_timeout: registry.retries.connect_timeout,
        stall_timeout: registry.retries.stall_timeout,
        ..HttpOptions::default()
    };
    Arc::new(HttpFetch::new(options, reporter))
}

/// Opens a directory of this process's own, and removes what killed ones left.
pub fn open_work_dir(home: &Home, reporter: &Reporter) -> Result<WorkDir, Failure> {
    Ok(WorkDir::create(&home.work(), reporter)?)
}

/// Opens everything for building the same again beside `first`: no outputs, other storage where there is another,
/// cache mounts of its own. Steps run where they ran.
pub fn open_second_workshop(
    invocation: &Invocation,
    site: &Site,
    first: &Services,
    reporter: &Reporter,
) -> Result<Workshop, Failure> {
    let mut workshop = open_workshop(invocation, site, Arc::clone(&first.cancel), reporter)?;
    let services = &mut workshop.services;
    services.launch = Arc::clone(&first.launch);
    services.steps_running = Arc::clone(&first.steps_running);
    services.cache_mounts_dir = services.work_dir.join("mounts");
    // A storage that is not the best here is a directory already.
    let trees = site.home.trees();
    services.storage =
        rootfs::open(StorageKind::Directory, &services.work_dir, &trees, &services.ground, reporter.clone())?;
    Ok(workshop)
}

/// Opens everything for a build.
pub fn open_workshop(
    invocation: &Invocation,
    Site { home, entered }: &Site,
    cancel: Arc<Cancel>,
    reporter: &Reporter,
) -> Result<Workshop, Failure> {
    let own_files = invocation.registry.credentials.own_files.clone();
    let store = open_store(home, reporter)?;
    let work_dir = open_work_dir(home, reporter)?;
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
    let (kind, reason) = rootfs::choose(entered, work_dir.path());
    let mut entered = entered.clone();
    if let StorageKind::Overlay { userxattr } = kind {
        // Steps mount overlays, too: as it was found to work here.
        entered.overlay_userxattr = userxattr;
    }
    let options = LaunchOptions {
        state_dir: home.sandbox(),
        dns,
        secrets_dir: secrets_dir(work_dir.path()),
        private_files: private_files(invocation),
        secret_values: secret_values(invocation),
        allow_visible_credentials: invocation.sandbox.allow_visible_credentials,
        hardened: invocation.sandbox.hardened,
        own_files: own_files.clone(),
        kiln_files: kiln_files(invocation, home),
        cache_directories: cache_files(invocation),
        volume_limit_bytes: invocation.request.volume_limit_bytes,
    };
    let launch = sandbox::open(&entered, options)?;
    reporter.debug(format!("steps: {}; {}", launch.name(), entered.description));
    reporter.debug(format!("storage: {reason}"));
    let storage = rootfs::open(kind, work_dir.path(), &home.trees(), &entered.ground, reporter.clone())?;
    let parts = CacheParts { client: &client.impatient(), store: &store, ground: &entered.ground };
    let caches = open_caches(invocation, parts, reporter);
    let mount_caches = open_mount_caches(invocation, parts, reporter);
    let services = Services {
        reporter: reporter.clone(),
        fetch: open_fetch(&invocation.registry, reporter.clone()),
        git_environment: invocation.git_environment.clone(),
        own_files,
        store,
        registry: client,
        launch,
        ground: Arc::clone(&entered.ground),
        storage,
        outputs,
        secrets: open_secrets(&entered, work_dir.path(), reporter)?,
        caches: Arc::new(caches),
        mount_caches,
        work_dir: work_dir.path().to_owned(),
        cache_mounts_dir: home.mounts(),
        cancel,
        steps_running: Arc::default(),
        now: now(),
        build_platform: Platform::host(),
        keep_base_blobs: invocation.outputs.iter().any(|spec| matches!(spec, OutputSpec::Store { .. })),
    };
    let stdout_is_taken = invocation.outputs.iter().any(writes_stdout);
    Ok(Workshop { services, work_dir, stdout_is_taken })
}

/// Says what of kiln's own a step in place is to leave as it is.
fn kiln_files(invocation: &Invocation, home: &Home) -> KilnFiles {
    let (mut fixed, mut container) = (Vec::new(), Vec::new());
    // In kiln's own image that is everything below its one directory, and the shell that runs the job.
    let marker = Path::new(OWN_IMAGE_MARKER);
    if marker.exists() {
        fixed.extend(marker.parent().map(Path::to_owned));
        fixed.push("/busybox".into());
        container.push("/".into());
    }
    let store = home.store();
    fixed.extend(store.parent().map(Path::to_owned));
    fixed.extend(std::env::current_exe().ok());
    let local = cache_files(invocation);
    let local = local.iter().flat_map(|cache| cache.own_names().map(|name| cache.path.join(name)));
    let mut work = vec![home.work(), home.trees(), home.mounts(), home.sandbox()];
    work.extend(Store::CONTENT.map(|name| store.join(name)));
    work.extend(local);
    let request = &invocation.request;
    let named = request.named_contexts.values().filter_map(|named| match named {
        NamedContext::Files(source) => Some(source),
        NamedContext::Image(_) | NamedContext::Layout(_) => None,
    });
    let jobs = std::iter::once(&request.context).chain(named).filter_map(|context| match context {
        ContextSource::Directory(path) => std::path::absolute(path).ok(),
        _ => None,
    });
    KilnFiles {
        fixed,
        names: home.names(),
        container,
        jobs: jobs.collect(),
        work,
        read: read_files(invocation),
    }
}

/// Lists what kiln reads or runs by its path without being asked to, in this build or the next command, whether it is there or
/// not.
fn read_files(invocation: &Invocation) -> Vec<PathBuf> {
    let RegistryConfig { credentials, key_files, .. } = &invocation.registry;
    let mut files = invocation.own_paths.list();
    files.extend(credentials.paths().into_iter().chain(credentials.programs()).chain(key_files.clone()));
    files.into_iter().filter_map(|path| std::path::absolute(path).ok()).collect()
}

/// Where Kubernetes mounts a pod's own credential, unless it is told not to.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Lists the files that hold credentials, secrets and keys, and the agents that use some.
///
/// Whatever a build is told is named here: who adds a field decides whether it leads to such a file.
fn private_files(invocation: &Invocation) -> Vec<PathBuf> {
    let Invocation {
        request,
        registry,
        ssh_agent,
        // Others are among the credentials below.
        own_paths: _,
        // Variables that are no paths of credentials.
        git_environment: _,
        outputs: _,
        caches: _,
        isolation: _,
        sandbox: _,
        verify: _,
        reports: _,
        progress: _,
        debug: _,
        warnings: _,
    } = invocation;
    let RegistryConfig {
        credentials,
        key_files,
        // What was read from other files: certificates, name servers, rules.
        hosts: _,
        waived: _,
        extra_authorities: _,
        mirrors: _,
        retries: _,
        proxies: _,
        user_agent: _,
        resolv_conf: _,
        hosts_file: _,
        http2: _,
        offline: _,
    } = registry;
    let Request {
        secrets,
        ssh,
        // What is built, of what, and how.
        dockerfile: _,
        context: _,
        named_contexts: _,
        build_args: _,
        target: _,
        platform: _,
        labels: _,
        annotations: _,
        names: _,
        pull: _,
        offline: _,
        no_cache: _,
        explain: _,
        network: _,
        add_hosts: _,
        shm_size_bytes: _,
        ulimits: _,
        git_server: _,
        allow: _,
        volume_limit_bytes: _,
        compression: _,
        format: _,
        epoch: _,
        rewrite_timestamp: _,
        single_layer: _,
        base_layouts: _,
        ignore_paths: _,
        jobs: _,
        compression_threads: _,
    } = request;
    let secrets = secrets.values().filter_map(|source| match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Value(_) => None,
    });
    let ssh = ssh.values().flat_map(|source| match source {
        SshSource::Agent(path) => vec![path.clone()],
        SshSource::KeyFiles(paths) => paths.clone(),
        SshSource::Keys(keys) => keys.iter().map(|key| key.path.clone()).collect(),
    });
    let mut files = credentials.paths();
    files.push(SERVICE_ACCOUNT_TOKEN.into());
    files.extend(key_files.iter().chain(ssh_agent).cloned().chain(secrets).chain(ssh));
    files
}

/// Says where kiln's caches are beside its own root, and what in them later builds believe.
fn cache_files(invocation: &Invocation) -> Vec<CacheDirectory> {
    let absolute =
        cache_directories(invocation).into_iter().filter_map(|path| std::path::absolute(path).ok());
    let unique: BTreeSet<PathBuf> = absolute.collect();
    let directory = |path| {
        let [blobs, sessions, lock] = Store::CONTENT.map(PathBuf::from);
        let (files, records) = (Store::NAMES.map(PathBuf::from).into(), RECORDS_DIRECTORY.into());
        CacheDirectory { path, files, records, blobs, sessions, lock }
    };
    unique.into_iter().map(directory).collect()
}

/// Lists the values of variables that are credentials or secrets.
fn secret_values(invocation: &Invocation) -> SecretValues {
    // Of all that sources of credentials look at, by what such names have in them.
    const TELLING: [&str; 4] = ["TOKEN", "PASSWORD", "SECRET", "_KEY"];
    // Shorter ones are the value of other variables, too: `true`, a number.
    const SHORTEST_BYTES: usize = 8;
    let is_telling = |name: &str| TELLING.iter().any(|part| name.contains(part)) && !name.ends_with("_FILE");
    let variables = &invocation.registry.credentials.environment;
    let variables = variables.iter().filter(|(name, _)| is_telling(name));
    let lent = invocation.request.secrets.values().filter_map(|source| match source {
        SecretSource::File(_) => None,
        SecretSource::Value(value) => Some(value.clone()),
    });
    let all = variables.map(|(_, value)| value.clone().into_bytes()).chain(lent);
    SecretValues(all.filter(|value| value.len() >= SHORTEST_BYTES).collect())
}

/// Lists the directories that kiln works in beside its own root.
fn cache_directories(invocation: &Invocation) -> Vec<PathBuf> {
    let setup = &invocation.caches;
    let mounts = setup.mounts_from.iter().chain(&setup.mounts_to).map(|option| &option.place);
    let steps =
        setup.sources.iter().map(|(place, _)| place).chain(setup.sinks.iter().map(|(place, _)| place));
    let places = steps.chain(mounts);
    let local = places.filter_map(|place| match place {
        CachePlace::Local(path) => Some(path.clone()),
        CachePlace::Own | CachePlace::Registry(_) => None,
    });
    local.chain(invocation.request.base_layouts.iter().cloned()).collect()
}

/// Returns `request` with the secrets and keys that steps are lent read: during a step in place their files are elsewhere, and
/// empty.
pub fn read_lent(request: &Request) -> Result<Request, Failure> {
    let mut request = request.clone();
    for source in request.secrets.values_mut() {
        if let SecretSource::File(path) = source {
            let failed = |source| Failure::File { action: "read the secret", path: path.clone(), source };
            *source = SecretSource::Value(std::fs::read(&*path).map_err(failed)?);
        }
    }
    for source in request.ssh.values_mut() {
        if let SshSource::KeyFiles(paths) = source {
            let read = |path: &PathBuf| {
                let failed = |source| Failure::File { action: "read the key", path: path.clone(), source };
                SshKey::read(path).map_err(failed)
            };
            *source = SshSource::Keys(paths.iter().map(read).collect::<Result<_, _>>()?);
        }
    }
    Ok(request)
}

/// Returns where the secrets of steps lie below a build's own directory.
fn secrets_dir(work_dir: &Path) -> PathBuf {
    work_dir.join("secrets")
}

/// Makes the directory for secrets.
fn open_secrets(entered: &Entered, work_dir: &Path, reporter: &Reporter) -> Result<MemoryDir, Failure> {
    let path = secrets_dir(work_dir);
    let secrets = MemoryDir::create(path.clone(), entered).map_err(|source| {
        let problem = Problem::Io { action: "create the directory", path, source };
        Failure::from(BuildError::from(problem))
    })?;
    if !secrets.is_in_memory() {
        reporter.debug("secrets: files in the work directory, since nothing can be mounted here".to_owned());
    }
    Ok(secrets)
}

/// Opens the caches of a build, which can do without them. One that cannot be opened is a warning, as one that cannot be reached is.
fn open_caches(invocation: &Invocation, parts: CacheParts<'_>, reporter: &Reporter) -> Caches {
    let (setup, names) = (&invocation.caches, &invocation.request.names);
    let open = |place, writes| open_or_warn(open_cache(place, parts, names, writes), reporter);
    let sources = setup.sources.iter().filter_map(|(place, verifies)| {
        let cache = open(place, false)?;
        Some(if *verifies { cache::open_verified(cache) } else { cache })
    });
    let sinks = setup.sinks.iter().filter_map(|(place, mode)| {
        let cache = open(place, true)?;
        Some(Sink { cache, mode: *mode, is_own: *place == CachePlace::Own })
    });
    let caches = Caches::new(sources.collect(), sinks.collect(), reporter.clone());
    caches.using_hits(setup.use_hits).with_most_age(setup.most_age, now().seconds)
}

fn open_or_warn(opened: Result<SharedCache, CacheError>, reporter: &Reporter) -> Option<SharedCache> {
    opened
        .inspect_err(|error| {
            let text = format!("{}; the build goes on without this cache", error.full());
            reporter.report(Event::Warning { text, hint: error.hint() });
        })
        .ok()
}

/// Opens where cache mounts come from and go to.
fn open_mount_caches(invocation: &Invocation, parts: CacheParts<'_>, reporter: &Reporter) -> MountCaches {
    let (from, to) = (&invocation.caches.mounts_from, &invocation.caches.mounts_to);
    let open = |place, writes| open_or_warn(open_cache(place, parts, &[], writes), reporter);
    let sources = from.iter().filter_map(|option| open(&option.place, false)).collect();
    let sinks = to.iter().filter_map(|option| {
        let cache = open(&option.place, true)?;
        Some(MountSink { cache, most_bytes: option.most_bytes })
    });
    MountCaches { sources, sinks: sinks.collect() }
}

/// What caches are opened with.
#[derive(Clone, Copy)]
pub struct CacheParts<'a> {
    /// Reaches registries.
    pub client: &'a Client,
    /// kiln's own store.
    pub store: &'a Arc<Store>,
    /// What kiln's files have to do with steps.
    pub ground: &'a Arc<Ground>,
}

/// Opens a cache; layers are mounted from the repositories of `names` where these have them.
pub fn open_cache(
    place: &CachePlace,
    parts: CacheParts<'_>,
    names: &[Reference],
    writes: bool,
) -> Result<SharedCache, CacheError> {
    let CacheParts { client, store, ground } = parts;
    Ok(match place {
        CachePlace::Own => cache::open_store(Arc::clone(store), true, ground),
        CachePlace::Registry(reference) => {
            cache::open_registry(client.clone(), reference.clone(), names.to_vec())
        }
        CachePlace::Local(path) if writes => cache::open_local(path, ground)?,
        CachePlace::Local(path) => cache::open_local_source(path, ground)?,
    })
}

/// Returns the time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanoseconds: since.subsec_nanos() }
}
