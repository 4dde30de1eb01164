//! What a step in place can write to: other stages' trees, the store, kiln's own files. Nothing of it gets into an image.

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Outcome, base};

/// The kinds in which steps run in place; they differ by where `/etc` is.
const IN_PLACE: [&str; 2] = ["A", "C"];

/// Builds each of the Dockerfiles in one container of a kind, in which steps run in place; says which built.
fn build_each(kind: &'static str, dockerfiles: &[(String, String)]) -> Outcome {
    let mut context = Context::empty();
    for (name, text) in dockerfiles {
        context = context.file(name, text.replace("BUSYBOX", base::busybox()));
    }
    let out = tempfile::tempdir().unwrap();
    let script = "for f in $CONTEXT/*; do n=${f##*/}; \
        if $BUILD --no-cache -f $f $CONTEXT > $OUT/digest 2> $OUT/log; then echo BUILT $n; else echo REFUSED $n; fi; \
        grep -h -e ATTACKED -e 'changed `' $OUT/log | sed \"s|^|$n: |\"; done; cat $OUT/log";
    Place::Kind(kind).run(context.path(), out.path(), &[], script)
}

/// What a step does to a file or directory of another stage once it has found it.
const TAMPERINGS: [(&str, &str); 7] = [
    ("plants", "echo evil > $D/planted"),
    ("edits", "touch -r $T /tmp/then; echo evil > $T; touch -r /tmp/then $T"),
    ("replaces", "cp -a $D/sub $D/sub2; echo evil > $D/sub2/file; rm -r $D/sub; mv $D/sub2 $D/sub"),
    ("removes", "rm $T"),
    ("marks", "chmod 4755 $T"),
    ("links", "ln -sf elsewhere $D/link"),
    ("moves", "R=${T%/opt/tool}; cp -a $R $R.2; echo evil > $R.2/opt/tool; mv $R $R.1; mv $R.2 $R"),
];

/// How a stage's files come to be used after that.
const USES: [(&str, &str); 5] = [
    ("copy", "FROM BUSYBOX\nCOPY --from=b /done /done\nCOPY --from=a /opt /opt\n"),
    ("copy-link", "FROM BUSYBOX\nCOPY --from=b /done /done\nCOPY --link --from=a /opt /opt\n"),
    ("fork", "FROM a\nCOPY --from=b /done /done\nRUN cat /opt/tool /opt/sub/file\n"),
    (
        "bind",
        "FROM BUSYBOX\nCOPY --from=b /done /done\nRUN --mount=from=a,source=/opt,target=/mnt cat /mnt/tool\n",
    ),
    (
        "write",
        "FROM BUSYBOX\nCOPY --from=b /done /done\nRUN --mount=from=a,source=/opt,target=/mnt,rw cat /mnt/tool\n",
    ),
];

fn attack(tampering: &str, used: &str) -> String {
    format!(
        "FROM BUSYBOX AS a\n\
         RUN mkdir -p /opt/sub && echo good > /opt/tool && echo good > /opt/sub/file && ln -s tool /opt/link\n\
         FROM BUSYBOX AS b\n\
         COPY --from=a /opt/tool /seen\n\
         RUN for T in $(find /kiln/store/kiln/work -path '*/opt/tool'); do D=${{T%/tool}}; {tampering}; echo ATT''ACKED; done; echo > /done\n\
         {used}"
    )
}

#[test]
fn a_step_gets_nothing_into_another_stages_files() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let mut dockerfiles = Vec::new();
    for (name, tampering) in TAMPERINGS {
        dockerfiles.push((format!("{name}-copy"), attack(tampering, USES[0].1)));
    }
    for (name, used) in USES.into_iter().skip(1) {
        dockerfiles.push((format!("edits-{name}"), attack(TAMPERINGS[1].1, used)));
    }
    // The stage itself goes on after it was changed.
    let hostile = "RUN sleep 0.2; for T in $(find /kiln/store/kiln/work -path '*/root/opt/tool'); do echo evil > $T; echo ATT''ACKED; done\n";
    let goes_on = format!(
        "FROM BUSYBOX AS b\n{hostile}{hostile}{hostile}{hostile}RUN echo > /done\nFROM BUSYBOX\n\
         RUN mkdir /opt && echo good > /opt/tool\nCOPY --from=b /done /done\nRUN cat /opt/tool\n"
    );
    dockerfiles.push(("edits-itself".to_owned(), goes_on));
    for kind in IN_PLACE {
        let ended = build_each(kind, &dockerfiles).ok();
        for (name, _) in &dockerfiles {
            let said = |what: &str| {
                let lines = ended.stdout.lines();
                lines
                    .filter_map(|line| line.strip_prefix(&format!("{name}: ")))
                    .any(|line| line.contains(what))
            };
            assert!(said("ATTACKED"), "{name} did not find anything\n{ended}");
            assert!(said("a step of another stage changed `/"), "{name}\n{ended}");
            assert!(ended.stdout.contains(&format!("REFUSED {name}\n")), "{name}\n{ended}");
        }
    }
}

#[test]
fn stages_that_leave_each_other_alone_build_in_place() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let dockerfiles: Vec<_> =
        USES.into_iter().map(|(name, used)| (name.to_owned(), attack("true", used))).collect();
    for kind in IN_PLACE {
        let ended = build_each(kind, &dockerfiles).ok();
        assert_eq!(ended.stdout.matches("BUILT").count(), USES.len(), "{ended}");
    }
}

/// Runs a script in a container of a kind after it has noted what must be as before.
fn beside_kiln(kind: &'static str, context: &Context, script: &str) -> Outcome {
    let out = tempfile::tempdir().unwrap();
    let all = format!(
        "list() {{ find /kiln /busybox -path /kiln/store -prune -o -type d -exec stat -c '%n %f %u:%g %i' {{}} + -o -exec stat -c '%n %f %u:%g %Y %i' {{}} + | sort; }}; \
         sums() {{ find /kiln /busybox -path /kiln/store -prune -o -type f -exec md5sum {{}} + | sort -k 2; }}; \
         mkdir -p /kiln/git /kiln/store && echo library > /kiln/git/lib; sums > $OUT/sums; list > $OUT/list; {script}"
    );
    Place::Kind(kind).run(context.path(), out.path(), &[], &all)
}

/// Ways to get a program of one's own run by the job's next command.
const SPOILING: [(&str, &str); 8] = [
    ("/kiln/kiln", "printf '#!/bin/sh\\necho EVIL\\n' > /kiln/k; chmod 755 /kiln/k; mv /kiln/k /kiln/kiln"),
    ("/kiln/kiln", "cp /kiln/kiln /kiln/k; mv /kiln/k /kiln/kiln"),
    ("/kiln/kiln", "rm /kiln/kiln; ln -s /busybox/true /kiln/kiln"),
    ("/kiln/ls", "printf '#!/bin/sh\\necho EVIL\\n' > /kiln/ls; chmod 755 /kiln/ls"),
    (
        "/busybox/sh",
        "rm /busybox/sh; printf '#!/busybox/busybox sh\\necho EVIL\\n' > /busybox/sh; chmod 755 /busybox/sh",
    ),
    (
        "/kiln/git/lib",
        "touch -r /kiln/git/lib /tmp/t; echo EVILLIB > /kiln/git/lib; touch -r /tmp/t /kiln/git/lib",
    ),
    ("/kiln/own-image", "rm /kiln/own-image"),
    ("/kiln/git", "mv /kiln/git /tmp/g; cp -a /tmp/g /kiln/git; echo EVIL > /kiln/git/lib"),
];

#[test]
fn what_a_step_makes_of_kilns_own_files_is_undone_and_fails_the_build() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let mut context = Context::empty();
    for (number, (_, spoiling)) in SPOILING.iter().enumerate() {
        let text = format!("FROM {}\nRUN {spoiling}; echo ATT''ACKED\n", base::busybox());
        context = context.file(&format!("{number}"), text);
    }
    let script = "for n in 0 1 2 3 4 5 6 7; do \
        if $BUILD --no-cache -f $CONTEXT/$n $CONTEXT 2> $OUT/log; then echo BUILT $n; else echo REFUSED $n; fi; \
        sed \"s|^|$n: |\" < $OUT/log; sums | cmp - $OUT/sums || sums; kiln images > /dev/null && echo KILN RUNS; done";
    for kind in IN_PLACE {
        let ended = beside_kiln(kind, &context, script).ok();
        for (number, (named, _)) in SPOILING.iter().enumerate() {
            assert!(ended.stdout.contains(&format!("REFUSED {number}\n")), "{number}\n{ended}");
            let said = |what: &str| {
                ended
                    .stdout
                    .lines()
                    .any(|line| line.starts_with(&format!("{number}: ")) && line.contains(what))
            };
            assert!(said("ATTACKED"), "{number}\n{ended}");
            assert!(said(&format!("the step removed or replaced kiln's own `{named}`")), "{number}\n{ended}");
            assert!(said("all is as before again"), "{number}\n{ended}");
        }
        assert!(!ended.stdout.contains("differ"), "{ended}");
        assert_eq!(ended.stdout.matches("KILN RUNS\n").count(), SPOILING.len(), "{ended}");
    }
}

#[test]
fn modes_owners_and_times_of_everything_are_a_steps_to_change() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let steps = "RUN chmod -R g=u / 2>/dev/null; echo changed\n\
        RUN find / -xdev -exec chown -h 1000:0 {} + ; echo changed\n\
        RUN find / -xdev -exec touch -h -d '2001-01-01 01:01' {} + ; echo changed\n";
    let context = Context::on_busybox(steps);
    let script = "$BUILD $CONTEXT; list | cmp - $OUT/list && sums | cmp - $OUT/sums && echo AS BEFORE; $BUILD $CONTEXT";
    for kind in IN_PLACE {
        let ended = beside_kiln(kind, &context, script).ok();
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert!(matches!(lines[..], [first, "AS BEFORE", second] if first == second), "{ended}");
        assert!(ended.stderr.contains("changed modes, owners or times of kiln's own files"), "{ended}");
    }
}

#[test]
fn a_step_points_no_name_and_no_record_elsewhere() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let tampering = [
        "sed -i s/manifests/m/ /kiln/store/kiln/store/index.json",
        "cp /kiln/store/kiln/store/index.json /i; sed -i s/good/evil/g /i; touch -r /kiln/store/kiln/store/index.json /i; cp -a /i /kiln/store/kiln/store/index.json",
        "mkdir -p /kiln/store/kiln/store/records/zz; echo evil > /kiln/store/kiln/store/records/zz/zz",
        "for r in $(find /kiln/store/kiln/store/records -type f); do cp $r /r; echo >> /r; cp /r $r; done",
    ];
    let mut context =
        Context::empty().file("good", format!("FROM {}\nRUN echo good > /g\n", base::busybox()));
    for (number, tampering) in tampering.iter().enumerate() {
        let text = format!("FROM {}\nRUN {tampering}; echo ATT''ACKED\n", base::busybox());
        context = context.file(&format!("{number}"), text);
    }
    let script = "index() { md5sum /kiln/store/kiln/store/index.json; ls /kiln/store/kiln/store/records; }; \
        $BUILD -t good.example/good -f $CONTEXT/good $CONTEXT; index > $OUT/index; \
        for n in 0 1 2 3; do if $BUILD -f $CONTEXT/$n $CONTEXT 2> $OUT/log; then echo BUILT $n; else echo REFUSED $n; fi; \
        grep -e 'own `' -e 'not used any more' $OUT/log; test $n = 3 || index | cmp - $OUT/index; done; \
        $BUILD -f $CONTEXT/good $CONTEXT; kiln images";
    for kind in IN_PLACE {
        let ended = beside_kiln(kind, &context, script).ok();
        for number in 0..3 {
            assert!(ended.stdout.contains(&format!("REFUSED {number}\n")), "{number}\n{ended}");
        }
        assert!(!ended.stdout.contains("differ"), "{ended}");
        // Records that were touched are gone, and the step runs again.
        assert!(
            ended.stdout.contains("BUILT 3\n")
                && ended.stdout.contains("records of the local cache, which are not"),
            "{ended}"
        );
        assert!(ended.stdout.contains("good.example/good"), "{ended}");
    }
}

#[test]
fn a_forged_journal_moves_writes_and_removes_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // Names are written as the system has them.
    let unix = |path: &str| format!("{{\"Unix\":{:?}}}", path.as_bytes());
    let begin = |root: &str, park: &str, kept: &str| {
        let (root, park) = (unix(root), unix(park));
        format!("{{\"Begin\":{{\"root\":{root},\"park\":{park},\"kept\":[{kept}],\"lent\":[]}}}}\n")
    };
    let (work, park, kept) = ("/kiln/store/kiln/work/x", "/kiln/store/kiln/sandbox/park", unix("kiln"));
    let good = begin(work, park, &kept);
    let laid = unix("/home/job");
    let journals = [
        begin("/home/job", park, &kept),
        begin(work, "/kiln/.docker", &kept),
        begin(work, park, ""),
        format!("{good}{{\"Laid\":{laid}}}\n"),
    ];
    let mut context = Context::on_busybox("RUN true\n");
    for (number, text) in journals.iter().enumerate() {
        context = context.file(&format!("{number}.journal"), text);
    }
    let script = "mkdir -p /home/job /kiln/store/kiln/sandbox /kiln/store/kiln/work/x; chmod -R go= /kiln/store/kiln; echo mine > /home/job/f; \
        for n in 0 1 2 3; do cp $CONTEXT/$n.journal /kiln/store/kiln/sandbox/in-place.journal; \
        if $BUILD $CONTEXT 2>&1; then echo BUILT $n; else echo REFUSED $n; fi; cat /home/job/f; done; ls /kiln/store/kiln/work/x";
    for kind in IN_PLACE {
        let ended = beside_kiln(kind, &context, script).ok();
        for number in 0..journals.len() {
            assert!(ended.stdout.contains(&format!("REFUSED {number}\nmine\n")), "{number}\n{ended}");
        }
        assert_eq!(ended.stdout.matches("which no swap of kiln's does").count(), journals.len(), "{ended}");
    }
}

/// What would run with the credentials next: whoever is left refills them beside kiln's own program only.
#[test]
fn credentials_do_not_come_back_beside_another_program() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let step = "w=$PPID; parent() { sed 's/.*) //' /proc/$1/stat | cut -d' ' -f2; }; k=$(parent $w); p=$(parent $k); \
        mv /kiln/kiln /kiln/was && (echo '#!/bin/sh'; echo 'cat /kiln/.docker/config.json') > /kiln/kiln && chmod 755 /kiln/kiln; \
        (setsid sleep 0.2; :) ; kill -9 ORDER; sleep 60";
    let orders = [("k", "$k"), ("p", "$p"), ("kw", "$k $w"), ("pk", "$p $k"), ("pw", "$p $w")];
    let mut context = Context::on_busybox("RUN true\n");
    for (name, order) in orders {
        context =
            context.file(name, format!("FROM {}\nRUN {}\n", base::busybox(), step.replace("ORDER", order)));
    }
    let script = "is() { grep -q \"$@\" 2>/dev/null && echo 1 || echo 0; }; mkdir -p /kiln/.docker; cp /kiln/kiln /kept; \
        for order in k p kw pk pw; do \
            echo '{\"auths\":{\"r.example\":{\"auth\":\"Y2k6czNjcjN0\"}}}' > /kiln/.docker/config.json; chmod 600 /kiln/.docker/config.json; \
            $BUILD --no-cache -f $CONTEXT/$order $CONTEXT > /dev/shm/log 2>&1; echo $order code $?; \
            for i in $(seq 200); do grep -qx 'kiln\\|exe' /proc/[0-9]*/comm 2>/dev/null || break; sleep 0.1; done; \
            echo $order replaced $(is -x 'cat .*' /kiln/kiln) refilled $(is Y2k6 /kiln/.docker/config.json); \
            rm -f /kiln/was; cp /kept /kiln/real && mv /kiln/real /kiln/kiln; \
            $BUILD $CONTEXT > /dev/shm/next 2>&1; \
            echo $order next $? refilled $(is Y2k6 /kiln/.docker/config.json) said $(is 'nothing is refilled' /dev/shm/next); done; \
        cat /dev/shm/log /dev/shm/next";
    for kind in IN_PLACE {
        let out = tempfile::tempdir().unwrap();
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], script).ok();
        for (order, _) in orders {
            let said = |what: &str| ended.stdout.lines().any(|line| line == format!("{order} {what}"));
            assert!(!said("code 0"), "{order}\n{ended}");
            // Whoever is left puts kiln's program back. Only kiln itself refills anything after it had to.
            let is_undone = said("replaced 0 refilled 1") && said("next 0 refilled 1 said 0");
            let is_lost = said("replaced 0 refilled 0") && said("next 0 refilled 0 said 1");
            // Its keeper's end is noticed: the step may have been ended before it came to kill kiln.
            let may_be = match order {
                "pk" => is_lost || is_undone,
                _ if order.contains('k') => is_lost,
                _ => is_undone,
            };
            assert!(may_be, "{order}\n{ended}");
        }
    }
}

/// What a step does to kiln's own files before it has kiln killed, who would put that right.
const SPOILT_AND_KILLED: [(&str, &str); 4] = [
    ("index", "cd $S; sed -e 's#job/app#job/x#g; s#job/evil#job/app#g' index.json > /i; cat /i > index.json"),
    ("records", "cp -r /evil/. $S/"),
    ("edited", "for r in $(find $S/records -type f); do echo >> $r; done"),
    (
        "busybox",
        "rm /busybox/cat; (echo '#!/busybox/busybox sh'; echo 'echo EVIL') > /busybox/cat; chmod 755 /busybox/cat",
    ),
];

/// Whom it kills then.
const ORDERS: [(&str, &str); 4] = [("k", "$k"), ("kw", "$k $w"), ("kp", "$k $p"), ("kwp", "$k $w $p")];

#[test]
fn killing_kiln_gains_no_name_no_record_and_no_program() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let base = base::busybox();
    let mut context = Context::on_busybox("RUN true\n")
        .file("app", format!("FROM {base}\nRUN echo good > /app\n"))
        .file("evil", format!("FROM {base}\nRUN echo evil > /app\n"))
        .file(
            "honest",
            format!("FROM {base}\nRUN head -c 8 /proc/sys/kernel/random/uuid > /app && cat /app\n"),
        );
    for (name, spoiling) in SPOILT_AND_KILLED {
        for (order, killed) in ORDERS {
            let step = format!(
                "w=$PPID; parent() {{ sed 's/.*) //' /proc/$1/stat | cut -d' ' -f2; }}; k=$(parent $w); p=$(parent $k); \
                 S=/kiln/store/kiln/store; {spoiling}; kill -9 {killed}; sleep 60"
            );
            context = context.file(
                &format!("{name}-{order}"),
                format!("FROM {base}\nCOPY --from=evil . /evil/\nRUN {step}\n"),
            );
        }
    }
    let script = "is() { grep -q \"$@\" 2>/dev/null && echo 1 || echo 0; }; mkdir -p /kiln/.docker; S=/kiln/store/kiln/store; \
        $BUILD -f $CONTEXT/honest $CONTEXT > /dev/shm/log 2>&1; mv /kiln/store/kiln/store /kiln/evil; rm -r /kiln/evil/index.json; \
        for attack in ATTACKS; do echo '{\"auths\":{\"r.example\":{\"auth\":\"Y2k6czNjcjN0\"}}}' > /kiln/.docker/config.json; chmod 600 /kiln/.docker/config.json; \
            case $attack in index*) for name in app evil; do $BUILD -t job/$name -f $CONTEXT/$name $CONTEXT > /dev/shm/log 2>&1; done ;; esac; \
            good=$(kiln images | grep job/app | tr -s ' ' | cut -d' ' -f3); \
            $BUILD --build-context=evil=/kiln/evil --no-cache -f $CONTEXT/$attack $CONTEXT > /dev/shm/log 2>&1; echo $attack code $?; \
            for i in $(seq 200); do grep -qx 'kiln\\|exe' /proc/[0-9]*/comm 2>/dev/null || break; sleep 0.1; done; \
            echo $attack refilled $(is Y2k6 /kiln/.docker/config.json) told $(is 'stay empty' /dev/shm/log) evil $(is EVIL /busybox/cat); \
            $BUILD -f $CONTEXT/honest $CONTEXT > /dev/shm/next 2>&1; \
            echo $attack next $? refilled $(is Y2k6 /kiln/.docker/config.json) told $(is 'stay empty\\|nothing is refilled' /dev/shm/next) hit $(is CACHED /dev/shm/next); \
            now=$(kiln images | grep job/app | tr -s ' ' | cut -d' ' -f3); case $now in $good|'') echo $attack holds ;; *) echo $attack moved ;; esac; \
            ln -sf busybox /busybox/cat; done; cat /dev/shm/log /dev/shm/next";
    let in_a = "index-k index-kw index-kp index-kwp records-k records-kwp edited-k busybox-k busybox-kwp";
    for (kind, attacks) in [("A", in_a), ("C", "records-k busybox-k")] {
        let out = tempfile::tempdir().unwrap();
        let script = script.replace("ATTACKS", attacks);
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script).ok();
        for attack in attacks.split(' ') {
            let said = |what: &str| ended.stdout.lines().any(|line| line == format!("{attack} {what}"));
            assert!(!said("code 0"), "{kind} {attack}\n{ended}");
            assert!(said("holds"), "{kind} {attack}\n{ended}");
            // The keeper tells, and puts everything right, unless it was killed before it could end the step.
            let is_told = said("refilled 0 told 1 evil 0");
            let is_left = attack.ends_with("kwp") && said("refilled 0 told 0 evil 1");
            let is_silent = is_left || said("refilled 0 told 0 evil 0");
            assert!(is_told || (attack.ends_with('p') && is_silent), "{kind} {attack}\n{ended}");
            assert!(said("next 0 refilled 0 told 1 hit 0"), "{kind} {attack}\n{ended}");
        }
    }
}

/// A command of each door: to the store, to kiln's directory, to credentials, and to registries.
const COMMANDS: [&str; 10] = [
    "kiln images",
    "kiln copy job/app oci:/kiln/copied:1",
    "kiln push job/app 127.0.0.1:1/x",
    "kiln tag job/app job/other",
    "kiln prune",
    "kiln cache ls",
    "kiln login --skip-check -u me -p pass r.example",
    "kiln check $CONTEXT",
    "kiln executor push /kiln/layout --destination 127.0.0.1:1/x",
    "kiln ls-tags 127.0.0.1:1/x",
];

/// A step exchanges two names, leaves a process, and kills keeper, kiln and watcher at once: they are stopped first.
#[test]
fn no_command_believes_a_store_that_a_killed_step_could_write_to() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let base = base::busybox();
    let step = "w=$PPID; parent() { sed 's/.*) //' /proc/$1/stat | cut -d' ' -f2; }; k=$(parent $w); p=$(parent $k); \
        cd /kiln/store/kiln/store; sed -e 's#job/app#job/x#g; s#job/evil#job/app#g' index.json > /i; cat /i > index.json; \
        touch /stage; (setsid sleep 4321 &); sleep 0.1; kill -19 $w $k $p; kill -9 $k $p $w; sleep 60";
    let context = Context::on_busybox("RUN true\n")
        .file("app", format!("FROM {base}\nRUN echo good > /app\n"))
        .file("evil", format!("FROM {base}\nRUN echo evil > /app\n"))
        .file("attack", format!("FROM {base}\nRUN {step}\n"));
    let script = "is() { test -e $1 && echo 1 || echo 0; }; digest() { kiln images | grep $1 | tr -s ' ' | cut -d' ' -f3; }; \
        mkdir -p /kiln/.docker; while read -r command; do \
            echo '{\"auths\":{\"r.example\":{\"auth\":\"Y2k6czNjcjN0\"}}}' > /kiln/.docker/config.json; chmod 600 /kiln/.docker/config.json; \
            for name in app evil; do $BUILD -t job/$name -f $CONTEXT/$name $CONTEXT; done > /dev/shm/log 2>&1; \
            evil=$(digest job/evil); rm -rf /kiln/copied; \
            $BUILD --no-cache -f $CONTEXT/attack $CONTEXT > /dev/shm/log 2>&1; echo \"$command: attack $?\"; \
            for i in $(seq 200); do grep -qx 'kiln\\|exe' /proc/[0-9]*/comm 2>/dev/null || break; sleep 0.1; done; \
            echo \"$command: before stage $(is /stage)\"; eval \"$command\" > /dev/shm/out 2>&1 < /dev/null; \
            echo \"$command: left $(grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l) stage $(is /stage) \
told $(grep -c 'removed the names and records' /dev/shm/out) evil $(cat /dev/shm/out /kiln/copied/index.json 2>/dev/null | grep -c ${evil:-none})\"; \
            killall -9 sleep 2>/dev/null; cat /dev/shm/out >&2; done <<END\nCOMMANDS\nEND\n";
    for (kind, commands) in [("A", &COMMANDS[..]), ("C", &COMMANDS[..2])] {
        let out = tempfile::tempdir().unwrap();
        let script = script.replace("COMMANDS", &commands.join("\n").replace('$', "\\$"));
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script).ok();
        for command in commands {
            let said = |what: &str| ended.stdout.lines().any(|line| line == format!("{command}: {what}"));
            assert!(said("attack 137") && said("before stage 1"), "{kind} {command}\n{ended}");
            assert!(said("left 0 stage 0 told 1 evil 0"), "{kind} {command}\n{ended}");
        }
    }
}

/// In place the store is a running step's to write to; in a chroot it is not.
#[test]
fn commands_beside_a_build_disturb_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // In place a step sees what the job has there.
    let steps = [("A", "while ! test -e /dev/shm/go; do sleep 0.1; done"), ("chroot", "sleep 5")];
    let mut context = Context::empty();
    for (name, step) in steps {
        context = context.file(name, format!("FROM {}\nRUN {step}\n", base::busybox()));
    }
    let script = "mkdir -p /kiln/.docker; echo '{\"auths\":{\"r.example\":{\"auth\":\"Y2k6czNjcjN0\"}}}' > /kiln/.docker/config.json; \
        chmod 600 /kiln/.docker/config.json; $BUILD -t job/app -f $CONTEXT/FILE $CONTEXT > /dev/null 2>&1 & build=$!; \
        for i in $(seq 600); do steps=$(grep -lx sleep /proc/[0-9]*/comm 2>/dev/null) && break; usleep 100000; done; \
        test -n \"$steps\" && echo STEP RUNS; images=$(kiln images ROOT 2>&1); echo images $?; kill -0 $build && echo STILL; touch /dev/shm/go; \
        wait $build; echo build $?; kiln images ROOT; grep -c Y2k6 /kiln/.docker/config.json; echo \"$images\"";
    for (place, file, root) in [(Place::Kind("A"), "A", ""), (Place::Chroot, "chroot", "--root=/var/kiln")] {
        let out = tempfile::tempdir().unwrap();
        let script = script.replace("ROOT", root).replace("FILE", file);
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        let said = |what: &str| ended.stdout.lines().any(|line| line == what);
        for what in ["STEP RUNS", "build 0", "1"] {
            assert!(said(what), "{place:?} {what}\n{ended}");
        }
        assert!(ended.stdout.contains("job/app"), "{place:?}\n{ended}");
        let is_refused = said("images 1")
            && said("STILL")
            && ended.stdout.contains("another kiln is building in place in this container");
        assert!(if place == Place::Chroot { said("images 0") } else { is_refused }, "{place:?}\n{ended}");
    }
}
