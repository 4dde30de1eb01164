//! What a step in place leaves in the container of kiln's own image: programs and configuration for the next command.

use std::fs;

use super::{Place, with_program};
use crate::support::Context;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};

/// What is done to the container's own files, which are in `$P` while a step runs; each in a build.
const ATTACKS: [(&str, &str); 3] = [
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
        exec 9> /root/log; \
        (while sleep 0.1; do echo line >&9; done) & \
        writer=$!; $BUILD $CONTEXT > $OUT/first 2>&1; echo first $? >> $OUT/codes; look > $OUT/before; \
        for name in planted changed replaced; do $BUILD --no-cache -f $CONTEXT/$name $CONTEXT > $OUT/$name.log 2>&1; \
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
