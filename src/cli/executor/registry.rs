//! kaniko's registry flags. kaniko tells pushing from pulling; kiln tells hosts apart: what is said of
//! pushes holds for the destinations' hosts, what is said of pulls for all others.

use std::collections::BTreeSet;

use super::args::RegistryFlags;
use super::request::ExecutorError;
use crate::cli::environment::Environment;
use crate::cli::request::{ambient_config, client_certificate, mirror, pem};
use crate::cli::values::{ValueError, key_value};
use crate::oci::Reference;
use crate::registry::{CloudProvider, RegistryConfig};

/// Puts together what the client needs to know.
pub(super) fn registry_config(
    flags: &RegistryFlags,
    destinations: &[Reference],
    environment: &Environment,
) -> Result<RegistryConfig, ExecutorError> {
    let mut config = ambient_config(environment)?;
    let on = |flag: Option<bool>| flag == Some(true);
    let pushed: BTreeSet<&str> = destinations.iter().map(Reference::registry).collect();
    // Destinations get an entry of their own first: what is said of pulls is not said of them.
    for host in &pushed {
        let host = config.host_mut(host);
        host.insecure |= on(flags.insecure);
        host.skip_tls_verify |= on(flags.skip_tls_verify);
    }
    config.default_host.insecure |= on(flags.insecure_pull);
    config.default_host.skip_tls_verify |= on(flags.skip_tls_verify) || on(flags.skip_tls_verify_pull);
    for host in &flags.insecure_registry {
        config.host_mut(host).insecure = true;
    }
    for host in &flags.skip_tls_verify_registry {
        config.host_mut(host).skip_tls_verify = true;
    }
    for text in &flags.registry_certificate {
        let (host, path) = key_value("--registry-certificate", text)?;
        let authority = pem("--registry-certificate", &environment.directory.join(path))?;
        config.host_mut(host).authorities.push(authority);
    }
    for text in &flags.registry_client_cert {
        let (host, files) = key_value("--registry-client-cert", text)?;
        client_certificate(&mut config, "--registry-client-cert", host, files, environment)?;
    }
    mirrors(&mut config, flags, environment)?;
    if let Some(helpers) = &flags.credential_helpers {
        credential_helpers(&mut config, helpers)?;
    }
    Ok(config)
}

/// Repeats as often as the most patient flag says, and at least as often as kiln does by itself.
pub(super) fn retries(config: &mut RegistryConfig, flags: &RegistryFlags) {
    let asked = flags.push_retry.max(flags.image_download_retry).max(flags.image_fs_extract_retry);
    config.retries.count = config.retries.count.max(asked);
}

fn mirrors(
    config: &mut RegistryConfig,
    flags: &RegistryFlags,
    environment: &Environment,
) -> Result<(), ExecutorError> {
    let of_hub = flags.registry_mirror.iter().map(String::as_str);
    for location in of_hub.chain(environment.set_var("KANIKO_REGISTRY_MIRROR")) {
        add_mirror(config, "docker.io", location, "--registry-mirror")?;
    }
    let maps = flags.registry_map.iter().map(String::as_str);
    for map in maps.chain(environment.set_var("KANIKO_REGISTRY_MAP")) {
        for pair in map.split(';').filter(|pair| !pair.is_empty()) {
            let (host, location) = key_value("--registry-map", pair)?;
            let host = if host == "index.docker.io" { "docker.io" } else { host };
            add_mirror(config, host, location, "--registry-map")?;
        }
    }
    config.mirrors.no_fallback |= flags.skip_default_registry_fallback == Some(true);
    Ok(())
}

/// Adds a location to the rule of its prefix: the order of the flags is the order of asking.
fn add_mirror(
    config: &mut RegistryConfig,
    prefix: &str,
    location: &str,
    option: &'static str,
) -> Result<(), ValueError> {
    let rule = mirror(option, &format!("{prefix}={location}"))?;
    match config.mirrors.rules.iter_mut().find(|there| there.prefix == rule.prefix) {
        Some(there) => there.locations.extend(rule.locations),
        None => config.mirrors.rules.push(rule),
    }
    Ok(())
}

/// Leaves only the named sources of credentials besides files; an empty name means none.
fn credential_helpers(config: &mut RegistryConfig, helpers: &[String]) -> Result<(), ValueError> {
    let named: Vec<&str> = helpers.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    for name in &named {
        if !matches!(*name, "env" | "google" | "ecr" | "acr" | "gitlab") {
            let reason = "expected env, google, ecr, acr or gitlab";
            return Err(ValueError::new("--credential-helpers", name, reason));
        }
    }
    let cloud = |provider: &CloudProvider| match provider {
        CloudProvider::Google => named.contains(&"google"),
        CloudProvider::Amazon => named.contains(&"ecr"),
        CloudProvider::Azure => named.contains(&"acr"),
    };
    config.credentials.cloud.retain(cloud);
    config.credentials.environment.retain(|name, _| {
        let of_hosts = name.starts_with("KANIKO_") || name.starts_with("KILN_");
        (named.contains(&"env") || !of_hosts) && (named.contains(&"gitlab") || !name.starts_with("CI_"))
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;

    fn config(flags: RegistryFlags) -> RegistryConfig {
        let destinations = ["r.io/app:1".parse().unwrap()];
        let environment =
            environment(&[("KANIKO_R_IO_USER", "u"), ("CI_REGISTRY", "c"), ("HOME", "/nowhere")]);
        registry_config(&flags, &destinations, &environment).unwrap()
    }

    #[test]
    fn pushes_and_pulls_are_told_apart_by_host() {
        let push = config(RegistryFlags { insecure: Some(true), ..RegistryFlags::default() });
        assert!(push.host("r.io").insecure && !push.host("base.io").insecure);
        let pull = config(RegistryFlags { insecure_pull: Some(true), ..RegistryFlags::default() });
        assert!(!pull.host("r.io").insecure && pull.host("base.io").insecure);
        let both = config(RegistryFlags { skip_tls_verify: Some(true), ..RegistryFlags::default() });
        assert!(both.host("r.io").skip_tls_verify && both.host("base.io").skip_tls_verify);
        let pull = config(RegistryFlags { skip_tls_verify_pull: Some(true), ..RegistryFlags::default() });
        assert!(!pull.host("r.io").skip_tls_verify && pull.host("base.io").skip_tls_verify);
        let none = config(RegistryFlags { insecure: Some(false), ..RegistryFlags::default() });
        assert!(!none.host("r.io").insecure);
    }

    #[test]
    fn mirrors_keep_their_order() {
        let flags = RegistryFlags {
            registry_mirror: vec!["one.io".into(), "two.io/hub".into()],
            registry_map: vec!["index.docker.io=three.io;gcr.io=four.io".into()],
            skip_default_registry_fallback: Some(true),
            ..RegistryFlags::default()
        };
        let mirrors = config(flags).mirrors;
        let of = |prefix: &str| -> Vec<String> {
            let rule = mirrors.rules.iter().find(|rule| rule.prefix == prefix).unwrap();
            rule.locations.iter().map(|location| location.location.clone()).collect()
        };
        assert_eq!(of("docker.io"), ["one.io", "two.io/hub", "three.io"]);
        assert_eq!(of("gcr.io"), ["four.io"]);
        assert!(mirrors.no_fallback);
    }

    #[test]
    fn credential_helpers_leave_the_named_ones() {
        let with = |helpers: &[&str]| {
            let helpers = helpers.iter().map(|&name| name.to_owned()).collect();
            config(RegistryFlags { credential_helpers: Some(helpers), ..RegistryFlags::default() })
                .credentials
        };
        let none = with(&[""]);
        assert!(none.cloud.is_empty());
        assert!(!none.environment.contains_key("KANIKO_R_IO_USER"));
        let some = with(&["env", "ecr"]);
        assert_eq!(some.cloud, [CloudProvider::Amazon]);
        assert!(some.environment.contains_key("KANIKO_R_IO_USER"));
        assert!(!some.environment.contains_key("CI_REGISTRY"));
    }
}
