//! Credentials and secrets are out of every step's reach, and come back only where they were.

use std::fs;
use std::path::Path;

use super::{Place, with_program};
use crate::support::container::{RUNTIME, debug_image_as_kind};
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, base};

/// `ci:s3cr3t-3xact` as docker's file has it.
const AUTH: &str = "Y2k6czNjcjN0LTN4YWN0";

/// Shell functions: `credentials` writes kiln's credentials anew, `refilled` tells whether they are there, and `attack NAME`
/// builds the Dockerfile of that name, tells how it ended, and shows where its output or kiln's store has a credential.
const TOOLS: &str = "mkdir -p /tmp; AUTH=Y2k6czNjcjN0LTN4YWN0; FILE=/kiln/.docker/config.json; \
    credentials() { rm -rf /kiln/.docker /kiln/.d2; mkdir -p /kiln/.docker; \
        (umask 077; echo \"{\\\"auths\\\":{\\\"r.example\\\":{\\\"auth\\\":\\\"$AUTH\\\"}}}\" > $FILE); }; \
    refilled() { test -f $FILE && grep -q $AUTH $FILE; }; \
    attack() { credentials; \
        timeout 60 $BUILD --no-cache -f $CONTEXT/$1 --output=type=local,dest=/tmp/tree-$1 $CONTEXT > /tmp/log-$1 2>&1; \
        echo \"$1 ended $?\"; grep -E 'stays empty|removed or replaced' /tmp/log-$1 | sed \"s/^/$1: /\"; \
        grep -q LEAK /tmp/log-$1 && echo \"$1 leaked to a step\"; \
        for place in /tmp/tree-$1 /kiln/store /out /dev/shm; do \
            find $place -type f -exec grep -l $AUTH {} + 2> /dev/null | grep -q . && echo \"$1 leaked into $place\"; done; rm -rf /tmp/tree-$1; }; ";

/// Looks for the credential without having it on its own command line.
const LOOK: &str = "RUN sleep 0.1; grep -rs Y2k6czNjcjN0'[L]'TN4 /kiln/.docker /kiln/.d2 /out /dev/shm /tmp && echo LE''AK; true\n";

#[test]
fn credentials_come_back_to_their_own_file_or_not_at_all() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // Where the tree of the stage lies while it stands in the place of `/`.
    let tree = "$(echo /kiln/store/kiln/work/*/*/0/root)";
    let attacks = [
        (
            "link-into-the-layer",
            format!("mkdir -p /tmp/pub && mv /kiln/.docker /kiln/.d2 && ln -s {tree}/tmp/pub /kiln/.docker"),
        ),
        ("link-to-a-volume", "mv /kiln/.docker /kiln/.d2 && ln -s /out /kiln/.docker".to_owned()),
        ("link-to-memory", "mv /kiln/.docker /kiln/.d2 && ln -s /dev/shm /kiln/.docker".to_owned()),
        (
            "file-is-a-link",
            "mkdir /pub && rm /kiln/.docker/config.json && ln -s /dev/shm/seen /kiln/.docker/config.json"
                .to_owned(),
        ),
        ("fifo", "rm /kiln/.docker/config.json && mkfifo /kiln/.docker/config.json".to_owned()),
        ("hard-link", "ln /kiln/.docker/config.json /stolen".to_owned()),
        (
            "another-file",
            "cp -p /kiln/.docker/config.json /kiln/.docker/c && mv /kiln/.docker/c /kiln/.docker/config.json"
                .to_owned(),
        ),
        ("gone", "rm -r /kiln/.docker".to_owned()),
    ];
    let mut context = Context::empty();
    for (name, step) in &attacks {
        // Whoever reads a FIFO waits for somebody who writes.
        let look = if *name == "fifo" { "" } else { LOOK };
        context = context.file(name, format!("FROM {}\nRUN {step}\n{look}", base::busybox()));
    }
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let names: Vec<&str> = attacks.iter().map(|(name, _)| *name).collect();
        let script = format!(
            "{TOOLS} for name in {}; do attack $name; refilled && echo $name refilled; done",
            names.join(" ")
        );
        let ended = Place::Kind(kind).run(context.path(), out.path(), &[], &script);
        assert!(!ended.stdout.contains("leaked"), "{kind}\n{ended}");
        for name in names {
            assert!(ended.stdout.contains(&format!("{name} ended 1\n")), "{kind} {name}\n{ended}");
            // What a step did to the directory is found before what became of the file in it.
            let told = [
                "`/kiln/.docker/config.json`, which was hidden",
                "the step removed or replaced kiln's own `/kiln/.d",
            ];
            let is_told = told.iter().any(|told| ended.stdout.contains(&format!("{name}: error: {told}")));
            assert!(is_told, "{kind} {name}\n{ended}");
            assert!(!ended.stdout.contains(&format!("{name} refilled")), "{kind} {name}\n{ended}");
        }
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{kind}\n{ended}");
    }
}

#[test]
fn a_file_kept_open_stays_empty_as_long_as_a_step_lives() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // Waits for what is written into the emptied file, by its path and by an open descriptor.
    let waiting = "(setsid sh -c 'exec 3</kiln/.docker/config.json; while :; do cat <&3 >> /dev/shm/seen; done' &); \
                   (setsid tail -f /kiln/.docker/config.json >> /dev/shm/seen 2>/dev/null &); sleep 0.3";
    let context = Context::on_busybox(&format!("RUN {waiting}\n{LOOK}RUN {waiting}\n"));
    for place in [Place::Kind("A"), Place::Kind("C")] {
        let out = tempfile::tempdir().unwrap();
        let script = format!(
            "{TOOLS} credentials; : > /dev/shm/seen; $BUILD $CONTEXT; echo ended $?; refilled && echo refilled; sleep 0.5; cp /dev/shm/seen /out/"
        );
        let built = place.run(context.path(), out.path(), &[], &script);
        assert!(built.stdout.contains("ended 0\nrefilled\n"), "{built}");
        assert!(!built.stderr.contains("LEAK"), "{built}");
        assert_eq!(fs::read_to_string(out.path().join("seen")).unwrap(), "", "{built}");
    }
}

#[test]
fn what_cannot_be_hidden_is_an_error_before_anything_is_pulled() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let mounted = tempfile::tempdir().unwrap();
    let content = format!("{{\"auths\":{{\"r.example\":{{\"auth\":\"{AUTH}\"}}}}}}");
    fs::write(mounted.path().join("config.json"), &content).unwrap();
    let volume = format!("{}:/kiln/.docker", mounted.path().display());
    // A base that could not be pulled: nobody asks for it.
    let context = Context::new("FROM nowhere.invalid/base\nRUN true\n")
        .file("without", "FROM scratch\nCOPY without /\n");
    let out = tempfile::tempdir().unwrap();
    let script = "$BUILD $CONTEXT 2>&1; echo ended $?; $BUILD -f $CONTEXT/without $CONTEXT; echo without $?; \
                  kiln executor --context=$CONTEXT --no-push 2>&1; echo executor $?";
    let ended = Place::Kind("A").run(context.path(), out.path(), std::slice::from_ref(&volume), script);
    let said = "steps could read a credential here: `/kiln/.docker/config.json`";
    assert_eq!(ended.stdout.matches(said).count(), 2, "{ended}");
    assert!(ended.stdout.contains("ended 1\n") && ended.stdout.contains("executor 1\n"), "{ended}");
    assert!(ended.stdout.contains("without 0\n"), "where nothing runs nothing is read\n{ended}");
    for word in ["DOCKER_AUTH_CONFIG", "automountServiceAccountToken: false", "--allow-visible-credentials"] {
        assert!(ended.stdout.contains(word), "{word}\n{ended}");
    }
    let context = Context::on_busybox("RUN true\n");
    let script = "$BUILD --allow-visible-credentials $CONTEXT; echo ended $?; \
                  kiln executor --allow-visible-credentials --context=$CONTEXT --no-push; echo executor $?";
    let allowed = Place::Kind("A").run(context.path(), out.path(), &[volume], script);
    assert!(allowed.stdout.contains("ended 0\n") && allowed.stdout.contains("executor 0\n"), "{allowed}");
    assert!(allowed.stderr.contains("steps can read `/kiln/.docker/config.json`"), "{allowed}");
    assert_eq!(fs::read_to_string(mounted.path().join("config.json")).unwrap(), content);
}

#[test]
fn a_service_accounts_token_is_not_for_steps() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let token = tempfile::tempdir().unwrap();
    fs::write(token.path().join("token"), "header.payload.signature").unwrap();
    let volume = format!("{}:/var/run/secrets/kubernetes.io/serviceaccount", token.path().display());
    let out = tempfile::tempdir().unwrap();
    let context = Context::on_busybox("RUN true\n");
    let run = |script: &str| {
        Place::Kind("C").run(context.path(), out.path(), std::slice::from_ref(&volume), script)
    };
    let refused = run("$BUILD $CONTEXT; echo ended $?");
    assert!(refused.stdout.contains("ended 1\n"), "{refused}");
    assert!(refused.stderr.contains("`/var/run/secrets/kubernetes.io/serviceaccount/token`"), "{refused}");
    let allowed = run("$BUILD --allow-visible-credentials $CONTEXT; echo ended $?");
    assert!(allowed.stdout.contains("ended 0\n"), "{allowed}");
}

/// Variables are in the memory of kiln, its keeper and the process that watches over a step, and nowhere else.
#[test]
fn no_process_of_kilns_shows_its_variables() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let look = "RUN for p in /proc/[0-9]*; do case $(cat $p/comm) in kiln|exe) echo seen $p; \
                for f in environ cmdline mem auxv maps; do grep -c Y2k6czNjcjN0'[L]'TN4 $p/$f 2>/dev/null | grep -v '^0' && echo LE''AK $p/$f; done; \
                for fd in $p/fd/*; do readlink $fd && echo LE''AK $fd; head -c 1 $fd 2>/dev/null && echo LE''AK $fd; done; esac; done; true\n";
    let context = Context::on_busybox(look);
    for kind in ["A", "C", "B", "P"] {
        let out = tempfile::tempdir().unwrap();
        let script = format!(
            "export DOCKER_AUTH_CONFIG='{{\"auths\":{{\"r.example\":{{\"auth\":\"{AUTH}\"}}}}}}'; exec $BUILD --build-arg UNUSED={AUTH} $CONTEXT"
        );
        let built = Place::Kind(kind).run(context.path(), out.path(), &[], &script).ok();
        assert!(
            built.stderr.matches(" seen /proc/").count() >= 3,
            "keeper, kiln and watcher\n{kind}\n{built}"
        );
        assert!(!built.stderr.contains("LEAK"), "{kind}\n{built}");
    }
}

/// Tells whether a directory is empty or not there.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn secrets_of_a_killed_step_are_removed() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN --mount=type=secret,id=s cp /run/secrets/s /dev/null && touch /dev/shm/running && sleep 60\n",
    );
    let out = tempfile::tempdir().unwrap();
    let script = format!(
        "{TOOLS} credentials; $BUILD --secret id=s,src=$FILE $CONTEXT & while ! test -e /dev/shm/running; do sleep 0.05; done; \
         kiln=$(cat /proc/$!/task/*/children); grep -rl $AUTH /kiln/store | sed 's/^/lent: /'; kill -9 $kiln; wait $!; echo ended $?; \
         refilled && echo refilled; cp -a /kiln/store/kiln/work /out/; grep -rl $AUTH /kiln/store && echo LEFT"
    );
    let ended = Place::Kind("A").run(context.path(), out.path(), &[], &script);
    assert!(ended.stdout.contains("lent: /kiln/store/kiln/work"), "{ended}");
    assert!(ended.stdout.contains("ended 137\nrefilled\n") && !ended.stdout.contains("LEFT"), "{ended}");
    for build in fs::read_dir(out.path().join("work")).unwrap() {
        assert!(is_empty(&build.unwrap().path().join("secrets")), "{ended}");
    }
}

/// Keys of every option that takes a file with one.
#[test]
fn keys_are_out_of_a_steps_reach_and_kiln_still_has_them() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let steps = "RUN find / -xdev -type f -exec grep -l K3yMat[3]rial {} + 2>/dev/null | sed 's/^/LE''AK /'; true\n\
        RUN --mount=type=secret,id=s grep -c K3yMat[3]rial /run/secrets/s\n";
    let context = Context::on_busybox(steps);
    // The word is on nobody's command line.
    let script = "pem() { mkdir -p $(dirname $1); printf -- '-----BEGIN %s-----\\nK3yMat%sial\\n-----END %s-----\\n' \"$2\" 3r \"$2\" > $1; }; \
        pem /home/job/cert.pem CERTIFICATE; sed -i /K3y/d /home/job/cert.pem; cp /home/job/cert.pem /home/job/other.cert; \
        export XDG_CONFIG_HOME=/home/conf HOME=/home/job; \
        mkdir -p /home/conf/containers/certs.d/r.example; cp /home/job/cert.pem /home/conf/containers/certs.d/r.example/a.cert; \
        cp /home/job/cert.pem /home/conf/containers/certs.d/r.example/b.cert; \
        for key in /home/job/ssh /home/job/key.pem /home/conf/containers/certs.d/r.example/a.key /home/conf/containers/certs.d/r.example/b.key \
            /home/job/.aws/config /home/job/secret; do pem $key 'PRIVATE KEY'; chmod 600 $key; done; \
        before=$(find /home -type f -exec md5sum {} + | sort); \
        keys='--ssh default=/home/job/ssh --secret id=s,src=/home/job/secret --registry-cert q.example=/home/job/cert.pem,/home/job/key.pem'; \
        $BUILD --no-cache $keys $CONTEXT; echo ended $?; $BUILD --no-cache --verify $keys $CONTEXT; echo verified $?; \
        test \"$before\" = \"$(find /home -type f -exec md5sum {} + | sort)\" && echo as before; rm /home/job/ssh /home/job/secret; \
        kiln executor --context=$CONTEXT --no-push --registry-client-cert q.example=/home/job/cert.pem,/home/job/key.pem --dockerfile $CONTEXT/first; \
        echo executor $?";
    let context =
        context.file("first", format!("FROM {}\n{}", base::busybox(), steps.lines().next().unwrap()));
    for place in [Place::Kind("A"), Place::Kind("C"), Place::Chroot] {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], script).ok();
        let said = ["ended 0", "verified 0", "executor 0", "as before"];
        assert!(said.iter().all(|said| ended.stdout.lines().any(|line| line == *said)), "{place:?}\n{ended}");
        assert!(!ended.stderr.contains("LEAK") && !ended.stdout.contains("LEAK"), "{place:?}\n{ended}");
    }
}

#[test]
fn an_agent_that_steps_can_reach_is_an_error_before_anything_is_pulled() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let agent = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(agent.path().join("agent")).unwrap();
    let volume = format!("{}:/agent", agent.path().display());
    let context = Context::new("FROM nowhere.invalid/base\nRUN true\n")
        .file("allowed", format!("FROM {}\nRUN true\n", base::busybox()));
    let script = "$BUILD --ssh default=/agent/agent $CONTEXT 2>&1; echo given $?; export SSH_AUTH_SOCK=/agent/agent; \
        $BUILD $CONTEXT 2>&1; echo ambient $?; $BUILD --allow-visible-credentials -f $CONTEXT/allowed $CONTEXT 2>&1; echo allowed $?";
    for place in [Place::Kind("A"), Place::Kind("C")] {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), std::slice::from_ref(&volume), script).ok();
        assert!(ended.stdout.contains("given 1\n") && ended.stdout.contains("ambient 1\n"), "{ended}");
        assert_eq!(
            ended.stdout.matches("could read a credential here: `/agent/agent`").count(),
            2,
            "{ended}"
        );
        assert!(
            ended.stdout.contains("steps can read `/agent/agent`") && ended.stdout.contains("allowed 0\n"),
            "{ended}"
        );
    }
}

/// Whom a step can become it can look into, and go on in after its end.
#[test]
fn processes_of_other_users_beside_a_step() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox("RUN true\n");
    // busybox's tool for services changes the user without a password.
    let script = format!(
        "{TOOLS} mkdir -p /etc; echo job:x:7:7::/:/bin/sh >> /etc/passwd; echo job:x:7: >> /etc/group; \
         as_job() {{ busybox start-stop-daemon -S -b -m -p /tmp/pid -c 7:7 -x $(which busybox) -- sleep 100; sleep 0.3; }}; \
         end() {{ kill $(cat /tmp/pid); rm /tmp/pid; }}; \
         export DOCKER_AUTH_CONFIG=\"{{\\\"auths\\\":{{\\\"r.example\\\":{{\\\"auth\\\":\\\"$AUTH\\\"}}}}}}\"; as_job; \
         $BUILD $CONTEXT 2>&1; echo variables $?; $BUILD --allow-visible-credentials $CONTEXT 2>&1; echo allowed $?; end; \
         export SECRET=\"$DOCKER_AUTH_CONFIG\"; unset DOCKER_AUTH_CONFIG; as_job; \
         $BUILD --secret id=s,env=SECRET $CONTEXT 2>&1; echo value $?; end; unset SECRET; as_job; \
         $BUILD $CONTEXT 2>&1; echo nothing $?; credentials; $BUILD $CONTEXT 2>&1; echo private $?; \
         chmod 644 $FILE; $BUILD $CONTEXT 2>&1; echo public $?; end; $BUILD $CONTEXT 2>&1; echo alone $?"
    );
    for place in [Place::Kind("A"), Place::Kind("C")] {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        for said in ["variables 1", "allowed 0", "value 1", "nothing 0", "private 0", "public 1", "alone 0"] {
            assert!(ended.stdout.contains(&format!("{said}\n")), "{said}\n{ended}");
        }
        assert!(ended.stdout.contains("environ` (a process of another user than root has it"), "{ended}");
        assert!(ended.stdout.contains("`/kiln/.docker/config.json` (it is not root's alone"), "{ended}");
    }
}

/// A process that gave capabilities away is a step's to trace, whoever it is; the job's others, which have one more, are not.
#[test]
fn processes_of_roots_that_have_no_more_capabilities_than_a_step() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("cc"));
    // What a step can look into of all that is not its own.
    let look = "RUN for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ 2>/dev/null | grep -q 'DOCKER_AUTH''_CONFIG=' && echo LE''AK $p; done; true\n";
    let context = with_program(Context::on_busybox(look), "dropped");
    let script = format!(
        "{TOOLS} start() {{ \"$@\" /busybox/sleep 100 & pid=$!; sleep 0.3; }}; end() {{ kill $pid; wait $pid; }}; \
         export DOCKER_AUTH_CONFIG=\"{{\\\"auths\\\":{{\\\"r.example\\\":{{\\\"auth\\\":\\\"$AUTH\\\"}}}}}}\"; \
         start $CONTEXT/dropped; $BUILD $CONTEXT 2>&1; echo variables $?; \
         $BUILD --allow-visible-credentials $CONTEXT 2>&1; echo allowed $?; end; \
         start env -u DOCKER_AUTH_CONFIG $CONTEXT/dropped; rm -rf /kiln/.docker; \
         $BUILD $CONTEXT 2>&1; echo nothing $?; credentials; $BUILD $CONTEXT 2>&1; echo private $?; end; \
         start; $BUILD --no-cache $CONTEXT > /tmp/log 2>&1; echo others $?; grep -q LEAK /tmp/log && echo others seen; end; true"
    );
    for place in [Place::Kind("A"), Place::Kind("C")] {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], &script).ok();
        for said in ["variables 1", "allowed 0", "nothing 0", "private 1", "others 0"] {
            assert!(ended.stdout.contains(&format!("{said}\n")), "{said}\n{ended}");
        }
        assert!(!ended.stdout.contains("others seen"), "{ended}");
        let told =
            "environ` (a process of root's that has no capability that steps lack has it in its variables";
        assert!(ended.stdout.contains(told), "{ended}");
        assert!(
            ended.stdout.contains("`/kiln/.docker/config.json` (a process of root's runs here"),
            "{ended}"
        );
        // The warning is right: a step sees it.
        assert!(ended.stdout.contains("LEAK /proc/"), "{ended}");
    }
}

/// podman's containers lack the capability that steps lack elsewhere: it is another one there.
#[test]
fn the_jobs_processes_are_closed_where_the_container_has_few_capabilities() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let look = "RUN for p in /proc/[0-9]*; do grep -q 'DOCKER_AUTH''_CONFIG=' $p/environ 2>/dev/null && echo LE''AK $p; done; true\n";
    let context = Context::on_busybox(look);
    let out = tempfile::tempdir().unwrap();
    let script = "export DOCKER_AUTH_CONFIG='{}'; sleep 100 & kiln build --progress=plain --isolation=in-place /context; echo ended $?; kill $!; true";
    let ended = debug_image_as_kind("P", context.path(), out.path(), &[], script).ok();
    assert!(ended.stdout.contains("ended 0\n") && !ended.stderr.contains("LEAK /proc"), "{ended}");
}

#[test]
fn a_secret_is_not_written_through_a_link() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let attacks = [
        ("link", "mkdir -p /dev/shm/x; rm -rf secrets; ln -s /out secrets"),
        ("moved", "mv secrets /kiln/store/kiln/s; ln -s ../../s secrets"),
        ("other", "rm -rf secrets; mkdir secrets"),
    ];
    let mut context = Context::empty();
    for (name, attack) in attacks {
        let text = format!(
            "FROM {base} AS evil\nRUN cd /kiln/store/kiln/work/build-*/ && {attack}; touch /done\n\
             FROM {base}\nCOPY --from=evil /done /done\nRUN --mount=type=secret,id=s cat /out/*/* | grep K3yMat'[3]'rial && echo LE''AK; true\n",
            base = base::busybox()
        );
        context = context.file(name, text);
    }
    let script = "printf 'K3yMat%sial\n' 3r > /kiln/s; chmod 600 /kiln/s; for n in link moved other; do \
        $BUILD --no-cache --secret id=s,src=/kiln/s -f $CONTEXT/$n $CONTEXT 2>&1; echo $n $?; rm -rf /kiln/store/kiln/s; done; \
        find /out -type f | grep . && echo FOUND";
    for place in [Place::Kind("A"), Place::Kind("C")] {
        let out = tempfile::tempdir().unwrap();
        let ended = place.run(context.path(), out.path(), &[], script);
        for (name, _) in attacks {
            assert!(ended.stdout.contains(&format!("{name} 1\n")), "{name}\n{ended}");
        }
        assert!(!ended.stdout.contains("FOUND") && !ended.stdout.contains(" LEAK"), "{ended}");
        assert_eq!(
            ended.stdout.matches("removed or replaced kiln's directory for secrets").count(),
            attacks.len(),
            "{ended}"
        );
    }
}
