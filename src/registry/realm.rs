//! Whether a token service may be shown a registry's credential.
//!
//! A registry names its token service itself (the realm of its challenge), and it may name any. Its word is enough
//! for a service on its own host or of its own people: Docker Hub's, GitLab's beside its registry. Anybody else's is
//! shown nothing, unless the configuration says that it belongs to the registry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::credential::Scope;
use super::endpoint::is_loopback;

/// Services that belong to registries of another domain.
const KNOWN: &[(&str, &str)] = &[("scw.cloud", "api.scaleway.com")];

/// Domains below which anybody may have a name: to share one proves nothing.
const SHARED_BY_STRANGERS: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "appspot.com",
    "azure.com",
    "azurecr.cn",
    "azurecr.de",
    "azurecr.io",
    "azurecr.us",
    "azurewebsites.net",
    "cluster.local",
    "duckdns.org",
    "dyndns.org",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "jfrog.io",
    "netlify.app",
    "nip.io",
    "on.aws",
    "pages.dev",
    "run.app",
    "sslip.io",
    "vercel.app",
    "workers.dev",
];

/// Returns whether the credential for `registry` may go to a token service on `realm` (both `host[:port]`) by what
/// their names say.
pub(super) fn belongs(registry: &str, realm: &str) -> bool {
    let (registry, realm) = (bare(registry), bare(realm));
    if registry == realm || is_loopback(&registry) && is_loopback(&realm) {
        return true;
    }
    if is_address(&registry) || is_address(&realm) {
        return false;
    }
    // Names without a dot are of one's own network.
    if !registry.contains('.') && !realm.contains('.') {
        return true;
    }
    if KNOWN.iter().any(|(domain, service)| realm == *service && is_below(&registry, domain)) {
        return true;
    }
    let shared = shared_domain(&registry, &realm);
    is_somebodys(&shared)
}

/// Returns whether GitLab's variables say that the registry's token service is there.
pub(super) fn is_gitlabs(environment: &BTreeMap<String, String>, registry: &str, realm: &str) -> bool {
    let names = |variable: &str| {
        environment.get(variable).is_some_and(|text| Scope::parse(text).matches(registry, "").is_some())
    };
    let is_its_registry = names("CI_REGISTRY") || names("CI_DEPENDENCY_PROXY_SERVER");
    is_its_registry && environment.get("CI_SERVER_HOST").is_some_and(|host| bare(host) == bare(realm))
}

/// Returns whether `realm` is one of `allowed`; those without a port mean any.
pub(super) fn is_among(allowed: &[String], realm: &str) -> bool {
    allowed.iter().any(|host| host.eq_ignore_ascii_case(realm) || host.eq_ignore_ascii_case(&bare(realm)))
}

/// The host without its port, in lower case.
fn bare(host: &str) -> String {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The labels that both end with.
fn shared_domain(one: &str, other: &str) -> String {
    let pairs = one.rsplit('.').zip(other.rsplit('.'));
    let mut labels: Vec<&str> = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    labels.reverse();
    labels.join(".")
}

/// Returns whether a domain is likely to have one owner: no top-level domain, no `co.uk`, nobody's hosting.
fn is_somebodys(domain: &str) -> bool {
    let labels: Vec<&str> = domain.split('.').collect();
    let is_registrys = match labels.as_slice() {
        [] | [_] => false,
        // `com.au`, `gov.uk`: countries that sell names one level deeper.
        [second, top] => top.len() > 2 || second.len() > 3,
        _ => true,
    };
    is_registrys && !SHARED_BY_STRANGERS.iter().any(|shared| is_below(domain, shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_service_of_the_same_people_belongs() {
        for (registry, realm) in [
            ("docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.co.uk", "gitlab.example.co.uk"),
            ("gitlab.example.com:5050", "gitlab.example.com"),
            ("r.eu.example.com:5000", "auth.example.com:8443"),
            ("registry.digitalocean.com", "api.digitalocean.com"),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
            ("rg.fr-par.scw.cloud", "api.scaleway.com"),
            ("team.azurecr.io", "team.azurecr.io"),
            ("10.0.0.5:5000", "10.0.0.5:5001"),
            ("127.0.0.1:5000", "localhost:6000"),
            ("[::1]:5000", "[::1]:5001"),
            ("registry:5000", "auth:5001"),
            ("R.Example.com", "auth.example.COM."),
        ] {
            assert!(belongs(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn strangers_do_not() {
        for (registry, realm) in [
            ("registry.example.com", "evil.net"),
            ("registry.example.com", "example.com.evil.net"),
            ("registry.example.com", "evilexample.com"),
            ("example.co.uk", "evil.co.uk"),
            ("team.azurecr.io", "evil.azurecr.io"),
            ("a.eu-west-1.elb.amazonaws.com", "b.eu-west-1.elb.amazonaws.com"),
            ("10.0.0.5:5000", "10.0.0.6:5000"),
            ("10.0.0.5", "9.0.0.5"),
            ("10.0.0.5.nip.io", "10.0.0.6.nip.io"),
            ("a.one.svc.cluster.local", "b.two.svc.cluster.local"),
            ("127.0.0.1:5000", "auth.example.com"),
            ("registry.example.com", "localhost"),
            ("[2001:db8::1]:5000", "[2001:db8::2]:5000"),
            ("com", "evil.com"),
        ] {
            assert!(!belongs(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn gitlab_and_the_configuration_may_say_otherwise() {
        let environment: BTreeMap<String, String> = [
            ("CI_REGISTRY", "registry.one.example"),
            ("CI_DEPENDENCY_PROXY_SERVER", "git.two.example:443"),
            ("CI_SERVER_HOST", "git.two.example"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert!(is_gitlabs(&environment, "registry.one.example", "git.two.example"));
        assert!(!is_gitlabs(&environment, "registry.one.example", "git.three.example"));
        assert!(!is_gitlabs(&environment, "registry.other.example", "git.two.example"));
        let allowed = ["auth.example".to_owned(), "other.example:8443".to_owned()];
        for (realm, expected) in
            [("auth.example", true), ("auth.example:1", true), ("other.example:8443", true)]
        {
            assert_eq!(is_among(&allowed, realm), expected, "{realm}");
        }
        assert!(!is_among(&allowed, "other.example") && !is_among(&allowed, "third.example"));
    }
}
