//! The container's own files are as they were, whatever happens.
//!
//! These run in a container whose `/` may be taken over, with `KILN_TEST_ISOLATION=in-place` and one test thread, and the
//! test directory on the container's own file system.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::support::Sandbox;
use crate::sandbox::journal::{Line, Residual};
use crate::sandbox::look::look;
use crate::sandbox::swap::{Swap, tells_every_change};
use crate::sandbox::{Exit, LaunchKind, Mount, MountKind, SandboxError, Source, Task, recover};

fn in_place() -> Option<Sandbox> {
    Sandbox::new().filter(|sandbox| sandbox.entered.launch == LaunchKind::InPlace)
}

/// Returns the container's files with metadata and content, without mounts of the kernel's and the test's own.
fn container(sandbox: &Sandbox) -> BTreeMap<PathBuf, String> {
    let own = PathBuf::from("/").join(sandbox.dir.path().components().nth(1).unwrap());
    let mut seen = BTreeMap::new();
    let mut pending = vec![PathBuf::from("/")];
    while let Some(path) = pending.pop() {
        if [Path::new("/proc"), Path::new("/sys"), Path::new("/dev"), &own].contains(&path.as_path()) {
            continue;
        }
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let line = format!(
            "{:o} {}:{} {}.{} {:?}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            if content.len() < 4096 {
                String::from_utf8_lossy(&content).into_owned()
            } else {
                content.len().to_string()
            },
        );
        if metadata.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen.insert(path, line);
    }
    seen
}

fn furnish(sandbox: &Sandbox) {
    std::fs::write(sandbox.path("etc/passwd"), "image").unwrap();
    std::fs::create_dir_all(sandbox.path("usr/share")).unwrap();
    std::fs::write(sandbox.path("usr/share/f"), "1").unwrap();
    // A step sees nothing of the container's own `/bin`, and a link of the image may have its name.
    std::os::unix::fs::symlink("bin", sandbox.path("sbin")).unwrap();
}

#[test]
fn the_container_is_as_it_was_and_the_stage_is_changed() {
    let Some(sandbox) = in_place() else { return };
    furnish(&sandbox);
    let before = container(&sandbox);
    let script = "cat /etc/passwd; ls / > /listing; mkdir /new; echo x > /new/f; rm -r /usr; echo y > /etc/added; \
                  chmod 700 /tmp; echo /sbin/*box; test ! -e /work/t || test -e /proc/self/exe";
    let ran = sandbox.run(&sandbox.task(script));
    assert_eq!((ran.exit, ran.stdout.as_str()), (Exit::Code(0), "image/sbin/busybox\n"), "{ran:?}");
    assert_eq!(container(&sandbox), before);
    assert_eq!(std::fs::read(sandbox.path("new/f")).unwrap(), b"x\n");
    assert_eq!(std::fs::read(sandbox.path("etc/added")).unwrap(), b"y\n");
    assert_eq!(std::fs::metadata(sandbox.path("tmp")).unwrap().mode() & 0o7777, 0o700);
    assert!(!sandbox.path("usr").exists());
    let names = |dir: PathBuf| {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(sandbox.root()), ["bin", "etc", "listing", "new", "root", "sbin", "tmp"]);
    assert_eq!(names(sandbox.path("etc")), ["added", "passwd"]);
    let mut state = names(sandbox.dir.path().join("state"));
    // The copies of the container's volumes, as long as kiln may run a further step.
    state.retain(|name| name != "volumes");
    assert_eq!(state, [""; 0]);
}

#[test]
fn a_step_that_does_nothing_changes_nothing() {
    let Some(sandbox) = in_place() else { return };
    furnish(&sandbox);
    let (before, stage) = (container(&sandbox), sandbox.listing());
    sandbox.sh("true");
    assert_eq!(container(&sandbox), before);
    assert_eq!(sandbox.listing(), stage);
}

#[test]
fn cache_directories_are_lent() {
    let Some(sandbox) = in_place() else { return };
    let cache = sandbox.dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("old"), "1").unwrap();
    let kind = MountKind::Bind { source: Source::below(&cache, "").unwrap(), read_only: false };
    let mut task = sandbox.task("cat /root/.cache/old; echo 2 > /root/.cache/new");
    task.mounts = vec![Mount { target: "/root/.cache".into(), kind }];
    let before = sandbox.listing();
    assert_eq!(sandbox.run(&task).stdout, "1");
    assert_eq!(std::fs::read(cache.join("new")).unwrap(), b"2\n");
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn a_killed_watcher_is_made_up_for() {
    let Some(sandbox) = in_place() else { return };
    furnish(&sandbox);
    let before = container(&sandbox);
    let error = sandbox.try_run(&sandbox.task("touch /left; kill -9 $PPID; sleep 5")).unwrap_err();
    assert!(matches!(error, SandboxError::ChildVanished { .. }), "{error}");
    assert_eq!(container(&sandbox), before);
    assert!(sandbox.path("left").exists());
}

#[test]
fn a_swap_cut_short_anywhere_is_undone_by_the_next_start() {
    let Some(sandbox) = in_place() else { return };
    furnish(&sandbox);
    // Not the sandbox's own, which holds its as long as it lives.
    let state = sandbox.dir.path().join("killed");
    let (before, stage) = (container(&sandbox), sandbox.listing());
    let swap = || Swap::new(&sandbox.root(), &state, Vec::new(), Vec::new()).unwrap();
    // Nothing moved yet.
    drop(swap());
    assert!(recover(&state, &[]).unwrap().is_some());
    assert_eq!(container(&sandbox), before);
    // All of it in place.
    let mut entered = swap();
    entered.enter(BTreeSet::new()).unwrap();
    assert_ne!(container(&sandbox), before);
    drop(entered);
    assert!(recover(&state, &[]).unwrap().is_some());
    assert_eq!((container(&sandbox), sandbox.listing()), (before.clone(), stage.clone()));
    // Half of the container's entries moved away: the journal says that `/` has been noted, and `/bin`, which could not
    // be moved whole, and nothing more.
    let mut entered = swap();
    entered.enter(BTreeSet::new()).unwrap();
    drop(entered);
    let journal = state.join("in-place.journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    recover(&state, &[]).unwrap();
    let cut = text
        .lines()
        .take_while(|line| *line != "\"Away\"")
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let bin = Residual { path: "/bin".into(), look: look(Path::new("/bin")).unwrap() };
    let bin = serde_json::to_string(&Line::Residual(bin)).unwrap();
    std::fs::write(&journal, cut + &bin + "\n{\"Resid").unwrap();
    std::fs::create_dir_all(state.join("park/bin")).unwrap();
    std::fs::rename("/bin/mkdir", state.join("park/bin/mkdir")).unwrap();
    assert!(recover(&state, &[]).unwrap().is_some());
    assert_eq!((container(&sandbox), sandbox.listing()), (before, stage));
    assert!(recover(&state, &[]).unwrap().is_none());
}

#[test]
fn what_a_step_did_not_touch_is_known_whatever_times_it_sets() {
    let Some(sandbox) = in_place() else { return };
    for name in ["same", "written", "dressed", "replaced"] {
        std::fs::write(sandbox.path(name), "1234").unwrap();
    }
    let script = "t=$(stat -c %y written); echo 321 > written; touch -d \"$t\" written; \
                  chmod 600 dressed; chmod 644 dressed; cp -a replaced r; mv r replaced; cat same";
    let lent = sandbox.dir.path().join("lent");
    std::fs::write(&lent, "lent").unwrap();
    std::fs::write(sandbox.path("covered"), "1234").unwrap();
    let kind =
        MountKind::Bind { source: Source::below(sandbox.dir.path(), "lent").unwrap(), read_only: true };
    let mounts = vec![Mount { target: "/covered".into(), kind }];
    let task = Task { cwd: "/".into(), mounts, ..sandbox.task(script) };
    let ended = sandbox.launch.run(&task, &mut |_, _| {}).unwrap();
    assert_eq!(ended.exit, Exit::Code(0));
    let is_still = |name: &str| ended.still.iter().any(|path| path == Path::new(name));
    // On older file systems nothing is known.
    let tells = tells_every_change(&sandbox.root()).unwrap();
    assert_eq!((is_still("same"), is_still("bin")), (tells, tells), "{:?}", ended.still);
    for name in ["written", "dressed", "replaced", "covered"] {
        assert!(!is_still(name), "{name}");
    }
}

#[test]
fn two_at_once_are_refused() {
    let Some(sandbox) = in_place() else { return };
    let state = sandbox.dir.path().join("state");
    let swap = Swap::new(&sandbox.root(), &state, Vec::new(), Vec::new()).unwrap();
    assert!(matches!(recover(&state, &[]), Err(SandboxError::Occupied)));
    assert!(sandbox.try_run(&sandbox.task("true")).is_err());
    swap.leave().unwrap();
    sandbox.sh("true");
}
