//! Credentials: who we are to a registry, and where we know it from.
//!
//! A credential goes only to the host it is for. Nothing here reads the environment or a file: the command
//! line passes contents in a [`CredentialSources`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::secret::Secret;

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
