//! Credentials go where they belong and nowhere else.

use super::support::fault::{Auth, Fault, FaultRegistry};
use super::support::http::Response;
use super::*;

fn bearer(users: &[(&str, &str, &str)], life: Duration) -> Auth {
    Auth::Bearer {
        realm: None,
        users: users.iter().map(|(u, p, a)| ((*u).to_owned(), ((*p).to_owned(), (*a).to_owned()))).collect(),
        refresh: BTreeMap::from([("refresh-me".to_owned(), "ci".to_owned())]),
        life,
    }
}

fn registry(auth: Auth) -> FaultRegistry {
    let registry = FaultRegistry::start();
    registry.with(|state| state.auth = auth);
    registry
}

const LONG: Duration = Duration::from_secs(300);

#[test]
fn anonymous_pull_then_push_with_a_login_on_one_host() {
    let registry = registry(bearer(&[("", "", "pull"), ("ci", "pw", "pull,push")], LONG));
    let bytes = noise(1000, 1);
    registry.put_blob("public", &bytes);
    let host = registry.host();
    let config = with_login(config(), &format!("{host}/team"), "ci", "pw");
    let (client, _) = client_with(config);
    assert_eq!(
        read_all(&client, &reference(format!("{host}/public")), &blob_descriptor(&bytes)).unwrap(),
        bytes
    );
    let (image, memory) = image(&[bytes], "linux/amd64", ManifestFormat::Oci);
    client.push_image(&image, &memory, &[reference(format!("{host}/team/app:1"))], &[]).unwrap();
    let basics = registry.with(|state| {
        state.log.iter().filter(|r| r.header("authorization").is_some_and(|v| v.starts_with("Basic"))).count()
    });
    assert!(basics >= 1);
    registry.with(|state| {
        for request in &state.log {
            // The password went to the token service alone.
            let basic = request.header("authorization").is_some_and(|v| v.starts_with("Basic"));
            assert!(!basic || request.path == "/token", "{request:?}");
        }
    });
}

#[test]
fn a_mount_asks_for_the_source_as_well() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push")], LONG));
    let bytes = noise(1000, 1);
    registry.put_blob("base", &bytes);
    let host = registry.host();
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let (to, from) = (reference(format!("{host}/app")), reference(format!("{host}/base")));
    let open: OpenBlob<'_> = &|| panic!("a mount needs no bytes");
    let pushed = client.push_blob(&to, &blob_descriptor(&bytes), open, &[from]).unwrap();
    assert_eq!(pushed, Pushed::Mounted { from: "base".to_owned() });
    let scopes = registry.with(|state| {
        state
            .log
            .iter()
            .filter(|r| r.path == "/token")
            .map(|r| r.query.iter().filter(|(k, _)| k == "scope").map(|(_, v)| v.clone()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    assert!(
        scopes.contains(&vec!["repository:app:pull,push".to_owned(), "repository:base:pull".to_owned()]),
        "{scopes:?}"
    );
}

#[test]
fn an_identity_token_is_exchanged() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push")], LONG));
    let host = registry.host();
    let mut config = config();
    config.credentials.explicit.push((host.clone(), Credential::Identity(Secret::new("refresh-me"))));
    let (client, _) = client_with(config);
    client.check_push(&reference(format!("{host}/app"))).unwrap();
    assert_eq!(registry.count("POST", "/token"), 1);
    let mut wrong = super::config();
    wrong.credentials.explicit.push((host.clone(), Credential::Identity(Secret::new("stale-token"))));
    let (client, heard) = client_with(wrong);
    let error = client.check_push(&reference(format!("{host}/app"))).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert!(!format!("{error:?}{error}{}", heard.everything()).contains("stale-token"));
}

#[test]
fn a_token_that_expires_is_renewed() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push")], Duration::from_millis(150)));
    let host = registry.host();
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let to = reference(format!("{host}/app"));
    for _ in 0..3 {
        client.check_push(&to).unwrap();
        std::thread::sleep(Duration::from_millis(160));
    }
    assert!(registry.count("GET", "/token") >= 3);
}

#[test]
fn a_token_that_expires_in_the_middle_of_an_upload_is_renewed() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push")], LONG));
    let host = registry.host();
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let refused = Response::error(401, "UNAUTHORIZED", "token expired").header(
        "www-authenticate",
        format!("Bearer realm=\"http://{host}/token\",service=\"test\",error=\"invalid_token\""),
    );
    // After the body: an answer before it may be lost with the connection, and then nothing asks for a new token.
    registry.plan("PUT", "/blobs/uploads/", 1, Fault::Answer(refused));
    let bytes = noise(700_000, 1);
    let open = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
    let to = reference(format!("{host}/app"));
    client.push_blob(&to, &blob_descriptor(&bytes), &open, &[]).unwrap();
    assert_eq!(registry.with(|s| s.blobs.len()), 1);
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[test]
fn insufficient_scope_is_answered_once_with_more() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push,delete,admin")], LONG));
    let host = registry.host();
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let challenge = format!(
        "Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:app:admin\",error=\"insufficient_scope\""
    );
    let refused = Response::error(403, "DENIED", "more!").header("www-authenticate", challenge);
    registry.plan("GET", "/manifests/", 1, Fault::Answer(refused.clone()));
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    client.manifest(&reference(format!("{host}/app:1"))).unwrap();
    let last = registry.with(|state| state.log.iter().rev().find(|r| r.path == "/token").cloned().unwrap());
    let scopes: Vec<_> = last.query.iter().filter(|(k, _)| k == "scope").map(|(_, v)| v.as_str()).collect();
    assert_eq!(scopes, ["repository:app:admin", "repository:app:pull"]);
    // Again and again is not answered again and again.
    registry.plan("GET", "/manifests/", 100, Fault::Answer(refused));
    let before = registry.count("GET", "/manifests/");
    let error = client.manifest(&reference(format!("{host}/app:1"))).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(registry.count("GET", "/manifests/") - before <= 2);
}

#[test]
fn a_redirect_to_another_host_gets_no_credential() {
    for auth in [
        Auth::Basic { user: "ci".to_owned(), password: "pw".to_owned() },
        bearer(&[("ci", "pw", "pull,push")], LONG),
    ] {
        let (registry, storage) = (registry(auth), FaultRegistry::start());
        let host = registry.host();
        let bytes = noise(100_000, 1);
        let digest = registry.put_blob("app", &bytes);
        storage.put_blob("bucket", &bytes);
        registry.with(|s| s.redirect_blobs = Some(format!("http://{}/v2/bucket/blobs", storage.host())));
        let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
        let got = read_all(&client, &reference(format!("{host}/app")), &blob_descriptor(&bytes)).unwrap();
        assert_eq!(got, bytes);
        storage.with(|state| {
            assert_eq!(state.log.len(), 1);
            assert!(state.log[0].path.ends_with(&digest));
            assert_eq!(state.log[0].header("authorization"), None);
        });
    }
}

#[test]
fn a_failing_storage_host_is_named_without_its_signature() {
    let (registry, storage) = (registry(Auth::Open), FaultRegistry::start());
    registry.put_blob("app", b"x");
    registry.with(|s| s.redirect_blobs = Some(format!("http://{}/v2/bucket/blobs", storage.host())));
    let (client, heard) = client_with(config());
    let place = reference(format!("{}/app", registry.host()));
    let error = read_all(&client, &place, &blob_descriptor(b"x")).unwrap_err();
    let text = format!("{error}{error:?}{}", heard.everything());
    assert!(text.contains(&storage.host()), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[test]
fn an_upload_location_on_another_host_gets_no_credential() {
    let registry = registry(Auth::Basic { user: "ci".to_owned(), password: "pw".to_owned() });
    let elsewhere = FaultRegistry::start();
    let host = registry.host();
    registry.with(|s| s.location_base = Some(format!("http://{}", elsewhere.host())));
    elsewhere.plan("PUT", "/uploads/", 1, Fault::Answer(Response::new(201)));
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let bytes = noise(1000, 1);
    let open = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
    client.push_blob(&reference(format!("{host}/app")), &blob_descriptor(&bytes), &open, &[]).unwrap();
    elsewhere.with(|state| {
        assert_eq!(state.log.len(), 1);
        assert!(state.log.iter().all(|r| r.header("authorization").is_none()));
    });
}

/// A registry whose token service is at `realm`.
fn with_realm(realm: String) -> FaultRegistry {
    let Auth::Bearer { users, refresh, life, .. } =
        bearer(&[("", "", "pull"), ("ci", "hunter22", "pull,push")], LONG)
    else {
        unreachable!()
    };
    registry(Auth::Bearer { realm: Some(realm), users, refresh, life })
}

#[test]
fn a_token_service_of_another_domain_gets_no_password() {
    let thief = registry(bearer(&[("", "", "pull"), ("ci", "hunter22", "pull,push")], LONG));
    let port = thief.host().rsplit_once(':').unwrap().1.to_owned();
    let service = format!("tokens.example:{port}");
    let registry = with_realm(format!("http://{service}/token"));
    // What the thief grants, the registry takes: the two are one for this test.
    let host = registry.host();
    let config = || RegistryConfig {
        hosts_file: Some(b"127.0.0.1 tokens.example\n".to_vec()),
        ..with_login(config(), &host, "ci", "hunter22")
    };
    let (client, heard) = client_with(config());
    let error = client.check_push(&reference(format!("{host}/app"))).unwrap_err();
    let text = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(text.contains("the command line (not sent to `tokens.example"), "{text}");
    let asked = thief.with(|state| state.log.clone());
    assert!(!asked.is_empty(), "it is asked, by nobody in particular");
    assert!(asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
    assert!(asked.iter().all(|request| request.argument("account").is_none()), "{asked:?}");
    let warnings = heard.warnings();
    let told = warnings.iter().filter(|text| text.contains("--registry-token-service")).count();
    assert_eq!(told, 1, "{warnings:?}");
    // Neither by POST.
    let mut refreshing = config();
    refreshing.credentials.explicit = vec![(host.clone(), Credential::Identity(Secret::new("refresh-me")))];
    assert!(client_with(refreshing).0.check_push(&reference(format!("{host}/app"))).is_err());
    assert_eq!(thief.count("POST", "/token"), 0);
    // Unless the configuration says whose it is.
    let mut allowed = config();
    allowed.host_mut(&host).token_services.push("tokens.example".to_owned());
    let _ = client_with(allowed).0.check_push(&reference(format!("{host}/app")));
    let last = thief.with(|state| state.log.last().cloned().unwrap());
    assert!(last.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
}

#[test]
fn a_token_service_that_sends_us_elsewhere_is_not_followed() {
    let (registry, thief) = (registry(bearer(&[("ci", "hunter22", "pull")], LONG)), FaultRegistry::start());
    let elsewhere = Response::new(307).header("location", format!("http://{}/token", thief.host()));
    registry.plan("GET", "/token", 9, Fault::Answer(elsewhere));
    let (client, _) = client_with(with_login(config(), &registry.host(), "ci", "hunter22"));
    let error = client.resolve(&reference(format!("{}/x", registry.host()))).unwrap_err();
    assert!(error.to_string().contains("307"), "{error}");
    assert!(thief.requests().is_empty());
}

#[test]
fn a_realm_that_is_no_web_address_is_not_asked() {
    let registry = with_realm("ftp://127.0.0.1/token".to_owned());
    let (client, _) = client_with(with_login(config(), &registry.host(), "ci", "hunter22"));
    let error = client.resolve(&reference(format!("{}/x", registry.host()))).unwrap_err();
    assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
}

#[test]
fn a_credential_for_another_host_is_not_sent() {
    let registry = registry(Auth::Basic { user: "ci".to_owned(), password: "pw".to_owned() });
    let mut config = config();
    for key in ["127.0.0.1", "127.0.0.1:1", "docker.io", "127.0.0.1.evil.example"] {
        config.credentials.explicit.push((key.to_owned(), Credential::basic("ci", Secret::new("pw"))));
    }
    let (client, _) = client_with(config);
    let error = client.resolve(&reference(format!("{}/x", registry.host()))).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { credential: None, .. }), "{error:?}");
    registry.with(|state| assert!(state.log.iter().all(|r| r.header("authorization").is_none())));
}

#[test]
fn a_server_that_echoes_the_password_does_not_get_it_printed() {
    let registry = registry(Auth::Basic { user: "ci".to_owned(), password: "hunter22".to_owned() });
    let echo = Response::error(400, "BAD", "you sent Y2k6aHVudGVyMjI= which is ci:hunter22");
    registry.plan("GET", "/manifests/", 9, Fault::Answer(echo));
    let (client, heard) = client_with(with_login(config(), &registry.host(), "ci", "hunter22"));
    let error = client.manifest(&reference(format!("{}/x", registry.host()))).unwrap_err();
    let text = format!("{error} {error:?} {}", heard.everything());
    assert!(text.contains("[redacted]"), "{text}");
    assert!(!text.contains("hunter22") && !text.contains("Y2k6aHVudGVyMjI"), "{text}");
}

#[test]
fn a_registry_token_is_sent_as_it_is() {
    let registry = registry(bearer(&[("ci", "pw", "pull")], LONG));
    let host = registry.host();
    let mut config = config();
    config.credentials.explicit.push((host.clone(), Credential::Bearer(Secret::new("given-token"))));
    let (client, _) = client_with(config);
    let _ = client.resolve(&reference(format!("{host}/x")));
    assert_eq!(registry.count("GET", "/token"), 0);
    registry.with(|state| {
        assert_eq!(state.log.last().unwrap().header("authorization"), Some("Bearer given-token"));
    });
}

#[test]
fn ten_layers_fetch_one_token() {
    let registry = registry(bearer(&[("ci", "pw", "pull,push")], LONG));
    let host = registry.host();
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let place = reference(format!("{host}/app"));
    let blobs: Vec<Vec<u8>> = (0..10).map(|seed| noise(1000, seed + 1)).collect();
    for bytes in &blobs {
        registry.put_blob("app", bytes);
    }
    std::thread::scope(|scope| {
        let (client, place) = (&client, &place);
        for bytes in &blobs {
            scope
                .spawn(move || assert_eq!(&read_all(client, place, &blob_descriptor(bytes)).unwrap(), bytes));
        }
    });
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[test]
fn a_token_service_that_is_down_for_a_moment() {
    let registry = registry(bearer(&[("ci", "pw", "pull")], LONG));
    registry.plan("GET", "/token", 2, Fault::Answer(Response::new(503)));
    let host = registry.host();
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let (client, heard) = client_with(with_login(config(), &host, "ci", "pw"));
    client.manifest(&reference(format!("{host}/app:1"))).unwrap();
    assert_eq!(heard.warnings().len(), 2, "{:?}", heard.warnings());
}

#[test]
fn a_token_service_that_answers_nonsense() {
    let registry = registry(bearer(&[("ci", "pw", "pull")], LONG));
    registry.plan("GET", "/token", 9, Fault::Answer(Response::new(200).body("<html>")));
    let host = registry.host();
    let (client, _) = client_with(with_login(config(), &host, "ci", "pw"));
    let error = client.manifest(&reference(format!("{host}/app:1"))).unwrap_err();
    assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
    assert!(error.to_string().contains("/token"), "{error}");
}
