//! One request to a registry, from the question to an answer that means something.
//!
//! [`Inner::call`] authorizes, follows redirects (without credentials when they lead to another host),
//! renews a token once when the registry wants another, and repeats what may help to be repeated.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, LOCATION};
use reqwest::{Method, Response};
use url::Url;

use super::Inner;
use super::answer::Answer;
use super::config::{HostConfig, Side, Waivers};
use super::credential::Found;
use super::credential::cloud::{Ask, Reply, Sender};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::retry::{Backoff, retry_after};
use super::token::Authorization;
use super::transport::{self, host_of, shown};

/// No registry leads us on more often.
const MOST_REDIRECTS: usize = 8;
/// No error message or token is longer.
const SMALL_BODY_BYTES: usize = 1 << 20;

/// What a request wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }

    /// Returns whose settings hold: those of pulls or those of pushes.
    pub(super) fn side(self) -> Side {
        match self {
            Self::Pull => Side::Pull,
            Self::Push | Self::Delete => Side::Push,
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The repository it is about, for scopes and for the choice of the credential.
    pub(super) repository: &'a str,
    pub(super) access: Access,
    /// Another repository of the same registry that is read from: the source of a mount.
    pub(super) also_pull: Option<&'a str>,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<Bytes>,
    /// What it is about, as a noun, for messages.
    pub(super) what: String,
    /// Whether the answer's bytes are checked against a digest, so that it does not matter who sends them.
    pub(super) verified: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: Url, repository: &'a str, access: Access, what: String) -> Self {
        Self {
            method,
            url,
            repository,
            access,
            also_pull: None,
            headers: Vec::new(),
            body: None,
            what,
            verified: false,
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn scopes(&self) -> BTreeSet<String> {
        let mut scopes = BTreeSet::new();
        if !self.repository.is_empty() {
            scopes.insert(format!("repository:{}:{}", self.repository, self.access.actions()));
        }
        if let Some(other) = self.also_pull {
            scopes.insert(format!("repository:{other}:pull"));
        }
        scopes
    }
}

impl Inner {
    /// Asks for nothing but to be let in.
    pub(super) async fn check_login(&self, registry: &str) -> Result<(), RegistryError> {
        let endpoint = self.endpoint(registry, Side::Push);
        let url = endpoint.url(self, "").await?;
        let call = Call::new(Method::GET, url, "", Access::Pull, "a login".to_owned());
        self.call(&endpoint, &call, &[200]).await.map(drop)
    }

    /// Sends `call` until it is answered with a status of `accept` or nothing more can be done.
    pub(super) async fn call(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        accept: &[u16],
    ) -> Result<Response, RegistryError> {
        let mut backoff = Backoff::new(&self.retries, &self.reporter);
        loop {
            let error = match self.call_once(endpoint, call, accept).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            backoff.wait(&call.what, error).await?;
        }
    }

    /// The same without repetitions, except to renew a token.
    pub(super) async fn call_once(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        accept: &[u16],
    ) -> Result<Response, RegistryError> {
        let mut scopes = call.scopes();
        let mut authorization = self.authorize(endpoint, call.repository, &scopes).await?;
        let mut response = self.follow(endpoint, call, &authorization).await?;
        if self.renewed(endpoint, call, &response, &mut scopes, &mut authorization).await? {
            response = self.follow(endpoint, call, &authorization).await?;
        }
        if accept.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        Err(self.refused(endpoint, &call.what, response, &authorization).await)
    }

    /// Makes another authorization if the response asks for one that we can give.
    pub(super) async fn renewed(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        response: &Response,
        scopes: &mut BTreeSet<String>,
        authorization: &mut Authorization,
    ) -> Result<bool, RegistryError> {
        // 403 with a challenge is how some registries say that the token's scope is too small (RFC 6750).
        if !matches!(response.status().as_u16(), 401 | 403) || !endpoint.is_home(response.url()) {
            return Ok(false);
        }
        let Some(challenge) = endpoint.learn(response.headers()) else { return Ok(false) };
        if let super::challenge::Challenge::Bearer(bearer) = &challenge {
            if response.status() == 403 && bearer.error.as_deref() != Some("insufficient_scope") {
                return Ok(false);
            }
            if let Some(secret) = authorization.secrets.first() {
                endpoint.drop_token(scopes, secret.reveal());
            }
            // What the registry says it needs, with what we know we shall need.
            scopes.extend(bearer.scopes.iter().cloned());
        }
        let before = authorization.header.clone();
        *authorization = self.authorize(endpoint, call.repository, scopes).await?;
        if authorization.header.is_some() && authorization.header != before {
            // Later calls of this kind ask for it under the scopes they know.
            if let Some(token) = endpoint.token(scopes) {
                endpoint.keep_token(call.scopes(), token);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Sends the call and follows redirects.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        authorization: &Authorization,
    ) -> Result<Response, RegistryError> {
        let mut url = call.url.clone();
        let mut method = call.method.clone();
        for _ in 0..MOST_REDIRECTS {
            let request = self.request(endpoint, call, &method, &url, authorization)?;
            let response = self.execute(request, &url).await?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = location(&endpoint.registry, &call.what, &url, response.headers())?;
            let next = endpoint.repair(next);
            let reads = matches!(method, Method::GET | Method::HEAD);
            if !reads && !matches!(status, 307 | 308) {
                if status == 303 {
                    method = Method::GET;
                } else {
                    return Err(protocol(
                        endpoint,
                        &call.what,
                        format!("it redirects a {method} with {status}"),
                    ));
                }
            }
            if url.scheme() == "https" && next.scheme() == "http" && !call.verified {
                let reason = format!("it redirects from https to {}", shown(&next));
                return Err(protocol(endpoint, &call.what, reason));
            }
            url = next;
        }
        Err(protocol(endpoint, &call.what, format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    /// Builds the request for one hop: with credentials on the registry's own host, bare elsewhere.
    fn request(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        method: &Method,
        url: &Url,
        authorization: &Authorization,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        let home = endpoint.is_home(url);
        let mut request = self.client_for(endpoint, url)?.request(method.clone(), url.clone());
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(header) = authorization.header.as_ref().filter(|_| home) {
            request = request.header(AUTHORIZATION, header.reveal());
        }
        if let Some(body) = &call.body
            && *method == call.method
        {
            request = request.body(body.clone());
        } else if !matches!(*method, Method::GET | Method::HEAD) {
            // Registries behind some proxies answer 411 to a POST that does not say it is empty.
            request = request.header(reqwest::header::CONTENT_LENGTH, "0");
        }
        Ok(request)
    }

    /// Returns the client for a URL that a registry led us to.
    pub(super) fn client_for(
        &self,
        endpoint: &Endpoint,
        url: &Url,
    ) -> Result<reqwest::Client, RegistryError> {
        if endpoint.is_home(url) {
            return endpoint.client(self);
        }
        let host = host_of(url);
        self.transport.client(&self.config, &host, &self.config.host(&host), endpoint.side)
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn execute(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
    ) -> Result<Response, RegistryError> {
        let limit = self.retries.stall_timeout;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(transport::explain(url, error, self.retries.connect_timeout)),
            Err(_) => Err(RegistryError::Unreachable {
                host: host_of(url),
                reason: super::error::Unreachable::Silent(limit),
            }),
        }
    }

    /// Reads a body that is known to be small; what is beyond the limit is dropped.
    pub(super) async fn small_body(&self, response: Response, url: &Url) -> Result<Vec<u8>, RegistryError> {
        self.limited_body(response, url, SMALL_BODY_BYTES).await.map(|(body, _)| body)
    }

    /// Reads at most `limit` bytes of a body and tells whether that was all.
    pub(super) async fn limited_body(
        &self,
        mut response: Response,
        url: &Url,
        limit: usize,
    ) -> Result<(Vec<u8>, bool), RegistryError> {
        let patience = self.retries.stall_timeout;
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if body.len() + chunk.len() > limit {
                    return Ok((body, false));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((body, true))
        };
        match tokio::time::timeout(patience, read).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(transport::explain(url, error, self.retries.connect_timeout)),
            Err(_) => Err(RegistryError::Unreachable {
                host: host_of(url),
                reason: super::error::Unreachable::Silent(patience),
            }),
        }
    }

    /// Turns an unsuccessful response into an error.
    pub(super) async fn refused(
        &self,
        endpoint: &Endpoint,
        what: &str,
        response: Response,
        authorization: &Authorization,
    ) -> RegistryError {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let url = response.url().clone();
        // Without its words the status still says enough.
        let body = self.small_body(response, &url).await.unwrap_or_default();
        let secrets: Vec<&str> = authorization.secrets.iter().map(super::Secret::reveal).collect();
        let answer = Answer::parse(status, &body, &secrets);
        let in_its_form = answer.errors.iter().any(|error| !error.code.is_empty());
        if endpoint.is_home(&url)
            && !endpoint.looks_like_a_registry()
            && !in_its_form
            && (200..500).contains(&status)
        {
            return RegistryError::NotARegistry {
                host: endpoint.registry.clone(),
                url: shown(&url),
                found: answer.to_string(),
            };
        }
        if !endpoint.is_home(&url) && (400..500).contains(&status) && status != 429 {
            // A storage service that the registry sent us to. Its no is about an address that has expired
            // or is wrong: the registry may give a better one.
            let retry_after = retry_after(&headers);
            return RegistryError::Server { host: host_of(&url), what: what.to_owned(), retry_after, answer };
        }
        let host = if endpoint.is_home(&url) { endpoint.registry.clone() } else { host_of(&url) };
        refusal(&host, what, answer, &headers, authorization)
    }

    /// Finds the credential for a repository: what is written down anywhere, else what its cloud gives.
    pub(super) async fn credential(&self, endpoint: &Endpoint, repository: &str) -> Option<Found> {
        match self.credentials.find(&endpoint.registry, repository) {
            Some(found) => Some(found),
            None => self.clouds.find(&endpoint.registry, self).await,
        }
    }
}

impl Sender for Inner {
    fn send<'a>(&'a self, ask: Ask) -> Pin<Box<dyn Future<Output = Reply> + 'a>> {
        Box::pin(async move {
            let host = host_of(&ask.url);
            let said = |error: RegistryError| error.full();
            // A cloud's own services: what is waived for registries is not waived for them.
            let settings = HostConfig { waived: Waivers::default(), ..self.config.host(&host) };
            let client = self.transport.client(&self.config, &host, &settings, Side::Pull).map_err(said)?;
            let mut request = client.request(ask.method, ask.url.clone()).timeout(ask.timeout).body(ask.body);
            for (name, value) in ask.headers {
                request = request.header(name, value);
            }
            let response = self.execute(request, &ask.url).await.map_err(said)?;
            let status = response.status().as_u16();
            let body = self.small_body(response, &ask.url).await.map_err(said)?;
            Ok((status, body))
        })
    }
}

/// Classifies an unsuccessful answer.
pub(super) fn refusal(
    host: &str,
    what: &str,
    answer: Answer,
    headers: &HeaderMap,
    authorization: &Authorization,
) -> RegistryError {
    let (host, what) = (host.to_owned(), what.to_owned());
    let credential = authorization.origin.clone();
    let retry_after = retry_after(headers);
    let limited = answer.has_code("TOOMANYREQUESTS") || answer.has_code("DOCKER_RATE_LIMIT");
    match answer.status {
        429 => RegistryError::RateLimited { host, retry_after, answer },
        401 | 403 if limited => RegistryError::RateLimited { host, retry_after, answer },
        401 if answer.has_code("DENIED") && credential.is_some() => {
            RegistryError::Denied { host, what, credential, answer }
        }
        401 => RegistryError::Unauthorized { host, what, credential, answer },
        403 => RegistryError::Denied { host, what, credential, answer },
        404 | 410 => RegistryError::NotFound { host, what, answer },
        500.. => RegistryError::Server { host, what, retry_after, answer },
        _ => RegistryError::Refused { host, what, answer },
    }
}

/// Reads the `Location` of a response to a request for `url`.
pub(super) fn location(
    registry: &str,
    what: &str,
    url: &Url,
    headers: &HeaderMap,
) -> Result<Url, RegistryError> {
    let bad =
        |reason: String| RegistryError::Protocol { host: registry.to_owned(), what: what.to_owned(), reason };
    let value = headers.get(LOCATION).ok_or_else(|| bad("it has no Location".to_owned()))?;
    let text = value.to_str().map_err(|_| bad("its Location is not text".to_owned()))?;
    let next = url.join(text).map_err(|error| bad(format!("its Location is not a URL: {error}")))?;
    if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
        return Err(bad(format!("its Location is a `{}` URL", next.scheme())));
    }
    Ok(next)
}

/// Describes an answer that can't be right.
pub(super) fn protocol(endpoint: &Endpoint, what: &str, reason: String) -> RegistryError {
    RegistryError::Protocol { host: endpoint.registry.clone(), what: what.to_owned(), reason }
}
