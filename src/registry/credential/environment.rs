//! Credentials that CI systems and people put into environment variables.
//!
//! * `KILN_<HOST>_USER` and `KILN_<HOST>_PASSWORD` (and kaniko's `KANIKO_<HOST>_…`), the host in capitals
//!   with everything but letters and digits as `_`.
//! * GitLab: `CI_REGISTRY`, `CI_REGISTRY_USER`, `CI_REGISTRY_PASSWORD`; `CI_DEPENDENCY_PROXY_SERVER`,
//!   `CI_DEPENDENCY_PROXY_USER`, `CI_DEPENDENCY_PROXY_PASSWORD`.

use std::collections::BTreeMap;

use super::Credential;
use super::key::{Scope, canonical_registry};
use crate::registry::secret::Secret;

/// Returns what the variables say about a repository: how specific it is, the credential, its origin.
pub(super) fn candidates(
    environment: &BTreeMap<String, String>,
    registry: &str,
    repository: &str,
) -> Vec<(usize, Credential, String)> {
    let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    for host in variable_names(registry) {
        for prefix in ["KILN", "KANIKO"] {
            let user = format!("{prefix}_{host}_USER");
            if let (Some(username), Some(password)) = (get(&user), get(&format!("{prefix}_{host}_PASSWORD")))
            {
                let credential = Credential::basic(username.clone(), Secret::new(password.clone()));
                found.push((1, credential, user));
            }
        }
    }
    for (server, user, password) in [
        ("CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"),
        ("CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"),
    ] {
        let (Some(server), Some(username), Some(password)) = (get(server), get(user), get(password)) else {
            continue;
        };
        if let Some(specific) = Scope::parse(server).matches(registry, repository) {
            let credential = Credential::basic(username.clone(), Secret::new(password.clone()));
            found.push((specific, credential, user.to_owned()));
        }
    }
    found
}

/// Returns the names a registry may go by in variables: with its port, then without.
fn variable_names(registry: &str) -> Vec<String> {
    let name = |host: &str| {
        host.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect::<String>()
    };
    let registry = canonical_registry(registry);
    let mut names = vec![name(&registry)];
    if let Some((host, port)) = registry.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        names.push(name(host));
    }
    names
}
