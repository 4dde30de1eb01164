//! Azure Container Registry: a token of Entra ID is exchanged for a refresh token of the registry.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use super::{Context, Failure, Grant, Outcome, read};
use crate::registry::credential::Credential;
use crate::registry::secret::Secret;

/// The registries' domains and the audience their tokens are for.
const CLOUDS: &[(&str, &str)] = &[
    ("azurecr.io", "https://containerregistry.azure.net"),
    ("azurecr.cn", "https://containerregistry.azure.cn"),
    ("azurecr.us", "https://containerregistry.azure.us"),
    ("azurecr.de", "https://containerregistry.azure.de"),
];
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// A registry's refresh token lives three hours.
const REFRESH_LIFE: Duration = Duration::from_secs(3 * 3600);

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: String,
}

pub(super) fn is_registry(host: &str) -> bool {
    audience(host).is_some()
}

/// `name.azurecr.io`, and `name.region.data.azurecr.io` never: that is where blobs are.
fn audience(host: &str) -> Option<&'static str> {
    CLOUDS.iter().find_map(|(domain, audience)| {
        let name = host.strip_suffix(domain)?.strip_suffix('.')?;
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        valid.then_some(*audience)
    })
}

pub(super) async fn login(context: &Context<'_>, registry: &str) -> Outcome {
    let audience = audience(registry).ok_or(Failure::Absent)?;
    let (token, origin) = entra_token(context, audience).await?;
    let exchange = format!("https://{registry}/oauth2/exchange");
    let mut fields = vec![("grant_type", "access_token"), ("service", registry), ("access_token", &token)];
    if let Some(tenant) = context.variable("AZURE_TENANT_ID") {
        fields.push(("tenant", tenant));
    }
    let reply = context.form(&exchange, &fields).await?;
    let refresh: RefreshToken = read("the registry's token exchange", reply)?;
    let credential = Credential::Identity(Secret::new(refresh.refresh_token));
    Ok(Grant { credential, origin, life: REFRESH_LIFE })
}

/// Gets a token by a client secret, a federated token or a managed identity, in this order.
async fn entra_token(context: &Context<'_>, audience: &str) -> Result<(String, String), Failure> {
    let (tenant, client) = (context.variable("AZURE_TENANT_ID"), context.variable("AZURE_CLIENT_ID"));
    if let (Some(tenant), Some(client)) = (tenant, client) {
        let authority = context
            .variable("AZURE_AUTHORITY_HOST")
            .unwrap_or("https://login.microsoftonline.com")
            .trim_end_matches('/');
        let url = format!("{authority}/{tenant}/oauth2/v2.0/token");
        let scope = format!("{audience}/.default");
        let mut fields =
            vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", scope.as_str())];
        let assertion;
        let origin = if let Some(secret) = context.variable("AZURE_CLIENT_SECRET") {
            fields.push(("client_secret", secret));
            Some("AZURE_CLIENT_SECRET")
        } else if let Some(path) = context.variable("AZURE_FEDERATED_TOKEN_FILE") {
            assertion = context.read_file("AZURE_FEDERATED_TOKEN_FILE", path)?;
            fields.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            fields.push(("client_assertion", &assertion));
            Some("AZURE_FEDERATED_TOKEN_FILE")
        } else {
            None
        };
        if let Some(origin) = origin {
            let token: AccessToken = read("Entra ID", context.form(&url, &fields).await?)?;
            return Ok((token.access_token, origin.to_owned()));
        }
    }
    managed_identity(context, audience).await
}

async fn managed_identity(context: &Context<'_>, audience: &str) -> Result<(String, String), Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("resource", audience);
    if let Some(client) = context.variable("AZURE_CLIENT_ID") {
        query.append_pair("client_id", client);
    }
    let endpoint = context.variable("IDENTITY_ENDPOINT").zip(context.variable("IDENTITY_HEADER"));
    let body = match endpoint {
        // App Service, Container Apps, Functions.
        Some((endpoint, header)) => {
            query.append_pair("api-version", "2019-08-01");
            let url = format!("{endpoint}?{}", query.finish());
            context.metadata(Method::GET, &url, &[("x-identity-header", header)]).await?
        }
        None => {
            query.append_pair("api-version", "2018-02-01");
            let base = context.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST").map_or_else(
                || METADATA.to_owned(),
                |host| format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/')),
            );
            let url = format!("{base}?{}", query.finish());
            context.metadata(Method::GET, &url, &[("metadata", "true")]).await?
        }
    };
    let token: AccessToken = read("the managed identity", (200, body))?;
    Ok((token.access_token, "the managed identity".to_owned()))
}
