//! Real registries: Debian's docker-registry on a free loopback port.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::guard::Guarded;
use super::program::run;

/// The account of registries that ask for one.
pub(crate) const USER: &str = "builder";
/// Its password.
pub(crate) const PASSWORD: &str = "correct horse";
/// An account of the kind that Harbor makes for machines, with the same password.
pub(crate) const ROBOT: &str = "robot$team+kiln";
/// `htpasswd -nbB builder 'correct horse'`: docker-registry reads bcrypt only.
const HTPASSWD: &str = "builder:$2y$05$0LLnu1zAf0BWcoCZ6Tk0LeAnNniFZ9qoeqY/8UllxX6Tvv7cQcla6\n\
                        robot$team+kiln:$2y$05$0LLnu1zAf0BWcoCZ6Tk0LeAnNniFZ9qoeqY/8UllxX6Tvv7cQcla6\n";

/// A running registry.
pub(crate) struct Registry {
    address: String,
    work: PathBuf,
    tls: bool,
    _guard: Guarded,
}

/// What a registry asks of its clients.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) password: bool,
    pub(crate) tls: bool,
    pub(crate) read_only: bool,
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
        config.push_str("http:\n  addr: 127.0.0.1:0\n");
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
        server.arg("serve").arg(work.join("config.yml"));
        let mut guard = Guarded::start(&server, &work, &log);
        let address = wait_for_address(&mut guard, &log);
        Self { address, work, tls: options.tls, _guard: guard }
    }

    /// `127.0.0.1:PORT`.
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
        let listed = run(Command::new("skopeo").args(["list-tags", "--tls-verify=false", &reference]));
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
        let shown =
            run(Command::new("skopeo").args(["inspect", "--tls-verify=false", format, &reference])).ok();
        shown.stdout.trim().to_owned()
    }

    /// Copies an image from here into an OCI layout directory, by skopeo.
    pub(crate) fn pull(&self, name: &str, layout: &Path) {
        let from = format!("docker://{}", self.image(name));
        let to = format!("oci:{}:pulled", layout.display());
        run(Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &from, &to])).ok();
    }

    /// Copies an OCI layout's image here, by skopeo.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) {
        let from = format!("oci:{}:{tag}", layout.display());
        let to = format!("docker://{}", self.image(name));
        run(Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &from, &to])).ok();
    }

    /// The file that holds a blob, to be damaged.
    pub(crate) fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.work.join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// The requests so far, one JSON object to a line, once the registry is silent: it answers first and writes that
    /// down a little later.
    pub(crate) fn log(&self) -> String {
        let read = || fs::read_to_string(self.work.join("log")).unwrap();
        let (began, mut log) = (Instant::now(), read());
        while began.elapsed() < Duration::from_secs(5) {
            thread::sleep(QUIET);
            let now = read();
            if now.len() == log.len() {
                break;
            }
            log = now;
        }
        log
    }
}

/// How long nothing is logged when all is said.
const QUIET: Duration = Duration::from_millis(250);

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
