//! kiln inside containers as CI systems and clusters start them.

use std::fs;

use crate::support::container::{RUNTIME, as_kind, debug_image_as_kind, own_image_as_kind, plain_user};
use crate::support::need::{Busybox, Debian, Program, Root};
use crate::support::{Context, Image, Kiln, base};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// Builds three times in one container of a kind, in its default mode: twice on its root file system, where there are no
/// overlays, and once on a volume, where there are. Returns the digests.
fn build_in(kind: &str, context: &Context) -> (Vec<String>, String) {
    let out = tempfile::tempdir().unwrap();
    let build = format!("kiln build --progress=plain {EPOCH}");
    let script = format!(
        "set -e; {build} --root=/var/kiln /context > /out/first; \
         {build} --no-cache --root=/var/kiln /context > /out/second; test ! -e /made; \
         {build} --root=/out/kiln --debug /context > /out/third; rm -rf /out/kiln"
    );
    let outcome = as_kind(kind, context.path(), out.path(), &script).ok();
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap().trim().to_owned();
    assert!(outcome.stderr.contains("storage: overlay"), "kind {kind} has overlays on volumes\n{outcome}");
    (vec![read("first"), read("second"), read("third")], outcome.stderr)
}

/// Steps that tell modes apart: owners, a daemon, devices' absence, hard links, `cat <(…)`-like descriptors.
fn context() -> Context {
    Context::on_busybox(
        "RUN mkdir /made && echo x > /made/a && ln /made/a /made/b && chown -R 33:33 /made && chmod 4711 /made/a\n\
         USER www-data\nWORKDIR /made/work\nRUN id -u > who && (setsid sleep 300 &) && echo y | cat /dev/stdin - > pipe\n\
         USER root\nRUN rm /etc/group && mv /home /moved && touch /etc/passwd\nCOPY Dockerfile /made/\n",
    )
}

#[test]
fn steps_in_place_in_kilns_own_image_give_the_same_digest() {
    require!(Busybox, Root, Program(RUNTIME), Program("capsh"), Program("python3"));
    let context = context();
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout;
    for kind in ["A", "C"] {
        let built = own_image_as_kind(kind, context.path(), &[EPOCH]).ok();
        assert_eq!(built.stdout, expected, "kind {kind}: {built}");
    }
}

#[test]
fn one_digest_in_every_kind_with_namespaces() {
    require!(Busybox, Root, Program(RUNTIME), Program("capsh"), Program("python3"));
    let context = context();
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout.trim().to_owned();
    for kind in ["E", "F", "B", "D", "P", "H", "Hs"] {
        let (digests, log) = build_in(kind, &context);
        assert_eq!(digests, [expected.as_str(); 3], "kind {kind}\n{log}");
    }
}

#[test]
fn no_network_in_every_kind_with_namespaces() {
    require!(Busybox, Root, Program(RUNTIME), Program("capsh"), Program("python3"));
    let context = Context::on_busybox(
        "RUN --network=none ip addr show lo | grep -q LOOPBACK,UP && ping -c 1 -w 1 127.0.0.1 && ! ip addr | grep -q '^2:'\n",
    );
    let out = tempfile::tempdir().unwrap();
    // SYS_ADMIN alone (F, Hs) brings no interface up: that takes a user namespace.
    for kind in ["E", "F", "B", "P", "H", "Hs"] {
        as_kind(kind, context.path(), out.path(), "kiln build --progress=plain --root=/var/kiln /context")
            .ok();
    }
}

#[test]
fn without_any_privilege_images_without_steps_still_build() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let plain = Context::on_busybox("COPY --chown=5:6 note /in/\nENV A=b\nADD pack.tar /\n")
        .file("note", "n\n")
        .file("pack.tar", {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_uid(77);
            header.set_gid(78);
            header.set_mode(0o644);
            archive.append_data(&mut header, "packed", &b""[..]).unwrap();
            archive.into_inner().unwrap()
        });
    let copies = Context::on_busybox("COPY --chown=5:6 note /in/\nENV A=b\n").file("note", "n\n");
    // What is copied cannot get its owner here, and that is not what is wrong.
    let steps = Context::on_busybox("COPY --chown=5:6 note /in/\nRUN true\n").file("note", "n\n");
    // An archive is unpacked into real files first, and without privileges those cannot have other owners.
    for (kind, context) in [("N", &copies), ("A", &copies), ("A", &plain)] {
        let expected = Kiln::new().build(context, &[EPOCH]).ok().stdout;
        let out = tempfile::tempdir().unwrap();
        let script = format!("kiln build --progress=plain --root=/tmp/kiln {EPOCH} /context");
        let built = as_kind(kind, context.path(), out.path(), &script).ok();
        assert_eq!(built.stdout, expected, "kind {kind}: {built}");
    }
    let out = tempfile::tempdir().unwrap();
    let refused = as_kind("N", steps.path(), out.path(), "kiln build --root=/tmp/kiln /context");
    refused.fails(1, &["RUN true", "no namespaces can be made", "hint"]);
}

#[test]
fn doctor_explains_every_kind() {
    require!(Busybox, Root, Program(RUNTIME), Program("capsh"), Program("python3"));
    let context = Context::empty();
    let out = tempfile::tempdir().unwrap();
    for (kind, word) in [("E", "kiln may make them itself"), ("B", "inside a user namespace"), ("N", "none")]
    {
        let said = as_kind(kind, context.path(), out.path(), "kiln doctor").ok();
        assert!(said.stdout.contains(word), "kind {kind} should say `{word}`\n{said}");
        // Nodes can be made where kiln has MKNOD and no user namespace; what a scope keeps inside is not feared.
        assert_eq!(said.stdout.contains("yes  device nodes"), kind == "E", "{said}");
        assert!(
            !said.stdout.contains("yes  signal scope") || !said.stdout.contains("and can signal"),
            "{said}"
        );
    }
    for (root, finding) in [("/kiln/store", "yes  storage"), ("/out/store", "no   storage")] {
        let script = format!("kiln doctor --root={root}");
        let said = debug_image_as_kind("A", context.path(), out.path(), &[], &script).ok();
        assert!(said.stdout.contains(finding), "{root}\n{said}");
    }
}

#[test]
fn the_layout_written_in_a_container_is_whole() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"));
    let out = tempfile::tempdir().unwrap();
    let script = "kiln build --root=/var/kiln --output=type=oci,dest=/out/layout,tar=false /context";
    let built = as_kind("B", context().path(), out.path(), script).ok();
    let image = Image::read(&out.path().join("layout"));
    assert_eq!(built.last_line(), image.digest);
    let tree = image.tree();
    assert_eq!((tree["made/a"].uid, tree["made/a"].mode), (33, 0o4711));
    assert_eq!(image.text("made/work/who"), "33\n");
}

/// Runs a build as a plain user of this machine; with `subordinate` ids, as a distribution sets them up.
fn as_plain_user(context: &Context, subordinate: bool, arguments: &[&str]) -> crate::support::Outcome {
    let script = "exec kiln build --progress=plain \"$@\"";
    let arguments = [&[EPOCH], arguments, &[context.path().to_str().unwrap()]].concat();
    plain_user(subordinate, script, &arguments)
}

/// The tests' contexts are private to root.
fn readable(context: Context) -> Context {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(context.path(), fs::Permissions::from_mode(0o755)).unwrap();
    context
}

#[test]
fn a_plain_user_with_subordinate_ids_gets_the_same_image() {
    require!(Busybox, Root, Program("newuidmap"), Program("setpriv"));
    let context = readable(context());
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout;
    let built = as_plain_user(&context, true, &[]).ok();
    assert_eq!(built.stdout, expected, "{built}");
}

#[test]
fn a_plain_user_with_one_id_builds_what_needs_one_id() {
    require!(Busybox, Root, Program("setpriv"));
    let context =
        readable(Context::on_busybox("RUN id -u > /who && mkdir /d && echo x > /d/f && chmod 600 /d/f\n"));
    let expected = Kiln::new().build(&context, &[EPOCH]).ok().stdout;
    let built = as_plain_user(&context, false, &[]).ok();
    assert_eq!(built.stdout, expected, "{built}");
}

#[test]
fn apt_works_with_one_id() {
    require!(Debian, Root, Program("setpriv"));
    let context = readable(Context::empty());
    fs::write(
        context.path().join("Dockerfile"),
        "ARG BASE\nFROM $BASE\nRUN apt-get update && apt-get install -y --no-install-recommends openssh-client && \
         apt-config dump APT::Sandbox::User\nRUN rm -r /etc/apt/apt.conf.d/* 2>/dev/null; id -u nobody && touch /last\n",
    )
    .unwrap();
    let base = format!("--build-arg=BASE={}", base::debian());
    let out = tempfile::tempdir().unwrap();
    fs::set_permissions(out.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let layout = format!("--output=type=oci,tar=false,dest={}/layout", out.path().display());
    as_plain_user(&context, false, &[&base, &layout]).ok();
    let tree = Image::read(&out.path().join("layout")).tree();
    assert!(tree.contains_key("usr/bin/ssh") && tree.contains_key("last"));
    let own = |path: &String| path.ends_with("99zz-one-user");
    assert!(!tree.keys().any(own), "kiln's own configuration is not in the image");
}
