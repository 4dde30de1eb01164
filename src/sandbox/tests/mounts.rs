//! What is mounted in a root, where it ends up, and that nothing of it is left.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::support::Sandbox;
use crate::sandbox::{Exit, LaunchKind, Mount, MountKind, Source, Task};

fn bind(source: &str, sandbox: &Sandbox, target: &str, read_only: bool) -> Mount {
    let source = Source::below(sandbox.dir.path(), source).unwrap();
    Mount { target: PathBuf::from(target), kind: MountKind::Bind { source, read_only } }
}

/// Mounts need a launch that can mount.
fn mounting() -> Option<Sandbox> {
    Sandbox::new().filter(|sandbox| sandbox.entered.launch == LaunchKind::Namespaces)
}

fn with(sandbox: &Sandbox, script: &str, mounts: Vec<Mount>) -> Task {
    Task { mounts, ..sandbox.task(script) }
}

#[test]
fn a_step_leaves_no_trace_of_its_mounts() {
    let Some(sandbox) = Sandbox::new() else { return };
    std::fs::create_dir(sandbox.dir.path().join("src")).unwrap();
    std::fs::write(sandbox.dir.path().join("file"), "x").unwrap();
    let before = sandbox.listing();
    let mounts = vec![
        bind("src", &sandbox, "/a/b/c", true),
        bind("file", &sandbox, "/run/secrets/token", true),
        bind("src", &sandbox, "/tmp/x", false),
        Mount {
            target: "/etc/deep/er".into(),
            kind: MountKind::Tmpfs { size_bytes: Some(4096), mode: 0o755 },
        },
    ];
    let ran = sandbox.run(&with(
        &sandbox,
        "test -d /a/b/c && cat /run/secrets/token && test -d /etc/deep/er",
        mounts,
    ));
    assert_eq!((ran.exit, ran.stdout.as_str()), (Exit::Code(0), "x"), "{ran:?}");
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn what_the_step_itself_does_there_stays() {
    let Some(sandbox) = Sandbox::new() else { return };
    std::fs::create_dir(sandbox.dir.path().join("src")).unwrap();
    std::fs::write(sandbox.dir.path().join("secret"), "s").unwrap();
    std::fs::create_dir(sandbox.path("opt")).unwrap();
    let mounts = vec![
        bind("src", &sandbox, "/a/b/c", true),
        bind("secret", &sandbox, "/opt/secret", true),
        bind("secret", &sandbox, "/q/secret", true),
    ];
    let script = "mv /opt /opt2; mv /q /q2; mkdir /q; touch /q/mine /a/mine; cat /q2/secret /opt2/secret";
    let ran = sandbox.run(&with(&sandbox, script, mounts));
    assert_eq!((ran.exit, ran.stdout.as_str()), (Exit::Code(0), "ss"), "{ran:?}");
    assert!(sandbox.path("q/mine").exists() && sandbox.path("a/mine").exists());
    assert!(!sandbox.path("a/b").exists());
    assert_eq!(
        std::fs::read_dir(sandbox.path("opt2")).unwrap().count(),
        0,
        "secrets are found where they went"
    );
    for name in ["dev", "proc", "sys", "opt", "q2", "etc/hosts"] {
        assert!(!sandbox.path(name).exists(), "{name}");
    }
}

#[test]
fn directories_that_were_there_keep_their_times() {
    let Some(sandbox) = Sandbox::new() else { return };
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir(sandbox.path(name)).unwrap();
    }
    std::fs::write(sandbox.path("etc/hosts"), "image's own").unwrap();
    let before = sandbox.listing();
    sandbox.sh("cat /etc/hosts");
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn binds_are_read_only_or_not() {
    let Some(sandbox) = mounting() else { return };
    let src = sandbox.dir.path().join("src");
    std::fs::create_dir(&src).unwrap();
    std::fs::write(sandbox.dir.path().join("file"), "x").unwrap();
    let mounts =
        |read_only| vec![bind("src", &sandbox, "/m", read_only), bind("file", &sandbox, "/f", read_only)];
    let ran = sandbox.run(&with(&sandbox, "touch /m/no; echo no > /f", mounts(true)));
    assert_eq!(ran.exit, Exit::Code(1));
    assert_eq!(ran.stderr.matches("Read-only file system").count(), 2, "{ran:?}");
    let ran = sandbox.run(&with(&sandbox, "touch /m/yes && echo yes > /f", mounts(false)));
    assert_eq!(ran.exit, Exit::Code(0), "{ran:?}");
    assert!(src.join("yes").exists());
    assert_eq!(std::fs::read(sandbox.dir.path().join("file")).unwrap(), b"yes\n");
}

#[test]
fn scratch_mounts_forget_what_is_written() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (lower, scratch) = (sandbox.dir.path().join("lower"), sandbox.dir.path().join("scratch"));
    std::fs::create_dir_all(lower.join("d")).unwrap();
    std::fs::write(lower.join("d/f"), "old").unwrap();
    std::fs::create_dir(&scratch).unwrap();
    let kind = MountKind::ScratchOverlay { lower: Source::below(&lower, "").unwrap(), scratch };
    let mounts = vec![Mount { target: "/m".into(), kind }];
    let ran =
        sandbox.run(&with(&sandbox, "cat /m/d/f; echo new > /m/d/f; rm -r /m/d; touch /m/x; ls /m", mounts));
    assert_eq!(ran.stdout, "oldx\n", "{ran:?}");
    assert_eq!(std::fs::read(lower.join("d/f")).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(&lower).unwrap().count(), 1);
}

#[test]
fn mounts_nest_in_any_order_of_the_list() {
    let Some(sandbox) = mounting() else { return };
    std::fs::write(sandbox.dir.path().join("file"), "x").unwrap();
    let tmpfs = |target: &str| Mount {
        target: target.into(),
        kind: MountKind::Tmpfs { size_bytes: None, mode: 0o1777 },
    };
    let before = sandbox.listing();
    let mounts =
        vec![bind("file", &sandbox, "/a/b/c/d", true), tmpfs("/a/b"), tmpfs("/dev/deep"), tmpfs("/a")];
    let ran = sandbox.run(&with(
        &sandbox,
        "cat /a/b/c/d; grep -c -E ' /a(/b)? tmpfs' /proc/mounts; stat -c %a /a",
        mounts,
    ));
    assert_eq!(ran.stdout, "x2\n1777\n", "{ran:?}");
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn tmpfs_and_shared_memory_have_their_sizes() {
    let Some(sandbox) = mounting() else { return };
    let kind = MountKind::Tmpfs { size_bytes: Some(8 << 20), mode: 0o700 };
    let mut task = with(&sandbox, "cat /proc/mounts", vec![Mount { target: "/t".into(), kind }]);
    task.shm_size_bytes = Some(128 << 20);
    let mounts = sandbox.run(&task).stdout;
    let line =
        |target: &str| mounts.lines().find(|line| line.split(' ').nth(1) == Some(target)).unwrap().to_owned();
    assert!(line("/t").contains("size=8192k") && line("/t").contains("mode=700"), "{mounts}");
    assert!(line("/dev/shm").contains("size=131072k"), "{mounts}");
    assert!(sandbox.sh("grep ' /dev/shm ' /proc/mounts").contains("size=65536k"));
}

#[test]
fn targets_resolve_inside_the_root() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.entered.launch == LaunchKind::InPlace {
        // The test directory itself is never shown there.
        return;
    }
    let outside = sandbox.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(sandbox.dir.path().join("src")).unwrap();
    std::fs::write(sandbox.dir.path().join("src/inside"), "").unwrap();
    symlink(&outside, sandbox.path("absolute")).unwrap();
    symlink("../../../../../../../..", sandbox.path("up")).unwrap();
    let before = sandbox.listing();
    let target = format!("/up{}/deep", outside.display());
    let mounts = vec![bind("src", &sandbox, "/absolute/x", true), bind("src", &sandbox, &target, true)];
    let script = format!("ls /absolute/x {}/x {}/deep", outside.display(), outside.display());
    let ran = sandbox.run(&with(&sandbox, &script, mounts));
    assert_eq!(ran.exit, Exit::Code(0), "{ran:?}");
    assert_eq!(ran.stdout.matches("inside").count(), 3, "{ran:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn sources_are_looked_up_below_their_root_alone() {
    let Some(sandbox) = Sandbox::new() else { return };
    let base = sandbox.dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(base.join("src/deep")).unwrap();
    std::fs::write(base.join("src/inside"), "").unwrap();
    symlink("/", base.join("src/out")).unwrap();
    symlink("../../..", base.join("src/deep/up")).unwrap();
    symlink("src", base.join("link")).unwrap();
    let mount = |source: Source, target: &str, read_only| Mount {
        target: target.into(),
        kind: MountKind::Bind { source, read_only },
    };
    let src = base.join("src");
    let mounts = vec![
        mount(Source::new(src.clone(), "out/deep/../out"), "/m1", true),
        mount(Source::new(src, "deep/up"), "/m2", true),
    ];
    let ran = sandbox.run(&with(&sandbox, "ls -d /m1/inside /m2/inside", mounts));
    assert_eq!(ran.stdout, "/m1/inside\n/m2/inside\n", "{ran:?}");
    for read_only in [true, false] {
        let mounts = vec![mount(Source::new(base.join("link"), ""), "/m", read_only)];
        sandbox.try_run(&with(&sandbox, "true", mounts)).unwrap_err();
    }
    assert!(base.join("link").is_symlink() && !sandbox.path("m").exists());
}

#[test]
fn hostile_roots_reach_nothing_outside() {
    let Some(sandbox) = mounting() else { return };
    let outside = sandbox.dir.path().join("outside");
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir_all(outside.join(name)).unwrap();
        symlink(outside.join(name), sandbox.path(name)).unwrap();
    }
    std::fs::write(outside.join("resolv"), "precious").unwrap();
    symlink(outside.join("resolv"), sandbox.path("etc/resolv.conf")).unwrap();
    symlink("../../../../../../../../etc/passwd", sandbox.path("etc/hosts")).unwrap();
    let before = sandbox.listing();
    let ran =
        sandbox.run(&sandbox.task("test -e /proc/self/stat && test -c /dev/null && cat /etc/resolv.conf"));
    assert_eq!((ran.exit, ran.stdout.as_str()), (Exit::Code(0), "nameserver 192.0.2.1\n"), "{ran:?}");
    assert_eq!(std::fs::read(outside.join("resolv")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(outside.join("dev")).unwrap().count(), 0);
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn files_in_the_way_are_an_error_that_names_the_target() {
    let Some(sandbox) = mounting() else { return };
    std::fs::write(sandbox.path("f"), "").unwrap();
    std::fs::create_dir(sandbox.dir.path().join("src")).unwrap();
    for target in ["/f", "/f/below"] {
        let error =
            sandbox.try_run(&with(&sandbox, "true", vec![bind("src", &sandbox, target, true)])).unwrap_err();
        assert!(error.to_string().contains(&format!("`{target}`")), "{error}");
    }
    let error =
        sandbox.try_run(&with(&sandbox, "true", vec![bind("nosuch", &sandbox, "/x", true)])).unwrap_err();
    assert!(error.to_string().contains("nosuch"), "{error}");
    assert!(!sandbox.path("x").exists());
}

#[test]
fn devices_and_terminals_work() {
    let Some(sandbox) = mounting() else { return };
    let script = "head -c 4 /dev/zero | od -An -tx1; echo gone > /dev/null; head -c 8 /dev/urandom | wc -c; \
                  test -c /dev/full; test -c /dev/pts/ptmx; readlink /dev/ptmx; readlink /dev/fd; stat -f -c %T /dev/shm; \
                  test ! -s /proc/kcore && echo 0; ls /sys/firmware | wc -l; touch /sys/x";
    let ran = sandbox.run(&sandbox.task(script));
    assert_eq!(ran.stdout, " 00 00 00 00\n8\npts/ptmx\n/proc/self/fd\ntmpfs\n0\n0\n", "{ran:?}");
    assert_eq!(ran.exit, Exit::Code(1), "/sys is read-only: {ran:?}");
}
