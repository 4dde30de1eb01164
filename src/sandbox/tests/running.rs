//! Processes: output, exit, environment, identity, limits, and what they leave behind.

use std::time::{Duration, Instant};

use super::support::Sandbox;
use crate::event::OutputStream;
use crate::sandbox::{Exit, LaunchKind, Network, SandboxError, Ulimit, User};

#[test]
fn it_runs_and_tells_output_streams_apart() {
    let Some(sandbox) = Sandbox::new() else { return };
    let ran = sandbox.run(&sandbox.task("echo out; echo err >&2; pwd; cat"));
    assert_eq!(ran.exit, Exit::Code(0));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n/\n", "err\n"));
}

#[test]
fn exit_codes_and_signals_come_back() {
    let Some(sandbox) = Sandbox::new() else { return };
    assert_eq!(sandbox.run(&sandbox.task("exit 42")).exit, Exit::Code(42));
    let ran = sandbox.run(&sandbox.task("sh -c 'kill -TERM $$'; exit $?"));
    assert_eq!(ran.exit, Exit::Code(143));
    // As the first process of a pid namespace a shell is immune to its own signals, as it is with BuildKit.
    if !sandbox.entered.fresh_proc {
        assert_eq!(sandbox.run(&sandbox.task("kill -KILL $$")).exit, Exit::Signal(9));
    }
    assert_eq!(Exit::Signal(9).code(), 137);
}

#[test]
fn the_environment_is_exactly_the_tasks() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox.task("");
    task.argv = vec!["env".into()];
    task.env = vec![("PATH".into(), "/bin".into()), ("A B".into(), "x=y\nz".into())];
    assert_eq!(sandbox.run(&task).stdout, "PATH=/bin\nA B=x=y\nz\n");
}

#[test]
fn the_process_starts_clean() {
    let Some(sandbox) = Sandbox::new() else { return };
    assert_eq!(sandbox.sh("umask"), "0022\n");
    if !sandbox.has_proc() {
        return;
    }
    assert_eq!(sandbox.sh("ls /proc/self/fd | wc -l"), "4\n", "0, 1, 2 and ls's own");
    assert_eq!(
        sandbox.sh("grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\\t\\n'"),
        "SigBlk:0000000000000000SigIgn:0000000000000000"
    );
    assert_eq!(sandbox.sh("grep NoNewPrivs /proc/self/status | tr -d '\\t\\n'"), "NoNewPrivs:0");
    assert_eq!(sandbox.sh("readlink /proc/self/fd/0"), "/dev/null\n");
    let session = sandbox.sh("cut -d' ' -f1,6 /proc/$$/stat");
    if sandbox.entered.fresh_proc {
        assert_eq!(session, "1 1\n");
    }
}

#[test]
fn commands_that_cannot_be_started_are_told_as_buildkit_does() {
    let Some(sandbox) = Sandbox::new() else { return };
    std::fs::write(sandbox.path("etc/plain"), "x").unwrap();
    std::fs::write(sandbox.path("bin/strange"), "\x7fELFnonsense").unwrap();
    std::fs::write(sandbox.path("bin/orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["bin/strange", "bin/orphan"] {
        std::fs::set_permissions(sandbox.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let fail = |argv: &str| {
        let mut task = sandbox.task("");
        task.argv = vec![argv.into()];
        let error = sandbox.try_run(&task).expect_err("it cannot start");
        (error.to_string(), error.exit_code())
    };
    assert_eq!(
        fail("nosuch"),
        ("exec: \"nosuch\": executable file not found in $PATH".to_owned(), Some(127))
    );
    assert_eq!(
        fail("/no/such"),
        ("exec: \"/no/such\": stat /no/such: no such file or directory".to_owned(), Some(127))
    );
    assert_eq!(fail("/etc/plain"), ("exec: \"/etc/plain\": permission denied".to_owned(), Some(126)));
    assert_eq!(fail("/etc"), ("exec: \"/etc\": permission denied".to_owned(), Some(126)));
    assert_eq!(fail("/bin/strange"), ("exec /bin/strange: exec format error".to_owned(), Some(126)));
    assert_eq!(fail("/bin/orphan"), ("exec /bin/orphan: no such file or directory".to_owned(), Some(126)));
}

#[test]
fn big_outputs_on_both_streams_do_not_deadlock() {
    let Some(sandbox) = Sandbox::new() else { return };
    let script = "(yes out | head -c 3000000)& (yes err | head -c 3000000 >&2)& wait";
    let ran = sandbox.run(&sandbox.task(script));
    assert_eq!((ran.stdout.len(), ran.stderr.len()), (3_000_000, 3_000_000));
}

#[test]
fn a_missing_working_directory_is_made() {
    use std::os::unix::fs::MetadataExt;
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox.task("pwd");
    task.cwd = "/deep/er/est".into();
    task.user =
        if sandbox.entered.single_id { User::default() } else { User { uid: 7, gid: 8, groups: vec![] } };
    assert_eq!(sandbox.run(&task).stdout, "/deep/er/est\n");
    let metadata = std::fs::metadata(sandbox.path("deep/er/est")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 0, 0o755));
}

#[test]
fn users_groups_and_capabilities() {
    let Some(sandbox) = Sandbox::new() else { return };
    let caps = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    if !sandbox.has_proc() {
        return;
    }
    let root = sandbox.sh(caps);
    let full = sandbox.entered.launch == LaunchKind::Namespaces;
    if full {
        let expected = "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb \
                        CapBnd:00000000a80425fb CapAmb:0000000000000000 ";
        assert_eq!(root, expected);
    }
    if sandbox.entered.single_id {
        let mut task = sandbox.task("id");
        task.user.uid = 1000;
        assert!(matches!(sandbox.try_run(&task), Err(SandboxError::UnmappedUser { uid: 1000, .. })));
        assert_eq!(sandbox.sh("touch /f && chown 5:6 /f && id -u"), "0\n", "a change of owner seems to work");
        return;
    }
    let mut task =
        sandbox.task(&format!("id -u; id -g; id -G; {caps}; touch /tmp/mine; echo x > /dev/stdout"));
    task.user = User { uid: 1000, gid: 2000, groups: vec![2000, 3000] };
    let ran = sandbox.run(&task);
    let mut lines = ran.stdout.lines();
    assert_eq!(
        [lines.next(), lines.next(), lines.next()],
        [Some("1000"), Some("2000"), Some("2000 3000")],
        "{ran:?}"
    );
    assert!(
        lines.next().unwrap().starts_with(
            "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:0000"
        )
    );
    assert_eq!(ran.exit, Exit::Code(0), "a user can reopen its own output: {ran:?}");
    let owner = std::fs::metadata(sandbox.path("tmp/mine")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 1000);
}

#[test]
fn insecure_steps_have_all_capabilities() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.entered.launch != LaunchKind::Namespaces {
        return;
    }
    let mut task = sandbox.task("mkdir /m && mount -t tmpfs none /m && touch /m/x && umount /m && rmdir /m");
    assert_ne!(sandbox.run(&task).exit, Exit::Code(0), "mounts need more than the default capabilities");
    let _ = std::fs::remove_dir(sandbox.path("m"));
    task.insecure = true;
    let ran = sandbox.run(&task);
    assert_eq!(ran.exit, Exit::Code(0), "{ran:?}");
}

#[test]
fn ulimits_are_set() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox.task("ulimit -n; ulimit -Hn; ulimit -c");
    let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft: Some(soft), hard: Some(hard) };
    task.ulimits = vec![limit("nofile", 512, 900), limit("core", 0, 0)];
    assert_eq!(sandbox.run(&task).stdout, "512\n900\n0\n");
    assert_eq!(sandbox.sh("ulimit -n"), "1024\n");
    task.ulimits = vec![limit("nonsense", 1, 1)];
    assert!(
        matches!(sandbox.try_run(&task), Err(SandboxError::UnknownUlimit { name }) if name == "nonsense")
    );
}

#[test]
fn nothing_of_a_step_lives_on() {
    let Some(sandbox) = Sandbox::new() else { return };
    let script = "setsid sh -c 'setsid sh -c \"while :; do echo alive >> /tmp/log; sleep 0.02; done\" &' & \
                  nohup sleep 1000 >/dev/null 2>&1 & while ! test -s /tmp/log; do sleep 0.01; done; echo done";
    let started = Instant::now();
    assert_eq!(sandbox.sh(script), "done\n");
    assert!(started.elapsed() < Duration::from_secs(20));
    let size = std::fs::metadata(sandbox.path("tmp/log")).unwrap().len();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(std::fs::metadata(sandbox.path("tmp/log")).unwrap().len(), size);
}

#[test]
fn a_fork_loop_is_stopped() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox.task("f() { echo . >> /tmp/log; sleep 0.01; f & }; f & f & f & sleep 0.3; exit 3");
    // What a step can start is limited only to keep a failing test from eating the machine.
    let limit = Some(4000);
    task.ulimits = vec![Ulimit { name: "nproc".to_owned(), soft: limit, hard: limit }];
    let ran = sandbox.run(&task);
    assert_eq!(ran.exit, Exit::Code(3), "{}", ran.stderr);
    let size = std::fs::metadata(sandbox.path("tmp/log")).unwrap().len();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(std::fs::metadata(sandbox.path("tmp/log")).unwrap().len(), size);
}

#[test]
fn a_step_can_be_cancelled() {
    let Some(sandbox) = Sandbox::new() else { return };
    let task = sandbox.task("echo started; setsid sleep 1000 & sleep 1000");
    let cancel = task.cancel.clone();
    let started = Instant::now();
    let result = sandbox.launch.run(&task, &mut |_: OutputStream, _: &[u8]| cancel.cancel());
    assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
    assert!(matches!(sandbox.try_run(&task), Err(SandboxError::Cancelled)), "before it begins");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn steps_run_side_by_side() {
    let Some(sandbox) = Sandbox::new() else { return };
    let second = Sandbox::new().unwrap();
    if sandbox.launch.name() != "namespaces" {
        return;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = [&sandbox, &second]
            .into_iter()
            .map(|sandbox| {
                scope.spawn(|| {
                    (0..5).for_each(|i| assert_eq!(sandbox.sh(&format!("echo {i}")), format!("{i}\n")))
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn pid_namespace_and_proc() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.entered.fresh_proc {
        let seen = sandbox.sh("echo $$; ls /proc | grep '^[0-9]'");
        assert!(seen.starts_with("1\n1\n") && seen.lines().count() <= 4, "{seen}");
    } else if sandbox.entered.launch != LaunchKind::Chroot {
        assert_eq!(sandbox.sh("test -e /proc/$$/stat && echo yes"), "yes\n");
    }
}

#[test]
fn host_name_hosts_and_resolver() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox.task("hostname; cat /etc/hosts /etc/resolv.conf; echo x > /etc/hosts");
    task.hosts = vec![("extra".to_owned(), "192.0.2.7".to_owned())];
    let ran = sandbox.run(&task);
    assert!(ran.stdout.contains("192.0.2.7\textra\n"), "{ran:?}");
    // In place, what the container has mounted there is shown unless the task itself says otherwise.
    let usual = ran.stdout.contains("nameserver 192.0.2.1\n");
    assert!(usual || sandbox.entered.launch == LaunchKind::InPlace, "{ran:?}");
    if sandbox.entered.launch == LaunchKind::Namespaces {
        assert!(ran.stdout.contains("127.0.0.1\tlocalhost buildkitsandbox\n"), "{ran:?}");
        assert_eq!(ran.exit, Exit::Code(1), "they are read-only: {ran:?}");
    }
    task.dns = Some(b"nameserver 192.0.2.53\n".to_vec());
    assert!(sandbox.run(&task).stdout.contains("nameserver 192.0.2.53\n"));
}

#[test]
fn without_network_there_is_only_loopback() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut task = sandbox
        .task("cut -d: -f1 /proc/net/dev | tr -d ' ' | grep -v '|'; ls /sys/class/net; ip addr show lo");
    task.network = Network::None;
    if sandbox.entered.launch != LaunchKind::Namespaces {
        task.argv[2] = "ping -c 1 -w 1 127.0.0.1".into();
        let ran = sandbox.run(&task);
        assert_ne!(ran.exit, Exit::Code(0), "{ran:?}");
        assert!(ran.stderr.contains("is a filter here") && ran.stderr.contains("not supported"), "{ran:?}");
        return;
    }
    let ran = sandbox.run(&task);
    assert!(ran.stdout.starts_with("lo\n"), "{ran:?}");
    // A new sysfs is refused where parts of the outer one are masked, as with /proc.
    if sandbox.entered.fresh_proc {
        assert!(ran.stdout.starts_with("lo\nlo\n1:"), "{ran:?}");
    }
    assert!(ran.stdout.contains("LOOPBACK,UP"), "{ran:?}");
}

#[test]
fn new_user_namespaces_are_refused_inside() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.entered.launch == LaunchKind::Namespaces {
        let ran = sandbox.run(&sandbox.task("busybox unshare -U true"));
        assert_ne!(ran.exit, Exit::Code(0));
        assert!(ran.stderr.contains("not permitted"), "{ran:?}");
    }
}

#[test]
#[ignore = "a measurement"]
fn how_long_an_empty_step_takes() {
    let Some(sandbox) = Sandbox::new() else { return };
    let started = Instant::now();
    for _ in 0..100 {
        sandbox.sh("true");
    }
    println!("{:?} a step", started.elapsed() / 100);
}
