//! Keys of a profile in Amazon's shared files: its own, a program's, or those of a role it takes on.
//!
//! Profiles that lead to others (`source_profile`) are followed a few steps. Single sign-on is not: it needs a browser.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::process::{Command, Stdio};

use super::amazon_keys::{self, KeysJson, assume_role, web_identity};
use super::signature::Keys;
use super::{Context, Failure, amazon_files};

/// What runs a `credential_process`.
pub(in crate::registry::credential) const SHELL: &str = "/bin/sh";

/// No sensible chain of roles is longer.
const MOST_PROFILES: usize = 5;

type Found = Result<Option<(Keys, String)>, Failure>;

/// The settings of one profile.
type Settings = BTreeMap<String, String>;

/// Finds the keys of the profile that is chosen; nothing if there is none and none was asked for.
pub(super) async fn find(context: &Context<'_>, region: &str) -> Found {
    let named = context.variable("AWS_PROFILE").or(context.variable("AWS_DEFAULT_PROFILE"));
    match (keys(context, region, named.unwrap_or("default"), 0).await?, named) {
        (Some(found), _) => Ok(Some(found)),
        (None, Some(name)) => Err(Failure::Broken(format!("profile `{name}` (AWS_PROFILE) holds no keys"))),
        (None, None) => Ok(None),
    }
}

fn keys<'a>(
    context: &'a Context<'a>,
    region: &'a str,
    profile: &'a str,
    depth: usize,
) -> Pin<Box<dyn Future<Output = Found> + 'a>> {
    Box::pin(async move {
        if depth == MOST_PROFILES {
            return Err(Failure::Broken(format!(
                "profile `{profile}`: its `source_profile` leads round in circles"
            )));
        }
        let (settings, place) = settings(context, profile);
        let get = |name: &str| settings.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let origin = format!("profile `{profile}` in {place}");
        if let Some(role) = get("role_arn") {
            let session = get("role_session_name").unwrap_or("kiln");
            if let Some(path) = get("web_identity_token_file") {
                return Ok(Some((web_identity(context, region, path, (role, session)).await?, origin)));
            }
            let source = source(context, region, &settings, profile, depth).await?;
            let keys = assume_role(context, region, &source, (role, session), get("external_id")).await?;
            return Ok(Some((keys, origin)));
        }
        if let (Some(access), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
            let session = get("aws_session_token").map(str::to_owned);
            return Ok(Some((
                Keys { access: access.to_owned(), secret: secret.to_owned(), session },
                origin,
            )));
        }
        if let Some(command) = get("credential_process") {
            return process(command, &origin).map(|keys| Some((keys, origin)));
        }
        if get("sso_session").or(get("sso_start_url")).is_some() {
            let hint = "kiln has no single sign-on: put the output of `aws configure export-credentials --format env` \
                        into the environment";
            return Err(Failure::Broken(format!("{origin}: {hint}")));
        }
        Ok(None)
    })
}

/// Finds the keys that a role is taken on with.
async fn source(
    context: &Context<'_>,
    region: &str,
    settings: &Settings,
    profile: &str,
    depth: usize,
) -> Result<Keys, Failure> {
    let broken = |reason: String| Failure::Broken(format!("profile `{profile}`: {reason}"));
    if let Some(name) = settings.get("source_profile") {
        if name == profile {
            // The files' own way to say: with the keys that stand here, too.
            let get = |name: &str| settings.get(name).cloned();
            if let (Some(access), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
                return Ok(Keys { access, secret, session: get("aws_session_token") });
            }
        }
        let found = keys(context, region, name, depth + 1).await?;
        return found
            .map(|(keys, _)| keys)
            .ok_or_else(|| broken(format!("its `source_profile` `{name}` holds no keys")));
    }
    let found = match settings.get("credential_source").map(String::as_str) {
        Some("Environment") => amazon_keys::environment(context),
        Some("EcsContainer") => amazon_keys::container(context).await?,
        Some("Ec2InstanceMetadata") => Some(amazon_keys::instance(context).await?),
        other => {
            let found = other.map_or("neither".to_owned(), |text| format!("`{text}`"));
            let expected = "expected a `source_profile`, or a `credential_source` of Environment, EcsContainer or \
                            Ec2InstanceMetadata, beside `role_arn`";
            return Err(broken(format!("{expected}, found {found}")));
        }
    };
    found.ok_or_else(|| broken("its `credential_source` has no keys".to_owned()))
}

/// Reads a profile out of both files; what the first says holds.
fn settings(context: &Context<'_>, profile: &str) -> (Settings, String) {
    let [credentials, config] = amazon_files(context.environment);
    let in_config = if profile == "default" { profile.to_owned() } else { format!("profile {profile}") };
    let mut settings = Settings::new();
    let mut places = Vec::new();
    for (file, section) in [(credentials, profile.to_owned()), (config, in_config)] {
        let Ok(text) = context.read(&file) else { continue };
        let found = section_of(&text, &section);
        if !found.is_empty() {
            places.push(file);
        }
        for (key, value) in found {
            settings.entry(key).or_insert(value);
        }
    }
    (settings, places.join(" and "))
}

fn section_of(text: &str, wanted: &str) -> Settings {
    let mut inside = false;
    let mut settings = Settings::new();
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name.split_whitespace().collect::<Vec<_>>().join(" ") == wanted;
            continue;
        }
        // Settings below a setting (`s3 =`) are indented.
        if !inside || is_nested || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    settings
}

/// Runs a `credential_process`, as a shell would.
fn process(command: &str, origin: &str) -> Result<Keys, Failure> {
    let broken = |reason: String| Failure::Broken(format!("{origin}: its credential_process {reason}"));
    let output = Command::new(SHELL)
        .args(["-c", command])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| broken(format!("can't be run by {SHELL}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it said nothing").trim().to_owned();
        return Err(broken(format!("failed: {said}")));
    }
    let keys: KeysJson = serde_json::from_slice(&output.stdout)
        .map_err(|_| broken("did not print the JSON that it should".to_owned()))?;
    Ok(keys.into())
}
