//! Debian's `docker-registry` (distribution 2.8), started on a port of its own with its files in a
//! temporary directory.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How it is set up.
#[derive(Default)]
pub struct Setup {
    /// A user and a password.
    pub htpasswd: Option<(&'static str, &'static str)>,
    /// Certificate, key and, to ask clients for certificates, their authority.
    pub tls: Option<(PathBuf, PathBuf, Option<PathBuf>)>,
    /// Realm of a token service and the certificate its tokens are signed with.
    pub token: Option<(String, PathBuf)>,
    /// The registry this one is a pull-through cache of.
    pub proxy: Option<String>,
    pub read_only: bool,
}

/// A running registry; ends when dropped.
pub struct Distribution {
    child: Child,
    pub port: u16,
    pub directory: tempfile::TempDir,
}

impl Distribution {
    /// Starts one, or returns nothing where the program is missing and tests may be skipped.
    pub fn start(setup: &Setup) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            let required = std::env::var("KILN_TEST_REQUIRE").is_ok_and(|text| text == "all");
            assert!(!required, "docker-registry is not installed");
            eprintln!("skipped: docker-registry is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let file = directory.path().join("config.yml");
        std::fs::write(&file, configuration(setup, directory.path(), port)).expect("it can be written");
        let log = std::fs::File::create(directory.path().join("log")).expect("it can be created");
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child, port, directory })
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the registry has logged, once it is silent: it answers first and writes that down a little later.
    pub fn log(&self) -> String {
        read_when_quiet(&self.directory.path().join("log"))
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long nothing is logged when all is said.
const QUIET: Duration = Duration::from_millis(250);

/// Reads a log that nobody has written to for a moment.
pub fn read_when_quiet(path: &Path) -> String {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    let (began, mut log) = (Instant::now(), read());
    while began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(QUIET);
        let now = read();
        if now.len() == log.len() {
            break;
        }
        log = now;
    }
    log
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    listener.local_addr().expect("a listener has an address").port()
}

fn configuration(setup: &Setup, directory: &Path, port: u16) -> String {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n",
        directory.join("data").display()
    );
    if setup.read_only {
        text.push_str("  maintenance:\n    readonly:\n      enabled: true\n");
    }
    let _ = write!(text, "http:\n  addr: 127.0.0.1:{port}\n");
    if let Some((certificate, key, clients)) = &setup.tls {
        let _ =
            write!(text, "  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        if let Some(authority) = clients {
            let _ = write!(text, "    clientcas:\n      - {}\n", authority.display());
        }
    }
    if let Some((user, password)) = setup.htpasswd {
        let output = Command::new("htpasswd")
            .args(["-Bbn", user, password])
            .output()
            .expect("htpasswd runs (package apache2-utils)");
        std::fs::write(directory.join("htpasswd"), output.stdout).expect("it can be written");
        let path = directory.join("htpasswd");
        let _ = write!(text, "auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display());
    }
    if let Some((realm, bundle)) = &setup.token {
        let _ = write!(
            text,
            "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: kiln-tests\n    rootcertbundle: {}\n",
            bundle.display()
        );
    }
    if let Some(remote) = &setup.proxy {
        let _ = write!(text, "proxy:\n  remoteurl: {remote}\n");
    }
    text
}

/// Certificates made with openssl: an authority, a server's for 127.0.0.1 and localhost, and a client's.
pub struct Certificates {
    pub directory: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        Self::make_for("IP:127.0.0.1,DNS:localhost")
    }

    /// The same with a server certificate for other names: `DNS:a.example,DNS:b.example`.
    pub fn make_for(names: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let this = Self { directory };
        this.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=kiln test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        for (name, extension) in [
            ("server", format!("subjectAltName={names}\nextendedKeyUsage=serverAuth\n")),
            ("other", "subjectAltName=DNS:other.example\nextendedKeyUsage=serverAuth\n".to_owned()),
            ("client", "extendedKeyUsage=clientAuth\n".to_owned()),
        ] {
            let (key, request, certificate) =
                (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
            let extensions = format!("{name}.ext");
            std::fs::write(this.path(&extensions), extension).expect("it can be written");
            this.openssl(&[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &key,
                "-out",
                &request,
            ]);
            this.openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "30",
                "-extfile",
                &extensions,
                "-out",
                &certificate,
            ]);
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it was made")
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
