//! Registries as people run them, through the command line: kiln builds, pushes and pulls, and skopeo reads and writes
//! the same repositories.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::need::Program;
use crate::support::server::distribution::{Certificates, Distribution, Setup};
use crate::support::server::fault::{Auth, FaultRegistry};
use crate::support::server::tokens::TokenService;
use crate::support::{Context, Image, Kiln, Outcome, run};

/// How kiln and skopeo are told to reach a registry.
struct Client {
    kiln: Kiln,
    /// Options for kiln.
    options: Vec<String>,
    variables: Vec<(String, String)>,
    /// Options for skopeo's `inspect`; `--src-` and `--dest-` go before them for `copy`.
    skopeo: Vec<String>,
}

impl Client {
    fn new() -> Self {
        Self { kiln: Kiln::new(), options: Vec::new(), variables: Vec::new(), skopeo: Vec::new() }
    }

    fn option(mut self, text: impl Into<String>) -> Self {
        self.options.push(text.into());
        self
    }

    fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn skopeo(mut self, option: impl Into<String>) -> Self {
        self.skopeo.push(option.into());
        self
    }

    /// Writes a file below kiln's home directory.
    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.kiln.scratch(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Writes docker's `config.json` with an account for `host`.
    fn login(self, host: &str, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {host: {"auth": auth}}}).to_string();
        self.file("config.json", config).skopeo(format!("--creds={user}:{password}"))
    }

    fn build(&self, context: &Context, arguments: &[&str]) -> Outcome {
        let options: Vec<&str> =
            self.options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let mut command = self.kiln.build_command(context.path(), &options);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        run(&mut command)
    }

    /// Builds something from nothing and pushes it.
    fn push(&self, reference: &str) -> Outcome {
        let context = Context::new("FROM scratch\nCOPY one two /files/\nLABEL made.by=kiln\n")
            .file("one", "1\n")
            .file("two", vec![7; 3 << 20]);
        self.build(&context, &["--push", "--tag", reference, "--build-arg=SOURCE_DATE_EPOCH=1700000000"])
    }

    /// Builds on an image and writes the result to a layout, so that every blob of the base is read.
    fn pull(&self, reference: &str) -> (Outcome, Image) {
        let layout = self.kiln.scratch("pulled");
        let _ = fs::remove_dir_all(&layout);
        let outcome = self.try_pull(reference, &layout).ok();
        (outcome, Image::read(&layout))
    }

    fn try_pull(&self, reference: &str, layout: &Path) -> Outcome {
        let context = Context::new(&format!("FROM {reference}\nLABEL pulled.by=kiln\n"));
        self.build(&context, &[&format!("--output=type=oci,dest={},tar=false", layout.display())])
    }

    /// What skopeo says of an image.
    fn inspect(&self, reference: &str) -> Value {
        let mut command = Command::new("skopeo");
        command.arg("inspect").args(&self.skopeo).arg(format!("docker://{reference}"));
        serde_json::from_str(&run(&mut command).ok().stdout).unwrap()
    }

    fn copy(&self, from: &str, to: &str) {
        let options = ["src", "dest"].iter().flat_map(|side| {
            self.skopeo.iter().map(move |option| option.replacen("--", &format!("--{side}-"), 1))
        });
        let (from, to) = (format!("docker://{from}"), format!("docker://{to}"));
        run(Command::new("skopeo").args(["copy", "-q"]).args(options).args([from, to])).ok();
    }

    /// kiln pushes, skopeo reads and writes, kiln pulls what skopeo wrote.
    #[track_caller]
    fn round_trip(&self, host: &str) {
        let (ours, theirs) = (format!("{host}/team/app:1"), format!("{host}/team/copied:2"));
        let digest = self.push(&ours).ok().stdout.trim().to_owned();
        let seen = self.inspect(&ours);
        assert_eq!(seen["Digest"], digest.as_str());
        assert_eq!(seen["Labels"]["made.by"], "kiln");
        self.copy(&ours, &theirs);
        let (_, image) = self.pull(&theirs);
        let tree = image.tree();
        assert_eq!(tree["files/one"].content, b"1\n");
        assert_eq!(tree["files/two"].content.len(), 3 << 20);
        // Everything is there already: not a byte goes twice.
        let again = self.push(&ours).ok();
        assert_eq!(again.stdout.trim(), digest);
    }
}

fn start(setup: &Setup) -> (Distribution, String) {
    let registry = Distribution::start(setup).expect("`require!` found docker-registry");
    let host = registry.host();
    (registry, host)
}

fn tls(certificates: &Certificates, clients: bool) -> Setup {
    let authority = clients.then(|| certificates.path("ca.crt"));
    Setup {
        tls: Some((certificates.path("server.crt"), certificates.path("server.key"), authority)),
        ..Setup::default()
    }
}

/// A directory for skopeo's `--cert-dir`.
fn certificate_directory(client: &Client, certificates: &Certificates, own: bool) -> String {
    let directory = client.kiln.scratch("skopeo-certs");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("ca.crt"), certificates.read("ca.crt")).unwrap();
    if own {
        fs::write(directory.join("client.cert"), certificates.read("client.crt")).unwrap();
        fs::write(directory.join("client.key"), certificates.read("client.key")).unwrap();
    }
    format!("--cert-dir={}", directory.display())
}

#[test]
fn an_open_one() {
    require!(Program("docker-registry"), Program("skopeo"));
    let (registry, host) = start(&Setup::default());
    Client::new().skopeo("--tls-verify=false").round_trip(&host);
    // HEADs and mounts, no second upload of what is there.
    let uploads = registry.log().matches("http.request.method=PUT").count();
    assert!(uploads > 0, "{}", registry.log());
}

#[test]
fn one_with_passwords_and_robots() {
    require!(Program("docker-registry"), Program("skopeo"), Program("htpasswd"));
    let setup = Setup { htpasswd: Some(("robot$team+ci", "s3:cr:et")), ..Setup::default() };
    let (_registry, host) = start(&setup);
    let known = Client::new().login(&host, "robot$team+ci", "s3:cr:et").skopeo("--tls-verify=false");
    known.round_trip(&host);
    let name = format!("{host}/team/app:1");
    Client::new().push(&name).fails(1, &["not authorized", "kiln login"]);
    let wrong = Client::new().login(&host, "robot$team+ci", "wr0ng").push(&name);
    let wrong = wrong.fails(1, &["not authorized", "config.json"]);
    assert!(!wrong.stderr.contains("wr0ng"), "{wrong}");
    // The variables of one host, in kiln's spelling and in kaniko's.
    let key = host.replace([':', '.'], "_");
    for prefix in ["KILN", "KANIKO"] {
        let named = Client::new()
            .variable(&format!("{prefix}_{key}_USER"), "robot$team+ci")
            .variable(&format!("{prefix}_{key}_PASSWORD"), "s3:cr:et");
        named.push(&name).ok();
    }
}

#[test]
fn one_behind_a_private_authority() {
    require!(Program("docker-registry"), Program("skopeo"), Program("openssl"));
    let certificates = Certificates::make();
    let (registry, host) = start(&tls(&certificates, false));
    let authority = certificates.path("ca.crt").display().to_string();
    let client = Client::new().option(format!("--registry-ca={host}={authority}"));
    let skopeo = certificate_directory(&client, &certificates, false);
    client.skopeo(skopeo).round_trip(&host);
    assert!(registry.log().contains("HTTP/2.0"), "HTTP/2 is spoken where TLS offers it");
    let name = format!("{host}/team/app:1");
    // Each other way to trust it.
    let directory = certificates.directory.path().display().to_string();
    for client in [
        Client::new().option(format!("--registry-ca={authority}")),
        Client::new().variable("SSL_CERT_FILE", &authority),
        Client::new().variable("SSL_CERT_DIR", &directory),
        Client::new().file(&format!(".config/containers/certs.d/{host}/ca.crt"), certificates.read("ca.crt")),
    ] {
        client.push(&name).ok();
    }
    // Untrusted, it is not spoken to, and what to do is said.
    let stranger = Certificates::make();
    let wrong = format!("--registry-ca={host}={}", stranger.path("ca.crt").display());
    Client::new().option(wrong).push(&name).fails(1, &["unknown authority", "--registry-ca"]);
}

#[test]
fn verification_is_waived_for_pushes_or_for_pulls_alone() {
    require!(Program("docker-registry"), Program("skopeo"), Program("openssl"));
    let (certificates, stranger) = (Certificates::make(), Certificates::make());
    let (_registry, host) = start(&tls(&certificates, false));
    let name = format!("{host}/team/app:1");
    // A wrong authority makes certain that nothing but the waiver lets it through.
    let distrust = format!("--registry-ca={host}={}", stranger.path("ca.crt").display());
    let client = |waiver: &str| Client::new().option(&distrust).option(format!("{waiver}={host}"));
    let with = |sides: &str| {
        Client::new().option(&distrust).option(format!("--skip-tls-verify-registry={host}{sides}"))
    };
    with("=push").push(&name).ok();
    let layout = |client: &Client| client.kiln.scratch("layout");
    let push_only = with("=push");
    push_only.try_pull(&name, &layout(&push_only)).fails(1, &["unknown authority"]);
    let pull_only = with("=pull");
    pull_only.pull(&name);
    pull_only.push(&name).fails(1, &["unknown authority"]);
    client("--skip-tls-verify-registry").push(&name).ok();
    client("--insecure-registry").pull(&name);
}

#[test]
fn one_that_wants_client_certificates() {
    require!(Program("docker-registry"), Program("skopeo"), Program("openssl"));
    let certificates = Certificates::make();
    let (_registry, host) = start(&tls(&certificates, true));
    let place = format!(".config/containers/certs.d/{host}");
    let client = Client::new()
        .file(&format!("{place}/ca.crt"), certificates.read("ca.crt"))
        .file(&format!("{place}/client.cert"), certificates.read("client.crt"))
        .file(&format!("{place}/client.key"), certificates.read("client.key"));
    let skopeo = certificate_directory(&client, &certificates, true);
    client.skopeo(skopeo).round_trip(&host);
    let name = format!("{host}/team/app:1");
    let path = |name: &str| certificates.path(name).display().to_string();
    let authority = format!("--registry-ca={host}={}", path("ca.crt"));
    let own = format!("--registry-cert={host}={},{}", path("client.crt"), path("client.key"));
    Client::new().option(&authority).option(own).pull(&name);
    Client::new().option(authority).push(&name).fails(1, &["client certificate", "--registry-client-cert"]);
}

#[test]
fn one_with_signed_tokens_and_scopes() {
    require!(Program("docker-registry"), Program("skopeo"), Program("openssl"));
    let users = [("", "", "pull"), ("ci", "secret", "pull,push"), ("reader", "secret", "pull")];
    let tokens = TokenService::start(&users, 300);
    let certificate = tokens.directory.path().join("token.crt");
    let (_registry, host) = start(&Setup { token: Some((tokens.realm(), certificate)), ..Setup::default() });
    let writer = Client::new().login(&host, "ci", "secret").skopeo("--tls-verify=false");
    writer.round_trip(&host);
    let name = format!("{host}/team/app:1");
    // Anybody may pull; neither anybody nor the reader may push.
    Client::new().pull(&name);
    Client::new().push(&name).fails(1, &["not authorized", "no credential", "kiln login"]);
    Client::new().login(&host, "reader", "secret").push(&name).fails(1, &["may not do this", "config.json"]);
    // Pulled by anybody and pushed by an account of a part of the same host.
    let partly = Client::new().login(&format!("{host}/team"), "ci", "secret");
    let context = Context::new(&format!("FROM {name}\nLABEL a=b\n"));
    partly.build(&context, &["--push", "--tag", &format!("{host}/team/child:1")]).ok();
    partly
        .build(&context, &["--push", "--tag", &format!("{host}/other/child:1")])
        .fails(1, &["not authorized"]);
}

#[test]
fn a_pull_through_cache_is_a_mirror_of_any_registry() {
    require!(Program("docker-registry"), Program("skopeo"));
    let (origin, host) = start(&Setup::default());
    let client = Client::new();
    client.push(&format!("{host}/team/app:1")).ok();
    let (cache, mirror) = start(&Setup { proxy: Some(format!("http://{host}")), ..Setup::default() });
    // A registry that is nowhere, found at its mirror: by option, by kaniko's, by the file of podman.
    let conf = format!(
        "[[registry]]\nprefix = 'nowhere.example'\nlocation = 'nowhere.example'\n[[registry.mirror]]\nlocation = '{mirror}'\n"
    );
    for client in [
        Client::new().option(format!("--registry-mirror=nowhere.example={mirror}")),
        Client::new().option(format!("--registry-map=nowhere.example={mirror}")),
        Client::new().file(".config/containers/registries.conf", &conf),
        Client::new().file("r.conf", &conf).variable("CONTAINERS_REGISTRIES_CONF", "r.conf"),
    ] {
        // A relative path is taken from the working directory, which is the tests' own.
        let client = absolute(client);
        client.option("--skip-default-registry-fallback").pull("nowhere.example/team/app:1");
    }
    // The origin is gone: the cache has what was pulled, and names what it has not.
    drop(origin);
    let client = Client::new()
        .option(format!("--registry-mirror={host}={mirror}"))
        .option("--skip-default-registry-fallback");
    client.pull(&format!("{host}/team/app:1"));
    let gone = client.try_pull(&format!("{host}/team/none:1"), &client.kiln.scratch("none"));
    gone.fails(1, &["team/none"]);
    // A cache takes no pushes.
    Client::new().push(&format!("{mirror}/team/app:2")).fails(1, &[&mirror]);
    drop(cache);
}

/// Makes CONTAINERS_REGISTRIES_CONF a whole path.
fn absolute(mut client: Client) -> Client {
    for (name, value) in &mut client.variables {
        if name == "CONTAINERS_REGISTRIES_CONF" {
            *value = client.kiln.scratch(value).display().to_string();
        }
    }
    client
}

#[test]
fn what_registries_conf_says_holds() {
    require!(Program("docker-registry"));
    let (_registry, host) = start(&Setup::default());
    Client::new().push(&format!("{host}/moved/app:1")).ok();
    let conf = format!(
        "unqualified-search-registries = ['nowhere.example']\n\
         [[registry]]\nprefix = 'old.example/team'\nlocation = '{host}/moved'\n\
         [[registry]]\nprefix = '{host}/secret'\nblocked = true\n"
    );
    let client = || Client::new().file(".config/containers/registries.conf", &conf);
    client().pull("old.example/team/app:1");
    let blocked = client();
    let texts = ["is blocked by", "registries.conf` line 5"];
    blocked.try_pull(&format!("{host}/secret/app:1"), &blocked.kiln.scratch("x")).fails(1, &texts);
    blocked.push(&format!("{host}/secret/app:1")).fails(1, &texts);
    // A drop-in replaces the table of its prefix.
    let drop_in = format!("[[registry]]\nprefix = '{host}/secret'\n");
    let allowed = client().file(".config/containers/registries.conf.d/10-allow.conf", drop_in);
    allowed.push(&format!("{host}/secret/app:1")).ok();
    let broken = Client::new().file(".config/containers/registries.conf", "\n[[registry]]\nprefx = 'a'\n");
    let texts = ["registries.conf` line 3", "prefx", "CONTAINERS_REGISTRIES_CONF"];
    broken.push(&format!("{host}/a:1")).fails(1, &texts);
}

#[test]
fn a_read_only_one_says_so() {
    require!(Program("docker-registry"));
    let (_registry, host) = start(&Setup { read_only: true, ..Setup::default() });
    Client::new().push(&format!("{host}/team/app:1")).fails(1, &["refused", "405"]);
}

#[test]
fn a_tag_that_was_deleted_is_gone_and_can_be_pushed_again() {
    require!(Program("docker-registry"), Program("skopeo"));
    let (_registry, host) = start(&Setup::default());
    let client = Client::new().skopeo("--tls-verify=false");
    let name = format!("{host}/team/app:1");
    client.push(&name).ok();
    run(Command::new("skopeo").args(["delete", "--tls-verify=false", &format!("docker://{name}")])).ok();
    let fresh = Client::new();
    fresh.try_pull(&name, &fresh.kiln.scratch("x")).fails(1, &["was not found", "team/app"]);
    let digest = client.push(&name).ok().stdout.trim().to_owned();
    assert_eq!(client.inspect(&name)["Digest"], digest.as_str());
}

#[test]
fn kanikos_flags_reach_the_same_registries() {
    require!(Program("docker-registry"), Program("openssl"));
    let (certificates, stranger) = (Certificates::make(), Certificates::make());
    let (_registry, host) = start(&tls(&certificates, true));
    let path = |name: &str| certificates.path(name).display().to_string();
    let context = Context::new("FROM scratch\nCOPY one /\n").file("one", "1");
    let execute = |options: &[String]| {
        let kiln = Kiln::new();
        let mut command = Command::new(Kiln::program());
        command.env_clear().env("HOME", kiln.scratch("")).env("PATH", std::env::var_os("PATH").unwrap());
        command.args(["executor", "--force", "--kaniko-dir"]).arg(kiln.scratch("kaniko"));
        command.arg("--dockerfile").arg(context.at("Dockerfile"));
        command.arg("--context").arg(context.path()).arg(format!("--destination={host}/kaniko/app:1"));
        run(command.args(options))
    };
    let own = format!("--registry-client-cert={host}={},{}", path("client.crt"), path("client.key"));
    let authority = format!("--registry-certificate={host}={}", path("ca.crt"));
    execute(&[authority.clone(), own.clone()]).ok();
    execute(&[authority]).fails(1, &["client certificate"]);
    let wrong = format!("--registry-certificate={host}={}", stranger.path("ca.crt").display());
    execute(&[wrong.clone(), own.clone()]).fails(1, &["unknown authority"]);
    execute(&[wrong.clone(), own.clone(), "--skip-tls-verify-pull".to_owned()])
        .fails(1, &["unknown authority"]);
    execute(&[wrong.clone(), own.clone(), "--skip-tls-verify".to_owned()]).ok();
    execute(&[wrong, own, format!("--skip-tls-verify-registry={host}")]).ok();
}

#[test]
fn a_proxy_with_a_password_carries_what_no_proxy_does_not_name() {
    let proxy = FaultRegistry::start();
    let url = format!("http://user:pr0xy@{}", proxy.host());
    let client = |name: &str| {
        Client::new()
            .variable(name, &url)
            .variable("NO_PROXY", "direct.example")
            .option("--insecure-registry=registry.example")
            .option("--insecure-registry=direct.example")
    };
    let pushed = client("http_proxy").push("registry.example/team/app:1").ok();
    assert!(!pushed.stderr.contains("pr0xy"), "{pushed}");
    proxy.with(|state| {
        assert_eq!(state.tags.len(), 1);
        let all = state.log.iter().all(|request| request.header("proxy-authorization").is_some());
        assert!(all, "the proxy is told who we are");
    });
    // HTTPS goes through a tunnel; this proxy digs none.
    client("HTTPS_PROXY")
        .option("--registry-mirror=x.example=y.example")
        .push("tls.example/app:1")
        .fails(1, &["proxy", "HTTPS_PROXY"]);
    proxy.with(|state| assert!(state.log.iter().any(|request| request.method == "CONNECT")));
    let before = proxy.requests().len();
    client("http_proxy").push("direct.example/app:1").fails(1, &["direct.example"]);
    assert_eq!(proxy.requests().len(), before);
}

#[test]
fn an_ipv6_literal_is_a_host() {
    let Ok(registry) = FaultRegistry::start_on("[::1]:0") else { return };
    let name = format!("{}/team/app:1", registry.host());
    Client::new().push(&name).ok();
    let (_, image) = Client::new().pull(&name);
    assert_eq!(image.tree()["files/one"].content, b"1\n");
}

#[test]
fn a_registry_token_and_a_login_of_gitlab() {
    let registry = FaultRegistry::start();
    registry.with(|state| {
        state.auth = Auth::Basic { user: "gitlab-ci-token".to_owned(), password: "job-token".to_owned() };
    });
    let host = registry.host();
    let name = format!("{host}/group/sub/project/app:1");
    let job = Client::new()
        .variable("CI_REGISTRY", &host)
        .variable("CI_REGISTRY_USER", "gitlab-ci-token")
        .variable("CI_REGISTRY_PASSWORD", "job-token");
    job.push(&name).ok();
    Client::new().push(&name).fails(1, &["not authorized"]);
}

#[test]
fn the_tests_that_the_conformance_page_names_exist() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(project.join("docs/registries-conformance.md")).unwrap();
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.split_once("::").filter(|(module, _)| *module != "module") else {
            continue;
        };
        let file = format!("{module}.rs");
        let source = ["src/registry/tests", "tests/it"]
            .iter()
            .find_map(|folder| fs::read_to_string(project.join(folder).join(&file)).ok())
            .unwrap_or_else(|| panic!("there is no module of tests for `{name}`"));
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "there is no test `{name}`");
        named += 1;
    }
    assert!(named > 60, "the page names its tests, found {named}");
}
