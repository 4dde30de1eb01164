//! Servers that never outlive the tests, however these end.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs its arguments until its own stdin closes, then stops them and removes the directory `$1`.
/// The test holds the other end of that pipe: closing it needs no destructor to run.
const SCRIPT: &str = r#"
work=$1; shift
"$@" </dev/null &
child=$!
cat >/dev/null
kill "$child" 2>/dev/null
wait "$child" 2>/dev/null
for mount in $(grep -o " $work/[^ ]*" /proc/mounts | sort -r); do umount -l "$mount"; done
rm -rf --one-file-system "$work"
"#;

/// A server and its working directory; both are gone soon after this is dropped or the process ends.
pub(crate) struct Guarded {
    shell: Child,
    lifeline: Option<ChildStdin>,
}

impl Guarded {
    /// Starts a server whose files live below `work`; what it prints goes to the file `log`.
    pub(crate) fn start(server: &Command, work: &Path, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let mut shell = Command::new("setsid");
        shell.args(["sh", "-c", SCRIPT, "guard"]).arg(work).arg(server.get_program()).args(server.get_args());
        shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut shell = shell.spawn().unwrap();
        let lifeline = shell.stdin.take();
        Self { shell, lifeline }
    }

    /// Whether the server's guard is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.shell.try_wait().unwrap().is_none()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.shell.wait();
    }
}
