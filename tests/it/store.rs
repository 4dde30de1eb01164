//! kiln's own store: images without an output, and the commands that work on them.

use serde_json::Value;

use crate::support::need::Busybox;
use crate::support::{Context, Kiln, Registry};

#[test]
fn a_build_without_an_output_stays_in_the_store() {
    require!(Busybox);
    let kiln = Kiln::new();
    let context = Context::on_busybox("RUN echo kept > /kept\n");
    let built = kiln.build(&context, &["--tag=example.org/kept:v1"]).ok();
    let digest = built.stdout.trim();
    let listed = kiln.run("images", [""; 0]).ok();
    assert!(listed.stdout.contains("example.org/kept") && listed.stdout.contains("v1"), "{listed}");

    for name in ["example.org/kept:v1", digest] {
        let shown = kiln.run("inspect", ["--format=json", name]).ok();
        let value: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert!(value.to_string().contains(digest), "{shown}");
    }
    let registry = Registry::open();
    kiln.run("push", ["example.org/kept:v1", &registry.image("moved:v2")]).ok();
    assert_eq!(registry.digest("moved:v2"), digest);

    kiln.run("rm", ["example.org/kept:v1"]).ok();
    let listed = kiln.run("images", [""; 0]).ok();
    assert!(!listed.stdout.contains("example.org/kept"), "{listed}");
    kiln.run("rm", ["example.org/kept:v1"]).fails(1, &["example.org/kept:v1"]);
    kiln.run("push", ["example.org/kept:v1"]).fails(1, &["example.org/kept:v1"]);
}

#[test]
fn inspect_reads_a_layout() {
    require!(Busybox);
    let kiln = Kiln::new();
    let layout = kiln.scratch("layout").display().to_string();
    let output = format!("--output=type=oci,tar=false,dest={layout}");
    let built = kiln.build(&Context::on_busybox("LABEL a=b\n"), &[&output]).ok();
    let shown = kiln.run("inspect", [layout.as_str()]).ok();
    assert!(shown.stdout.contains(built.stdout.trim()), "{shown}");
    kiln.run("inspect", ["/not/there"]).fails(1, &["/not/there"]);
}

#[test]
fn prune_frees_what_no_tag_holds() {
    require!(Busybox);
    let kiln = Kiln::new();
    let noise = "RUN dd if=/dev/urandom of=/noise bs=1M count=5 2>/dev/null\n";
    kiln.build(&Context::on_busybox(noise), &["--tag=example.org/a:1"]).ok();
    let size = |kiln: &Kiln| -> u64 {
        let used = std::process::Command::new("du").arg("-sb").arg(kiln.store()).output().unwrap().stdout;
        String::from_utf8(used).unwrap().split('\t').next().unwrap().parse().unwrap()
    };
    kiln.run("rm", ["example.org/a:1"]).ok();
    kiln.run("prune", ["--all"]).ok();
    assert!(size(&kiln) < 5 << 20, "{} bytes left", size(&kiln));
    kiln.build(&Context::on_busybox("RUN true\n"), &[]).ok();
}

#[test]
fn doctor_says_what_a_build_would_use() {
    let kiln = Kiln::new();
    let said = kiln.run("doctor", [""; 0]).ok();
    for word in ["isolation", "storage", "user namespace"] {
        assert!(said.stdout.to_lowercase().contains(word), "`{word}`\n{said}");
    }
}
