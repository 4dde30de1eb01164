//! Against Debian's docker-registry.

use super::support::distribution::{Certificates, Distribution, Setup};
use super::support::tokens::TokenService;
use super::*;

fn push_and_pull(client: &Client, host: &str) {
    let layers = [noise(300_000, 1), noise(10, 2), noise(2_000_000, 3)];
    for format in [ManifestFormat::Oci, ManifestFormat::Docker] {
        let (image, memory) = image(&layers, "linux/amd64", format);
        let name = reference(format!("{host}/team/app:1"));
        client.push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
        let pulled = client.image(&name, &"linux/amd64".parse().unwrap()).unwrap();
        assert_eq!(pulled.image.manifest, image.manifest);
        assert_eq!(pulled.image.config_bytes, image.config_bytes);
        assert_eq!(pulled.reference.digest(), Some(&image.digest()));
        assert_eq!(client.resolve(&name).unwrap().digest(), image.descriptor.digest());
        for (layer, bytes) in pulled.image.layers.iter().zip(&layers) {
            assert_eq!(&read_all(client, &name, &layer.descriptor).unwrap(), bytes);
        }
    }
}

#[test]
fn an_open_registry() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let client = client();
    push_and_pull(&client, &registry.host());
    let other = reference(format!("{}/other/app:2", registry.host()));
    let from = reference(format!("{}/team/app:1", registry.host()));
    let layers = [noise(300_000, 1), noise(10, 2), noise(2_000_000, 3)];
    let (image, memory) = image(&layers, "linux/amd64", ManifestFormat::Oci);
    let pushed = client
        .push_image(&image, &memory, std::slice::from_ref(&other), std::slice::from_ref(&from))
        .unwrap();
    let mounted =
        pushed.iter().filter(|(_, how)| matches!(how, Pushed::Mounted { from } if from == "team/app"));
    assert_eq!(mounted.count(), 4, "layers and config: {pushed:?}");
    client.check_push(&other).unwrap();
    assert_eq!(client.list_tags(&other).unwrap(), ["2"]);
    client.delete(&other.with_digest(image.digest())).unwrap();
    assert!(client.resolve(&other).unwrap_err().is_not_found());
    assert!(client.resolve(&reference(format!("{}/no/such", registry.host()))).unwrap_err().is_not_found());
}

#[test]
fn a_stream_of_unknown_length_is_uploaded_in_one_pass() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let client = client();
    let to = reference(format!("{}/stream", registry.host()));
    let bytes = noise(3_000_000, 9);
    client.push_stream(&to, &mut Cursor::new(bytes.clone()), &|| Some(Digest::of(&bytes))).unwrap();
    assert_eq!(read_all(&client, &to, &blob_descriptor(&bytes)).unwrap(), bytes);
}

#[test]
fn a_registry_with_passwords() {
    let setup = Setup { htpasswd: Some(("robot$ci", "s3:cr:et")), ..Setup::default() };
    let Some(registry) = Distribution::start(&setup) else { return };
    let host = registry.host();
    push_and_pull(&client_with(with_login(config(), &host, "robot$ci", "s3:cr:et")).0, &host);
    let name = reference(format!("{host}/team/app:1"));
    let error = client().resolve(&name).unwrap_err();
    assert!(matches!(error.last(), RegistryError::Unauthorized { credential: None, .. }), "{error}");
    assert!(error.hint().unwrap().contains("kiln login"), "{error}");
    let (wrong, heard) = client_with(with_login(config(), &host, "robot$ci", "wrongpass"));
    let error = wrong.check_push(&name).unwrap_err();
    assert!(matches!(error.last(), RegistryError::Unauthorized { credential: Some(_), .. }), "{error}");
    assert!(!format!("{error:?}{}{}", error.full(), heard.everything()).contains("wrongpass"));
}

#[test]
fn a_registry_with_signed_tokens() {
    let tokens = TokenService::start(
        &[("", "", "pull"), ("ci", "secret", "pull,push,delete"), ("reader", "secret", "pull")],
        300,
    );
    let setup = Setup {
        token: Some((tokens.realm(), tokens.directory.path().join("token.crt"))),
        ..Setup::default()
    };
    let Some(registry) = Distribution::start(&setup) else { return };
    let host = registry.host();
    let (writer, _) = client_with(with_login(config(), &host, "ci", "secret"));
    push_and_pull(&writer, &host);
    let name = reference(format!("{host}/team/app:1"));
    // Anonymous may pull, and push is refused with a word on credentials.
    client().image(&name, &"linux/amd64".parse().unwrap()).unwrap();
    let error = client().check_push(&name).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { credential: None, .. }), "{error}");
    let (reader, _) = client_with(with_login(config(), &host, "reader", "secret"));
    reader.resolve(&name).unwrap();
    let error = reader.check_push(&name).unwrap_err();
    assert!(error.hint().unwrap().contains("may not do this"), "{error}");
    let (wrong, _) = client_with(with_login(config(), &host, "ci", "wrong"));
    let error = wrong.resolve(&name).unwrap_err();
    assert!(error.full().contains("incorrect username or password"), "{error}");
    // One token per scope set, not one per request.
    let count = tokens.log.lock().unwrap().len();
    for _ in 0..5 {
        writer.resolve(&name).unwrap();
    }
    assert_eq!(tokens.log.lock().unwrap().len(), count);
}

#[test]
fn signed_tokens_that_expire_between_and_within_uploads_are_renewed() {
    // The registry takes a token for two seconds; we are told it lives for five minutes, as by a clock that is wrong.
    let tokens = TokenService::start_telling(&[("ci", "secret", "pull,push")], 2, 300);
    let setup = Setup {
        token: Some((tokens.realm(), tokens.directory.path().join("token.crt"))),
        ..Setup::default()
    };
    let Some(registry) = Distribution::start(&setup) else { return };
    let (client, _) = client_with(with_login(config(), &registry.host(), "ci", "secret"));
    let to = reference(format!("{}/team/app:1", registry.host()));
    let nap = || std::thread::sleep(Duration::from_millis(3200));
    let bytes = [noise(100_000, 1), noise(3_000_000, 2)];
    for (at, bytes) in bytes.iter().enumerate() {
        let opened = std::sync::atomic::AtomicBool::new(false);
        let open = || {
            // The session is open; its token goes stale before the bytes come.
            if at == 1 && !opened.swap(true, std::sync::atomic::Ordering::Relaxed) {
                nap();
            }
            Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>)
        };
        assert_eq!(client.push_blob(&to, &blob_descriptor(bytes), &open, &[]).unwrap(), Pushed::Uploaded);
        if at == 0 {
            nap();
        }
    }
    assert!(tokens.log.lock().unwrap().len() >= 3, "{:?}", tokens.log.lock().unwrap().len());
    for bytes in &bytes {
        assert_eq!(&read_all(&client, &to, &blob_descriptor(bytes)).unwrap(), bytes);
    }
}

#[test]
fn a_registry_behind_a_private_authority() {
    let certificates = Certificates::make();
    let setup = Setup {
        tls: Some((certificates.path("server.crt"), certificates.path("server.key"), None)),
        ..Setup::default()
    };
    let Some(registry) = Distribution::start(&setup) else { return };
    let host = registry.host();
    let name = reference(format!("{host}/team/app:1"));
    let mut trusting = config();
    trusting.host_mut(&host).authorities.push(certificates.read("ca.crt"));
    push_and_pull(&client_with(trusting).0, &host);
    // Another authority does not help; the hint says what does.
    let mut strange = config();
    let other = Certificates::make();
    strange.host_mut(&host).authorities.push(other.read("ca.crt"));
    let error = client_with(strange).0.resolve(&name).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("unknown authority"), "{error}");
    assert!(error.hint().unwrap().contains("--registry-ca"));
    let mut unverified = config();
    unverified.host_mut(&host).waived.skip_tls_verify = Sides::PULL;
    client_with(unverified).0.resolve(&name).unwrap();
    // HTTP/1.1 alone works too.
    let mut old = config();
    old.http2 = false;
    old.extra_authorities.push(certificates.read("ca.crt"));
    old.host_mut(&host).authorities.push(certificates.read("ca.crt"));
    push_and_pull(&client_with(old).0, &host);
}

#[test]
fn a_certificate_for_another_name() {
    let certificates = Certificates::make();
    let setup = Setup {
        tls: Some((certificates.path("other.crt"), certificates.path("other.key"), None)),
        ..Setup::default()
    };
    let Some(registry) = Distribution::start(&setup) else { return };
    let mut trusting = config();
    trusting.host_mut(&registry.host()).authorities.push(certificates.read("ca.crt"));
    let error = client_with(trusting).0.resolve(&reference(format!("{}/x", registry.host()))).unwrap_err();
    assert!(error.to_string().contains("for another name"), "{error}");
}

#[test]
fn a_registry_that_wants_client_certificates() {
    let certificates = Certificates::make();
    let tls =
        (certificates.path("server.crt"), certificates.path("server.key"), Some(certificates.path("ca.crt")));
    let Some(registry) = Distribution::start(&Setup { tls: Some(tls), ..Setup::default() }) else { return };
    let host = registry.host();
    let mut bare = config();
    bare.host_mut(&host).authorities.push(certificates.read("ca.crt"));
    let mut known = bare.clone();
    known.host_mut(&host).client_certificate = Some(ClientCertificate {
        certificate: certificates.read("client.crt"),
        key: Secret::new(String::from_utf8(certificates.read("client.key")).unwrap()),
    });
    push_and_pull(&client_with(known).0, &host);
    let error = client_with(bare).0.resolve(&reference(format!("{host}/team/app:1"))).unwrap_err();
    assert!(matches!(error.last(), RegistryError::Tls { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--registry-client-cert"), "{error}");
}

#[test]
fn plain_http_where_tls_was_expected() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let certificates = Certificates::make();
    let mut tls = config();
    tls.host_mut(&registry.host()).authorities.push(certificates.read("ca.crt"));
    let name = reference(format!("{}/x", registry.host()));
    let error = client_with(tls.clone()).0.resolve(&name).unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    assert!(error.hint().unwrap().contains("--insecure-registry"));
    // Insecure: HTTPS in vain, then HTTP.
    tls.host_mut(&registry.host()).waived.insecure = Sides::BOTH;
    assert!(client_with(tls).0.resolve(&name).unwrap_err().is_not_found());
}

#[test]
fn a_realm_that_is_not_encrypted_gets_no_password_from_an_encrypted_registry() {
    let certificates = Certificates::make();
    let realm = "http://tokens.example:1/token".to_owned();
    let setup = Setup {
        tls: Some((certificates.path("server.crt"), certificates.path("server.key"), None)),
        token: Some((realm, certificates.path("ca.crt"))),
        ..Setup::default()
    };
    let Some(registry) = Distribution::start(&setup) else { return };
    let host = registry.host();
    let mut config = with_login(config(), &host, "ci", "hunter22");
    config.host_mut(&host).authorities.push(certificates.read("ca.crt"));
    // It is the registry's own by the configuration, and still not spoken to in the clear.
    config.host_mut(&host).token_services.push("tokens.example".to_owned());
    let (client, _) = client_with(config);
    let error = client.check_push(&reference(format!("{host}/app"))).unwrap_err();
    assert!(error.full().contains("a credential is not sent over plain HTTP"), "{}", error.full());
}

#[test]
fn a_read_only_registry() {
    let Some(registry) = Distribution::start(&Setup { read_only: true, ..Setup::default() }) else { return };
    let error = client().check_push(&reference(format!("{}/x:1", registry.host()))).unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("405"), "{error}");
}

#[test]
fn a_pull_through_cache_as_mirror() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let remote = format!("http://{}", registry.host());
    let Some(cache) = Distribution::start(&Setup { proxy: Some(remote), ..Setup::default() }) else { return };
    let layers = [noise(50_000, 4)];
    let (image, memory) = image(&layers, "linux/amd64", ManifestFormat::Oci);
    let name = reference(format!("{}/team/app:1", registry.host()));
    client().push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
    let mut mirrored = config();
    mirrored.mirrors.add_mirror(&format!("mirrored.example={}", cache.host())).unwrap();
    let (mirrored, _) = client_with(mirrored);
    let there = reference("mirrored.example/team/app:1");
    let pulled = mirrored.image(&there, &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!(pulled.image.manifest, image.manifest);
    assert_eq!(read_all(&mirrored, &there, &pulled.image.layers[0].descriptor).unwrap(), layers[0]);
}
