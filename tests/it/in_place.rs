//! Steps in place, in a container that allows nothing (kind A): what they can reach, what they leave, what is as before.

use std::fs;

use crate::support::container::{RUNTIME, as_kind, debug_image_as_kind};
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, run};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// Says what the whole container holds, without kiln's store and what is mounted.
const MANIFEST: &str = "manifest() { \
    mkdir -p /kiln/store; \
    find / -xdev '(' -path /kiln/store -o -path /out ')' -prune -o -exec stat -c '%n %f %u:%g %Y %N' {} + | sort; \
    find / -xdev '(' -path /kiln/store -o -path /out ')' -prune -o -type f -exec md5sum {} + | sort -k 2; }; ";

/// Runs a script in kiln's debug image in kind A; `kiln build` is `$BUILD`.
fn in_place(context: &Context, out: &tempfile::TempDir, volumes: &[String], script: &str) -> Outcome {
    let script = format!(
        "{MANIFEST} BUILD='kiln build --progress=plain {EPOCH}'; mkdir -p /home/job /work && echo mine > /home/job/file && \
         ln -s /home/job /work/link && chown 7:8 /work && set -e; {script}"
    );
    debug_image_as_kind("A", context.path(), out.path(), volumes, &script)
}

/// Compares two manifests that the container left, and shows the lines that differ.
#[track_caller]
fn assert_same(out: &tempfile::TempDir, before: &str, after: &str) {
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
    let (before, after) = (read(before), read(after));
    let only = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    assert!(before.lines().count() > 20, "{before}");
    assert!(before == after, "gone: {:#?}\nnew: {:#?}", only(&before, &after), only(&after, &before));
}

fn out() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn credentials_are_out_of_every_steps_reach() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    // The pattern is written so that it does not match the step's own command line.
    let probe = "RUN look() { grep -l 's3c[r]3t' \"$@\" 2>/dev/null && echo LE''AK; }; \
        for p in /proc/[0-9]*; do \
            [ $p = /proc/$$ ] && continue; \
            for f in environ cmdline mem; do look $p/$f; done; \
            if readlink $p/fd/0 >/dev/null 2>&1; then echo LE''AK \": open files of $p\"; fi; \
            if ls $p/root/ >/dev/null 2>&1; then echo LE''AK \": root of $p\"; fi; \
        done; \
        look -r /kiln/.docker /kiln/token /run /etc /home /root /var /tmp; \
        find /kiln -type f -size -64k -exec grep -l 's3c[r]3t' {} + 2>/dev/null && echo LE''AK; \
        test ! -s /kiln/.docker/config.json && echo hid''den\n";
    let context = Context::on_busybox(&format!(
        "ARG TOKEN\n{probe}RUN --mount=type=secret,id=token cat /run/secrets/token | tr a-z0-9 b-za1-90 > /given\n{probe}"
    ));
    let out = out();
    fs::write(out.path().join("values"), "S=s3cr3t-3xact\n").unwrap();
    let script = "umask 077; . /out/values; rm /out/values; \
        echo \"{\\\"auths\\\":{\\\"r.example\\\":{\\\"auth\\\":\\\"$S\\\"}}}\" > /kiln/.docker/config.json; \
        echo $S > /kiln/token; echo $S > /home/job/token; manifest > /out/before; export IN_ENVIRONMENT=$S; \
        $BUILD --build-arg UNUSED=$S --secret id=token,src=/kiln/token --secret id=other,src=/home/job/token /context; \
        manifest > /out/after; cat /kiln/.docker/config.json";
    let built = in_place(&context, &out, &[], script).ok();
    assert!(!built.stderr.contains("LEAK"), "{built}");
    assert_eq!(built.stderr.matches(" hidden\n").count(), 2, "{built}");
    assert!(built.stdout.contains("s3cr3t-3xact"), "the content is back\n{built}");
    assert_same(&out, "before", "after");
}

#[test]
fn credentials_on_a_mount_are_told_of() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let mounted = out();
    fs::write(mounted.path().join("config.json"), "{\"auths\":{}}").unwrap();
    let volume = format!("{}:/kiln/.docker", mounted.path().display());
    let built = in_place(
        &Context::on_busybox("RUN true\nRUN true\n"),
        &out(),
        &[volume],
        "$BUILD --allow-visible-credentials /context",
    )
    .ok();
    assert_eq!(built.stderr.matches("can read `/kiln/.docker/config.json`").count(), 1, "{built}");
    assert_eq!(fs::read_to_string(mounted.path().join("config.json")).unwrap(), "{\"auths\":{}}");
}

#[test]
fn a_step_that_removes_kilns_own_files_fails_the_build() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let own = "the step removed or replaced kiln's own";
    for (step, said) in [
        ("rm -rf /kiln/store", format!("{own} `/kiln/store")),
        ("rm -rf /kiln || true", format!("{own} `/kiln")),
        ("mv /kiln/store /kiln/aside && cp -a /kiln/aside /kiln/store", format!("{own} `/kiln/store")),
        // What is lost for good comes first: the context's volume, and its copy.
        ("rm -rf /* 2>/dev/null || true", "which are lost, since it destroyed the copies".to_owned()),
    ] {
        let context = Context::on_busybox(&format!("RUN {step}\nRUN echo never > /reached\n"));
        let script = "if $BUILD /context; then echo BUILT; fi";
        let ended = in_place(&context, &out(), &[], script).ok();
        assert!(ended.stderr.contains(&said) && ended.stderr.contains("hint:"), "{step}\n{ended}");
        assert!(!ended.stdout.contains("BUILT"), "{step}\n{ended}");
    }
}

#[test]
fn a_step_that_spoils_the_store_gives_no_image() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN echo 1 > /a\nRUN find /kiln/store -path '*/blobs/*' -type f -exec sh -c 'echo spoilt > $1' sh {} \\;\nRUN echo 2 > /b\n",
    );
    let script = "if $BUILD --output=type=oci,dest=/out/image.tar /context; then echo BUILT; fi; test ! -e /out/image.tar";
    let ended = in_place(&context, &out(), &[], script).ok();
    assert!(!ended.stdout.contains("BUILT") && ended.stderr.contains("sha256:"), "{ended}");
}

#[test]
fn daemons_and_fork_storms_end_with_their_step() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN (setsid sleep 4321 &); (setsid sh -c 'while :; do (setsid sleep 4321 &); done' &); sleep 0.5; echo x > /x\n\
         RUN n=$(ps | grep -c '[s]leep 4321'); echo \"left: $n\"; test $n = 0\n",
    );
    let script = "$BUILD /context; n=$(ps | grep -c '[s]leep 4321') || true; echo \"still: $n\"";
    let built = in_place(&context, &out(), &[], script).ok();
    assert!(built.stderr.contains("left: 0\n") && built.stdout.contains("still: 0\n"), "{built}");
}

#[test]
fn the_containers_files_are_as_before() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN mkdir /home/job /work && echo theirs > /home/job/file && rm -rf /var && chmod 700 /tmp && echo h > /etc/hosts-too\n\
         RUN rm -rf /home && ln -s work /home && touch /home/through-the-link && false\n",
    );
    let out = out();
    let script =
        "manifest > /out/before; $BUILD /context && exit 1; manifest > /out/after; cat /home/job/file";
    let ended = in_place(&context, &out, &[], script).ok();
    assert_eq!(ended.stdout, "mine\n", "{ended}");
    assert_same(&out, "before", "after");
}

#[test]
fn one_kiln_at_a_time_takes_the_place_of_the_container() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN touch /dev/shm/running && while test -e /dev/shm/running; do sleep 0.05; done\n",
    );
    let script = "$BUILD /context & while ! test -e /dev/shm/running; do sleep 0.05; done; \
        if $BUILD --root /kiln/other /context; then echo TWO; fi; \
        if $BUILD /context; then echo TWO; fi; rm /dev/shm/running; wait $!; echo one: $?";
    let ended = in_place(&context, &out(), &[], script).ok();
    assert_eq!(ended.stderr.matches("another kiln is building in place").count(), 2, "{ended}");
    assert!(!ended.stdout.contains("TWO") && ended.stdout.contains("one: 0"), "{ended}");
}

/// The whole proof is `tools/kill-in-place 200`.
#[test]
fn kills_at_random_moments_harm_nothing() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("umoci"));
    let mut command = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/kill-in-place"));
    let killed = run(command.arg("8").arg(Kiln::program())).ok();
    assert!(killed.stdout.contains("8 kills: every next build gave sha256:"), "{killed}");
}

#[test]
fn no_network_is_a_filter_where_there_are_no_namespaces() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN --network=none nc -w 1 127.0.0.1 1 && exit 1; wget -O /dev/null http://127.0.0.1:1/ 2>&1 | tee /said; \
         grep -qi 'not supported' /said && su www-data -s /bin/sh -c 'id -u'\n\
         RUN wget -O /dev/null http://127.0.0.1:1/ 2>&1 | grep refused\n",
    );
    let built = in_place(&context, &out(), &[], "$BUILD /context").ok();
    assert_eq!(built.stderr.matches("`--network=none` is a filter here").count(), 1, "{built}");
    let chroot =
        as_kind("A", context.path(), out().path(), &format!("kiln build --root=/var/kiln {EPOCH} /context"));
    chroot.ok();
}

#[test]
fn scripts_of_here_documents_and_secrets_are_seen_below_mounts() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN <<EOF\n#!/bin/sh\necho from $0 > /said\nls -A /dev/pipes >> /said\nEOF\n\
         RUN --mount=type=secret,id=s,target=/dev/shm/deep/s,mode=0400,uid=33 ls -ln /dev/shm/deep/s | cut -d' ' -f1-20 && cat /dev/shm/deep/s\n\
         RUN test ! -e /dev/pipes && test ! -e /dev/shm/deep && cat /said\n",
    );
    let expected = Kiln::new()
        .command("build")
        .args(["--progress=plain", EPOCH])
        .arg("--secret=id=s,src=/etc/hostname")
        .arg(context.path())
        .output()
        .unwrap();
    let script = "echo v4lue > /kiln/s; $BUILD --secret id=s,src=/kiln/s /context; test ! -e /dev/pipes";
    let built = in_place(&context, &out(), &[], script).ok();
    assert!(built.stderr.contains("v4lue"), "{built}");
    assert_eq!(built.stdout, String::from_utf8_lossy(&expected.stdout), "{built}");
}

#[test]
fn what_the_container_has_mounted_cannot_be_a_target() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox("RUN --mount=type=cache,target=/dev/shm/cache true\n");
    let ended = in_place(&context, &out(), &[], "$BUILD /context || echo refused").ok();
    assert!(ended.stderr.contains("the container has a mount at `/dev/shm`"), "{ended}");
}

#[test]
fn an_image_with_a_directory_of_kilns_name_is_refused() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox("COPY Dockerfile /kiln/\nRUN ls /kiln > /seen\n");
    let ended =
        in_place(&context, &out(), &[], "$BUILD /context && exit 1; $BUILD --root /own/store /context").ok();
    assert!(ended.stderr.contains("the image has a `/kiln` of its own"), "{ended}");
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout;
    assert_eq!(ended.stdout, expected);
}

#[test]
fn a_foreign_image_is_taken_over_only_when_insisted_on() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let context = Context::on_busybox(
        "RUN mv /home /moved && rm -rf /usr && mkdir /usr && ln -s moved /home && touch /home/through\n\
         RUN mv /moved /home2 && rm /home && cp /etc/passwd /etc/mine && rm -r /bin/../var/tmp\n",
    );
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout;
    let out = out();
    let script = format!(
        "{MANIFEST} set -e; build='kiln build --progress=plain --isolation=in-place {EPOCH}'; \
         $build --root /kiln/store /context && exit 1; $build --force /context && exit 1; \
         manifest > /out/before; $build --force --root /kiln/store /context > /out/first; \
         manifest > /out/after; $build --no-cache --force --root /kiln/store /context > /out/second; manifest > /out/last"
    );
    let ended = as_kind("A", context.path(), out.path(), &script).ok();
    assert!(ended.stderr.contains("`--force` insists"), "{ended}");
    assert!(ended.stderr.contains("the image has a `/var` of its own"), "{ended}");
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
    assert_eq!((read("first"), read("second")), (expected.clone(), expected), "{ended}");
    assert_same(&out, "before", "after");
    assert_same(&out, "before", "last");
}
