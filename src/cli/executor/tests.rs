//! kaniko's command lines in, invocations out.

use std::fs;

use super::args::SnapshotMode;
use super::results::{Results, Sink};
use super::*;
use crate::build::{ContextSource, DockerfileSource, EpochChoice, Request};
use crate::cli::environment::tests::environment;
use crate::oci::{Digest, ManifestFormat};
use crate::output::{Destination, OutputSpec, PushOptions};
use crate::stream::Compression;

fn parse(words: &[&str]) -> ExecutorArgs {
    ExecutorCli::try_parse_from(["executor"].iter().chain(words)).unwrap().build
}

fn execute(words: &[&str], variables: &[(&str, &str)]) -> Result<Execution, ExecutorError> {
    execution(&parse(words), &environment(variables))
}

fn request(words: &[&str]) -> Request {
    let words: Vec<&str> = words.iter().copied().chain(["--no-push"]).collect();
    execute(&words, &[]).unwrap().invocation.request
}

/// Every flag of kaniko's documentation, as pipelines write them.
#[test]
fn every_flag_is_understood() {
    for flag in [
        "--dockerfile=D",
        "-f=D",
        "--context=/c",
        "-c=/c",
        "--context-sub-path=s",
        "--bucket=",
        "-b=",
        "--git=branch=a",
        "--destination=r.io/a",
        "-d=r.io/a",
        "--build-arg=A=b",
        "--target=t",
        "--custom-platform=linux/amd64",
        "--customPlatform=linux/amd64",
        "--no-push",
        "--no-push=true",
        "--no-push-cache",
        "--tar-path=/t",
        "--tarPath=/t",
        "--oci-layout-path=/o",
        "--digest-file=/d",
        "--image-name-with-digest-file=/n",
        "--image-name-tag-with-digest-file=/n",
        "--label=a=b",
        "--annotation=a=b",
        "--image-format=oci",
        "--compression=zstd",
        "--compression-level=-1",
        "--compressed-caching=false",
        "--reproducible",
        "--single-snapshot",
        "--snapshot-mode=redo",
        "--snapshotMode=time",
        "--use-new-run",
        "--cleanup",
        "--pre-cleanup",
        "--preserve-context",
        "--materialize",
        "--secret=id=a,env=B",
        "--dryrun=false",
        "--credential-helpers=env,ecr",
        "--credential-helpers=",
        "--cache",
        "--cache=true",
        "--cache-repo=r.io/c",
        "--cache-repo=oci:/c",
        "--cache-dir=/cache",
        "--cache-ttl=24h",
        "--cache-copy-layers",
        "--cache-run-layers=false",
        "--ignore-path=/p",
        "--ignore-var-run=false",
        "--whitelist-var-run",
        "--skip-unused-stages",
        "--force-build-metadata",
        "--image-fs-extract-retry=1",
        "--image-download-retry=2",
        "--push-retry=3",
        "--push-ignore-immutable-tag-errors=true",
        "--skip-push-permission-check",
        "--insecure",
        "--insecure-pull",
        "--insecure-registry=h:5000",
        "--skip-tls-verify",
        "--skip-tls-verify-pull",
        "--skip-tls-verify-registry=h",
        "--registry-certificate=h=/p",
        "--registry-client-cert=h=/c,/k",
        "--registry-mirror=m",
        "--registry-map=a=b;c=d",
        "--skip-default-registry-fallback",
        "--kaniko-dir=/k",
        "--force",
        "--verbosity=debug",
        "-v=trace",
        "--verbosity=warning",
        "--log-format=json",
        "--log-timestamp=true",
        "--azure-container-registry-config=/a",
    ] {
        let parsed = ExecutorCli::try_parse_from(["executor", flag]);
        assert!(parsed.is_ok(), "{flag}: {}", parsed.unwrap_err());
    }
    for flag in [
        "-i=a",
        "--image=a",
        "-d=D",
        "--dockerfile=D",
        "--build-arg=a=b",
        "-c=/c",
        "--cache-dir=/c",
        "--cache-ttl=1h",
        "-f",
        "--force",
        "--customPlatform=linux/amd64",
        "--insecure-pull",
        "--skip-tls-verify-pull",
        "--insecure-registry=h",
        "--skip-tls-verify-registry=h",
        "--registry-certificate=h=/p",
        "--registry-client-cert=h=/c,/k",
        "--registry-map=a=b",
        "--registry-mirror=m",
        "--skip-default-registry-fallback",
        "-v=info",
        "--log-format=text",
        "--log-timestamp",
    ] {
        let parsed = WarmerCli::try_parse_from(["warmer", flag]);
        assert!(parsed.is_ok(), "{flag}: {}", parsed.unwrap_err());
    }
}

#[test]
fn booleans_are_gos() {
    assert_eq!(parse(&["--reproducible"]).reproducible, Some(true));
    assert_eq!(parse(&["--reproducible=false"]).reproducible, Some(false));
    assert_eq!(parse(&["--reproducible=F", "--reproducible=1"]).reproducible, Some(true));
    assert!(ExecutorCli::try_parse_from(["executor", "--reproducible=maybe"]).is_err());
    assert_eq!(parse(&["--snapshotMode", "time"]).moot.snapshot_mode, Some(SnapshotMode::Time));
}

/// The build job of GitLab's documentation.
#[test]
fn gitlabs_job_works_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM scratch").unwrap();
    let context = directory.path().to_str().unwrap();
    let dockerfile = format!("{context}/Dockerfile");
    let words =
        ["--context", context, "--dockerfile", &dockerfile, "--destination", "registry.gitlab.com/a/b:1.0"];
    let execution = execute(&words, &[]).unwrap();
    let request = &execution.invocation.request;
    assert_eq!(request.context, ContextSource::Directory(context.into()));
    assert_eq!(request.dockerfile, DockerfileSource::Path(dockerfile.into()));
    assert_eq!(request.names[0].to_string(), "registry.gitlab.com/a/b:1.0");
    let registry = OutputSpec::Registry { names: vec![], options: PushOptions::default() };
    assert_eq!(execution.invocation.outputs, [registry]);
    assert_eq!(execution.results, Results::default());
}

#[test]
fn the_dockerfile_is_looked_for_here_and_then_in_the_context() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Here"), "FROM scratch").unwrap();
    let mut environment = environment(&[]);
    environment.directory = directory.path().to_owned();
    let found = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--no-push"]).collect();
        execution(&parse(&words), &environment).unwrap().invocation.request.dockerfile
    };
    assert_eq!(found(&["-f", "Here", "-c", "/c"]), DockerfileSource::Path(directory.path().join("Here")));
    assert_eq!(found(&["-f", "There", "-c", "/c"]), DockerfileSource::Path("/c/There".into()));
    assert_eq!(found(&["-c", "/c"]), DockerfileSource::Default);
    assert_eq!(found(&["-f", "sub/D", "-c", "git://h/a"]), DockerfileSource::Path("sub/D".into()));
    assert_eq!(found(&["-f", "https://h/D"]), DockerfileSource::Url("https://h/D".into()));
}

#[test]
fn an_image_needs_a_destination_or_none_at_all() {
    assert!(matches!(execute(&[], &[]), Err(ExecutorError::NoDestination)));
    assert!(execute(&["--no-push"], &[]).unwrap().invocation.outputs.is_empty());
    assert!(execute(&[], &[("KANIKO_NO_PUSH", "true")]).unwrap().invocation.outputs.is_empty());
    let words = ["-d", "app", "--tar-path", "a.tar", "--oci-layout-path=/l", "--skip-push-permission-check"];
    let invocation = execute(&words, &[]).unwrap().invocation;
    assert_eq!(invocation.request.names[0].to_string(), "docker.io/library/app:latest");
    let options = PushOptions { check: false, ..PushOptions::default() };
    assert_eq!(
        invocation.outputs,
        [
            OutputSpec::DockerArchive { destination: Destination::File("/work/a.tar".into()), names: vec![] },
            OutputSpec::OciDirectory { path: "/l".into(), names: vec![] },
            OutputSpec::Registry { names: vec![], options },
        ]
    );
}

#[test]
fn the_image_is_shaped_by_kanikos_flags() {
    let plain = request(&[]);
    assert_eq!(plain.compression, Compression::gzip());
    assert_eq!((plain.format, plain.epoch, plain.rewrite_timestamp), (None, EpochChoice::Now, false));
    let shaped = request(&[
        "--compression=zstd",
        "--compression-level=9",
        "--image-format=docker",
        "--reproducible",
        "--single-snapshot",
        "--label=a=b",
        "--annotation=c=d",
        "--ignore-path=/x",
        "--custom-platform=linux/arm/v7",
        "--target=t",
    ]);
    assert_eq!(shaped.compression, Compression::Zstd { level: 9 });
    assert_eq!(shaped.format, Some(ManifestFormat::Docker));
    assert_eq!((shaped.epoch, shaped.rewrite_timestamp), (EpochChoice::Given(0), false));
    assert!(shaped.single_layer);
    assert_eq!((shaped.labels["a"].as_str(), shaped.annotations["c"].as_str()), ("b", "d"));
    assert_eq!(shaped.ignore_paths, [std::path::PathBuf::from("/x")]);
    assert_eq!(shaped.platform.unwrap().to_string(), "linux/arm/v7");
    assert_eq!(shaped.target.as_deref(), Some("t"));
    assert_eq!(request(&["--compression-level=0"]).compression, Compression::gzip());
}

#[test]
fn what_cannot_be_honoured_is_named() {
    for (words, expected) in [
        (&["--cache-ttl=soon"][..], "expected a duration"),
        (&["--cache-repo=UPPER:CASE:x"], "invalid reference"),
        (&["--image-format=flat"], "expected docker or oci"),
        (&["--compression=lzma"], "unknown compression"),
        (&["--credential-helpers=vault"], "expected env, google"),
        (&["--registry-certificate=h=/missing"], "/missing"),
        (&["--annotation=x"], "expected `name=value`"),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--no-push"]).collect();
        let error = execute(&words, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
}

#[test]
fn kanikos_directory_is_kilns_root() {
    let root = |words: &[&str], variables: &[(&str, &str)]| {
        request::root(&parse(words), &environment(variables)).display().to_string()
    };
    assert_eq!(root(&["--kaniko-dir=/k"], &[]), "/k");
    assert_eq!(root(&[], &[("KANIKO_DIR", "/e")]), "/e");
    assert_eq!(root(&["--kaniko-dir=/k"], &[("KILN_ROOT", "/r")]), "/r");
}

#[test]
fn the_digest_files_are_as_kaniko_writes_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(Sink::File(directory.path().join(name)));
    let results = Results {
        digest: path("made/on/the/way/d"),
        name: path("n"),
        name_tag: path("t"),
        builder_output: Some(directory.path().join("out")),
    };
    let names = ["r.io/a:1".parse().unwrap(), "b".parse().unwrap()];
    let digest = Digest::of(b"");
    results.write(&names, true, &digest, None).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read("made/on/the/way/d"), digest.to_string());
    assert_eq!(read("n"), format!("r.io/a@{digest}\nindex.docker.io/library/b@{digest}\n"));
    assert_eq!(read("t"), format!("r.io/a:1@{digest}\nindex.docker.io/library/b:latest@{digest}\n"));
    let images: Vec<serde_json::Value> =
        read("out/images").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(images[1]["name"], "index.docker.io/library/b:latest");
    assert_eq!(images[0]["digest"], digest.as_str());
}

#[test]
fn results_go_to_files_and_to_addresses() {
    let words = ["--no-push", "--digest-file=https://h/d?sig=x", "--image-name-with-digest-file", "n"];
    let results = execute(&words, &[("BUILDER_OUTPUT", "/out")]).unwrap().results;
    assert_eq!(results.digest, Some(Sink::Url("https://h/d?sig=x".into())));
    assert_eq!(results.name, Some(Sink::File("/work/n".into())));
    assert_eq!(results.builder_output, Some("/out".into()));
    assert!(results.need_network());
}

#[test]
fn the_first_of_several_targets_is_the_image() {
    let words = ["--no-push", "--target=a,b", "--target", "c"];
    let execution = execute(&words, &[]).unwrap();
    assert_eq!(execution.invocation.request.target.as_deref(), Some("a"));
    assert_eq!(execution.also, ["b", "c"]);
}

/// The flags in the first column of the tables that tell kaniko's users what becomes of their flags.
fn documented_flags(heading: &str) -> std::collections::BTreeSet<String> {
    let page = include_str!("../../../docs/migrating-from-kaniko.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `-"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let long =
        spans.filter_map(|span| span.split([' ', '=', '[']).next()).filter(|word| word.starts_with("--"));
    long.map(|flag| flag.trim_start_matches('-').to_owned()).collect()
}

/// The document and the parser name the same flags.
#[test]
fn every_flag_is_documented_and_every_documented_flag_is_a_flag() {
    use clap::CommandFactory;
    for (heading, command) in [("Flag by flag", ExecutorCli::command()), ("The warmer", WarmerCli::command())]
    {
        let documented = documented_flags(heading);
        let names = |argument: &clap::Arg| -> Vec<String> {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long().into_iter().chain(aliases).map(str::to_owned).collect()
        };
        let known: Vec<Vec<String>> =
            command.get_arguments().map(names).filter(|names| !names.is_empty()).collect();
        assert!(documented.len() > 15, "{heading}: {documented:?}");
        for flag in &documented {
            assert!(known.iter().any(|names| names.contains(flag)), "{heading}: `--{flag}` is no flag");
        }
        for names in known {
            assert!(
                names.iter().any(|name| documented.contains(name)),
                "{heading}: `{names:?}` is not documented"
            );
        }
    }
}

#[test]
fn durations_are_gos() {
    let seconds = |text| request::parse_duration_seconds("--cache-ttl", text).ok();
    assert_eq!(seconds("336h"), Some(336.0 * 3600.0));
    assert_eq!(seconds("1h30m"), Some(5400.0));
    assert_eq!(seconds("1.5s"), Some(1.5));
    assert_eq!(seconds("-1s"), Some(-1.0));
    assert_eq!(seconds("0"), Some(0.0));
    for text in ["", "5", "h", "1d", "1h30", "1..5s"] {
        assert_eq!(seconds(text), None, "{text}");
    }
}
