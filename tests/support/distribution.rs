//! Real registries: Debian's docker-registry on a free loopback port.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::guard::Guarded;
use super::program::run;
use super::server::distribution::read_when_quiet;

/// The account of registries that ask for one.
pub(crate) const USER: &str = "builder";
/// Its password.
pub(crate) const PASSWORD: &str = "correct horse";
/// An account of the kind that Harbor makes for machines, with the same password.
pub(crate) const ROBOT: &str = "robot$team+kiln";
/// `htpasswd -nbB builder 'correct horse'`: docker-registry reads bcrypt only.
const HTPASSWD: &str = "builder:$2y$05$0LLnu1zAf0BWcoCZ6Tk0LeAnNniFZ9qoeqY/8UllxX6Tvv7cQcla6\n\
                        robot$team+kiln:$2y$05$0LLnu1zAf0BWcoCZ6Tk0LeAnNniFZ9qoeqY/8UllxX6Tvv7cQcla6\n";

/// The address of the bridge that `tools/runners` makes.
const BRIDGE: &str = "10.99.0.1";

/// A running registry.
pub(crate) struct Registry {
    address: String,
    work: PathBuf,
    tls: bool,
    /// Processes in the namespaces of the network that it has for itself: its own, then one for each runner.
    namespaces: Vec<u32>,
    _guard: Guarded,
}

/// What a registry asks of its clients.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) password: bool,
    pub(crate) tls: bool,
    pub(crate) read_only: bool,
    /// That many runners, each in a network namespace of its own beside that of the registry (needs root and `ip`).
    pub(crate) runners: usize,
}

impl Registry {
    /// Plain HTTP, open to everyone.
    pub(crate) fn open() -> Self {
        Self::start(&Options::default())
    }

    /// The one that read-only uses of base images share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(Self::open)
    }

    pub(crate) fn start(options: &Options) -> Self {
        let work = tempfile::Builder::new().prefix("kiln-registry-").tempdir().unwrap().keep();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n  \
             delete: {{enabled: true}}\n",
            work.display()
        );
        if options.read_only {
            config.push_str("  maintenance: {readonly: {enabled: true}}\n");
        }
        let address = if options.runners > 0 { BRIDGE } else { "127.0.0.1" };
        writeln!(config, "http:\n  addr: {address}:0").unwrap();
        if options.tls {
            make_certificates(&work);
            let dir = work.display();
            writeln!(config, "  tls: {{certificate: {dir}/server.pem, key: {dir}/server.key}}").unwrap();
        }
        if options.password {
            fs::write(work.join("htpasswd"), HTPASSWD).unwrap();
            writeln!(config, "auth: {{htpasswd: {{realm: kiln, path: {}/htpasswd}}}}", work.display())
                .unwrap();
        }
        fs::write(work.join("config.yml"), config).unwrap();
        let log = work.join("log");
        let mut server = Command::new("docker-registry");
        if options.runners > 0 {
            server = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/runners"));
            server.args([&options.runners.to_string(), "docker-registry"]);
        }
        server.arg("serve").arg(work.join("config.yml"));
        let mut guard = Guarded::start(&server, &work, &log);
        let address = wait_for_address(&mut guard, &log);
        let text = fs::read_to_string(&log).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("runners: ")).unwrap_or_default();
        let namespaces: Vec<u32> = line.split(' ').filter_map(|pid| pid.parse().ok()).collect();
        assert!(options.runners == 0 || namespaces.len() == options.runners + 1, "{text}");
        Self { address, work, tls: options.tls, namespaces, _guard: guard }
    }

    /// A command of a kiln under test on one of the runners, which are counted from 1.
    pub(crate) fn on(&self, runner: usize, command: &Command) -> Command {
        let mut there = self.enter(runner);
        there.arg(command.get_program()).args(command.get_args());
        // Those commands begin with an empty environment.
        there.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        there
    }

    /// What takes a command to a runner, or to where the registry is: 0.
    fn enter(&self, runner: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.namespaces[runner]));
        command
    }

    /// The bytes that have come to a runner over its network so far, by the kernel's count.
    pub(crate) fn received(&self, runner: usize) -> u64 {
        let path = format!("/proc/{}/net/dev", self.namespaces[runner]);
        let text = fs::read_to_string(path).unwrap();
        let counts = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
        counts.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// skopeo where it reaches this registry.
    fn skopeo(&self, arguments: &[&str]) -> Command {
        if self.namespaces.is_empty() {
            let mut command = Command::new("skopeo");
            command.args(arguments);
            return command;
        }
        let mut command = self.enter(0);
        command.arg("skopeo").args(arguments);
        command
    }

    /// `127.0.0.1:PORT`, or another address where it has runners.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A reference in this registry: `image("app:1")` is `127.0.0.1:PORT/app:1`.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The certificate authority of a TLS registry.
    pub(crate) fn authority(&self) -> PathBuf {
        assert!(self.tls);
        self.work.join("ca.pem")
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// A directory with its authority under the name that skopeo looks for.
    pub(crate) fn authority_directory(&self) -> PathBuf {
        let directory = self.work.join("authorities");
        fs::create_dir_all(&directory).unwrap();
        fs::copy(self.authority(), directory.join("ca.crt")).unwrap();
        directory
    }

    /// A docker configuration directory with this registry's account in it.
    pub(crate) fn docker_config(&self, user: &str, password: &str) -> tempfile::TempDir {
        use base64::Engine as _;
        let directory = tempfile::tempdir().unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {&self.address: {"auth": auth}}});
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        directory
    }

    /// The tags of a repository, by skopeo.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let reference = format!("docker://{}", self.image(repository));
        let listed = run(&mut self.skopeo(&["list-tags", "--tls-verify=false", &reference]));
        if listed.code != Some(0) {
            return Vec::new();
        }
        let value: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
        let tags = value["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
        let mut tags: Vec<String> = tags.collect();
        tags.sort();
        tags
    }

    /// The digest behind a reference, by skopeo.
    pub(crate) fn digest(&self, name: &str) -> String {
        let reference = format!("docker://{}", self.image(name));
        let format = "--format={{.Digest}}";
        let shown = run(&mut self.skopeo(&["inspect", "--tls-verify=false", format, &reference])).ok();
        shown.stdout.trim().to_owned()
    }

    /// Copies an image from here into an OCI layout directory, by skopeo.
    pub(crate) fn pull(&self, name: &str, layout: &Path) {
        let from = format!("docker://{}", self.image(name));
        let to = format!("oci:{}:pulled", layout.display());
        run(&mut self.skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &to])).ok();
    }

    /// Copies an OCI layout's image here, by skopeo.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) {
        let from = format!("oci:{}:{tag}", layout.display());
        let to = format!("docker://{}", self.image(name));
        run(&mut self.skopeo(&["copy", "-q", "--dest-tls-verify=false", &from, &to])).ok();
    }

    /// The file that holds a blob, to be damaged.
    pub(crate) fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.work.join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// The requests so far, one JSON object to a line, once the registry is silent: it answers first and writes that
    /// down a little later.
    pub(crate) fn log(&self) -> String {
        read_when_quiet(&self.work.join("log"))
    }
}

/// With port 0 the kernel chooses; the registry's log says what it got.
fn wait_for_address(guard: &mut Guarded, log: &Path) -> String {
    for _ in 0..200 {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some((_, rest)) = text.split_once("listening on ") {
            let address: String =
                rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':').collect();
            if rest.len() > address.len() {
                return address;
            }
        }
        assert!(guard.is_alive(), "docker-registry ended: {text}");
        thread::sleep(Duration::from_millis(50));
    }
    panic!("docker-registry did not start: {}", fs::read_to_string(log).unwrap_or_default());
}

/// A certificate authority and a server certificate for 127.0.0.1 and localhost.
fn make_certificates(work: &Path) {
    let openssl = |arguments: &str| {
        run(Command::new("openssl").current_dir(work).args(arguments.split(' '))).ok();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 30 -subj /CN=kiln-test-authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=localhost -keyout server.key -out server.csr"));
    fs::write(work.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem",
    );
}
