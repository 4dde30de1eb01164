//! A real Docker engine of the tests' own: Debian's docker.io, without a bridge, on a private socket.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::guard::Guarded;
use super::need::find;
use super::program::{Outcome, run};

/// Debian's client: another `docker` may stand earlier on the PATH.
const CLIENT: &str = "/usr/bin/docker";

/// A running engine.
pub(crate) struct Engine {
    socket: PathBuf,
    _guard: Guarded,
}

impl Engine {
    /// The one engine of this test process. Needs `Root` and the program `dockerd`.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        // A socket's path may have 108 bytes, so the place is short.
        let work = tempfile::Builder::new().prefix("kiln-docker-").tempdir_in("/tmp").unwrap().keep();
        let place = |name: &str| work.join(name).display().to_string();
        let socket = work.join("d.sock");
        let mut server = Command::new(find("dockerd").unwrap());
        server.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=overlay2"]);
        server.args([
            "--data-root",
            &place("data"),
            "--exec-root",
            &place("exec"),
            "--pidfile",
            &place("pid"),
        ]);
        server.args(["-H", &format!("unix://{}", socket.display())]);
        let log = work.join("log");
        let mut guard = Guarded::start(&server, &work, &log);
        for _ in 0..300 {
            let mut probe = Command::new(CLIENT);
            probe.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(["version", "--format=up"]);
            if run(&mut probe).code == Some(0) {
                return Self { socket, _guard: guard };
            }
            assert!(guard.is_alive(), "dockerd ended");
            thread::sleep(Duration::from_millis(100));
        }
        panic!("dockerd did not start: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// `docker ARGUMENT...`
    pub(crate) fn docker(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(CLIENT);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        // No account of this machine is anybody's business here.
        command.env("DOCKER_CONFIG", self.socket.with_file_name("client"));
        run(command.args(arguments))
    }
}
