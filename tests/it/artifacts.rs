//! Artifacts: files in registries that are not images, read by skopeo and by curl.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::need::Program;
use crate::support::server::fault::{Fault, FaultRegistry};
use crate::support::server::http::Response;
use crate::support::{Context, Kiln, Registry, run};

const TYPE: &str = "application/vnd.example.sbom";

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A command line that runs where the files are.
fn artifact(kiln: &Kiln, files: &Context, arguments: &[&str]) -> crate::support::Outcome {
    let mut command = kiln.command(&format!("artifact {}", arguments[0]));
    run(command.current_dir(files.path()).args(&arguments[1..]))
}

fn list(subject: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(Kiln::program());
    let listed = run(command.args(["artifact", "ls", "--format=json"]).args(arguments).arg(subject)).ok();
    parse(&listed.stdout)
}

/// The digest behind a tag, by curl: skopeo inspects images only.
fn digest(registry: &Registry, repository: &str, tag: &str) -> String {
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.address());
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let head = run(Command::new("curl").args(["-sfI", "-H", accept, &url])).ok().stdout;
    let line = head.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: ")).unwrap();
    line.trim().to_owned()
}

#[test]
fn files_go_there_and_come_back() {
    require!(Program("docker-registry"), Program("skopeo"), Program("curl"));
    let registry = Registry::open();
    let kiln = Kiln::new();
    let files = Context::empty()
        .file("a.json", "{\"a\": 1}")
        .file("sub/b.txt", "bytes")
        .file("tree/x/y", "in a directory")
        .symlink("tree/link", "x/y");
    let name = registry.image("files:1");
    let pushed = artifact(
        &kiln,
        &files,
        &[
            "push",
            "--artifact-type",
            TYPE,
            "--annotation=org.example=whole",
            "--annotation=a.json:org.example=one",
            &name,
            "a.json:application/json",
            "sub/b.txt",
            "tree",
        ],
    )
    .ok();
    assert_eq!(pushed.stdout.trim(), digest(&registry, "files", "1"));

    // As oras would have it; curl sees what is there.
    let url = format!("http://{}/v2/files/manifests/1", registry.address());
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let manifest = parse(&run(Command::new("curl").args(["-sf", "-H", accept, &url])).ok().stdout);
    assert_eq!(manifest["artifactType"], TYPE);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(manifest["annotations"]["org.example"], "whole");
    let titles: Vec<&str> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["annotations"]["org.opencontainers.image.title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["a.json", "sub/b.txt", "tree"]);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/json");
    assert_eq!(manifest["layers"][0]["annotations"]["org.example"], "one");
    assert_eq!(manifest["layers"][2]["annotations"]["io.deis.oras.content.unpack"], "true");
    let copied = kiln.scratch("skopeo");
    run(Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}")])
        .arg(format!("dir:{}", copied.display())))
    .ok();

    let out = kiln.scratch("out");
    let into = format!("--output={}", out.display());
    let pulled = artifact(&kiln, &files, &["pull", "--format=json", &into, &name]).ok();
    assert_eq!(parse(&pulled.stdout)["artifactType"], TYPE);
    assert_eq!(fs::read_to_string(out.join("a.json")).unwrap(), "{\"a\": 1}");
    assert_eq!(fs::read_to_string(out.join("sub/b.txt")).unwrap(), "bytes");
    assert_eq!(fs::read_to_string(out.join("tree/link")).unwrap(), "in a directory");
    artifact(&kiln, &files, &["pull", "--keep-old-files", &into, &name])
        .fails(1, &["a.json", "--keep-old-files"]);
    artifact(&kiln, &files, &["pull", &into, &name]).ok();
    // The same files make the same artifact.
    let again = artifact(&kiln, &files, &["push", &registry.image("files"), "tree"]).ok();
    let third = artifact(&kiln, &files, &["push", &registry.image("files"), "tree"]).ok();
    assert_eq!(again.stdout, third.stdout);
    artifact(&kiln, &files, &["push", &name, "none"]).fails(1, &["none"]);
    artifact(&kiln, &files, &["push", "--artifact-type=x", &name, "a.json"]).fails(2, &["media type"]);
    // It is copied as any image is.
    kiln.run("copy", [&name, &registry.image("elsewhere:1")]).ok();
    assert_eq!(digest(&registry, "elsewhere", "1"), pushed.stdout.trim());
}

#[test]
fn an_image_knows_its_artifacts_without_the_api() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY x /x\n").file("x", "x");
    let image = registry.image("app:1");
    let digest = kiln.build(&context, &["--push", "--tag", &image]).ok().last_line().to_owned();
    let files = Context::empty().file("sbom.json", "{}");
    for (kind, subject) in [(TYPE, "1"), ("application/vnd.example.other", digest.as_str()), (TYPE, "1")] {
        let arguments =
            ["push", "--artifact-type", kind, "--subject", subject, &registry.image("app"), "sbom.json"];
        artifact(&kiln, &files, &arguments).ok();
    }
    assert_eq!(list(&image, &[]).as_array().unwrap().len(), 2);
    let found = list(&image, &["--artifact-type", TYPE]);
    assert_eq!(found[0]["artifactType"], TYPE);
    // The list is where the specification's tag schema puts it, and skopeo's copies can take it along.
    assert!(registry.tags("app").contains(&digest.replace(':', "-")), "{:?}", registry.tags("app"));
    let by_digest = format!("{}@{}", registry.image("app"), found[0]["digest"].as_str().unwrap());
    let into = format!("--output={}", kiln.scratch("out").display());
    artifact(&kiln, &files, &["pull", &into, &by_digest]).ok();
    artifact(&kiln, &files, &["push", "--subject", "other/app:1", &registry.image("app:s"), "sbom.json"])
        .fails(1, &["another repository"]);
    artifact(&kiln, &files, &["push", "--subject", "none", &registry.image("app:s"), "sbom.json"])
        .fails(1, &["not found"]);
}

#[test]
fn a_registry_with_the_api_is_asked() {
    let registry = FaultRegistry::start();
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY x /x\n").file("x", "x");
    let image = format!("{}/app:1", registry.host());
    let digest = kiln.build(&context, &["--push", "--tag", &image]).ok().last_line().to_owned();
    let noted = Response::new(201).header("oci-subject", digest.clone());
    registry.plan("PUT", "/manifests/", 1, Fault::Answer(noted));
    let files = Context::empty().file("sbom.json", "{}");
    let name = format!("{}/app:sbom", registry.host());
    let before = registry.count("PUT", "/manifests/");
    artifact(&kiln, &files, &["push", "--artifact-type", TYPE, "--subject=1", &name, "sbom.json"]).ok();
    assert_eq!(registry.count("PUT", "/manifests/"), before + 1, "no list of its own beside the registry's");
    let entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2,
        "artifactType": TYPE,
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry],
    });
    let answer = Response::new(200)
        .header("content-type", "application/vnd.oci.image.index.v1+json")
        .body(index.to_string());
    registry.plan("GET", "/referrers/", 1, Fault::Answer(answer));
    assert_eq!(list(&image, &[])[0]["artifactType"], TYPE);
    assert_eq!(registry.count("GET", &format!("/referrers/{digest}")), 1);
}

#[test]
fn a_hostile_title_writes_nothing_elsewhere() {
    let registry = FaultRegistry::start();
    let kiln = Kiln::new();
    let empty = registry.put_blob("bad", b"{}");
    let bytes = registry.put_blob("bad", b"evil");
    let files = Context::empty();
    for (tag, title) in ["../evil", "/tmp/kiln-evil", "a/../../evil", ""].iter().enumerate() {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": TYPE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": bytes, "size": 4,
                "annotations": {"org.opencontainers.image.title": title}}],
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        registry.put_manifest("bad", &format!("t{tag}"), kind, manifest.to_string().as_bytes());
        let into = format!("--output={}", kiln.scratch("out/deep").display());
        let name = format!("{}/bad:t{tag}", registry.host());
        artifact(&kiln, &files, &["pull", &into, &name]).fails(1, &["relative path"]);
    }
    assert!(!kiln.scratch("out/evil").exists() && !kiln.scratch("evil").exists());
    assert_eq!(fs::read_dir(kiln.scratch("out/deep")).unwrap().count(), 0);
}
