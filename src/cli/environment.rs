//! What the process was given beside its arguments: environment, working directory, terminals, user.
//!
//! Read once, here; everything else in `cli/` takes this value, so that it can be tested without touching
//! the process. Paths of the machine that kiln reads unasked come from here alone, and are remembered ([`OwnPaths`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sandbox::OWN_IMAGE_MARKER;
use crate::threads;

/// The surroundings of a command.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub directory: PathBuf,
    /// Whether standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether the user is root.
    pub is_root: bool,
    /// User and group.
    pub user: (u32, u32),
    /// Whether this is kiln's own container image: then everything of kiln's is below `/kiln`.
    pub own_image: bool,
    /// How many CPUs may be used.
    pub cpus: usize,
    /// What was asked for of the machine's own files.
    pub own_paths: OwnPaths,
}

/// Paths of the machine that kiln reads or runs unasked, whether something is there or not. Clones are the same.
///
/// What a step puts there the next command would believe: who keeps kiln's own files from steps looks at all of them.
#[derive(Debug, Clone, Default)]
pub struct OwnPaths(Arc<Mutex<BTreeSet<PathBuf>>>);

impl OwnPaths {
    /// Lists those that were asked for until now.
    pub fn list(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    }
}

impl Environment {
    /// Reads the process's own.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            stdin_is_terminal: stdin().is_terminal(),
            stdout_is_terminal: stdout().is_terminal(),
            stderr_is_terminal: stderr().is_terminal(),
            user: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            is_root: rustix::process::geteuid().is_root(),
            own_image: Path::new(OWN_IMAGE_MARKER).exists(),
            cpus: threads::count(usize::MAX),
            own_paths: OwnPaths::default(),
        }
    }

    /// Returns the path of one of the machine's own files or directories, for who reads or runs it.
    pub fn own(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.directory.join(path);
        self.own_paths.add(&path);
        path
    }

    /// Returns a path in the user's home directory.
    pub fn in_home(&self, rest: impl AsRef<Path>) -> PathBuf {
        self.own(self.home().join(rest))
    }

    /// Returns a path where the user's configuration is: XDG's directory.
    pub fn in_config(&self, rest: impl AsRef<Path>) -> PathBuf {
        match self.os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()) {
            Some(path) => self.own(Path::new(path).join(rest)),
            None => self.in_home(Path::new(".config").join(rest)),
        }
    }

    /// Returns the path that a variable has, if it is set.
    pub fn named(&self, variable: &str) -> Option<PathBuf> {
        self.set_var(variable).map(|path| self.own(path))
    }

    /// Returns what the `git` program needs to know: where programs are, and how the network is reached.
    ///
    /// Programs are looked for where `git` is now before anywhere else, and never from where it is run.
    pub fn for_git(&self) -> Vec<(OsString, OsString)> {
        const NAMES: [&str; 9] = [
            "GIT_SSL_CAINFO",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
        ];
        const PROGRAMS: [&str; 4] = ["git", "git-remote-http", "git-remote-https", "ssh"];
        let known = |name: &&str| Some((OsString::from(*name), self.os(name)?.to_owned()));
        let mut variables: Vec<_> = NAMES.iter().filter_map(known).collect();
        let path = self.os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> =
            std::env::split_paths(path).filter(|place| place.is_absolute()).collect();
        for place in &places {
            PROGRAMS.iter().for_each(|name| self.own_paths.add(&place.join(name)));
        }
        self.named("GIT_SSL_CAINFO");
        if let Some(index) = places.iter().position(|place| place.join("git").is_file()) {
            places[..=index].rotate_right(1);
            // kiln's own image has git's parts in one directory.
            if places[0].join("git-remote-https").is_file() {
                variables.push(("GIT_EXEC_PATH".into(), places[0].clone().into()));
            }
        }
        if let Some(path) = std::env::join_paths(places).ok().filter(|path| !path.is_empty()) {
            variables.push(("PATH".into(), path));
        }
        variables
    }

    /// Returns the socket of the user's ssh agent.
    pub fn ssh_agent(&self) -> Option<PathBuf> {
        self.set_var("SSH_AUTH_SOCK").map(|socket| self.directory.join(socket))
    }

    /// Returns a variable's value as it is.
    pub fn os(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns a variable's value if it is UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.os(name)?.to_str()
    }

    /// Returns a variable's value unless it is empty, as most tools treat their own variables.
    pub fn set_var(&self, name: &str) -> Option<&str> {
        self.var(name).filter(|value| !value.is_empty())
    }

    fn home(&self) -> PathBuf {
        match self.os("HOME") {
            Some(home) if !home.is_empty() => home.into(),
            _ if self.is_root => "/root".into(),
            _ => "/".into(),
        }
    }

    /// Returns where kiln's store is: `KILN_ROOT`, else `/kiln/store` in kiln's own image, `/var/lib/kiln` for root, else below XDG's data
    /// directory.
    pub fn store_root(&self, option: Option<&PathBuf>) -> PathBuf {
        if let Some(path) = option {
            return self.directory.join(path);
        }
        if let Some(path) = self.os("KILN_ROOT").filter(|path| !path.is_empty()) {
            return self.directory.join(path);
        }
        if self.own_image && self.is_root {
            // Steps that run in place take over every other directory of the container.
            return "/kiln/store".into();
        }
        if self.is_root {
            return "/var/lib/kiln".into();
        }
        // XDG's specification: a relative path is to be ignored.
        match self.os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(data) => data.join("kiln"),
            None => self.home().join(".local/share/kiln"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            directory: "/work".into(),
            cpus: 4,
            ..Environment::default()
        }
    }

    #[test]
    fn the_store_is_where_the_option_the_variable_or_the_user_says() {
        let mut environment = environment(&[("HOME", "/home/me")]);
        assert_eq!(environment.store_root(None), PathBuf::from("/home/me/.local/share/kiln"));
        environment.variables.insert("XDG_DATA_HOME".into(), "/data".into());
        assert_eq!(environment.store_root(None), PathBuf::from("/data/kiln"));
        environment.is_root = true;
        assert_eq!(environment.store_root(None), PathBuf::from("/var/lib/kiln"));
        environment.variables.insert("KILN_ROOT".into(), "k".into());
        assert_eq!(environment.store_root(None), PathBuf::from("/work/k"));
        assert_eq!(environment.store_root(Some(&"/r".into())), PathBuf::from("/r"));
    }
}
