//! Proxies, addresses and names.

use super::support::fault::FaultRegistry;
use super::*;

#[test]
fn a_proxy_is_used_except_where_it_must_not_be() {
    let (proxy, local) = (FaultRegistry::start(), FaultRegistry::start());
    for registry in [&proxy, &local] {
        registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    }
    let mut config = config();
    config.proxies.http = Some(Secret::new(format!("http://user:pr0xy@{}", proxy.host())));
    config.proxies.https = config.proxies.http.clone();
    config.proxies.no_proxy = "direct.example,.internal".to_owned();
    for host in ["registry.example", "direct.example", "a.internal"] {
        config.host_mut(host).waived.insecure = Sides::BOTH;
    }
    config.hosts_file = Some(Vec::new());
    config.resolv_conf = Some(Vec::new());
    let (client, heard) = client_with(config);
    // The name is not resolved here: that is the proxy's business.
    client.manifest(&reference("registry.example/app:1")).unwrap();
    proxy.with(|state| {
        let last = state.log.last().unwrap();
        assert_eq!(last.path, "http://registry.example/v2/app/manifests/1");
        assert!(last.header("proxy-authorization").unwrap().starts_with("Basic "));
        assert!(state.log.iter().any(|r| r.method == "CONNECT"), "HTTPS is tried first");
        state.log.clear();
    });
    client.manifest(&reference(format!("{}/app:1", local.host()))).unwrap();
    for host in ["direct.example", "a.internal"] {
        let error = client.manifest(&reference(format!("{host}/app:1"))).unwrap_err();
        assert!(
            matches!(error.last(), RegistryError::Unreachable { reason: Unreachable::Name(_), .. }),
            "{error:?}"
        );
    }
    assert!(proxy.requests().is_empty());
    assert!(!heard.everything().contains("pr0xy"));
}

#[test]
fn a_proxy_that_refuses_is_named_as_the_culprit() {
    let proxy = FaultRegistry::start();
    let mut config = config();
    config.proxies.https = Some(Secret::new(proxy.host()));
    config.retries.count = 0;
    let error = client_with(config).0.manifest(&reference("registry.example/app:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { reason: Unreachable::Proxy(_), .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("HTTPS_PROXY"));
}

#[test]
fn ipv6_literals() {
    // A machine without IPv6 has nothing to test here.
    let Ok(registry) = FaultRegistry::start_on("[::1]:0") else { return };
    let (image, memory) = image(&[noise(1000, 1)], "linux/amd64", ManifestFormat::Oci);
    let name = reference(format!("{}/app:1", registry.host()));
    assert!(registry.host().starts_with("[::1]:"));
    client().push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
    assert_eq!(
        client().image(&name, &"linux/amd64".parse().unwrap()).unwrap().image.digest(),
        image.digest()
    );
}

#[test]
fn a_name_without_address_is_explained() {
    let mut config = config();
    config.resolv_conf = Some(Vec::new());
    config.hosts_file = Some(Vec::new());
    let error = client_with(config).0.resolve(&reference("registry.invalid/app")).unwrap_err();
    assert!(error.full().contains("/etc/resolv.conf"), "{}", error.full());
}

#[test]
fn the_client_works_on_any_thread() {
    let registry = FaultRegistry::start();
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
    let name = reference(format!("{}/app:1", registry.host()));
    let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    outer.block_on(async {
        let client = client();
        client.manifest(&name).unwrap();
        drop(client);
    });
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.manifest(&name).unwrap());
        }
    });
}
