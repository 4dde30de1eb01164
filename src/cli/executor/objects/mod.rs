//! Contexts in object stores: kaniko's `s3://`, `gs://` and Azure's blob URLs, with the variables and files that
//! kaniko's libraries read.

mod aws;

use std::path::Path;

use serde_json::Value;
use url::Url;

use super::request::ExecutorError;
use crate::cli::environment::Environment;
use crate::cli::values::ValueError;
use crate::context::{
    AzureAccess, AzureCredentials, GoogleAccess, GoogleCredentials, Hidden, ObjectAccess, ObjectSource,
};

/// What an archive is called that has no name, as kaniko has it.
const DEFAULT_KEY: &str = "context.tar.gz";

/// Where Azure's clouds keep blobs.
const AZURE_HOSTS: [&str; 4] = [
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.cloudapi.de",
    ".blob.core.usgovcloudapi.net",
];

/// Returns the object that `--context` names, if it names one.
pub(super) fn object(text: &str, environment: &Environment) -> Result<Option<ObjectSource>, ExecutorError> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    match scheme {
        "s3" | "gs" => {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(ValueError::new("--context", text, "expected a bucket").into());
            }
            let access = match scheme {
                "s3" => ObjectAccess::S3(aws::access(bucket, text, environment)?),
                _ => ObjectAccess::Google(google(environment)?),
            };
            let key = if key.is_empty() { DEFAULT_KEY } else { key };
            Ok(Some(ObjectSource {
                url: text.to_owned(),
                bucket: bucket.to_owned(),
                key: decoded(key),
                access,
            }))
        }
        "https" => azure(text, environment),
        _ => Ok(None),
    }
}

/// Reads the escapes of a URL's path.
fn decoded(text: &str) -> String {
    let pair = format!("a={}", text.replace('+', "%2B").replace('&', "%26"));
    match url::form_urlencoded::parse(pair.as_bytes()).next() {
        Some((_, value)) => value.into_owned(),
        None => text.to_owned(),
    }
}

/// Finds Google's application default credentials: the variable, then gcloud's file, then the machine's own.
fn google(environment: &Environment) -> Result<GoogleAccess, ExecutorError> {
    if let Some(emulator) = environment.set_var("STORAGE_EMULATOR_HOST") {
        let emulator = emulator.trim_end_matches('/');
        let emulator =
            if emulator.contains("://") { emulator.to_owned() } else { format!("http://{emulator}") };
        return Ok(GoogleAccess { emulator: Some(emulator), credentials: GoogleCredentials::Machine });
    }
    let named = environment.named("GOOGLE_APPLICATION_CREDENTIALS");
    let gcloud = environment.in_home(".config/gcloud/application_default_credentials.json");
    let file = named.or_else(|| gcloud.is_file().then_some(gcloud));
    let credentials = match file {
        Some(file) => google_file(&file)?,
        None => GoogleCredentials::Machine,
    };
    Ok(GoogleAccess { emulator: None, credentials })
}

/// Finds out whose file it is, and says early and in kiln's words that one cannot be used.
fn google_file(path: &Path) -> Result<GoogleCredentials, ExecutorError> {
    let shown = path.display().to_string();
    let bad = |reason: String| {
        let hint = "kiln takes the file of a service account or of a user, or the machine's own account";
        Err(ExecutorError::Credentials { what: shown.clone(), reason, hint })
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => return bad(error.to_string()),
    };
    let value: Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => return bad(format!("it is not JSON: {error}")),
    };
    match value["type"].as_str() {
        Some("service_account") => Ok(GoogleCredentials::ServiceAccount(shown)),
        Some("authorized_user") => Ok(GoogleCredentials::User(shown)),
        Some(other) => bad(format!("credentials of the type `{other}` are not supported")),
        None => bad("it has no `type`".to_owned()),
    }
}

/// Reads `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`. A URL that is signed needs no key: it is a
/// download like any other.
fn azure(text: &str, environment: &Environment) -> Result<Option<ObjectSource>, ExecutorError> {
    let Ok(url) = Url::parse(text) else { return Ok(None) };
    let host = url.host_str().unwrap_or_default();
    let Some(account) = AZURE_HOSTS.iter().find_map(|suffix| host.strip_suffix(suffix)) else {
        return Ok(None);
    };
    if url.query_pairs().any(|(name, _)| name == "sig") {
        return Ok(None);
    }
    let (bucket, key) = match url.path().trim_start_matches('/').split_once('/') {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => (bucket, key),
        _ => {
            return Err(
                ValueError::new("--context", text, "expected `/CONTAINER/BLOB` behind the host").into()
            );
        }
    };
    let credentials = azure_credentials(text, environment)?;
    let endpoint = match environment.set_var("AZURE_STORAGE_ENDPOINT") {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://{host}"),
    };
    let access = AzureAccess { account: account.to_owned(), endpoint, credentials };
    Ok(Some(ObjectSource {
        url: text.to_owned(),
        bucket: decoded(bucket),
        key: decoded(key),
        access: ObjectAccess::Azure(access),
    }))
}

/// Finds who asks Azure: kaniko's variable, then those of Azure's libraries.
fn azure_credentials(text: &str, environment: &Environment) -> Result<AzureCredentials, ExecutorError> {
    if let Some(key) = environment.set_var("AZURE_STORAGE_ACCESS_KEY") {
        return Ok(AzureCredentials::Key(Hidden(key.to_owned())));
    }
    let var = |name: &str| environment.set_var(name).map(str::to_owned);
    if let (Some(client), Some(tenant)) = (var("AZURE_CLIENT_ID"), var("AZURE_TENANT_ID")) {
        let authority = var("AZURE_AUTHORITY_HOST");
        if let Some(token_file) = var("AZURE_FEDERATED_TOKEN_FILE") {
            return Ok(AzureCredentials::Workload { client, tenant, token_file, authority });
        }
        if let Some(secret) = var("AZURE_CLIENT_SECRET") {
            return Ok(AzureCredentials::Application { client, tenant, secret: Hidden(secret), authority });
        }
    }
    Err(ExecutorError::Credentials {
        what: text.to_owned(),
        reason: "AZURE_STORAGE_ACCESS_KEY is not set".to_owned(),
        hint: "set it to a key of the storage account, set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or use \
               a signed URL",
    })
}

#[cfg(test)]
mod tests;
