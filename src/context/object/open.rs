//! Opens an object: the protocols of the `object_store` crate over kiln's own connections.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, Error, ObjectStore, ObjectStoreExt as _, RetryConfig,
};
use tokio::runtime::Runtime;

use super::error::{Answer, one_line};
use super::{
    AzureAccess, AzureCredentials, GoogleAccess, GoogleCredentials, ObjectAccess, ObjectError, ObjectSource,
    S3Access, S3Credentials,
};

/// Time in which somebody must have said who asks. Elsewhere than in a cloud, nobody answers at the machine's
/// own service.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(20);

const S3_HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mount a credentials file at ~/.aws/credentials; \
     a pod or machine of Amazon's has its role";
const GOOGLE_HINT: &str = "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account; a pod or machine of Google's has its account";
const AZURE_HINT: &str = "set AZURE_STORAGE_ACCESS_KEY to a key of the storage account";

/// An object that can be read now.
pub(in crate::context) struct Opened {
    pub(in crate::context) reader: Box<dyn Read + Send>,
    pub(in crate::context) size_bytes: u64,
    pub(in crate::context) last_modified: Option<i64>,
}

/// Asks for an object. Connections are `client`'s, and every answer is waited for on `runtime`.
pub(in crate::context) fn open(
    source: &ObjectSource,
    client: &reqwest::Client,
    runtime: &Arc<Runtime>,
    retries: u32,
) -> Result<Opened, ObjectError> {
    let path = match Path::parse(&source.key) {
        Ok(path) if !path.as_ref().is_empty() => path,
        Ok(_) => return Err(name(source, "the object has no name")),
        Err(error) => return Err(name(source, &error.to_string())),
    };
    let parts = Parts { source, connector: Connector(client.clone()), retries, runtime };
    let store = match &source.access {
        ObjectAccess::S3(access) => parts.s3(access)?,
        ObjectAccess::Google(access) => parts.google(access)?,
        ObjectAccess::Azure(access) => parts.azure(access)?,
    };
    let found = runtime.block_on(async { store.get(&path).await });
    let found = found.map_err(|error| failure(source, &error))?;
    let (size_bytes, last_modified) = (found.meta.size, found.meta.last_modified.timestamp());
    // Broken off streams go on where they were; the store's entity tag proves that it is the same object.
    let reader = Body { stream: found.into_stream(), runtime: runtime.clone(), chunk: Bytes::new() };
    Ok(Opened { reader: Box::new(reader), size_bytes, last_modified: Some(last_modified) })
}

fn name(source: &ObjectSource, reason: &str) -> ObjectError {
    ObjectError::Name { url: source.url.clone(), reason: reason.to_owned() }
}

/// What making a store takes.
struct Parts<'a> {
    source: &'a ObjectSource,
    connector: Connector,
    retries: u32,
    runtime: &'a Runtime,
}

impl Parts<'_> {
    fn s3(&self, access: &S3Access) -> Result<Arc<dyn ObjectStore>, ObjectError> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.source.bucket)
            .with_region(&access.region)
            .with_virtual_hosted_style_request(!access.path_style)
            .with_client_options(options())
            .with_retry(self.retry())
            .with_http_connector(self.connector.clone());
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_endpoint(match access.path_style {
                true => endpoint.clone(),
                false => with_bucket(endpoint, &self.source.bucket),
            });
        }
        builder = match &access.credentials {
            S3Credentials::Key { id, secret, session } => {
                let builder = builder.with_access_key_id(id).with_secret_access_key(&secret.0);
                match session {
                    Some(session) => builder.with_token(&session.0),
                    None => builder,
                }
            }
            other => s3_credentials(builder, other),
        };
        let store = builder.build().map_err(|error| self.bad_credentials(&error.to_string(), S3_HINT))?;
        self.credentials(store.credentials().as_ref(), S3_HINT)?;
        Ok(Arc::new(store))
    }

    fn google(&self, access: &GoogleAccess) -> Result<Arc<dyn ObjectStore>, ObjectError> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&self.source.bucket)
            .with_client_options(options())
            .with_retry(self.retry())
            .with_http_connector(self.connector.clone());
        builder = match &access.credentials {
            GoogleCredentials::Machine => builder,
            GoogleCredentials::ServiceAccount(path) => builder.with_service_account_path(path),
            GoogleCredentials::User(path) => builder.with_application_credentials(path),
        };
        if let Some(emulator) = &access.emulator {
            builder = builder.with_base_url(emulator).with_skip_signature(true);
        }
        let store = builder.build().map_err(|error| self.bad_credentials(&error.to_string(), GOOGLE_HINT))?;
        if access.emulator.is_none() {
            self.credentials(store.credentials().as_ref(), GOOGLE_HINT)?;
        }
        Ok(Arc::new(store))
    }

    fn azure(&self, access: &AzureAccess) -> Result<Arc<dyn ObjectStore>, ObjectError> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&access.account)
            .with_container_name(&self.source.bucket)
            .with_endpoint(access.endpoint.clone())
            .with_client_options(options())
            .with_retry(self.retry())
            .with_http_connector(self.connector.clone());
        let authority = match &access.credentials {
            AzureCredentials::Key(key) => {
                builder = builder.with_access_key(&key.0);
                &None
            }
            AzureCredentials::Workload { client, tenant, token_file, authority } => {
                builder = builder.with_federated_token_file(token_file);
                builder = builder.with_client_id(client).with_tenant_id(tenant);
                authority
            }
            AzureCredentials::Application { client, tenant, secret, authority } => {
                builder = builder.with_client_secret_authorization(client, &secret.0, tenant);
                authority
            }
        };
        if let Some(authority) = authority {
            builder = builder.with_config(AzureConfigKey::AuthorityHost, authority);
        }
        let store = builder.build().map_err(|error| self.bad_credentials(&error.to_string(), AZURE_HINT))?;
        self.credentials(store.credentials().as_ref(), AZURE_HINT)?;
        Ok(Arc::new(store))
    }

    /// Sees to it that somebody asks, before anything is asked for: the two failures are told apart.
    fn credentials<T: 'static>(
        &self,
        provider: &dyn CredentialProvider<Credential = T>,
        hint: &'static str,
    ) -> Result<(), ObjectError> {
        let asked = self
            .runtime
            .block_on(async { tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.get_credential()).await });
        match asked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.bad_credentials(&error.to_string(), hint)),
            Err(_) => Err(self.bad_credentials(&format!("nobody answered in {CREDENTIALS_TIMEOUT:?}"), hint)),
        }
    }

    fn bad_credentials(&self, reason: &str, hint: &'static str) -> ObjectError {
        ObjectError::Credentials { url: self.source.url.clone(), reason: one_line(reason), hint }
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(500), ..BackoffConfig::default() },
            max_retries: self.retries as usize,
            ..RetryConfig::default()
        }
    }
}

fn s3_credentials(builder: AmazonS3Builder, credentials: &S3Credentials) -> AmazonS3Builder {
    use object_store::aws::AmazonS3ConfigKey as Key;
    match credentials {
        S3Credentials::Key { .. } => builder,
        S3Credentials::WebIdentity { token_file, role, session_name } => {
            let builder =
                builder.with_config(Key::WebIdentityTokenFile, token_file).with_config(Key::RoleArn, role);
            match session_name {
                Some(session) => builder.with_config(Key::RoleSessionName, session),
                None => builder,
            }
        }
        S3Credentials::Task { path } => builder.with_config(Key::ContainerCredentialsRelativeUri, path),
        S3Credentials::Pod { url, token_file } => builder
            .with_config(Key::ContainerCredentialsFullUri, url)
            .with_config(Key::ContainerAuthorizationTokenFile, token_file),
        S3Credentials::Instance { endpoint } => match endpoint {
            Some(endpoint) => builder.with_metadata_endpoint(endpoint),
            None => builder,
        },
    }
}

/// Puts a bucket before an endpoint's host.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{bucket}.{rest}"),
        None => endpoint.to_owned(),
    }
}

/// Whether plain HTTP is meant was said by whoever named an endpoint.
fn options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true)
}

/// Tells what a store's refusal means.
fn failure(source: &ObjectSource, error: &Error) -> ObjectError {
    let url = source.url.clone();
    let answer = Answer::of(error);
    let code = answer.code.as_deref().unwrap_or_default();
    if let ObjectAccess::S3(S3Access { region, .. }) = &source.access {
        let elsewhere = matches!(
            code,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
        );
        if elsewhere || answer.words().contains("redirect without LOCATION") {
            let found =
                answer.region.as_ref().map(|found| format!(", it is in `{found}`")).unwrap_or_default();
            return ObjectError::Region { url, region: region.clone(), found };
        }
    }
    match error {
        Error::NotFound { .. } if matches!(code, "NoSuchBucket" | "ContainerNotFound") => {
            ObjectError::NoBucket { url, bucket: source.bucket.clone() }
        }
        Error::NotFound { .. } => {
            ObjectError::NoObject { url, bucket: source.bucket.clone(), key: source.key.clone() }
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ObjectError::Denied { url, reason: answer.words(), hint: denied_hint(&source.access, code) }
        }
        _ => ObjectError::Other { url, reason: answer.words() },
    }
}

fn denied_hint(access: &ObjectAccess, code: &str) -> &'static str {
    match (access, code) {
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed") => {
            "the key is not one of this store: check the variables it comes from, and the endpoint"
        }
        (ObjectAccess::Azure(_), "AuthorizationFailure") => {
            "the key is not one of this store, or its network rules keep this machine out: check both"
        }
        (_, "ExpiredToken" | "TokenRefreshRequired") => "the session is over: get new credentials",
        (ObjectAccess::S3(_), _) => {
            "the role or user needs s3:GetObject on the object, and s3:ListBucket to be told that one is missing"
        }
        (ObjectAccess::Google(_), _) => "the account needs storage.objects.get on the bucket",
        (ObjectAccess::Azure(_), _) => {
            "the identity needs the role Storage Blob Data Reader on the container"
        }
    }
}

/// Hands kiln's own client to the protocols.
#[derive(Debug, Clone)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// An object's bytes, as they arrive: a chunk at a time is held.
struct Body {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    runtime: Arc<Runtime>,
    chunk: Bytes,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !buffer.is_empty() {
            match self.runtime.block_on(async { self.stream.next().await }) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(one_line(&error.to_string()))),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
