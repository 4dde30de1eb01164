//! What leaves for other hosts, and what hosts and names can do to kiln.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::server::fault::{Fault, FaultRegistry};
use crate::support::server::http::{Body, Handler, Request, Response, Server};
use crate::support::{Context, Kiln, Outcome, run};

/// A web server that answers as told and remembers what it was asked.
pub(super) struct Web {
    server: Server,
    log: Arc<Mutex<Vec<Request>>>,
}

struct Answers<F> {
    log: Arc<Mutex<Vec<Request>>>,
    answer: F,
}

impl<F: Fn(&Request) -> Response + Send + Sync + 'static> Handler for Answers<F> {
    fn handle(&self, request: &Request, _: &mut Body<'_>) -> Option<Response> {
        self.log.lock().unwrap().push(request.clone());
        Some((self.answer)(request))
    }
}

impl Web {
    pub(super) fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let log = Arc::default();
        let server = Server::start(Arc::new(Answers { log: Arc::clone(&log), answer }));
        Self { server, log }
    }

    pub(super) fn host(&self) -> String {
        self.server.host()
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

/// A repository with a Dockerfile and a file, for servers that know nothing of git.
pub(super) fn repository(submodules: &[String]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM scratch\nCOPY file /\n").unwrap();
    fs::write(directory.path().join("file"), "content\n").unwrap();
    git(directory.path(), &["init", "--quiet", "--initial-branch=main"]);
    for (number, url) in submodules.iter().enumerate() {
        git(directory.path(), &["submodule", "--quiet", "add", url, &format!("sub{number}")]);
    }
    git(directory.path(), &["add", "."]);
    git(directory.path(), &["commit", "--quiet", "--message=one"]);
    git(directory.path(), &["update-server-info"]);
    directory
}

pub(super) fn git(directory: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(directory).env("HOME", directory);
    command.args([
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "http.extraHeader=Authorization: setup",
    ]);
    run(command.args(arguments)).ok();
}

/// Serves the repository `/NAME.git/` if the request is for it.
pub(super) fn served(name: &str, root: &Path, request: &Request) -> Option<Response> {
    let path = request.path.strip_prefix(&format!("/{name}.git/"))?;
    Some(match fs::read(root.join(".git").join(path)) {
        Ok(bytes) => Response::new(200).body(bytes),
        Err(_) => Response::new(404),
    })
}

/// Sends whoever asks for the repository `/NAME.git/` to another address.
fn moved(name: &str, to: &str, request: &Request) -> Option<Response> {
    let is_first = request.path == format!("/{name}.git/info/refs");
    is_first.then(|| Response::new(301).header("location", format!("{to}/info/refs?service=git-upload-pack")))
}

fn closed(request: &Request, answer: Option<Response>) -> Response {
    match request.header("authorization") {
        Some(_) => answer.unwrap_or_else(|| Response::new(404)),
        None => Response::new(401).header("www-authenticate", "Basic realm=x"),
    }
}

fn has_credential(request: &Request) -> bool {
    request.headers.contains_key("authorization")
}

/// `build` with the secret's value in a variable.
fn build_with(kiln: &Kiln, context: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut command = kiln.build_command(context, arguments);
    run(command.env("TOKEN", "hunter2").envs(variables.iter().copied()))
}

#[test]
fn git_credentials_stay_with_their_server() {
    require!(Program("git"));
    let other_tree = repository(&[]);
    let root = other_tree.path().to_owned();
    let other = Web::start(move |request| served("r", &root, request).unwrap_or_else(|| Response::new(404)));
    let tree = Arc::new(Mutex::new(None));
    let (elsewhere, here) = (format!("http://{}/r", other.host()), Arc::clone(&tree));
    let plain = repository(&[]);
    let root = plain.path().to_owned();
    let own = Web::start(move |request| {
        let whole =
            here.lock().unwrap().clone().and_then(|tree: std::path::PathBuf| served("whole", &tree, request));
        let answer = whole
            .or_else(|| served("here", &root, request))
            .or_else(|| moved("gone", &format!("{elsewhere}.git"), request))
            .or_else(|| moved("renamed", "/twice.git", request))
            .or_else(|| moved("twice", "/here.git", request));
        closed(request, answer)
    });
    let (a, b) = (own.host(), other.host());
    // Submodules on both servers, and one whose address has changed.
    let whole = repository(&[
        format!("http://{b}/r.git"),
        format!("http://{a}/here.git"),
        format!("http://{a}/renamed.git"),
        format!("http://{a}/gone.git"),
    ]);
    *tree.lock().unwrap() = Some(whole.path().to_owned());
    let kiln = Kiln::new();
    let secret = format!("--secret=id=GIT_AUTH_TOKEN.{a},env=TOKEN");
    for name in ["gone", "renamed", "here", "whole"] {
        own.asked();
        other.asked();
        let check = |outcome: Outcome| {
            outcome.ok();
            assert!(own.asked().iter().all(has_credential), "{name}: its own server");
            let asked = other.asked();
            assert_eq!(asked.is_empty(), matches!(name, "here" | "renamed"), "{name}");
            let shown: Vec<&Request> = asked.iter().filter(|request| has_credential(request)).collect();
            assert!(shown.is_empty(), "{name}: the other server saw {shown:?}");
        };
        // As a context, with the credential in its address; and with a secret.
        check(build_with(&kiln, Path::new(&format!("http://user:hunter2@{a}/{name}.git")), &[], &[]));
        let context = Context::new(&format!("FROM scratch\nADD http://{a}/{name}.git /r/\n"));
        check(build_with(&kiln, context.path(), &[&secret], &[]));
    }
}

#[test]
fn a_git_secret_without_a_host_is_for_one_server() {
    require!(Program("git"));
    let tree = repository(&[]);
    let open = || {
        let root = tree.path().to_owned();
        Web::start(move |request| served("r", &root, request).unwrap_or_else(|| Response::new(404)))
    };
    let (own, other) = (open(), open());
    let kiln = Kiln::new();
    let context = Context::new(&format!(
        "FROM scratch\nADD http://{}/r.git /own/\nADD http://{}/r.git /other/\n",
        own.host(),
        other.host()
    ));
    let (address, port) = own.host().split_once(':').map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
    for id in ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"] {
        let build = |variables: &[(&str, &str)], context: &Path| {
            let secret = format!("--secret=id={id},env=TOKEN");
            let outcome = build_with(&kiln, context, &["--no-cache", &secret], variables);
            (outcome, own.asked().iter().filter(|r| has_credential(r)).count(), other.asked())
        };
        // Nothing says whose it is.
        let (outcome, shown, _) = build(&[], context.path());
        outcome.fails(1, &[&format!("--secret id={id}.{}", own.host())]);
        assert_eq!(shown, 0);
        let job = [
            ("CI_SERVER_HOST", address.as_str()),
            ("CI_SERVER_PORT", port.as_str()),
            ("CI_SERVER_PROTOCOL", "http"),
        ];
        // GitLab's job, then the repository that the context is from.
        let work_tree = repository(&[]);
        fs::copy(context.at("Dockerfile"), work_tree.path().join("Dockerfile")).unwrap();
        git(work_tree.path(), &["remote", "add", "origin", &format!("http://{}/x.git", own.host())]);
        for (variables, context) in [(&job[..], context.path()), (&[], work_tree.path())] {
            let (outcome, shown, asked) = build(variables, context);
            outcome.ok();
            assert!(shown > 0 && !asked.is_empty(), "{id}: {shown} {asked:?}");
            assert!(!asked.iter().any(has_credential), "{id}: the other server saw {asked:?}");
        }
        // The same host by another scheme is another server.
        let (outcome, shown, _) = build(&[("CI_SERVER_HOST", &own.host())], context.path());
        outcome.ok();
        assert_eq!(shown, 0);
    }
}

/// All files below a directory, read.
fn files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push((entry.path(), fs::read(entry.path()).unwrap())),
            _ => {}
        }
    }
    found
}

#[test]
fn passwords_of_urls_are_nowhere() {
    use base64::Engine as _;
    require!(Program("git"));
    let tree = repository(&[]);
    let root = tree.path().to_owned();
    let web = Web::start(move |request| {
        let file = (request.path == "/file").then(|| Response::new(200).body("content"));
        closed(request, file.or_else(|| served("r", &root, request)))
    });
    let address = format!("http://user:hunter2@{}", web.host());
    let dockerfile = format!(
        "FROM scratch\nARG AT={address}\nADD {address}/file /file\nADD --keep-git-dir=true {address}/r.git /r/\n\
         ONBUILD COPY x /y\nCOPY --from=files file /z\n"
    );
    // An argument's value is the image's history by BuildKit's rules: it is given here as nothing else could be.
    let dockerfile = dockerfile.replace(&format!("ARG AT={address}\n"), "");
    let context = Context::new(&dockerfile);
    let kiln = Kiln::new();
    let (layout, metadata) = (kiln.scratch("layout"), kiln.scratch("metadata"));
    let arguments = [
        "--debug".to_owned(),
        "--explain".to_owned(),
        "--tag=example.com/app".to_owned(),
        format!("--build-context=files={address}/r.git"),
        format!("--metadata-file={}", metadata.display()),
        format!("--cache-to=type=local,dest={}", kiln.scratch("cache").display()),
        format!("--output=type=oci,tar=false,compression=uncompressed,dest={}", layout.display()),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut outcomes = vec![kiln.build(&context, &arguments).ok()];
    // Other inputs, so that `--explain` has something to say.
    let changed = Context::new(&dockerfile.replace("/file\n", "/file2\n"));
    outcomes.push(kiln.build(&changed, &arguments).ok());
    outcomes.push(build_with(&kiln, Path::new(&format!("{address}/r.git")), &arguments[..5], &[]).ok());
    // Failures, with the lines of the Dockerfile.
    for line in ["/missing /", "/missing.git /"] {
        let context = Context::new(&format!("FROM scratch\nADD {address}{line}\n"));
        outcomes.push(kiln.build(&context, &["--debug"]).fails(1, &["Dockerfile:2"]));
        outcomes.push(kiln.build(&context, &["--offline"]).fails(1, &[]));
        outcomes.push(kiln.run("check", [context.path()]));
    }
    outcomes.push(run(kiln.build_command(Path::new(&format!("{address}/none.git")), &[]).arg("--debug")));
    let pair = base64::engine::general_purpose::STANDARD.encode("user:hunter2");
    for outcome in &outcomes {
        for text in [&outcome.stdout, &outcome.stderr] {
            assert!(!text.contains("hunter2") && !text.contains(&pair), "{outcome}");
        }
    }
    let kept = files(kiln.store().parent().unwrap());
    assert!(kept.len() > 10, "the store, the layout, the cache and the metadata");
    for (path, bytes) in kept {
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has("hunter2") && !has(&pair), "{}", path.display());
    }
    let history = fs::read_to_string(&metadata).unwrap();
    assert!(history.contains("xxxxx:xxxxx@"), "{history}");
}

/// Nothing that a terminal obeys, and no line that looks like kiln's and is not.
#[track_caller]
fn is_tame(outcome: &Outcome) {
    for text in [&outcome.stdout, &outcome.stderr] {
        let active =
            |c: char| c.is_control() && !matches!(c, '\n' | '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(active), "{outcome}\n{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{outcome}");
    }
}

#[test]
fn names_and_answers_do_not_drive_the_terminal() {
    require!(Program("git"));
    const NAME: &str = "a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}b";
    let kiln = Kiln::new();
    let registry = FaultRegistry::start();
    let words = format!("{NAME}\nFORGED\r\nFORGED");
    let refused = Response::error(403, "DENIED", &words);
    registry.plan("GET", "/manifests/", 100, Fault::Answer(refused.clone()));
    registry.plan("HEAD", "/manifests/", 100, Fault::Answer(refused));
    let host = registry.host();
    let builds = [
        // Errors, with the lines meant.
        format!("FROM scratch\nCOPY \"{NAME}\" /\n"),
        format!("FROM scratch\nNONSENSE {NAME}\n"),
        format!("FROM scratch\nCOPY --from={NAME} / /\n"),
        format!("FROM {host}/a\n"),
        format!("FROM scratch\nADD http://{host}/{NAME} /\n"),
        format!("FROM scratch\nADD http://{host}/x.git#{NAME} /\n"),
        format!("FROM scratch\nUSER {NAME}\nWORKDIR /{NAME}\nCOPY --chown={NAME} Dockerfile /\n"),
        // Titles and warnings.
        format!(
            "FROM scratch AS One\nLABEL a=\"{NAME}\" \"{NAME}\"=b\nENV {NAME} b\nCOPY Dockerfile \"/{NAME}\"\nMAINTAINER {NAME}\n"
        ),
    ];
    for dockerfile in builds {
        let context = Context::new(&dockerfile).file(".dockerignore", format!("{NAME}[\n"));
        is_tame(&kiln.build(&context, &["--debug", "--explain"]));
        let context = Context::new(&dockerfile);
        is_tame(&kiln.build(&context, &["--debug", "--explain", "--tag=example.com/a"]));
        is_tame(&kiln.run("check", [context.path()]));
        is_tame(&kiln.run("check", ["--format=json".as_ref(), context.path()]));
        for format in ["text", "json"] {
            let mut command = kiln.command("executor");
            command.arg(format!("--log-format={format}")).args([
                "--no-push",
                "--verbosity=debug",
                "--context",
            ]);
            is_tame(&run(command.arg(format!("dir://{}", context.path().display()))));
        }
    }
    // An image that says things, shown in every way.
    let context = Context::new(&format!(
        "FROM scratch\nLABEL a=\"{NAME}\" \"{NAME}\"=b\nENV X=\"{NAME}\"\nCMD [\"{NAME}\"]\n"
    ))
    .file("f", "x");
    fs::write(context.path().join(format!("{NAME}\nFORGED")), "x").unwrap();
    let first = kiln.build(&context, &["--tag=example.com/said:1"]).ok();
    fs::write(
        context.at("Dockerfile"),
        format!("FROM scratch\nCOPY . /\nLABEL \"{NAME}\"=c\nUSER \"{NAME}\"\n"),
    )
    .unwrap();
    let second = kiln.build(&context, &["--tag=example.com/said:2"]).ok();
    is_tame(&first);
    is_tame(&second);
    let image = "example.com/said:1";
    for arguments in [
        &["images"][..],
        &["images", "--format=json"],
        &["inspect", image],
        &["inspect", "--format=json", image],
        &["diff", image, "example.com/said:2"],
        &["diff", "--format=json", image, "example.com/said:2"],
        &["cache ls"],
        &["cache ls", "--format=json"],
        &["push", image, &format!("{host}/{NAME}")],
        &["push", image, &format!("{host}/a")],
        &["inspect", &format!("{host}/a")],
        &["ls-tags", &format!("{host}/{NAME}")],
        &["rm", NAME],
    ] {
        is_tame(&kiln.run(arguments[0], &arguments[1..]));
    }
}

#[test]
fn a_silent_registry_costs_one_deadline() {
    let kiln = Kiln::new();
    for path in ["/v2/", "/manifests/"] {
        let registry = FaultRegistry::start();
        for method in ["GET", "HEAD"] {
            registry.plan(method, path, 100, Fault::Sit(Duration::from_secs(8)));
        }
        let context = Context::new(&format!("FROM {}/a:1\n", registry.host()));
        for (arguments, variables) in
            [(&["--registry-timeout=1s"][..], &[][..]), (&[], &[("KILN_REGISTRY_TIMEOUT", "1s")])]
        {
            let before = registry.requests().iter().filter(|request| request.contains(path)).count();
            let outcome = build_with(&kiln, context.path(), arguments, variables);
            outcome.fails(1, &["no answer within 1 s", "--registry-timeout"]);
            let asked = registry.requests().iter().filter(|request| request.contains(path)).count();
            assert_eq!(asked - before, 1, "{:?}", registry.requests());
        }
        // So does a server that has files.
        let context = Context::new(&format!("FROM scratch\nADD http://{}{path} /\n", registry.host()));
        let before = registry.requests().len();
        kiln.build(&context, &["--registry-timeout=1s"]).fails(1, &["cannot download"]);
        assert_eq!(registry.requests().len() - before, 1);
    }
    let context = Context::new("FROM scratch\n");
    kiln.build(&context, &["--registry-timeout=0"]).fails(2, &["expected a time"]);
}

#[test]
fn a_sick_mirror_or_cache_is_left_alone() {
    require!(Busybox);
    let (mirror, cache) = (FaultRegistry::start(), FaultRegistry::start());
    for sick in [&mirror, &cache] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH"] {
            let limited = Response::error(429, "TOOMANYREQUESTS", "later").header("retry-after", "1");
            sick.plan(method, "/v2/x", 1000, Fault::Answer(limited));
            sick.plan(method, "/v2/busybox", 1000, Fault::Answer(Response::new(503)));
        }
    }
    let context =
        Context::on_busybox("COPY one /\nCOPY two /\nRUN echo 3 > /3\n").file("one", "1").file("two", "2");
    let registry = crate::support::base::busybox().split('/').next().unwrap();
    let kiln = Kiln::new();
    let arguments = [
        format!("--registry-mirror={registry}={}", mirror.host()),
        format!("--cache-from={}/x", cache.host()),
        format!("--cache-to={}/x", cache.host()),
        "--pull".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = kiln.build(&context, &arguments).ok();
    let said = |text: &str| outcome.stderr.matches(text).count();
    assert_eq!(said(&format!("the mirror `{}` is left alone", mirror.host())), 1, "{outcome}");
    assert_eq!(mirror.count("", "/v2/busybox"), 0);
    let of_mirror: Vec<String> = mirror.requests().into_iter().filter(|r| r.contains("/busybox")).collect();
    assert_eq!(of_mirror.len(), 2, "{of_mirror:?}");
    assert_eq!(said("; it is left alone from here on"), 1, "{outcome}");
    assert_eq!(said("could not be written to cache"), 1, "{outcome}");
    // Three steps are looked for at once, each twice; nothing else is, and none is explained.
    let reads = cache.count("GET", "/manifests/");
    assert!((2..=6).contains(&reads), "{:?}", cache.requests());
    // Four threads may begin to write at once, each asks twice.
    let writes = cache.requests().iter().filter(|r| r.contains("/v2/x")).count() - reads;
    assert!((1..=8).contains(&writes), "{:?}", cache.requests());
}

/// While a step is in place its stage has kiln's own name servers, hosts and programs: none of them are asked.
#[test]
fn nothing_of_a_stage_in_place_is_run_or_believed() {
    require!(Busybox, Root, Program(RUNTIME));
    for (source, expected) in [("file", "dns error"), ("r.git", "the `git` program is not installed")] {
        let (inside, saw) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (step, seen) = (Arc::clone(&inside), Arc::clone(&saw));
        let web = Web::start(move |request| {
            let wait = |flag: &AtomicBool, seconds: u64| {
                for _ in 0..seconds * 100 {
                    if flag.load(Ordering::SeqCst) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            };
            match request.path.as_str() {
                // The step is in place from here on, for a while.
                "/inside" => {
                    step.store(true, Ordering::SeqCst);
                    wait(&seen, 4);
                }
                "/gate" => wait(&step, 60),
                _ => seen.store(true, Ordering::SeqCst),
            }
            Response::new(200).body("forged")
        });
        let port = web.host().split_once(':').unwrap().1.to_owned();
        let base = crate::support::base::busybox();
        let context = Context::new(&format!(
            "FROM {base} AS evil\nCOPY git /bin/\n\
             RUN echo '127.0.0.1 files.example' > /etc/hosts; wget -q -O /dev/null http://127.0.0.1:{port}/inside\n\
             FROM {base} AS victim\nADD http://127.0.0.1:{port}/gate /gate\nADD http://files.example:{port}/{source} /r/\n\
             FROM victim\nCOPY --from=evil /bin/git /evil\n"
        ))
        .file_with_mode("git", "#!/bin/sh\necho \"$@\" >> /dev/shm/ran\nexit 1\n", 0o755);
        let out = tempfile::tempdir().unwrap();
        fs::set_permissions(out.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let script = "kiln executor --context=dir://$CONTEXT --no-push; code=$?; test ! -e /dev/shm/ran || cp /dev/shm/ran /out/; exit $code";
        let outcome = Place::Kind("A").run(context.path(), out.path(), &[], script);
        assert!(inside.load(Ordering::SeqCst), "{outcome}");
        assert!(!out.path().join("ran").exists(), "kiln ran the stage's git\n{outcome}");
        assert!(!saw.load(Ordering::SeqCst), "kiln asked the host that the stage named\n{outcome}");
        assert!(outcome.code == Some(1) && outcome.stderr.contains(expected), "{expected}\n{outcome}");
    }
}
