//! Results of steps that outlive a build: in kiln's store, in a registry, in a directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use crate::support::distribution::Options;
use crate::support::need::{Busybox, Program};
use crate::support::{Context, Image, Kiln, Outcome, Registry, base, run};

/// A project of two stages with every kind of step that is cached.
fn project() -> Context {
    project_on(base::busybox())
}

pub(super) fn project_on(base: &str) -> Context {
    Context::new(&format!(
        "FROM {base} AS build\nWORKDIR /src\nCOPY src/ ./\nRUN cat a b > out && head -c 300000 /dev/urandom > noise\n\
         FROM {base}\nCOPY --from=build /src/out /src/noise /app/\nRUN date +%N > /when\nRUN true\nCMD [\"cat\", \"/app/out\"]\n"
    ))
    .file("src/a", "a\n")
    .file("src/b", "b\n")
}

/// The steps that ran: those whose instruction was shown and that were not taken from a cache.
pub(super) fn ran(outcome: &Outcome) -> Vec<String> {
    let text = format!("{}\n{}", outcome.stdout, outcome.stderr);
    let steps = text.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
        rest.starts_with('[').then(|| (number.to_owned(), rest.to_owned()))
    });
    let cached = |number: &str| text.lines().any(|line| line.starts_with(&format!("#{number} CACHED")));
    steps
        .filter(|(number, rest)| !rest.contains("] FROM ") && !cached(number))
        .map(|(_, rest)| rest)
        .collect()
}

/// Requests in a registry's log from line `from` on: method, path, status, bytes sent.
pub(super) fn requests(registry: &Registry, from: usize) -> Vec<(String, String, u64, u64)> {
    let log = registry.log();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    log.lines()
        .skip(from)
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["msg"] == "response completed")
        .map(|line| {
            let number = |name: &str| line[name].as_u64().unwrap_or_default();
            let path = text(&line, "http.request.uri");
            let (status, written) = (number("http.response.status"), number("http.response.written"));
            (text(&line, "http.request.method"), path, status, written)
        })
        .collect()
}

#[test]
fn a_second_build_runs_nothing_and_makes_the_same_layers() {
    require!(Busybox);
    let (kiln, context) = (Kiln::new(), project());
    let first = kiln.image(&context);
    let layout = kiln.scratch("again").display().to_string();
    let output = format!("--output=type=oci,tar=false,dest={layout}");
    let again = kiln.build(&context, &[&output]).ok();
    assert_eq!(ran(&again), [""; 0], "{again}");
    let second = Image::read(Path::new(&layout));
    assert_eq!(first.manifest["layers"], second.manifest["layers"]);
    // Without hits everything runs, and what it makes is kept.
    let fresh = kiln.build(&context, &["--no-cache"]).ok();
    assert!(ran(&fresh).len() >= 5, "{fresh}");
    assert_eq!(ran(&kiln.build(&context, &[]).ok()), [""; 0]);
    // Without the store as a cache there is none.
    assert!(!ran(&kiln.build(&context, &["--cache-from=type=none"]).ok()).is_empty());
}

/// The first cache's record of a step was made on another run of the step below: it was the only one looked at.
#[test]
fn a_record_that_does_not_fit_hides_none_of_another_cache() {
    require!(Busybox);
    let (one, other, registry) = (Kiln::new(), Kiln::new(), Registry::open());
    let cache = registry.image("cache");
    let (to, from) = (format!("--cache-to={cache}"), format!("--cache-from={cache}"));
    let first = "RUN head -c 20 /dev/urandom > /random\n";
    let both = format!("{first}RUN cat /random /random > /twice\n");
    // Each runner has made something else of the first step; only one has gone on from there, or both have.
    other.build(&Context::on_busybox(first), &[]).ok();
    one.build(&Context::on_busybox(&both), &[&to]).ok();
    let built = other.build(&Context::on_busybox(&both), &[&from]).ok();
    assert_eq!(ran(&built), [""; 0], "{built}");
    let third = Kiln::new();
    third.build(&Context::on_busybox(&both), &[]).ok();
    let more = format!("{both}RUN cat /twice /twice > /more\n");
    one.build(&Context::on_busybox(&more), &[&to]).ok();
    let built = third.build(&Context::on_busybox(&more), &[&from]).ok();
    assert_eq!(ran(&built), [""; 0], "{built}");
    let layers = |kiln: &Kiln| {
        let image = kiln.image_with(&Context::on_busybox(&more), &[&from]);
        image.manifest["layers"].clone()
    };
    assert_eq!(layers(&one), layers(&third));
}

#[test]
fn a_directory_is_a_cache_for_runners_that_keep_one() {
    require!(Busybox);
    let (one, other, context) = (Kiln::new(), Kiln::new(), project());
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("cache");
    one.build(&context, &[&format!("--cache-to=type=local,dest={},mode=max", place.display())]).ok();
    let from = format!("--cache-from=type=local,src={}", place.display());
    let built = other.build(&context, &[&from, "--tag=x.test/a:1"]).ok();
    assert_eq!(ran(&built), [""; 0], "{built}");
    let cache = format!("type=local,src={}", place.display());
    let listed: Value =
        serde_json::from_str(&cache_command(&other, "ls", &[&cache, "--format=json"]).stdout).unwrap();
    assert!(listed.as_array().unwrap().len() >= 6, "{listed}");
    cache_command(&other, "prune", &[&cache]);
    let rest = cache_command(&other, "du", &[&cache, "--format=json"]);
    let rest: Value = serde_json::from_str(&rest.stdout).unwrap();
    assert_eq!(rest["records"], 0);
    assert!(fs::read_dir(place.join("blobs/sha256")).unwrap().next().is_none(), "its blobs went with it");
}

/// `kiln cache SUBCOMMAND --root STORE ARGUMENT...`
#[track_caller]
fn cache_command(kiln: &Kiln, subcommand: &str, arguments: &[&str]) -> Outcome {
    let store = kiln.store();
    let mut command = Command::new(Kiln::program());
    command.arg("cache").arg(subcommand).arg("--root").arg(store).args(arguments);
    run(&mut command).ok()
}

#[test]
fn unknown_kinds_of_caches_are_named() {
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\n");
    for (argument, says) in [
        ("--cache-from=type=gha", "`gha`"),
        ("--cache-to=type=inline", "`inline`"),
        ("--cache-to=type=local", "`dest=DIRECTORY`"),
        ("--cache-mounts-to=type=registry", "`ref=REPOSITORY`"),
        ("--cache-ttl=soon", "`soon`"),
    ] {
        kiln.build(&context, &[argument]).fails(2, &[says]);
    }
}

#[test]
fn the_executor_has_a_cache_beside_its_destination() {
    require!(Busybox);
    let (registry, context) = (Registry::open(), project());
    let execute = |kiln: &Kiln, more: &[&str]| {
        let mut command = Command::new(Kiln::program());
        command.arg("executor").env("KILN_ROOT", kiln.store()).env("HOME", kiln.scratch("home"));
        // A Dockerfile where it is started goes before the context's, as with kaniko.
        command.current_dir(context.path());
        command.arg(format!("--context=dir://{}", context.path().display()));
        command.arg(format!("--destination={}", registry.image("app:1"))).args(more);
        run(&mut command).ok()
    };
    execute(&Kiln::new(), &["--cache"]);
    assert!(registry.tags("app/cache").iter().any(|tag| tag.starts_with("key-")));
    let before = registry.log().lines().count();
    execute(&Kiln::new(), &["--cache"]);
    let pulled = requests(&registry, before).into_iter().filter(|(method, path, ..)| {
        method == "GET" && path.contains("/blobs/") && !path.contains("/app/blobs/")
    });
    assert_eq!(pulled.count(), 0, "its steps came from the cache");
    let none = Registry::open();
    let mut command = Command::new(Kiln::program());
    command
        .args(["executor", "--cache", "--no-push"])
        .arg(format!("--context=dir://{}", context.path().display()));
    run(command.env("KILN_ROOT", Kiln::new().store()).current_dir(context.path()))
        .fails(1, &["--cache-repo"]);
    drop(none);
}

/// `--cache-dir` was read and forgotten.
#[test]
fn the_executor_takes_layers_of_base_images_from_where_the_warmer_put_them() {
    require!(Busybox);
    let (registry, kiln) = (Registry::open(), Kiln::new());
    registry.push(&base::layout("busybox"), "latest", "base:1");
    let name = registry.image("base:1");
    let context = Context::new(&format!("FROM {name}\nRUN echo x > /x\n"));
    let directory = tempfile::tempdir().unwrap();
    let cache_dir = format!("--cache-dir={}", directory.path().join("warm").display());
    let start = |words: &[&str]| {
        let mut command = Command::new(Kiln::program());
        command.args(words).arg(&cache_dir).env("KILN_ROOT", kiln.store()).env("HOME", kiln.scratch("home"));
        run(command.current_dir(context.path())).ok()
    };
    start(&["warmer", &format!("--image={name}")]);
    let before = registry.log().lines().count();
    let context_argument = format!("--context=dir://{}", context.path().display());
    let repository = format!("--cache-repo={}", registry.image("cache"));
    start(&["executor", &context_argument, "--no-push", "--cache", &repository]);
    let layer = Image::read(&base::layout("busybox")).manifest["layers"][0]["digest"].clone();
    let fetched: Vec<_> = requests(&registry, before)
        .into_iter()
        .filter(|(method, path, ..)| {
            method == "GET" && path.ends_with(&format!("/blobs/{}", layer.as_str().unwrap()))
        })
        .collect();
    assert_eq!(fetched, [], "{}", registry.log());
}

#[test]
fn poisoned_records_are_refused_and_their_steps_run() {
    require!(Busybox, Program("skopeo"));
    let (registry, context) = (Registry::open(), project());
    let cache = registry.image("cache");
    let (to, from) = (format!("--cache-to={cache}"), format!("--cache-from={cache}"));
    Kiln::new().build(&context, &[&to]).ok();
    let keys: Vec<String> =
        registry.tags("cache").into_iter().filter(|tag| tag.starts_with("key-")).collect();
    // Every key points at another one's record.
    let manifest = |tag: &str| {
        let reference = format!("docker://{}", registry.image(&format!("cache:{tag}")));
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference])).ok().stdout
    };
    let manifests: Vec<String> = keys.iter().map(|key| manifest(key)).collect();
    let put = |tag: &str, bytes: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "-X", "PUT", "-H", "Content-Type: application/vnd.oci.image.manifest.v1+json"]);
        curl.args(["--data-binary", bytes]);
        run(curl.arg(format!("http://{}/v2/cache/manifests/{tag}", registry.address()))).ok();
    };
    for (index, key) in keys.iter().enumerate() {
        put(key, &manifests[(index + 1) % manifests.len()]);
    }
    let built = Kiln::new().build(&context, &[&from]).ok();
    assert!(ran(&built).len() >= 5, "{built}");
    assert!(built.stderr.contains("record of another key"), "{built}");
    // A layer that promises another size, and one that is an index.
    for poison in [
        |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["artifactType"] = "application/vnd.example+json".into();
            value.to_string()
        },
        |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["layers"][0]["mediaType"] = "application/octet-stream".into();
            value.to_string()
        },
    ] {
        for (key, manifest) in keys.iter().zip(&manifests) {
            put(key, &poison(manifest));
        }
        let built = Kiln::new().build(&context, &[&from]).ok();
        assert!(ran(&built).len() >= 5 && built.stderr.contains("is refused"), "{built}");
    }
    // Written anew, it is good again.
    Kiln::new().build(&context, &[&to, "--no-cache"]).ok();
    assert_eq!(ran(&Kiln::new().build(&context, &[&from]).ok()), [""; 0]);
    // Records as they were, over layers that are not what they promise.
    for (key, manifest) in keys.iter().zip(&manifests) {
        put(key, manifest);
        let value: Value = serde_json::from_str(manifest).unwrap();
        let file = registry.blob_file(value["layers"][0]["digest"].as_str().unwrap());
        let size = fs::metadata(&file).unwrap().len() as usize;
        fs::write(file, vec![b'x'; size]).unwrap();
    }
    let context = context.file("src/more", "needs what is below\n");
    let refused = |outcome: &Outcome| assert!(outcome.stderr.contains("its step runs instead"), "{outcome}");
    refused(&Kiln::new().build(&context, &[&from]).ok());
    // The same cut short.
    for manifest in &manifests {
        let value: Value = serde_json::from_str(manifest).unwrap();
        let file = registry.blob_file(value["layers"][0]["digest"].as_str().unwrap());
        let size = fs::metadata(&file).unwrap().len();
        fs::File::options().write(true).open(file).unwrap().set_len(size / 2).unwrap();
    }
    refused(&Kiln::new().build(&context, &[&from]).ok());
}

/// How many warnings a build gave, beside those that something is tried again.
fn warnings(outcome: &Outcome) -> usize {
    let is_news = |line: &&str| line.starts_with("warning:") && !line.contains("; trying again in ");
    outcome.stderr.lines().filter(is_news).count()
}

/// A cache that is down, or that may not be written, is no reason to fail: it is said once.
#[test]
fn a_cache_that_is_away_is_one_warning() {
    require!(Busybox);
    let context = project();
    let museum = Registry::start(&Options { read_only: true, ..Options::default() });
    let read_only = museum.image("cache");
    let file = tempfile::NamedTempFile::new().unwrap();
    let nowhere = file.path().join("below").display().to_string();
    for (argument, place) in [
        ("--cache-from=127.0.0.1:1/c".to_owned(), "`127.0.0.1:1/c`"),
        ("--cache-to=127.0.0.1:1/c".to_owned(), "`127.0.0.1:1/c`"),
        (format!("--cache-to={read_only}"), read_only.as_str()),
        (format!("--cache-from=type=local,src={nowhere}"), &nowhere),
        (format!("--cache-to=type=local,dest={nowhere}"), &nowhere),
    ] {
        let built = Kiln::new().build(&context, &[&argument]).ok();
        assert_eq!(warnings(&built), 1, "{built}");
        assert!(built.stderr.contains(place), "{built}");
        // Many ask at once; one finds out for all.
        assert!(built.stderr.matches("; trying again in ").count() <= 2, "{built}");
        assert!(ran(&built).len() >= 5, "{built}");
    }
}

#[test]
fn records_that_are_too_old_are_made_anew() {
    require!(Busybox);
    let (kiln, context) = (Kiln::new(), project());
    kiln.build(&context, &[]).ok();
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(ran(&kiln.build(&context, &["--cache-ttl=1h"]).ok()), [""; 0]);
    // The age is of making, not of use.
    let built = kiln.build(&context, &["--cache-ttl=1s"]).ok();
    assert!(ran(&built).len() >= 5, "{built}");
    assert_eq!(warnings(&built), 0, "{built}");
}

/// How many builds there are at once; more by `KILN_TEST_CACHE_BUILDS`.
fn builds_at_once() -> usize {
    std::env::var("KILN_TEST_CACHE_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn builds_at_once_share_a_store_and_a_repository_and_survive_kills_and_prunes() {
    require!(Busybox);
    let (kiln, registry) = (Kiln::new(), Registry::open());
    let base = base::busybox();
    let cache = registry.image("shared/cache");
    let contexts: Vec<Context> = (0..3)
        .map(|number| {
            Context::new(&format!(
                "FROM {base} AS build\nRUN echo common > /common && head -c 200000 /dev/urandom > /noise\n\
                 FROM {base}\nCOPY --from=build /common /common\nCOPY file /file\n\
                 RUN --mount=type=cache,target=/c,sharing=locked echo x >> /c/log && cat /file /common > /both\n"
            ))
            .file("file", format!("project {number}\n"))
        })
        .collect();
    let count = builds_at_once();
    let (to, from) = (format!("--cache-to={cache}"), format!("--cache-from={cache}"));
    for round in 0..2 {
        let start = |number: usize| {
            let tag = format!("--tag={}", registry.image(&format!("shared/app{number}:{round}")));
            let arguments = ["--push", &tag, &to, &from, if round == 0 { "--no-cache" } else { "--quiet" }];
            kiln.start(&contexts[number % contexts.len()], &arguments)
        };
        let mut children: Vec<(usize, Child)> = (0..count).map(|number| (number, start(number))).collect();
        let mut killed = Vec::new();
        for (number, child) in &mut children {
            if *number % 2 == 1 {
                // At different moments of their lives.
                std::thread::sleep(Duration::from_millis(30 * (*number as u64 % 7)));
                let _ = child.kill();
                killed.push(*number);
            }
            if *number % 3 == 0 {
                kiln.run("prune", ["--keep-storage=100k"]).ok();
            }
        }
        for (number, child) in children {
            let outcome = Kiln::finish(child);
            if !killed.contains(&number) {
                outcome.ok();
                check(&kiln, &registry, &format!("shared/app{number}:{round}"), number % contexts.len());
            }
        }
    }
    // Whatever was killed: the store, the repository and every record in them can be used.
    for (number, context) in contexts.iter().enumerate() {
        let tag = format!("--tag={}", registry.image(&format!("shared/last{number}:1")));
        let built = kiln.build(context, &["--push", &tag, &to, &from]).ok();
        assert!(!built.stderr.contains("is refused"), "{built}");
        check(&kiln, &registry, &format!("shared/last{number}:1"), number);
        let again = kiln.build(context, &["--push", &tag, &to, &from]).ok();
        assert_eq!(ran(&again), [""; 0], "{again}");
    }
    cache_command(&kiln, "prune", &[&cache]);
    assert!(!registry.tags("shared/cache").iter().any(|tag| tag.starts_with("key-")));
}

/// The image in the registry holds what its project says.
fn check(kiln: &Kiln, registry: &Registry, name: &str, project: usize) {
    let layout = tempfile::tempdir_in(kiln.scratch("").parent().unwrap()).unwrap();
    let path = layout.path().join("layout");
    registry.pull(name, &path);
    let image = Image::read(&path);
    assert_eq!(image.text("both"), format!("project {project}\ncommon\n"));
}
