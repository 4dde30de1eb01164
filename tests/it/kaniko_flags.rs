//! Every flag of kaniko's, run: what it changes is seen in the image, in a file or in the log. What has nothing left
//! to do is said in one line. A flag of `executor --help` that is not in the table fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::distribution::{Options, PASSWORD, USER};
use crate::support::need::{Busybox, Program};
use crate::support::{Context, Image, Kiln, Outcome, Registry, base, run};

/// A build of the executor that ended.
struct Ran {
    kiln: Kiln,
    context: Context,
    outcome: Outcome,
}

impl Ran {
    fn image(&self) -> Image {
        Image::read(&self.kiln.scratch("layout"))
    }

    fn file(&self, name: &str) -> String {
        let path = self.kiln.scratch(name);
        fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}\n{}", path.display(), self.outcome))
    }

    /// The lines at info level that begin with a flag's or variable's name.
    fn said(&self, name: &str) -> Vec<&str> {
        let begins = format!("level=info msg=\"{name}");
        self.outcome.stderr.lines().filter(|line| line.contains(&begins)).collect()
    }
}

/// A project that needs no privilege: nothing is run.
fn project() -> Context {
    let dockerfile = "FROM scratch AS first\nCOPY note /first\nFROM scratch AS second\nARG VALUE=none\nARG TARGETARCH\n\
                      LABEL value=$VALUE arch=$TARGETARCH\nCOPY note /one\nCOPY note /two\n";
    Context::new(dockerfile)
        .file("Other", "FROM scratch\nCOPY note /other\n")
        .file("note", "n\n")
        .file("sub/Dockerfile", "FROM scratch\nCOPY inner /inner\n")
        .file("sub/inner", "i\n")
}

/// Runs the executor outside of the project. In a word, `@/` is a directory of the run's own and `%` the project.
fn executor(context: Context, words: &[&str], variables: &[(&str, &str)]) -> Ran {
    let kiln = Kiln::new();
    fs::create_dir(kiln.scratch("home")).unwrap();
    let own = format!("{}/", kiln.scratch("").display()).replace("//", "/");
    let filled = |word: &str| word.replace("@/", &own).replace('%', context.path().to_str().unwrap());
    let mut command = Command::new(Kiln::program());
    command.env_clear().env("HOME", kiln.scratch("home")).env("PATH", std::env::var_os("PATH").unwrap());
    let names_root = |word: &str| word == "KANIKO_DIR" || word.starts_with("--kaniko-dir");
    if !words.iter().chain(variables.iter().map(|(name, _)| name)).any(|word| names_root(word)) {
        command.env("KILN_ROOT", kiln.store());
    }
    command.envs(variables.iter().map(|(name, value)| (name, filled(value))));
    command.args(["executor", "--log-format=text"]);
    let given = |names: &[&str]| words.iter().any(|word| names.iter().any(|name| word.starts_with(name)));
    if !given(&["--destination", "-d"]) {
        command.arg("--no-push");
    }
    if !given(&["--context=", "-c"]) {
        command.arg(filled("--context=%"));
    }
    if !given(&["--oci-layout-path", "--dryrun"]) {
        command.arg(filled("--oci-layout-path=@/layout"));
    }
    command.args(words.iter().map(|word| filled(word))).current_dir(kiln.scratch("home"));
    let outcome = run(&mut command);
    Ran { kiln, context, outcome }
}

/// What a flag does.
enum Does {
    /// Something that can be seen.
    Shows(fn(&Ran)),
    /// Nothing, and one line says what kiln does instead.
    IsMoot,
    /// Nothing without a registry: other tests run it with one. What comes out here is the plain image.
    IsOfRegistries,
}

use Does::{IsMoot, IsOfRegistries, Shows};

fn digest(ran: &Ran) -> String {
    ran.image().digest
}

fn label(ran: &Ran, name: &str) -> String {
    ran.image().settings()["Labels"][name].as_str().unwrap_or("none").to_owned()
}

/// Every flag, with a value, and what comes of it.
const TABLE: &[(&str, Does)] = &[
    ("--dockerfile=Other", Shows(|ran| assert_eq!(ran.image().text("other"), "n\n"))),
    ("-f=Other", Shows(|ran| assert_eq!(ran.image().text("other"), "n\n"))),
    ("--context=%/sub", Shows(|ran| assert_eq!(ran.image().text("inner"), "i\n"))),
    ("-c=dir://%/sub", Shows(|ran| assert_eq!(ran.image().text("inner"), "i\n"))),
    ("--context-sub-path=sub", Shows(|ran| assert_eq!(ran.image().text("inner"), "i\n"))),
    ("--git=branch=main", Shows(|ran| assert_eq!(ran.image().text("one"), "n\n"))),
    ("--git=depth=1", IsMoot),
    ("--git=single-branch=true", IsMoot),
    ("--build-arg=VALUE=given", Shows(|ran| assert_eq!(label(ran, "value"), "given"))),
    ("--target=first", Shows(|ran| assert_eq!(ran.image().text("first"), "n\n"))),
    ("--custom-platform=linux/s390x", Shows(|ran| assert_eq!(label(ran, "arch"), "s390x"))),
    ("--customPlatform=linux/s390x", Shows(|ran| assert_eq!(ran.image().config["architecture"], "s390x"))),
    ("--label=a=b", Shows(|ran| assert_eq!(label(ran, "a"), "b"))),
    ("--annotation=a=b", Shows(|ran| assert_eq!(ran.image().manifest["annotations"]["a"], "b"))),
    ("--secret=id=a,env=HOME", Shows(|ran| assert_eq!(ran.image().layer_count(), 2))),
    ("--ignore-path=/one", Shows(|ran| assert_eq!(ran.image().tree().keys().collect::<Vec<_>>(), ["two"]))),
    ("--ignore-var-run", IsMoot),
    ("--ignore-var-run=false", IsMoot),
    ("--reproducible", Shows(|ran| assert!(ran.image().config["created"] == "1970-01-01T00:00:00Z"))),
    ("--single-snapshot", Shows(|ran| assert_eq!(ran.image().layer_count(), 1))),
    (
        "--dryrun",
        Shows(|ran| {
            assert!(ran.outcome.stdout.contains("COPY note /one"), "{}", ran.outcome);
            assert!(!ran.kiln.scratch("layout").exists());
        }),
    ),
    ("--kaniko-dir=@/own", Shows(|ran| assert!(ran.kiln.scratch("own/kiln/store/oci-layout").is_file()))),
    ("--no-push", Shows(|ran| assert_eq!(ran.image().layer_count(), 2))),
    (
        "--tar-path=@/a.tar",
        Shows(|ran| assert!(fs::metadata(ran.kiln.scratch("a.tar")).unwrap().len() > 2048)),
    ),
    (
        "--tarPath=@/a.tar",
        Shows(|ran| assert!(fs::metadata(ran.kiln.scratch("a.tar")).unwrap().len() > 2048)),
    ),
    (
        "--oci-layout-path=@/named",
        Shows(|ran| assert_eq!(Image::read(&ran.kiln.scratch("named")).layer_count(), 2)),
    ),
    ("--digest-file=@/new/digest", Shows(|ran| assert_eq!(ran.file("new/digest"), digest(ran)))),
    ("--image-name-with-digest-file=@/name", Shows(|ran| assert_eq!(ran.file("name"), ""))),
    ("--image-name-tag-with-digest-file=@/name", Shows(|ran| assert_eq!(ran.file("name"), ""))),
    (
        "--image-format=docker",
        Shows(|ran| {
            let media_type = ran.image().manifest["mediaType"].as_str().unwrap().to_owned();
            assert_eq!(media_type, "application/vnd.docker.distribution.manifest.v2+json");
        }),
    ),
    (
        "--compression=zstd",
        Shows(|ran| {
            let layer = ran.image().manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned();
            assert!(layer.ends_with("zstd"), "{layer}");
        }),
    ),
    ("--compression-level=9", Shows(|ran| assert_eq!(ran.image().layer_count(), 2))),
    ("--push-ignore-immutable-tag-errors", IsOfRegistries),
    ("--skip-push-permission-check", IsOfRegistries),
    ("--insecure", IsOfRegistries),
    ("--registry-token-service=r.example.org=auth.example.com", IsOfRegistries),
    ("--registry-timeout=30s", IsOfRegistries),
    ("--insecure-pull", IsOfRegistries),
    ("--insecure-registry=r.example.org", IsOfRegistries),
    ("--skip-tls-verify", IsOfRegistries),
    ("--skip-tls-verify-pull", IsOfRegistries),
    ("--skip-tls-verify-registry=r.example.org", IsOfRegistries),
    ("--registry-mirror=m.example.org", IsOfRegistries),
    ("--registry-map=r.example.org=m.example.org", IsOfRegistries),
    ("--skip-default-registry-fallback", IsOfRegistries),
    ("--credential-helpers=env,gitlab", IsOfRegistries),
    ("--push-retry=2", IsOfRegistries),
    ("--image-download-retry=2", IsOfRegistries),
    ("--image-fs-extract-retry=2", IsMoot),
    ("--azure-container-registry-config=/a.json", IsMoot),
    ("--cache-repo=oci:@/cache", Shows(|ran| assert!(!ran.kiln.scratch("cache").exists()))),
    ("--cache-dir=@/none", IsMoot),
    ("--cache-ttl=24h", Shows(|ran| assert_eq!(ran.image().layer_count(), 2))),
    ("--cache-copy-layers", IsMoot),
    ("--cache-run-layers=false", IsMoot),
    ("--no-push-cache", IsMoot),
    ("--snapshot-mode=redo", IsMoot),
    ("--snapshotMode=time", IsMoot),
    ("--use-new-run", IsMoot),
    ("--compressed-caching=false", IsMoot),
    ("--cleanup", IsMoot),
    ("--pre-cleanup", IsMoot),
    ("--preserve-context", IsMoot),
    ("--materialize", IsMoot),
    ("--skip-unused-stages", IsMoot),
    ("--force-build-metadata", IsMoot),
    ("--force", IsMoot),
    ("--verbosity=fatal", Shows(|ran| assert_eq!(ran.outcome.stderr, ""))),
    ("-v=debug", Shows(|ran| assert!(ran.outcome.stderr.contains("level=debug"), "{}", ran.outcome))),
    (
        "--log-format=json",
        Shows(|ran| assert!(ran.outcome.stderr.contains("{\"level\":\"info\""), "{}", ran.outcome)),
    ),
    ("--log-timestamp", Shows(|ran| assert!(ran.outcome.stderr.contains("time=\"20"), "{}", ran.outcome))),
];

/// Those that the tests below run, since they need more than one word, and those of `attacks`, which need a container.
const ELSEWHERE: &[&str] = &[
    "bucket",
    "destination",
    "cache",
    "registry-certificate",
    "registry-client-cert",
    "help",
    "allow-visible-credentials",
    "hardened",
];

#[test]
fn every_flag_does_something_or_says_why_not() {
    let mut tried: BTreeSet<&str> = ELSEWHERE.iter().copied().collect();
    for (word, does) in TABLE {
        let name = word.split('=').next().unwrap();
        tried.insert(name.trim_start_matches('-'));
        let ran = executor(project(), &[word], &[]);
        assert!(ran.outcome.code == Some(0), "{word}\n{}", ran.outcome);
        match does {
            Shows(check) => check(&ran),
            IsOfRegistries => assert_eq!(ran.image().layer_count(), 2, "{word}"),
            IsMoot => {
                let canonical = name.replace("snapshotMode", "snapshot-mode");
                assert_eq!(ran.said(&canonical).len(), 1, "{word}: one line says so\n{}", ran.outcome);
                assert_eq!(ran.image().layer_count(), 2, "{word}");
            }
        }
        // Nothing is left of a run in the project.
        assert!(!ran.context.at("layout").exists());
    }
    let help = run(Command::new(Kiln::program()).args(["executor", "--help"])).ok().stdout;
    let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let flags: BTreeSet<&str> = flags
        .map(|flag| flag.split(['=', '[', ',', '`', '.']).next().unwrap())
        .filter(|flag| !flag.is_empty())
        .collect();
    assert!(flags.len() > 50, "{help}");
    let untried: Vec<&&str> = flags.difference(&tried).collect();
    assert!(untried.is_empty(), "flags that no test runs: {untried:?}");
}

/// kaniko's switches of behaviour: one line for each, whatever it is set to.
#[test]
fn every_feature_flag_and_variable_is_explained() {
    const FEATURES: &str = "ADD_CHECKSUM BUILDKIT_ARG_ENV_PRECEDENCE CACHE_HASH_BLAKE3 CACHE_LOOKAHEAD CACHE_PROBE_AFTER_MISS \
        CHOWN_ON_IMPLICIT_DIRS CLEAN_KANIKO_DIR COPY_AS_ROOT COPY_CHMOD_ON_IMPLICIT_DIRS COPY_SKIP_SPECIAL_FILES \
        CROSS_REPO_MOUNT DEPRECATE_INTER_STAGE_RESTORE DEPRECATE_LAYERLESS_CACHE_ENTRIES DISABLE_HTTP2 EXPAND_HEREDOC \
        HASH_DIR_FRAMING IGNORE_CACHED_MANIFEST INFER_CROSS_STAGE_CACHE_KEY NATIVE_COPY NO_PROPAGATE_ANNOTATIONS \
        OCI_SCRATCH_BASE OCI_WARMER PATH_SCOPED_REGISTRY_AUTH PLATFORM_CACHE_KEY PRECOMPILE_DOCKERIGNORE \
        PRESERVE_HARDLINKS PRESERVE_MOUNTED_PATHS RELATIVE_LINK_TARGETS REPRODUCIBLE_PRESERVE_BASE_LAYERS \
        RESOLVE_CACHE_KEY ROLLING_CACHE_KEY RUN_HONOR_GROUP RUN_MOUNT_BIND RUN_VIA_TINI SCOPED_DOCKERIGNORE \
        SECUREJOIN_EXTRACTION SHARED_BASE_CACHE SKIP_CACHED_STAGES SKIP_RELABEL_RECOMPRESS SKIP_WRITE_WHITEOUTS \
        UNTAR_SKIP_ROOT VOLUME_SKIP_MKDIR WARMER_CACHE_LOCK";
    const VARIABLES: &[&str] = &[
        "SNAPSHOT_TIMEOUT_DURATION",
        "BENCHMARK_FILE",
        "STACKLOG_PATH",
        "KANIKO_CLEANUP",
        "KANIKO_PRE_CLEANUP",
        "KANIKO_PRESERVE_CONTEXT",
        "KANIKO_TELEMETRY_ENDPOINT",
        "KANIKO_TELEMETRY_OMIT_DOCKERFILE",
        "KANIKO_IGNORE_ASSERTIONS",
        "UPSTREAM_CLIENT_TYPE",
    ];
    let features: Vec<String> = FEATURES.split_whitespace().map(|name| format!("FF_KANIKO_{name}")).collect();
    let mut variables: Vec<(&str, &str)> = features.iter().map(|name| (name.as_str(), "false")).collect();
    variables.extend(VARIABLES.iter().map(|name| (*name, "1")));
    let ran = executor(project(), &[], &variables);
    assert_eq!(ran.outcome.code, Some(0), "{}", ran.outcome);
    for (name, _) in &variables {
        let exact = ran.said(name).into_iter().filter(|line| {
            let rest = line.split_once(name).unwrap().1;
            rest.starts_with('=') || rest.starts_with(':')
        });
        assert_eq!(exact.count(), 1, "{name}\n{}", ran.outcome);
        assert!(!ran.said(name)[0].contains("does not know"), "{name}");
    }
    let unknown = executor(project(), &[], &[("FF_KANIKO_SOMETHING_NEW", "true")]);
    assert!(unknown.said("FF_KANIKO_SOMETHING_NEW")[0].contains("does not know"), "{}", unknown.outcome);
    // Those that do something.
    let plan = executor(project(), &[], &[("KANIKO_PRINT_PLAN", "true")]);
    assert!(plan.outcome.stdout.contains("COPY note /one"), "{}", plan.outcome);
    assert_eq!(plan.image().layer_count(), 2);
    let elsewhere = executor(project(), &[], &[("KANIKO_DIR", "@/own")]);
    assert!(elsewhere.kiln.scratch("own/kiln/store/oci-layout").is_file(), "{}", elsewhere.outcome);
    let silent = executor(
        project(),
        &["--destination=127.0.0.1:1/a", "--no-push=true"],
        &[("KANIKO_NO_PUSH", "false")],
    );
    assert_eq!(silent.outcome.code, Some(0), "{}", silent.outcome);
    let silent = executor(project(), &["--destination=127.0.0.1:1/a"], &[("KANIKO_NO_PUSH", "true")]);
    assert_eq!(silent.outcome.code, Some(0), "{}", silent.outcome);
}

/// What is wrong ends the build with kaniko's code, and is named.
#[test]
fn what_is_wrong_ends_the_build_with_code_1() {
    for (words, expected) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--context=%", "-d=UPPER"], "UPPER"),
        (&["--dockerfile=None"], "None"),
        (&["--target=none"], "none"),
        (&["--context=/sub", "-b=bucket"], "there is `--context /sub`, too"),
        (&["--context=tar://none.tar"], "none.tar"),
        (&["--reproducible=perhaps"], "perhaps"),
    ] {
        executor(project(), words, &[]).outcome.fails(1, &[expected]);
    }
    let no_destination = run(Command::new(Kiln::program()).args(["executor", "--context=."]));
    no_destination.fails(1, &["you must provide --destination, or use --no-push"]);
}

/// A registry with an authority nobody knows: it is told about, or any certificate will do.
#[test]
fn flags_about_certificates_decide_whom_kiln_talks_to() {
    require!(Busybox, Program("openssl"));
    let registry = Registry::start(&Options { password: true, tls: true, ..Options::default() });
    let config = registry.docker_config(USER, PASSWORD);
    let variables = [("DOCKER_CONFIG", config.path().to_str().unwrap())];
    let destination = format!("--destination={}", registry.image("app:1"));
    let push = |words: &[&str]| {
        executor(project(), &[&[destination.as_str()][..], words].concat(), &variables).outcome
    };
    push(&[]).fails(1, &["certificate"]);
    push(&["--skip-tls-verify-pull"]).fails(1, &["certificate"]);
    push(&["--skip-tls-verify"]).ok();
    push(&[&format!("--skip-tls-verify-registry={}", registry.address())]).ok();
    push(&["--skip-tls-verify-registry=r.example.org"]).fails(1, &["certificate"]);
    let authority = format!("={}", registry.authority().display());
    push(&[&format!("--registry-certificate={}{authority}", registry.address())]).ok();
    push(&[&format!("--registry-certificate=r.example.org{authority}")]).fails(1, &["certificate"]);
    let pair = format!("--registry-client-cert={}=/none.pem,/none.key", registry.address());
    push(&[&pair]).fails(1, &["/none.pem"]);
    // And pulls: the image that was pushed is a base.
    let from = format!("FROM {}\nCOPY note /more\n", registry.image("app:1"));
    let pull = |words: &[&str]| {
        let context = Context::new(&from).file("note", "n\n");
        executor(context, words, &variables).outcome
    };
    pull(&[]).fails(1, &["certificate"]);
    pull(&["--skip-tls-verify-pull"]).ok();
    pull(&["--skip-tls-verify"]).ok();
}

/// Docker Hub is never asked: its mirror has the image, or there is nobody else to ask.
#[test]
fn mirrors_stand_in_for_registries() {
    require!(Busybox, Program("openssl"));
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "library/mirrored:1");
    registry.push(&base::layout("busybox"), "latest", "team/mapped:1");
    let build = |from: &str, words: &[&str], variables: &[(&str, &str)]| {
        executor(Context::new(&format!("FROM {from}\nLABEL a=b\n")), words, variables).outcome
    };
    let mirror = format!("--registry-mirror={}", registry.address());
    build("mirrored:1", &[&mirror, "--skip-default-registry-fallback"], &[]).ok();
    build("absent:1", &[&mirror, "--skip-default-registry-fallback"], &[]).fails(1, &["absent"]);
    build(
        "mirrored:1",
        &["--skip-default-registry-fallback"],
        &[("KANIKO_REGISTRY_MIRROR", registry.address())],
    )
    .ok();
    let map = format!("nobody.example.org={}", registry.address());
    build("nobody.example.org/team/mapped:1", &[&format!("--registry-map={map}")], &[]).ok();
    build("nobody.example.org/team/mapped:1", &[], &[("KANIKO_REGISTRY_MAP", &map)]).ok();
}

/// The warmer's directory spares the download of base layers, and only of them.
#[test]
fn the_warmers_images_are_not_downloaded_again() {
    require!(Busybox, Program("openssl"));
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "base:1");
    let context =
        || Context::new(&format!("FROM {}\nCOPY note /n\n", registry.image("base:1"))).file("note", "n\n");
    let kiln = Kiln::new();
    let (cache, dockerfile) = (kiln.scratch("cache"), context());
    let mut warmer = Command::new(Kiln::program());
    warmer.env_clear().env("HOME", kiln.scratch("home")).env("KILN_ROOT", kiln.store());
    warmer.arg("warmer").arg(format!("--cache-dir={}", cache.display()));
    run(warmer.arg(format!("--dockerfile={}", dockerfile.at("Dockerfile").display()))).ok();
    let image = Image::read(&cache);
    let layer = image.manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(image.layer_count(), 1);
    let downloads = |words: &[&str]| {
        let before = registry.log().len();
        let ran = executor(context(), words, &[]);
        assert_eq!((ran.outcome.code, ran.image().layer_count()), (Some(0), 2), "{}", ran.outcome);
        registry.log()[before..].matches(&format!("blobs/{layer}")).count()
    };
    assert!(downloads(&[]) > 0);
    assert_eq!(downloads(&[&format!("--cache-dir={}", cache.display())]), 0);
}

/// A second build takes its steps from the cache, wherever it is.
#[test]
fn the_cache_flags_spare_the_second_build_its_steps() {
    require!(Busybox, Program("openssl"));
    let registry = Registry::open();
    let kiln = Kiln::new();
    let local = format!("--cache-repo=oci:{}", kiln.scratch("cache").display());
    let destination = format!("--destination={}", registry.image("app:1"));
    for words in [&["--cache", &local][..], &["--cache=true", &destination]] {
        let used = |ran: &Ran| ran.outcome.stderr.matches("Using caching version").count();
        let first = executor(project(), words, &[]);
        assert_eq!((first.outcome.code, used(&first)), (Some(0), 0), "{}", first.outcome);
        let second = executor(project(), words, &[]);
        assert_eq!((second.outcome.code, used(&second)), (Some(0), 2), "{}", second.outcome);
    }
    assert!(!registry.tags("app/cache").is_empty(), "kaniko's default place");
    let second = executor(project(), &["--cache", "--cache-ttl=0s", &local], &[]);
    assert!(!second.outcome.stderr.contains("Using caching version"), "{}", second.outcome);
}
