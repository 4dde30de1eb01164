//! What a step in place leaves in the container of kiln's own image: programs and configuration for the next command.

use std::fs;

use super::{Place, with_program};
use crate::support::Context;
use crate::support::container::{RUNTIME, as_kind};
use crate::support::need::{Busybox, Program, Root};

/// What is done to the container's own files, which are in `$P` while a step runs; each in a build.
const ATTACKS: [(&str, &str); 4] = [
    (
        "planted",
        "mkdir -p $P/usr/local/sbin $P/usr/local/libexec/git-core $P/etc/docker/certs.d/r.example $P/root/.docker; \
         mkdir -p $P/etc/containers; echo evil > $P/usr/local/sbin/git; chmod 755 $P/usr/local/sbin/git; \
         cp /bin/busybox $P/usr/local/libexec/git-core/git-remote-http; echo evil > $P/etc/containers/registries.conf; \
         echo evil > $P/etc/docker/certs.d/r.example/ca.crt; echo '{}' > $P/root/.docker/config.json; \
         echo evil > $P/root/.gitconfig; echo evil > $P/profile; \
         mkdir $P/usr/local/bin; ln $P/root/log $P/usr/local/bin/log; echo evil > $P/usr/local/bin/sh",
    ),
    (
        "changed",
        "touch -r $P/opt/own /tmp/time; echo EVIL > $P/opt/own; touch -r /tmp/time $P/opt/own; \
         rm $P/opt/link; ln -s /tmp/evil $P/opt/link; rm $P/opt/gone; chmod 777 $P/opt/dressed",
    ),
    // A file that the job has open for writing is no program of its own by another name.
    (
        "moved",
        "mkdir -p $P/usr/local/sbin; mv $P/tmp/log $P/usr/local/sbin/ssh-agent; echo evil > $P/usr/local/sbin/ssh-agent; \
         chmod 755 $P/usr/local/sbin/ssh-agent",
    ),
    ("replaced", "mv $P/opt $P/opt2; mkdir $P/opt; cp -a $P/opt2/own $P/opt/own; rm -rf $P/opt2"),
];

#[test]
fn what_is_planted_in_the_container_fails_the_step_and_is_undone() {
    require!(Busybox, Root, Program(RUNTIME));
    let mut context = Context::on_busybox("RUN echo > /x\n");
    for (name, attack) in ATTACKS {
        let base = crate::support::base::busybox();
        let text =
            format!("FROM {base}\nRUN P=/kiln/store/kiln/sandbox/park; test -d $P/opt || exit 9; {attack}\n");
        context = context.file(name, text);
    }
    // A process of the job writes its log all the time.
    let script = "mkdir -p /opt /tmp /root /var; for f in own gone dressed; do echo own > /opt/$f; done; ln -s own /opt/link; \
        look() { find / -xdev \\( -path /kiln -o -path /tmp -o -path /var -o -path /root/log \\) -prune -o -print | sort | \
            while read f; do stat -c '%n %a %u %s' $f; [ -d $f ] || echo \"$(readlink $f) $(head -c 9 $f)\"; done; }; \
        exec 9> /root/log; exec 8> /tmp/log; \
        (while sleep 0.1; do echo line >&9; done) & \
        writer=$!; $BUILD $CONTEXT > $OUT/first 2>&1; echo first $? >> $OUT/codes; look > $OUT/before; \
        for name in planted changed moved replaced; do $BUILD --no-cache -f $CONTEXT/$name $CONTEXT > $OUT/$name.log 2>&1; \
            echo $name $? >> $OUT/codes; look > $OUT/$name; done; \
        $BUILD --no-cache $CONTEXT > $OUT/last 2>&1; echo last $? >> $OUT/codes; kill $writer; exit 0";
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let outcome = Place::Kind(kind).run(context.path(), out.path(), &[], script).ok();
        let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
        let codes = read("codes");
        for honest in ["first", "last"] {
            assert!(codes.contains(&format!("{honest} 0\n")), "{kind}: {codes}\n{}\n{outcome}", read(honest));
        }
        assert!(read("before").contains("/opt/own"), "{outcome}");
        for (name, _) in ATTACKS {
            let log = read(&format!("{name}.log"));
            assert!(codes.contains(&format!("{name} 1\n")), "{kind} {name}: {codes}\n{log}");
            assert!(log.contains("all is as before again"), "{kind} {name}: {log}");
            assert!(
                log.contains("the step removed or replaced the container's own `/"),
                "{kind} {name}: {log}"
            );
            assert_eq!(read(name), read("before"), "{kind} {name}: {log}");
        }
    }
}

/// What kiln reads or runs by its path, and that need not be there: how a build is told of it, and where it is. In one of
/// the places is an empty file.
const READ: [(&str, &str, &[&str]); 2] = [
    (
        "ambient",
        "HOME=/home/job XDG_CONFIG_HOME=/var/conf XDG_RUNTIME_DIR=/run/user/0 PATH=/tmp/bin:$PATH DOCKER_CONFIG=/kiln/.helper",
        &[
            "/home/job/.aws/config",
            "/home/job/.config/gcloud/application_default_credentials.json",
            "/var/conf/docker/certs.d/r.example/ca.crt",
            "/run/user/0/containers/auth.json",
            "/tmp/bin/docker-credential-own",
        ],
    ),
    (
        "named",
        "HOME=/kiln/home CLOUDSDK_CONFIG=/run/gcloud AWS_CONFIG_FILE=/tmp/aws AWS_SHARED_CREDENTIALS_FILE=/var/empty \
         DOCKER_CONFIG=/kiln/.other",
        &[
            "/kiln/home/.config/containers/registries.conf",
            "/run/gcloud/application_default_credentials.json",
            "/tmp/aws",
            "/var/empty",
            "/kiln/.other/config.json",
        ],
    ),
];

#[test]
fn what_kiln_would_read_is_guarded_where_nothing_is() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let mut context = Context::on_busybox("RUN true\n");
    for (name, _, paths) in READ {
        let mut text = format!("FROM {}\nRUN ", crate::support::base::busybox());
        for path in paths {
            let park = if path.starts_with("/kiln/") { "" } else { "/kiln/store/kiln/sandbox/park" };
            text += &format!("f={park}{path}; mkdir -p ${{f%/*}}; echo evil > $f; chmod 755 $f; ");
        }
        context = context.file(name, text + "true\n");
    }
    let mut script =
        "mkdir -p /home/job/.aws /tmp /run /var /kiln/.helper; : > /var/empty; rm -rf /var/conf /run/user; \
        echo '{\"credsStore\":\"own\"}' > /kiln/.helper/config.json; "
            .to_owned();
    for (name, setting, paths) in READ {
        script += &format!(
            "(export {setting}; $BUILD $CONTEXT; echo honest $?; $BUILD --no-cache -f $CONTEXT/{name} $CONTEXT; echo {name} $?); \
             for path in {}; do test -s $path && echo $path stays; done; ",
            paths.join(" ")
        );
    }
    let foreign = "CONTEXT=/context; BUILD='kiln build --progress=plain --isolation=in-place --force --root=/kiln/store'; ";
    for (kind, is_own_image) in [("A", true), ("C", true), ("A", false)] {
        let out = tempfile::tempdir().unwrap();
        let ended = match is_own_image {
            true => Place::Kind(kind).run(context.path(), out.path(), &[], &script),
            false => as_kind(kind, context.path(), out.path(), &format!("{foreign}{script}")),
        };
        assert_eq!(ended.stdout.matches("honest 0\n").count(), READ.len(), "{kind} {is_own_image}\n{ended}");
        assert!(!ended.stdout.contains(" stays"), "{kind} {is_own_image}\n{ended}");
        for (name, _, _) in READ {
            assert!(ended.stdout.contains(&format!("{name} 1\n")), "{kind} {is_own_image}\n{ended}");
        }
        // Each of them is told of: the first by its name.
        let told = ended.stderr.matches(", and 4 more; all is as before again").count();
        assert_eq!(told, READ.len(), "{kind} {is_own_image}\n{ended}");
    }
}

#[test]
fn attributes_of_kilns_own_files_are_put_back() {
    require!(Busybox, Root, Program(RUNTIME), Program("cc"));
    let places = "/kiln /kiln/.docker /kiln/kiln /busybox /kiln/store/kiln/store/index.json";
    let context = Context::on_busybox(&format!("COPY attributes /\nRUN /attributes {places}\n"));
    let context = with_program(context, "attributes");
    // The host sees what the container's tree has: no program in there lists attributes.
    let lists = format!(
        "FROM {}\nCOPY attributes /\nRUN ! /attributes -l {places}\n",
        crate::support::base::busybox()
    );
    let context = context.file("lists", lists);
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let script = "$BUILD $CONTEXT && $BUILD --no-cache -f $CONTEXT/lists $CONTEXT";
        let outcome = Place::Kind(kind).run(context.path(), out.path(), &[], script).ok();
        assert!(outcome.stderr.contains("modes, owners or times of kiln's own files"), "{outcome}");
    }
}
