//! What a step in place can write to: other stages' trees, the store, kiln's own files. Nothing of it gets into an image.

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Outcome, base};

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
         RUN for T in $(find /kiln/store/work -path '*/opt/tool'); do D=${{T%/tool}}; {tampering}; echo ATT''ACKED; done; echo > /done\n\
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
    let hostile = "RUN sleep 0.2; for T in $(find /kiln/store/work -path '*/root/opt/tool'); do echo evil > $T; echo ATT''ACKED; done\n";
    let goes_on = format!(
        "FROM BUSYBOX AS b\n{hostile}{hostile}{hostile}{hostile}RUN echo > /done\nFROM BUSYBOX\n\
         RUN mkdir /opt && echo good > /opt/tool\nCOPY --from=b /done /done\nRUN cat /opt/tool\n"
    );
    dockerfiles.push(("edits-itself".to_owned(), goes_on));
    let ended = build_each("A", &dockerfiles).ok();
    for (name, _) in &dockerfiles {
        let said = |what: &str| {
            let lines = ended.stdout.lines();
            lines.filter_map(|line| line.strip_prefix(&format!("{name}: "))).any(|line| line.contains(what))
        };
        assert!(said("ATTACKED"), "{name} did not find anything\n{ended}");
        assert!(said("a step of another stage changed `/"), "{name}\n{ended}");
        assert!(ended.stdout.contains(&format!("REFUSED {name}\n")), "{name}\n{ended}");
    }
}

#[test]
fn stages_that_leave_each_other_alone_build_in_place() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let dockerfiles: Vec<_> =
        USES.into_iter().map(|(name, used)| (name.to_owned(), attack("true", used))).collect();
    for kind in ["A", "C"] {
        let ended = build_each(kind, &dockerfiles).ok();
        assert_eq!(ended.stdout.matches("BUILT").count(), USES.len(), "{ended}");
    }
}
