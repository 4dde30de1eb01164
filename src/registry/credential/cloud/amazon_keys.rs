//! Amazon's chain of keys: environment, web identity, profile, container, instance.

use reqwest::Method;
use serde::Deserialize;

use super::amazon::signed_headers;
use super::amazon_profile;
use super::signature::Keys;
use super::{Context, Failure, SERVICE_TIMEOUT, read};

const FORM: &str = "application/x-www-form-urlencoded";
const CONTAINER_HOST: &str = "http://169.254.170.2";
const INSTANCE_HOST: &str = "http://169.254.169.254";

#[derive(Deserialize)]
pub(super) struct KeysJson {
    #[serde(rename = "AccessKeyId")]
    access: String,
    #[serde(rename = "SecretAccessKey")]
    secret: String,
    #[serde(rename = "Token", alias = "SessionToken", default)]
    session: Option<String>,
}

impl From<KeysJson> for Keys {
    fn from(json: KeysJson) -> Self {
        Self { access: json.access, secret: json.secret, session: json.session.filter(|s| !s.is_empty()) }
    }
}

/// Finds keys and says where.
pub(super) async fn find(context: &Context<'_>, region: &str) -> Result<(Keys, String), Failure> {
    if let Some(keys) = environment(context) {
        return Ok((keys, "AWS_ACCESS_KEY_ID".to_owned()));
    }
    if let (Some(path), Some(role)) =
        (context.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), context.variable("AWS_ROLE_ARN"))
    {
        let session = context.variable("AWS_ROLE_SESSION_NAME").unwrap_or("kiln");
        let keys = web_identity(context, region, path, (role, session)).await?;
        return Ok((keys, "AWS_WEB_IDENTITY_TOKEN_FILE".to_owned()));
    }
    if let Some(found) = amazon_profile::find(context, region).await? {
        return Ok(found);
    }
    if let Some(keys) = container(context).await? {
        return Ok((keys, "the container's role".to_owned()));
    }
    if context.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Err(Failure::Absent);
    }
    instance(context).await.map(|keys| (keys, "the instance's role".to_owned()))
}

/// Reads keys out of variables.
pub(super) fn environment(context: &Context<'_>) -> Option<Keys> {
    let access = context.variable("AWS_ACCESS_KEY_ID")?.to_owned();
    let secret = context.variable("AWS_SECRET_ACCESS_KEY")?.to_owned();
    Some(Keys { access, secret, session: context.variable("AWS_SESSION_TOKEN").map(str::to_owned) })
}

/// The token service of a region.
fn token_service(context: &Context<'_>, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    context
        .variable("AWS_ENDPOINT_URL_STS")
        .or(context.variable("AWS_ENDPOINT_URL"))
        .map_or_else(|| format!("https://sts.{region}.{domain}/"), str::to_owned)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WebIdentityAnswer {
    assume_role_with_web_identity_response: WebIdentityResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WebIdentityResponse {
    assume_role_with_web_identity_result: Assumed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleAnswer {
    assume_role_response: RoleResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleResponse {
    assume_role_result: Assumed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: KeysJson,
}

/// Exchanges a web identity (EKS service accounts, GitHub, GitLab) for keys of a role.
pub(super) async fn web_identity(
    context: &Context<'_>,
    region: &str,
    path: &str,
    (role, session): (&str, &str),
) -> Result<Keys, Failure> {
    let token = context.read_file("AWS_WEB_IDENTITY_TOKEN_FILE", path)?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
        ("WebIdentityToken", &token),
    ]);
    let headers = vec![
        ("content-type".to_owned(), FORM.to_owned()),
        // Without this the answer is XML.
        ("accept".to_owned(), "application/json".to_owned()),
    ];
    let endpoint = token_service(context, region);
    let reply = context.ask(Method::POST, &endpoint, headers, form.finish(), SERVICE_TIMEOUT).await?;
    let answer: WebIdentityAnswer = read("STS", reply)?;
    Ok(answer.assume_role_with_web_identity_response.assume_role_with_web_identity_result.credentials.into())
}

/// Takes on a role with keys that may.
pub(super) async fn assume_role(
    context: &Context<'_>,
    region: &str,
    keys: &Keys,
    (role, session): (&str, &str),
    external_id: Option<&str>,
) -> Result<Keys, Failure> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
    ]);
    form.extend_pairs(external_id.map(|id| ("ExternalId", id)));
    let body = form.finish();
    let endpoint = token_service(context, region);
    let headers = [("accept", "application/json"), ("content-type", FORM)];
    let headers = signed_headers(&endpoint, (region, "sts"), keys, &headers, &body)?;
    let reply = context.ask(Method::POST, &endpoint, headers, body, SERVICE_TIMEOUT).await?;
    let answer: RoleAnswer = read("STS", reply)?;
    Ok(answer.assume_role_response.assume_role_result.credentials.into())
}

/// ECS, EKS pod identity and CodeBuild.
pub(super) async fn container(context: &Context<'_>) -> Result<Option<Keys>, Failure> {
    let url = match (
        context.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        context.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) => format!("{CONTAINER_HOST}{path}"),
        (None, Some(url)) => url.to_owned(),
        (None, None) => return Ok(None),
    };
    let token = match context.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => Some(context.read_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path)?),
        None => context.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
    };
    let headers: Vec<(String, String)> =
        token.into_iter().map(|token| ("authorization".to_owned(), token)).collect();
    let reply = context.ask(Method::GET, &url, headers, String::new(), SERVICE_TIMEOUT).await?;
    let keys: KeysJson = read("the container's credentials", reply)?;
    Ok(Some(keys.into()))
}

/// EC2, by the metadata service's second version.
pub(super) async fn instance(context: &Context<'_>) -> Result<Keys, Failure> {
    let host =
        context.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(INSTANCE_HOST).trim_end_matches('/');
    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "300")];
    let token = context.metadata(Method::PUT, &format!("{host}/latest/api/token"), &ttl).await?;
    let token = String::from_utf8(token).map_err(|_| Failure::Absent)?;
    let proof = [("x-aws-ec2-metadata-token", token.as_str())];
    let base = format!("{host}/latest/meta-data/iam/security-credentials/");
    let role = String::from_utf8(context.metadata(Method::GET, &base, &proof).await?)
        .map_err(|_| Failure::Absent)?;
    let role = role.lines().next().unwrap_or_default();
    let body = context.metadata(Method::GET, &format!("{base}{role}"), &proof).await?;
    let keys: KeysJson = read("the instance's credentials", (200, body))?;
    Ok(keys.into())
}
