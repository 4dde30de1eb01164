//! Credentials: who we are to a registry, and where we know it from.
//!
//! A credential goes only to the host it is for. Looking one up reads no environment and no file: the command
//! line passes contents in a [`CredentialSources`]. [`CredentialFile`] is the other way round: it saves. Sources are merged,
//! none shadows another: what was given on the command line wins; else the entry with the longest matching path; else the
//! earlier source.

pub(super) mod cloud;
mod docker_config;
mod environment;
mod file;
mod helper;
mod key;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::secret::Secret;
use crate::event::Reporter;
use crate::own_files::OwnFiles;

use docker_config::DockerConfig;
pub use file::{CredentialFile, CredentialFileError, Keeper};
pub use key::Scope;

/// What proves who we are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: Secret,
    },
    /// An OAuth2 refresh token (docker's `identitytoken`).
    Identity(Secret),
    /// A token that is sent as it is (docker's `registrytoken`).
    Bearer(Secret),
}

/// The user name that docker and its helpers give refresh tokens.
const IDENTITY: &str = "<token>";

impl Credential {
    /// Makes a credential of a user name and a password; docker's `<token>` user makes it a refresh token.
    pub fn basic(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        let (username, password) = (username.into(), password.into());
        if username == IDENTITY { Self::Identity(password) } else { Self::Basic { username, password } }
    }
}

/// Where credentials come from, the earlier in this list the stronger when two are equally specific.
#[derive(Debug, Clone, Default)]
pub struct CredentialSources {
    /// Given on the command line, by `host[:port][/path]`; always win.
    pub explicit: Vec<(String, Credential)>,
    /// Contents of docker's and podman's files in order of strength: `DOCKER_AUTH_CONFIG`,
    /// `$DOCKER_CONFIG/config.json`, `$REGISTRY_AUTH_FILE`, podman's `auth.json`.
    pub files: Vec<AuthFile>,
    /// Environment variables by name: those the providers know (`KILN_*`, `CI_*`, `AWS_*`, `AZURE_*`, …).
    pub environment: BTreeMap<String, String>,
    /// Directories in which credential helpers are looked for, as `PATH` has them.
    pub helper_path: Vec<PathBuf>,
    /// Which cloud flows may be tried for hosts that nothing else knows.
    pub cloud: Vec<CloudProvider>,
    /// Whether the programs and files that some of them need are in their places.
    pub own_files: OwnFiles,
}

impl CredentialSources {
    /// Lists the files that hold credentials, whether they are there or not: those whose contents are here, and those that
    /// are read when a cloud is asked.
    pub fn paths(&self) -> Vec<PathBuf> {
        // Others have the name of a variable where these have their path.
        let files = self.files.iter().map(|file| PathBuf::from(&file.origin));
        files.filter(|path| path.is_absolute()).chain(cloud::files(&self.environment)).collect()
    }

    /// Lists the programs that know credentials, whether they are there or not: helpers that the files name, and what
    /// runs the command of a profile.
    pub fn programs(&self) -> Vec<PathBuf> {
        let files = self.files.iter().filter_map(|file| Some(DockerConfig::parse(file).ok()?.0));
        let mut programs = vec![PathBuf::from(cloud::amazon_profile::SHELL)];
        for file in files {
            programs.extend(file.helpers().flat_map(|name| helper::places(name, &self.helper_path)));
        }
        programs
    }
}

/// The contents of a file in docker's `config.json` form.
#[derive(Clone)]
pub struct AuthFile {
    /// How to name it in messages.
    pub origin: String,
    /// Its JSON.
    pub text: Secret,
}

impl std::fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AuthFile").field(&self.origin).finish()
    }
}

/// A cloud whose registries kiln can log in to without a helper program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloudProvider {
    /// Azure Container Registry.
    Azure,
    /// Amazon Elastic Container Registry.
    Amazon,
    /// Google Container Registry and Artifact Registry.
    Google,
}

/// A credential and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// Where it was found, for messages.
    pub origin: String,
}

/// The sources, read.
pub(super) struct Credentials {
    explicit: Vec<(Scope, Credential)>,
    files: Vec<DockerConfig>,
    environment: BTreeMap<String, String>,
    helper_path: Vec<PathBuf>,
    own_files: OwnFiles,
    reporter: Reporter,
}

impl Credentials {
    /// Reads the sources. A file that can't be read is a warning: the others still count.
    pub(super) fn new(sources: &CredentialSources, reporter: Reporter) -> Self {
        let mut files = Vec::new();
        for file in &sources.files {
            match DockerConfig::parse(file) {
                Ok((config, problems)) => {
                    files.push(config);
                    for problem in problems {
                        reporter.warning(format!("{}: {problem}", file.origin));
                    }
                }
                Err(reason) => {
                    reporter.warning(format!("no credentials are read from {}: {reason}", file.origin))
                }
            }
        }
        Self {
            explicit: sources.explicit.iter().map(|(key, c)| (Scope::parse(key), c.clone())).collect(),
            files,
            environment: sources.environment.clone(),
            helper_path: sources.helper_path.clone(),
            own_files: sources.own_files.clone(),
            reporter,
        }
    }

    /// Finds the credential for a repository of a registry (`docker.io`, `library/debian`). May run a
    /// credential helper.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Option<Found> {
        let explicit = self
            .explicit
            .iter()
            .filter_map(|(scope, credential)| Some((scope.matches(registry, repository)?, credential)))
            // The last of equals: the flag given last.
            .max_by_key(|(length, _)| *length);
        if let Some((_, credential)) = explicit {
            return Some(Found { credential: credential.clone(), origin: "the command line".to_owned() });
        }
        let mut candidates = Vec::new();
        for (rank, file) in self.files.iter().enumerate() {
            for (specific, entry) in file.candidates(registry, repository) {
                candidates.push((specific, rank, Candidate::File { file, entry }));
            }
        }
        for (specific, credential, origin) in environment::candidates(&self.environment, registry, repository)
        {
            candidates.push((specific, self.files.len(), Candidate::Known(Found { credential, origin })));
        }
        candidates.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        candidates.into_iter().find_map(|(_, _, candidate)| self.try_candidate(registry, candidate))
    }

    fn try_candidate(&self, registry: &str, candidate: Candidate<'_>) -> Option<Found> {
        match candidate {
            Candidate::Known(found) => Some(found),
            Candidate::File { file, entry: docker_config::Entry::Stored(credential) } => {
                Some(Found { credential: credential.clone(), origin: file.origin.clone() })
            }
            Candidate::File { file, entry: docker_config::Entry::Helper(name) } => {
                let _present = self.own_files.present();
                match helper::get(name, registry, &self.helper_path) {
                    Ok(credential) => Some(Found {
                        credential: credential?,
                        origin: format!("the credential helper `{name}` ({})", file.origin),
                    }),
                    Err(reason) => {
                        self.reporter.warning(format!(
                            "the credential helper `{name}` that {} names for `{registry}` is of no use: {reason}",
                            file.origin
                        ));
                        None
                    }
                }
            }
        }
    }
}

enum Candidate<'a> {
    Known(Found),
    File { file: &'a DockerConfig, entry: docker_config::Entry<'a> },
}

#[cfg(test)]
mod tests;
