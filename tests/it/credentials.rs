//! Every place that credentials may come from, as far as a build with a real registry that asks for them.

use std::fs;
use std::process::Command;

use base64::Engine as _;

use crate::support::distribution::{Options, PASSWORD, USER};
use crate::support::need::Program;
use crate::support::server::fault::{Fault, FaultRegistry};
use crate::support::server::http::Response;
use crate::support::{Context, Kiln, Outcome, Registry, run};

fn locked() -> Registry {
    Registry::start(&Options { password: true, ..Options::default() })
}

/// docker's JSON with one account.
fn auth_file(host: &str, user: &str, password: &str) -> String {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    serde_json::json!({"auths": {host: {"auth": auth}}}).to_string()
}

fn small() -> Context {
    Context::new("FROM scratch\nCOPY x /x\n").file("x", "x")
}

/// Builds and pushes with variables of the environment.
fn push(kiln: &Kiln, name: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let context = small();
    let mut command = kiln.build_command(context.path(), &["--push", "--tag", name]);
    command.args(arguments);
    for (name, value) in variables {
        command.env(name, value);
    }
    run(&mut command)
}

fn variable(host: &str, end: &str) -> String {
    let host: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("KILN_{host}_{end}")
}

#[test]
fn every_source_reaches_the_registry() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = locked();
    let host = registry.address().to_owned();
    let kiln = Kiln::new();
    let at = |name: &str| {
        let path = kiln.scratch(name);
        path.display().to_string()
    };
    let good = auth_file(&host, USER, PASSWORD);
    fs::write(at("auth.json"), &good).unwrap();
    let name = |tag: &str| registry.image(&format!("app:{tag}"));
    push(&kiln, &name("0"), &[], &[]).fails(1, &["not authorized", "kiln login"]);
    push(&kiln, &name("1"), &[], &["--registry-auth", &at("auth.json")]).ok();
    push(&kiln, &name("2"), &[("DOCKER_AUTH_CONFIG", &good)], &[]).ok();
    push(&kiln, &name("3"), &[("REGISTRY_AUTH_FILE", &at("auth.json"))], &[]).ok();
    let (user, password) = (variable(&host, "USER"), variable(&host, "PASSWORD"));
    push(&kiln, &name("4"), &[(&user, USER), (&password, PASSWORD)], &[]).ok();
    let (user, password) = (user.replace("KILN_", "KANIKO_"), password.replace("KILN_", "KANIKO_"));
    push(&kiln, &name("5"), &[(&user, USER), (&password, PASSWORD)], &[]).ok();
    for (server, prefix) in
        [("CI_REGISTRY", "CI_REGISTRY"), ("CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY")]
    {
        let (user, password) = (format!("{prefix}_USER"), format!("{prefix}_PASSWORD"));
        push(&kiln, &name("6"), &[(server, &host), (&user, USER), (&password, PASSWORD)], &[]).ok();
    }
    let runtime = kiln.scratch("run/containers");
    fs::create_dir_all(&runtime).unwrap();
    fs::write(runtime.join("auth.json"), &good).unwrap();
    push(&kiln, &name("7"), &[("XDG_RUNTIME_DIR", &at("run"))], &[]).ok();
    let helper = kiln.scratch("bin/docker-credential-kilntest");
    fs::create_dir_all(helper.parent().unwrap()).unwrap();
    let answer = serde_json::json!({"Username": USER, "Secret": PASSWORD}).to_string();
    fs::write(&helper, format!("#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = serde_json::json!({"credHelpers": {&host: "kilntest"}}).to_string();
    let path = format!("{}:{}", at("bin"), std::env::var("PATH").unwrap());
    push(&kiln, &name("8"), &[("DOCKER_AUTH_CONFIG", &config), ("PATH", &path)], &[]).ok();
    // `kiln login` writes config.json; the variable with other registries does not hide it.
    let mut login = Command::new(Kiln::program());
    login.env("DOCKER_CONFIG", at("docker")).args(["login", "-u", USER, "-p", PASSWORD, &host]);
    run(&mut login).ok();
    let mut login = Command::new(Kiln::program());
    login.env("DOCKER_CONFIG", at("other")).args(["login", "-u", USER, "-p", "wr0ng", &host]);
    let refused = run(&mut login).fails(1, &["not authorized", &host]);
    assert!(!refused.stderr.contains("wr0ng") && !kiln.scratch("other").exists(), "{refused}");
    run(login.arg("--skip-check")).ok();
    let elsewhere = auth_file("elsewhere.example.org", "x", "y");
    let both = [("DOCKER_CONFIG", at("docker")), ("DOCKER_AUTH_CONFIG", elsewhere)];
    let both: Vec<(&str, &str)> = both.iter().map(|(name, value)| (*name, value.as_str())).collect();
    push(&kiln, &name("9"), &both, &[]).ok();
    // The command line goes before all others, and wrong credentials are told with where they are from.
    let bad = auth_file(&host, USER, "wrong");
    push(&kiln, &name("10"), &[("DOCKER_AUTH_CONFIG", &bad)], &["--registry-auth", &at("auth.json")]).ok();
    push(&kiln, &name("11"), &[("DOCKER_AUTH_CONFIG", &bad)], &[])
        .fails(1, &["not authorized", "DOCKER_AUTH_CONFIG"]);
    push(&kiln, &name("12"), &[("REGISTRY_AUTH_FILE", "/not/there")], &[]).fails(1, &["/not/there"]);
}

#[test]
fn several_registries_with_their_own_accounts_get_one_image() {
    require!(Program("docker-registry"), Program("skopeo"));
    let (one, two, open) = (locked(), locked(), Registry::open());
    let kiln = Kiln::new();
    fs::write(kiln.scratch("one.json"), auth_file(one.address(), USER, PASSWORD)).unwrap();
    let two_auth = auth_file(two.address(), USER, PASSWORD);
    let context = small();
    let mut command = kiln.build_command(context.path(), &["--push"]);
    for name in [one.image("a:1"), one.image("a:2"), one.image("b:1"), two.image("a:1"), open.image("a:1")] {
        command.args(["--tag", &name]);
    }
    command.arg("--registry-auth").arg(kiln.scratch("one.json")).env("DOCKER_AUTH_CONFIG", &two_auth);
    let digest = run(&mut command).ok().last_line().to_owned();
    for (registry, name, auth) in [
        (&one, "a:1", true),
        (&one, "a:2", true),
        (&one, "b:1", true),
        (&two, "a:1", true),
        (&open, "a:1", false),
    ] {
        assert_eq!(foreign_digest(registry, name, auth), digest);
    }
    assert!(one.log().contains("mount="), "the second repository of a registry takes blobs from the first");

    // Commands about whole images have the same sources.
    let mut tag = kiln.command("tag");
    tag.args([one.image("a:1"), one.image("a:3")]).arg("--registry-auth").arg(kiln.scratch("one.json"));
    run(&mut tag).ok();
    let mut copy = kiln.command("copy");
    copy.args([one.image("a:3"), two.image("copied:1")]).env("DOCKER_AUTH_CONFIG", &two_auth);
    copy.arg("--registry-auth").arg(kiln.scratch("one.json"));
    run(&mut copy).ok();
    assert_eq!(foreign_digest(&two, "copied:1", true), digest);
    let mut list = Command::new(Kiln::program());
    run(list.args(["ls-tags", &one.image("a")]).env("HOME", "/nowhere")).fails(1, &["not authorized"]);
}

fn foreign_digest(registry: &Registry, name: &str, auth: bool) -> String {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--tls-verify=false", "--format={{.Digest}}"]);
    if auth {
        command.arg(format!("--creds={USER}:{PASSWORD}"));
    }
    run(command.arg(format!("docker://{}", registry.image(name)))).ok().stdout.trim().to_owned()
}

#[test]
fn permission_is_asked_for_before_the_build_unless_told_not_to() {
    require!(Program("docker-registry"));
    let registry = Registry::start(&Options { read_only: true, ..Options::default() });
    let kiln = Kiln::new();
    // The build itself cannot work: whoever asks first does not get to it.
    let broken = Context::new("FROM scratch\nCOPY missing /x\n");
    let name = registry.image("app:1");
    let asked = kiln.build(&broken, &["--push", "--tag", &name]);
    assert!(asked.code == Some(1) && !asked.stderr.contains("missing"), "{asked}");
    kiln.build(&broken, &["--push", "--tag", &name, "--skip-push-permission-check"]).fails(1, &["missing"]);
}

#[test]
fn a_tag_that_may_not_be_moved_is_no_failure_where_told_so() {
    let registry = FaultRegistry::start();
    let kiln = Kiln::new();
    let name = format!("{}/app:1", registry.host());
    let old = Context::new("FROM scratch\nCOPY x /old\n").file("x", "old");
    kiln.build(&old, &["--push", "--tag", &name]).ok();
    let refuse = || {
        let body = r#"{"errors":[{"code":"TAG_INVALID","message":"tag 1 cannot be overwritten"}]}"#;
        registry.plan("PUT", "/manifests/1", 1, Fault::Answer(Response::new(400).body(body)));
    };
    refuse();
    push(&kiln, &name, &[], &[]).fails(1, &["already exists", "--push-ignore-immutable-tag-errors"]);
    refuse();
    let ignored = push(&kiln, &name, &[], &["--push-ignore-immutable-tag-errors"]).ok();
    assert!(ignored.stderr.contains("cannot be moved"), "{ignored}");
    let built = kiln.build(&small(), &["--tag=example.org/stored:1"]).ok();
    refuse();
    let pushed = kiln.run("push", ["--push-ignore-immutable-tag-errors", "example.org/stored:1", &name]).ok();
    assert_eq!(pushed.last_line(), built.last_line());
}

#[test]
fn the_manifests_format_is_the_bases_unless_told() {
    require!(Program("docker-registry"), Program("skopeo"));
    let registry = Registry::open();
    let kiln = Kiln::new();
    let kind = |name: &str| -> String {
        let reference = format!("docker://{}", registry.image(name));
        let shown =
            run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference])).ok();
        let manifest: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        manifest["mediaType"].as_str().unwrap().to_owned()
    };
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let oci = "application/vnd.oci.image.manifest.v1+json";
    push(&kiln, &registry.image("scratch:1"), &[], &[]).ok();
    assert_eq!(kind("scratch:1"), oci);
    push(&kiln, &registry.image("docker:1"), &[], &["--image-format=docker"]).ok();
    assert_eq!(kind("docker:1"), docker);
    let child = Context::new(&format!("FROM {}\nCOPY x /y\n", registry.image("docker:1"))).file("x", "y");
    kiln.build(&child, &["--push", "--tag", &registry.image("child:1")]).ok();
    assert_eq!(kind("child:1"), docker);
    kiln.build(&child, &["--push", "--image-format=oci", "--tag", &registry.image("child:2")]).ok();
    assert_eq!(kind("child:2"), oci);
    push(&kiln, &registry.image("x:1"), &[], &["--image-format=tar"]).fails(2, &["expected oci or docker"]);
}
