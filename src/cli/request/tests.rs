//! Command lines in, requests out.

use std::fs;

use clap::Parser;

use super::*;
use crate::build::{ContextSource, DockerfileSource, NamedContext, SecretSource, SshSource};
use crate::cli::args::{Cli, Command};
use crate::cli::environment::tests::environment;
use crate::oci::ManifestFormat;
use crate::output::{Destination, PushOptions};
use crate::registry::Sides;

fn args(words: &[&str]) -> BuildArgs {
    let words = ["kiln", "build"].iter().chain(words);
    match Cli::try_parse_from(words).unwrap().command {
        Command::Build(args) => *args,
        other => panic!("expected build, found {other:?}"),
    }
}

fn invoke(words: &[&str], environment: &Environment) -> Result<Invocation, RequestError> {
    invocation(&args(words), environment, None, &mut &b"FROM scratch"[..])
}

fn request(words: &[&str]) -> Request {
    invoke(words, &environment(&[("SET", "from environment")])).unwrap().request
}

fn failure(words: &[&str]) -> String {
    invoke(words, &environment(&[])).unwrap_err().to_string()
}

#[test]
fn a_bare_build_keeps_the_image_in_the_store() {
    let invocation = invoke(&[], &environment(&[])).unwrap();
    assert_eq!(invocation.outputs, [OutputSpec::Store { names: vec![] }]);
    assert_eq!(invocation.request.dockerfile, DockerfileSource::Default);
    assert_eq!(invocation.request.context, ContextSource::Directory("/work/.".into()));
    assert_eq!(invocation.request.jobs.get(), 4);
    assert!(invocation.request.annotations.is_empty());
}

#[test]
fn dockers_command_line_is_understood() {
    let request = request(&[
        "-t",
        "r.io/a:1",
        "--tag=r.io/b:2",
        "-f",
        "sub/Dockerfile",
        "--build-arg",
        "A=1=2",
        "--build-arg",
        "SET",
        "--build-arg",
        "UNSET",
        "--build-arg",
        "EMPTY=",
        "--target",
        "final",
        "--label",
        "x=y",
        "--label",
        "bare",
        "--platform",
        "linux/arm64",
        "--pull",
        "--no-cache",
        "--network=none",
        "--add-host",
        "db:10.0.0.1",
        "--shm-size",
        "64m",
        "--ulimit",
        "nofile=1024:2048",
        "--allow",
        "network.host,security.insecure",
        "--jobs",
        "3",
        "ctx",
    ]);
    let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["r.io/a:1", "r.io/b:2"]);
    assert_eq!(request.dockerfile, DockerfileSource::Path("/work/sub/Dockerfile".into()));
    assert_eq!(request.context, ContextSource::Directory("/work/ctx".into()));
    let args: Vec<_> = request.build_args.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(args, [("A", "1=2"), ("EMPTY", ""), ("SET", "from environment")]);
    assert_eq!(request.target.as_deref(), Some("final"));
    assert_eq!(request.labels["x"], "y");
    assert_eq!(request.labels["bare"], "");
    assert_eq!(request.platform.unwrap().to_string(), "linux/arm64");
    assert!(request.pull && request.no_cache);
    assert_eq!(request.network, NetworkMode::None);
    assert_eq!(request.add_hosts, [("db".to_owned(), "10.0.0.1".to_owned())]);
    assert_eq!(request.shm_size_bytes, Some(64 << 20));
    assert_eq!(request.ulimits[0].soft, Some(1024));
    assert_eq!(request.allow.len(), 2);
    assert_eq!(request.jobs.get(), 3);
}

#[test]
fn contexts_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ctx.tar"), "").unwrap();
    fs::create_dir(directory.path().join("github.com")).unwrap();
    let mut environment = environment(&[]);
    environment.directory = directory.path().to_owned();
    let source = |text: &str| context_source(text, &environment);
    assert_eq!(source("-"), ContextSource::Stdin);
    assert_eq!(source("ctx.tar"), ContextSource::TarFile(directory.path().join("ctx.tar")));
    assert_eq!(source("missing"), ContextSource::Directory(directory.path().join("missing")));
    for text in [
        "https://h/a.git",
        "https://h/a/.git?subdir=sub&ref=feature",
        "http://h/a.git#main:sub",
        "git://h/a",
        "ssh://git@h/a",
        "git@github.com:a/b.git",
        "github.com/a/b",
    ] {
        assert_eq!(source(text), ContextSource::Git(text.to_owned()));
    }
    assert_eq!(source("https://h/ctx.tar.gz"), ContextSource::Url("https://h/ctx.tar.gz".into()));
}

#[test]
fn dockerfiles_come_from_stdin_urls_and_remote_contexts() {
    assert_eq!(request(&["-f", "-"]).dockerfile, DockerfileSource::Bytes(b"FROM scratch".to_vec()));
    assert_eq!(request(&["-f", "http://h/D"]).dockerfile, DockerfileSource::Url("http://h/D".into()));
    assert_eq!(request(&["-f", "d/D", "https://h/x.git"]).dockerfile, DockerfileSource::Path("d/D".into()));
    assert_eq!(
        failure(&["-f", "-", "-"]),
        "standard input cannot be both the build context and the Dockerfile"
    );
}

#[test]
fn named_contexts_have_schemes() {
    let contexts = request(&[
        "--build-context",
        "a=docker-image://alpine:3",
        "--build-context",
        "b=oci-layout://l@sha256:0",
        "--build-context",
        "c=/dir",
        "--build-context",
        "d=https://h/x.git#main",
    ])
    .named_contexts;
    assert_eq!(contexts["a"], NamedContext::Image("alpine:3".into()));
    assert_eq!(contexts["b"], NamedContext::Layout("/work/l@sha256:0".into()));
    assert_eq!(contexts["c"], NamedContext::Files(ContextSource::Directory("/dir".into())));
    assert_eq!(contexts["d"], NamedContext::Files(ContextSource::Git("https://h/x.git#main".into())));
    assert!(failure(&["--build-context", "x"]).contains("expected `name=value`"));
}

#[test]
fn secrets_come_from_files_and_variables() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), "t").unwrap();
    let mut environment = environment(&[("TOKEN", "v"), ("named", "n")]);
    environment.directory = directory.path().to_owned();
    let words = [
        "--secret",
        "id=a,src=token",
        "--secret",
        "id=b,env=TOKEN",
        "--secret",
        "id=named",
        "--secret",
        "id=u,env=NO",
    ];
    let invocation = invoke(&words, &environment).unwrap();
    let secrets = &invocation.request.secrets;
    assert_eq!(secrets["a"], SecretSource::File(directory.path().join("token")));
    assert_eq!(secrets["b"], SecretSource::Value(b"v".to_vec()));
    assert_eq!(secrets["named"], SecretSource::Value(b"n".to_vec()));
    assert!(!secrets.contains_key("u"));
    assert_eq!(invocation.warnings, ["secret `u` is left out: the environment variable `NO` is not set"]);
    let error = invoke(&["--secret", "id=a,src=missing"], &environment).unwrap_err();
    assert!(matches!(error, RequestError::File { option: "--secret", .. }));
}

#[test]
fn ssh_takes_the_agent_of_the_environment() {
    let with_agent = environment(&[("SSH_AUTH_SOCK", "/run/agent")]);
    let ssh = invoke(&["--ssh", "default"], &with_agent).unwrap().request.ssh;
    assert_eq!(ssh["default"], SshSource::Agent("/run/agent".into()));
    assert!(failure(&["--ssh", "default"]).contains("SSH_AUTH_SOCK"));
}

#[test]
fn push_needs_a_name_and_goes_with_other_outputs() {
    assert_eq!(failure(&["--push"]), "nothing to push to: the image has no name");
    let registry = || OutputSpec::Registry { names: vec![], options: PushOptions::default() };
    let outputs = |words: &[&str]| invoke(words, &environment(&[])).unwrap().outputs;
    assert_eq!(outputs(&["--push", "-t", "r.io/a"]), [registry()]);
    assert_eq!(outputs(&["--push", "-t", "r.io/a", "-o", "type=image"]), [registry()]);
    assert_eq!(outputs(&["--push", "-t", "r.io/a", "-o", "type=registry"]), [registry()]);
    let both = outputs(&["--push", "-t", "r.io/a", "-o", "type=oci,dest=x.tar"]);
    assert_eq!(both.len(), 2);
    let path = Destination::File("/work/x.tar".into());
    assert_eq!(both[0], OutputSpec::OciArchive { destination: path, names: vec![] });
    assert_eq!(both[1], registry());
    assert_eq!(outputs(&["-o", "type=cacheonly"]), []);
}

#[test]
fn names_without_a_tag_get_the_commit_and_annotations() {
    let commit = Commit {
        id: "0123456789abcdef0123456789abcdef01234567".into(),
        source: Some("https://h/a".into()),
        ..Commit::default()
    };
    let words = ["-t", "r.io/a", "-t", "r.io/a:1", "-o", "type=registry,name=r.io/b", "--annotation", "k=v"];
    let result = invocation(&args(&words), &environment(&[]), Some(&commit), &mut std::io::empty()).unwrap();
    let names: Vec<String> = result.request.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["r.io/a:01234567", "r.io/a:1"]);
    let OutputSpec::Registry { names, .. } = &result.outputs[0] else { panic!("expected a registry") };
    assert_eq!(names[0].to_string(), "r.io/b:01234567");
    let annotations = &result.request.annotations;
    assert_eq!(annotations[annotation::REVISION], commit.id);
    assert_eq!(annotations[annotation::SOURCE], "https://h/a");
    assert_eq!(annotations["k"], "v");
}

#[test]
fn the_users_annotations_win() {
    let commit = Commit { id: "abc".into(), ..Commit::default() };
    let words = ["--annotation", "manifest:org.opencontainers.image.revision=mine"];
    let result = invocation(&args(&words), &environment(&[]), Some(&commit), &mut std::io::empty()).unwrap();
    assert_eq!(result.request.annotations[annotation::REVISION], "mine");
    assert!(failure(&["--annotation", "index:a=b"]).contains("on the manifest only"));
}

#[test]
fn epochs_come_from_options_outputs_and_the_environment() {
    let of = |words: &[&str], variables: &[(&str, &str)]| {
        let request = invoke(words, &environment(variables)).unwrap().request;
        (request.epoch, request.build_args.get("SOURCE_DATE_EPOCH").cloned().unwrap_or("unset".to_owned()))
    };
    let given = |seconds: i64, argument: &str| (EpochChoice::Given(seconds), argument.to_owned());
    let none = |otherwise| (EpochChoice::Commit { local: None, otherwise }, "unset".to_owned());
    let variable = [("SOURCE_DATE_EPOCH", "7")];
    let argument = "--build-arg=SOURCE_DATE_EPOCH=9";
    assert_eq!(of(&[], &[]), none(None));
    assert_eq!(of(&["--reproducible"], &[]), none(Some(0)));
    assert_eq!(of(&[], &variable), given(7, "7"));
    assert_eq!(of(&[argument], &variable), given(7, "9"));
    assert_eq!(of(&["--reproducible"], &variable), given(7, "7"));
    assert_eq!(of(&["--timestamp", "5", argument], &variable), given(5, "5"));
    assert_eq!(of(&["-o", "type=oci,dest=x,source-date-epoch=6", argument], &variable), given(6, "6"));
    assert_eq!(of(&["--timestamp", "now", argument], &variable), (EpochChoice::Now, String::new()));
    assert!(request(&["-o", "type=oci,dest=x,rewrite-timestamp=true"]).rewrite_timestamp);
    let error = invoke(&[], &environment(&[("SOURCE_DATE_EPOCH", "soon")])).unwrap_err();
    assert!(matches!(error, RequestError::Epoch { .. }));
}

#[test]
fn image_options_of_outputs_reach_the_request() {
    let request =
        request(&["-o", "type=oci,dest=x,compression=zstd,compression-level=9,oci-mediatypes=false"]);
    assert_eq!(request.compression, Compression::Zstd { level: 9 });
    assert_eq!(request.format, Some(ManifestFormat::Docker));
    assert!(failure(&["-o", "type=oci,dest=x,force-compression=true"]).contains("force-compression"));
    let words = ["-o", "type=oci,dest=x,compression=zstd", "-o", "type=docker,dest=y,compression=gzip"];
    assert_eq!(failure(&words), "the outputs ask for different images: `compression` differs");
}

#[test]
fn standard_output_takes_one_archive_and_no_terminal() {
    let mut environment = environment(&[]);
    assert!(matches!(invoke(&["-o", "-", "-o", "type=oci"], &environment), Err(RequestError::StdoutTwice)));
    assert!(invoke(&["-o", "-"], &environment).is_ok());
    environment.stdout_is_terminal = true;
    assert!(matches!(invoke(&["-o", "-"], &environment), Err(RequestError::StdoutTerminal)));
}

#[test]
fn wrong_values_are_named() {
    for (words, expected) in [
        (&["--network", "bridge"][..], "expected default, host or none"),
        (&["--platform", "linux/amd64,linux/arm64"], "names several platforms"),
        (&["--platform", "linux"], ""),
        (&["--allow", "device"], "kiln knows no other entitlement"),
        (&["--jobs", "0"], "expected a number from 1"),
        (&["--isolation", "vm"], "vm"),
        (&["-t", "r.io/UPPER"], "must be lowercase"),
        (&["--shm-size", "0"], "expected more than 0"),
        (&["--registry-ca", "/missing"], "cannot read `/missing` for `--registry-ca`"),
    ] {
        match invoke(words, &environment(&[])) {
            Ok(_) => assert!(expected.is_empty(), "{words:?}"),
            Err(error) => assert!(error.to_string().contains(expected), "{words:?}: {error}"),
        }
    }
}

#[test]
fn registries_have_hosts_mirrors_and_authorities() {
    let directory = tempfile::tempdir().unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    fs::write(directory.path().join("ca.pem"), pem).unwrap();
    fs::write(directory.path().join("not.pem"), "x").unwrap();
    let docker = directory.path().join("docker");
    fs::create_dir(&docker).unwrap();
    fs::write(docker.join("config.json"), r#"{"auths":{}}"#).unwrap();
    let mut environment = environment(&[
        ("DOCKER_CONFIG", docker.to_str().unwrap()),
        ("DOCKER_AUTH_CONFIG", "{}"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("CI_REGISTRY_USER", "u"),
        ("UNRELATED", "x"),
    ]);
    environment.directory = directory.path().to_owned();
    let words = [
        "--insecure-registry",
        "plain:5000",
        "--registry-ca",
        "harbor.corp=ca.pem",
        "--registry-ca",
        "ca.pem",
        "--registry-cert",
        "harbor.corp=ca.pem,ca.pem",
        "--registry-mirror",
        "mirror.corp,second.corp/hub/",
        "--registry-mirror",
        "quay.io=q.corp",
        "--registry-map=ghcr.io=harbor.corp/ghcr;gcr.io=g.corp",
        "--skip-default-registry-fallback",
        "--skip-tls-verify-registry=odd.io=push",
    ];
    let config = invoke(&words, &environment).unwrap().registry;
    assert_eq!(config.host("plain:5000").waived.insecure, Sides::BOTH);
    assert_eq!(config.host("odd.io").waived.skip_tls_verify, Sides::PUSH);
    assert_eq!(config.host("other").waived, crate::registry::Waivers::default());
    assert_eq!(config.host("harbor.corp").authorities.len(), 1);
    assert!(config.host("harbor.corp").client_certificate.is_some());
    assert!(config.extra_authorities.iter().any(|authority| authority == pem.as_bytes()));
    assert_eq!(config.mirrors.rules[0].prefix, "docker.io");
    assert_eq!(config.mirrors.rules[0].locations[1].location, "second.corp/hub");
    assert_eq!(config.mirrors.rules[1].prefix, "quay.io");
    assert_eq!(config.mirrors.rules[2].locations[0].location, "harbor.corp/ghcr");
    assert!(config.mirrors.no_fallback);
    assert!(invoke(&["--skip-tls-verify-registry=odd.io=sometimes"], &environment).is_err());
    let origins: Vec<_> = config.credentials.files.iter().map(|file| file.origin.as_str()).collect();
    assert_eq!(origins[0], "DOCKER_AUTH_CONFIG");
    assert!(origins[1].ends_with("docker/config.json"));
    assert!(config.credentials.environment.contains_key("CI_REGISTRY_USER"));
    assert!(!config.credentials.environment.contains_key("UNRELATED"));
    assert!(config.proxies.https.is_some());
    assert!(invoke(&["--registry-ca", "not.pem"], &environment).is_err());
}

#[test]
fn unknown_flags_are_usage_errors() {
    let error = Cli::try_parse_from(["kiln", "build", "--cgroup-parent=x"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--cgroup-parent"));
}
