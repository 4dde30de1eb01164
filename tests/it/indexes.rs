//! Images of several runners, merged into one index with nothing but a registry between them; read by skopeo.

use std::process::Command;

use serde_json::Value;

use crate::support::need::{Busybox, Program};
use crate::support::{Context, Kiln, Registry, base, run};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What a registry has under a name, byte for byte, by skopeo.
fn raw(registry: &Registry, name: &str) -> Value {
    let reference = format!("docker://{}", registry.image(name));
    json(
        &run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference])).ok().stdout,
    )
}

/// The architecture of the image that skopeo chooses.
fn architecture(registry: &Registry, name: &str, platform: &str) -> String {
    let reference = format!("docker://{}", registry.image(name));
    let (arch, variant) = platform.split_once('/').unwrap_or((platform, ""));
    let mut command = Command::new("skopeo");
    command.args(["--override-os=linux", "--override-arch", arch]);
    if !variant.is_empty() {
        command.args(["--override-variant", variant]);
    }
    let shown = run(command.args(["inspect", "--tls-verify=false", &reference])).ok();
    json(&shown.stdout)["Architecture"].as_str().unwrap().to_owned()
}

/// A runner of its own: builds for a platform, pushes, and is gone.
fn runner(registry: &Registry, platform: &str, name: &str) -> String {
    let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", platform);
    let platform = format!("--platform={platform}");
    let built =
        Kiln::new().build(&context, &[EPOCH, &platform, "--push", "--tag", &registry.image(name)]).ok();
    built.last_line().to_owned()
}

#[test]
fn images_of_two_runners_become_one_index() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    let amd = runner(&registry, "linux/amd64", "ci/amd:1");
    let arm = runner(&registry, "linux/arm64", "ci/arm:1");
    let merging = Kiln::new();
    let (app, latest) = (registry.image("app:1"), registry.image("app:latest"));
    let by_digest = format!("{}@{arm}", registry.image("ci/arm"));
    let created = merging
        .run(
            "index create",
            [
                "--push",
                "-t",
                &app,
                "-t",
                &latest,
                "--annotation=org.example=of the index",
                "--annotation=manifest-descriptor[linux/arm64]:org.example=of the entry",
                &registry.image("ci/amd:1"),
                &by_digest,
            ],
        )
        .ok();
    assert_eq!(created.stdout.trim(), registry.digest("app:1"), "the digest alone is on stdout");
    assert_eq!(registry.digest("app:1"), registry.digest("app:latest"));
    let index = raw(&registry, "app:1");
    assert_eq!(index["annotations"]["org.example"], "of the index");
    assert_eq!(index["manifests"][0]["digest"], amd.as_str());
    assert_eq!(index["manifests"][1]["digest"], arm.as_str());
    assert_eq!(index["manifests"][1]["annotations"]["org.example"], "of the entry");
    assert_eq!(architecture(&registry, "app:1", "amd64"), "amd64");
    assert_eq!(architecture(&registry, "app:1", "arm64"), "arm64");
    // Nothing went through the merging machine.
    let log = registry.log();
    let uploads = log.lines().filter(|line| line.contains("\"PUT\"") && line.contains("/app/blobs/")).count();
    assert!(log.contains("mount=") && uploads == 0, "blobs are mounted\n{log}");

    let shown = merging.run("index inspect", ["--format=json", &app]).ok();
    let shown = json(&shown.stdout);
    assert_eq!(shown["digest"], created.stdout.trim());
    assert_eq!(shown["manifests"][1]["platform"], "linux/arm64");
    let text = merging.run("inspect", [app.as_str()]).ok();
    assert!(text.stdout.contains("linux/amd64") && text.stdout.contains("linux/arm64"), "{text}");
    let bytes = merging.run("index inspect", ["--raw", &app]).ok().stdout;
    assert_eq!(json(&bytes), index);
}

#[test]
fn an_index_grows_and_its_entries_are_replaced_by_name() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    runner(&registry, "linux/amd64", "app:amd");
    runner(&registry, "linux/arm64", "app:arm");
    let kiln = Kiln::new();
    let (app, amd, arm) = (registry.image("app:1"), registry.image("app:amd"), registry.image("app:arm"));
    // Each runner adds its own: the first finds nothing.
    kiln.run("index create", ["--push", "--append", "-t", &app, &amd]).ok();
    kiln.run("index create", ["--push", "--amend", "-t", &app, &arm]).ok();
    assert_eq!(raw(&registry, "app:1")["manifests"].as_array().unwrap().len(), 2);
    let newer = Context::new("FROM scratch\nCOPY file /file\n").file("file", "newer");
    let digest = kiln
        .build(&newer, &[EPOCH, "--platform=linux/amd64", "--push", "--tag", &registry.image("app:amd2")])
        .ok();
    let amd2 = registry.image("app:amd2");
    kiln.run("index create", ["--push", "--append", "-t", &app, &amd2])
        .fails(1, &["is for linux/amd64, and so is", "--replace"]);
    kiln.run("index create", ["--push", "--append", "--replace", "-t", &app, &amd2]).ok();
    let index = raw(&registry, "app:1");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["digest"], digest.last_line());

    // What a config does not say, the command line does.
    let other = format!("{amd}=linux/arm/v6");
    kiln.run("index create", ["--push", "-t", &registry.image("app:2"), &amd, &arm, "--platform", &other])
        .ok();
    assert_eq!(raw(&registry, "app:2")["manifests"][0]["platform"]["variant"], "v6");
    kiln.run("index create", ["--push", "-t", &app, &amd, &arm, "--platform=linux/arm"])
        .fails(2, &["say which one it is for"]);
    let shown = kiln.run("index create", ["--dry-run", &amd, &arm]).ok();
    assert_eq!(json(&shown.stdout)["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn an_index_is_annotated_in_the_store_and_in_a_registry() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    runner(&registry, "linux/amd64", "ci/amd:1");
    runner(&registry, "linux/arm64", "ci/arm:1");
    let kiln = Kiln::new();
    let images = [registry.image("ci/amd:1"), registry.image("ci/arm:1")];
    let name = registry.image("app:1");
    kiln.run("index create", ["-t", name.as_str(), &images[0], &images[1]]).ok();
    assert!(registry.tags("app").is_empty(), "kept, not pushed");
    let listed = kiln.run("images", ["--format=json"]).ok();
    let platforms = &json(&listed.stdout)[0]["platforms"];
    assert_eq!(*platforms, serde_json::json!(["linux/amd64", "linux/arm64"]));
    // docker's own form, by the image's name.
    kiln.run("index annotate", [&name, &images[1], "--variant", "v8", "--os-version", "1.2"]).ok();
    kiln.run("index annotate", [name.as_str(), "--annotation=a=b"]).ok();
    kiln.run("index annotate", [name.as_str(), "--variant=v8"]).fails(1, &["which entry"]);
    let pushed = kiln.run("index push", ["--purge", &name]).ok();
    assert_eq!(pushed.stdout.trim(), registry.digest("app:1"));
    assert_eq!(kiln.run("images", ["-q"]).ok().stdout, "");
    let index = raw(&registry, "app:1");
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v8");
    assert_eq!(index["manifests"][1]["platform"]["os.version"], "1.2");
    assert_eq!(index["annotations"]["a"], "b");
    assert_eq!(architecture(&registry, "app:1", "arm64/v8"), "arm64");
    // There, without a store.
    kiln.run("index annotate", ["--push", &name, "linux/arm64", "--annotation=c=d", "--variant="]).ok();
    let index = raw(&registry, "app:1");
    assert_eq!(index["manifests"][1]["annotations"]["c"], "d");
    assert!(index["manifests"][1]["platform"]["variant"].is_null());
    kiln.run("index annotate", ["--push", "--remove", &name, "linux/arm64"]).ok();
    assert_eq!(raw(&registry, "app:1")["manifests"].as_array().unwrap().len(), 1);
    kiln.run("index annotate", ["--push", &name, "linux/s390x", "--variant=x"])
        .fails(1, &["no entry `linux/s390x`", "linux/amd64"]);
    kiln.run("index inspect", [images[0].as_str()]).fails(1, &["is not an index"]);
}

#[test]
fn the_store_and_layouts_take_part() {
    require!(Busybox);
    let registry = Registry::open();
    let kiln = Kiln::new();
    let stored = Context::new("FROM scratch\nCOPY file /file\n").file("file", "stored");
    kiln.build(&stored, &[EPOCH, "--platform=linux/arm64", "--tag=example.org/stored:1"]).ok();
    let layout = base::layout("busybox").display().to_string();
    let name = registry.image("mixed:1");
    kiln.run(
        "index create",
        ["--push", "-t", &name, "--annotation=manifest:who=us", "example.org/stored:1", &layout],
    )
    .ok();
    let index = raw(&registry, "mixed:1");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(architecture(&registry, "mixed:1", "amd64"), "amd64");
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(raw(&registry, &format!("mixed@{digest}"))["annotations"]["who"], "us");
    // One builds on it: the image for this machine is found in it.
    let child = Context::new(&format!("FROM {name}\nCOPY x /x\n")).file("x", "");
    kiln.build(&child, &[]).ok();
}
