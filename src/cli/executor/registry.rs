//! kaniko's registry flags: of one registry, or of all that is pulled or pushed.

use super::args::RegistryFlags;
use super::request::ExecutorError;
use crate::cli::environment::Environment;
use crate::cli::request::{ambient_config, client_certificate, deadline, mirror_error, pem, token_service};
use crate::cli::values::{ValueError, key_value};
use crate::oci::Reference;
use crate::registry::{CloudProvider, MirrorRules, RegistryConfig, Sides};

/// Puts together what the client needs to know.
pub(super) fn registry_config(
    flags: &RegistryFlags,
    environment: &Environment,
) -> Result<RegistryConfig, ExecutorError> {
    let mut config = ambient_config(environment)?;
    let on = |flag: Option<bool>| flag == Some(true);
    let sides = |pull: bool, push: bool| Sides { pull, push };
    config.waived.insecure = sides(on(flags.insecure_pull), on(flags.insecure));
    // kaniko pulls without verifying where it is told so of pushes, too: its users rely on it.
    let unverified = on(flags.skip_tls_verify);
    config.waived.skip_tls_verify = sides(unverified || on(flags.skip_tls_verify_pull), unverified);
    for host in &flags.insecure_registry {
        config.host_mut(host).waived.insecure = Sides::BOTH;
    }
    for host in &flags.skip_tls_verify_registry {
        config.host_mut(host).waived.skip_tls_verify = Sides::BOTH;
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
    for text in &flags.registry_token_service {
        token_service(&mut config, text)?;
    }
    if let Some(text) = &flags.registry_timeout {
        config.retries.wait_for(deadline("--registry-timeout", text)?);
    }
    mirrors(&mut config, flags, environment)?;
    if let Some(helpers) = &flags.credential_helpers {
        credential_helpers(&mut config, helpers)?;
    }
    Ok(config)
}

/// Reads a cache over plain HTTP where pushes may use it: kaniko's `--insecure` is about its cache, too.
pub(super) fn insecure_cache(config: &mut RegistryConfig, flags: &RegistryFlags, repository: &Reference) {
    config.host_mut(repository.registry()).waived.insecure.pull |= flags.insecure == Some(true);
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
    let mut rules = MirrorRules {
        no_fallback: flags.skip_default_registry_fallback == Some(true),
        ..MirrorRules::default()
    };
    let of_hub = flags.registry_mirror.iter().map(String::as_str);
    for location in of_hub.chain(environment.set_var("KANIKO_REGISTRY_MIRROR")) {
        let option = "--registry-mirror";
        rules.add_mirror(&format!("docker.io={location}")).map_err(|error| mirror_error(option, error))?;
    }
    let maps = flags.registry_map.iter().map(String::as_str);
    for map in maps.chain(environment.set_var("KANIKO_REGISTRY_MAP")) {
        rules.add_map(map).map_err(|error| mirror_error("--registry-map", error))?;
    }
    config.mirrors.put_before(rules);
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
        let environment =
            environment(&[("KANIKO_R_IO_USER", "u"), ("CI_REGISTRY", "c"), ("HOME", "/nowhere")]);
        registry_config(&flags, &environment).unwrap()
    }

    #[test]
    fn pushes_and_pulls_are_told_apart() {
        let waived = |flags| config(flags).host("r.io").waived;
        let push = waived(RegistryFlags { insecure: Some(true), ..RegistryFlags::default() });
        assert_eq!((push.insecure, push.skip_tls_verify), (Sides::PUSH, Sides::default()));
        let pull = waived(RegistryFlags { insecure_pull: Some(true), ..RegistryFlags::default() });
        assert_eq!((pull.insecure, pull.skip_tls_verify), (Sides::PULL, Sides::default()));
        let both = waived(RegistryFlags { skip_tls_verify: Some(true), ..RegistryFlags::default() });
        assert_eq!(both.skip_tls_verify, Sides::BOTH);
        let pull = waived(RegistryFlags { skip_tls_verify_pull: Some(true), ..RegistryFlags::default() });
        assert_eq!(pull.skip_tls_verify, Sides::PULL);
        let none = waived(RegistryFlags { insecure: Some(false), ..RegistryFlags::default() });
        assert_eq!(none.insecure, Sides::default());
        let flags = RegistryFlags { insecure: Some(true), ..RegistryFlags::default() };
        let mut cached = config(flags.clone());
        insecure_cache(&mut cached, &flags, &"cache.io/app".parse().unwrap());
        assert_eq!(cached.host("cache.io").waived.insecure, Sides::BOTH);
        assert_eq!(cached.host("base.io").waived.insecure, Sides::PUSH);
        let one = config(RegistryFlags {
            insecure_registry: vec!["plain:5000".into()],
            skip_tls_verify_registry: vec!["odd.io".into()],
            ..RegistryFlags::default()
        });
        assert_eq!(one.host("plain:5000").waived.insecure, Sides::BOTH);
        assert_eq!(one.host("odd.io").waived.skip_tls_verify, Sides::BOTH);
        assert_eq!(one.host("r.io").waived, crate::registry::Waivers::default());
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
