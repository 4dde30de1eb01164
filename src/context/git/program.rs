//! Running the `git` program, cut off from the machine's configuration.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::redirect::{MOST_REDIRECTS, redirected};
use crate::context::ContextError;
use crate::event::Reporter;
use crate::own_files::OwnFiles;

/// Where `git` and what it needs are looked for unless the caller says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what git wrote goes into an error.
const ERROR_LINES: usize = 12;

/// What holds for every command: nothing of a repository may make git run or read something else.
const SETTINGS: &[(&str, &str)] = &[
    ("advice.detachedHead", "false"),
    ("core.hooksPath", "/dev/null"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("http.lowSpeedLimit", "256"),
    ("http.lowSpeedTime", "60"),
    ("init.defaultBranch", "master"),
    ("maintenance.auto", "false"),
    ("protocol.allow", "never"),
    ("protocol.git.allow", "always"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("safe.bareRepository", "explicit"),
];

/// The program with its environment.
pub(super) struct Git<'a> {
    /// What is checked out, without credentials: for errors.
    pub(super) url: &'a str,
    /// Where commands run.
    pub(super) directory: &'a Path,
    /// The repository: none is looked for from where commands run.
    pub(super) git_dir: PathBuf,
    /// Further variables.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Further settings, kept off the command line since they may be secret.
    pub(super) settings: Vec<(String, String)>,
    /// Where repositories have moved to, from where.
    pub(super) moved: Mutex<Vec<(String, String)>>,
    /// Whether the program is in its place.
    pub(super) own_files: OwnFiles,
    pub(super) reporter: &'a Reporter,
}

/// A command that failed.
pub(super) struct Failure {
    command: String,
    /// What it wrote to standard error.
    pub(super) output: String,
}

impl Git<'_> {
    /// Runs a command and returns what it wrote to standard output; a command that fails is an error.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, ContextError> {
        self.attempt(arguments)?.map_err(|failure| self.error(failure))
    }

    /// Runs a command that may fail. Without the program itself there is an error.
    ///
    /// Git itself follows no redirect of a server that is shown a credential: the command is run again with the
    /// address that it led to, for which the credential's settings hold or do not.
    pub(super) fn attempt(&self, arguments: &[&str]) -> Result<Result<String, Failure>, ContextError> {
        loop {
            self.reporter.debug(format!("git {}", arguments.join(" ")));
            let output = self.output(&mut self.command(arguments))?;
            let judged = self.judge(arguments, output);
            let from = judged.as_ref().err().filter(|_| !self.settings.is_empty()).and_then(redirected);
            match from {
                Some(from) if self.moved().len() < MOST_REDIRECTS => {
                    let to = self.moved_to(&from)?;
                    self.reporter.debug(format!("`{from}` redirects to `{to}`"));
                    let mut moved = self.moved();
                    moved
                        .iter_mut()
                        .filter(|(_, known)| *known == from)
                        .for_each(|(_, known)| known.clone_from(&to));
                    moved.push((from, to));
                }
                _ => return Ok(judged),
            }
        }
    }

    fn moved(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command to its end, while the program is kiln's own.
    pub(super) fn output(&self, command: &mut Command) -> Result<Output, ContextError> {
        let _present = self.own_files.present();
        command.output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ContextError::GitMissing { url: self.url.to_owned() },
            _ => ContextError::File { action: "run `git` in", path: self.directory.to_path_buf(), source },
        })
    }

    /// Says how a command failed.
    pub(super) fn error(&self, failure: Failure) -> ContextError {
        ContextError::Git { url: self.url.to_owned(), command: failure.command, output: failure.output }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // The longest beginning of an address counts: one that something moved to stays as it is.
        let moved = self.moved();
        let settings = moved.iter().flat_map(|(from, to)| {
            [from, to].map(|address| (format!("url.{to}.insteadOf"), address.clone()))
        });
        self.command_with(arguments, &settings.collect::<Vec<_>>())
    }

    /// Makes a command with further settings.
    pub(super) fn command_with(&self, arguments: &[&str], settings: &[(String, String)]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(self.directory).args(arguments);
        command.stdin(Stdio::null()).env_clear();
        for (name, value) in [
            ("PATH", DEFAULT_PATH),
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
        ] {
            command.env(name, value);
        }
        command.env("GIT_DIR", &self.git_dir);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let fixed = SETTINGS.iter().copied();
        let further = self.settings.iter().chain(settings);
        let settings = fixed.chain(further.map(|(key, value)| (key.as_str(), value.as_str())));
        let mut count = 0;
        for (key, value) in settings {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        command
    }

    fn judge(&self, arguments: &[&str], output: Output) -> Result<String, Failure> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let written = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = written.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let output = match lines.split_at(lines.len().saturating_sub(ERROR_LINES)).1 {
            [] => output.status.to_string(),
            last => last.join("\n"),
        };
        Err(Failure { command: arguments.first().copied().unwrap_or_default().to_owned(), output })
    }
}

/// Returns the command that git reaches `ssh` by: no configuration, no questions, and host keys checked if they are
/// known.
pub(super) fn ssh_command(known_hosts: Option<&Path>) -> OsString {
    let mut command = OsString::from("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30");
    match known_hosts {
        Some(path) => {
            command.push(" -o StrictHostKeyChecking=yes -o UserKnownHostsFile=");
            command.push(quoted(path.as_os_str()));
        }
        None => {
            command.push(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR")
        }
    }
    command
}

/// Quotes for the shell that git starts.
fn quoted(text: &OsStr) -> String {
    format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"))
}
