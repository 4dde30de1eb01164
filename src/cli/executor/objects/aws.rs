//! Who asks S3, and where: the variables and files of Amazon's libraries, in their order, and kaniko's own two.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::super::request::ExecutorError;
use crate::cli::environment::Environment;
use crate::cli::values::{ValueError, parse_bool};
use crate::context::{Hidden, S3Access, S3Credentials};

/// The region of those who name none; the only one whose name need not be known.
const DEFAULT_REGION: &str = "us-east-1";

/// The keys of one profile.
type Profile = BTreeMap<String, String>;

/// Finds out how a bucket is reached.
pub(super) fn access(bucket: &str, url: &str, environment: &Environment) -> Result<S3Access, ExecutorError> {
    let profile = profile(environment)?;
    let var = |name: &str| environment.set_var(name).map(str::to_owned);
    let region = var("AWS_REGION")
        .or_else(|| var("AWS_DEFAULT_REGION"))
        .or_else(|| profile.get("region").cloned())
        .unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let endpoint = var("S3_ENDPOINT")
        .or_else(|| var("AWS_ENDPOINT_URL_S3"))
        .or_else(|| var("AWS_ENDPOINT_URL"))
        .or_else(|| profile.get("endpoint_url").cloned());
    let endpoint = match endpoint {
        Some(endpoint) => Some(checked(&endpoint)?),
        // China's buckets have a domain of their own.
        None if region.starts_with("cn-") => Some(format!("https://s3.{region}.amazonaws.com.cn")),
        None => None,
    };
    let asked = environment.set_var("S3_FORCE_PATH_STYLE").and_then(parse_bool).unwrap_or(false);
    let path_style = asked || !names_a_host(bucket) || endpoint.as_deref().is_some_and(is_address);
    let credentials = credentials(&profile, url, environment)?;
    Ok(S3Access { endpoint, path_style, region, credentials })
}

fn checked(endpoint: &str) -> Result<String, ValueError> {
    let parsed = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match parsed {
        Some(_) => Ok(endpoint.trim_end_matches('/').to_owned()),
        None => Err(ValueError::new("S3_ENDPOINT", endpoint, "expected http://HOST or https://HOST")),
    }
}

/// Tells whether an endpoint is an address: no bucket's name can go before it.
fn is_address(endpoint: &str) -> bool {
    let host = Url::parse(endpoint).ok().and_then(|url| url.host().map(|host| host.to_owned()));
    match host {
        Some(Host::Domain(name)) => name.parse::<IpAddr>().is_ok() || name == "localhost",
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

/// Tells whether a bucket can be a part of a host's name, one that `*.` in a certificate covers.
fn names_a_host(bucket: &str) -> bool {
    (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Asks as the libraries do: a profile that is named, the variables, the default profile, the machine's services.
fn credentials(
    profile: &Profile,
    url: &str,
    environment: &Environment,
) -> Result<S3Credentials, ExecutorError> {
    let named = environment.set_var("AWS_PROFILE").is_some();
    let of_variables = || of_variables(url, environment).transpose();
    let of_profile = || of_profile(profile, url).transpose();
    let found = if named { of_profile() } else { of_variables().or_else(of_profile) };
    if let Some(found) = found {
        return found;
    }
    let var = |name: &str| environment.set_var(name).map(str::to_owned);
    if let Some(path) = var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(S3Credentials::Task { path });
    }
    if let (Some(url), Some(token_file)) =
        (var("AWS_CONTAINER_CREDENTIALS_FULL_URI"), var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
    {
        return Ok(S3Credentials::Pod { url, token_file });
    }
    if environment.set_var("AWS_EC2_METADATA_DISABLED").and_then(parse_bool) == Some(true) {
        return Err(missing(
            url,
            "there are none in variables or files, and AWS_EC2_METADATA_DISABLED is set",
        ));
    }
    Ok(S3Credentials::Instance { endpoint: var("AWS_EC2_METADATA_SERVICE_ENDPOINT") })
}

fn missing(url: &str, reason: &str) -> ExecutorError {
    ExecutorError::Credentials {
        what: url.to_owned(),
        reason: reason.to_owned(),
        hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mount a credentials file at ~/.aws/credentials",
    }
}

fn of_variables(url: &str, environment: &Environment) -> Result<Option<S3Credentials>, ExecutorError> {
    let var = |name: &str| environment.set_var(name).map(str::to_owned);
    let key = (
        var("AWS_ACCESS_KEY_ID").or_else(|| var("AWS_ACCESS_KEY")),
        var("AWS_SECRET_ACCESS_KEY").or_else(|| var("AWS_SECRET_KEY")),
    );
    match key {
        (Some(id), Some(secret)) => Ok(Some(S3Credentials::Key {
            id,
            secret: Hidden(secret),
            session: var("AWS_SESSION_TOKEN").map(Hidden),
        })),
        (Some(_), None) => Err(missing(url, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")),
        (None, Some(_)) => Err(missing(url, "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")),
        (None, None) => Ok(match (var("AWS_WEB_IDENTITY_TOKEN_FILE"), var("AWS_ROLE_ARN")) {
            (Some(token_file), Some(role)) => {
                let session_name = var("AWS_ROLE_SESSION_NAME");
                Some(S3Credentials::WebIdentity { token_file, role, session_name })
            }
            _ => None,
        }),
    }
}

fn of_profile(profile: &Profile, url: &str) -> Result<Option<S3Credentials>, ExecutorError> {
    let get = |name: &str| profile.get(name).cloned();
    if let (Some(id), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
        let session = get("aws_session_token").map(Hidden);
        return Ok(Some(S3Credentials::Key { id, secret: Hidden(secret), session }));
    }
    if let (Some(token_file), Some(role)) = (get("web_identity_token_file"), get("role_arn")) {
        let session_name = get("role_session_name");
        return Ok(Some(S3Credentials::WebIdentity { token_file, role, session_name }));
    }
    const UNSUPPORTED: [&str; 5] =
        ["credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source"];
    match UNSUPPORTED.iter().find(|name| profile.contains_key(**name)) {
        Some(name) => Err(missing(url, &format!("kiln cannot use the profile's `{name}`"))),
        None => Ok(None),
    }
}

/// Reads the profile in use from both files; what the credentials file says goes first.
fn profile(environment: &Environment) -> Result<Profile, ExecutorError> {
    let name = environment.set_var("AWS_PROFILE").or_else(|| environment.set_var("AWS_DEFAULT_PROFILE"));
    let file = |variable: &str, usual: &str| -> PathBuf {
        environment.named(variable).unwrap_or_else(|| environment.in_home(usual))
    };
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    let config = file("AWS_CONFIG_FILE", ".aws/config");
    let wanted = name.unwrap_or("default");
    let section = match wanted {
        "default" => "default".to_owned(),
        other => format!("profile {other}"),
    };
    let of_config = section_of(&config, &section)?;
    let of_credentials = section_of(&credentials, wanted)?;
    if name.is_some() && of_config.is_none() && of_credentials.is_none() {
        return Err(ExecutorError::Credentials {
            what: format!("AWS_PROFILE={wanted}"),
            reason: format!("it is neither in {} nor in {}", credentials.display(), config.display()),
            hint: "mount the file that has it at ~/.aws/credentials, or name it with AWS_SHARED_CREDENTIALS_FILE",
        });
    }
    let mut profile = of_config.unwrap_or_default();
    profile.extend(of_credentials.unwrap_or_default());
    Ok(profile)
}

/// Reads a section of a file; a file that is not there has none.
fn section_of(path: &Path, section: &str) -> Result<Option<Profile>, ExecutorError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text, section)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ExecutorError::Credentials {
            what: path.display().to_string(),
            reason: error.to_string(),
            hint: "make the file readable, or leave it out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        }),
    }
}

/// Finds a section: `[name]`, then `key = value` lines. Indented lines belong to a nested value and are not ours.
fn parse(text: &str, wanted: &str) -> Option<Profile> {
    let mut found: Option<Profile> = None;
    let mut inside = false;
    for line in text.lines() {
        let nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let name: Vec<&str> = name.split_whitespace().collect();
            inside = name.join(" ") == wanted;
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, false, Some((key, value))) = (inside, nested, line.split_once('=')) {
            let value = value.split(" #").next().unwrap_or_default().trim();
            found.get_or_insert_default().insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    found
}
