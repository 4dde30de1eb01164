//! Files of credentials as `login` and `logout` change them: docker's `config.json`, and the helper programs it names.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::docker_config::DockerConfig;
use super::key::Scope;
use super::{AuthFile, Credential, IDENTITY, helper};
use crate::registry::secret::Secret;

/// A file of credentials in docker's format.
#[derive(Debug, Clone)]
pub struct CredentialFile {
    /// Where it is; it need not be there.
    pub path: PathBuf,
    /// Directories in which credential helpers are looked for, as `PATH` has them.
    pub helper_path: Vec<PathBuf>,
}

/// What keeps the credential of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// The file itself.
    File,
    /// The program of this name, which the file tells of (`credHelpers`, `credsStore`).
    Helper(String),
}

/// A credential could not be saved or forgotten. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    /// The file could not be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not docker's JSON.
    #[error("`{path}` is not a valid credentials file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The helper that the file names did not do it.
    #[error("`{program}`, which `{path}` names for {registry}, failed: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// The file.
        path: PathBuf,
        /// For which registry.
        registry: String,
        /// What it said.
        reason: String,
    },
}

impl CredentialFileError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Helper { .. } => Some(
                "install or repair the program, take its name out of the file, or use another file (`--authfile`)".to_owned(),
            ),
            Self::Io { .. } | Self::Malformed { .. } => None,
        }
    }
}

impl CredentialFile {
    /// Saves a credential with whatever keeps those of this registry; all else in the file stays as it is.
    pub fn save(&self, scope: &Scope, credential: &Credential) -> Result<Keeper, CredentialFileError> {
        let mut file = self.read()?;
        let keeper = self.keeper(&file, scope)?;
        let entry = match &keeper {
            Keeper::File => entry(credential),
            Keeper::Helper(name) => {
                let key = scope.key();
                helper::store(name, &key, credential, &self.helper_path)
                    .map_err(|reason| self.helper_failed(name, &key, reason))?;
                // docker leaves this as a mark that there is a credential.
                json!({})
            }
        };
        replace(&mut file, scope, Some(entry));
        self.write(&file)?;
        Ok(keeper)
    }

    /// Forgets the credential of a registry; returns what had kept it.
    pub fn forget(&self, scope: &Scope) -> Result<Option<Keeper>, CredentialFileError> {
        let mut file = self.read()?;
        let keeper = self.keeper(&file, scope)?;
        let erased = match &keeper {
            Keeper::File => false,
            Keeper::Helper(name) => {
                let key = scope.key();
                helper::erase(name, &key, &self.helper_path)
                    .map_err(|reason| self.helper_failed(name, &key, reason))?
            }
        };
        let removed = replace(&mut file, scope, None);
        if removed {
            self.write(&file)?;
        }
        Ok(if erased { Some(keeper) } else { removed.then_some(Keeper::File) })
    }

    fn keeper(&self, file: &Value, scope: &Scope) -> Result<Keeper, CredentialFileError> {
        let origin = self.path.display().to_string();
        let (config, _) = DockerConfig::parse(&AuthFile { origin, text: Secret::new(file.to_string()) })
            .map_err(|reason| self.malformed(reason))?;
        let Some(name) = config.keeper(scope) else { return Ok(Keeper::File) };
        if scope.is_whole_registry() {
            return Ok(Keeper::Helper(name.to_owned()));
        }
        let reason =
            format!("helpers keep credentials of whole registries: log in to `{}`", scope.registry());
        Err(self.helper_failed(name, &scope.to_string(), reason))
    }

    fn read(&self) -> Result<Value, CredentialFileError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(CredentialFileError::Io { action: "read", path: self.path.clone(), source });
            }
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        let file = if text.is_empty() { Ok(json!({})) } else { serde_json::from_str(text) };
        let file: Value = file.map_err(|error| self.malformed(error.to_string()))?;
        match file["auths"] {
            _ if !file.is_object() => Err(self.malformed("expected a JSON object".to_owned())),
            Value::Null | Value::Object(_) => Ok(file),
            _ => Err(self.malformed("expected an object in `auths`".to_owned())),
        }
    }

    /// Writes the file through a temporary one, readable by its owner alone.
    fn write(&self, file: &Value) -> Result<(), CredentialFileError> {
        let fail = |source| CredentialFileError::Io { action: "write", path: self.path.clone(), source };
        // What a link leads to is written, and the link stays.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(fail)?;
        let mut written = tempfile::Builder::new()
            .prefix(".kiln-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .map_err(fail)?;
        written.write_all(format!("{file:#}\n").as_bytes()).map_err(fail)?;
        written.persist(path).map(drop).map_err(|error| fail(error.error))
    }

    fn malformed(&self, reason: String) -> CredentialFileError {
        CredentialFileError::Malformed { path: self.path.clone(), reason }
    }

    fn helper_failed(&self, name: &str, registry: &str, reason: String) -> CredentialFileError {
        let program = format!("docker-credential-{name}");
        CredentialFileError::Helper {
            program,
            path: self.path.clone(),
            registry: registry.to_owned(),
            reason,
        }
    }
}

/// Puts an entry in the place of those that are for the same registry; tells whether there were any.
fn replace(file: &mut Value, scope: &Scope, entry: Option<Value>) -> bool {
    if file["auths"].is_null() {
        file["auths"] = json!({});
    }
    let Some(auths) = file["auths"].as_object_mut() else { return false };
    let before = auths.len();
    auths.retain(|key, _| Scope::parse(key) != *scope);
    let removed = auths.len() < before;
    if let Some(entry) = entry {
        auths.insert(scope.key(), entry);
    }
    removed
}

fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Basic { username, password } => {
            json!({ "auth": STANDARD.encode(format!("{username}:{}", password.reveal())) })
        }
        Credential::Identity(token) => {
            json!({ "auth": STANDARD.encode(format!("{IDENTITY}:")), "identitytoken": token.reveal() })
        }
        Credential::Bearer(token) => json!({ "registrytoken": token.reveal() }),
    }
}
