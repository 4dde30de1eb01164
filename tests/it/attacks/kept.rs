//! What a step in place puts where kiln keeps its files: FIFOs, on which an open waits for ever, and links to what is the job's.

use std::fs;
use std::path::Path;

use super::Place;
use crate::support::Context;
use crate::support::base::busybox;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};

/// FIFOs in `$K`, kiln's directory; each in a build of its own with a fresh one.
const FIFOS: [(&str, &str); 9] = [
    ("blobs", "cd $K/store/blobs/sha256; for b in *; do rm $b; mkfifo $b; done"),
    ("work", "mkdir $K/work/build-evil; mkfifo $K/work/build-evil/lock"),
    ("session", "mkfifo $K/store/ingest/99-0.lock; echo > $K/store/ingest/99-0"),
    ("store-lock", "rm $K/store/lock; mkfifo $K/store/lock"),
    ("unsettled", "mkdir -p $K/sandbox/volumes; mkfifo $K/sandbox/unsettled $K/sandbox/volumes/unsettled"),
    ("volumes-lock", "rm -f $K/sandbox/volumes/lock; mkfifo $K/sandbox/volumes/lock"),
    ("emptied", "rm -f $K/sandbox/emptied.json; mkfifo $K/sandbox/emptied.json"),
    ("trees", "mkdir -p $K/trees/x; mkfifo $K/trees/lock $K/trees/x/y.lock $K/trees/x/blob-y"),
    ("mounts", "mkdir -p $K/mounts/x; mkfifo $K/mounts/x/lock $K/mounts/lock"),
];

/// Links to `/precious`, where the next kiln would sweep.
const LINKS: [(&str, &str); 5] = [
    ("work", "ln -s /precious $K/work/build-evil"),
    ("volumes", "rm -rf $K/sandbox/volumes; ln -s /precious $K/sandbox/volumes"),
    ("blobs", "mv $K/store/blobs/sha256 $K/store/blobs/x; ln -s /precious $K/store/blobs/sha256"),
    ("all-blobs", "mv $K/store/blobs $K/store/x; ln -s /precious $K/store/blobs"),
    ("cache", "rm -rf $K/sandbox/park/cc/ingest; ln -s /precious $K/sandbox/park/cc/ingest"),
];

/// Has each of `attacks` tried in kinds A and C, each by what `round` makes of `tried $name`, and gives its name to `check`,
/// with where `$OUT` is, and what to say of a failure.
fn try_all(attacks: &[(&str, &str)], round: &str, check: impl Fn(&str, &Path, &str)) {
    let context = context(attacks);
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let names: Vec<&str> = attacks.iter().map(|(name, _)| *name).collect();
        let script = format!("{TRIED} for name in {}; do {round}; done", names.join(" "));
        let outcome = Place::Kind(kind).run(context.path(), out.path(), &[], &script).ok();
        for name in names {
            check(name, out.path(), &format!("{kind} {name}: {}\n{outcome}", read(out.path(), "codes")));
        }
    }
}

fn read(out: &Path, name: &str) -> String {
    fs::read_to_string(out.join(name)).unwrap()
}

fn context(attacks: &[(&str, &str)]) -> Context {
    attacks.iter().fold(Context::on_busybox("RUN echo honest > /x\n"), |context, (name, attack)| {
        let text = format!(
            "FROM {0} AS evil\nRUN K=/kiln/store/kiln; {attack}; echo > /done\n\
             FROM {0}\nCOPY --from=evil /done /done\nRUN echo > /next\n",
            busybox()
        );
        context.file(name, text)
    })
}

/// `tried NAME` has the step of that name run, and then what the job would do next; nothing may take longer than `most`.
const TRIED: &str = "most='timeout -k 1 100'; \
    tried() { for word in evil next images prune; do \
        case $word in \
            evil) $most $BUILD --no-cache --cache-to=type=local,dest=/cc -f $CONTEXT/$1 $CONTEXT;; \
            next) $most $BUILD --cache-to=type=local,dest=/cc $CONTEXT;; \
            *) $most kiln $word;; \
        esac > $OUT/$1.$word 2>&1; echo $1 $word $? >> $OUT/codes; done; \
        rm -rf /kiln/store/kiln /cc; }; ";

#[test]
fn no_file_of_kilns_is_waited_for() {
    require!(Busybox, Root, Program(RUNTIME));
    try_all(&FIFOS, "tried $name", |name, out, told| {
        let codes = read(out, "codes");
        for word in ["evil", "next", "images", "prune"] {
            // What the step spoilt may be an error at once; the next kiln goes on.
            let is_fine = codes.contains(&format!("{name} {word} 0\n"))
                || word == "evil" && codes.contains(&format!("{name} evil 1\n"));
            assert!(is_fine, "{word}: {told}\n{}", read(out, &format!("{name}.{word}")));
        }
    });
}

#[test]
fn nothing_is_removed_where_a_link_of_a_steps_leads() {
    require!(Busybox, Root, Program(RUNTIME));
    let round = "mkdir -p /precious/directory; echo all > /precious/file; echo all > /precious/directory/file; \
        touch -d 2020-01-01 /precious/* /precious; tried $name; \
        cat /precious/file /precious/directory/file > $OUT/$name.left 2>&1; rm -rf /precious";
    try_all(&LINKS, round, |name, out, told| {
        let logs = ["evil", "next", "prune"].map(|word| read(out, &format!("{name}.{word}"))).join("\n");
        assert_eq!(read(out, &format!("{name}.left")), "all\nall\n", "{told}\n{logs}");
        assert!(read(out, "codes").contains(&format!("{name} evil ")), "{told}");
    });
}
