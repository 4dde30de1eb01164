//! `--explain`: which input of a step changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::need::Busybox;
use crate::support::{Context, Kiln, Registry, base, run};

const LINES: &str = "ARG WORD=1\nENV MODE=fast\nCOPY src /src\nRUN echo $WORD $MODE\n";

fn context(lines: &str) -> Context {
    Context::on_busybox(lines).file("src/a", "one").file("src/b", "b")
}

#[test]
fn each_step_that_runs_is_explained_by_what_changed() {
    require!(Busybox);
    let kiln = Kiln::new();
    let new = kiln.build(&context(LINES), &["--explain"]).ok();
    assert!(new.stderr.contains("not cached: no cache has seen this step before"), "{new}");
    let again = kiln.build(&context(LINES), &["--explain"]).ok();
    assert!(!again.stderr.contains("not cached"), "{again}");
    let file = kiln.build(&context(LINES).file("src/a", "two!").file("src/c", ""), &["--explain"]).ok();
    for text in [
        "not cached: src/a: other content, 4 bytes instead of 3",
        " src/c: new",
        "not cached: [stage-0 2/3] runs before it",
    ] {
        assert!(file.stderr.contains(text), "{text}\n{file}");
    }
    let kept = kiln.build(&context(LINES), &["--no-cache", "--explain"]).ok();
    assert!(kept.stderr.contains("not cached: `--no-cache` was given"), "{kept}");
}

#[test]
fn the_metadata_file_has_the_reasons_and_values_of_arguments_are_kept_back() {
    require!(Busybox);
    let kiln = Kiln::new();
    kiln.build(&context(LINES), &["--build-arg=WORD=hush-1"]).ok();
    let path = kiln.scratch("metadata.json");
    let argument = format!("--metadata-file={}", path.display());
    let lines = LINES.replace("fast", "slow");
    let built = kiln.build(&context(&lines), &["--build-arg=WORD=hush-2", &argument]).ok();
    assert!(!built.stderr.contains("not cached"), "{built}");
    let metadata: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let steps = metadata["kiln.steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{metadata:#}");
    assert_eq!(
        (&steps[0]["cached"], &steps[0]["instruction"]),
        (&"the local cache".into(), &"COPY src /src".into())
    );
    assert_eq!(steps[1]["cached"], Value::Null);
    let reasons = ["the build argument WORD changed", "the variable MODE changed: `slow` was `fast`"];
    assert_eq!(steps[1]["reasons"], Value::from(reasons.to_vec()), "{metadata:#}");
    assert!(!metadata["kiln.steps"].to_string().contains("hush-"), "{metadata:#}");
}

const PROJECT: &str = "FROM BASE AS build\nARG VERSION=1\nENV MODE=fast\nCOPY src /src\nRUN cat /src/* > /out; echo $VERSION\n\
                       RUN --mount=type=secret,id=key,required=false echo quiet > /quiet\n\
                       FROM BASE\nCOPY --from=build /out /out\nRUN <<EOF\necho one\nEOF\n";

fn project() -> Context {
    Context::new(&PROJECT.replace("BASE", base::busybox()))
        .file("src/a", "one")
        .file("src/b", "b")
        .file(".dockerignore", "")
}

/// What somebody does to a project, and what the build says of it.
struct Change(&'static str, fn(&Path), &'static [&'static str], &'static [&'static str]);

fn write(at: &Path, name: &str, text: &str) {
    fs::write(at.join(name), text).unwrap();
}

fn edit(at: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(at.join("Dockerfile")).unwrap();
    assert!(text.contains(old), "{old}");
    write(at, "Dockerfile", &text.replacen(old, new, 1));
}

const CHANGES: &[Change] = &[
    Change(
        "a file",
        |at| write(at, "src/a", "two!"),
        &[],
        &[
            "src/a: other content, 4 bytes instead of 3",
            "[build 2/4] runs before it",
            "stage `build`, which it reads",
        ],
    ),
    Change(
        "a mode",
        |at| fs::set_permissions(at.join("src/b"), fs::Permissions::from_mode(0o755)).unwrap(),
        &[],
        &["src/b: mode 0755 instead of 0644"],
    ),
    Change(
        "a name",
        |at| fs::rename(at.join("src/b"), at.join("src/c")).unwrap(),
        &[],
        &["src/c: was src/b"],
    ),
    Change("an ignored file", |at| write(at, ".dockerignore", "src/b\n"), &[], &["src/b: gone"]),
    Change("a build argument", |_| {}, &["--build-arg=VERSION=2"], &["the build argument VERSION changed"]),
    Change(
        "a variable",
        |at| edit(at, "MODE=fast", "MODE=slow"),
        &[],
        &["the variable MODE changed: `slow` was `fast`"],
    ),
    Change("a secret's id", |at| edit(at, "id=key", "id=other"), &[], &["id=other", "` was `RUN --mount"]),
    Change("a heredoc", |at| edit(at, "echo one", "echo two"), &[], &["echo two` was `/bin/sh -c echo one"]),
    Change(
        "a step in between",
        |at| edit(at, "RUN cat", "RUN true\nRUN cat"),
        &[],
        &["the step is new: in its place was `RUN cat", "[build 3/5] runs before it"],
    ),
    Change(
        "the base",
        |at| edit(at, "busybox:latest", "busybox:other"),
        &[],
        &["the base image changed: it is `"],
    ),
    Change("the platform", |_| {}, &["--platform=linux/386"], &["for linux/386 now"]),
    Change("the epoch", |_| {}, &["--timestamp=5"], &["the source epoch changed: `5` was `none`"]),
];

#[test]
fn realistic_changes_are_named() {
    require!(Busybox);
    let first = Kiln::new();
    // The same files as another image.
    let other = Context::on_busybox("RUN touch /other\n");
    let registry = Registry::shared();
    first.build(&other, &["--push", &format!("--tag={}", registry.image("busybox:other"))]).ok();
    first.build(&project(), &["--tag=example.test/app:1"]).ok();
    for Change(name, change, arguments, says) in CHANGES {
        let kiln = Kiln::new();
        run(Command::new("cp").arg("-a").arg(first.store()).arg(kiln.store())).ok();
        let context = project();
        change(context.path());
        let arguments = [&["--tag=example.test/app:1", "--explain"], *arguments].concat();
        let built = kiln.build(&context, &arguments).ok();
        for text in *says {
            assert!(built.stderr.contains(text), "{name}: expected `{text}`\n{built}");
        }
        assert!(!built.stderr.contains("no cache has seen"), "{name}\n{built}");
    }
}
