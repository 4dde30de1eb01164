//! Images are tagged with the git commit that they were built from.

use std::process::Command;

use crate::support::need::{Busybox, Program};
use crate::support::{Context, Kiln, Registry, run};

/// A context that is a git work tree with one commit; the commit's id.
fn repository() -> (Context, String) {
    let context = Context::on_busybox("COPY note /\n").file("note", "n\n");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(context.path()).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        run(command.args(["-c", "commit.gpgsign=false"]).args(arguments)).ok().stdout
    };
    git(&["init", "-q"]);
    git(&["remote", "add", "origin", "https://token:secret@git.example.org/group/app.git"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    let commit = git(&["rev-parse", "HEAD"]).trim().to_owned();
    (context, commit)
}

#[test]
fn a_name_without_a_tag_gets_the_commit() {
    require!(Busybox, Program("git"));
    let (context, commit) = repository();
    let registry = Registry::open();
    let kiln = Kiln::new();
    let name = registry.image("app");
    kiln.build(&context, &["--push", "--tag", &name]).ok();
    assert_eq!(registry.tags("app"), [&commit[..8]]);
    let layout = kiln.scratch("pulled");
    registry.pull(&format!("app:{}", &commit[..8]), &layout);
    let annotations = crate::support::Image::read(&layout).manifest["annotations"].clone();
    assert_eq!(annotations["org.opencontainers.image.revision"], commit.as_str());
    let source = annotations["org.opencontainers.image.source"].as_str().unwrap();
    assert!(source.contains("git.example.org/group/app"), "{source}");
    assert!(!source.contains("secret"), "no password in an annotation: {source}");

    // Changes that are not in the commit are said.
    std::fs::write(context.at("note"), "changed\n").unwrap();
    kiln.build(&context, &["--push", "--tag", &registry.image("changed")]).ok();
    assert_eq!(registry.tags("changed"), [format!("{}-dirty", &commit[..8])]);

    // An explicit tag stays as given.
    kiln.build(&context, &["--push", "--tag", &registry.image("named:v1")]).ok();
    assert_eq!(registry.tags("named"), ["v1"]);
}

#[test]
fn a_ci_job_and_a_plain_directory() {
    require!(Busybox);
    let registry = Registry::open();
    let context = Context::on_busybox("RUN true\n");
    let kiln = Kiln::new();
    let mut command = kiln.build_command(context.path(), &["--push", "--tag", &registry.image("ci")]);
    command
        .env("CI_COMMIT_SHA", "0123456789abcdef0123456789abcdef01234567")
        .env("CI_COMMIT_SHORT_SHA", "01234567");
    run(&mut command).ok();
    assert_eq!(registry.tags("ci"), ["01234567"]);
    kiln.build(&context, &["--push", "--tag", &registry.image("plain")]).ok();
    assert_eq!(registry.tags("plain"), ["latest"]);
}

/// A repository whose commit has a time of its own, and files that are newer.
fn dated_repository() -> Context {
    let (context, _) = repository();
    let mut command = Command::new("git");
    command.arg("-C").arg(context.path()).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
    command.args(["-c", "commit.gpgsign=false", "commit", "-q", "--amend", "--no-edit"]);
    run(command.env("GIT_COMMITTER_DATE", "1600000000 +0000")).ok();
    context
}

#[test]
fn the_images_time_is_the_commits() {
    require!(Busybox, Program("git"));
    let context = dated_repository();
    let kiln = Kiln::new();
    let image = kiln.image(&context);
    assert_eq!(image.config["created"], "2020-09-13T12:26:40Z");
    assert_eq!(image.tree()["note"].mtime, 1_600_000_000);
    let said = kiln.build(&context, &[]).ok();
    assert_eq!(said.stderr.matches("source epoch: 2020-09-13T12:26:40Z").count(), 1, "{said}");

    // Changes that are not committed have no time of their own.
    std::fs::write(context.at("note"), "changed\n").unwrap();
    assert_eq!(Kiln::new().image(&context).config["created"], "2020-09-13T12:26:40Z");

    let now = kiln.image_with(&context, &["--timestamp=now"]);
    assert!(now.config["created"].as_str().unwrap() > "2026", "{}", now.config["created"]);
    assert!(now.tree()["note"].mtime > 1_700_000_000);
    assert_eq!(kiln.image_with(&context, &["--timestamp=0"]).config["created"], "1970-01-01T00:00:00Z");
}

#[test]
fn a_step_sees_the_epoch_that_is_given() {
    require!(Busybox);
    let context = Context::on_busybox("ARG SOURCE_DATE_EPOCH=7\nRUN echo $SOURCE_DATE_EPOCH > /seen\n");
    let kiln = Kiln::new();
    assert_eq!(kiln.image_with(&context, &["--timestamp=1600000000"]).text("seen"), "1600000000\n");
    assert_eq!(kiln.image(&context).text("seen"), "7\n");
}
