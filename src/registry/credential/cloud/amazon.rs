//! Amazon Elastic Container Registry: `GetAuthorizationToken`, signed with the keys of the usual chain.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use super::amazon_keys;
use super::signature::{Keys, Signed};
use super::{Context, Failure, Grant, Outcome, SERVICE_TIMEOUT, read};
use crate::registry::credential::Credential;
use crate::registry::secret::Secret;

/// ECR's tokens live twelve hours.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Where a registry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) region: String,
    endpoint: String,
    target: &'static str,
    service: &'static str,
}

#[derive(Deserialize)]
struct PrivateAnswer {
    #[serde(rename = "authorizationData")]
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct PublicAnswer {
    #[serde(rename = "authorizationData")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "authorizationToken")]
    token: String,
}

/// Reads `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and its variants.
pub(super) fn place_of(host: &str) -> Option<Place> {
    if host == "public.ecr.aws" {
        return Some(Place {
            // The public registry's service is in one region.
            region: "us-east-1".to_owned(),
            endpoint: "https://api.ecr-public.us-east-1.amazonaws.com/".to_owned(),
            target: "SpencerFrontendService.GetAuthorizationToken",
            service: "ecr-public",
        });
    }
    let (account, rest) = host.split_once(".dkr")?;
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (prefix, region, suffix) = if let Some(rest) = rest.strip_prefix(".ecr-fips.") {
        let (region, suffix) = rest.split_once('.')?;
        ("ecr-fips", region, suffix)
    } else if let Some(rest) = rest.strip_prefix(".ecr.") {
        let (region, suffix) = rest.split_once('.')?;
        ("api.ecr", region, suffix)
    } else {
        let (region, suffix) = rest.strip_prefix("-ecr.")?.split_once('.')?;
        ("api.ecr", region, suffix)
    };
    let domain = match suffix {
        "amazonaws.com" | "on.aws" => "amazonaws.com",
        "amazonaws.com.cn" | "on.amazonwebservices.com.cn" => "amazonaws.com.cn",
        "sc2s.sgov.gov" | "c2s.ic.gov" | "cloud.adc-e.uk" | "csp.hci.ic.gov" => suffix,
        _ => return None,
    };
    let valid = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    valid.then(|| Place {
        region: region.to_owned(),
        endpoint: format!("https://{prefix}.{region}.{domain}/"),
        target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        service: "ecr",
    })
}

pub(super) async fn login(context: &Context<'_>, registry: &str) -> Outcome {
    let place = place_of(registry).ok_or(Failure::Absent)?;
    let (keys, origin) = amazon_keys::find(context, &place.region).await?;
    let endpoint = context
        .variable("AWS_ENDPOINT_URL_ECR")
        .or(context.variable("AWS_ENDPOINT_URL"))
        .map_or_else(|| place.endpoint.clone(), str::to_owned);
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", place.target)];
    let headers = signed_headers(&endpoint, (&place.region, place.service), &keys, &headers, "{}")?;
    let reply = context.ask(Method::POST, &endpoint, headers, "{}".to_owned(), SERVICE_TIMEOUT).await?;
    let token = if place.service == "ecr-public" {
        read::<PublicAnswer>("ECR", reply)?.data.token
    } else {
        let answer: PrivateAnswer = read("ECR", reply)?;
        let first = answer.data.into_iter().next();
        first.ok_or_else(|| Failure::Broken("ECR: its answer holds no token".to_owned()))?.token
    };
    let bad = || Failure::Broken("ECR: its token is not what it should be".to_owned());
    let text = String::from_utf8(STANDARD.decode(token).map_err(|_| bad())?).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    let credential = Credential::basic(username, Secret::new(password));
    Ok(Grant { credential, origin, life: TOKEN_LIFE })
}

/// Returns the headers of a signed request: `headers` and what Amazon wants beside them.
pub(super) fn signed_headers(
    endpoint: &str,
    (region, service): (&str, &str),
    keys: &Keys,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Vec<(String, String)>, Failure> {
    let url = Url::parse(endpoint)
        .map_err(|error| Failure::Broken(format!("`{endpoint}` is not a URL: {error}")))?;
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = crate::registry::transport::host_of(&url);
    let mut headers = headers.to_vec();
    headers.extend([("host", host.as_str()), ("x-amz-date", &time)]);
    if let Some(session) = &keys.session {
        headers.push(("x-amz-security-token", session));
    }
    headers.sort_unstable();
    let signed = Signed {
        method: "POST",
        path: url.path(),
        query: "",
        headers: &headers,
        body: body.as_bytes(),
        time: &time,
        region,
        service,
    };
    let authorization = signed.authorization(keys);
    let mut sent: Vec<(String, String)> = headers
        .iter()
        // The HTTP client says it itself.
        .filter(|(name, _)| *name != "host")
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    sent.push(("authorization".to_owned(), authorization));
    Ok(sent)
}
