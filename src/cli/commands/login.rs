//! `kiln login` and `kiln logout`: credentials in docker's `config.json`, or with the helper it names.

use std::io::{Read, Write};
use std::path::PathBuf;

use super::print;
use crate::cli::args::{CredentialArgs, LoginArgs, LogoutArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::{docker_config_file, registry_config, search_path};
use crate::cli::wire;
use crate::event::Reporter;
use crate::registry::{Credential, CredentialFile, Keeper, Scope};

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
        let scope = scope(args.credential.host.as_deref());
        let registry = scope.registry();
        let credential = Credential::basic(&args.credential.username, password.clone());
        config.credentials.explicit.push((registry.to_owned(), credential));
        wire::open_client(config, Reporter::silent())?.check_login(registry)?;
    }
    save(&args.credential, password, environment, out)
}

/// Saves credentials.
pub(crate) fn login(
    args: &CredentialArgs,
    environment: &Environment,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let password = password(args, stdin)?;
    save(args, password, environment, out)
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
    password: String,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let file = file(args.authfile.as_ref(), environment);
    let scope = scope(args.host.as_deref());
    let keeper = file.save(&scope, &Credential::basic(&args.username, password))?;
    let place = place(&keeper, &file);
    print(out, &format!("credentials for {scope} saved in {place}"))
}

/// Forgets credentials.
pub(super) fn logout(
    args: &LogoutArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let file = file(args.authfile.as_ref(), environment);
    let scope = scope(args.host.as_deref());
    match file.forget(&scope)? {
        Some(keeper) => {
            print(out, &format!("credentials for {scope} removed from {}", place(&keeper, &file)))
        }
        None => print(out, &format!("no credentials for {scope} in {}", file.path.display())),
    }
}

fn file(option: Option<&PathBuf>, environment: &Environment) -> CredentialFile {
    let path = match option {
        Some(path) => environment.directory.join(path),
        None => docker_config_file(environment),
    };
    CredentialFile { path, helper_path: search_path(environment) }
}

fn place(keeper: &Keeper, file: &CredentialFile) -> String {
    match keeper {
        Keeper::File => file.path.display().to_string(),
        Keeper::Helper(name) => format!("docker-credential-{name}, which {} names", file.path.display()),
    }
}

/// Returns what the credentials are for.
fn scope(host: Option<&str>) -> Scope {
    Scope::parse(host.unwrap_or("docker.io"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;

    use super::*;
    use crate::cli::environment::tests::environment;

    fn args(host: &str, password: Option<&str>) -> CredentialArgs {
        CredentialArgs {
            host: Some(host.to_owned()),
            username: "me".to_owned(),
            password: password.map(str::to_owned),
            password_stdin: password.is_none(),
            authfile: None,
        }
    }

    #[test]
    fn credentials_are_saved_beside_others_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d/config.json");
        let environment = environment(&[("DOCKER_CONFIG", directory.path().join("d").to_str().unwrap())]);
        let mut out = Vec::new();
        login(&args("https://r.io/", Some("a")), &environment, &mut io::empty(), &mut out).unwrap();
        login(&args("docker.io", None), &environment, &mut &b"b:c\n"[..], &mut out).unwrap();
        login(&args("r.io/team", Some("d")), &environment, &mut io::empty(), &mut out).unwrap();
        let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(saved["auths"]["r.io"]["auth"], "bWU6YQ==");
        assert_eq!(saved["auths"]["r.io/team"]["auth"], "bWU6ZA==");
        assert_eq!(saved["auths"]["https://index.docker.io/v1/"]["auth"], "bWU6Yjpj");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("credentials for docker.io saved in ") && !said.contains("b:c"), "{said}");
        let forget = LogoutArgs { host: Some("r.io".to_owned()), authfile: None };
        let mut out = Vec::new();
        logout(&forget, &environment, &mut out).unwrap();
        logout(&forget, &environment, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("removed from") && said.contains("no credentials for r.io in"), "{said}");
        let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let left: Vec<&String> = saved["auths"].as_object().unwrap().keys().collect();
        assert_eq!(left, ["https://index.docker.io/v1/", "r.io/team"]);
    }
}
