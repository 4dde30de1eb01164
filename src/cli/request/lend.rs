//! What is lent to steps: secrets and ssh agents.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::RequestError;
use crate::build::{ContextSource, GIT_SECRETS, SecretSource, SshSource};
use crate::cli::environment::Environment;
use crate::cli::values::{SecretOrigin, ValueError, parse_secret, parse_ssh};
use crate::context::{GitServer, git_state, parse_git_context};

/// Finds the secrets. A variable that is not set is no secret, as for docker: a step that requires it
/// fails, others run without; the user hears of it.
pub(super) fn secrets(
    texts: &[String],
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, SecretSource>, RequestError> {
    let mut secrets = BTreeMap::new();
    for text in texts {
        let secret = parse_secret(text)?;
        let variable = |name: &str| environment.os(name).map(|value| value.as_bytes().to_vec());
        let source = match &secret.origin {
            SecretOrigin::File(path) => file(path, environment)?,
            SecretOrigin::Unsaid => match variable(&secret.id) {
                Some(value) => SecretSource::Value(value),
                None => file(Path::new(&secret.id), environment)?,
            },
            SecretOrigin::Env(name) => match variable(name) {
                Some(value) => SecretSource::Value(value),
                None => {
                    warnings.push(format!(
                        "secret `{}` is left out: the environment variable `{name}` is not set",
                        secret.id
                    ));
                    continue;
                }
            },
        };
        if secrets.insert(secret.id.clone(), source).is_some() {
            return Err(ValueError::new("--secret", text, "this id is given twice").into());
        }
    }
    Ok(secrets)
}

/// Finds whose repositories the secrets for git without a host are for: those of the server that the context is from,
/// else of the one that the job's project is on, else of the one that the context directory's `origin` is on.
pub fn git_server(
    secrets: &BTreeMap<String, SecretSource>,
    context: &ContextSource,
    environment: &Environment,
) -> Option<GitServer> {
    if !GIT_SECRETS.iter().any(|id| secrets.contains_key(*id)) {
        return None;
    }
    if let ContextSource::Git(text) = context {
        return GitServer::of(&parse_git_context(text).ok()??.remote);
    }
    if let Some(host) = environment.set_var("CI_SERVER_HOST") {
        let scheme = environment.set_var("CI_SERVER_PROTOCOL").unwrap_or("https");
        let port = environment.set_var("CI_SERVER_PORT").map(|port| format!(":{port}")).unwrap_or_default();
        return GitServer::of(&format!("{scheme}://{host}{port}/"));
    }
    let ContextSource::Directory(path) = context else { return None };
    GitServer::of(&git_state(path, &environment.for_git())?.remote_url?)
}

/// Checks that a secret's file can be read.
fn file(path: &Path, environment: &Environment) -> Result<SecretSource, RequestError> {
    let path = expand_home(path, environment);
    let fail = |source| RequestError::File { option: "--secret", path: path.clone(), source };
    fs::File::open(&path).map_err(fail)?;
    Ok(SecretSource::File(path))
}

/// Finds the ssh agents and keys.
pub(super) fn ssh(
    texts: &[String],
    environment: &Environment,
) -> Result<BTreeMap<String, SshSource>, RequestError> {
    let mut agents = BTreeMap::new();
    for text in texts {
        let option = parse_ssh(text)?;
        let paths: Vec<PathBuf> = option.paths.iter().map(|path| expand_home(path, environment)).collect();
        let mut sockets = Vec::new();
        for path in &paths {
            let fail = |source| RequestError::File { option: "--ssh", path: path.clone(), source };
            sockets.push(fs::metadata(path).map_err(fail)?.file_type().is_socket());
        }
        let source = match (&paths[..], &sockets[..]) {
            ([], _) => match environment.ssh_agent() {
                Some(socket) => SshSource::Agent(socket),
                None => return Err(RequestError::NoAgent { id: option.id }),
            },
            ([socket], [true]) => SshSource::Agent(socket.clone()),
            (_, sockets) if sockets.contains(&true) => {
                let reason = "an agent's socket stands alone: give one socket, or keys only";
                return Err(ValueError::new("--ssh", text, reason).into());
            }
            _ => SshSource::KeyFiles(paths),
        };
        if agents.insert(option.id, source).is_some() {
            return Err(ValueError::new("--ssh", text, "this id is given twice").into());
        }
    }
    Ok(agents)
}

/// Makes a path absolute; `~/` is the home directory, since no shell expands it after `src=`.
fn expand_home(path: &Path, environment: &Environment) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => environment.in_home(rest),
        Err(_) => environment.directory.join(path),
    }
}
