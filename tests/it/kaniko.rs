//! The pipelines that kaniko's users have, with only the image's name changed: scripts as GitLab's and kaniko's
//! documents give them, in kiln's own debug image, in a container as Docker starts them by default; and kiln's
//! images under a real Docker engine.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::distribution::{Options, PASSWORD, USER};
use crate::support::engine::Engine;
use crate::support::need::{Debian, Program, Root};
use crate::support::own_image::{OwnImage, Pod, busybox};
use crate::support::{Context, Image, Registry, run};

/// A small project with a step that changes files which the job's container has, too.
fn project() -> Context {
    Context::new(&format!(
        "FROM {} AS build\nARG VERSION\nRUN echo \"built $VERSION\" > /made && rm -rf /home && id -u > /who\n\
         FROM {}\nCOPY --from=build /made /who /out/\nCOPY note /out/\n",
        busybox(),
        busybox()
    ))
    .file("note", "n\n")
}

macro_rules! require_containers {
    () => {
        require!(Debian, Root, Program("runc"), Program("python3"), Program("strip"))
    };
}

/// A server of git repositories and of files, for the time of a test.
pub(super) struct GitServer {
    child: Child,
    pub(super) port: String,
}

impl GitServer {
    /// Serves the bare repository `repo.git` below a directory, and the files that are there.
    pub(super) fn start(directory: &Path) -> Self {
        use std::io::BufRead as _;
        use std::os::unix::fs::PermissionsExt as _;
        let script = directory.join("cgi-bin/git");
        fs::create_dir(directory.join("cgi-bin")).unwrap();
        fs::write(&script, "#!/bin/sh\nexec git -c safe.directory='*' http-backend\n").unwrap();
        for path in [directory, &script] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--cgi", "--bind", "127.0.0.1", "0"])
            .current_dir(directory)
            .envs([("GIT_PROJECT_ROOT", directory.as_os_str()), ("GIT_HTTP_EXPORT_ALL", "1".as_ref())])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split_whitespace().skip_while(|word| *word != "port").nth(1).unwrap().to_owned();
        Self { child, port }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The image brings its own git: kaniko has one built in.
#[test]
fn a_context_comes_out_of_git_in_kilns_own_image() {
    require_containers!();
    require!(Program("git"));
    // Where the server's unprivileged user may look.
    let directory = tempfile::tempdir().unwrap();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(directory.path()).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        run(command.args(words)).ok()
    };
    git(&["init", "--quiet", "--initial-branch=main", "work"]);
    fs::write(directory.path().join("work/Dockerfile"), "FROM scratch\nCOPY note /\n").unwrap();
    fs::write(directory.path().join("work/note"), "of the repository\n").unwrap();
    git(&["-C", "work", "add", "--all"]);
    git(&["-C", "work", "commit", "--quiet", "--message=one"]);
    git(&["clone", "--quiet", "--bare", "work", "repo.git"]);
    let server = GitServer::start(directory.path());
    let registry = Registry::open();
    let context = format!("http://127.0.0.1:{}/cgi-bin/git/repo.git#main", server.port);
    let arguments =
        ["build".to_owned(), "--push".to_owned(), format!("--tag={}", registry.image("app:1")), context];
    let pod = Pod { volumes: &[], variables: &[], directory: "/", arguments: &arguments };
    OwnImage::shared().pod("A", &pod).ok();
    assert!(registry.tags("app").contains(&"1".to_owned()));
}

/// Writes credentials as GitLab's documentation did for years.
const LOGIN: &str = r#"
mkdir -p /kaniko/.docker
echo "{\"auths\":{\"${CI_REGISTRY}\":{\"auth\":\"$(printf "%s:%s" "${CI_REGISTRY_USER}" "${CI_REGISTRY_PASSWORD}" | base64 | tr -d '\n')\"}}}" > /kaniko/.docker/config.json
"#;

/// What a job of GitLab has in its environment.
fn variables(registry: &Registry) -> Vec<(String, String)> {
    let pairs = [
        ("CI_REGISTRY", registry.address().to_owned()),
        ("CI_REGISTRY_IMAGE", registry.image("team/app")),
        ("CI_REGISTRY_USER", USER.to_owned()),
        ("CI_REGISTRY_PASSWORD", PASSWORD.to_owned()),
        ("CI_COMMIT_TAG", "1.0".to_owned()),
        ("CI_COMMIT_SHORT_SHA", "0123abcd".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn job(
    kind: &str,
    project: &Context,
    variables: &[(String, String)],
    script: &str,
) -> crate::support::Outcome {
    let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    OwnImage::shared().job(kind, project.path(), &variables, script)
}

/// What a registry with an account has under a name.
fn pulled(registry: &Registry, name: &str) -> String {
    let config = registry.docker_config(USER, PASSWORD);
    let mut skopeo = std::process::Command::new("skopeo");
    skopeo.args(["inspect", "--format={{.Digest}}"]).arg(match registry.is_tls() {
        true => format!("--cert-dir={}", registry.authority_directory().display()),
        false => "--tls-verify=false".to_owned(),
    });
    skopeo.arg(format!("--authfile={}/config.json", config.path().display()));
    let shown = crate::support::run(skopeo.arg(format!("docker://{}", registry.image(name)))).ok();
    shown.stdout.trim().to_owned()
}

#[test]
fn the_images_have_nothing_but_kilns_directory_at_the_top() {
    require_containers!();
    let own = OwnImage::shared();
    for (target, expected) in [("kiln", &["kaniko", "kiln"][..]), ("debug", &["busybox", "kaniko", "kiln"])] {
        let image = Image::read(&own.layout(target));
        let tree = image.tree();
        let top: Vec<&str> = tree.keys().map(String::as_str).filter(|path| !path.contains('/')).collect();
        assert_eq!(top, expected, "{target}");
        assert_eq!((tree["kaniko"].kind, tree["kaniko"].link.as_str()), ('l', "kiln"));
        assert_eq!((tree["kiln/kiln"].kind, tree["kiln/kiln"].mode, tree["kiln/kiln"].uid), ('f', 0o755, 0));
        for name in ["kiln/executor", "kiln/warmer"] {
            assert_eq!(tree[name].link, "kiln", "{target}: {name}");
        }
        assert_eq!(tree["kiln/.docker"].kind, 'd');
        assert!(image.text("kiln/ssl/certs/ca-certificates.crt").matches("BEGIN CERTIFICATE").count() > 100);
        assert_eq!(image.text("kiln/own-image"), "");
        let settings = image.settings();
        assert_eq!(settings["Entrypoint"], serde_json::json!(["/kiln/kiln"]));
        let variables: Vec<&str> =
            settings["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        assert!(variables.contains(&"DOCKER_CONFIG=/kiln/.docker"), "{variables:?}");
        let path = variables.iter().find(|variable| variable.starts_with("PATH=")).unwrap();
        assert_eq!(path.contains("/busybox"), target == "debug", "{path}");
    }
    let tree = Image::read(&own.layout("debug")).tree();
    assert_eq!((tree["busybox/sh"].kind, tree["busybox/sh"].link.as_str()), ('l', "busybox"));
}

/// The build job of GitLab's documentation, and a second line that reads what it left.
#[test]
fn gitlabs_build_job_runs_as_it_is() {
    require_containers!();
    let registry = Registry::start(&Options { password: true, ..Options::default() });
    let project = project();
    let script = format!(
        r#"{LOGIN}
/kaniko/executor
  --context "${{CI_PROJECT_DIR}}" \
  --dockerfile "${{CI_PROJECT_DIR}}/Dockerfile" \
  --build-arg "VERSION=${{CI_COMMIT_TAG}}" \
  --digest-file "${{CI_PROJECT_DIR}}/out/digest" \
  --image-name-with-digest-file "${{CI_PROJECT_DIR}}/out/name" \
  --image-name-tag-with-digest-file "${{CI_PROJECT_DIR}}/out/tag" \
  --destination "${{CI_REGISTRY_IMAGE}}:${{CI_COMMIT_TAG}}" \
  --destination "${{CI_REGISTRY_IMAGE}}:latest"
test ! -e /made
test ! -e /out
cat /kaniko/.docker/config.json > /dev/null
ls / > out/top
"#
    )
    .replace("/kaniko/executor\n", "/kaniko/executor \\\n");
    for kind in ["A", "C", "B"] {
        let outcome = job(kind, &project, &variables(&registry), &script).ok();
        assert!(outcome.stderr.contains("INFO"), "kaniko's log\n{outcome}");
        let read = |name: &str| fs::read_to_string(project.at("out").join(name)).unwrap();
        let digest = pulled(&registry, "team/app:1.0");
        assert_eq!(pulled(&registry, "team/app:latest"), digest);
        assert_eq!(read("digest"), digest, "kind {kind}");
        let name = registry.image("team/app");
        assert_eq!(read("name"), format!("{name}@{digest}\n{name}@{digest}\n"));
        assert_eq!(read("tag"), format!("{name}:1.0@{digest}\n{name}:latest@{digest}\n"));
        for place in ["bin", "home", "var", "made"] {
            assert!(!read("top").lines().any(|line| line == place), "kind {kind}: /{place} is left over");
        }
        fs::remove_dir_all(project.at("out")).unwrap();
    }
}

/// GitLab's jobs have an account of their own for GitLab's registry; no login is written.
#[test]
fn a_gitlab_job_needs_no_login() {
    require_containers!();
    let registry = Registry::start(&Options { password: true, ..Options::default() });
    let script =
        "/kaniko/executor --context $CI_PROJECT_DIR --destination $CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA\n";
    job("A", &project(), &variables(&registry), script).ok();
    assert!(pulled(&registry, "team/app:0123abcd").starts_with("sha256:"));
}

/// Two images in one job, with kaniko's advice for that; and a failure, whose code ends the job.
#[test]
fn several_builds_run_in_one_job_and_a_failure_ends_it() {
    require_containers!();
    let registry = Registry::open();
    let project = project().file("Broken", format!("FROM {}\nRUN exit 3\n", busybox()));
    let script = r#"
for name in one two; do
  /kaniko/executor --context "dir://$CI_PROJECT_DIR" --destination "$CI_REGISTRY_IMAGE/$name" --cleanup --log-format=json
done
if /kaniko/executor -f Broken -c . -d "$CI_REGISTRY_IMAGE/broken"; then exit 9; else echo "code $?"; fi
test ! -e /made
/kaniko/executor -f Broken -c . --no-push
echo "not reached"
"#;
    let outcome = job("A", &project, &variables(&registry), script);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("code 1") && !outcome.stdout.contains("not reached"), "{outcome}");
    let json = outcome.stderr.lines().filter(|line| line.starts_with("{\"level\":\"info\""));
    assert!(json.count() > 4, "{outcome}");
    assert_eq!(registry.tags("team/app/one"), ["latest"]);
    assert_eq!(registry.tags("team/app/two"), ["latest"]);
    assert!(registry.tags("team/app/broken").is_empty());
}

/// A registry with an authority of its own, added as GitLab's documentation adds it.
#[test]
fn an_authority_is_appended_to_kanikos_bundle() {
    require_containers!();
    let registry = Registry::start(&Options { password: true, tls: true, ..Options::default() });
    let project = project().file("ca.pem", fs::read(registry.authority()).unwrap());
    let script = format!(
        "{LOGIN}\n/kaniko/executor --context . --destination \"$CI_REGISTRY_IMAGE:none\" && exit 9\n\
         cat ca.pem >> /kaniko/ssl/certs/additional-ca-cert-bundle.crt\n\
         /kaniko/executor --context . --destination \"$CI_REGISTRY_IMAGE:appended\"\n"
    )
    .replace("&& exit 9", "&& exit 9 || true");
    let outcome = job("A", &project, &variables(&registry), &script).ok();
    assert!(outcome.stderr.contains("certificate"), "{outcome}");
    assert!(pulled(&registry, "team/app:appended").starts_with("sha256:"));
}

/// Several targets, a dry run, a result that is PUT nowhere, and flags that are moot.
#[test]
fn flags_of_the_living_fork_work() {
    require_containers!();
    let registry = Registry::open();
    let script = r#"
/kaniko/executor --context . --dryrun --destination "$CI_REGISTRY_IMAGE:dry" > plan
/kaniko/executor --context . --target build,1 --snapshot-mode=redo --use-new-run --destination "$CI_REGISTRY_IMAGE:first"
/kaniko/executor --context . --no-push --digest-file=http://127.0.0.1:1/digest || echo "refused"
BUILDER_OUTPUT=$PWD/cloud /kaniko/executor --context . --destination "$CI_REGISTRY_IMAGE:cloud"
"#;
    let project = project();
    let outcome = job("A", &project, &variables(&registry), script).ok();
    let plan = fs::read_to_string(project.at("plan")).unwrap();
    assert!(
        plan.contains(" AS build ") && plan.contains("  COPY note /out/") && plan.contains("PUSH "),
        "{plan}"
    );
    let mut tags = registry.tags("team/app");
    tags.sort();
    assert_eq!(tags, ["cloud", "first"]);
    assert!(outcome.stdout.contains("refused") && outcome.stderr.contains("cannot upload to"), "{outcome}");
    assert_eq!(outcome.stderr.matches("--snapshot-mode: ").count(), 1, "{outcome}");
    let cloud = fs::read_to_string(project.at("cloud/images")).unwrap();
    assert!(cloud.contains(&registry.digest("team/app:cloud")), "{cloud}");
}

/// A real engine's default container: its own profile, its own /etc, its own overlay.
#[test]
fn kilns_images_build_under_a_docker_engine() {
    require!(Debian, Root, Program("dockerd"), Program("strip"));
    let own = OwnImage::shared();
    let engine = Engine::shared();
    for target in ["kiln", "debug"] {
        engine.docker(&["load", "-i", own.archive(target).to_str().unwrap()]).ok();
    }
    let registry = Registry::open();
    let project = project();
    std::fs::set_permissions(project.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let volume = format!("{}:/workspace", project.path().display());
    let destination = |name: &str| format!("--destination={}", registry.image(name));
    let docker = |words: &[&str]| {
        let fixed = ["run", "--rm", "--network=host", "-v", &volume];
        engine.docker(&[&fixed[..], words].concat()).ok()
    };
    // kaniko's documentation: the image's own entrypoint, and /workspace without being told.
    docker(&["kiln-own:kiln", "--dockerfile=Dockerfile", &destination("app:plain")]);
    docker(&["kiln-own:kiln", "--context=dir:///workspace", &destination("app:dir"), "--reproducible"]);
    docker(&[
        "--entrypoint=/kaniko/executor",
        "kiln-own:kiln",
        "-c",
        "/workspace",
        &destination("app:named"),
    ]);
    docker(&["kiln-own:kiln", "build", "--push", "-t", &registry.image("app:build"), "/workspace"]);
    let in_shell = "/kaniko/executor --context=/workspace --reproducible --destination=";
    let in_shell = format!("{in_shell}{}", registry.image("app:shell"));
    docker(&["--entrypoint=", "kiln-own:debug", "sh", "-c", &in_shell]);
    let reproducible = registry.digest("app:dir");
    assert_eq!(registry.digest("app:shell"), reproducible);

    // What came out runs: pulled from the registry, and loaded from kaniko's archive.
    docker(&[
        "kiln-own:kiln",
        "--no-push",
        "--tar-path=/workspace/app.tar",
        "--build-arg=VERSION=2",
        "--destination=loaded/app:2",
    ]);
    engine.docker(&["load", "-i", project.at("app.tar").to_str().unwrap()]).ok();
    engine.docker(&["pull", &registry.image("app:plain")]).ok();
    for (image, made) in [(registry.image("app:plain"), "built \n"), ("loaded/app:2".to_owned(), "built 2\n")]
    {
        let shown = docker(&[&image, "cat", "/out/made", "/out/who", "/out/note"]).stdout;
        assert_eq!(shown, format!("{made}0\nn\n"), "{image}");
    }
    fs::remove_file(project.at("app.tar")).unwrap();

    // The same container twice: the first build leaves nothing behind.
    let name = format!("kiln-twice-{}", std::process::id());
    let fixed = ["run", "-d", "--rm", "--network=host", "-v", &volume, "--name", &name];
    let sleeping = ["--entrypoint=/busybox/sh", "kiln-own:debug", "-c", "sleep 600"];
    engine.docker(&[&fixed[..], &sleeping].concat()).ok();
    for tag in ["app:once", "app:twice"] {
        let words = ["exec", &name, "/kaniko/executor", "--reproducible", &destination(tag)];
        engine.docker(&words).ok();
        assert_eq!(registry.digest(tag), reproducible, "{tag}");
        let top = engine.docker(&["exec", &name, "/busybox/ls", "/"]).ok().stdout;
        assert!(
            !top.lines().any(|line| matches!(line, "made" | "who" | "out" | "bin" | "home")),
            "{tag}: {top}"
        );
    }
    engine.docker(&["kill", &name]).ok();
}
