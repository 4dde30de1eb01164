//! Google Container Registry and Artifact Registry: an access token of the application default credentials.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Failure, Grant, Outcome, SERVICE_TIMEOUT, google_file, read};
use crate::registry::credential::Credential;
use crate::registry::secret::Secret;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The user name that goes with access tokens.
const USER: &str = "oauth2accesstoken";

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

pub(super) fn is_registry(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev")
}

pub(super) async fn login(context: &Context<'_>) -> Outcome {
    let (token, origin) = match default_credentials(context)? {
        Some((text, origin)) => {
            let file: Value =
                serde_json::from_str(&text).map_err(|_| Failure::Broken(format!("{origin} is not JSON")))?;
            (from_file(context, &file, &origin).await?, origin)
        }
        None => (from_metadata(context).await?, "the metadata server".to_owned()),
    };
    let credential = Credential::basic(USER, Secret::new(token.access_token));
    Ok(Grant { credential, origin, life: Duration::from_secs(token.expires_in.unwrap_or(300)) })
}

/// Reads the file of the application default credentials, if there is one.
fn default_credentials(context: &Context<'_>) -> Result<Option<(String, String)>, Failure> {
    if let Some(path) = context.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        let text = context.read_file("GOOGLE_APPLICATION_CREDENTIALS", path)?;
        return Ok(Some((text, format!("{path} (GOOGLE_APPLICATION_CREDENTIALS)"))));
    }
    let Some(path) = google_file(context.environment) else { return Ok(None) };
    Ok(context.read(&path).ok().map(|text| (text, path)))
}

async fn from_file(context: &Context<'_>, file: &Value, origin: &str) -> Result<AccessToken, Failure> {
    let get =
        |name: &str| file[name].as_str().ok_or_else(|| Failure::Broken(format!("{origin} has no `{name}`")));
    match get("type")? {
        "service_account" => {
            let url = file["token_uri"].as_str().unwrap_or(TOKEN_URL);
            let assertion = assertion(get("client_email")?, get("private_key")?, url, origin)?;
            let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
            let fields = [("grant_type", grant), ("assertion", assertion.as_str())];
            read("Google's token service", context.form(url, &fields).await?)
        }
        "authorized_user" => {
            let url = file["token_uri"].as_str().unwrap_or(TOKEN_URL);
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", get("client_id")?),
                ("client_secret", get("client_secret")?),
                ("refresh_token", get("refresh_token")?),
            ];
            read("Google's token service", context.form(url, &fields).await?)
        }
        "external_account" => external_account(context, file, origin).await,
        "impersonated_service_account" => {
            let url = get("service_account_impersonation_url")?;
            let source = &file["source_credentials"];
            if source["type"] == "impersonated_service_account" {
                return Err(Failure::Broken(format!("{origin}: one impersonation leads to another")));
            }
            let token = Box::pin(from_file(context, source, origin)).await?;
            impersonate(context, url, &token).await
        }
        other => Err(Failure::Broken(format!("{origin} holds credentials of a kind not known: `{other}`"))),
    }
}

/// Signs the claim that we are the service account (RFC 7523).
fn assertion(email: &str, key: &str, audience: &str, origin: &str) -> Result<String, Failure> {
    let bad = |what: &str| Failure::Broken(format!("{origin}: its private key {what}"));
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| bad("is not PEM"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| bad("can't be used"))?;
    let signer = key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(|| bad("is not RSA"))?;
    let now = jiff::Timestamp::now().as_second();
    let header = json!({"alg": "RS256", "typ": "JWT"});
    let claims = json!({"iss": email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + 3600});
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = signer.sign(text.as_bytes()).map_err(|_| bad("does not sign"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Workload identity federation: somebody else's token (GitHub's, GitLab's, a file's) for one of Google's.
async fn external_account(context: &Context<'_>, file: &Value, origin: &str) -> Result<AccessToken, Failure> {
    let lacks = |name: &str| Failure::Broken(format!("{origin} has no `{name}`"));
    let source = &file["credential_source"];
    let text = if let Some(path) = source["file"].as_str() {
        context.read_file("GOOGLE_APPLICATION_CREDENTIALS", path)?
    } else if let Some(url) = source["url"].as_str() {
        let headers = source["headers"].as_object().map(|headers| {
            let pairs = headers.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
            pairs.collect::<Vec<_>>()
        });
        let headers = headers.unwrap_or_default();
        let (status, body) = context.ask(Method::GET, url, headers, String::new(), SERVICE_TIMEOUT).await?;
        if status != 200 {
            return Err(Failure::Broken(format!("{origin}: its credential source answered {status}")));
        }
        String::from_utf8_lossy(&body).trim().to_owned()
    } else {
        let reason = format!("{origin}: expected a credential source that is a file or a URL");
        return Err(Failure::Broken(reason));
    };
    let subject = match source["format"]["subject_token_field_name"].as_str() {
        Some(field) if source["format"]["type"] == "json" => serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|json| json[field].as_str().map(str::to_owned))
            .ok_or_else(|| Failure::Broken(format!("{origin}: its credential source has no `{field}`")))?,
        _ => text,
    };
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", file["audience"].as_str().ok_or_else(|| lacks("audience"))?),
        ("scope", SCOPE),
        (
            "subject_token_type",
            file["subject_token_type"].as_str().ok_or_else(|| lacks("subject_token_type"))?,
        ),
        ("subject_token", subject.as_str()),
    ];
    let url = file["token_url"].as_str().unwrap_or("https://sts.googleapis.com/v1/token");
    let token: AccessToken = read("Google's token exchange", context.form(url, &fields).await?)?;
    match file["service_account_impersonation_url"].as_str() {
        Some(url) => impersonate(context, url, &token).await,
        None => Ok(token),
    }
}

async fn impersonate(context: &Context<'_>, url: &str, token: &AccessToken) -> Result<AccessToken, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        access_token: String,
    }
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("authorization".to_owned(), format!("Bearer {}", token.access_token)),
    ];
    let body = json!({"scope": [SCOPE]}).to_string();
    let reply = context.ask(Method::POST, url, headers, body, SERVICE_TIMEOUT).await?;
    let answer: Answer = read("Google's impersonation", reply)?;
    // Its life is a date; an hour is what was asked for, and less is renewed in time.
    Ok(AccessToken { access_token: answer.access_token, expires_in: Some(1800) })
}

async fn from_metadata(context: &Context<'_>) -> Result<AccessToken, Failure> {
    let host = context.variable("GCE_METADATA_HOST").unwrap_or("169.254.169.254");
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let body = context.metadata(Method::GET, &url, &[("metadata-flavor", "Google")]).await?;
    read("the metadata server", (200, body))
}
