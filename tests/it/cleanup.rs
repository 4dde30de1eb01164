//! Nothing stays behind, however a build ends, and the next one works.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::need::{Busybox, Root};
use crate::support::{Context, Kiln, run};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// Command lines of processes that mention a text.
fn processes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(line);
        }
    }
    found
}

/// Waits for a condition for some seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_clean(kiln: &Kiln, marker: &str) {
    let store = kiln.store().display().to_string();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&store)).collect();
    assert!(left.is_empty(), "mounts left: {left:?}");
    eventually("processes of the step are gone", || processes(marker).is_empty());
    eventually("processes of kiln are gone", || processes(&store).is_empty());
}

fn signal(child: &Child, name: &str) {
    // The shell's own: a minimal system has no such program.
    run(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &child.id().to_string()])).ok();
}

#[test]
fn a_build_leaves_no_process_and_no_mount() {
    require!(Busybox);
    let kiln = Kiln::new();
    kiln.build(&Context::on_busybox("RUN (setsid sleep 71001 &); true\n"), &[]).ok();
    assert_clean(&kiln, "sleep 71001");
    kiln.build(&Context::on_busybox("RUN (setsid sleep 71001 &); exit 3\n"), &[]).fails(1, &[]);
    assert_clean(&kiln, "sleep 71001");
}

#[test]
fn an_interrupted_step_ends_at_once() {
    require!(Busybox);
    for (name, marker) in [("INT", "sleep 71002"), ("TERM", "sleep 71003")] {
        let kiln = Kiln::new();
        let context = Context::on_busybox(&format!("RUN trap '' INT TERM; {marker} & {marker}\n"));
        let child = kiln.start(&context, &[]);
        eventually("the step runs", || processes(marker).iter().any(|line| line.starts_with("sleep")));
        let started = Instant::now();
        signal(&child, name);
        let outcome = Kiln::finish(child);
        assert!(matches!(outcome.code, Some(1)), "{outcome}");
        assert!(outcome.stderr.contains("interrupted") || outcome.stderr.contains("cancel"), "{outcome}");
        assert!(started.elapsed() < Duration::from_secs(5), "{outcome}");
        assert_clean(&kiln, marker);
        kiln.build(&Context::on_busybox("RUN true\n"), &[]).ok();
    }
}

#[test]
fn interrupted_while_waiting_for_a_registry() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let kiln = Kiln::new();
    let context = Context::new(&format!("FROM 127.0.0.1:{port}/never/answers:1\n"));
    let child = kiln.start(&context, &[]);
    let mut connections = Vec::new();
    eventually("kiln asks the registry", || {
        connections.extend(listener.accept());
        !connections.is_empty()
    });
    let started = Instant::now();
    signal(&child, "INT");
    let outcome = Kiln::finish(child);
    assert!(outcome.code == Some(1), "{outcome}");
    assert!(started.elapsed() < Duration::from_secs(5), "{outcome}");
    assert_clean(&kiln, "no step here");
}

#[test]
fn killed_at_any_moment_the_next_build_succeeds() {
    require!(Busybox);
    let context = Context::on_busybox(
        "RUN i=0; while [ $i -lt 40 ]; do mkdir -p /d/$i; echo $i > /d/$i/f; i=$((i+1)); done\n\
         RUN dd if=/bin/busybox of=/copy bs=64k 2>/dev/null; cat /copy /copy /copy > /more; sleep 0.05\n\
         COPY Dockerfile /\nRUN rm -r /d/1\n",
    );
    let expected = Kiln::new().build(&context, &[EPOCH]).ok();
    let kiln = Kiln::new();
    let started = Instant::now();
    kiln.build(&context, &[EPOCH]).ok();
    let whole = started.elapsed();
    for round in 0..25_u32 {
        let mut child = kiln.start(&context, &[EPOCH]);
        // Spread over the whole build, in an order that does not follow it.
        thread::sleep(whole * ((round * 7) % 25) / 25);
        let _ = child.kill();
        let _ = Kiln::finish(child);
    }
    let after = kiln.build(&context, &[EPOCH]).ok();
    assert_eq!(after.stdout, expected.stdout);
    assert_clean(&kiln, "no step here");
    // What the killed builds had begun does not stay for ever.
    kiln.run("prune", ["--all"]).ok();
}

#[test]
fn builds_share_a_store_at_the_same_time() {
    require!(Busybox);
    let kiln = Kiln::new();
    let contexts: Vec<Context> =
        (0..3).map(|number| Context::on_busybox(&format!("RUN echo {number} > /n && sleep 0.3\n"))).collect();
    let children: Vec<Child> = contexts.iter().map(|context| kiln.start(context, &[EPOCH])).collect();
    for (child, context) in children.into_iter().zip(&contexts) {
        let together = Kiln::finish(child).ok();
        assert_eq!(together.stdout, Kiln::new().build(context, &[EPOCH]).ok().stdout);
    }
    assert_clean(&kiln, "no step here");
}

#[test]
fn the_hosts_own_files_stay_as_they_are() {
    require!(Busybox, Root);
    let before: Vec<_> =
        ["/etc/resolv.conf", "/etc/hosts", "/etc/passwd"].map(|path| fs::read(path).unwrap()).into();
    let lines = "RUN echo x > /etc/resolv.conf; echo y > /etc/hosts; rm -f /etc/passwd; rm -rf /sys/* /proc/* 2>/dev/null; true\n";
    let kiln = Kiln::new();
    let image = kiln.image(&Context::on_busybox(lines));
    let after: Vec<_> =
        ["/etc/resolv.conf", "/etc/hosts", "/etc/passwd"].map(|path| fs::read(path).unwrap()).into();
    assert_eq!(before, after);
    assert!(!image.tree().contains_key("etc/resolv.conf"), "what a step writes there is not the image's");
}
