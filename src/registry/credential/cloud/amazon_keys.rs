//! Amazon's chain of keys: environment, web identity, profile, container, instance.

use reqwest::Method;
use serde::Deserialize;

use super::signature::Keys;
use super::{Context, Failure, SERVICE_TIMEOUT, read, read_file};

const CONTAINER_HOST: &str = "http://169.254.170.2";
const INSTANCE_HOST: &str = "http://169.254.169.254";

#[derive(Deserialize)]
struct KeysJson {
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
    if let (Some(access), Some(secret)) =
        (context.variable("AWS_ACCESS_KEY_ID"), context.variable("AWS_SECRET_ACCESS_KEY"))
    {
        let session = context.variable("AWS_SESSION_TOKEN").map(str::to_owned);
        let keys = Keys { access: access.to_owned(), secret: secret.to_owned(), session };
        return Ok((keys, "AWS_ACCESS_KEY_ID".to_owned()));
    }
    if let (Some(path), Some(role)) =
        (context.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), context.variable("AWS_ROLE_ARN"))
    {
        let keys = web_identity(context, region, path, role).await?;
        return Ok((keys, "AWS_WEB_IDENTITY_TOKEN_FILE".to_owned()));
    }
    if let Some(found) = profile(context)? {
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

/// Exchanges a web identity (EKS service accounts, GitHub, GitLab) for keys of a role.
async fn web_identity(context: &Context<'_>, region: &str, path: &str, role: &str) -> Result<Keys, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        assume_role_with_web_identity_response: Response,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Response {
        assume_role_with_web_identity_result: Outcome,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Outcome {
        credentials: KeysJson,
    }
    let token = read_file("AWS_WEB_IDENTITY_TOKEN_FILE", path)?;
    let session = context.variable("AWS_ROLE_SESSION_NAME").unwrap_or("kiln");
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = context
        .variable("AWS_ENDPOINT_URL_STS")
        .or(context.variable("AWS_ENDPOINT_URL"))
        .map_or_else(|| format!("https://sts.{region}.{domain}/"), str::to_owned);
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
        ("WebIdentityToken", &token),
    ]);
    let headers = vec![
        ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
        // Without this the answer is XML.
        ("accept".to_owned(), "application/json".to_owned()),
    ];
    let reply = context.ask(Method::POST, &endpoint, headers, form.finish(), SERVICE_TIMEOUT).await?;
    let answer: Answer = read("STS", reply)?;
    let outcome = answer.assume_role_with_web_identity_response.assume_role_with_web_identity_result;
    Ok(outcome.credentials.into())
}

/// Reads keys of a profile out of the shared files.
fn profile(context: &Context<'_>) -> Result<Option<(Keys, String)>, Failure> {
    let home = context.variable("HOME").unwrap_or("/");
    let named = context.variable("AWS_PROFILE");
    let profile = named.unwrap_or("default");
    let path = |variable: &str, name: &str| {
        context.variable(variable).map_or_else(|| format!("{home}/.aws/{name}"), str::to_owned)
    };
    for (file, section) in [
        (path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile.to_owned()),
        (
            path("AWS_CONFIG_FILE", "config"),
            if profile == "default" { profile.to_owned() } else { format!("profile {profile}") },
        ),
    ] {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(keys) = keys_of_section(&text, &section) {
            return Ok(Some((keys, format!("profile `{profile}` in {file}"))));
        }
    }
    match named {
        Some(name) => Err(Failure::Broken(format!("profile `{name}` (AWS_PROFILE) holds no keys"))),
        None => Ok(None),
    }
}

fn keys_of_section(text: &str, wanted: &str) -> Option<Keys> {
    let (mut inside, mut access, mut secret, mut session) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name.split_whitespace().collect::<Vec<_>>().join(" ") == wanted;
            continue;
        }
        if !inside || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = Some(value.trim().to_owned());
        match key.trim().to_ascii_lowercase().as_str() {
            "aws_access_key_id" => access = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => session = value,
            _ => {}
        }
    }
    Some(Keys { access: access?, secret: secret?, session })
}

/// ECS, EKS pod identity and CodeBuild.
async fn container(context: &Context<'_>) -> Result<Option<Keys>, Failure> {
    let url = match (
        context.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        context.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) => format!("{CONTAINER_HOST}{path}"),
        (None, Some(url)) => url.to_owned(),
        (None, None) => return Ok(None),
    };
    let token = match context.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => Some(read_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path)?),
        None => context.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
    };
    let headers: Vec<(String, String)> =
        token.into_iter().map(|token| ("authorization".to_owned(), token)).collect();
    let reply = context.ask(Method::GET, &url, headers, String::new(), SERVICE_TIMEOUT).await?;
    let keys: KeysJson = read("the container's credentials", reply)?;
    Ok(Some(keys.into()))
}

/// EC2, by the metadata service's second version.
async fn instance(context: &Context<'_>) -> Result<Keys, Failure> {
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
