//! `kiln login` and `kiln logout`: credentials in docker's `config.json`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::print;
use crate::cli::args::{CredentialArgs, LoginArgs, LogoutArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::{docker_config_directory, registry_config};
use crate::cli::wire;
use crate::event::Reporter;
use crate::registry::Credential;

/// Docker Hub's name in every credentials file.
const HUB: &str = "https://index.docker.io/v1/";

/// Saves credentials that the registry takes.
pub(super) fn checked(
    args: &LoginArgs,
    environment: &Environment,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let password = password(&args.credential, stdin)?;
    if !args.skip_check {
        let mut config = registry_config(&args.registry, environment)?;
        let key = host(args.credential.host.as_deref());
        let registry = if key == HUB { "docker.io" } else { key.split('/').next().unwrap_or_default() };
        let credential = Credential::basic(&args.credential.username, password.clone());
        config.credentials.explicit.push((registry.to_owned(), credential));
        wire::open_client(config, Reporter::silent())?.check_login(registry)?;
    }
    save(&args.credential, &password, environment, out)
}

/// Saves credentials.
pub(crate) fn login(
    args: &CredentialArgs,
    environment: &Environment,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let password = password(args, stdin)?;
    save(args, &password, environment, out)
}

fn password(args: &CredentialArgs, stdin: &mut dyn Read) -> Result<String, Failure> {
    match (&args.password, args.password_stdin) {
        (Some(password), false) => Ok(password.clone()),
        _ => {
            let mut text = String::new();
            stdin.read_to_string(&mut text).map_err(|source| Failure::File {
                action: "read the password from",
                path: "-".into(),
                source,
            })?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

fn save(
    args: &CredentialArgs,
    password: &str,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = file(args.authfile.as_ref(), environment);
    let mut config = read(&path)?;
    let host = host(args.host.as_deref());
    let auth = STANDARD.encode(format!("{}:{password}", args.username));
    config["auths"][&host] = json!({ "auth": auth });
    write(&path, &config)?;
    print(out, &format!("credentials for {host} saved in {}", path.display()))
}

/// Forgets credentials.
pub(super) fn logout(
    args: &LogoutArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = file(args.authfile.as_ref(), environment);
    let mut config = read(&path)?;
    let host = host(args.host.as_deref());
    let removed = config["auths"].as_object_mut().and_then(|auths| auths.remove(&host)).is_some();
    if removed {
        write(&path, &config)?;
        print(out, &format!("credentials for {host} removed from {}", path.display()))
    } else {
        print(out, &format!("no credentials for {host} in {}", path.display()))
    }
}

fn file(option: Option<&PathBuf>, environment: &Environment) -> PathBuf {
    match option {
        Some(path) => environment.directory.join(path),
        None => docker_config_directory(environment).join("config.json"),
    }
}

/// Returns the key of a registry in a credentials file.
fn host(host: Option<&str>) -> String {
    match host.map(|host| host.trim_start_matches("https://").trim_end_matches('/')) {
        None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1") => {
            HUB.to_owned()
        }
        Some(host) => host.to_owned(),
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({ "auths": {} })),
        Err(source) => return Err(Failure::File { action: "read", path: path.to_owned(), source }),
    };
    let bad = |reason: String| Failure::Credentials { path: path.to_owned(), reason };
    let mut config: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let object = config.as_object_mut().ok_or_else(|| bad("expected a JSON object".to_owned()))?;
    let auths = object.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    if auths.is_object() { Ok(config) } else { Err(bad("expected an object in `auths`".to_owned())) }
}

/// Writes the file through a temporary one, readable by its owner alone.
fn write(path: &Path, config: &Value) -> Result<(), Failure> {
    let fail = |source| Failure::File { action: "write", path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(fail)?;
    let mut file = tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(fail)?;
    file.write_all(format!("{config:#}\n").as_bytes()).map_err(fail)?;
    file.persist(path).map(drop).map_err(|error| fail(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;

    #[test]
    fn credentials_are_saved_beside_others_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d/config.json");
        let environment = environment(&[("DOCKER_CONFIG", directory.path().join("d").to_str().unwrap())]);
        let args = |host: &str, password: Option<&str>| CredentialArgs {
            host: Some(host.to_owned()),
            username: "me".to_owned(),
            password: password.map(str::to_owned),
            password_stdin: password.is_none(),
            authfile: None,
        };
        let mut out = Vec::new();
        login(&args("r.io", Some("a")), &environment, &mut io::empty(), &mut out).unwrap();
        login(&args("docker.io", None), &environment, &mut &b"b:c\n"[..], &mut out).unwrap();
        let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(saved["auths"]["r.io"]["auth"], STANDARD.encode("me:a"));
        assert_eq!(saved["auths"][HUB]["auth"], STANDARD.encode("me:b:c"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!String::from_utf8(out).unwrap().contains("b:c"));
        let forget = LogoutArgs { host: Some("r.io".to_owned()), authfile: None };
        logout(&forget, &environment, &mut Vec::new()).unwrap();
        let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(saved["auths"].get("r.io").is_none() && saved["auths"].get(HUB).is_some());
    }

    #[test]
    fn a_file_that_is_no_json_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "{ not json").unwrap();
        assert!(matches!(read(&path), Err(Failure::Credentials { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"{ not json");
    }
}
