//! Emulators of object stores: moto and Azurite, installed by `tools/emulators` for each checkout.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::guard::Guarded;
use super::program::run;

/// A running emulator and what it said about itself.
pub(crate) struct Emulator {
    said: Value,
    _guard: Guarded,
}

impl Emulator {
    /// An S3 that has `archive` as `s3://contexts/team/context.tar.gz` and under some other names.
    pub(crate) fn s3(archive: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/emulators/s3.py");
        let mut server = Command::new(installed().join("moto/bin/python"));
        server.arg(script).arg(archive);
        Self::start(&server)
    }

    /// An Azure that has `archive` as `contexts/team/context.tar.gz`.
    pub(crate) fn azure(archive: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/emulators/azure.py");
        let mut server = Command::new("python3");
        server.arg(script).arg(installed().join("azurite")).arg(archive);
        Self::start(&server)
    }

    /// Both scripts end with their standard input; the guard holds that open and ends them.
    fn start(server: &Command) -> Self {
        let work = tempfile::Builder::new().prefix("kiln-emulator-").tempdir().unwrap().keep();
        let log = work.join("log");
        let mut shell = Command::new("sh");
        shell.args(["-c", "mkfifo \"$0/open\"; exec 3<>\"$0/open\"; exec \"$@\" <\"$0/open\""]);
        shell.arg(&work).arg(server.get_program()).args(server.get_args());
        let mut guard = Guarded::start(&shell, &work, &log);
        let started = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let said = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(said) = said.filter(Value::is_object) {
                return Self { said, _guard: guard };
            }
            assert!(guard.is_alive(), "the emulator ended: {text}");
            assert!(started.elapsed() < Duration::from_secs(120), "the emulator did not start: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A part of what it said, by its JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.said.pointer(pointer).and_then(Value::as_str).unwrap()
    }
}

fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulators");
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/emulators");
        run(Command::new(tool).arg(&directory)).ok();
        directory
    })
}
