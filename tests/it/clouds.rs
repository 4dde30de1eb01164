//! Logins of the clouds, as far as a build that pushes: every host of a cloud is played by one server that kiln reaches
//! through a proxy, with certificates of its own authority. No helper program is there.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::need::Program;
use crate::support::server::distribution::Certificates;
use crate::support::server::fault::{Auth, FaultRegistry};
use crate::support::server::http::{Body, Handler, Request, Response, Server};
use crate::support::{Context, Kiln, Outcome, run};

const ACR: &str = "team.azurecr.io";
const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GAR: &str = "europe-docker.pkg.dev";
/// A registry that would like to be taken for Azure's.
const LOOKALIKE: &str = "team.azurecr.io.evil.example";
/// Who else is played.
const OTHERS: [&str; 6] = [
    "login.microsoftonline.com",
    "api.ecr.eu-west-1.amazonaws.com",
    "sts.eu-west-1.amazonaws.com",
    "oauth2.googleapis.com",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
];

/// One request to a host of the cloud.
struct Asked {
    host: String,
    text: String,
}

/// Everything outside of this machine.
struct Internet {
    registry: Arc<dyn Handler>,
    /// By the beginning of host and path: the answer.
    services: Vec<(&'static str, String)>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Handler for Internet {
    fn handle(&self, request: &Request, body: &mut Body<'_>) -> Option<Response> {
        let host = request.header("host").unwrap_or_default().to_owned();
        let place = format!("{host}{}", request.path);
        let headers: Vec<&str> = request.headers.values().map(String::as_str).collect();
        let mut text =
            format!("{} {} {:?} {}", request.method, request.path, request.query, headers.join(" "));
        if let Some((_, answer)) = self.services.iter().find(|(start, _)| place.starts_with(start)) {
            let _ = body.read_to_string(&mut text);
            self.asked.lock().unwrap().push(Asked { host, text });
            return Some(Response::new(200).header("content-type", "application/json").body(answer.clone()));
        }
        self.asked.lock().unwrap().push(Asked { host: host.clone(), text });
        match [ACR, ECR, GAR, LOOKALIKE].contains(&host.as_str()) {
            true => self.registry.handle(request, body),
            false => {
                let _ = std::io::copy(body, &mut std::io::sink());
                Some(Response::new(404))
            }
        }
    }
}

/// A cloud with one registry, and a kiln that reaches it.
struct Cloud {
    registry: FaultRegistry,
    proxy: Server,
    certificates: Certificates,
    asked: Arc<Mutex<Vec<Asked>>>,
    kiln: Kiln,
}

impl Cloud {
    fn new(auth: Auth, services: &[(&'static str, &str)]) -> Self {
        let registry = FaultRegistry::start();
        registry.with(|state| state.auth = auth);
        let names: Vec<String> =
            [ACR, ECR, GAR, LOOKALIKE].iter().chain(&OTHERS).map(|name| format!("DNS:{name}")).collect();
        let certificates = Certificates::make_for(&names.join(","));
        let chain = CertificateDer::pem_slice_iter(&certificates.read("server.crt"))
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(&certificates.read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let services = services.iter().map(|(start, answer)| (*start, (*answer).to_owned())).collect();
        let internet = Internet { registry: registry.handler(), services, asked: asked.clone() };
        let proxy = Server::start_proxy(Arc::new(tls), Arc::new(internet));
        Self { registry, proxy, certificates, asked, kiln: Kiln::new() }
    }

    /// Builds something and pushes it to a host, with variables and nothing else to log in with.
    fn push(&self, host: &str, variables: &[(&str, &str)]) -> Outcome {
        let context = Context::new("FROM scratch\nCOPY one /\n").file("one", "1\n");
        let name = format!("{host}/team/app:1");
        let mut command = self.kiln.build_command(context.path(), &["--push", "--tag", &name]);
        command.env("HTTPS_PROXY", format!("http://{}", self.proxy.host()));
        command.env("SSL_CERT_FILE", self.certificates.path("ca.crt"));
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        run(command.envs(variables.iter().copied()))
    }

    /// Fails unless the image has arrived.
    #[track_caller]
    fn arrived(&self) {
        self.registry.with(|state| assert_eq!(state.tags.len(), 1, "the tag is there"));
    }

    /// Fails if any host but `host` was shown `secret`.
    #[track_caller]
    fn only_for(&self, secret: &str, host: &str) {
        let asked = self.asked.lock().unwrap();
        let encoded = STANDARD.encode(secret);
        let shown = asked.iter().filter(|asked| asked.text.contains(secret) || asked.text.contains(&encoded));
        let hosts: Vec<&str> = shown.map(|asked| asked.host.as_str()).collect();
        assert!(!hosts.is_empty() && hosts.iter().all(|found| *found == host), "{secret}: {hosts:?}");
    }

    fn hosts(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let mut hosts: Vec<String> = asked.iter().map(|asked| asked.host.clone()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

fn bearer(realm: &str, user: &str, password: &str) -> Auth {
    Auth::Bearer {
        realm: Some(realm.to_owned()),
        users: BTreeMap::from([(user.to_owned(), (password.to_owned(), "pull,push".to_owned()))]),
        refresh: BTreeMap::from([("acr-refresh-token".to_owned(), user.to_owned())]),
        life: Duration::from_secs(300),
    }
}

/// A file in kiln's home directory; its path.
fn file(cloud: &Cloud, name: &str, content: &str) -> String {
    let path = cloud.kiln.scratch(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

const ENTRA: (&str, &str) =
    ("login.microsoftonline.com/tenant/oauth2/v2.0/token", r#"{"access_token":"entra-token"}"#);
const EXCHANGE: (&str, &str) =
    ("team.azurecr.io/oauth2/exchange", r#"{"refresh_token":"acr-refresh-token"}"#);

fn azure() -> Cloud {
    Cloud::new(bearer("https://team.azurecr.io/token", "ci", "-"), &[ENTRA, EXCHANGE])
}

#[test]
fn azure_takes_a_client_secret_a_federated_token_and_a_managed_identity() {
    require!(Program("openssl"));
    let tenant = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")];
    let cloud = azure();
    cloud.push(ACR, &[tenant[0], tenant[1], ("AZURE_CLIENT_SECRET", "s3cret-of-azure")]).ok();
    cloud.arrived();
    cloud.only_for("s3cret-of-azure", "login.microsoftonline.com");
    cloud.only_for("entra-token", ACR);
    cloud.only_for("POST /token", ACR);

    let cloud = azure();
    let token = file(&cloud, "federated", "a-federated-token\n");
    cloud.push(ACR, &[tenant[0], tenant[1], ("AZURE_FEDERATED_TOKEN_FILE", &token)]).ok();
    cloud.arrived();
    cloud.only_for("a-federated-token", "login.microsoftonline.com");

    let cloud = azure();
    let metadata = metadata(&[("/msi", r#"{"access_token":"entra-token"}"#)]);
    let endpoint = format!("http://{}/msi", metadata.host());
    cloud.push(ACR, &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "h")]).ok();
    cloud.arrived();
}

#[test]
fn a_host_that_looks_like_azures_gets_nothing() {
    require!(Program("openssl"));
    let cloud = azure();
    let variables = [
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", "s3cret-of-azure"),
    ];
    cloud.push(LOOKALIKE, &variables).fails(1, &["not authorized", LOOKALIKE]);
    // Its realm is Azure's true registry: that one is asked, by nobody in particular.
    assert!(!cloud.hosts().contains(&"login.microsoftonline.com".to_owned()), "{:?}", cloud.hosts());
    let asked = cloud.asked.lock().unwrap();
    assert!(asked.iter().all(|asked| !asked.text.contains("s3cret") && !asked.text.contains("Basic ")));
}

const ECR_ANSWER: &str = r#"{"authorizationData":[{"authorizationToken":"QVdTOmVjci1wYXNzd29yZA=="}]}"#;
const API: (&str, &str) = ("api.ecr.eu-west-1.amazonaws.com/", ECR_ANSWER);
const KEYS: &str = r#"{"AccessKeyId":"AKIAROLE","SecretAccessKey":"secret-key","Token":"session-token"}"#;

fn amazon(services: &[(&'static str, &str)]) -> Cloud {
    let auth = Auth::Basic { user: "AWS".to_owned(), password: "ecr-password".to_owned() };
    Cloud::new(auth, &[&[API], services].concat())
}

#[test]
fn amazon_takes_keys_a_profile_a_web_identity_and_the_roles_of_containers_and_instances() {
    require!(Program("openssl"));
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "secret-key")];
    let cloud = amazon(&[]);
    cloud.push(ECR, &keys).ok();
    cloud.arrived();
    cloud.only_for("Credential=AKIAENV/", "api.ecr.eu-west-1.amazonaws.com");
    cloud.only_for("AWS:ecr-password", ECR);
    assert!(cloud.asked.lock().unwrap().iter().all(|asked| !asked.text.contains("secret-key")));

    let sts = r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{"Credentials":
        {"AccessKeyId":"AKIAWEB","SecretAccessKey":"s","SessionToken":"session-token"}}}}"#;
    let cloud = amazon(&[("sts.eu-west-1.amazonaws.com/", sts)]);
    let token = file(&cloud, "token", "a-web-identity");
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/ci");
    cloud.push(ECR, &[role, ("AWS_WEB_IDENTITY_TOKEN_FILE", &token)]).ok();
    cloud.arrived();
    cloud.only_for("a-web-identity", "sts.eu-west-1.amazonaws.com");
    cloud.only_for("Credential=AKIAWEB/", "api.ecr.eu-west-1.amazonaws.com");

    let sts = r#"{"AssumeRoleResponse":{"AssumeRoleResult":{"Credentials":
        {"AccessKeyId":"AKIAASSUMED","SecretAccessKey":"s","SessionToken":"session-token"}}}}"#;
    let cloud = amazon(&[("sts.eu-west-1.amazonaws.com/", sts)]);
    file(
        &cloud,
        ".aws/credentials",
        "[main]\naws_access_key_id = AKIAMAIN\naws_secret_access_key = secret-key\n",
    );
    file(&cloud, ".aws/config", "[profile ci]\nrole_arn = arn:aws:iam::1:role/ci\nsource_profile = main\n");
    cloud.push(ECR, &[("AWS_PROFILE", "ci")]).ok();
    cloud.arrived();
    cloud.only_for("Credential=AKIAMAIN/", "sts.eu-west-1.amazonaws.com");
    cloud.only_for("Credential=AKIAASSUMED/", "api.ecr.eu-west-1.amazonaws.com");

    let cloud = amazon(&[]);
    let container = metadata(&[("/v1/credentials", KEYS)]);
    let address = format!("http://{}/v1/credentials", container.host());
    cloud.push(ECR, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address)]).ok();
    cloud.arrived();

    let cloud = amazon(&[]);
    let role = "/latest/meta-data/iam/security-credentials/runner";
    let instance =
        metadata(&[("/latest/api/token", "imds"), (role, KEYS), (&role[..role.len() - 6], "runner")]);
    let address = format!("http://{}", instance.host());
    let variables =
        [("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    cloud.push(ECR, &variables).ok();
    cloud.arrived();
    cloud.only_for("Credential=AKIAROLE/", "api.ecr.eu-west-1.amazonaws.com");
}

fn google(services: &[(&'static str, &str)]) -> Cloud {
    Cloud::new(bearer("https://europe-docker.pkg.dev/token", "oauth2accesstoken", "ya29-token"), services)
}

#[test]
fn google_takes_a_key_a_workload_identity_and_the_metadata_server() {
    require!(Program("openssl"));
    let answer = r#"{"access_token":"ya29-token","expires_in":3599}"#;
    let cloud = google(&[("oauth2.googleapis.com/token", answer)]);
    let account = serde_json::json!({
        "type": "service_account", "client_email": "ci@p.iam.gserviceaccount.com",
        "private_key": String::from_utf8(run_openssl(&["genpkey", "-algorithm", "RSA"])).unwrap(),
    });
    let key = file(&cloud, "key.json", &account.to_string());
    cloud.push(GAR, &[("GOOGLE_APPLICATION_CREDENTIALS", &key)]).ok();
    cloud.arrived();
    cloud.only_for("oauth2accesstoken:ya29-token", GAR);

    let cloud = google(&[
        ("sts.googleapis.com/v1/token", r#"{"access_token":"sts-token"}"#),
        ("iamcredentials.googleapis.com/", r#"{"accessToken":"ya29-token"}"#),
    ]);
    let token = file(&cloud, "oidc", "an-oidc-token");
    let account = serde_json::json!({
        "type": "external_account", "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
        "credential_source": {"file": token},
    });
    let wif = file(&cloud, "wif.json", &account.to_string());
    cloud.push(GAR, &[("GOOGLE_APPLICATION_CREDENTIALS", &wif)]).ok();
    cloud.arrived();
    cloud.only_for("an-oidc-token", "sts.googleapis.com");
    cloud.only_for("Bearer sts-token", "iamcredentials.googleapis.com");

    let cloud = google(&[]);
    let server = metadata(&[("/computeMetadata/v1/instance/service-accounts/default/token", answer)]);
    cloud.push(GAR, &[("GCE_METADATA_HOST", &server.host())]).ok();
    cloud.arrived();
}

#[test]
fn a_cloud_that_says_no_is_told_and_its_secret_is_not() {
    require!(Program("openssl"));
    // Nobody answers where the token should come from.
    let cloud = Cloud::new(bearer("https://team.azurecr.io/token", "ci", "-"), &[]);
    let variables = [
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", "s3cret-of-azure"),
    ];
    let outcome = cloud.push(ACR, &variables).fails(1, &["its cloud gave no credential", "Entra ID", "404"]);
    assert!(!outcome.stderr.contains("s3cret-of-azure"), "{outcome}");
}

/// A metadata service on loopback, as variables may name one; by the beginning of the path.
fn metadata(answers: &[(&str, &str)]) -> Server {
    struct Metadata(Vec<(String, String)>);
    impl Handler for Metadata {
        fn handle(&self, request: &Request, body: &mut Body<'_>) -> Option<Response> {
            let _ = std::io::copy(body, &mut std::io::sink());
            let found = self.0.iter().find(|(start, _)| request.path.starts_with(start));
            Some(found.map_or(Response::new(404), |(_, answer)| Response::new(200).body(answer.clone())))
        }
    }
    let answers = answers.iter().map(|(start, answer)| ((*start).to_owned(), (*answer).to_owned())).collect();
    Server::start(Arc::new(Metadata(answers)))
}

fn run_openssl(words: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(words).output().unwrap();
    assert!(output.status.success());
    output.stdout
}
