//! A step's processes: all of them end with the step, nobody else's do, and killing kiln gains nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Place, rounds, with_program};
use crate::support::container::{RUNTIME, as_kind_without, debug_container};
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, base, finish};

/// Shell functions: `count PROGRAM` counts processes by their names, `settle` waits until nothing of kiln's runs, and
/// `credentials` and `refilled` are about kiln's credentials.
const TOOLS: &str = "AUTH=Y2k6czNjcjN0LTN4YWN0; FILE=/kiln/.docker/config.json; \
    count() { grep -lx \"$1\" /proc/[0-9]*/comm 2>/dev/null | wc -l; }; \
    settle() { for i in $(seq 200); do [ $(count 'kiln\\|exe') = 0 ] && break; sleep 0.1; done; sleep 0.2; }; \
    children() { cat /proc/$1/task/*/children 2>/dev/null; }; \
    credentials() { mkdir -p /kiln/.docker; rm -f $FILE; \
        (umask 077; echo \"{\\\"auths\\\":{\\\"r.example\\\":{\\\"auth\\\":\\\"$AUTH\\\"}}}\" > $FILE); }; \
    refilled() { grep -q $AUTH $FILE 2>/dev/null; }; ";

fn with_survivor(context: Context) -> Context {
    with_program(context, "survivor")
}

/// The Dockerfile of a step that outlives its watcher, and kills in the order of `w`atcher, `k`iln and its `p`arent.
fn survives(order: &str) -> String {
    format!(
        "FROM {}\nCOPY survivor /survivor\nRUN [\"/survivor\", \"{order}\", \"Y2k6czNjcjN0LTN4YWN0\", \"/dev/shm/stolen\"]\n",
        base::busybox()
    )
}

#[test]
fn killing_kiln_in_any_order_gains_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    // With all three dead the next start has to find what is left, whatever that made of itself (`survivor.c`).
    let hiding = ["wkph", "wkpz", "wkpc", "wkpj", "wkpczj"];
    let orders = ["w", "k", "p", "wk", "kw", "wp", "pw", "kp", "pk", "wkp", "kwp", "pkw", "pwk"];
    let orders = [&orders[..], &hiding].concat();
    let mut context = with_survivor(Context::on_busybox("RUN true\n")).file("wkpf", survives("wkpf"));
    for order in &orders {
        context = context.file(order, survives(order));
    }
    let script = format!(
        "{TOOLS} for order in $ORDERS; do credentials; rm -f /dev/shm/stolen; \
         $BUILD --no-cache -f $CONTEXT/$order --output=type=oci,dest=/dev/shm/tar $CONTEXT > /dev/shm/log 2>&1; code=$?; settle; \
         echo \"$order code $code alive $(count survivor) $(refilled && echo refilled)\"; \
         ! test -e /dev/shm/stolen || echo $order stole; ! test -e /dev/shm/tar || echo $order moved a name; \
         $BUILD $CONTEXT > /dev/shm/next 2>&1; echo \"$order next $? alive $(count survivor) $(grep -c 'nothing is refilled' /dev/shm/next)\"; \
         ! test -e /dev/shm/stolen || echo $order stole; refilled || echo $order has no credentials; \
         for i in $(seq 100); do [ $(count survivor) = 0 ] && break; killall -9 survivor; done 2>/dev/null; done"
    );
    let context = context.file("script", script);
    // Of some orders in C: it differs from A by where `/etc` is.
    // Who is to be found by the next start is always another process: that is tried again and again.
    let again = [&orders[..], &vec!["wkp"; rounds(2) as usize]].concat();
    let fast = vec!["wkpf"; rounds(1) as usize];
    let subreaper = "$CONTEXT/survivor subreaper";
    for (kind, job, orders) in [
        ("A", "", &again[..]),
        ("A", "", &fast),
        ("A", subreaper, &["wkp", "wkpz"]),
        ("C", "", &["wkp", "wkpczj"]),
    ] {
        let out = tempfile::tempdir().unwrap();
        let script = format!(
            "export CONTEXT BUILD ORDERS='{}'; {job} /busybox/sh $CONTEXT/script; true",
            orders.join(" ")
        );
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script);
        assert!(!ended.stdout.contains("stole") && !ended.stdout.contains("moved a name"), "{kind}\n{ended}");
        assert!(!ended.stdout.contains(" code 0 "), "{kind}\n{ended}");
        for line in ended.stdout.lines().filter(|line| line.contains(" next ")) {
            assert!(line.contains(" next 0 alive 0 "), "{kind}\n{ended}");
        }
        for order in orders {
            let said = |text: &str| ended.stdout.contains(&format!("{order} {text}"));
            // With all three dead there is nobody to refill anything: the next start ends what is left, and says so.
            let is_lost = order.len() > 2 && said("next 0 alive 0 1\n") && said("has no credentials\n");
            let is_refilled = said("next 0 alive 0 0\n")
                && ended.stdout.lines().any(|line| {
                    line.starts_with(&format!("{order} code ")) && line.ends_with(" alive 0 refilled")
                });
            assert!(is_lost || is_refilled, "{kind} {order}\n{ended}");
        }
    }
}

/// A stopped process obeys no signal but two, and keeps what it has locked.
#[test]
fn a_step_that_stops_kiln_or_its_watcher_keeps_nobody_from_ending_the_build() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let step = |whom: &str| {
        format!(
            "FROM {}\nRUN k=$(cut -d' ' -f4 /proc/$PPID/stat); w=$PPID; kill -STOP {whom}; touch /dev/shm/stopped; sleep 300\n",
            base::busybox()
        )
    };
    let again = "while :; do kill -STOP $k; done & true";
    let context = Context::on_busybox("RUN true\n")
        .file("kiln", step("$k"))
        .file("watcher", step("$w"))
        .file("again", step(&format!("$k; {again}")));
    // What the job does to what it has started: asks once, or twice; or it kills the keeper, and nobody is asked.
    let script = format!(
        "{TOOLS} for case in 'kiln TERM' 'watcher TERM' 'again TERM TERM' 'kiln KILL' 'watcher KILL' 'again KILL'; do \
         set -- $case; step=$1; shift; credentials; rm -f /dev/shm/stopped; \
         $BUILD --no-cache -f $CONTEXT/$step $CONTEXT > /dev/shm/log 2>&1 & B=$!; \
         until test -e /dev/shm/stopped; do sleep 0.1; done; sleep 0.5; \
         for signal; do kill -$signal $B; sleep 1; done; \
         for i in $(seq 300); do kill -0 $B 2>/dev/null || break; sleep 0.1; done; kill -0 $B 2>/dev/null && echo $case goes on; \
         wait $B; echo \"$case code $?\"; \
         $BUILD $CONTEXT > /dev/shm/next 2>&1; echo \"$case next $? alive $(count sleep)\"; cat /dev/shm/next >&2; done"
    );
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script);
        assert!(!ended.stdout.contains("goes on") && !ended.stdout.contains(" code 0"), "{kind}\n{ended}");
        assert_eq!(ended.stdout.matches(" next 0 alive 0\n").count(), 6, "{kind}\n{ended}");
    }
}

/// getrlimit(2)'s numbers, and limits under which nothing goes any more.
const LIMITS: [(&str, &str, &str); 6] = [
    ("nofile", "7", "3"),
    ("fsize", "1", "0"),
    ("cpu", "0", "0"),
    ("as", "9", "4096"),
    ("nproc", "6", "0"),
    ("stack", "3", "0"),
];

/// Whom a step limits, and whom it kills then; `e` is the step's own end.
const LIMITED: [(&str, &str); 6] = [("w", "e"), ("k", "e"), ("p", "e"), ("wk", "e"), ("w", "k"), ("p", "k")];

#[test]
fn limits_on_kilns_processes_gain_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    let mut context = with_program(with_survivor(Context::on_busybox("RUN true\n")), "limits");
    let mut attacks = Vec::new();
    for (resource, number, limit) in LIMITS {
        for (whom, order) in LIMITED.iter().take(if resource == "nofile" { 6 } else { 1 }) {
            let name = format!("{resource}-{whom}-{order}");
            let text = format!(
                "FROM {}\nCOPY survivor limits /\nRUN [\"/limits\", \"{whom}\", \"{number}\", \"{limit}\", \
                 \"/survivor\", \"{order}\", \"Y2k6czNjcjN0LTN4YWN0\", \"/dev/shm/stolen\"]\n",
                base::busybox()
            );
            context = context.file(&name, text);
            attacks.push(name);
        }
    }
    let script = format!(
        "{TOOLS} /busybox/ls / > /dev/shm/slash; for attack in ATTACKS; do credentials; rm -f /dev/shm/stolen /dev/shm/tar; \
         $BUILD --no-cache -f $CONTEXT/$attack --output=type=oci,dest=/dev/shm/tar $CONTEXT > /dev/shm/log 2>&1; code=$?; settle; \
         echo \"$attack code $code alive $(count survivor) $(refilled && echo refilled)\"; \
         grep -q LIMITED /dev/shm/log || echo $attack did not limit; /busybox/ls / | cmp - /dev/shm/slash || echo $attack left its files; \
         $BUILD $CONTEXT > /dev/shm/next 2>&1; echo \"$attack next $? alive $(count survivor)\"; \
         ! test -e /dev/shm/stolen || echo $attack stole; done"
    );
    for (kind, attacks) in [("A", &attacks[..]), ("C", &attacks[..1])] {
        let out = tempfile::tempdir().unwrap();
        let script = script.replace("ATTACKS", &attacks.join(" "));
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script).ok();
        for wrong in ["stole", "did not limit", "left its files"] {
            assert!(!ended.stdout.contains(wrong), "{kind}: {wrong}\n{ended}");
        }
        for attack in attacks {
            let said = |text: &str| ended.stdout.lines().any(|line| line == format!("{attack} {text}"));
            assert!(said("next 0 alive 0"), "{kind} {attack}\n{ended}");
            let ends = |end: &str| {
                let begin = format!("{attack} code ");
                ended.stdout.lines().any(|line| line.starts_with(&begin) && line.ends_with(end))
            };
            // Where kiln cannot look for what is left of the step, nothing is refilled.
            assert!(ends(" alive 0 refilled") || ends(" alive 0 "), "{kind} {attack}\n{ended}");
            // kiln itself has ended what is left and put everything back.
            assert!(!attack.ends_with("w-e") || ends(" alive 0 refilled"), "{kind} {attack}\n{ended}");
        }
    }
}

/// What a step does to kiln, `$K`, that other steps could inherit; the last is for where there is no /proc.
const INHERITED: [(&str, &str); 8] = [
    ("cpu", "exec /limits k 0 1000 /bin/touch /done"),
    ("stack", "exec /limits k 3 65536 /bin/touch /done"),
    ("core", "exec /limits k 4 0 /bin/touch /done"),
    ("keeper", "exec /limits p 0 1000 /bin/touch /done"),
    ("oom", "echo 1000 > /proc/$K/oom_score_adj"),
    ("nice", "for t in /proc/$K/task/*; do renice -n 19 -p ${t##*/}; done; true"),
    ("cpus", "for t in /proc/$K/task/*; do taskset -p 1 ${t##*/}; done; true"),
    ("all", "exec /limits a 0 1000 /bin/touch /done"),
];

#[test]
fn a_step_inherits_nothing_that_another_has_set() {
    require!(Busybox, Root, Program(RUNTIME), Program("cc"));
    let base = base::busybox();
    let show = "RUN echo BEGINS $(ulimit -t) $(ulimit -s) $(ulimit -c) $(ulimit -Hn) $(nproc) \
                $(cat /proc/self/oom_score_adj) $(cut -d ' ' -f 19 /proc/self/stat) | tee /begins\n";
    let mut context = with_program(Context::on_busybox(show), "limits");
    for (name, attack) in INHERITED {
        let text = format!(
            "FROM {base} AS evil\nCOPY limits /limits\nRUN K=$(cut -d ' ' -f 4 /proc/$PPID/stat); echo > /done; {attack}\n\
             FROM {base}\nCOPY --from=evil /done /done\n{show}"
        );
        context = context.file(name, text);
    }
    let names = INHERITED.map(|(name, _)| name);
    let last = names.len() - 1;
    for (place, names) in [
        (Place::Kind("A"), &names[..last]),
        (Place::Kind("C"), &names[..last]),
        (Place::Chroot, &names[last..]),
    ] {
        let out = tempfile::tempdir().unwrap();
        let script = format!(
            "$BUILD $CONTEXT > $OUT/honest 2>&1; for name in {}; do \
             $BUILD --no-cache -f $CONTEXT/$name $CONTEXT > $OUT/$name 2>&1; echo $name $? >> $OUT/codes; done; exit 0",
            names.join(" ")
        );
        let outcome = place.run(context.path(), out.path(), &[], &script).ok();
        let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
        let begins = |log: &str| {
            let mut lines = log.lines().filter_map(|line| Some(line.split_once(" BEGINS ")?.1.to_owned()));
            lines.rfind(|line| !line.contains('$'))
        };
        let honest = begins(&read("honest"));
        assert!(honest.is_some(), "{place:?}: {}\n{outcome}", read("honest"));
        for name in names {
            let log = read(name);
            let has_failed = read("codes").contains(&format!("{name} 1\n"))
                && log.contains("a step changed the limits of kiln itself: `");
            // What is not kiln's alone is set back, if the kernel lets a step change it at all.
            let is_as_before = ["nice", "cpus"].contains(name) && begins(&log) == honest;
            assert!(has_failed || is_as_before, "{place:?} {name}: {honest:?}\n{log}\n{outcome}");
        }
    }
}

#[test]
fn a_storm_of_forks_ends_with_its_step() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    let mut context = with_program(Context::on_busybox("RUN true\n"), "storm");
    for (name, count, kill) in [("small", 60, ""), ("large", 300, ""), ("killing", 60, ", \"k\"")] {
        let text = format!(
            "FROM {}\nCOPY storm /storm\nRUN [\"/storm\", \"{count}\", \"Y2k6czNjcjN0LTN4YWN0\", \"/dev/shm/stolen\"{kill}]\n",
            base::busybox()
        );
        context = context.file(name, text);
    }
    let script = format!(
        "{TOOLS} mkdir -p /kiln /dev/shm; for storm in STORMS; do credentials; \
         $BUILD --no-cache -f $CONTEXT/$storm $CONTEXT > /dev/shm/log 2>&1; code=$?; settle; \
         echo \"$storm code $code left $(count storm) $(refilled && echo refilled)\"; done; test ! -e /dev/shm/stolen || echo STOLEN; \
         cat /dev/shm/log"
    );
    for (kind, storms) in [("A", "small large killing"), ("C", "large"), ("B", "small large")] {
        let out = tempfile::tempdir().unwrap();
        let script = script.replace("STORMS", storms);
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script);
        assert!(!ended.stdout.contains("STOLEN"), "{kind}\n{ended}");
        for storm in storms.split(' ') {
            let code = if storm == "killing" { 137 } else { 0 };
            let said = format!("{storm} code {code} left 0 refilled\n");
            assert!(ended.stdout.contains(&said), "{kind} {storm}\n{ended}");
        }
    }
}

/// The whole proof is `KILN_ATTACK_ROUNDS=200`.
#[test]
fn a_step_that_forks_while_it_is_killed_leaves_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    let storm = "RUN (setsid sh -c 'while :; do (setsid sleep 4321 &); done' &); (setsid sh -c 'while :; do (sleep 4321 &); done' &); \
                 sleep 0.1; kill -9 $PPID; sleep 10\n";
    let context = with_survivor(Context::on_busybox(storm)).file("survivor-file", survives("w"));
    let script = format!(
        "{TOOLS} for round in $(seq {}); do credentials; rm -f /dev/shm/stolen; \
         $BUILD --no-cache $CONTEXT > /dev/shm/log 2>&1 && echo BUILT; echo \"left $(count sleep)\"; refilled || echo LOST; \
         $BUILD --no-cache -f $CONTEXT/survivor-file $CONTEXT > /dev/shm/log 2>&1 && echo BUILT; \
         echo \"left $(count survivor)\"; refilled || echo LOST; done; test ! -e /dev/shm/stolen || echo STOLEN",
        rounds(3)
    );
    let out = tempfile::tempdir().unwrap();
    let ended = Place::Kind("A").run(context.path(), out.path(), &[], &script).ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2 * rounds(3) as usize, "{ended}");
    assert!(lines.iter().all(|line| *line == "left 0"), "{ended}");
}

#[test]
fn nothing_of_a_step_outlives_kiln_in_any_kind() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // As a user: the change of user takes the signal that a parent's death gives.
    // A plain user's are seen among all of the machine's.
    let nap = format!("sleep {}", 1_000_000 + std::process::id());
    let context =
        Context::on_busybox(&format!("USER 65534\nRUN (setsid sh -c '(setsid {nap} &); {nap}' &); {nap}\n"));
    let script = format!(
        "{TOOLS} alive() {{ cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[s]{}' | wc -l; }}; \
         $BUILD $CONTEXT > $OUT/log 2>&1 & kiln=$!; \
         for i in $(seq 600); do [ $(alive) = 3 ] && break; sleep 0.1; done; echo running $(alive); \
         for child in $(children $kiln); do [ $(cat /proc/$child/comm) != kiln ] || kiln=$child; done; \
         watcher=$(children $kiln); kill -9 $kiln; kill -9 $watcher; \
         for i in $(seq 100); do [ $(alive) = 0 ] && break; sleep 0.1; done; echo left $(alive)",
        &nap[1..]
    );
    for place in Place::ALL {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script);
        assert!(ended.stdout.contains("running 3\n"), "{place:?}\n{ended}");
        assert!(ended.stdout.contains("left 0\n"), "{place:?}\n{ended}");
    }
}

/// Shells of `docker exec`, the job's own background processes, orphans of theirs, and the machine.
#[test]
fn strangers_are_never_signalled() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    let context = with_survivor(Context::on_busybox("RUN sleep 1\n"))
        .file("w", survives("w"))
        .file("k", survives("k"))
        .file("wkp", survives("wkp"));
    // Ends of a step, of a kiln, of all three, and the next start; meanwhile the job's own loop and an orphan of the job's.
    let number = std::process::id();
    let script = format!(
        "{TOOLS} s={number}; (while :; do sleep ${{s}}01; done) & loop=$!; (sleep ${{s}}02 &); (setsid sleep ${{s}}03 &); \
         touch /out/ready; while ! test -e /out/go; do sleep 0.05; done; \
         for file in FILES; do $BUILD --no-cache -f $CONTEXT/$file $CONTEXT > /dev/shm/log-$file 2>&1; echo $file $?; SETTLE; done; \
         for n in ${{s}}01 ${{s}}02 ${{s}}03 ${{s}}04 ${{s}}05; do echo \"$n $(cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o \"[s]leep $n\" | wc -l)\"; done; \
         kill $loop; for p in /proc/[0-9]*; do case $(cat $p/cmdline 2>/dev/null | tr '\\0' ' ') in *sleep?${{s}}0[1-5]*) kill ${{p#/proc/}} ;; esac; done"
    );
    for (options, files) in [(&[][..], "w k wkp Dockerfile"), (&["--pid-host"], "wkp Dockerfile")] {
        let (out, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Of the machine: an orphan in a session of its own.
        let mut canary = Command::new("setsid")
            .args(["sleep", &format!("{number}06")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut container = debug_container("A", context.path(), out.path());
        container.args(options).arg("--state").arg(state.path()).args(["--", "/busybox/sh", "-c"]);
        // Other kilns of the machine are seen without a pid namespace.
        let settle = if options.is_empty() { "settle" } else { "sleep 2" };
        let script = script.replace("FILES", files).replace("SETTLE", settle);
        container.arg(format!("CONTEXT=/context; BUILD='kiln build --progress=plain'; {script}"));
        let container = container.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begin = Instant::now();
        while !out.path().join("ready").exists() && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut shell = Command::new("runc");
        shell.arg("--root").arg(state.path()).args(["exec", "job", "/busybox/sh", "-c"]);
        let mut shell = shell
            .arg(format!("/busybox/sleep {number}04 & /busybox/sleep {number}05"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(out.path().join("go"), "").unwrap();
        let ended = finish(container, "strangers".to_owned());
        for n in 1..=5 {
            let n = format!("{number}0{n}");
            // The runtime's own command line counts as well where it is seen.
            let lives = |count| ended.stdout.contains(&format!("{n} {count}\n"));
            assert!(lives(1) || lives(2), "{n} {options:?}\n{ended}");
        }
        assert!(ended.stdout.contains("Dockerfile 0\n"), "{options:?}\n{ended}");
        assert!(canary.try_wait().unwrap().is_none(), "{options:?}\n{ended}");
        canary.kill().unwrap();
        canary.wait().unwrap();
        let _ = shell.kill();
        shell.wait().unwrap();
    }
}

/// `kill`, and `prlimit`, which the kernel refuses, from a step that is root and sees kiln.
#[test]
fn signals_do_not_reach_kiln_where_they_can_be_kept_away() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    let context = Context::on_busybox(
        "COPY limits /limits\n\
         RUN kiln=$(cut -d' ' -f4 /proc/$PPID/stat); for p in $PPID $kiln; do for s in 9 15 19; do kill -$s $p && echo REA''CHED $p; done; done; \
         sleep 60 & kill $! && echo own children he''ar\n\
         RUN [\"/limits\", \"wk\", \"0\", \"0\", \"/bin/true\"]\n",
    );
    let context = with_program(context, "limits");
    for (place, option) in [
        (Place::Kind("B"), ""),
        (Place::Kind("P"), ""),
        (Place::Kind("A"), "--hardened"),
        (Place::Kind("C"), "--hardened"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let built = place.run(context.path(), out.path(), &[], &format!("$BUILD {option} $CONTEXT")).ok();
        for reached in ["REACHED", "LIMITED", "own limits are refused"] {
            assert!(!built.stderr.contains(reached), "{place:?}\n{built}");
        }
        assert!(built.stderr.contains("own children hear"), "{place:?}\n{built}");
    }
}

/// Where nothing keeps them apart they take turns: a kernel without Landlock, and no pid namespace for a step.
#[test]
fn steps_of_one_build_see_nothing_of_each_other() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let look = "for n in 1 2 3 4 5 6 7 8 9 10; do for p in /proc/[0-9]*; do \
        ! grep -q hid''den $p/root/run/secrets/s 2>/dev/null || echo STO''LEN; done; sleep 0.2; done";
    let context = Context::empty().file(
        "Dockerfile",
        format!(
            "FROM {0} AS a\nRUN --mount=type=secret,id=s sleep 2; echo > /a\nFROM {0} AS b\nRUN {look}; echo > /b\n\
             FROM {0}\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
            base::busybox()
        ),
    );
    let script = "CONTEXT=/context; echo hidden > /s; kiln build --progress=plain --root=/var/kiln --secret=id=s,src=/s $CONTEXT";
    for kind in ["B", "D", "P", "F"] {
        for denied in [&[][..], &["landlock_create_ruleset"]] {
            let out = tempfile::tempdir().unwrap();
            let built = as_kind_without(denied, kind, context.path(), out.path(), script).ok();
            assert!(!built.stderr.contains("STOLEN"), "{kind} {denied:?}\n{built}");
        }
    }
}

#[test]
fn a_hardened_step_gets_no_privileges() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox("RUN grep NoNewPrivs /proc/self/status\n");
    for place in [Place::Kind("A"), Place::Kind("B"), Place::Kind("E")] {
        let out = tempfile::tempdir().unwrap();
        let script = "$BUILD --hardened $CONTEXT; kiln executor --hardened --context=$CONTEXT --no-push; $BUILD --no-cache $CONTEXT";
        let built = place.run(context.path(), out.path(), &[], script);
        let said = format!("{}{}", built.stdout, built.stderr);
        assert!(said.contains("NoNewPrivs:\t1") && said.contains("NoNewPrivs:\t0"), "{place:?}\n{built}");
    }
}
