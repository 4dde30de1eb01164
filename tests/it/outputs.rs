//! Outputs, read by other people's programs: skopeo, umoci, buildah and a real Docker engine.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::engine::Engine;
use crate::support::image::listing;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Image, Kiln, Registry, base, run};

/// A build with something of everything that an output could lose.
fn context() -> Context {
    Context::on_busybox(
        "RUN rm /etc/group && mkdir /d && echo a > /d/a && ln /d/a /d/b && chown 33:33 /d/a && chmod 6755 /d/a\n\
         ENV GREETING=hello\nLABEL made.by=kiln\nCMD [\"/bin/sh\", \"-c\", \"echo $GREETING from inside; stat -c %a:%h /d/a\"]\n",
    )
}

/// The tests compare digests of separate builds, so time must stand still.
const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_output_of_one_build_is_the_same_image() {
    require!(Busybox);
    let kiln = Kiln::new();
    let registry = Registry::open();
    let reference = registry.image("all:1");
    let place = |name: &str| kiln.scratch(name).display().to_string();
    let built = kiln
        .build(
            &context(),
            &[
                EPOCH,
                "--tag",
                &reference,
                "--push",
                &format!("--output=type=oci,dest={},tar=false", place("layout")),
                &format!("--output=type=oci,dest={}", place("layout.tar")),
                &format!("--output=type=docker,dest={}", place("docker.tar")),
                &format!("--output=type=tar,dest={}", place("root.tar")),
                &format!("--iidfile={}", place("iid")),
                &format!("--metadata-file={}", place("metadata.json")),
            ],
        )
        .ok();
    let image = Image::read(&kiln.scratch("layout"));
    assert_eq!(built.stdout.trim(), image.digest);
    assert_eq!(registry.digest("all:1"), image.digest);
    assert_eq!(Image::read(&kiln.scratch("layout.tar")).digest, image.digest);
    assert_eq!(fs::read_to_string(kiln.scratch("iid")).unwrap().trim(), image.digest);
    let metadata = json(&fs::read_to_string(kiln.scratch("metadata.json")).unwrap());
    assert_eq!(metadata["containerimage.digest"], image.digest.as_str());

    // The archive holds the same layers and the same configuration.
    let archive = format!("docker-archive:{}", place("docker.tar"));
    let shown = run(Command::new("skopeo").args(["inspect", "--config", &archive])).ok();
    assert_eq!(json(&shown.stdout)["rootfs"], image.config["rootfs"]);
    assert_eq!(json(&shown.stdout)["config"]["Labels"]["made.by"], "kiln");

    // The root file system, as tar sees it.
    let names = run(Command::new("tar").args(["-tf", &place("root.tar")])).ok().stdout;
    let mut names: Vec<&str> =
        names.lines().map(|name| name.trim_start_matches("./").trim_end_matches('/')).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    let tree = image.tree();
    let mut expected: Vec<&str> = tree.keys().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn a_local_output_is_a_directory() {
    require!(Busybox);
    let kiln = Kiln::new();
    let output = format!("--output=type=local,dest={}", kiln.scratch("tree").display());
    kiln.build(&context(), &[&output]).ok();
    assert_eq!(fs::read_to_string(kiln.scratch("tree/d/a")).unwrap(), "a\n");
    assert!(!kiln.scratch("tree/etc/group").exists());
    assert_eq!(fs::read_link(kiln.scratch("tree/bin/sh")).unwrap().to_str(), Some("busybox"));
}

#[test]
fn skopeo_umoci_and_buildah_read_the_layout() {
    require!(Busybox, Program("buildah"), Root);
    let kiln = Kiln::new();
    let layout = kiln.scratch("layout");
    let output = format!("--output=type=oci,dest={},tar=false", layout.display());
    kiln.build(&context(), &["--tag=example.org/some/app:v1", &output]).ok();
    let reference = format!("oci:{}", layout.display());
    let shown = run(Command::new("skopeo").args(["inspect", &reference])).ok();
    let image = Image::read(&layout);
    assert_eq!(json(&shown.stdout)["Digest"], image.digest.as_str());

    // umoci wants a tag: the last part of the name.
    let tag = json(&fs::read_to_string(layout.join("index.json")).unwrap());
    let tag =
        tag["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    assert_eq!(tag, "v1");
    let bundle = kiln.scratch("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:{tag}", layout.display())])
        .arg(&bundle))
    .ok();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/d/b")).unwrap(), "a\n");
    assert!(!bundle.join("rootfs/etc/group").exists());

    let storage = kiln.scratch("buildah");
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.current_dir(layout.parent().unwrap());
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        run(command.args(["--storage-driver=vfs"]).args(arguments)).ok()
    };
    // buildah makes a name of the path that it is given, and names are lower case.
    let pulled = buildah(&["pull", "-q", &format!("oci:layout:{tag}")]);
    let shown = buildah(&["inspect", "--type=image", pulled.stdout.trim()]);
    assert_eq!(json(&shown.stdout)["OCIv1"]["config"]["Labels"]["made.by"], "kiln");
}

#[test]
fn a_docker_engine_loads_pulls_and_runs_the_image() {
    require!(Busybox, Program("dockerd"), Root);
    let kiln = Kiln::new();
    let registry = Registry::open();
    let engine = Engine::shared();
    let archive = kiln.scratch("docker.tar").display().to_string();
    let reference = registry.image("run/me:1");
    let output = format!("--output=type=docker,dest={archive}");
    let built = kiln.build(&context(), &["--tag", &reference, "--push", &output]).ok();

    let expected = "hello from inside\n6755:2\n";
    let loaded = engine.docker(&["load", "-i", &archive]).ok();
    assert!(loaded.stdout.contains(&reference), "{loaded}");
    assert_eq!(engine.docker(&["run", "--rm", "--network=host", &reference]).ok().stdout, expected);

    engine.docker(&["rmi", "-f", &reference]).ok();
    let by_digest = format!("{}@{}", registry.image("run/me"), built.stdout.trim());
    engine.docker(&["pull", "-q", &by_digest]).ok();
    assert_eq!(engine.docker(&["run", "--rm", "--network=host", &by_digest]).ok().stdout, expected);
    let shown = engine.docker(&["inspect", "--format={{json .Config.Labels}}", &by_digest]).ok();
    assert_eq!(json(&shown.stdout)["made.by"], "kiln");
}

#[test]
fn compression_changes_the_blobs_and_nothing_else() {
    require!(Busybox, Program("zstd"));
    let kiln = Kiln::new();
    let build = |name: &str, options: &str| {
        let layout = kiln.scratch(name);
        let output = format!("--output=type=oci,dest={},tar=false{options}", layout.display());
        kiln.build(&context(), &[EPOCH, &output]).ok();
        Image::read(&layout)
    };
    let gzip = build("gzip", "");
    let zstd = build("zstd", ",compression=zstd,compression-level=3");
    let last = |image: &Image| image.manifest["layers"][1]["mediaType"].as_str().unwrap().to_owned();
    assert_eq!(last(&gzip), "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(last(&zstd), "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(gzip.config["rootfs"], zstd.config["rootfs"]);
    assert_eq!(listing(&gzip.tree()), listing(&zstd.tree()));
    let place = |name: &str| format!("oci:{}", kiln.scratch(name).display());
    run(Command::new("skopeo").args(["copy", "-q", &place("zstd"), &place("copied")])).ok();
}

#[test]
fn what_comes_from_the_base_is_not_uploaded_twice() {
    require!(Busybox);
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "base:1");
    let dockerfile = format!("FROM {}\nRUN echo x > /x\n", registry.image("base:1"));
    let kiln = Kiln::new();
    let context = Context::new(&dockerfile);
    kiln.build(&context, &["--push", "--tag", &registry.image("child:1")]).ok();
    let log = registry.log();
    let uploads = |log: &str| {
        log.lines().filter(|line| line.contains("\"PUT\"") && line.contains("/child/blobs/uploads/")).count()
    };
    assert!(log.contains("mount="), "the base's layer is mounted from its repository");
    assert_eq!(uploads(&log), 2, "one layer and one configuration\n{log}");
    kiln.build(&context, &["--push", "--tag", &registry.image("child:2"), EPOCH]).ok();
}

#[test]
fn annotations_tell_where_the_image_is_from() {
    require!(Busybox);
    let image = Kiln::new().image_with(&context(), &[EPOCH]);
    let annotations = &image.manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.name"], base::busybox());
    assert_eq!(
        annotations["org.opencontainers.image.base.digest"],
        Registry::shared().digest("busybox:latest").as_str()
    );
    assert_eq!(annotations["org.opencontainers.image.created"], "2023-11-14T22:13:20Z");
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
}
