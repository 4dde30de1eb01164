//! What of the container stays in its place beside a step in place: its devices, what it shares memory by, the files mounted in
//! it. The next step, the next build and the job find them as they were.

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, base};

const IN_PLACE: [Place; 2] = [Place::Kind("A"), Place::Kind("C")];

/// Lists `/dev` with all that tells one entry from another.
const LIST: &str = "mkdir -p /tmp; list() { find /dev -path /dev/pts -prune -o -exec stat -c '%n %F %t:%T %a %u:%g %N' {} + | sort; }; ";

/// Ways to have the next step read, or wait for, what one likes; and whether it can be told from honest use.
const DEVICES: [(&str, bool); 7] = [
    ("rm /dev/null; printf 'EVIL=1\\n' > /dev/null", true),
    ("rm /dev/null; mkfifo /dev/null", true),
    ("rm /dev/urandom; printf AAAAAAAAAAAAAAAA > /dev/urandom", true),
    ("rm /dev/zero; ln -s /dev/full /dev/zero", true),
    ("mv /dev/random /dev/r; mkdir -p /dev/random/x", true),
    ("rm /dev/urandom; mknod /dev/urandom c 1 5", true),
    (
        "chmod 000 /dev/null; chown 7 /dev/zero; rm -f /dev/fd; ln -s /etc /dev/fd; rm /dev/full; mv /dev/tty /dev/t",
        false,
    ),
];

#[test]
fn devices_are_as_before_after_each_step() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let honest = "RUN cp /dev/null /seen; head -c 8 /dev/zero | od -An -tx1 >> /seen; head -c 8 /dev/urandom | grep -c AAAAAAAA; \
                  read x; echo \"stdin: $x\"; cat /seen; echo done\n";
    let mut context = Context::on_busybox(honest);
    for (number, (attack, _)) in DEVICES.iter().enumerate() {
        // The step goes on to be well: what it did is not to be told by its end.
        context = context
            .file(&number.to_string(), format!("FROM {}\nRUN {attack}; true\n{honest}", base::busybox()));
    }
    let script = format!(
        "{LIST} list > $OUT/before; for n in $(seq 0 {}); do \
            timeout 60 $BUILD --no-cache -f $CONTEXT/$n $CONTEXT > $OUT/log 2>&1; echo $n ended $?; \
            grep -e 'stdin: EVIL' -e 'replaced the container' $OUT/log | sed \"s/^/$n: /\"; list | diff $OUT/before - && echo $n as before; done; \
         timeout 60 $BUILD --no-cache $CONTEXT 2>&1",
        DEVICES.len() - 1
    );
    for place in IN_PLACE {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        for (number, (attack, is_told)) in DEVICES.iter().enumerate() {
            let code = u8::from(*is_told);
            assert!(ended.stdout.contains(&format!("{number} ended {code}\n")), "{attack}\n{ended}");
            assert!(ended.stdout.contains(&format!("{number} as before\n")), "{attack}\n{ended}");
            let told =
                ended.stdout.contains(&format!("{number}: error: the step replaced the container's `/dev/"));
            assert_eq!(told, *is_told, "{attack}\n{ended}");
        }
        assert!(!ended.stdout.contains("stdin: EVIL"), "{ended}");
    }
}

#[test]
fn what_a_step_leaves_in_dev_is_gone_and_the_jobs_own_stays() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let steps = "RUN ln -sfn /proc/self/fd /dev/fd; mkdir -p /dev/x/y; touch /dev/shm/lock /dev/mqueue/queue; mkdir /dev/shm/d; echo x > /dev/shm/d/f; \
        touch /dev/shm/begun; while ! test -e /dev/shm/jobs; do sleep 0.05; done\n\
        RUN test ! -e /dev/x && test ! -e /dev/shm/lock && test ! -e /dev/mqueue/queue && test ! -e /dev/shm/d && cat /dev/shm/jobs /dev/shm/before\n";
    let context = Context::on_busybox(steps);
    // The job's own process begins to use a file while the first step runs.
    let script = format!(
        "{LIST} echo mine > /dev/shm/before; list > $OUT/before; \
         (while ! test -e /dev/shm/begun; do sleep 0.05; done; exec 3> /dev/shm/jobs; echo used >&3; exec sleep 1000 < /dev/null > /dev/null 2>&1) & \
         $BUILD $CONTEXT; echo ended $?; kill $!; rm /dev/shm/jobs; list | diff $OUT/before - && echo as before"
    );
    for place in IN_PLACE {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        assert!(ended.stdout.contains("ended 0\nas before\n"), "{ended}");
        assert!(ended.stderr.contains(" used\n") && ended.stderr.contains(" mine\n"), "{ended}");
    }
}

/// Whoever is left puts it back.
#[test]
fn who_kills_kiln_leaves_no_device_and_no_hosts_behind() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let step = "w=$PPID; parent() { sed 's/.*) //' /proc/$1/stat | cut -d' ' -f2; }; k=$(parent $w); p=$(parent $k); \
        rm /dev/zero; echo EVIL > /dev/zero; echo EVIL > /dev/shm/evil; echo '6.6.6.6 registry.example' >> /etc/hosts; \
        kill -9 ORDER; sleep 60";
    let orders = [("w", "$w"), ("k", "$k"), ("kw", "$k $w"), ("pk", "$p $k")];
    let mut context = Context::on_busybox("RUN true\n");
    for (name, order) in orders {
        context =
            context.file(name, format!("FROM {}\nRUN {}\n", base::busybox(), step.replace("ORDER", order)));
    }
    let script = format!(
        "{LIST} list > $OUT/before; cat /etc/hosts > $OUT/hosts; for order in w k kw pk; do \
            timeout 60 $BUILD --no-cache --add-host=own.example:7.7.7.7 -f $CONTEXT/$order $CONTEXT > $OUT/log 2>&1; echo $order code $?; \
            for i in $(seq 200); do grep -qx 'kiln\\|exe' /proc/[0-9]*/comm 2>/dev/null || break; sleep 0.1; done; \
            list | diff $OUT/before - && cmp /etc/hosts $OUT/hosts && echo $order as before; cat $OUT/log; done; $BUILD $CONTEXT"
    );
    for place in IN_PLACE {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        for (order, _) in orders {
            assert!(!ended.stdout.contains(&format!("{order} code 0\n")), "{order}\n{ended}");
            assert!(ended.stdout.contains(&format!("{order} as before\n")), "{order}\n{ended}");
        }
    }
}

#[test]
fn mounted_files_are_as_before_for_the_next_step_and_the_job() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("termination-log"), "").unwrap();
    for name in ["settings", "moved"] {
        std::fs::write(own.path().join(name), "honest\n").unwrap();
    }
    let volume = |name: &str, at: &str| format!("{}:{at}", own.path().join(name).display());
    let volumes = [
        volume("termination-log", "/dev/termination-log"),
        volume("settings", "/settings"),
        volume("moved", "/opt/moved"),
    ];
    let attack = "RUN echo '6.6.6.6 registry.example' >> /etc/hosts; echo 'nameserver 6.6.6.6' > /etc/resolv.conf; echo evil > /etc/hostname; \
        chmod 666 /etc/hosts; chown 7 /etc/resolv.conf; echo evil > /dev/termination-log; \
        for f in /kiln/store/kiln/sandbox/saved-*; do echo '6.6.6.6 saved.example' >> $f; done; touch /done\n";
    let look = "RUN cat /etc/hosts /etc/resolv.conf /etc/hostname | grep -e 6.6.6.6 -e evil && echo LE''AK; grep -c own.example /etc/hosts; true\n";
    let context =
        Context::on_busybox(&format!("{attack}FROM {}\nCOPY --from=0 /done /done\n{look}", base::busybox()))
            .file("settings", format!("FROM {}\nRUN echo evil > /settings\n", base::busybox()))
            .file(
                "moved",
                format!(
                    "FROM {}\nRUN echo evil > /kiln/store/kiln/sandbox/park/opt/moved\n",
                    base::busybox()
                ),
            );
    let script = "mkdir -p /tmp; list() { for f in /etc/hosts /etc/resolv.conf /etc/hostname /dev/termination-log /settings /opt/moved; do stat -c '%n %a %u:%g %y' $f; cat $f; done; }; \
        list > $OUT/before; $BUILD --no-cache $CONTEXT; echo ended $?; list | diff $OUT/before - && echo as before; \
        $BUILD --no-cache --add-host=own.example:7.7.7.7 $CONTEXT; echo ended $?; list | diff $OUT/before - && echo as before; \
        $BUILD --no-cache -f $CONTEXT/settings $CONTEXT; echo ended $?; list | diff $OUT/before - && echo as before; \
        $BUILD --no-cache -f $CONTEXT/moved $CONTEXT; echo ended $?; list | diff $OUT/before - && echo as before";
    for place in IN_PLACE {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &volumes, script).ok();
        let said: Vec<&str> =
            ended.stdout.lines().filter(|line| line.starts_with("ended") || *line == "as before").collect();
        assert_eq!(
            said,
            ["ended 0", "as before", "ended 0", "as before", "ended 1", "as before", "ended 1", "as before"],
            "{place:?}\n{ended}"
        );
        assert!(!ended.stderr.contains("LEAK"), "{ended}");
        for path in ["/settings", "/opt/moved"] {
            let told = format!("`{path}` is in the way: the step wrote to this single file");
            assert!(ended.stderr.contains(&told), "{ended}");
        }
    }
}
