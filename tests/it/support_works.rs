//! The tests' own tools, tried on other people's programs: what they say about kiln can be believed.

use std::process::Command;

use crate::support::image::listing;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Image, Kiln, Registry, base, run};

#[test]
fn a_registry_keeps_what_skopeo_pushes() {
    require!(Busybox);
    let reference = base::busybox();
    assert!(reference.starts_with(Registry::shared().address()));
    assert_eq!(Registry::shared().tags("busybox"), ["latest"]);
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
    let options = crate::support::distribution::Options { password: true, tls: true, read_only: false };
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
