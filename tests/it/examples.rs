//! The pipelines and manifests in `examples/`, run: each job's script in kiln's debug image as a GitLab runner runs it,
//! each pod's arguments in kiln's image as a cluster starts it, against real registries. An example that is not in the
//! tables here fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::distribution::{Options, PASSWORD, ROBOT, USER};
use crate::support::emulators::Emulator;
use crate::support::need::{Debian, Program, PythonModule, Root};
use crate::support::own_image::{OwnImage, Pod, busybox};
use crate::support::{Context, Outcome, Registry, run};

macro_rules! require_containers {
    () => {
        require!(Debian, Root, Program("runc"), Program("python3"), Program("strip"), PythonModule("yaml"))
    };
}

/// What a runner or a cluster would start, from the files of a folder.
fn jobs(folder: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("examples").join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let reader = root.join("tests/support/examples.py");
    let read = run(Command::new("python3").arg(reader).arg("jobs").args(&files)).ok();
    serde_json::from_str(&read.stdout).unwrap()
}

fn text<'a>(job: &'a Value, key: &str) -> &'a str {
    job[key].as_str().unwrap()
}

fn pairs(value: &Value) -> Vec<(&str, &str)> {
    value.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn project() -> Context {
    Context::new(&format!(
        "FROM {0} AS build\nARG VERSION=none\nARG COMMIT=none\nRUN echo \"$VERSION $COMMIT\" > /made\n\
         FROM build AS test\nRUN grep . /made\n\
         FROM {0}\nCOPY --from=build /made /made\n",
        busybox()
    ))
}

/// The tags that an example's job leaves behind, below the project's image.
fn expected_tags(file: &str, name: &str) -> &'static [(&'static str, &'static [&'static str])] {
    match (file, name) {
        (".gitlab-ci.yml", "machine") | ("kaniko.gitlab-ci.yml", "test a merge request") => &[],
        (".gitlab-ci.yml", "merge request") => &[("/merge-requests", &["0123abcd"])],
        (".gitlab-ci.yml", "default branch") => &[("", &["0123abcd", "latest"])],
        (".gitlab-ci.yml", "release") | ("kaniko.gitlab-ci.yml", "build") => &[("", &["1.0"])],
        ("kaniko.gitlab-ci.yml", "build with a cache") => &[("", &["latest"])],
        ("kaniko.gitlab-ci.yml", "build from a bucket") => &[("", &["nightly"])],
        ("harbor.gitlab-ci.yml", "image to harbor") => &[("", &["0123abcd"])],
        other => panic!("an example that is not in the table: {other:?}"),
    }
}

/// The variables of the pipeline that a job's rules ask for; the others are not set, and scripts run with `set -u`.
fn variables_of_pipeline(job: &Value) -> Vec<(&'static str, &'static str)> {
    let mut variables = vec![
        ("CI_COMMIT_SHA", "0123abcd0123abcd0123abcd0123abcd0123abcd"),
        ("CI_COMMIT_SHORT_SHA", "0123abcd"),
        ("CI_DEFAULT_BRANCH", "main"),
    ];
    let conditions: Vec<&str> =
        job["conditions"].as_array().unwrap().iter().map(|condition| condition.as_str().unwrap()).collect();
    variables.extend(match conditions[..] {
        [] | ["$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"] => {
            &[("CI_COMMIT_BRANCH", "main"), ("CI_PIPELINE_SOURCE", "push")]
        }
        ["$CI_COMMIT_TAG"] => &[("CI_COMMIT_TAG", "1.0"), ("CI_PIPELINE_SOURCE", "push")],
        ["$CI_PIPELINE_SOURCE == \"merge_request_event\""] => {
            &[("CI_MERGE_REQUEST_IID", "7"), ("CI_PIPELINE_SOURCE", "merge_request_event")]
        }
        ["$CI_PIPELINE_SOURCE == \"schedule\""] => {
            &[("CI_COMMIT_BRANCH", "main"), ("CI_PIPELINE_SOURCE", "schedule")]
        }
        _ => panic!("unknown rules: {job}"),
    });
    variables
}

/// The tags of a repository, asked for with the account.
fn tags(registry: &Registry, repository: &str) -> Vec<String> {
    let config = registry.docker_config(USER, PASSWORD);
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("list-tags").arg(match registry.is_tls() {
        true => format!("--cert-dir={}", registry.authority_directory().display()),
        false => "--tls-verify=false".to_owned(),
    });
    skopeo.arg(format!("--authfile={}/config.json", config.path().display()));
    let listed = run(skopeo.arg(format!("docker://{}", registry.image(repository))));
    let Ok(value) = serde_json::from_str::<Value>(&listed.stdout) else { return Vec::new() };
    let mut tags: Vec<String> =
        value["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
    tags.sort();
    tags
}

/// Runs a job in a default Docker container with what GitLab puts into its environment.
fn run_job(job: &Value, registry: &Registry, project: &Context, more: &[(&str, &str)]) -> Outcome {
    let image = registry.image("team/app");
    let known = [
        ("CI_REGISTRY", registry.address()),
        ("CI_REGISTRY_IMAGE", &image),
        ("CI_REGISTRY_USER", USER),
        ("CI_REGISTRY_PASSWORD", PASSWORD),
        ("CI_PROJECT_PATH", "team/app"),
    ];
    let own = pairs(&job["variables"]);
    let variables = [&known[..], &variables_of_pipeline(job), &own, more].concat();
    OwnImage::shared().job("A", project.path(), &variables, &format!("set -u\n{}", text(job, "script")))
}

fn check_job(job: &Value, registry: &Registry, project: &Context, outcome: Outcome) {
    let place = format!("{}: {}", text(job, "file"), text(job, "name"));
    assert_eq!(outcome.code, Some(0), "{place}\n{outcome}");
    for artifact in job["artifacts"].as_array().unwrap() {
        assert!(project.at(artifact.as_str().unwrap()).is_file(), "{place}: {artifact}");
    }
    for (repository, expected) in expected_tags(text(job, "file"), text(job, "name")) {
        assert_eq!(tags(registry, &format!("team/app{repository}")), *expected, "{place}");
    }
}

#[test]
fn gitlabs_jobs_run() {
    require_containers!();
    let mut ran = BTreeSet::new();
    for job in jobs("gitlab") {
        // Each with a registry of its own, so that tags cannot be another job's.
        let registry = Registry::start(&Options { password: true, ..Options::default() });
        let project = project();
        match (text(&job, "file"), text(&job, "name")) {
            ("harbor.gitlab-ci.yml", _) | (_, "build from a bucket") => continue,
            (_, name) => ran.insert(name.to_owned()),
        };
        let outcome = run_job(&job, &registry, &project, &[]);
        check_job(&job, &registry, &project, outcome);
        if text(&job, "script").contains("/cache") && !text(&job, "name").contains("merge") {
            assert!(!tags(&registry, "team/app/cache").is_empty(), "{job}");
            let again = run_job(&job, &registry, &project, &[]).ok();
            let log = again.stdout + &again.stderr;
            assert!(log.contains("CACHED") || log.contains("Using caching version"), "{log}");
        }
    }
    assert!(ran.len() >= 7, "{ran:?}");
}

/// A Harbor: a robot's account, whose name has a dollar sign in it, and an authority of its own.
#[test]
fn the_job_for_harbor_runs() {
    require_containers!();
    let registry = Registry::start(&Options { password: true, tls: true, ..Options::default() });
    let project = project().file("ca.pem", fs::read(registry.authority()).unwrap());
    let job = jobs("gitlab").into_iter().find(|job| text(job, "file") == "harbor.gitlab-ci.yml").unwrap();
    let harbor = [
        ("HARBOR_HOST", registry.address()),
        ("HARBOR_ROBOT", ROBOT),
        ("HARBOR_TOKEN", PASSWORD),
        ("HARBOR_CA", "/builds/project/ca.pem"),
        // The job's own account is not this registry's.
        ("CI_REGISTRY_PASSWORD", "another"),
    ];
    let outcome = run_job(&job, &registry, &project, &harbor);
    check_job(&job, &registry, &project, outcome);
}

/// An archive of a project, in an S3.
fn bucket(project: &Context) -> Emulator {
    let archive = tempfile::tempdir().unwrap();
    let file = archive.path().join("context.tar.gz");
    run(Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(project.path()).arg(".")).ok();
    Emulator::s3(&file)
}

#[test]
fn the_job_with_a_bucket_runs() {
    require_containers!();
    require!(PythonModule("ensurepip"), Program("npm"));
    let registry = Registry::start(&Options { password: true, ..Options::default() });
    let project = project();
    let s3 = bucket(&project);
    let job = jobs("gitlab").into_iter().find(|job| text(job, "name") == "build from a bucket").unwrap();
    let variables = [
        ("S3_ENDPOINT", s3.text("/endpoint")),
        ("AWS_ACCESS_KEY_ID", s3.text("/reader/id")),
        ("AWS_SECRET_ACCESS_KEY", s3.text("/reader/secret")),
    ];
    let outcome = run_job(&job, &registry, &project, &variables);
    check_job(&job, &registry, &project, outcome);
}

/// A directory that anybody may write to: the container's root may be nobody out here.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

#[test]
fn the_pods_run() {
    require_containers!();
    require!(PythonModule("ensurepip"), Program("npm"));
    let project = project();
    fs::set_permissions(project.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let s3 = bucket(&project);
    for job in jobs("kubernetes") {
        let registry = Registry::start(&Options { password: true, ..Options::default() });
        let config = registry.docker_config(USER, PASSWORD);
        let config = fs::read_to_string(config.path().join("config.json")).unwrap();
        let secret = |key: &str| match key {
            ".dockerconfigjson" => config.as_str(),
            "id" => s3.text("/reader/id"),
            "key" => s3.text("/reader/secret"),
            other => panic!("unknown key of a secret: {other}"),
        };
        let (store, results) = (open_directory(), open_directory());
        let mut volumes: Vec<(PathBuf, String)> = pairs(&job["mounts"])
            .into_iter()
            .map(|(place, kind)| {
                let directory = match kind {
                    "configMap" => project.path(),
                    "emptyDir" => store.path(),
                    other => panic!("unknown volume: {other}"),
                };
                (directory.to_owned(), place.to_owned())
            })
            .collect();
        volumes.push((project.path().to_owned(), "/workspace/source".to_owned()));
        volumes.push((results.path().to_owned(), "/tekton/results".to_owned()));
        // What a cluster would put in place of the names in the manifest.
        let filled = |word: &str| {
            let mut word = word.replace("registry.example.org", registry.address());
            for (name, value) in job["parameters"].as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| registry.image("team/app:latest"), str::to_owned);
                word = word.replace(name, &value);
            }
            word.replace("$(workspaces.source.path)", "/workspace/source")
                .replace("$(results.IMAGE_DIGEST.path)", "/tekton/results/IMAGE_DIGEST")
        };
        let words = job["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        // An array's place holds no word by default.
        let arguments: Vec<String> = words.filter(|word| !word.ends_with("[*])")).map(filled).collect();
        assert!(!arguments.iter().any(|word| word.contains("$(")), "{arguments:?}");
        let directory = match text(&job, "directory") {
            "" => "/".to_owned(),
            other => filled(other),
        };
        let kind = match (&job["user_namespace"], &job["capabilities"]) {
            (Value::Bool(true), capabilities) if capabilities == &serde_json::json!(["SYS_ADMIN"]) => "Hs",
            (Value::Bool(false), capabilities) if capabilities == &serde_json::json!([]) => "B",
            other => panic!("a pod of a kind that is not tried: {other:?}"),
        };
        let mut variables = pairs(&job["env"]);
        variables.extend(pairs(&job["secrets"]).into_iter().map(|(name, key)| (name, secret(key))));
        variables.push(("S3_ENDPOINT", s3.text("/endpoint")));
        let pod =
            Pod { volumes: &volumes, variables: &variables, directory: &directory, arguments: &arguments };
        let outcome = OwnImage::shared().pod(kind, &pod);
        assert_eq!(outcome.code, Some(0), "{}\n{outcome}", text(&job, "file"));
        assert_eq!(tags(&registry, "team/app"), ["latest"], "{}", text(&job, "file"));
        if text(&job, "file") == "tekton-task.yaml" {
            let digest = fs::read_to_string(results.path().join("IMAGE_DIGEST")).unwrap();
            assert!(digest.starts_with("sha256:"), "{digest}");
        }
    }
}
