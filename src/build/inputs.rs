//! What a build reads: the Dockerfile, the main context, the named contexts, and the source epoch they imply.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::base::Once;
use super::error::{BuildError, Problem};
use super::offline::refuse_remote;
use super::{Build, ContextSource, DockerfileSource, NamedContext, Request, Services, SshSource};
use crate::context::{
    Archive, Checkout, CheckoutOptions, ContextTree, Fetch, GitServer, GitSource, Ignore, checkout_with,
    find_dockerfile, find_ignore, open_directory, open_stream, parse_git_context,
};
use crate::dockerfile::{self, Dockerfile, Instruction, InstructionKind};
use crate::event::Reporter;
use crate::oci::Platform;
use crate::own_files::OwnFiles;
use crate::plan::{self, Plan, PlanRequest};
use crate::tree::RootDir;

/// What reading a Dockerfile and its contexts needs of the world.
pub struct Workbench<'a> {
    /// Where events go.
    pub reporter: &'a Reporter,
    /// How files are downloaded.
    pub fetch: &'a dyn Fetch,
    /// Variables for the `git` program.
    pub git_environment: &'a [(OsString, OsString)],
    /// Whether that program is in its place.
    pub own_files: &'a OwnFiles,
    /// A directory of the caller's own, which it removes.
    pub work_dir: &'a Path,
}

impl Services {
    pub(super) fn workbench(&self) -> Workbench<'_> {
        Workbench {
            reporter: &self.reporter,
            fetch: &*self.fetch,
            git_environment: &self.git_environment,
            own_files: &self.own_files,
            work_dir: &self.work_dir,
        }
    }
}

/// The secret with a whole `Authorization` header for git.
const GIT_HEADER: &str = "GIT_AUTH_HEADER";

/// The secrets for git, in the order in which they count.
pub const GIT_SECRETS: [&str; 2] = [GIT_HEADER, "GIT_AUTH_TOKEN"];

/// The opened inputs of a build.
pub(super) struct Inputs {
    main: ContextTree,
    named: Once<String, ContextTree>,
    empty: Mutex<Option<Arc<RootDir>>>,
}

/// A Dockerfile as it is written, and what its context hides.
#[derive(Debug)]
pub struct DockerfileText {
    /// Its name as shown in errors.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The ignore file of the main context.
    pub ignore: Arc<Ignore>,
}

/// Reads the Dockerfile of a request without understanding it.
pub fn read_dockerfile(request: &Request, bench: &Workbench<'_>) -> Result<DockerfileText, BuildError> {
    Ok(read_at(request, bench)?.0)
}

fn read_at(request: &Request, bench: &Workbench<'_>) -> Result<(DockerfileText, ContextTree), Problem> {
    let mut context = bench.open(&request.context, "context", request)?;
    let (name, bytes) = find(request, bench, &context)?;
    let ignore = Arc::new(ignore_file(request, &context, &name)?);
    context.tree.ignore = ignore.clone();
    Ok((DockerfileText { name, bytes, ignore }, context.tree))
}

/// Reads and parses the Dockerfile and opens the main context.
pub(super) fn open(request: &Request, services: &Services) -> Result<(Dockerfile, Inputs), BuildError> {
    let (text, main) = read_at(request, &services.workbench())?;
    let DockerfileText { name, bytes, .. } = text;
    let frontend = request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let parsed = dockerfile::check_syntax(&bytes, frontend).and_then(|()| dockerfile::parse(&name, &bytes));
    let dockerfile = parsed.map_err(|error| {
        let span = error.span;
        let problem = Problem::from(error);
        match span {
            Some(span) => {
                let source: Arc<str> = String::from_utf8_lossy(&bytes).into();
                let place = super::Place { name: name.clone(), source, span };
                BuildError { problem, place: Some(place) }
            }
            None => problem.into(),
        }
    })?;
    Ok((dockerfile, Inputs { main, named: Once::default(), empty: Mutex::default() }))
}

/// A context, and the Dockerfile that came instead of one (a lone file on standard input or at a URL).
struct Opened {
    tree: ContextTree,
    lone_dockerfile: Option<Vec<u8>>,
}

impl Workbench<'_> {
    /// Returns the time of a context, in seconds since 1970, if it has one of its own.
    pub(super) fn time(
        &self,
        source: &ContextSource,
        name: &str,
        request: &Request,
    ) -> Result<Option<i64>, Problem> {
        Ok(self.open(source, name, request)?.tree.time)
    }

    /// Opens a context; what is not a local directory is brought below the work directory.
    fn open(&self, source: &ContextSource, name: &str, request: &Request) -> Result<Opened, Problem> {
        let into = self.work_dir.join("contexts").join(name);
        let tree = |tree| Ok(Opened { tree, lone_dockerfile: None });
        match source {
            ContextSource::Directory(path) => {
                let _present = self.own_files.present();
                tree(open_directory(path, Arc::new(Ignore::none()))?)
            }
            ContextSource::Stdin => self.stream(Box::new(std::io::stdin()), &into, None),
            ContextSource::TarFile(path) => {
                let _present = self.own_files.present();
                let file = std::fs::File::open(path).map_err(|source| Problem::Io {
                    action: "open the build context",
                    path: path.clone(),
                    source,
                })?;
                self.stream(Box::new(file), &into, None)
            }
            ContextSource::Url(url) => {
                refuse_remote(request, url)?;
                let fetched = self.fetch.get(url, &[])?;
                self.stream(fetched.reader, &into, fetched.last_modified)
            }
            ContextSource::Object(object) => {
                // A store's credentials may be in files.
                let present = self.own_files.present();
                let fetched = self.fetch.object(object)?;
                drop(present);
                self.stream(fetched.reader, &into, fetched.last_modified)
            }
            ContextSource::Git(text) => {
                refuse_remote(request, text)?;
                let source = parse_git_context(text)?.ok_or_else(|| Problem::Instruction {
                    message: format!("`{text}` is not the address of a git repository"),
                })?;
                let keep = source.keep_git_dir.unwrap_or(false)
                    || request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|v| is_true(v));
                let checkout = self.checkout(source, keep, None, request, &into)?;
                let mut opened = open_directory(&checkout.directory, Arc::new(Ignore::none()))?;
                opened.time = Some(checkout.commit_time);
                opened.commit = Some(checkout.commit);
                tree(opened)
            }
        }
    }

    fn stream(
        &self,
        reader: Box<dyn std::io::Read + Send>,
        into: &Path,
        last_modified: Option<i64>,
    ) -> Result<Opened, Problem> {
        std::fs::create_dir_all(into).map_err(|source| Problem::Io {
            action: "create the directory",
            path: into.to_path_buf(),
            source,
        })?;
        match open_stream(reader, into)? {
            Archive::Tree(mut tree) => {
                for warning in &tree.warnings {
                    self.reporter.warning(format!("build context: {warning}"));
                }
                tree.time = last_modified.or(tree.time);
                Ok(Opened { tree, lone_dockerfile: None })
            }
            Archive::Dockerfile(bytes) => {
                let mut tree = open_directory(into, Arc::new(Ignore::none()))?;
                tree.time = last_modified;
                Ok(Opened { tree, lone_dockerfile: Some(bytes) })
            }
        }
    }
}

impl Workbench<'_> {
    /// Checks a git repository out below `into`, with the agent and the secrets that are meant for it.
    pub(super) fn checkout(
        &self,
        mut source: GitSource,
        keep_git_dir: bool,
        checksum: Option<&str>,
        request: &Request,
        into: &Path,
    ) -> Result<Checkout, Problem> {
        // With a source epoch the files' own times matter, and a checkout has none but the commit's.
        source.mtime_commit |= request.build_args.contains_key("SOURCE_DATE_EPOCH");
        let authorization = git_authorization(request, &source.remote, self.reporter)?;
        let options = CheckoutOptions {
            keep_git_dir,
            checksum,
            ssh_auth_sock: ssh_agent(request),
            known_hosts: None,
            authorization: authorization.as_deref(),
            environment: self.git_environment.to_vec(),
            own_files: self.own_files.clone(),
        };
        Ok(checkout_with(&source, &options, into, self.reporter)?)
    }
}

/// Returns the `Authorization` header that secrets ask for: those for the repository's server alone, `GIT_AUTH_HEADER.HOST`
/// and `GIT_AUTH_TOKEN.HOST`, else those without a host if that server is the build's own ([`Request::git_server`]).
fn git_authorization(
    request: &Request,
    remote: &str,
    reporter: &Reporter,
) -> Result<Option<String>, Problem> {
    use base64::Engine;
    let is_over_http = remote.starts_with("http://") || remote.starts_with("https://");
    let Some(server) = GitServer::of(remote).filter(|_| is_over_http) else { return Ok(None) };
    let read = |id: &str| request.secrets.get(id).map(super::mounts::read_secret).transpose();
    for (suffix, is_bare) in [(format!(".{}", server.host()), false), (String::new(), true)] {
        for id in GIT_SECRETS {
            let Some(secret) = read(&format!("{id}{suffix}"))? else { continue };
            match &request.git_server {
                Some(own) if is_bare && *own != server => {
                    reporter.info(format!(
                        "the secret `{id}` is for `{own}`: `{server}` is asked without it (`{id}.{}` would be for it)",
                        server.host()
                    ));
                    return Ok(None);
                }
                None if is_bare => return Err(Problem::GitSecret { id, host: server.host() }),
                _ => {}
            }
            if id == GIT_HEADER {
                return Ok(Some(String::from_utf8_lossy(&secret).trim().to_owned()));
            }
            let pair = [b"x-access-token:".as_slice(), secret.trim_ascii()].concat();
            return Ok(Some(format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair))));
        }
    }
    Ok(None)
}

pub(super) fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Returns the socket of the agent that git may use.
pub(super) fn ssh_agent(request: &Request) -> Option<&Path> {
    match request.ssh.get("default") {
        Some(SshSource::Agent(path)) => Some(path),
        _ => None,
    }
}

/// Finds the Dockerfile's bytes and the name it is shown by.
fn find(request: &Request, bench: &Workbench<'_>, context: &Opened) -> Result<(String, Vec<u8>), Problem> {
    let missing = |name: &str| Problem::NoDockerfile { name: name.to_owned() };
    match &request.dockerfile {
        DockerfileSource::Bytes(bytes) => Ok(("Dockerfile".to_owned(), bytes.clone())),
        DockerfileSource::Url(url) => {
            refuse_remote(request, url)?;
            let mut bytes = Vec::new();
            let mut reader = std::io::Read::take(bench.fetch.get(url, &[])?.reader, 16 * 1024 * 1024);
            std::io::Read::read_to_end(&mut reader, &mut bytes).map_err(|source| Problem::Io {
                action: "read the Dockerfile at",
                path: url.into(),
                source,
            })?;
            Ok((url.rsplit('/').next().unwrap_or("Dockerfile").to_owned(), bytes))
        }
        DockerfileSource::Default => match &context.lone_dockerfile {
            Some(bytes) => Ok(("Dockerfile".to_owned(), bytes.clone())),
            None => find_dockerfile(&context.tree.root, None)?.ok_or_else(|| missing("Dockerfile")),
        },
        DockerfileSource::Path(path) => {
            if let Some(bytes) = &context.lone_dockerfile {
                return Ok(("Dockerfile".to_owned(), bytes.clone()));
            }
            let shown = path.display().to_string();
            let name = path.file_name().map_or(shown.clone(), |name| name.to_string_lossy().into_owned());
            // Beside a remote context the file may be here, or there.
            if !matches!(request.context, ContextSource::Directory(_)) && !path.exists() {
                let inside = if path.is_absolute() { &name } else { &shown };
                let found = find_dockerfile(&context.tree.root, Some(inside))?;
                return found.map(|(_, bytes)| (name, bytes)).ok_or_else(|| missing(&shown));
            }
            let (directory, _) = split(path);
            let root = RootDir::open(&directory).map_err(|source| Problem::Io {
                action: "open the Dockerfile's directory",
                path: directory,
                source,
            })?;
            let wanted = (name != "Dockerfile").then_some(name.as_str());
            let found = find_dockerfile(&root, wanted)?.ok_or_else(|| missing(&shown))?;
            Ok((found.0, found.1))
        }
    }
}

fn split(path: &Path) -> (PathBuf, PathBuf) {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    (directory, path.file_name().map(PathBuf::from).unwrap_or_default())
}

/// Finds the ignore file of the main context: the Dockerfile's own goes before the context's.
fn ignore_file(request: &Request, context: &Opened, name: &str) -> Result<Ignore, Problem> {
    let root = &context.tree.root;
    let found = match (&request.dockerfile, &request.context) {
        (DockerfileSource::Path(path), ContextSource::Directory(_)) => {
            let (directory, _) = split(path);
            let beside = RootDir::open(&directory).map_err(|source| Problem::Io {
                action: "open the Dockerfile's directory",
                path: directory,
                source,
            })?;
            find_ignore(root, Some((&beside, Path::new(name))))?
        }
        (DockerfileSource::Path(path), _) => find_ignore(root, Some((root, path)))?,
        (DockerfileSource::Default, _) => find_ignore(root, Some((root, Path::new(name))))?,
        _ => find_ignore(root, None)?,
    };
    Ok(found)
}

/// Plans the build of a parsed Dockerfile.
pub(super) fn plan(
    dockerfile: &Dockerfile,
    request: &Request,
    services: &Services,
    platform: &Platform,
) -> Result<Plan, BuildError> {
    let request = plan_request(request, &services.build_platform, platform);
    plan::plan(dockerfile, &request).map_err(|error| {
        let span = error.span;
        let problem = Problem::from(error);
        match span {
            Some(span) => problem.at(dockerfile, span),
            None => problem.into(),
        }
    })
}

/// Returns what planning and checking need of a request.
pub(super) fn plan_request(
    request: &Request,
    build_platform: &Platform,
    target_platform: &Platform,
) -> PlanRequest {
    PlanRequest {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        build_platform: build_platform.clone(),
        target_platform: target_platform.clone(),
        contexts: request.named_contexts.keys().cloned().collect(),
    }
}

impl Inputs {
    /// Returns the same inputs for another try: what a failed one has opened may be half there.
    pub(super) fn again(&self) -> Self {
        Self { main: self.main.clone(), named: Once::default(), empty: Mutex::default() }
    }

    /// Says before anything is fetched why the steps of this build should not run here. Has the contexts stay readable while
    /// they run, wherever that takes them; returns the request with their places.
    pub(super) fn settle(
        &mut self,
        request: &Request,
        plan: &Plan,
        services: &Services,
    ) -> Result<Request, BuildError> {
        let runs = |instruction: &Instruction| matches!(instruction.kind, InstructionKind::Run(_));
        let mut settled = request.clone();
        if !plan.reachable.iter().any(|id| plan.stages[id.0].steps.iter().any(runs)) {
            return Ok(settled);
        }
        let copies = services.launch.check().map_err(Problem::from)?;
        let place = |path: &Path| copies.of(path);
        if let ContextSource::Directory(path) = &mut settled.context
            && let Some(copy) = place(path)
        {
            self.main.root =
                Arc::new(RootDir::open(&copy).map_err(super::mounts::io_problem("open", &copy))?);
            *path = copy;
        }
        for context in settled.named_contexts.values_mut() {
            match context {
                NamedContext::Files(ContextSource::Directory(path) | ContextSource::TarFile(path)) => {
                    if let Some(copy) = place(path) {
                        *path = copy;
                    }
                }
                NamedContext::Layout(spec) => {
                    let (path, rest) = super::base::layout_path(spec);
                    if let Some(copy) = place(Path::new(path)) {
                        *spec = format!("{}{rest}", copy.display());
                    }
                }
                NamedContext::Files(_) | NamedContext::Image(_) => {}
            }
        }
        Ok(settled)
    }

    /// Returns the main context.
    pub(super) fn main(&self) -> &ContextTree {
        &self.main
    }

    /// Returns a named context of files, opened the first time it is asked for.
    pub(super) fn named_context(&self, build: &Build<'_>, name: &str) -> Result<ContextTree, Problem> {
        let source = match build.request.named_contexts.get(name) {
            Some(NamedContext::Files(source)) => source,
            Some(NamedContext::Image(text)) if text == "scratch" => {
                return Ok(open_directory(self.empty_root(build)?.path(), Arc::new(Ignore::none()))?);
            }
            _ => {
                return Err(Problem::Instruction { message: format!("no build context is called `{name}`") });
            }
        };
        self.named.get(name.to_owned(), || {
            let directory: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let bench = build.services.workbench();
            let mut tree = bench.open(source, &format!("named-{directory}"), build.request)?.tree;
            tree.ignore = Arc::new(find_ignore(&tree.root, None)?);
            Ok(tree)
        })
    }

    /// Returns an empty tree: what `--from=scratch` means.
    pub(super) fn empty_root(&self, build: &Build<'_>) -> Result<Arc<RootDir>, Problem> {
        let mut empty = self.empty.lock().expect("no panic while the empty tree is made");
        if let Some(root) = &*empty {
            return Ok(root.clone());
        }
        let path = build.services.work_dir.join("empty");
        let problem = |source| Problem::Io { action: "create the directory", path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(problem)?;
        let root = Arc::new(RootDir::open(&path).map_err(problem)?);
        *empty = Some(root.clone());
        Ok(root)
    }
}
