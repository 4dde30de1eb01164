//! Stores that are filled in advance, and builds without a network.

use serde_json::Value;

use crate::support::need::Busybox;
use crate::support::server::fault::FaultRegistry;
use crate::support::{Context, Kiln, Registry, base};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// An index with this machine's busybox and an image for another.
fn publish(registry: &Registry) -> String {
    registry.push(&base::layout("busybox"), "latest", "parts:amd64");
    let other = Context::new("FROM scratch\nCOPY file /file\n").file("file", "other");
    let kiln = Kiln::new();
    let part = registry.image("parts:s390x");
    kiln.build(&other, &[EPOCH, "--platform=linux/s390x", "--push", "--tag", &part]).ok();
    let name = registry.image("base:1");
    kiln.run("index create", ["--push", "-t", &name, &registry.image("parts:amd64"), &part]).ok();
    name
}

#[test]
fn a_warm_store_builds_the_same_image_without_its_registry() {
    require!(Busybox);
    let registry = Registry::open();
    let name = publish(&registry);
    registry.push(&base::layout("busybox"), "latest", "tools:1");
    let tools = registry.image("tools:1");
    let context = Context::new(&format!(
        "ARG BASE={name}\nFROM ${{BASE}} AS build\nRUN echo built > /built\nFROM {name}\nCOPY --from=build /built /built\n\
         COPY --from={tools} /bin/busybox /tool\nCOPY file /file\n"
    ))
    .file("file", "x");
    let online = Kiln::new().build(&context, &[EPOCH]).ok();

    let kiln = Kiln::new();
    // Everything that is missing is told at once, with what brings it.
    let refused = kiln.build(&context, &["--offline", EPOCH]).fails(1, &["this build is offline and lacks"]);
    let command = format!("kiln warm --platform linux/amd64 {name} {tools}");
    assert!(refused.stderr.contains(&command), "{refused}");
    let dockerfile = context.at("Dockerfile").display().to_string();
    let warmed = kiln.run("warm", ["--format=json", "-f", &dockerfile]).ok();
    let warmed: Value = serde_json::from_str(&warmed.stdout).unwrap();
    assert_eq!(warmed[0]["digest"], registry.digest("base:1").as_str(), "the index, not the image");
    assert_eq!(warmed.as_array().unwrap().len(), 2);
    drop(registry);
    let offline = kiln.build(&context, &["--offline", EPOCH]).ok();
    assert_eq!(offline.last_line(), online.last_line(), "the same image with and without a network");
    // A name with a digest is the digest's.
    let pinned = Context::new(&format!("FROM {name}@{}\n", warmed[0]["digest"].as_str().unwrap()));
    kiln.build(&pinned, &["--offline", EPOCH]).ok();
    // What was not asked for is not here.
    kiln.build(&context, &["--offline", "--platform=linux/s390x"])
        .fails(1, &["for linux/s390x", "kiln warm"]);
    kiln.run("push", [name.as_str(), "127.0.0.1:1/x:1"]).fails(1, &["not complete", "linux/s390x"]);
}

#[test]
fn a_store_is_warmed_for_several_platforms() {
    require!(Busybox);
    let registry = Registry::open();
    let name = publish(&registry);
    let kiln = Kiln::new();
    let warmed = kiln.run("warm", ["--platform=linux/amd64,linux/s390x", &name]).ok();
    assert_eq!(warmed.stdout.trim(), registry.digest("base:1"));
    kiln.run("warm", ["--platform=linux/ppc64le", &name]).fails(1, &["linux/ppc64le", "linux/s390x"]);
    let all = Kiln::new();
    all.run("warm", ["--all-platforms", &name]).ok();
    drop(registry);
    let context = Context::new(&format!("FROM {name}\nCOPY file /added\n")).file("file", "x");
    for kiln in [&kiln, &all] {
        let platform = |platform: &str| {
            let built = kiln.build(&context, &["--offline", EPOCH, &format!("--platform={platform}")]).ok();
            built.last_line().to_owned()
        };
        assert_ne!(platform("linux/amd64"), platform("linux/s390x"));
    }
}

#[test]
fn nothing_is_asked_for_without_a_network() {
    let registry = FaultRegistry::start();
    let host = registry.host();
    let kiln = Kiln::new();
    let context = Context::new(&format!(
        "# check=error=true\nFROM {host}/a:1 AS one\nADD http://{host}/file /file\nFROM scratch\n\
         COPY --from={host}/b:1 / /\nRUN --mount=type=bind,from={host}/c:1,target=/c true\nCOPY --from=one / /\n"
    ));
    kiln.build(&context, &["--offline"]).fails(
        1,
        &[
            &format!("image `{host}/a:1`"),
            &format!("`http://{host}/file` (line 3)"),
            &format!("image `{host}/b:1` for linux/amd64 (line 5)"),
            &format!("image `{host}/c:1`"),
            "Dockerfile:2",
        ],
    );
    let expanded = Context::new("FROM scratch\nARG WHERE\nADD ${WHERE} /file\n");
    let file = format!("--build-arg=WHERE=http://{host}/file");
    kiln.build(&expanded, &["--offline", &file]).fails(1, &["cannot be fetched"]);
    let remote = |context: &str| {
        let mut command = kiln.command("build");
        crate::support::run(command.args(["--offline", context]))
    };
    remote(&format!("http://{host}/context.tar")).fails(1, &["cannot be fetched"]);
    remote(&format!("http://{host}/repo.git")).fails(1, &["cannot be fetched"]);
    let lone = Context::new("FROM scratch\nCOPY Dockerfile /d\n");
    let named = format!("--build-context=other=http://{host}/context.tar");
    let other = Context::new("FROM scratch\nCOPY --from=other / /\n");
    kiln.build(&other, &["--offline", &named]).fails(1, &["cannot be fetched"]);
    kiln.build(&lone, &["--offline", "--push", "--tag", &format!("{host}/x:1")])
        .fails(2, &["`--offline` opens no connection", "kiln push"]);
    kiln.build(&lone, &["--offline", "--pull"]).fails(2, &["--pull"]);
    kiln.build(&lone, &["--offline", "--tag", &format!("{host}/x:1")]).ok();
    assert_eq!(registry.requests(), [""; 0], "not a single request");
}
