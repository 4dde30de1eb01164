//! Uploading one blob when something goes wrong: what arrives is right or it does not arrive.

use super::support::fault::{Fault, FaultRegistry};
use super::support::http::Response;
use super::*;

const SIZE: usize = 1_000_000;

fn push(client: &Client, registry: &FaultRegistry, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    let open = || Ok(Box::new(Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
    client.push_blob(&reference(format!("{}/app:1", registry.host())), &blob_descriptor(bytes), &open, &[])
}

fn has(registry: &FaultRegistry, bytes: &[u8]) -> bool {
    let key = ("app".to_owned(), Digest::of(bytes).to_string());
    registry.with(|state| state.blobs.get(&key).is_some_and(|found| found == bytes))
}

#[test]
fn one_request_where_nothing_goes_wrong() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    let (client, heard) = client_with(config());
    assert_eq!(push(&client, &registry, &bytes).unwrap(), Pushed::Uploaded);
    assert!(has(&registry, &bytes));
    let requests: Vec<String> =
        registry.requests().iter().map(|r| r.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(requests, ["GET", "HEAD", "POST", "PUT"]);
    assert_eq!(push(&client, &registry, &bytes).unwrap(), Pushed::Exists);
    assert_eq!(heard.outcomes(), ["done", "exists"]);
}

#[test]
fn an_empty_blob() {
    let registry = FaultRegistry::start();
    push(&client(), &registry, b"").unwrap();
    assert!(has(&registry, b""));
}

#[test]
fn an_upload_cut_at_each_tenth_is_resumed() {
    for tenth in 0..10 {
        let registry = FaultRegistry::start();
        let bytes = noise(SIZE, 1);
        registry.plan("PUT", "/uploads/", 1, Fault::CutUpload((SIZE / 10 * tenth) as u64));
        let (client, heard) = client_with(config());
        push(&client, &registry, &bytes).unwrap();
        assert!(has(&registry, &bytes), "at {tenth}");
        assert_eq!(heard.warnings().len(), 1, "{:?}", heard.warnings());
        if tenth > 0 {
            // The rest alone, from where it was cut.
            let patch = registry.with(|s| s.log.iter().find(|r| r.method == "PATCH").cloned().unwrap());
            let expected = format!("{}-{}", SIZE / 10 * tenth, SIZE - 1);
            assert_eq!(patch.header("content-range"), Some(expected.as_str()));
        }
    }
}

#[test]
fn a_resumed_upload_that_is_cut_again_goes_on() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 1, Fault::CutUpload(100_000));
    registry.plan("PATCH", "/uploads/", 5, Fault::CutUpload(100_000));
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
}

#[test]
fn cuts_without_progress_are_bounded() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 1000, Fault::CutUpload(0));
    registry.plan("PATCH", "/uploads/", 1000, Fault::CutUpload(0));
    let (client, heard) = client_with(config());
    let error = push(&client, &registry, &bytes).unwrap_err();
    assert!(matches!(error, RegistryError::GaveUp { tries: 5, .. }), "{error:?}");
    assert!(heard.outcomes()[0].starts_with("failed"));
    assert!(!has(&registry, &bytes));
}

#[test]
fn a_lost_session_begins_again() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 2, Fault::ForgetSession);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(registry.count("POST", "/uploads/"), 3);
    let registry = FaultRegistry::start();
    registry.plan("PUT", "/uploads/", 1000, Fault::ForgetSession);
    let error = push(&client(), &registry, &bytes).unwrap_err();
    assert!(error.full().contains("BLOB_UPLOAD_UNKNOWN"), "{}", error.full());
    assert_eq!(registry.count("POST", "/uploads/"), 5);
}

#[test]
fn a_416_is_answered_with_what_the_registry_has() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 1, Fault::CutUpload(300_000));
    registry.plan("PATCH", "/uploads/", 1, Fault::Answer(Response::new(416)));
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
}

#[test]
fn bodies_that_are_too_large_go_in_chunks() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.body_limit = Some(300_000));
    let bytes = noise(SIZE * 2, 1);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert!(registry.count("PATCH", "/uploads/") > 6);
    // A limit below all reason is an error that names it.
    registry.with(|state| state.body_limit = Some(1000));
    let error = push(&client(), &registry, &noise(SIZE, 2)).unwrap_err();
    assert!(error.full().contains("413"), "{}", error.full());
}

#[test]
fn a_registry_that_takes_no_whole_blobs_gets_a_patch() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.no_monolithic = true);
    let bytes = noise(SIZE, 1);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(registry.count("PATCH", "/uploads/"), 1);
}

#[test]
fn a_registry_that_fails_on_whole_blobs_gets_a_patch() {
    let registry = FaultRegistry::start();
    registry.plan(
        "PUT",
        "/blobs/uploads/",
        1,
        Fault::Answer(Response::error(500, "UNSUPPORTED", "no body here")),
    );
    let (client, heard) = client_with(config());
    let bytes = noise(300_000, 1);
    push(&client, &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(registry.count("PATCH", "/blobs/uploads/"), 1);
    assert_eq!(heard.warnings().len(), 1, "{:?}", heard.warnings());
}

#[test]
fn absolute_locations_are_followed() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.location_base = Some(format!("http://{}", registry.server.host())));
    let bytes = noise(1000, 1);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
}

#[test]
fn bursts_of_5xx_and_429_are_survived_and_told() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    for status in [500, 502, 503] {
        registry.plan("PUT", "/uploads/", 1, Fault::Answer(Response::new(status)));
    }
    registry.plan("POST", "/uploads/", 1, Fault::Answer(Response::new(429).header("retry-after", "0")));
    let (client, heard) = client_with(config());
    push(&client, &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(heard.warnings().len(), 4, "{:?}", heard.warnings());
}

#[test]
fn an_answer_before_the_end_of_the_body_is_heard() {
    let registry = FaultRegistry::start();
    let denied = Response::error(403, "DENIED", "quota exceeded");
    registry.plan("PUT", "/uploads/", 9, Fault::Early(denied));
    let error = push(&client(), &registry, &noise(20 * SIZE, 1)).unwrap_err();
    // A connection that is closed with data unread may be reset before the answer is read: then the
    // upload is tried again, and the refusal is heard in the end or the cut is.
    assert!(
        matches!(error.last(), RegistryError::Denied { .. } | RegistryError::Unreachable { .. }),
        "{error:?}"
    );
}

#[test]
fn a_lost_answer_does_not_lose_the_blob() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 1, Fault::LoseAnswer);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
}

#[test]
fn a_source_that_fails_is_not_uploaded() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the disk is on fire"));
            }
            self.0 -= 1;
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let registry = FaultRegistry::start();
    let open = || Ok(Box::new(Failing(2)) as Box<dyn Read + Send>);
    let to = reference(format!("{}/app:1", registry.host()));
    let error = client().push_blob(&to, &blob_descriptor(&noise(2 * SIZE, 1)), &open, &[]).unwrap_err();
    assert!(error.full().contains("the disk is on fire"), "{}", error.full());
    assert!(registry.with(|state| state.blobs.is_empty()));
    // A source that ends early, or is another than it should be, does not go through either.
    let open = || Ok(Box::new(Cursor::new(noise(SIZE, 2))) as Box<dyn Read + Send>);
    assert!(client().push_blob(&to, &blob_descriptor(&noise(2 * SIZE, 1)), &open, &[]).is_err());
    let error = client().push_blob(&to, &blob_descriptor(&noise(SIZE, 1)), &open, &[]).unwrap_err();
    assert!(error.full().contains("DIGEST_INVALID"), "{}", error.full());
    assert!(registry.with(|state| state.blobs.is_empty()));
}

#[test]
fn a_registry_that_takes_nothing_is_a_stall() {
    let registry = FaultRegistry::start();
    registry.plan("PUT", "/uploads/", 9, Fault::Delay(Duration::from_secs(2)));
    let mut config = config();
    config.retries.answer_timeout = Duration::from_millis(100);
    config.retries.count = 1;
    let error = push(&client_with(config).0, &registry, &noise(1000, 1)).unwrap_err();
    assert!(error.full().contains("stalled"), "{}", error.full());
}

#[test]
fn a_stream_is_uploaded_in_one_patch_of_unknown_length() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 3);
    let to = reference(format!("{}/app", registry.host()));
    client().push_stream(&to, &mut Cursor::new(bytes.clone()), &|| Some(Digest::of(&bytes))).unwrap();
    assert!(has(&registry, &bytes));
    let patch = registry.with(|s| s.log.iter().find(|r| r.method == "PATCH").cloned().unwrap());
    assert_eq!(patch.header("transfer-encoding"), Some("chunked"));
    registry.plan("PATCH", "/uploads/", 1, Fault::CutUpload(1000));
    let other = noise(SIZE, 4);
    let send = |digest: Option<Digest>| {
        client().push_stream(&to, &mut Cursor::new(other.clone()), &|| digest.clone()).unwrap_err()
    };
    let error = send(Some(Digest::of(&other)));
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    let error = send(Some(Digest::of(b"something else")));
    assert!(matches!(error.last(), RegistryError::Refused { .. }), "{error:?}");
    let error = send(None);
    assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
    assert!(!has(&registry, &other));
}
