use std::fs;

use super::*;
use crate::cli::environment::tests::environment;
use crate::context::{S3Access, S3Credentials};

fn find(text: &str, variables: &[(&str, &str)]) -> Result<Option<ObjectSource>, ExecutorError> {
    let mut environment = environment(variables);
    if environment.var("HOME").is_none() {
        environment.variables.insert("HOME".into(), "/nowhere".into());
    }
    object(text, &environment)
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    find(text, variables).unwrap_err().to_string()
}

const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "i"), ("AWS_SECRET_ACCESS_KEY", "s")];

fn s3(url: &str, variables: &[(&str, &str)]) -> S3Access {
    let variables: Vec<_> = KEY.iter().chain(variables).copied().collect();
    match find(url, &variables).unwrap().unwrap().access {
        ObjectAccess::S3(access) => access,
        other => panic!("expected S3, found {other:?}"),
    }
}

#[test]
fn buckets_and_names_are_kanikos() {
    let parts = |text: &str| {
        let found = find(text, &KEY).unwrap().unwrap();
        (found.bucket, found.key)
    };
    let pair = |bucket: &str, key: &str| (bucket.to_owned(), key.to_owned());
    assert_eq!(parts("s3://bucket/a/b.tar.gz"), pair("bucket", "a/b.tar.gz"));
    assert_eq!(parts("gs://bucket"), pair("bucket", "context.tar.gz"));
    assert_eq!(parts("s3://bucket/"), pair("bucket", "context.tar.gz"));
    assert_eq!(parts("gs://bucket/a%20b+c&d"), pair("bucket", "a b+c&d"));
    assert!(find("https://example.org/a.tar.gz", &[]).unwrap().is_none());
    assert!(find("/workspace", &[]).unwrap().is_none());
    assert!(error("s3://", &KEY).contains("expected a bucket"));
}

#[test]
fn amazons_endpoint_has_its_rules() {
    let plain = s3("s3://bucket/k", &[]);
    assert_eq!((plain.endpoint, plain.path_style, plain.region.as_str()), (None, false, "us-east-1"));
    assert!(s3("s3://Bucket.With.Dots/k", &[]).path_style);
    assert!(s3("s3://bucket/k", &[("S3_ENDPOINT", "http://127.0.0.1:9000")]).path_style);
    let minio = s3("s3://bucket/k", &[("S3_ENDPOINT", "https://minio.example.org/"), ("AWS_REGION", "eu")]);
    assert_eq!(minio.endpoint.as_deref(), Some("https://minio.example.org"));
    assert_eq!((minio.path_style, minio.region.as_str()), (false, "eu"));
    let forced = [("S3_ENDPOINT", "https://minio.example.org"), ("S3_FORCE_PATH_STYLE", "true")];
    assert!(s3("s3://bucket/k", &forced).path_style);
    let china = s3("s3://bucket/k", &[("AWS_DEFAULT_REGION", "cn-north-1")]);
    assert_eq!(china.endpoint.as_deref(), Some("https://s3.cn-north-1.amazonaws.com.cn"));
    assert!(error("s3://b/k", &[("S3_ENDPOINT", "minio:9000")]).contains("expected http://HOST"));
}

#[test]
fn amazons_credentials_come_in_the_libraries_order() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let file = "# keys\n[default]\naws_access_key_id = d\naws_secret_access_key=ds # comment\n\n[ci]\nAWS_ACCESS_KEY_ID=c\n\
                aws_secret_access_key = cs\naws_session_token = ct\n[sso]\nsso_session = x\n";
    fs::write(home.path().join(".aws/credentials"), file).unwrap();
    let config = "[default]\nregion = eu-west-1\ns3 =\n  region = nested\n[profile ci]\nregion = eu-west-2\n";
    fs::write(home.path().join(".aws/config"), config).unwrap();
    let home = home.path().to_str().unwrap();
    let of = |variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().copied().chain([("HOME", home)]).collect();
        match find("s3://bucket/k", &variables).map(|found| found.unwrap().access) {
            Ok(ObjectAccess::S3(access)) => Ok((access.credentials, access.region)),
            Ok(other) => panic!("expected S3, found {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    };
    let key = |id: &str, secret: &str, session: Option<&str>| S3Credentials::Key {
        id: id.to_owned(),
        secret: Hidden(secret.to_owned()),
        session: session.map(|text| Hidden(text.to_owned())),
    };
    assert_eq!(of(&[]).unwrap(), (key("d", "ds", None), "eu-west-1".to_owned()));
    assert_eq!(of(&KEY).unwrap().0, key("i", "s", None));
    let profile = [KEY[0], KEY[1], ("AWS_PROFILE", "ci")];
    assert_eq!(of(&profile).unwrap(), (key("c", "cs", Some("ct")), "eu-west-2".to_owned()));
    assert!(of(&[("AWS_PROFILE", "none")]).unwrap_err().contains("AWS_PROFILE=none"));
    assert!(of(&[("AWS_PROFILE", "sso")]).unwrap_err().contains("`sso_session`"));
    assert!(of(&KEY[..1]).unwrap_err().contains("AWS_SECRET_ACCESS_KEY is not"));
    let role = of(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn")]).unwrap().0;
    assert!(matches!(role, S3Credentials::WebIdentity { .. }));
}

#[test]
fn without_keys_the_machine_itself_is_asked() {
    let of = |variables: &[(&str, &str)]| match find("s3://bucket/k", variables).unwrap().unwrap().access {
        ObjectAccess::S3(access) => access.credentials,
        other => panic!("expected S3, found {other:?}"),
    };
    assert_eq!(of(&[]), S3Credentials::Instance { endpoint: None });
    let task = of(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2")]);
    assert_eq!(task, S3Credentials::Task { path: "/v2".to_owned() });
    let off = error("s3://bucket/k", &[("AWS_EC2_METADATA_DISABLED", "true")]);
    assert!(off.contains("no credentials for `s3://bucket/k`"), "{off}");
}

#[test]
fn googles_file_is_looked_at_first() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let of = |path: &str| find("gs://b/k", &[("GOOGLE_APPLICATION_CREDENTIALS", path)]);
    let good = file("good", r#"{"type": "service_account"}"#);
    let expected =
        GoogleAccess { emulator: None, credentials: GoogleCredentials::ServiceAccount(good.clone()) };
    assert_eq!(of(&good).unwrap().unwrap().access, ObjectAccess::Google(expected));
    let message = |path: &str| of(path).unwrap_err().to_string();
    assert!(message(&file("federated", r#"{"type": "external_account"}"#)).contains("`external_account`"));
    assert!(message(&file("text", "x")).contains("not JSON"));
    assert!(message("/missing.json").contains("No such file"));
    let emulator = find("gs://b/k", &[("STORAGE_EMULATOR_HOST", "localhost:4443")]).unwrap().unwrap();
    let expected = GoogleAccess {
        emulator: Some("http://localhost:4443".into()),
        credentials: GoogleCredentials::Machine,
    };
    assert_eq!(emulator.access, ObjectAccess::Google(expected));
}

#[test]
fn azures_blobs_need_the_accounts_key_or_a_signature() {
    let url = "https://account.blob.core.windows.net/container/path/context.tar.gz";
    let found = find(url, &[("AZURE_STORAGE_ACCESS_KEY", "a2V5")]).unwrap().unwrap();
    assert_eq!((found.bucket.as_str(), found.key.as_str()), ("container", "path/context.tar.gz"));
    let ObjectAccess::Azure(access) = found.access else { panic!("expected Azure") };
    assert_eq!(
        (access.account.as_str(), access.endpoint.as_str()),
        ("account", "https://account.blob.core.windows.net")
    );
    assert_eq!(format!("{:?}", access.credentials), "Key([redacted])");
    assert!(error(url, &[]).contains("AZURE_STORAGE_ACCESS_KEY is not set"));
    assert!(find(&format!("{url}?sv=1&sig=x"), &[]).unwrap().is_none());
    let government = "https://a.blob.core.usgovcloudapi.net/c/b";
    assert!(find(government, &[("AZURE_STORAGE_ACCESS_KEY", "k")]).unwrap().is_some());
    assert!(error("https://a.blob.core.windows.net/c", &[]).contains("/CONTAINER/BLOB"));
    let application = [("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_SECRET", "s")];
    assert!(find(url, &application).unwrap().is_some());
}
