//! A root with busybox in it, and the launch that this machine offers.
//!
//! `KILN_TEST_ISOLATION` makes the test process enter that isolation before the harness starts, so the same tests
//! run inside a user namespace, or in any container (`KILN_TEST_ISOLATION=auto`). Without it, root gets a private
//! mount namespace only, so that tests leave no mounts.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::event::OutputStream;
use crate::own_files::OwnFiles;
use crate::sandbox::{
    Cancel, Entered, Exit, Isolation, Launch, LaunchKind, LaunchOptions, Network, SandboxError, Task, User,
    enter, open, probe,
};

static ENTERED: OnceLock<Entered> = OnceLock::new();

/// Called before `main`.
pub(in crate::sandbox) fn enter_for_tests() {
    if let Some(isolation) = std::env::var_os("KILN_TEST_ISOLATION") {
        let isolation: Isolation = isolation.to_str().expect("a name").parse().expect("an isolation");
        let entered = enter(isolation, true, &probe(None)).expect("the isolation asked for");
        eprintln!("{} ({:?})", entered.description, entered.advice);
        let _ = ENTERED.set(entered);
    } else if rustix::process::geteuid().is_root()
        && nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok()
    {
        let _ = crate::sandbox::mounting::make_all_private();
    }
}

/// Returns what this test process runs in; `None` if it can launch nothing.
pub(crate) fn entered() -> Option<&'static Entered> {
    if ENTERED.get().is_none() {
        let probes = probe(None);
        if !probes.own.mount_namespace.works() {
            return None;
        }
        let _ = ENTERED.set(Entered {
            launch: LaunchKind::Namespaces,
            user_namespace: false,
            single_id: false,
            overlay_userxattr: false,
            fresh_proc: probes.own.fresh_proc.works(),
            description: "tests".to_owned(),
            advice: None,
            keeper: None,
            claim: None,
            ground: Arc::default(),
        });
    }
    ENTERED.get().filter(|entered| entered.launch != LaunchKind::None)
}

/// A root of its own and the launch.
pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) launch: Arc<dyn Launch>,
    pub(crate) entered: &'static Entered,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The applets the tests use.
const APPLETS: &str = "sh echo cat id ls env pwd sleep kill ps mkdir touch rm mv ln mount umount df head wc grep sort \
                       seq true false test stat hostname ip ulimit setsid chmod chown dd yes ping mknod readlink \
                       tr od find nproc nohup rmdir cp sync uname printf cut date";

impl Sandbox {
    /// Makes a root with busybox; `None` where nothing can be launched (a test then returns).
    pub(crate) fn new() -> Option<Self> {
        let entered = entered()?;
        let dir = tempfile::tempdir_in(base()).expect("a temporary directory");
        let root = dir.path().join("root");
        for name in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy(busybox(), root.join("bin/busybox")).unwrap();
        for applet in APPLETS.split_ascii_whitespace() {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let state_dir = dir.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        let options = LaunchOptions {
            secrets_dir: dir.path().join("secrets"),
            state_dir,
            dns: b"nameserver 192.0.2.1\n".to_vec(),
            private_files: Vec::new(),
            secret_values: Default::default(),
            allow_visible_credentials: false,
            hardened: false,
            own_files: OwnFiles::default(),
            kiln_files: Default::default(),
            cache_directories: Vec::new(),
            volume_limit_bytes: 1 << 20,
        };
        let launch = open(entered, options).unwrap();
        let sandbox = Self { dir, launch, entered };
        if entered.launch == LaunchKind::Chroot {
            // The first step comes with a warning about what a chroot lacks.
            assert!(sandbox.run(&sandbox.task("true")).stderr.contains("/proc"));
        }
        Some(sandbox)
    }

    /// Returns where the root is.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Returns a path in the root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Returns a task that runs `script` in a shell.
    pub(crate) fn task(&self, script: &str) -> Task {
        Task {
            root: self.root(),
            argv: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/root".into())],
            cwd: PathBuf::from("/"),
            user: User::default(),
            hostname: "buildkitsandbox".to_owned(),
            mounts: Vec::new(),
            network: Network::Default,
            insecure: false,
            hosts: Vec::new(),
            dns: None,
            shm_size_bytes: None,
            ulimits: Vec::new(),
            cancel: Arc::new(Cancel::new().unwrap()),
        }
    }

    /// Runs a task.
    pub(crate) fn try_run(&self, task: &Task) -> Result<Ran, SandboxError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let ended = self.launch.run(task, &mut |stream, bytes| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(bytes),
            OutputStream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { exit: ended.exit, stdout: text(stdout), stderr: text(stderr) })
    }

    /// Runs a task that must start.
    pub(crate) fn run(&self, task: &Task) -> Ran {
        self.try_run(task).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Tells whether steps have a /proc.
    pub(crate) fn has_proc(&self) -> bool {
        self.entered.launch != LaunchKind::Chroot
    }

    /// Runs a script that must succeed, and returns what it wrote to its standard output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let ran = self.run(&self.task(script));
        assert_eq!(ran.exit, Exit::Code(0), "{script}: {ran:?}");
        ran.stdout
    }

    /// Returns every path of the root with type, mode, owner, size and modification time.
    pub(crate) fn listing(&self) -> Vec<String> {
        use std::os::unix::fs::MetadataExt;
        let mut lines = Vec::new();
        let mut pending = vec![self.root()];
        while let Some(path) = pending.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            lines.push(format!(
                "{} {:o} {}:{} {} {}.{}",
                path.strip_prefix(self.root()).unwrap().display(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                if metadata.is_dir() { 0 } else { metadata.len() },
                metadata.mtime(),
                metadata.mtime_nsec(),
            ));
            if metadata.is_dir() {
                pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        lines.sort();
        lines
    }
}

/// Returns where test roots are made: `KILN_TEST_DIR` or the temporary directory.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("KILN_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

fn busybox() -> &'static Path {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    places.into_iter().find(|path| path.exists()).expect("Debian's busybox-static for the sandbox tests")
}
