//! Whole images between registries, layouts and the store; tags in registries.

use std::process::Command;

use serde_json::Value;

use crate::support::need::{Busybox, Program};
use crate::support::{Context, Image, Kiln, Registry, base, run};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// An index of two images in a registry.
fn two_platforms(kiln: &Kiln, registry: &Registry, name: &str) -> String {
    let mut images = Vec::new();
    for platform in ["amd64", "arm64"] {
        let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", platform);
        let image = registry.image(&format!("parts:{platform}"));
        kiln.build(&context, &[&format!("--platform=linux/{platform}"), "--push", "--tag", &image]).ok();
        images.push(image);
    }
    let created = kiln.run("index create", ["--push", "-t", &registry.image(name), &images[0], &images[1]]);
    created.ok().last_line().to_owned()
}

#[test]
fn an_index_goes_everywhere_and_keeps_its_digest() {
    require!(Program("docker-registry"), Program("skopeo"));
    let (one, two) = (Registry::open(), Registry::open());
    let kiln = Kiln::new();
    let digest = two_platforms(&kiln, &one, "app:1");
    let (layout, archive) = (kiln.scratch("layout"), kiln.scratch("app.tar"));
    let (layout, archive) = (layout.display().to_string(), archive.display().to_string());
    let source = one.image("app:1");
    let copy = |from: &str, to: &[&str]| {
        let arguments: Vec<&str> = std::iter::once(from).chain(to.iter().copied()).collect();
        assert_eq!(kiln.run("copy", arguments).ok().stdout.trim(), digest);
    };
    copy(&source, &[&format!("oci:{layout}:v1"), &archive, "store://example.org/app"]);
    copy(&format!("{layout}:v1"), &[&two.image("of-layout")]);
    copy(&archive, &[&two.image("of-archive:x")]);
    copy("store://example.org/app:1", &[&two.image("of-store"), &two.image("of-store:again")]);
    copy(&format!("docker://{}@{digest}", two.image("of-store")), &[&one.image("back:2")]);
    for name in ["of-layout:v1", "of-archive:x", "of-store:1", "of-store:again"] {
        assert_eq!(two.digest(name), digest, "{name}");
    }
    assert_eq!(one.digest("back:2"), digest);
    // skopeo takes both images out of what kiln wrote.
    for arch in ["amd64", "arm64"] {
        for from in [format!("oci:{layout}:v1"), format!("oci-archive:{archive}")] {
            let to = kiln.scratch(&format!("{arch}-{}", from.len()));
            let mut command = Command::new("skopeo");
            command.args(["--override-os=linux", "--override-arch", arch, "copy", "-q", &from]);
            run(command.arg(format!("oci:{}", to.display()))).ok();
            assert_eq!(Image::read(&to).text("file"), arch);
        }
    }
    // One platform of it.
    let alone = kiln.run("copy", ["--platform=linux/arm64", &source, &two.image("alone:1")]).ok();
    assert_eq!(alone.stdout.trim(), one.digest("parts:arm64"));
    kiln.run("copy", ["--platform=linux/s390x", &source, &two.image("alone:1")])
        .fails(1, &["linux/s390x", "linux/amd64, linux/arm64"]);
    kiln.run("copy", [source.as_str(), "oci:/proc/none"]).fails(1, &["/proc/none"]);
    kiln.run("copy", [&one.image("missing:1"), &two.image("x:1")]).fails(1, &["missing"]);
    kiln.run("copy", ["oci:not/there", &two.image("x:1")]).fails(1, &["oci:not/there"]);
}

#[test]
fn a_copy_within_a_registry_uploads_nothing() {
    require!(Busybox);
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "one/busybox:1");
    let before = uploads(&registry);
    let kiln = Kiln::new();
    let from = registry.image("one/busybox:1");
    kiln.run("copy", [&from, &registry.image("two/busybox:2")]).ok();
    kiln.run("tag", [&from, &registry.image("one/busybox:stable"), &registry.image("three:1")]).ok();
    assert_eq!(uploads(&registry), before, "{}", registry.log());
    let digest = registry.digest("one/busybox:1");
    for name in ["two/busybox:2", "one/busybox:stable", "three:1"] {
        assert_eq!(registry.digest(name), digest);
    }
    kiln.run("tag", [&from, "other.example.org/x:1"]).fails(1, &["another registry", "kiln copy"]);
}

fn uploads(registry: &Registry) -> usize {
    registry.log().lines().filter(|line| line.contains("\"PUT\"") && line.contains("/blobs/uploads/")).count()
}

#[test]
fn images_in_the_store_get_further_names_without_a_registry() {
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY x /x\n").file("x", "x");
    let built = kiln.build(&context, &["--tag=example.org/a:1"]).ok();
    let tagged = kiln.run("tag", ["example.org/a:1", "example.org/b:2", "c"]).ok();
    assert_eq!(tagged.stdout.trim(), built.last_line());
    let listed = kiln.run("images", ["--format=json"]).ok();
    let listed = json(&listed.stdout);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(listed.as_array().unwrap().iter().all(|image| image["digest"] == built.last_line()));
    kiln.run("tag", ["nothing", "x:1"]).fails(1, &["nothing"]);
    kiln.run("tag", ["example.org/a:1", "UPPER"]).fails(1, &["lowercase"]);
}

#[test]
fn tags_are_listed_page_by_page() {
    require!(Busybox);
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "many:t000");
    let kiln = Kiln::new();
    let names: Vec<String> = (1..=120).map(|number| registry.image(&format!("many:t{number:03}"))).collect();
    let arguments = std::iter::once(registry.image("many:t000")).chain(names);
    kiln.run("tag", arguments).ok();
    let listed = kiln.run("ls-tags", [registry.image("many")]);
    // `ls-tags` has no store.
    listed.fails(2, &["--root"]);
    let list = |extra: &[&str]| {
        let mut command = Command::new(Kiln::program());
        run(command.arg("ls-tags").args(extra).arg(registry.image("many"))).ok().stdout
    };
    assert_eq!(list(&[]).lines().count(), 121);
    assert!(list(&[]).starts_with("t000\nt001\n"));
    assert_eq!(json(&list(&["--format=json"]))["tags"].as_array().unwrap().len(), 121);
    let digests = json(&list(&["--format=json", "--digests"]));
    assert_eq!(digests["tags"][7]["digest"], registry.digest("many:t007").as_str());
}

#[test]
fn a_tag_is_removed_without_losing_what_others_need() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    let kiln = Kiln::new();
    two_platforms(&kiln, &registry, "parts:both");
    let remove = |arguments: &[&str]| {
        let mut command = Command::new(Kiln::program());
        run(command.arg("rm-tag").args(arguments))
    };
    // Debian's registry removes manifests only: the index and the other tag would lose theirs.
    let amd = registry.image("parts:amd64");
    remove(&[&amd]).fails(1, &["the index `both`", "--force"]);
    kiln.run("tag", [&registry.image("parts:both"), &registry.image("parts:all")]).ok();
    remove(&[&registry.image("parts:both")]).fails(1, &["the tag `all`"]);
    assert_eq!(registry.tags("parts"), ["all", "amd64", "arm64", "both"]);
    let removed = remove(&["--force", "--format=json", &registry.image("parts:both")]).ok();
    assert_eq!(json(&removed.stdout)[0]["alsoRemoved"][0], "all");
    assert_eq!(registry.tags("parts"), ["amd64", "arm64"]);
    let digest = registry.digest("parts:amd64");
    assert_eq!(remove(&[&amd]).ok().stdout, format!("removed {amd}\n"));
    assert_eq!(registry.tags("parts"), ["arm64"]);
    remove(&[&amd]).fails(1, &["not found"]);
    remove(&[&format!("{}@{digest}", registry.image("parts"))]).fails(1, &["not found"]);
    remove(&[&registry.image("parts")]).fails(1, &["names no tag"]);
}
