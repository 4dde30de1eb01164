//! How registries are reached: options, docker's and podman's files, proxies, name servers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{RequestError, certificates, registries_conf};
use crate::cli::args::RegistryArgs;
use crate::cli::environment::Environment;
use crate::cli::values::{ValueError, key_value, parse_age};
use crate::own_files::OwnFiles;
use crate::registry::{
    AuthFile, ClientCertificate, CloudProvider, CredentialSources, MirrorError, MirrorRules, Proxies,
    RegistryConfig, Secret, Sides,
};

/// Variables that sources of credentials look at, by the beginning of their names.
const CREDENTIAL_VARIABLES: &[&str] = &[
    "KILN_",
    "KANIKO_",
    "CI_",
    "AWS_",
    "AZURE_",
    "IDENTITY_",
    "MSI_",
    "GOOGLE_",
    "GCE_",
    "CLOUDSDK_",
    "HOME",
];

/// Puts together what the client needs to know.
pub fn registry_config(
    args: &RegistryArgs,
    environment: &Environment,
) -> Result<RegistryConfig, RequestError> {
    let mut config = ambient_config(environment)?;
    let mut files = Vec::new();
    for path in &args.registry_auth {
        files.push(auth_file("--registry-auth", &environment.directory.join(path))?);
    }
    config.credentials.files.splice(0..0, files);
    for text in &args.insecure_registry {
        let (host, sides) = waiver("--insecure-registry", text)?;
        config.host_mut(host).waived.insecure |= sides;
    }
    for text in &args.skip_tls_verify_registry {
        let (host, sides) = waiver("--skip-tls-verify-registry", text)?;
        config.host_mut(host).waived.skip_tls_verify |= sides;
    }
    for text in &args.registry_ca {
        authority(&mut config, text, environment)?;
    }
    for text in &args.registry_cert {
        let (host, files) = key_value("--registry-cert", text)?;
        client_certificate(&mut config, "--registry-cert", host, files, environment)?;
    }
    for text in &args.registry_token_service {
        token_service(&mut config, text)?;
    }
    if let Some(text) = &args.registry_timeout {
        config.retries.wait_for(deadline("--registry-timeout", text)?);
    }
    mirrors(&mut config, args)?;
    Ok(config)
}

/// Reads what the machine and the environment say, without any options.
pub fn ambient_config(environment: &Environment) -> Result<RegistryConfig, RequestError> {
    let mut config = RegistryConfig {
        credentials: credential_sources(environment)?,
        extra_authorities: certificates::authorities(environment)?,
        proxies: proxies(environment),
        resolv_conf: fs::read(environment.own("/etc/resolv.conf")).ok(),
        hosts_file: fs::read(environment.own("/etc/hosts")).ok(),
        ..RegistryConfig::default()
    };
    if let Some(text) = environment.set_var("KILN_REGISTRY_TIMEOUT") {
        config.retries.wait_for(deadline("KILN_REGISTRY_TIMEOUT", text)?);
    }
    certificates::read(&mut config, &certificates::directories(environment))?;
    registries_conf::read(&mut config, environment)?;
    Ok(config)
}

/// Reads how long a silent server is waited for.
pub fn deadline(option: &'static str, text: &str) -> Result<Duration, ValueError> {
    let time = parse_age(option, text).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| ValueError::new(option, text, "expected a time such as `30s` or `2m`"))
}

/// Reads `[HOST=]FILE`.
fn authority(config: &mut RegistryConfig, text: &str, environment: &Environment) -> Result<(), RequestError> {
    let (host, path) = match text.split_once('=') {
        Some((host, path)) if !host.contains('/') => (Some(host), path),
        _ => (None, text),
    };
    let pem = pem("--registry-ca", &environment.directory.join(path))?;
    match host {
        Some(host) => config.host_mut(host).authorities.push(pem),
        None => config.extra_authorities.push(pem),
    }
    Ok(())
}

/// Reads `CERT,KEY` for a host.
pub fn client_certificate(
    config: &mut RegistryConfig,
    option: &'static str,
    host: &str,
    files: &str,
    environment: &Environment,
) -> Result<(), RequestError> {
    let (certificate, key) =
        files.split_once(',').ok_or_else(|| ValueError::new(option, files, "expected `HOST=CERT,KEY`"))?;
    let certificate = pem(option, &environment.directory.join(certificate))?;
    let key_file = environment.directory.join(key);
    let key = pem(option, &key_file)?;
    config.key_files.push(key_file);
    let key = Secret::new(String::from_utf8_lossy(&key).into_owned());
    config.host_mut(host).client_certificate = Some(ClientCertificate { certificate, key });
    Ok(())
}

/// Reads `HOST=TOKENHOST`.
pub fn token_service(config: &mut RegistryConfig, text: &str) -> Result<(), ValueError> {
    let option = "--registry-token-service";
    let (host, service) = key_value(option, text)?;
    if service.is_empty() || service.contains('/') {
        return Err(ValueError::new(option, text, "expected `HOST=TOKENHOST`, two hosts"));
    }
    config.host_mut(host).token_services.push(service.to_owned());
    Ok(())
}

/// Reads a file that must hold PEM blocks.
pub fn pem(option: &'static str, path: &Path) -> Result<Vec<u8>, RequestError> {
    let fail = |source| RequestError::File { option, path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(fail)?;
    if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        Ok(bytes)
    } else {
        Err(fail(io::Error::new(io::ErrorKind::InvalidData, "it is not in PEM format")))
    }
}

/// Says which option a mirror comes from.
pub fn mirror_error(option: &'static str, error: MirrorError) -> ValueError {
    ValueError::new(option, &error.text, error.reason)
}

/// Reads the mirrors of the options: they come before those of files.
fn mirrors(config: &mut RegistryConfig, args: &RegistryArgs) -> Result<(), ValueError> {
    let mut rules =
        MirrorRules { no_fallback: args.skip_default_registry_fallback, ..MirrorRules::default() };
    for text in &args.registry_mirror {
        rules.add_mirror(text).map_err(|error| mirror_error("--registry-mirror", error))?;
    }
    for text in &args.registry_map {
        rules.add_map(text).map_err(|error| mirror_error("--registry-map", error))?;
    }
    config.mirrors.put_before(rules);
    Ok(())
}

/// Reads `HOST[:PORT][=pull|push]`.
fn waiver<'a>(option: &'static str, text: &'a str) -> Result<(&'a str, Sides), ValueError> {
    let bad = |reason| Err(ValueError::new(option, text, reason));
    let (host, sides) = match text.split_once('=') {
        None => (text, Sides::BOTH),
        Some((host, "pull")) => (host, Sides::PULL),
        Some((host, "push")) => (host, Sides::PUSH),
        Some(_) => return bad("expected `pull` or `push` after the `=`"),
    };
    if host.is_empty() || host.contains('/') {
        return bad("expected `HOST[:PORT]`, as images are named");
    }
    Ok((host, sides))
}

fn credential_sources(environment: &Environment) -> Result<CredentialSources, RequestError> {
    let known = |name: &str| CREDENTIAL_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    let variables = environment.variables.iter().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| known(name))?;
        Some((name.to_owned(), value.to_str()?.to_owned()))
    });
    Ok(CredentialSources {
        explicit: Vec::new(),
        files: auth_files(environment)?,
        environment: variables.collect(),
        helper_path: search_path(environment),
        cloud: vec![CloudProvider::Azure, CloudProvider::Amazon, CloudProvider::Google],
        own_files: OwnFiles::default(),
    })
}

/// Returns the directories in which programs are looked for.
pub fn search_path(environment: &Environment) -> Vec<PathBuf> {
    environment.os("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default()
}

/// Returns where docker's `config.json` is.
pub fn docker_config_file(environment: &Environment) -> PathBuf {
    const NAME: &str = "config.json";
    match environment.os("DOCKER_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => environment.own(Path::new(path).join(NAME)),
        None => environment.in_home(Path::new(".docker").join(NAME)),
    }
}

/// Reads the files that hold credentials, the strongest first. Those named by a variable must be there.
fn auth_files(environment: &Environment) -> Result<Vec<AuthFile>, RequestError> {
    let mut files = Vec::new();
    if let Some(text) = environment.set_var("DOCKER_AUTH_CONFIG") {
        let origin = "DOCKER_AUTH_CONFIG".to_owned();
        files.push(AuthFile { origin, text: Secret::new(text) });
    }
    if let Some(path) = environment.named("REGISTRY_AUTH_FILE") {
        files.push(auth_file("REGISTRY_AUTH_FILE", &path)?);
    }
    for path in usual_auth_files(environment) {
        match auth_file("DOCKER_CONFIG", &path) {
            Ok(file) => files.push(file),
            Err(RequestError::File { source, .. }) if is_not_for_us(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// Tells about credential files that exist and may not be read: the build goes on without them, as docker's does.
pub fn auth_warnings(environment: &Environment) -> Vec<String> {
    let refused = |path: &PathBuf| {
        fs::File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let files = usual_auth_files(environment).into_iter().filter(refused);
    files.map(|path| format!("cannot read `{}`: going on without its credentials", path.display())).collect()
}

pub(super) fn is_not_for_us(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

/// Lists where docker and podman keep credentials.
fn usual_auth_files(environment: &Environment) -> Vec<PathBuf> {
    let mut candidates = vec![docker_config_file(environment)];
    if let Some(runtime) = environment.set_var("XDG_RUNTIME_DIR") {
        candidates.push(environment.own(Path::new(runtime).join("containers/auth.json")));
    }
    candidates.push(environment.in_config("containers/auth.json"));
    candidates
}

fn auth_file(option: &'static str, path: &Path) -> Result<AuthFile, RequestError> {
    let text = fs::read_to_string(path).map_err(|source| RequestError::File {
        option,
        path: path.to_owned(),
        source,
    })?;
    Ok(AuthFile { origin: path.display().to_string(), text: Secret::new(text) })
}

fn proxies(environment: &Environment) -> Proxies {
    let either = |lower: &str, upper: &str| environment.set_var(lower).or_else(|| environment.set_var(upper));
    let all = either("all_proxy", "ALL_PROXY");
    // `HTTP_PROXY` in capitals can be set by a client in CGI; outside of it tools honour both.
    Proxies {
        http: either("http_proxy", "HTTP_PROXY").or(all).map(Secret::new),
        https: either("https_proxy", "HTTPS_PROXY").or(all).map(Secret::new),
        no_proxy: either("no_proxy", "NO_PROXY").unwrap_or_default().to_owned(),
    }
}
