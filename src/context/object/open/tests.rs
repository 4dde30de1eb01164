//! Google's store as a fake, and what stores answer when they refuse. Real emulators are in `tests/it/objects.rs`.

use super::*;
use crate::context::loopback::{Answer as Reply, Request, Server};
use crate::context::object::Hidden;

fn google(emulator: &str) -> ObjectAccess {
    ObjectAccess::Google(GoogleAccess {
        emulator: Some(emulator.to_owned()),
        credentials: GoogleCredentials::Machine,
    })
}

fn s3(endpoint: &str, credentials: S3Credentials) -> ObjectAccess {
    let endpoint = Some(endpoint.to_owned());
    ObjectAccess::S3(S3Access { endpoint, path_style: true, region: "here".into(), credentials })
}

fn key() -> S3Credentials {
    S3Credentials::Key { id: "id".into(), secret: Hidden("secret".into()), session: None }
}

fn read(access: ObjectAccess, key: &str) -> Result<Vec<u8>, ObjectError> {
    let source = ObjectSource { url: format!("x://b/{key}"), bucket: "b".into(), key: key.into(), access };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut opened = open(&source, &client, &Arc::new(runtime), 2)?;
    let mut bytes = Vec::new();
    opened
        .reader
        .read_to_end(&mut bytes)
        .map_err(|error| ObjectError::Other { url: source.url, reason: error.to_string() })?;
    assert_eq!(opened.size_bytes, bytes.len() as u64);
    Ok(bytes)
}

/// An answer as stores give them: with a time and an entity tag.
fn object(status: u16, body: &[u8]) -> Reply {
    Reply::new(status, body).with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT").with("ETag", "\"tag\"")
}

/// A range as it is asked for, `bytes=N-…`.
fn begin(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

fn refuse(status: u16, xml: &'static str) -> Server {
    Server::start(move |_, _| Reply::new(status, format!("<Error>{xml}</Error>")))
}

#[test]
fn an_object_of_google() {
    let server = Server::start(|_, _| object(200, b"bytes"));
    assert_eq!(read(google(&server.url), "a/b c.tar.gz").unwrap(), b"bytes");
    let request = &server.requests()[0];
    assert_eq!(request.path, "/b/a%2Fb%20c%2Etar%2Egz");
    assert_eq!(request.header("authorization"), None);
}

#[test]
fn a_stream_that_breaks_off_goes_on_where_it_was() {
    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let whole = body.clone();
    let server = Server::start(move |request, before| match begin(request) {
        None => {
            assert_eq!(before, 0);
            Reply { cut_after: Some(300_000), ..object(200, &body) }
        }
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            object(206, &body[from..]).with("Content-Range", &range)
        }
    });
    assert!(read(google(&server.url), "k").unwrap() == whole);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_stream_never_goes_on_in_another_object() {
    let server = Server::start(|request, _| match begin(request) {
        None => Reply { cut_after: Some(300_000), ..object(200, &[1; 400_000]) },
        Some(from) => {
            let range = format!("bytes {from}-399999/400000");
            let other = Reply::new(206, vec![2; 400_000 - from]).with("ETag", "\"another\"");
            other.with("Content-Range", &range).with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        }
    });
    assert!(read(google(&server.url), "k").is_err());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn what_is_missing_is_named() {
    let bucket = refuse(404, "<Code>NoSuchBucket</Code>");
    let message = |server: &Server| read(google(&server.url), "k").unwrap_err().to_string();
    assert_eq!(message(&bucket), "cannot read `x://b/k`: there is no bucket or container `b`");
    let object = refuse(404, "<Code>NoSuchKey</Code><Message>x</Message>");
    assert_eq!(message(&object), "cannot read `x://b/k`: there is no `k` in `b`");
    assert!(read(google("http://127.0.0.1:1"), "a//b").unwrap_err().to_string().contains("names no object"));
    assert!(read(google("http://127.0.0.1:1"), "").unwrap_err().to_string().contains("has no name"));
}

#[test]
fn a_refusal_says_what_to_look_at() {
    let hint = |xml, access: fn(&str) -> ObjectAccess| {
        let error = read(access(&refuse(403, xml).url), "k").unwrap_err();
        (error.to_string(), error.hint().unwrap())
    };
    let (text, advice) = hint("<Code>AccessDenied</Code><Message>Access Denied.</Message>", google);
    assert_eq!(text, "cannot read `x://b/k`: access denied: AccessDenied: Access Denied");
    assert!(advice.contains("storage.objects.get"));
    let amazon = |url: &str| s3(url, key());
    assert!(hint("<Code>AccessDenied</Code>", amazon).1.contains("s3:GetObject"));
    assert!(hint("<Code>SignatureDoesNotMatch</Code>", amazon).1.contains("not one of this store"));
    assert!(hint("<Code>ExpiredToken</Code>", amazon).1.contains("session is over"));
}

#[test]
fn a_bucket_of_another_region_is_told_from_one_that_is_missing() {
    let malformed = refuse(400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>");
    let error = read(s3(&malformed.url, key()), "k").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read `x://b/k`: the bucket is not in the region `here`, it is in `eu-west-1`"
    );
    assert!(error.hint().unwrap().contains("AWS_REGION"));
    let bare = refuse(301, "");
    let error = read(s3(&bare.url, key()), "k").unwrap_err().to_string();
    assert!(error.ends_with("the bucket is not in the region `here`"), "{error}");
}

#[test]
fn nobody_to_ask_as_is_told_from_a_refusal() {
    let metadata = refuse(404, "");
    let instance = S3Credentials::Instance { endpoint: Some(metadata.url.clone()) };
    let error = read(s3("http://127.0.0.1:1", instance), "k").unwrap_err();
    assert!(error.to_string().contains("no usable credentials"), "{error}");
    assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
}

#[test]
fn a_server_that_is_not_there_is_tried_again() {
    let flaky = Server::start(|_, before| match before {
        0 => Reply::new(503, "<Error><Code>SlowDown</Code></Error>"),
        _ => object(200, b"x"),
    });
    assert_eq!(read(s3(&flaky.url, key()), "k").unwrap(), b"x");
    let gone = read(s3("http://127.0.0.1:1", key()), "k").unwrap_err().to_string();
    assert!(gone.starts_with("cannot read `x://b/k`: "), "{gone}");
}

/// A service account signs its own tokens.
#[test]
fn a_service_account_shows_a_token_of_its_own() {
    use base64::Engine as _;
    let made = std::process::Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output();
    let Ok(made) = made else {
        eprintln!("skipped: there is no openssl to make a key with");
        return;
    };
    let server = Server::start(|_, _| object(200, b"x"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    let account = serde_json::json!({
        "type": "service_account", "private_key": String::from_utf8(made.stdout).unwrap(),
        "private_key_id": "1", "client_email": "builder@example.org", "gcs_base_url": server.url,
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let credentials = GoogleCredentials::ServiceAccount(file.display().to_string());
    let access = ObjectAccess::Google(GoogleAccess { emulator: None, credentials });
    assert_eq!(read(access, "k").unwrap(), b"x");
    let requests = server.requests();
    let token = requests[0].header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    assert!(String::from_utf8(claims).unwrap().contains("builder@example.org"));
}
