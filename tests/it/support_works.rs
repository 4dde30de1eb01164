//! The tests' own tools, tried on other people's programs: what they say about kiln can be believed.

use std::process::Command;

use crate::support::container::{RUNTIME, as_kind};
use crate::support::engine::Engine;
use crate::support::image::listing;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Image, Kiln, Registry, base, run};

#[test]
fn a_registry_keeps_what_skopeo_pushes() {
    require!(Busybox);
    let reference = base::busybox();
    assert!(reference.starts_with(Registry::shared().address()));
    // Other tests put tags of their own beside it.
    assert!(Registry::shared().tags("busybox").contains(&"latest".to_owned()));
    let kiln = Kiln::new();
    let layout = kiln.scratch("layout");
    Registry::shared().pull("busybox:latest", &layout);
    let image = Image::read(&layout);
    assert_eq!(Registry::shared().digest("busybox:latest"), image.digest);
    assert_eq!(image.layer_count(), 1);
    assert_eq!(image.settings()["Cmd"], serde_json::json!(["sh"]));
    assert_eq!(image.text("etc/passwd").lines().count(), 4);
}

#[test]
fn the_reader_sees_what_umoci_unpacks() {
    require!(Busybox, Root);
    let layout = base::layout("busybox");
    let kiln = Kiln::new();
    let bundle = kiln.scratch("tree");
    let image = format!("{}:latest", layout.display());
    run(Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&bundle)).ok();
    let format = "%y %04m %U:%G %P\\n";
    let found = run(Command::new("find").arg(&bundle).args(["-mindepth", "1", "-printf", format])).ok();
    let mut found: Vec<&str> = found.stdout.lines().collect();
    found.sort_unstable();
    let mut listed: Vec<String> = Image::read(&layout)
        .tree()
        .iter()
        .map(|(path, node)| format!("{} {:04o} {}:{} {path}", node.kind, node.mode, node.uid, node.gid))
        .collect();
    listed.sort_unstable();
    assert_eq!(found, listed);
    assert!(listing(&Image::read(&layout).tree()).iter().any(|line| line.ends_with("bin/sh -> busybox")));
}

#[test]
fn a_registry_with_a_password_and_tls_refuses_strangers() {
    require!(
        Program("docker-registry"),
        Program("skopeo"),
        Program("openssl"),
        Program("busybox"),
        Program("umoci")
    );
    let options = crate::support::distribution::Options { password: true, tls: true, ..Default::default() };
    let registry = Registry::start(&options);
    let to = format!("docker://{}", registry.image("box:1"));
    let from = format!("oci:{}:latest", base::layout("busybox").display());
    let authority = tempfile::tempdir().unwrap();
    std::fs::copy(registry.authority(), authority.path().join("ca.crt")).unwrap();
    let certificates = format!("--dest-cert-dir={}", authority.path().display());
    let push =
        |extra: &[&str]| run(Command::new("skopeo").args(["copy", "-q"]).args(extra).args([&from, &to]));
    push(&[]).fails(1, &["x509"]);
    push(&[&certificates]).fails(1, &["authentication required"]);
    push(&[&certificates, "--dest-creds=builder:correct horse"]).ok();
}

/// What a builder would try, as a shell sees it; one line each.
const PROBES: &str = r#"
try() { if "$@" >/dev/null 2>&1; then echo "yes: $*"; else echo "no: $*"; fi; }
id -u
grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status
try unshare -U true
try unshare -m true
try unshare -p -f true
try unshare -n true
try mount -t tmpfs tmpfs /tmp
try unshare -m mount -t tmpfs tmpfs /tmp
try unshare -m mount -t proc proc /proc
try unshare -U -r -m mount -t tmpfs tmpfs /tmp
try unshare -U -r -m -p -f mount -t proc proc /proc
try mknod /tmp/null c 1 3
try chroot / true
try chown 1234 /etc/passwd
try mv /etc /moved
try mv /bin/mv /bin/moved
"#;

#[test]
fn the_kinds_are_what_a_docker_engine_makes() {
    require!(Busybox, Root, Program(RUNTIME), Program("dockerd"), Program("capsh"), Program("python3"));
    let engine = Engine::shared();
    let kiln = Kiln::new();
    let archive = kiln.scratch("busybox.tar");
    let from = format!("oci:{}:latest", base::layout("busybox").display());
    let to = format!("docker-archive:{}:kinds:latest", archive.display());
    run(Command::new("skopeo").args(["copy", "-q", &from, &to])).ok();
    engine.docker(&["load", "-i", archive.to_str().unwrap()]).ok();
    // E is left out: an engine wants to grant it capabilities that a machine may have given up for good.
    let kinds: [(&str, &[&str]); 4] = [
        ("A", &[]),
        ("D", &["--security-opt=seccomp=unconfined"]),
        ("F", &["--cap-add=SYS_ADMIN"]),
        ("N", &["--user=1000"]),
    ];
    let nothing = tempfile::tempdir().unwrap();
    for (kind, options) in kinds {
        let head = ["run", "--rm", "--network=host"];
        let arguments = [&head, options, &["kinds:latest", "sh", "-c", PROBES]].concat();
        let docker = engine.docker(&arguments).ok().stdout;
        let ours = as_kind(kind, nothing.path(), nothing.path(), PROBES).ok().stdout;
        assert_eq!(ours, docker, "kind {kind}");
    }
}
