//! ssh agents for `RUN --mount=type=ssh`.
//!
//! A step never gets the user's own socket: kiln listens on one of its own, with the owner and mode the mount
//! asks for, and hands every connection on. Private keys are served by an `ssh-agent` started for the step.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::Problem;
use super::{SshKey, SshSource};
use crate::threads;

/// How long a freshly started agent may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket that leads to an agent for as long as this value lives.
pub(super) struct AgentProxy {
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    agent: Option<Child>,
}

impl AgentProxy {
    /// Starts listening in the empty directory `dir`.
    pub(super) fn start(source: &SshSource, dir: &Path) -> Result<Self, Problem> {
        let problem = |action: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source| Problem::Io { action, path, source }
        };
        let (upstream, agent) = match source {
            SshSource::Agent(path) => (path.clone(), None),
            SshSource::KeyFiles(paths) => {
                let read = |path: &PathBuf| SshKey::read(path).map_err(problem("read the key", path));
                return Self::start(&SshSource::Keys(paths.iter().map(read).collect::<Result<_, _>>()?), dir);
            }
            SshSource::Keys(keys) => {
                let socket = dir.join("keys.sock");
                let agent = start_agent(&socket, keys, dir)?;
                (socket, Some(agent))
            }
        };
        UnixStream::connect(&upstream).map_err(problem("connect to the ssh agent at", &upstream))?;
        let socket = dir.join("agent.sock");
        let listener = UnixListener::bind(&socket).map_err(problem("listen on", &socket))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        // The agent that was started ends with this value.
        let mut proxy = Self { socket, stopping, listener: None, agent };
        let listening = threads::spawn("ssh agent", move || serve(&listener, &upstream, &stop));
        let refused = |refused: threads::Refused| problem("serve", &proxy.socket)(refused.into());
        proxy.listener = Some(listening.map_err(refused)?);
        Ok(proxy)
    }

    /// Returns the socket's path.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for AgentProxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener; if even that fails there is nobody listening.
        let _ = UnixStream::connect(&self.socket);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn serve(listener: &UnixListener, upstream: &Path, stopping: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(agent) = UnixStream::connect(upstream) else { continue };
        let (Ok(client_reader), Ok(agent_reader)) = (client.try_clone(), agent.try_clone()) else { continue };
        // Without both the connection is closed, which the client sees.
        let Ok(asking) = agent.try_clone() else { continue };
        if threads::spawn("ssh agent", move || forward(client_reader, asking)).is_ok() {
            let answering = threads::spawn("ssh agent", move || forward(agent_reader, client));
            if answering.is_err() {
                let _ = agent.shutdown(Shutdown::Both);
            }
        }
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream) {
    // Either side may hang up at any time; then the other is told, and that is all there is to do.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn start_agent(socket: &Path, keys: &[SshKey], dir: &Path) -> Result<Child, Problem> {
    let missing = |program: &'static str| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Problem::Unsupported {
                what: format!("`--ssh` with key files without the program `{program}`"),
                hint: "install openssh-client, or forward an agent with `--ssh default`".to_owned(),
            },
            _ => Problem::Io { action: "start", path: program.into(), source },
        }
    };
    let agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(missing("ssh-agent"))?;
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() && begun.elapsed() < START_TIMEOUT {
        std::thread::sleep(Duration::from_millis(10));
    }
    for key in keys {
        let reason = match add_key(socket, key, dir) {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => {
                end(agent);
                return Err(missing("ssh-add")(error));
            }
        };
        end(agent);
        let path = key.path.display();
        return Err(Problem::Instruction {
            message: format!("cannot load the key `{path}` of `--ssh`: {reason}"),
        });
    }
    Ok(agent)
}

fn end(mut agent: Child) {
    // It may have ended by itself.
    let _ = agent.kill();
    let _ = agent.wait();
}

/// Gives a key to an agent. A certificate has to be a file beside the key, and both are files for that long.
fn add_key(socket: &Path, key: &SshKey, dir: &Path) -> io::Result<Output> {
    let mut command = Command::new("ssh-add");
    command.env("SSH_AUTH_SOCK", socket).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Some(certificate) = &key.certificate else {
        let mut adding = command.arg("-").spawn()?;
        if let Some(mut input) = adding.stdin.take() {
            // What it has to say about a key that it does not read to the end is in its output.
            let _ = input.write_all(&key.text);
        }
        return adding.wait_with_output();
    };
    let files = tempfile::tempdir_in(dir)?;
    let path = files.path().join("key");
    File::options().write(true).create_new(true).mode(0o600).open(&path)?.write_all(&key.text)?;
    std::fs::write(files.path().join("key-cert.pub"), certificate)?;
    command.arg(&path).stdin(Stdio::null()).output()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn connections_are_handed_on_and_end_with_the_proxy() {
        let directory = tempfile::tempdir().unwrap();
        let upstream = directory.path().join("upstream");
        let listener = UnixListener::bind(&upstream).unwrap();
        // An agent that sends back what it gets.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || io::copy(&mut client.try_clone().unwrap(), &mut client));
            }
        });
        let own = tempfile::tempdir().unwrap();
        let proxy = AgentProxy::start(&SshSource::Agent(upstream.clone()), own.path()).unwrap();
        assert_ne!(proxy.socket(), upstream);
        for text in ["one", "two"] {
            let mut client = UnixStream::connect(proxy.socket()).unwrap();
            client.write_all(text.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, text);
        }
        let socket = proxy.socket().to_path_buf();
        drop(proxy);
        assert!(UnixStream::connect(socket).is_err());
    }

    #[test]
    fn an_agent_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let missing = SshSource::Agent(directory.path().join("missing"));
        assert!(matches!(AgentProxy::start(&missing, directory.path()), Err(Problem::Io { .. })));
    }

    fn is_installed(program: &str) -> bool {
        Command::new(program).arg("-?").stdin(Stdio::null()).output().is_ok()
    }

    #[test]
    fn keys_are_served_by_an_agent_of_their_own() {
        if !["ssh-agent", "ssh-add", "ssh-keygen"].into_iter().all(is_installed) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "made for a test", "-f"])
            .arg(&key)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let own = tempfile::tempdir().unwrap();
        let proxy = AgentProxy::start(&SshSource::KeyFiles(vec![key]), own.path()).unwrap();
        let listed = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", proxy.socket()).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("made for a test"), "{listed:?}");
    }

    #[test]
    fn a_file_that_is_no_key_is_an_error() {
        if !["ssh-agent", "ssh-add"].into_iter().all(is_installed) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, "no key").unwrap();
        let Err(error) = AgentProxy::start(&SshSource::KeyFiles(vec![key]), directory.path()) else {
            panic!("no key was loaded")
        };
        assert!(error.to_string().starts_with("cannot load the key `"), "{error}");
    }
}
