//! `kiln build --verify`: steps that give something else each time are found, named and explained; nothing goes out.

use serde_json::Value;

use super::reproducible::on_directory_storage;
use crate::support::need::{Busybox, Root};
use crate::support::{Context, Kiln, Registry};

#[test]
fn an_image_that_comes_out_the_same_is_pushed() {
    require!(Busybox);
    let registry = Registry::open();
    let kiln = Kiln::new();
    let context = Context::on_busybox("RUN echo x > /x\nCOPY f /f\n").file("f", "f");
    let metadata = kiln.scratch("metadata.json");
    let file = format!("--metadata-file={}", metadata.display());
    let name = registry.image("app:1");
    let built = kiln.build(&context, &["--verify", "--push", "--tag", &name, &file]).ok();
    assert_eq!(registry.tags("app"), ["1"]);
    assert!(built.stderr.contains("verified: both builds gave sha256:"), "{built}");
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["kiln.verify"]["reproducible"], true);
    assert_eq!(metadata["containerimage.digest"], built.stdout.trim());
    // Without a time of any kind it is 0, so that there is something to compare.
    assert!(kiln.build(&context, &["--verify", "--timestamp=0"]).ok().stdout == built.stdout);
}

#[test]
fn the_step_the_path_and_the_cause_are_named() {
    require!(Busybox);
    let registry = Registry::open();
    let cases = [
        ("date > /stamp", "layer 3 of 4, /stamp: content differs from byte", "the time of the build"),
        ("cat /proc/sys/kernel/random/uuid > /etc/machine-id", "/etc/machine-id", "a machine id"),
        ("cat /proc/sys/kernel/random/uuid > /id", "/id: content differs from byte", "a UUID"),
        ("mktemp /tmp/tmp.XXXXXX", "only the first build made it", "a temporary file"),
        ("head -c 64 /dev/urandom > /key", "/key: content differs from byte", "random bytes"),
    ];
    // Most of the time is waiting for another second.
    std::thread::scope(|scope| {
        for (step, at, cause) in cases {
            let registry = &registry;
            scope.spawn(move || is_refused(registry, step, at, cause));
        }
    });
    assert!(registry.tags("refused").is_empty());
}

fn is_refused(registry: &Registry, step: &str, at: &str, cause: &str) {
    let lines = format!("RUN echo same > /same\nRUN {step}\nRUN date > /later\n");
    let kiln = Kiln::new();
    let metadata = kiln.scratch("metadata.json");
    let file = format!("--metadata-file={}", metadata.display());
    let name = registry.image("refused:1");
    let built = kiln.build(&Context::on_busybox(&lines), &["--verify", "--push", "--tag", &name, &file]);
    assert_eq!((built.code, built.stdout.as_str()), (Some(1), ""), "{built}");
    let text = &built.stderr;
    assert!(text.contains("two builds of the same input gave different images"), "{built}");
    assert!(text.contains(at) && text.contains(cause), "{built}");
    assert!(text.contains(&format!("3 | >>> RUN {step}")), "the Dockerfile's line is shown: {built}");
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["kiln.verify"]["reproducible"], false);
    assert_eq!(metadata["kiln.verify"]["line"], 3, "{metadata:#}");
    assert_eq!(kiln.run("images", ["--quiet"]).ok().stdout, "", "nothing is tagged");
}

#[test]
fn the_second_build_takes_other_storage_and_other_threads() {
    require!(Busybox, Root);
    let context = Context::on_busybox("RUN echo x > /x\n");
    let built = Kiln::new().build(&context, &["--verify"]).ok();
    assert!(built.stderr.contains("no cache, directory storage, "), "{built}");
    on_directory_storage(&Kiln::new(), &context, &["--verify"]).ok();
}

#[test]
fn a_context_on_standard_input_is_read_once() {
    require!(Busybox);
    let mut archive = tar::Builder::new(Vec::new());
    let dockerfile = Context::on_busybox("COPY Dockerfile /d\n");
    archive.append_path_with_name(dockerfile.at("Dockerfile"), "Dockerfile").unwrap();
    let path = dockerfile.at("context.tar");
    std::fs::write(&path, archive.into_inner().unwrap()).unwrap();
    let kiln = Kiln::new();
    let mut command = kiln.command("build");
    command.args(["--progress=plain", "--verify", "-"]).stdin(std::fs::File::open(&path).unwrap());
    let built = command.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success() && said.contains("verified: "), "{said}");
}

#[test]
fn the_time_of_day_cannot_be_verified() {
    let built = Kiln::new().build(&Context::new("FROM scratch\nENV A=1\n"), &["--verify", "--timestamp=now"]);
    assert_eq!(built.code, Some(2), "{built}");
    assert!(built.stderr.contains("--timestamp now"), "{built}");
}

#[test]
fn a_second_build_that_fails_is_a_failure() {
    require!(Busybox);
    // The second build has cache mounts of its own: what an earlier one left there is missing.
    let kiln = Kiln::new();
    let step = |script: &str| Context::on_busybox(&format!("RUN --mount=type=cache,target=/c {script}\n"));
    kiln.build(&step("echo left > /c/left"), &[]).ok();
    let built = kiln.build(&step("cat /c/left > /x"), &["--verify", "--tag=app:1"]);
    assert_eq!((built.code, built.stdout.as_str()), (Some(1), ""), "{built}");
    assert!(built.stderr.contains("the second build, which `--verify` asks for, failed"), "{built}");
    assert!(!kiln.run("images", ["--quiet", "app"]).ok().stdout.contains("sha256"));
}
