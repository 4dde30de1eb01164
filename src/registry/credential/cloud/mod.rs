//! Logins of the clouds, built in: what their credential helpers do, so that a scratch image needs none.
//!
//! A cloud is asked only for its own registries, recognised by their whole host name, and only where no
//! file, variable or flag knows a credential. What a cloud gives is kept until shortly before it expires.
//! Metadata services are asked for a second, once: elsewhere than in the cloud there are none.

mod amazon;
mod amazon_keys;
pub(super) mod amazon_profile;
mod azure;
mod google;
mod signature;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::de::DeserializeOwned;
use url::Url;

use super::{CloudProvider, Credential, CredentialSources, Found};
use crate::event::Reporter;
use crate::own_files::OwnFiles;

/// Time a metadata service may take: it is on the same machine.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Time any other service may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(20);

/// What came back: status and body.
pub(in crate::registry) type Reply = Result<(u16, Vec<u8>), String>;

/// A request of a cloud flow.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Ask {
    pub(in crate::registry) method: Method,
    pub(in crate::registry) url: Url,
    pub(in crate::registry) headers: Vec<(String, String)>,
    pub(in crate::registry) body: String,
    pub(in crate::registry) timeout: Duration,
}

/// Who sends the requests: the client, or a test.
pub(in crate::registry) trait Sender: Sync {
    /// Sends a request; the error never holds what was sent.
    fn send<'a>(&'a self, ask: Ask) -> Pin<Box<dyn Future<Output = Reply> + 'a>>;
}

/// Why a flow gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing here is set up for it.
    Absent,
    /// It is set up and does not work.
    Broken(String),
}

type Outcome = Result<Grant, Failure>;

/// A credential with the time it lives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    credential: Credential,
    origin: String,
    life: Duration,
}

/// The clouds, with what they gave.
pub(in crate::registry) struct Clouds {
    enabled: Vec<CloudProvider>,
    environment: BTreeMap<String, String>,
    given: tokio::sync::Mutex<HashMap<String, (Option<Found>, Instant)>>,
    own_files: OwnFiles,
    reporter: Reporter,
}

/// What a flow works with.
pub(super) struct Context<'a> {
    environment: &'a BTreeMap<String, String>,
    own_files: &'a OwnFiles,
    sender: &'a dyn Sender,
}

impl Clouds {
    pub(in crate::registry) fn new(sources: &CredentialSources, reporter: Reporter) -> Self {
        Self {
            enabled: sources.cloud.clone(),
            environment: sources.environment.clone(),
            given: tokio::sync::Mutex::default(),
            own_files: sources.own_files.clone(),
            reporter,
        }
    }

    /// Asks the cloud that a registry belongs to.
    #[expect(clippy::await_holding_lock, reason = "each caller waits on a thread of its own")]
    pub(in crate::registry) async fn find(&self, registry: &str, sender: &dyn Sender) -> Option<Found> {
        let provider = provider_of(registry).filter(|provider| self.enabled.contains(provider))?;
        // Held while asking, so that ten layers do not ask ten times.
        let mut given = self.given.lock().await;
        if let Some((found, until)) = given.get(registry)
            && Instant::now() < *until
        {
            return found.clone();
        }
        let context = Context { environment: &self.environment, own_files: &self.own_files, sender };
        // Profiles, tokens and `credential_process` are the container's own. Callers wait on threads of their own.
        let present = self.own_files.present();
        let outcome = match provider {
            CloudProvider::Azure => azure::login(&context, registry).await,
            CloudProvider::Amazon => amazon::login(&context, registry).await,
            CloudProvider::Google => google::login(&context).await,
        };
        drop(present);
        let (found, life) = match outcome {
            Ok(grant) => {
                (Some(Found { credential: grant.credential, origin: grant.origin }), grant.life.mul_f64(0.9))
            }
            Err(failure) => {
                match failure {
                    Failure::Absent => {
                        self.reporter.debug(format!("`{registry}`: no credential from its cloud"));
                    }
                    Failure::Broken(reason) => self.reporter.warning(format!(
                        "`{registry}`: its cloud gave no credential, trying without: {reason}"
                    )),
                }
                (None, Duration::from_secs(300))
            }
        };
        given.insert(registry.to_owned(), (found.clone(), Instant::now() + life));
        found
    }
}

/// Lists the files that the clouds' flows may read secrets from, whether they are there or not.
pub(super) fn files(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let named = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ];
    let named = named.iter().filter_map(|name| variable(environment, name)).map(str::to_owned);
    let files = named.chain(amazon_files(environment)).chain(google_file(environment));
    files.map(PathBuf::from).collect()
}

/// Returns where Amazon's two files are, credentials and configuration: keys can be in either.
fn amazon_files(environment: &BTreeMap<String, String>) -> [String; 2] {
    let home = variable(environment, "HOME").unwrap_or("/");
    [("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")].map(|(name, file)| {
        variable(environment, name).map_or_else(|| format!("{home}/.aws/{file}"), str::to_owned)
    })
}

/// Returns where gcloud keeps the application default credentials.
fn google_file(environment: &BTreeMap<String, String>) -> Option<String> {
    let directory = match variable(environment, "CLOUDSDK_CONFIG") {
        Some(directory) => directory.to_owned(),
        None => format!("{}/.config/gcloud", variable(environment, "HOME")?),
    };
    Some(format!("{directory}/application_default_credentials.json"))
}

fn variable<'a>(environment: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Recognises a cloud's registry by its whole host: `x.azurecr.io.evil.com` is nobody's.
fn provider_of(registry: &str) -> Option<CloudProvider> {
    let host = registry.to_ascii_lowercase();
    if azure::is_registry(&host) {
        return Some(CloudProvider::Azure);
    }
    if amazon::place_of(&host).is_some() {
        return Some(CloudProvider::Amazon);
    }
    google::is_registry(&host).then_some(CloudProvider::Google)
}

impl Context<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        variable(self.environment, name)
    }

    /// Reads a file of this machine.
    fn read(&self, path: &str) -> io::Result<String> {
        self.own_files.read_to_string(Path::new(path))
    }

    /// Reads a file that a variable names.
    fn read_file(&self, variable: &str, path: &str) -> Result<String, Failure> {
        self.read(path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| Failure::Broken(format!("`{path}` ({variable}): {error}")))
    }

    /// Sends a form.
    async fn form(&self, url: &str, fields: &[(&str, &str)]) -> Result<(u16, Vec<u8>), Failure> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        self.ask(Method::POST, url, headers, form.finish(), SERVICE_TIMEOUT).await
    }

    /// Asks a metadata service: not being there is no fault.
    async fn metadata(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Vec<u8>, Failure> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match self.ask(method, url, headers, String::new(), METADATA_TIMEOUT).await {
            Ok((200, body)) => Ok(body),
            _ => Err(Failure::Absent),
        }
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(String, String)>,
        body: String,
        timeout: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let url =
            Url::parse(url).map_err(|error| Failure::Broken(format!("`{url}` is not a URL: {error}")))?;
        let ask = Ask { method, url, headers, body, timeout };
        self.sender.send(ask).await.map_err(Failure::Broken)
    }
}

/// Reads an answer that should be JSON; the reason of a refusal is the service's own, shortened.
fn read<T: DeserializeOwned>(service: &str, reply: (u16, Vec<u8>)) -> Result<T, Failure> {
    let (status, body) = reply;
    if status != 200 {
        let answer = crate::registry::answer::Answer::parse(status, &body, &[]);
        return Err(Failure::Broken(format!("{service}: {answer}")));
    }
    // serde's own message could quote a token.
    serde_json::from_slice(&body)
        .map_err(|_| Failure::Broken(format!("{service}: its answer is not the JSON it should be")))
}

#[cfg(test)]
mod tests;
