//! What a registry may do that is neither right nor simply gone, each with what becomes of it. The table is in
//! `docs/registries-conformance.md`.

use super::support::distribution::free_port;
use super::support::fault::{Auth, Fault, FaultRegistry};
use super::support::http::Response;
use super::*;

const SIZE: usize = 1_000_000;

fn place(registry: &FaultRegistry) -> Reference {
    reference(format!("{}/app:1", registry.host()))
}

fn push(client: &Client, registry: &FaultRegistry, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    let open = || Ok(Box::new(Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
    client.push_blob(&place(registry), &blob_descriptor(bytes), &open, &[])
}

fn has(registry: &FaultRegistry, bytes: &[u8]) -> bool {
    let key = ("app".to_owned(), Digest::of(bytes).to_string());
    registry.with(|state| state.blobs.get(&key).is_some_and(|found| found == bytes))
}

fn impatient(count: u32) -> RegistryConfig {
    let mut config = config();
    config.retries.stall_timeout = Duration::from_millis(300);
    config.retries.count = count;
    config
}

fn bearer(life: Duration) -> Auth {
    let users = BTreeMap::from([("ci".to_owned(), ("pw".to_owned(), "pull,push".to_owned()))]);
    Auth::Bearer { realm: None, users, refresh: BTreeMap::new(), life }
}

#[test]
fn a_push_to_where_nothing_listens_is_refused_soon() {
    let host = format!("127.0.0.1:{}", free_port());
    let (client, heard) = client_with(config());
    let error = client.check_push(&reference(format!("{host}/x"))).unwrap_err();
    let refused = RegistryError::Unreachable { host, reason: Unreachable::Refused };
    assert_eq!(error.last().to_string(), refused.to_string());
    assert_eq!(heard.warnings().len(), 2, "{:?}", heard.warnings());
}

#[test]
fn an_upload_that_is_limited_waits_with_or_without_being_told_how_long() {
    let registry = FaultRegistry::start();
    let limited = Response::error(429, "TOOMANYREQUESTS", "slow down");
    registry.plan("PUT", "/uploads/", 1, Fault::Answer(limited.clone()));
    registry.plan("POST", "/uploads/", 1, Fault::Answer(limited.clone().header("retry-after", "1")));
    registry.plan("HEAD", "/blobs/", 1, Fault::Answer(limited.header("retry-after", "0")));
    let (client, heard) = client_with(config());
    let bytes = noise(SIZE, 1);
    let began = std::time::Instant::now();
    push(&client, &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes) && began.elapsed() >= Duration::from_secs(1));
    assert_eq!(heard.warnings().len(), 3, "{:?}", heard.warnings());
}

#[test]
fn an_upload_of_which_less_was_taken_goes_on_from_there() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.no_monolithic = true);
    registry.plan("PATCH", "/uploads/", 2, Fault::TakeLess(300_000));
    let bytes = noise(SIZE, 1);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(registry.count("PATCH", "/uploads/"), 3);
}

#[test]
fn an_upload_of_which_nothing_is_ever_taken_ends() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.no_monolithic = true);
    let nothing = Response::new(202).header("range", "0-0");
    registry.plan("PATCH", "/uploads/", 1000, Fault::Answer(nothing));
    let error = push(&client(), &registry, &noise(SIZE, 1)).unwrap_err();
    assert!(error.full().contains("takes no bytes"), "{}", error.full());
    assert!(registry.count("PATCH", "/uploads/") < 10);
}

#[test]
fn a_registry_that_stops_reading_is_a_stall() {
    let registry = FaultRegistry::start();
    registry.plan("PUT", "/uploads/", 9, Fault::Sit(Duration::from_secs(2)));
    let (client, heard) = client_with(impatient(1));
    // More than the buffers of two sockets.
    let error = push(&client, &registry, &noise(30 * SIZE, 1)).unwrap_err();
    assert!(error.full().contains("stalled"), "{}", error.full());
    assert_eq!(heard.warnings().len(), 1, "{:?}", heard.warnings());
    assert!(registry.with(|state| state.blobs.is_empty()));
}

#[test]
fn a_manifest_that_trickles_is_a_timeout() {
    let registry = FaultRegistry::start();
    let manifest = format!("{{\"layers\":[],\"annotations\":{{\"a\":\"{}\"}}}}", "x".repeat(500));
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, manifest.as_bytes());
    registry.plan("GET", "/manifests/", 9, Fault::Trickle(1, Duration::from_millis(10)));
    let error = client_with(impatient(1)).0.manifest(&place(&registry)).unwrap_err();
    assert!(error.full().contains("no answer within"), "{}", error.full());
}

#[test]
fn a_416_to_the_rest_of_a_download_gets_all_of_it_again() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.put_blob("app", &bytes);
    registry.plan("GET", "/blobs/", 1, Fault::CutDownload(SIZE / 2));
    registry.plan("GET", "/blobs/", 1, Fault::Answer(Response::new(416)));
    assert_eq!(read_all(&client(), &place(&registry), &blob_descriptor(&bytes)).unwrap(), bytes);
    assert_eq!(registry.count("GET", "/blobs/"), 3);
    let last = registry.with(|state| state.log.last().cloned().unwrap());
    assert_eq!(last.header("range"), None);
}

#[test]
fn a_download_whose_token_expires_before_the_rest_gets_another() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.auth = bearer(Duration::from_secs(300)));
    let bytes = noise(SIZE, 1);
    registry.put_blob("app", &bytes);
    let host = registry.host();
    registry.plan("GET", "/blobs/", 1, Fault::CutDownload(SIZE / 2));
    let expired = format!("Bearer realm=\"http://{host}/token\",service=\"test\",error=\"invalid_token\"");
    let refused = Response::error(401, "UNAUTHORIZED", "token expired").header("www-authenticate", expired);
    registry.plan("GET", "/blobs/", 1, Fault::Answer(refused));
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    assert_eq!(read_all(&client, &place(&registry), &blob_descriptor(&bytes)).unwrap(), bytes);
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[test]
fn a_manifest_on_another_host_is_fetched_without_credential() {
    let (registry, elsewhere) = (FaultRegistry::start(), FaultRegistry::start());
    registry.with(|s| s.auth = Auth::Basic { user: "ci".to_owned(), password: "pw".to_owned() });
    elsewhere.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let there = format!("http://{}/v2/app/manifests/1", elsewhere.host());
    registry.plan("GET", "/manifests/", 1, Fault::Answer(Response::new(307).header("location", there)));
    let (client, _) = client_with(with_login(config(), &registry.host(), "ci", "pw"));
    client.manifest(&place(&registry)).unwrap();
    elsewhere.with(|state| assert_eq!(state.log.last().unwrap().header("authorization"), None));
    // Round and round is an end, too.
    let circle = format!("http://{}/v2/app/manifests/1", registry.host());
    registry.plan("GET", "/manifests/", 99, Fault::Answer(Response::new(307).header("location", circle)));
    let error = client.manifest(&place(&registry)).unwrap_err();
    assert!(error.to_string().contains("redirects more than"), "{error}");
}

#[test]
fn a_session_that_is_gone_when_it_is_asked_for_begins_again() {
    let registry = FaultRegistry::start();
    let bytes = noise(SIZE, 1);
    registry.plan("PUT", "/uploads/", 1, Fault::CutUpload(500_000));
    registry.plan("GET", "/uploads/", 1, Fault::ForgetSession);
    let (client, heard) = client_with(config());
    push(&client, &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    assert_eq!(registry.count("POST", "/uploads/"), 2);
    assert_eq!(heard.warnings().len(), 1, "{:?}", heard.warnings());
}

#[test]
fn chunks_are_as_small_as_allowed_and_no_smaller() {
    let registry = FaultRegistry::start();
    registry.with(|state| (state.body_limit, state.least_chunk) = (Some(700_000), Some(600_000)));
    let bytes = noise(SIZE * 3, 1);
    push(&client(), &registry, &bytes).unwrap();
    assert!(has(&registry, &bytes));
    let lengths: Vec<u64> = registry.with(|state| {
        let patches = state.log.iter().filter(|r| r.method == "PATCH");
        let taken = patches.filter_map(|r| r.header("content-length")?.parse().ok());
        taken.filter(|length| *length <= 700_000).collect()
    });
    let (_, whole_chunks) = lengths.split_last().unwrap();
    assert!(whole_chunks.iter().all(|length| *length >= 600_000), "{lengths:?}");
    // What is both too large and too small is refused in the registry's words.
    registry.with(|state| state.body_limit = Some(500_000));
    let error = push(&client(), &registry, &noise(SIZE, 2)).unwrap_err();
    assert!(error.full().contains("413"), "{}", error.full());
}

#[test]
fn a_blob_that_is_stored_as_something_else_is_caught() {
    let registry = FaultRegistry::start();
    let wrong = Response::new(201).header("docker-content-digest", Digest::of(b"else").to_string());
    registry.plan("PUT", "/uploads/", 1, Fault::Answer(wrong));
    let error = push(&client(), &registry, &noise(1000, 1)).unwrap_err();
    assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_repository_that_must_be_made_first_is_not_found() {
    let registry = FaultRegistry::start();
    let unknown = Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    registry.plan("POST", "/uploads/", 9, Fault::Answer(unknown.clone()));
    let error = push(&client(), &registry, b"x").unwrap_err();
    assert!(error.is_not_found() && error.full().contains("NAME_UNKNOWN"), "{}", error.full());
    assert_eq!(registry.count("POST", "/uploads/"), 1);
    registry.plan("GET", "/tags/list", 9, Fault::Answer(unknown));
    assert!(client().list_tags(&place(&registry)).unwrap_err().is_not_found());
}

#[test]
fn a_manifest_that_is_refused_moves_no_tag() {
    for (status, code) in
        [(400, "MANIFEST_INVALID"), (413, "SIZE_INVALID"), (404, "NAME_UNKNOWN"), (405, "UNSUPPORTED")]
    {
        let registry = FaultRegistry::start();
        let (image, memory) = image(&[noise(1000, 1)], "linux/amd64", ManifestFormat::Oci);
        registry.plan("PUT", "/manifests/", 9, Fault::Answer(Response::error(status, code, "no")));
        let error = client().push_image(&image, &memory, &[place(&registry)], &[]).unwrap_err();
        assert!(error.full().contains(code), "{}", error.full());
        assert!(registry.with(|state| state.tags.is_empty()));
        assert_eq!(registry.count("PUT", "/manifests/"), 1, "asking again would not help");
    }
}

#[test]
fn clocks_that_disagree_do_not_matter() {
    // The token service says its tokens are of 1999, the registry that it is 2099: what counts is how long they live.
    let registry = FaultRegistry::start();
    registry.with(|state| state.auth = bearer(Duration::from_secs(300)));
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let limited = Response::new(429)
        .header("date", "Fri, 06 Nov 2099 08:49:37 GMT")
        .header("retry-after", "Fri, 06 Nov 2099 08:49:38 GMT");
    registry.plan("GET", "/manifests/", 1, Fault::Answer(limited));
    let (client, heard) = client_with(with_login(config(), &registry.host(), "ci", "pw"));
    for _ in 0..3 {
        client.manifest(&place(&registry)).unwrap();
    }
    assert_eq!(registry.count("GET", "/token"), 1);
    assert!(heard.warnings()[0].contains("again in 1.0 s"), "{:?}", heard.warnings());
}

#[test]
fn a_digest_by_another_algorithm_is_named_and_nothing_is_taken_on_trust() {
    let registry = FaultRegistry::start();
    let other = format!("sha512:{}", "ab".repeat(64));
    let error = format!("{}/app@{other}", registry.host()).parse::<Reference>().unwrap_err();
    assert!(error.to_string().contains("sha256 digests only"), "{error}");
    // A tag whose manifest the registry names by sha512 is what its own sha256 says.
    let digest = registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let named = Response::new(200)
        .header("content-type", media_type::OCI_MANIFEST)
        .header("docker-content-digest", &other)
        .body("{\"layers\":[]}");
    registry.plan("GET", "/manifests/", 1, Fault::Answer(named));
    let (found, _) = client().manifest(&place(&registry)).unwrap();
    assert_eq!(found.digest().to_string(), digest);
    // A layer by sha512 can't be verified, so the image is refused before anything is downloaded.
    let (image, memory) = image(&[noise(1000, 1)], "linux/amd64", ManifestFormat::Oci);
    client().push_image(&image, &memory, &[place(&registry)], &[]).unwrap();
    let layer = image.layers[0].descriptor.digest().to_string();
    let manifest = String::from_utf8(image.manifest.clone()).unwrap().replace(&layer, &other);
    registry.put_manifest("app", "512", media_type::OCI_MANIFEST, manifest.as_bytes());
    let name = reference(format!("{}/app:512", registry.host()));
    let before = registry.count("GET", "/blobs/");
    let error = client().image(&name, &Platform::host()).unwrap_err();
    assert!(error.full().contains("sha256 digests only"), "{}", error.full());
    assert!(registry.count("GET", "/blobs/") <= before + 1, "the config at most");
}

#[test]
fn a_token_service_that_knows_no_get_is_asked_by_post() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.auth = bearer(Duration::from_secs(300)));
    registry.plan("GET", "/token", 9, Fault::Answer(Response::new(405)));
    let (client, _) = client_with(with_login(config(), &registry.host(), "ci", "pw"));
    client.check_push(&place(&registry)).unwrap();
    assert_eq!(registry.count("POST", "/token"), 1);
}

#[test]
fn of_several_challenges_the_bearers_is_taken() {
    // Harbor and GitLab offer both; the password goes to the token service, not to the registry.
    let registry = FaultRegistry::start();
    registry.with(|state| state.auth = bearer(Duration::from_secs(300)));
    let host = registry.host();
    let both = Response::error(401, "UNAUTHORIZED", "who are you?")
        .header("www-authenticate", "Basic realm=\"harbor\"")
        .header(
            "www-authenticate",
            format!("Bearer realm=\"http://{host}/token\",service=\"harbor-registry\""),
        );
    registry.plan("GET", "/v2/", 1, Fault::Answer(both));
    registry.with(|state| {
        if let Auth::Bearer { users, .. } = &mut state.auth {
            users.insert("robot$proj+ci".to_owned(), ("pw".to_owned(), "pull,push".to_owned()));
        }
    });
    let (client, _) = client_with(with_login(config(), &host, "robot$proj+ci", "pw"));
    let (image, memory) = image(&[noise(1000, 1)], "linux/amd64", ManifestFormat::Docker);
    let name = reference(format!("{host}/proj/group/sub/app:1"));
    client.push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
    registry.with(|state| {
        let account =
            state.log.iter().find(|r| r.path == "/token").unwrap().argument("account").map(str::to_owned);
        assert_eq!(account.as_deref(), Some("robot$proj+ci"));
        let leaked = |r: &&super::support::http::Request| {
            r.path != "/token" && r.header("authorization").is_some_and(|v| v.starts_with("Basic"))
        };
        assert_eq!(state.log.iter().filter(leaked).count(), 0);
    });
}
