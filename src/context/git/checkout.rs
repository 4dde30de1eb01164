//! Checking out with the `git` program.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;

use super::GitSource;
use super::fetch::{fetch, is_commit, starts_with, without_depth};
use super::program::{Git, ssh_command};
use crate::context::ContextError;
use crate::context::ignore::clean;
use crate::event::{Event, Reporter, TransferKind};
use crate::own_files::OwnFiles;
use crate::text::without_credentials;
use crate::tree::{FileKind, RootDir, Timestamp, Walk};

/// A commit's files on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The tree, or the subdirectory asked for.
    pub directory: PathBuf,
    /// The commit's full hash.
    pub commit: String,
    /// The committer's time, in seconds since 1970.
    pub commit_time: i64,
}

/// How to check out.
#[derive(Debug, Clone, Default)]
pub struct CheckoutOptions<'a> {
    /// Whether `.git` stays. It never does where a subdirectory is asked for.
    pub keep_git_dir: bool,
    /// `ADD --checksum`; goes before the source's own.
    pub checksum: Option<&'a str>,
    /// The agent with the keys for `ssh`.
    pub ssh_auth_sock: Option<&'a Path>,
    /// The keys of hosts reached by `ssh`. Without them no key is checked.
    pub known_hosts: Option<&'a Path>,
    /// The value of an `Authorization` header for the remote's server (`GIT_AUTH_HEADER`).
    pub authorization: Option<&'a str>,
    /// Variables for git: `PATH`, proxies, `GIT_SSL_CAINFO`.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the program is in its place.
    pub own_files: OwnFiles,
}

/// Checks `source` out below `work_dir`.
pub fn checkout(
    source: &GitSource,
    keep_git_dir: bool,
    checksum: Option<&str>,
    ssh_auth_sock: Option<&Path>,
    work_dir: &Path,
    reporter: &Reporter,
) -> Result<Checkout, ContextError> {
    let options = CheckoutOptions { keep_git_dir, checksum, ssh_auth_sock, ..CheckoutOptions::default() };
    checkout_with(source, &options, work_dir, reporter)
}

/// Checks `source` out below `work_dir`.
///
/// Files become 0644 or 0755 and directories 0755, whatever the umask is.
pub fn checkout_with(
    source: &GitSource,
    options: &CheckoutOptions<'_>,
    work_dir: &Path,
    reporter: &Reporter,
) -> Result<Checkout, ContextError> {
    let checksum = checksum(source, options)?;
    let tree = work_dir.join("checkout");
    match fs::remove_dir_all(&tree) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ContextError::file("remove", &tree)(error));
        }
        _ => {}
    }
    fs::create_dir_all(&tree).map_err(ContextError::file("create the directory", &tree))?;
    let remote = Remote::new(source, options)?;
    if options.known_hosts.is_none() && remote.is_ssh {
        reporter.report(Event::Warning {
            text: format!("the host key of `{}` is not checked", remote.url),
            hint: Some("pass a known_hosts file to have it checked".to_owned()),
        });
    }
    let git = Git {
        url: &remote.url,
        directory: &tree,
        git_dir: tree.join(".git"),
        environment: environment(options),
        settings: remote.settings.clone(),
        moved: Mutex::default(),
        own_files: options.own_files.clone(),
        reporter,
    };
    let transfer = reporter.transfer(TransferKind::Fetch, &remote.url, None);
    let commit = fetch(&git, source, checksum.as_deref())?;
    git.run(&["checkout", "--quiet", "--force", "--detach", &commit])?;
    let commit_time = commit_time(&git, &commit)?;
    if source.submodules != Some(false) {
        update_submodules(&git)?;
    }
    transfer.finish("done");
    finish(&git, source, options.keep_git_dir, &commit).and_then(|subdir| {
        let root = RootDir::open(&tree).map_err(ContextError::file("open", &tree))?;
        normalise(&root, source.mtime_commit.then_some(commit_time))
            .map_err(ContextError::file("prepare the checkout", &tree))?;
        Ok(Checkout { directory: tree.join(subdir), commit, commit_time })
    })
}

/// Where a source is fetched from, with credentials set apart.
struct Remote {
    url: String,
    is_ssh: bool,
    settings: Vec<(String, String)>,
}

impl Remote {
    /// Credentials in an HTTP URL become a header, in a setting for the server that no command line or file shows. Git
    /// follows no redirects of that server: it would take the header along.
    fn new(source: &GitSource, options: &CheckoutOptions<'_>) -> Result<Self, ContextError> {
        let text = &source.remote;
        if !text.starts_with("http://") && !text.starts_with("https://") {
            let is_ssh = !text.starts_with("git://");
            return Ok(Self { url: text.clone(), is_ssh, settings: Vec::new() });
        }
        let url = without_credentials(text);
        let parsed = url::Url::parse(text)
            .map_err(|error| ContextError::Url { url: url.clone(), reason: error.to_string() })?;
        let user = super::source::decoded(parsed.username());
        let password = super::source::decoded(parsed.password().unwrap_or_default());
        let authorization = match options.authorization {
            Some(authorization) => Some(authorization.to_owned()),
            None if user.is_empty() && password.is_empty() => None,
            None => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {pair}"))
            }
        };
        let scope = format!("{}/", parsed.origin().ascii_serialization());
        let settings = authorization.map_or_else(Vec::new, |value| {
            vec![
                (format!("http.{scope}.extraHeader"), format!("Authorization: {value}")),
                (format!("http.{scope}.followRedirects"), "false".to_owned()),
            ]
        });
        Ok(Self { url, is_ssh: false, settings })
    }
}

fn environment(options: &CheckoutOptions<'_>) -> Vec<(OsString, OsString)> {
    let mut environment = options.environment.clone();
    environment.push(("GIT_SSH_COMMAND".into(), ssh_command(options.known_hosts)));
    if let Some(socket) = options.ssh_auth_sock {
        environment.push(("SSH_AUTH_SOCK".into(), socket.into()));
    }
    environment
}

/// Checks that what is asked for fits together; returns the checksum.
fn checksum(source: &GitSource, options: &CheckoutOptions<'_>) -> Result<Option<String>, ContextError> {
    let checksum = options.checksum.or(source.checksum.as_deref());
    let text = |reason: String| ContextError::GitText { text: without_credentials(&source.remote), reason };
    if let Some(checksum) = checksum {
        if checksum.is_empty() || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ContextError::GitChecksumFormat { checksum: checksum.to_owned() });
        }
        match &source.reference {
            Some(commit) if is_commit(commit) && !starts_with(commit, checksum) => {
                return Err(ContextError::GitChecksum {
                    expected: checksum.to_owned(),
                    found: commit.clone(),
                });
            }
            _ => {}
        }
    }
    let by_reference = source.reference.as_deref().is_some_and(is_commit);
    if source.fetch_by_commit && !by_reference {
        match checksum {
            None => return Err(text("fetch-by-commit requires a checksum or a commit SHA ref".to_owned())),
            Some(checksum) if !is_commit(checksum) => {
                return Err(text(format!(
                    "fetch-by-commit requires a full commit SHA checksum, got {checksum:?}"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(checksum.map(str::to_owned))
}

fn update_submodules(git: &Git<'_>) -> Result<(), ContextError> {
    if !git.directory.join(".gitmodules").exists() {
        return Ok(());
    }
    let arguments = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
    without_depth(git, &arguments)?.map_err(|failure| git.error(failure))
}

fn commit_time(git: &Git<'_>, commit: &str) -> Result<i64, ContextError> {
    let text = git.run(&["log", "-1", "--format=%ct", "--end-of-options", commit])?;
    text.trim().parse().map_err(|_| ContextError::Git {
        url: git.url.to_owned(),
        command: "log".to_owned(),
        output: format!("expected a time, found `{}`", text.trim()),
    })
}

/// Removes what does not belong into the tree, and returns the directory asked for.
fn finish(
    git: &Git<'_>,
    source: &GitSource,
    keep_git_dir: bool,
    commit: &str,
) -> Result<PathBuf, ContextError> {
    let cleaned = clean(&format!("/{}", source.subdir.as_deref().unwrap_or_default()));
    let subdir = Path::new(cleaned.trim_start_matches('/'));
    let root = RootDir::open(git.directory).map_err(ContextError::file("open", git.directory))?;
    let failed = |path: &Path, error| ContextError::file("remove", &git.directory.join(path))(error);
    if keep_git_dir && subdir.as_os_str().is_empty() {
        git.run(&["reflog", "expire", "--all", "--expire=now"])?;
        if root.exists(".git/FETCH_HEAD").map_err(|error| failed(Path::new(".git/FETCH_HEAD"), error))? {
            root.remove_file(".git/FETCH_HEAD")
                .map_err(|error| failed(Path::new(".git/FETCH_HEAD"), error))?;
        }
    } else {
        root.remove_all(".git").map_err(|error| failed(Path::new(".git"), error))?;
    }
    // A link on the way would lead to another directory than the one that was named.
    let mut path = PathBuf::new();
    for component in subdir.components() {
        path.push(component);
        let is_directory = matches!(component, Component::Normal(_))
            && root.metadata(&path).is_ok_and(|metadata| metadata.kind == FileKind::Directory);
        if !is_directory {
            return Err(ContextError::GitSubdir {
                url: git.url.to_owned(),
                commit: commit.to_owned(),
                subdir: subdir.display().to_string(),
            });
        }
    }
    Ok(subdir.to_path_buf())
}

/// Gives files the modes that git knows, and a time if there is one.
fn normalise(root: &RootDir, time: Option<i64>) -> io::Result<()> {
    let mtime = time.map(|seconds| Timestamp { seconds, nanoseconds: 0 });
    let mut directories = vec![PathBuf::new()];
    for entry in Walk::new(root, "")? {
        let entry = entry?;
        let in_git_dir = entry.path.starts_with(".git");
        let mode = match entry.metadata.kind {
            FileKind::Directory => 0o755,
            FileKind::File if in_git_dir => entry.metadata.mode & !0o022,
            FileKind::File if entry.metadata.mode & 0o111 != 0 => 0o755,
            FileKind::File => 0o644,
            _ => entry.metadata.mode,
        };
        if mode != entry.metadata.mode {
            root.set_mode(&entry.path, mode)?;
        }
        match (entry.metadata.kind, mtime) {
            (FileKind::Directory, _) => directories.push(entry.path),
            (_, Some(mtime)) => root.set_mtime(&entry.path, mtime)?,
            (_, None) => {}
        }
    }
    root.set_mode("", 0o755)?;
    if let Some(mtime) = mtime {
        for directory in directories.iter().rev() {
            root.set_mtime(directory, mtime)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
