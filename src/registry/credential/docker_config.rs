//! docker's `config.json` and podman's `auth.json`: who we are to which registry.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde::Deserialize;

use super::key::Scope;
use super::{AuthFile, Credential};
use crate::registry::secret::Secret;

/// A file, read.
pub(super) struct DockerConfig {
    pub(super) origin: String,
    auths: Vec<(Scope, Credential)>,
    helpers: Vec<(Scope, String)>,
    store: Option<String>,
}

/// What a file knows about a registry.
pub(super) enum Entry<'a> {
    /// The credential itself.
    Stored(&'a Credential),
    /// The program that knows it: `docker-credential-` goes before the name.
    Helper(&'a str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileJson {
    #[serde(default)]
    auths: Option<BTreeMap<String, AuthJson>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct AuthJson {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a file; what is wrong with single entries comes back beside it.
    pub(super) fn parse(file: &AuthFile) -> Result<(Self, Vec<String>), String> {
        let text = file.text.reveal().trim_start_matches('\u{feff}');
        let mut problems = Vec::new();
        if text.trim().is_empty() {
            let empty =
                Self { origin: file.origin.clone(), auths: Vec::new(), helpers: Vec::new(), store: None };
            return Ok((empty, problems));
        }
        // serde's message names the place and the kind of the value; the value itself it must not show.
        let json: FileJson = serde_json::from_str(text).map_err(|error| {
            format!("it is not docker's JSON (line {}, column {})", error.line(), error.column())
        })?;
        let mut auths = Vec::new();
        for (key, auth) in json.auths.unwrap_or_default() {
            match read_auth(auth) {
                Ok(Some(credential)) => auths.push((Scope::parse(&key), credential)),
                // docker leaves an empty object where a helper keeps the secret.
                Ok(None) => {}
                Err(reason) => problems.push(format!("the entry for `{key}` is passed over: {reason}")),
            }
        }
        let helpers = json.cred_helpers.unwrap_or_default();
        let config = Self {
            origin: file.origin.clone(),
            auths,
            helpers: helpers.into_iter().map(|(key, name)| (Scope::parse(&key), name)).collect(),
            store: json.creds_store.filter(|name| !name.is_empty()),
        };
        Ok((config, problems))
    }

    /// Returns the program that keeps the credential of a registry, if the file does not itself: after
    /// `docker-credential-`.
    pub(super) fn keeper(&self, registry: &Scope) -> Option<&str> {
        let own = self.helpers.iter().find(|(scope, _)| scope == registry).map(|(_, name)| name);
        own.or(self.store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Lists the helpers that this file names.
    pub(super) fn helpers(&self) -> impl Iterator<Item = &str> {
        self.helpers.iter().map(|(_, name)| name).chain(&self.store).map(String::as_str)
    }

    /// Returns what this file knows about a repository, with how specific it is; better entries first
    /// among equals: the registry's own helper, the stored credential, the helper for everything.
    pub(super) fn candidates(&self, registry: &str, repository: &str) -> Vec<(usize, Entry<'_>)> {
        let mut found = Vec::new();
        for (scope, name) in &self.helpers {
            if let Some(specific) = scope.matches(registry, repository) {
                // An empty name switches helpers off for this registry (docker).
                if !name.is_empty() {
                    found.push((specific, Entry::Helper(name)));
                }
            }
        }
        let own_helper = self.helpers.iter().any(|(scope, _)| scope.matches(registry, repository).is_some());
        for (scope, credential) in &self.auths {
            if let Some(specific) = scope.matches(registry, repository) {
                found.push((specific, Entry::Stored(credential)));
            }
        }
        if let Some(store) = self.store.as_ref().filter(|_| !own_helper) {
            found.push((1, Entry::Helper(store)));
        }
        found
    }
}

fn read_auth(json: AuthJson) -> Result<Option<Credential>, String> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = given(json.registrytoken) {
        return Ok(Some(Credential::Bearer(Secret::new(token))));
    }
    if let Some(token) = given(json.identitytoken) {
        return Ok(Some(Credential::Identity(Secret::new(token))));
    }
    if let Some(auth) = given(json.auth) {
        let (username, password) = decode_auth(&auth)?;
        return Ok(Some(Credential::basic(username, Secret::new(password))));
    }
    match (given(json.username), given(json.password)) {
        (Some(username), Some(password)) => Ok(Some(Credential::basic(username, Secret::new(password)))),
        (None, None) => Ok(None),
        _ => Err("expected both `username` and `password`".to_owned()),
    }
}

/// Reads `base64(user:password)`; the password may hold colons.
fn decode_auth(auth: &str) -> Result<(String, String), String> {
    let auth = auth.trim();
    let bytes = STANDARD
        .decode(auth)
        .or_else(|_| STANDARD_NO_PAD.decode(auth))
        .or_else(|_| URL_SAFE.decode(auth))
        .map_err(|_| "`auth` is not base64".to_owned())?;
    let text = String::from_utf8(bytes).map_err(|_| "`auth` is not UTF-8".to_owned())?;
    let (username, password) =
        text.split_once(':').ok_or_else(|| "`auth` is not `user:password` in base64".to_owned())?;
    // docker pads what it writes with zero bytes.
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}
