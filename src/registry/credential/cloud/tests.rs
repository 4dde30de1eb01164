//! The flows of the clouds against services that answer from a script.

use std::process::Command;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::own_files::OwnFiles;
use crate::registry::runtime::Runtime;
use crate::registry::secret::Secret;

/// Answers by the beginning of the URL, and keeps what was asked.
#[derive(Default)]
struct Script {
    answers: Vec<(&'static str, u16, String)>,
    asked: Mutex<Vec<Ask>>,
}

impl Sender for Script {
    fn send<'a>(&'a self, ask: Ask) -> Pin<Box<dyn Future<Output = Reply> + 'a>> {
        let found = self.answers.iter().find(|(url, _, _)| ask.url.as_str().starts_with(url));
        let reply = match found {
            Some((_, status, body)) => Ok((*status, body.clone().into_bytes())),
            None => Err("connection refused".to_owned()),
        };
        self.asked.lock().unwrap().push(ask);
        Box::pin(async move { reply })
    }
}

impl Script {
    fn new(answers: &[(&'static str, u16, &str)]) -> Self {
        let answers = answers.iter().map(|(url, status, body)| (*url, *status, (*body).to_owned())).collect();
        Self { answers, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|ask| format!("{} {} {}", ask.method, ask.url, ask.body)).collect()
    }
}

fn sources(enabled: &[CloudProvider], environment: &BTreeMap<String, String>) -> CredentialSources {
    let (cloud, environment) = (enabled.to_vec(), environment.clone());
    CredentialSources { cloud, environment, ..CredentialSources::default() }
}

fn find(script: &Script, variables: &[(&str, &str)], registry: &str) -> Option<Credential> {
    let environment = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let enabled = [CloudProvider::Azure, CloudProvider::Amazon, CloudProvider::Google];
    let clouds = Clouds::new(&sources(&enabled, &environment), Reporter::silent());
    let runtime = Runtime::new().unwrap();
    let found = runtime.wait(clouds.find(registry, script));
    // What was given, or not given, is remembered.
    let count = script.asked.lock().unwrap().len();
    assert_eq!(runtime.wait(clouds.find(registry, script)), found);
    assert_eq!(script.asked.lock().unwrap().len(), count);
    found.map(|found| found.credential)
}

#[test]
fn clouds_are_recognised_by_their_whole_host() {
    for (host, provider) in [
        ("team.azurecr.io", CloudProvider::Azure),
        ("team.azurecr.cn", CloudProvider::Azure),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", CloudProvider::Amazon),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", CloudProvider::Amazon),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", CloudProvider::Amazon),
        ("123456789012.dkr-ecr.us-west-2.on.aws", CloudProvider::Amazon),
        ("public.ecr.aws", CloudProvider::Amazon),
        ("gcr.io", CloudProvider::Google),
        ("eu.gcr.io", CloudProvider::Google),
        ("europe-docker.pkg.dev", CloudProvider::Google),
    ] {
        assert_eq!(provider_of(host), Some(provider), "{host}");
    }
    for host in [
        "docker.io",
        "azurecr.io",
        "team.azurecr.io.evil.com",
        "evil-azurecr.io",
        "team.azurecr.io:5000",
        "a.b.azurecr.io",
        "team.azurecr.io@evil.com",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.com",
        "12345678901x.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.evil.com/.amazonaws.com",
        "notgcr.io",
        "gcr.io.evil.com",
        "pkg.dev.evil.com",
    ] {
        assert_eq!(provider_of(host), None, "{host}");
    }
}

#[test]
fn azure_by_client_secret() {
    let script = Script::new(&[
        ("https://login.example/t1/oauth2/v2.0/token", 200, r#"{"access_token":"aad"}"#),
        ("https://team.azurecr.io/oauth2/exchange", 200, r#"{"refresh_token":"acr"}"#),
    ]);
    let variables = [
        ("AZURE_TENANT_ID", "t1"),
        ("AZURE_CLIENT_ID", "c1"),
        ("AZURE_CLIENT_SECRET", "s1"),
        ("AZURE_AUTHORITY_HOST", "https://login.example/"),
    ];
    let found = find(&script, &variables, "team.azurecr.io");
    assert_eq!(found, Some(Credential::Identity(Secret::new("acr"))));
    let asked = script.asked();
    assert!(asked[0].contains("client_secret=s1") && asked[0].contains("containerregistry.azure.net"));
    assert!(asked[1].contains("access_token=aad") && asked[1].contains("service=team.azurecr.io"));
}

#[test]
fn azure_by_federated_token_and_by_managed_identity() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "federated\n").unwrap();
    let exchange = ("https://team.azurecr.io/oauth2/exchange", 200, r#"{"refresh_token":"acr"}"#);
    let script =
        Script::new(&[("https://login.microsoftonline.com/", 200, r#"{"access_token":"aad"}"#), exchange]);
    let variables = [
        ("AZURE_TENANT_ID", "t1"),
        ("AZURE_CLIENT_ID", "c1"),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
    ];
    assert!(find(&script, &variables, "team.azurecr.io").is_some());
    assert!(script.asked()[0].contains("client_assertion=federated"));
    let script =
        Script::new(&[("http://169.254.169.254/metadata/", 200, r#"{"access_token":"aad"}"#), exchange]);
    assert!(find(&script, &[("AZURE_CLIENT_ID", "c1")], "team.azurecr.io").is_some());
    assert!(script.asked()[0].contains("client_id=c1"));
    let script = Script::new(&[("http://127.0.0.1:42/msi", 200, r#"{"access_token":"aad"}"#), exchange]);
    let variables = [("IDENTITY_ENDPOINT", "http://127.0.0.1:42/msi"), ("IDENTITY_HEADER", "h")];
    assert!(find(&script, &variables, "team.azurecr.io").is_some());
    // Nothing set up: no credential, no error.
    assert_eq!(find(&Script::default(), &[], "team.azurecr.io"), None);
}

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// `AWS:token` in base64.
const ECR_ANSWER: &str = r#"{"authorizationData":[{"authorizationToken":"QVdTOnRva2Vu","expiresAt":1.7e9}]}"#;

fn ecr_login() -> Option<Credential> {
    Some(Credential::basic("AWS", Secret::new("token")))
}

#[test]
fn amazon_by_keys() {
    let script = Script::new(&[("https://api.ecr.eu-west-1.amazonaws.com/", 200, ECR_ANSWER)]);
    let variables =
        [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "session")];
    assert_eq!(find(&script, &variables, ECR), ecr_login());
    let asked = script.asked.lock().unwrap();
    let header =
        |name: &str| asked[0].headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
    assert!(header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKID/"));
    assert!(header("authorization").contains("/eu-west-1/ecr/aws4_request"));
    assert_eq!(header("x-amz-security-token"), "session");
}

#[test]
fn amazon_by_web_identity_profile_container_and_instance() {
    let api = ("https://api.ecr.eu-west-1.amazonaws.com/", 200, ECR_ANSWER);
    let keys = r#"{"AccessKeyId":"AKID","SecretAccessKey":"s","Token":"t"}"#;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "jwt").unwrap();
    let sts = r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{"Credentials":{"AccessKeyId":"A","SecretAccessKey":"s","SessionToken":"t"}}}}"#;
    let script = Script::new(&[("https://sts.eu-west-1.amazonaws.com/", 200, sts), api]);
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/ci"),
    ];
    assert_eq!(find(&script, &variables, ECR), ecr_login());
    assert!(script.asked()[0].contains("WebIdentityToken=jwt"));

    let file = directory.path().join("credentials");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id=D\n\n[ci]\n# no\naws_access_key_id = AKCI\naws_secret_access_key = s\n",
    )
    .unwrap();
    let script = Script::new(&[api]);
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
    assert_eq!(find(&script, &[shared, ("AWS_PROFILE", "ci")], ECR), ecr_login());
    assert!(script.asked.lock().unwrap()[0].headers.iter().any(|(_, v)| v.contains("AKCI")));

    let script = Script::new(&[("http://169.254.170.2/v2/credentials/x", 200, keys), api]);
    let home = ("HOME", directory.path().to_str().unwrap());
    let container = [home, ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x")];
    assert_eq!(find(&script, &container, ECR), ecr_login());

    let script = Script::new(&[
        ("http://169.254.169.254/latest/api/token", 200, "imds"),
        ("http://169.254.169.254/latest/meta-data/iam/security-credentials/runner", 200, keys),
        ("http://169.254.169.254/latest/meta-data/iam/security-credentials/", 200, "runner"),
        api,
    ]);
    assert_eq!(find(&script, &[home], ECR), ecr_login());
    assert_eq!(find(&script, &[home, ("AWS_EC2_METADATA_DISABLED", "true")], ECR), None);
}

#[test]
fn amazon_by_profiles_that_lead_elsewhere() {
    let api = ("https://api.ecr.eu-west-1.amazonaws.com/", 200, ECR_ANSWER);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(directory.path().join(".aws")).unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    let home = ("HOME", directory.path().to_str().unwrap());
    write("jwt", "a-web-identity");
    write(".aws/credentials", "[base]\naws_access_key_id = BASE\naws_secret_access_key = s\n");
    write(
        ".aws/config",
        &format!(
            "[default]\nregion = eu-west-1\ns3 =\n  aws_access_key_id = nested\n\
             [profile role]\nrole_arn = arn:r\nsource_profile = base\nexternal_id = x1\n\
             [profile chain]\nrole_arn = arn:c\nsource_profile = role\n\
             [profile env]\nrole_arn = arn:e\ncredential_source = Environment\n\
             [profile web]\nrole_arn = arn:w\nweb_identity_token_file = {}/jwt\n\
             [profile program]\ncredential_process = printf '%s' '{{\"Version\":1,\"AccessKeyId\":\"PROG\",\"SecretAccessKey\":\"s\"}}'\n\
             [profile bad]\ncredential_process = echo no luck >&2; exit 1\n\
             [profile sso]\nsso_session = corp\n\
             [profile round]\nrole_arn = arn:x\nsource_profile = round2\n\
             [profile round2]\nrole_arn = arn:x\nsource_profile = round\n\
             [profile lone]\nrole_arn = arn:x\n",
            home.1
        ),
    );
    let assumed = r#"{"AssumeRoleResponse":{"AssumeRoleResult":{"Credentials":{"AccessKeyId":"ROLE","SecretAccessKey":"s","SessionToken":"t"}}}}"#;
    let sts = ("https://sts.eu-west-1.amazonaws.com/", 200, assumed);
    let signer = |script: &Script, at: usize| {
        let asked = script.asked.lock().unwrap();
        let value = asked[at].headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone();
        value.split(['=', '/']).nth(1).unwrap().to_owned()
    };
    let script = Script::new(&[sts, api]);
    assert_eq!(find(&script, &[home, ("AWS_PROFILE", "role")], ECR), ecr_login());
    assert!(script.asked()[0].contains("RoleArn=arn%3Ar") && script.asked()[0].contains("ExternalId=x1"));
    assert_eq!((signer(&script, 0), signer(&script, 1)), ("BASE".to_owned(), "ROLE".to_owned()));
    let script = Script::new(&[sts, api]);
    assert_eq!(find(&script, &[home, ("AWS_PROFILE", "chain")], ECR), ecr_login());
    assert_eq!(script.asked().len(), 3);
    assert_eq!((signer(&script, 0), signer(&script, 1)), ("BASE".to_owned(), "ROLE".to_owned()));
    let web = assumed.replace("AssumeRole", "AssumeRoleWithWebIdentity");
    let script = Script::new(&[("https://sts.eu-west-1.amazonaws.com/", 200, &web), api]);
    assert_eq!(find(&script, &[home, ("AWS_PROFILE", "web")], ECR), ecr_login());
    assert!(script.asked()[0].contains("WebIdentityToken=a-web-identity"));
    let script = Script::new(&[api]);
    assert_eq!(find(&script, &[home, ("AWS_PROFILE", "program")], ECR), ecr_login());
    assert_eq!(signer(&script, 0), "PROG");
    // Settings below others are not the profile's; without keys the next in the chain is asked.
    assert_eq!(find(&Script::new(&[api]), &[home, ("AWS_EC2_METADATA_DISABLED", "true")], ECR), None);
    for (profile, reason) in [
        ("bad", "failed: no luck"),
        ("sso", "export-credentials"),
        ("round", "circles"),
        ("lone", "source_profile"),
        ("none", "holds no keys"),
        ("env", "no keys"),
    ] {
        let variables: BTreeMap<String, String> =
            [home, ("AWS_PROFILE", profile)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let script = Script::new(&[sts, api]);
        let context = Context { environment: &variables, own_files: &OwnFiles::default(), sender: &script };
        let failed = Runtime::new().unwrap().wait(amazon::login(&context, ECR)).unwrap_err();
        let Failure::Broken(said) = failed else { panic!("{profile}: nothing was said") };
        assert!(said.contains(reason), "{profile}: {said}");
    }
}

#[test]
fn google_by_impersonation() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("adc.json");
    let account = serde_json::json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
        "source_credentials": {
            "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
        },
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let script = Script::new(&[
        ("https://oauth2.googleapis.com/token", 200, r#"{"access_token":"own"}"#),
        ("https://iamcredentials.googleapis.com/", 200, r#"{"accessToken":"final"}"#),
    ]);
    let found = find(&script, &[("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())], "gcr.io");
    assert_eq!(found, Some(Credential::basic("oauth2accesstoken", Secret::new("final"))));
    assert!(script.asked()[0].contains("refresh_token=r"));
}

#[test]
fn google_by_service_account() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("openssl").args(["genpkey", "-algorithm", "RSA"]).output().unwrap();
    let file = directory.path().join("sa.json");
    let account = serde_json::json!({
        "type": "service_account", "client_email": "ci@p.iam.gserviceaccount.com",
        "private_key": String::from_utf8(output.stdout).unwrap(),
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let answer = r#"{"access_token":"ya29","expires_in":3599}"#;
    let script = Script::new(&[("https://oauth2.googleapis.com/token", 200, answer)]);
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())];
    let found = find(&script, &variables, "europe-docker.pkg.dev");
    assert_eq!(found, Some(Credential::basic("oauth2accesstoken", Secret::new("ya29"))));
    // Three parts, and the claims are ours.
    let body = script.asked.lock().unwrap()[0].body.clone();
    let assertion = url::form_urlencoded::parse(body.as_bytes()).find(|(k, _)| k == "assertion").unwrap().1;
    assert_eq!(assertion.split('.').count(), 3);
    // openssl agrees that the key's owner signed it.
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("signed"), signed).unwrap();
    std::fs::write(path("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    std::fs::write(path("key.pem"), account["private_key"].as_str().unwrap()).unwrap();
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl").args(words).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    openssl(&["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"]);
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], "ci@p.iam.gserviceaccount.com");
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
}

#[test]
fn google_by_workload_identity_and_by_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token.json");
    std::fs::write(&token, r#"{"value":"oidc"}"#).unwrap();
    let file = directory.path().join("wif.json");
    let account = serde_json::json!({
        "type": "external_account", "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
        "credential_source": {
            "file": token, "format": {"type": "json", "subject_token_field_name": "value"}
        },
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let script = Script::new(&[
        ("https://sts.googleapis.com/v1/token", 200, r#"{"access_token":"sts"}"#),
        ("https://iamcredentials.googleapis.com/", 200, r#"{"accessToken":"final"}"#),
    ]);
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())];
    let found = find(&script, &variables, "gcr.io");
    assert_eq!(found, Some(Credential::basic("oauth2accesstoken", Secret::new("final"))));
    assert!(script.asked()[0].contains("subject_token=oidc"));
    let answer = r#"{"access_token":"meta","expires_in":100}"#;
    let script = Script::new(&[("http://169.254.169.254/computeMetadata/", 200, answer)]);
    assert!(find(&script, &[], "gcr.io").is_some());
    assert_eq!(find(&Script::default(), &[], "gcr.io"), None);
}

#[test]
fn what_is_broken_is_told_without_secrets() {
    use crate::event::{Event, Report};
    use std::sync::Arc;
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<String>>);
    impl Report for Heard {
        fn report(&self, event: Event) {
            self.0.lock().unwrap().push_str(&format!("{event:?}"));
        }
    }
    let heard = Heard::default();
    let script = Script::new(&[(
        "https://login.microsoftonline.com/",
        401,
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret"}"#,
    )]);
    let environment = BTreeMap::from(
        [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "hunter2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let clouds = Clouds::new(&sources(&[CloudProvider::Azure], &environment), Reporter::new(heard.clone()));
    assert!(Runtime::new().unwrap().wait(clouds.find("team.azurecr.io", &script)).is_none());
    let said = heard.0.lock().unwrap().clone();
    assert!(said.contains("Invalid client secret") && said.contains("team.azurecr.io"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
