//! Pulling when something goes wrong: nothing corrupt is accepted, and cuts are survived within bounds.

use super::support::distribution::free_port;
use super::support::fault::{Fault, FaultRegistry};
use super::support::http::Response;
use super::*;

const SIZE: usize = 1_000_000;

fn place(registry: &FaultRegistry) -> Reference {
    reference(format!("{}/app:1", registry.host()))
}

fn with_blob() -> (FaultRegistry, Vec<u8>) {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 7);
    registry.put_blob("app", &bytes);
    (registry, bytes)
}

#[test]
fn a_blob_cut_at_each_tenth_is_resumed() {
    for ranges in [true, false] {
        for tenth in 0..10 {
            let (registry, bytes) = with_blob();
            registry.with(|state| state.ranges = ranges);
            registry.plan("GET", "/blobs/", 1, Fault::CutDownload(SIZE / 10 * tenth));
            let (client, heard) = client_with(config());
            let got = read_all(&client, &place(&registry), &blob_descriptor(&bytes)).unwrap();
            assert_eq!(got, bytes, "at {tenth}");
            assert_eq!(registry.count("GET", "/blobs/"), 2);
            assert!(heard.warnings()[0].contains("trying again"), "{:?}", heard.warnings());
            assert_eq!(heard.outcomes(), ["done"]);
        }
    }
}

#[test]
fn a_blob_cut_ten_times_gets_through_while_it_progresses() {
    let (registry, bytes) = with_blob();
    registry.plan("GET", "/blobs/", 9, Fault::CutDownload(SIZE / 10));
    let got = read_all(&client(), &place(&registry), &blob_descriptor(&bytes)).unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn cuts_without_progress_are_bounded() {
    let (registry, bytes) = with_blob();
    registry.plan("GET", "/blobs/", 1000, Fault::CutDownload(10));
    let (client, heard) = client_with(config());
    let error = read_all(&client, &place(&registry), &blob_descriptor(&bytes)).unwrap_err();
    assert!(error.to_string().contains("gave up after 5 tries"), "{error}");
    assert_eq!(registry.count("GET", "/blobs/"), 5);
    assert!(heard.outcomes()[0].starts_with("failed"), "{:?}", heard.outcomes());
}

#[test]
fn wrong_bytes_are_never_handed_out_as_the_last() {
    let (registry, bytes) = with_blob();
    let mut wrong = bytes.clone();
    wrong[SIZE / 2] ^= 1;
    registry.plan("GET", "/blobs/", 9, Fault::Replace(wrong));
    let mut reader = client().blobs(&place(&registry)).open(&blob_descriptor(&bytes)).unwrap();
    let mut got = Vec::new();
    let error = reader.read_to_end(&mut got).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("corrupt"), "{error}");
    assert!(got.len() < SIZE);
    // And the error stays: no end of file afterwards.
    assert!(reader.read(&mut [0; 10]).is_err());
}

#[test]
fn wrong_lengths_are_found() {
    for (name, body) in
        [("longer", noise(SIZE + 1, 7)), ("shorter", noise(SIZE - 1, 7)), ("empty", Vec::new())]
    {
        let (registry, bytes) = with_blob();
        registry.plan("GET", "/blobs/", 9, Fault::Replace(body));
        let error = read_all(&client(), &place(&registry), &blob_descriptor(&bytes)).unwrap_err();
        assert!(
            error.to_string().contains("blob") && crate::event::with_causes(&error).contains("1000000"),
            "{name}: {}",
            crate::event::with_causes(&error)
        );
    }
}

#[test]
fn a_truncated_body_is_resumed_or_refused() {
    let (registry, bytes) = with_blob();
    registry.plan("GET", "/blobs/", 1, Fault::Truncate(1000));
    assert_eq!(read_all(&client(), &place(&registry), &blob_descriptor(&bytes)).unwrap(), bytes);
    registry.plan("GET", "/blobs/", 100, Fault::Truncate(SIZE));
    assert!(read_all(&client(), &place(&registry), &blob_descriptor(&bytes)).is_err());
}

#[test]
fn an_empty_blob() {
    let registry = FaultRegistry::start();
    registry.put_blob("app", b"");
    assert_eq!(read_all(&client(), &place(&registry), &blob_descriptor(b"")).unwrap(), b"");
}

#[test]
fn a_slow_loris_is_cut_off() {
    let (registry, bytes) = with_blob();
    registry.plan("GET", "/blobs/", 9, Fault::Trickle(1, Duration::from_millis(15)));
    let mut config = config();
    config.retries.stall_timeout = Duration::from_millis(200);
    config.retries.count = 1;
    let (client, _) = client_with(config);
    let error = read_all(&client, &place(&registry), &blob_descriptor(&bytes)).unwrap_err();
    assert!(crate::event::with_causes(&error).contains("stalled"), "{}", crate::event::with_causes(&error));
}

#[test]
fn no_answer_at_all_is_a_timeout() {
    let registry = FaultRegistry::start();
    registry.plan("GET", "/manifests/", 9, Fault::Delay(Duration::from_millis(600)));
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let mut config = config();
    config.retries.stall_timeout = Duration::from_millis(100);
    config.retries.count = 1;
    let error = client_with(config).0.manifest(&place(&registry)).unwrap_err();
    assert!(
        crate::event::with_causes(&error).contains("no answer within"),
        "{}",
        crate::event::with_causes(&error)
    );
}

#[test]
fn refused_connections_are_retried_a_little_and_explained() {
    let host = format!("127.0.0.1:{}", free_port());
    let (client, heard) = client_with(config());
    let error = client.resolve(&reference(format!("{host}/x"))).unwrap_err();
    assert!(
        matches!(error.last(), RegistryError::Unreachable { reason: Unreachable::Refused, .. }),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains(&host));
    assert_eq!(heard.warnings().len(), 2, "{:?}", heard.warnings());
}

#[test]
fn bursts_of_5xx_are_survived() {
    let (registry, bytes) = with_blob();
    for status in [500, 502, 503, 504] {
        registry.plan("GET", "/blobs/", 1, Fault::Answer(Response::new(status)));
    }
    let (client, heard) = client_with(config());
    assert_eq!(read_all(&client, &place(&registry), &blob_descriptor(&bytes)).unwrap(), bytes);
    assert_eq!(heard.warnings().len(), 4);
}

#[test]
fn lasting_5xx_give_up_with_the_last_answer() {
    let registry = FaultRegistry::start();
    let down = Response::error(503, "UNAVAILABLE", "down for maintenance");
    registry.plan("GET", "/manifests/", 99, Fault::Answer(down));
    let error = client().manifest(&place(&registry)).unwrap_err();
    assert!(
        crate::event::with_causes(&error).contains("down for maintenance"),
        "{}",
        crate::event::with_causes(&error)
    );
    assert!(error.to_string().contains("5 tries"), "{error}");
    assert_eq!(registry.count("GET", "/manifests/"), 5);
}

#[test]
fn rate_limits_are_waited_for_as_asked() {
    let registry = FaultRegistry::start();
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let limited = Response::error(429, "TOOMANYREQUESTS", "slow down");
    registry.plan("GET", "/manifests/", 1, Fault::Answer(limited.clone().header("retry-after", "1")));
    registry.plan("GET", "/manifests/", 1, Fault::Answer(limited.clone()));
    let began = std::time::Instant::now();
    let (client, heard) = client_with(config());
    client.manifest(&place(&registry)).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(heard.warnings().len(), 2);
    assert!(heard.warnings()[0].contains("1.0 s"), "{:?}", heard.warnings());
    // An hour is longer than we wait.
    registry.plan("GET", "/manifests/", 9, Fault::Answer(limited.header("retry-after", "3600")));
    let before = registry.count("GET", "/manifests/");
    let error = client.manifest(&place(&registry)).unwrap_err();
    assert!(matches!(error, RegistryError::RateLimited { .. }), "{error:?}");
    assert_eq!(registry.count("GET", "/manifests/") - before, 1);
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let registry = FaultRegistry::start();
    let digest = registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    registry.plan("GET", "/manifests/", 9, Fault::Replace(b"{\"layers\":[] }".to_vec()));
    for name in [place(&registry), place(&registry).with_digest(digest.parse().unwrap())] {
        let error = client().manifest(&name).unwrap_err();
        assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(&digest), "{error}");
    }
}

#[test]
fn a_schema_1_manifest_is_named_as_one() {
    let registry = FaultRegistry::start();
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.put_manifest("app", "1", kind, br#"{"schemaVersion":1,"name":"app","fsLayers":[]}"#);
    let error = client().image(&place(&registry), &Platform::host()).unwrap_err();
    assert!(matches!(error, RegistryError::LegacyManifest { .. }), "{error:?}");
}

#[test]
fn something_that_is_not_a_registry_is_said_to_be_none() {
    let registry = FaultRegistry::start();
    let page = Response::new(404).body("<html><head><title>Welcome to nginx</title></head></html>");
    registry.plan("GET", "", 99, Fault::Answer(page.clone()));
    registry.plan("HEAD", "", 99, Fault::Answer(page));
    let error = client().manifest(&place(&registry)).unwrap_err();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error:?}");
    assert!(error.to_string().contains("Welcome to nginx"), "{error}");
    let error = client().resolve(&place(&registry)).unwrap_err();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error:?}");
}

#[test]
fn a_registry_without_head() {
    let registry = FaultRegistry::start();
    let digest = registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    registry.plan("HEAD", "/manifests/", 9, Fault::Answer(Response::new(405)));
    assert_eq!(client().resolve(&place(&registry)).unwrap().digest().to_string(), digest);
}

#[test]
fn an_index_leads_to_the_platforms_image() {
    let registry = FaultRegistry::start();
    let client = client();
    let host = registry.host();
    let mut entries = Vec::new();
    for (platform, seed) in [("linux/amd64", 1), ("linux/arm64", 2)] {
        let (image, memory) = image(&[noise(1000, seed)], platform, ManifestFormat::Oci);
        let name = reference(format!("{host}/app:{seed}"));
        client.push_image(&image, &memory, &[name], &[]).unwrap();
        entries.push(image.descriptor);
    }
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let bytes = serde_json::to_vec(&index).unwrap();
    let name = reference(format!("{host}/app:multi"));
    let digest = client.put_manifest(&name, media_type::OCI_INDEX, &bytes).unwrap();
    let image = client.image(&name, &"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(image.index_digest, Some(digest));
    assert_eq!(image.image.config.architecture, "arm64");
    let error = client.image(&name, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("linux/amd64, linux/arm64"), "{error}");
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let (mirror, origin) = (FaultRegistry::start(), FaultRegistry::start());
    let bytes = noise(1000, 1);
    origin.put_blob("app", &bytes);
    origin.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let mut config = config();
    config.mirrors.add_mirror(&format!("{}={}/proxy", origin.host(), mirror.host())).unwrap();
    let (client, _) = client_with(config.clone());
    client.manifest(&place(&origin)).unwrap();
    assert_eq!(mirror.count("GET", "/v2/proxy/app/manifests/1"), 1);
    assert_eq!(read_all(&client, &place(&origin), &blob_descriptor(&bytes)).unwrap(), bytes);
    config.mirrors.no_fallback = true;
    let error = client_with(config.clone()).0.manifest(&place(&origin)).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    // Pushes go to the registry itself.
    client.check_push(&place(&origin)).unwrap();
    assert_eq!(mirror.count("POST", ""), 0);
    // A mirror that is gone does not hold anything up for long, and is named when all fail.
    let gone = format!("127.0.0.1:{}", free_port());
    let mut config = super::config();
    config.mirrors.add_mirror(&format!("{}={gone}", origin.host())).unwrap();
    let (client, heard) = client_with(config);
    let none = reference(format!("{}/none:1", origin.host()));
    let error = client.manifest(&none).unwrap_err();
    assert!(error.to_string().contains(&gone) && error.to_string().contains(&origin.host()), "{error}");
    // It is not asked again.
    client.manifest(&place(&origin)).unwrap();
    assert!(!client.manifest(&none).unwrap_err().to_string().contains(&gone));
    assert_eq!(heard.warnings().iter().filter(|text| text.contains("is left alone")).count(), 1);
}

#[test]
fn a_foreign_layer_is_fetched_from_its_url() {
    let (registry, elsewhere) = (FaultRegistry::start(), FaultRegistry::start());
    let bytes = noise(1000, 3);
    let digest = elsewhere.put_blob("x", &bytes);
    let mut descriptor = blob_descriptor(&bytes);
    descriptor.set_urls(Some(vec![format!("http://{}/v2/x/blobs/{digest}", elsewhere.host())]));
    assert_eq!(read_all(&client(), &place(&registry), &descriptor).unwrap(), bytes);
}

#[test]
fn a_missing_blob_is_not_found() {
    let registry = FaultRegistry::start();
    let blobs = client().blobs(&place(&registry));
    let error = blobs.open(&blob_descriptor(b"x")).err().unwrap();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    assert!(!blobs.contains(&Digest::of(b"x")).unwrap());
    registry.put_blob("app", b"x");
    assert!(blobs.contains(&Digest::of(b"x")).unwrap());
}

#[test]
fn tags_are_listed_over_all_pages() {
    let registry = FaultRegistry::start();
    for tag in ["a", "b", "c", "d", "e"] {
        registry.put_manifest("app", tag, media_type::OCI_MANIFEST, b"{}");
    }
    assert_eq!(client().list_tags(&place(&registry)).unwrap(), ["a", "b", "c", "d", "e"]);
    assert_eq!(registry.count("GET", "/tags/list"), 3);
}
