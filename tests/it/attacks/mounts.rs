//! What a step mounts: sources, targets and devices never lead out of where they belong.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::{Place, rounds, with_program};
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, base, run};

/// How many mounts a step of the race has: each is a round.
const MOUNTS: u32 = 10;

/// Builds the context at a place, where `$OUT/marker` is a file of kiln's own `/` and no step's.
fn build(place: Place, context: &Context, arguments: &str) -> Outcome {
    let out = tempfile::tempdir().unwrap();
    let script = format!(
        "echo mine > $OUT/marker && $BUILD {arguments} --build-arg=MARKER=$OUT/marker --output=type=cacheonly $CONTEXT"
    );
    place.run(context.path(), out.path(), &[], &script)
}

/// Two stages hold one cache; one of them exchanges the other's source for a link to `/` all the time.
#[test]
fn a_source_that_is_exchanged_for_a_link_leads_nowhere_else() {
    require!(Busybox, Root, Program(RUNTIME), Program("cc"));
    let base = base::busybox();
    let mut victim = String::new();
    for round in 0..rounds(20).div_ceil(MOUNTS) {
        let mounts: String = (0..MOUNTS)
            .map(|number| format!("--mount=type=cache,id=race,source=sub,target=/m/{number} "))
            .collect();
        writeln!(
            victim,
            "RUN {mounts} : {round}; for m in /m/*; do if test -e $m$MARKER || test -d $m/proc; then echo SE''EN $m; \
             elif test -e $m/inside; then echo o''wn; else echo ro''ot; fi; done"
        )
        .unwrap();
    }
    let context = Context::new(&format!(
        "FROM {base} AS attacker\nCOPY exchange /exchange\n\
         RUN --mount=type=cache,id=race,target=/c mkdir /c/sub && touch /c/sub/inside && ln -s / /c/link && \
         touch /c/go && /exchange /c/sub /c/link /c/stop; touch /done\n\
         FROM {base} AS victim\nARG MARKER\n\
         RUN --mount=type=cache,id=race,target=/c until test -e /c/go; do sleep 0.02; done\n\
         {victim}\
         RUN --mount=type=cache,id=race,target=/c touch /c/stop /done\n\
         FROM {base}\nCOPY --from=attacker /done /attacker\nCOPY --from=victim /done /victim\n"
    ));
    let context = with_program(context, "exchange");
    for place in [Place::Kind("B"), Place::Kind("E"), Place::Kind("F"), Place::Kind("P"), Place::PlainUser] {
        let built = build(place, &context, "").ok();
        let seen = |word: &str| built.stderr.lines().filter(|line| line.ends_with(word)).count();
        assert!(!built.stderr.contains("SEEN"), "{place:?}: {built}");
        let expected = rounds(20).div_ceil(MOUNTS) * MOUNTS;
        assert_eq!(seen(" own") + seen(" root"), expected as usize, "{place:?}: {built}");
    }
}

/// A link that stays is followed inside the cache, also where directories are lent and files copied.
#[test]
fn links_in_a_cache_are_followed_inside_it() {
    require!(Busybox, Root, Program(RUNTIME));
    let look = "test -e /m$MARKER && echo SE''EN; test -e /m/inside && echo ins''ide";
    let context = Context::on_busybox(&format!(
        "ARG MARKER\n\
         RUN --mount=type=cache,id=l,target=/c touch /c/inside; ln -s / /c/sub; ln -s ../../../../../.. /c/up\n\
         RUN --mount=type=cache,id=l,source=sub,target=/m {look}\n\
         RUN --mount=type=cache,id=l,source=up,target=/m,readonly {look}\n\
         RUN --mount=type=cache,id=l,target=/c rm /c/sub /c/up && ls /c\n"
    ));
    for place in Place::ALL {
        let built = build(place, &context, "").ok();
        assert!(!built.stderr.contains("SEEN"), "{place:?}: {built}");
        assert_eq!(built.stderr.matches(" inside").count(), 3, "{place:?}: {built}");
    }
}

/// In place a step is root beside kiln's store: it puts links where caches are.
#[test]
fn a_cache_that_a_step_replaced_by_a_link_is_refused() {
    require!(Busybox, Root, Program(RUNTIME));
    let context = Context::on_busybox(
        "RUN --mount=type=cache,id=l,target=/c touch /c/own\n\
         RUN data=$(find /kiln -path '*/mounts/*/data' -type d) && test -e $data/own && mv $data ${data}2 && \
         ln -s /kiln/.docker $data && echo replac''ed\n\
         RUN --mount=type=cache,id=l,target=/c,ro ls /c; tr a-z b-za < /c/config.json\n\
         RUN --mount=type=cache,id=l,target=/c ls /c; tr a-z b-za < /c/config.json\n",
    );
    for kind in ["A", "C"] {
        let out = tempfile::tempdir().unwrap();
        let script = "echo '{\"auths\": {}, \"note\": \"token\"}' > /kiln/.docker/config.json; \
                      $BUILD --output=type=cacheonly $CONTEXT; code=$?; cat /kiln/.docker/config.json; exit $code";
        let built = Place::Kind(kind).run(context.path(), out.path(), &[], script);
        assert!(built.stderr.contains(" replaced"), "{built}");
        assert!(!built.stderr.contains("uplfo"), "{built}");
        assert_ne!(built.code, Some(0), "{built}");
        assert!(built.stdout.contains("token"), "{built}");
    }
}

/// A disk of this machine, with `DATA` at its start.
struct Disk {
    /// Its device file.
    path: String,
    _file: tempfile::NamedTempFile,
}

impl Disk {
    fn attach() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "DATA".repeat(1024)).unwrap();
        let attached = run(Command::new("losetup").args(["--find", "--show"]).arg(file.path())).ok();
        Self { path: attached.last_line().to_owned(), _file: file }
    }

    /// Words for mknod(1).
    fn number(&self) -> String {
        let device = fs::metadata(&self.path).unwrap().rdev();
        format!("b {} {}", rustix::fs::major(device), rustix::fs::minor(device))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}

/// A root with MKNOD makes a node of the machine's disk wherever it can write, and tries to read it there and wherever
/// else it turns up.
#[test]
fn disks_do_not_open() {
    require!(Busybox, Root, Program(RUNTIME), Program("losetup"));
    let disk = Disk::attach();
    let (base, disk) = (base::busybox(), disk.number());
    let read = "read_disks() { for f in \"$@\"; do head -c 512 $f 2>/dev/null | grep -q DATA && echo OPE''NED $f; done; \
                test -b /disk && echo no''de; test -w /dev/null && echo > /dev/null && echo nu''ll; }";
    let context = Context::new(&format!(
        "FROM {base} AS one\n\
         RUN --mount=type=cache,id=d,target=/c --mount=type=tmpfs,target=/t {read}; \
mkdir -p /run; \
         for d in '' /c /t /dev /dev/shm /run; do mknod $d/disk {disk}; done; \
         read_disks /disk /c/disk /t/disk /dev/disk /dev/shm/disk /run/disk; rm -f /dev/disk /dev/shm/disk\n\
         RUN --mount=type=cache,id=d,target=/c --mount=type=cache,id=d,target=/r,readonly {read}; read_disks /disk /c/disk /r/disk\n\
         FROM {base}\n\
         COPY --from=one / /copied\n\
         RUN --mount=from=one,target=/b --mount=from=one,target=/w,rw {read}; \
         mknod /w/again {disk}; read_disks /b/disk /w/disk /w/again /copied/disk\n"
    ));
    for place in Place::ALL {
        let built = build(place, &context, "").ok();
        assert!(!built.stderr.contains("OPENED"), "{place:?}: {built}");
        assert_eq!(built.stderr.matches(" null\n").count(), 3, "{place:?}: {built}");
        let makes_nodes =
            [Place::Kind("A"), Place::Kind("C"), Place::Kind("E"), Place::Kind("F"), Place::Chroot];
        let nodes = if makes_nodes.contains(&place) { 2 } else { 0 };
        assert_eq!(built.stderr.matches(" node\n").count(), nodes, "{place:?}: {built}");
    }
    // On this machine itself, where no container's device cgroup is around kiln.
    for isolation in ["namespaces", "chroot"] {
        let built = Kiln::new()
            .build(&context, &[&format!("--isolation={isolation}"), "--output=type=cacheonly"])
            .ok();
        assert!(!built.stderr.contains("OPENED"), "{isolation}: {built}");
        let nodes = if isolation == "chroot" { 0 } else { 2 };
        assert_eq!(built.stderr.matches(" node\n").count(), nodes, "{isolation}: {built}");
    }
}

/// Without mounts and without a device cgroup the nodes of an image are covered, and the layers are the same.
#[test]
fn disks_of_an_image_do_not_open_in_a_chroot() {
    require!(Busybox, Root, Program("losetup"));
    let disk = Disk::attach();
    let (kiln, number) = (Kiln::new(), disk.number());
    let layout = kiln.scratch("base");
    let base =
        Context::on_busybox(&format!("RUN mkdir /d && mknod /d/disk {number} && mknod /d/two {number}\n"));
    kiln.build(
        &base,
        &["--isolation=namespaces", &format!("--output=type=oci,tar=false,dest={}", layout.display())],
    )
    .ok();
    let context = Context::new(
        "FROM base\nRUN head -c 512 /d/disk | grep -q DATA && echo OPE''NED; echo > /new\n\
         RUN mv /d/disk /moved && rm /d/two\nRUN head -c 512 /moved | grep -q DATA && echo OPE''NED; ls -l /moved\n",
    );
    let digest = |isolation: &str| {
        let id = kiln.scratch(&format!("id-{isolation}"));
        let built = kiln
            .build(
                &context,
                &[
                    &format!("--isolation={isolation}"),
                    "--build-arg=SOURCE_DATE_EPOCH=1700000000",
                    "--no-cache",
                    &format!("--build-context=base=oci-layout://{}", layout.display()),
                    &format!("--iidfile={}", id.display()),
                ],
            )
            .ok();
        assert!(!built.stderr.contains("OPENED"), "{isolation}: {built}");
        fs::read_to_string(id).unwrap()
    };
    assert_eq!(digest("chroot"), digest("namespaces"));
}

#[test]
fn a_changed_root_cannot_be_left_again() {
    require!(Busybox, Root, Program(RUNTIME), Program("cc"));
    let context = Context::on_busybox("ARG MARKER\nCOPY escape /escape\nRUN /escape $MARKER\n");
    let context = with_program(context, "escape");
    for place in [Place::Chroot, Place::Kind("B"), Place::Kind("E")] {
        let built = build(place, &context, "").ok();
        assert!(
            built.stderr.contains(" inside\n") && !built.stderr.contains("OUTSIDE"),
            "{place:?}: {built}"
        );
        let warned = built.stderr.contains("not for Dockerfiles of people you do not trust");
        assert_eq!(warned, place == Place::Chroot, "{built}");
    }
}
