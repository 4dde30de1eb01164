//! Proving who we are: the `Authorization` header for a request, and the tokens behind it.
//!
//! Basic credentials go to the registry's own host and, where the registry's challenge names a token
//! service, to that service if it is the registry's own (see `realm`). They are not sent to a realm in plain
//! HTTP unless the registry itself is spoken to in plain HTTP, and nothing is ever sent to the target of a
//! redirect to another host. Tokens are cached by scope set until shortly before they
//! expire, measured by our own clock from when they came: the server's may be wrong.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::Inner;
use super::challenge::{Bearer, Challenge};
use super::credential::{Credential, Found};
use super::endpoint::{Endpoint, is_loopback};
use super::error::RegistryError;
use super::realm;
use super::secret::Secret;
use super::transport::{host_of, shown};

/// A token that says nothing of its life lives this long (docker's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// How we introduce ourselves to token services.
const CLIENT_ID: &str = "kiln";

/// A bearer token and how long it is good.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: Secret,
    fresh_until: Instant,
    /// Where the credential it was got with came from.
    origin: Option<String>,
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.fresh_until
    }
}

/// What goes with a request to prove who we are.
#[derive(Clone, Default)]
pub(super) struct Authorization {
    /// The header's value.
    pub(super) header: Option<Secret>,
    /// Where the credential came from.
    pub(super) origin: Option<String>,
    /// What must not show up in messages.
    pub(super) secrets: Vec<Secret>,
}

impl Authorization {
    fn bearer(token: &Secret, origin: Option<String>) -> Self {
        Self {
            header: Some(Secret::new(format!("Bearer {}", token.reveal()))),
            origin,
            secrets: vec![token.clone()],
        }
    }

    fn basic(username: &str, password: &Secret, origin: String) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{}", password.reveal()));
        Self {
            header: Some(Secret::new(format!("Basic {encoded}"))),
            origin: Some(origin),
            secrets: vec![Secret::new(encoded), password.clone()],
        }
    }
}

#[derive(Deserialize)]
struct TokenJson {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Inner {
    /// Makes the authorization for a request that needs `scopes` on a repository.
    pub(super) async fn authorize(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        scopes: &BTreeSet<String>,
    ) -> Result<Authorization, RegistryError> {
        match endpoint.challenge() {
            None => Ok(Authorization::default()),
            Some(Challenge::Basic) => Ok(match self.credential(endpoint, repository).await {
                Some(Found { credential: Credential::Basic { username, password }, origin }) => {
                    Authorization::basic(&username, &password, origin)
                }
                Some(Found { credential: Credential::Bearer(token), origin }) => {
                    Authorization::bearer(&token, Some(origin))
                }
                // A refresh token is for a token service, and this registry has none.
                Some(Found { credential: Credential::Identity(_), .. }) | None => Authorization::default(),
            }),
            Some(Challenge::Bearer(bearer)) => {
                let token = self.bearer_token(endpoint, repository, &bearer, scopes).await?;
                Ok(Authorization::bearer(&token.value, token.origin))
            }
        }
    }

    async fn bearer_token(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        bearer: &Bearer,
        scopes: &BTreeSet<String>,
    ) -> Result<Token, RegistryError> {
        if let Some(token) = endpoint.token(scopes) {
            return Ok(token);
        }
        let _one_at_a_time = endpoint.fetching.lock().await;
        if let Some(token) = endpoint.token(scopes) {
            return Ok(token);
        }
        let found = self.credential(endpoint, repository).await;
        if let Some(Found { credential: Credential::Bearer(token), origin }) = &found {
            let fresh_until = Instant::now() + Duration::from_secs(3600);
            return Ok(Token { value: token.clone(), fresh_until, origin: Some(origin.clone()) });
        }
        let token = self.fetch_token(endpoint, bearer, scopes, found.as_ref()).await?;
        endpoint.keep_token(scopes.clone(), token.clone());
        Ok(token)
    }

    async fn fetch_token(
        &self,
        endpoint: &Endpoint,
        bearer: &Bearer,
        scopes: &BTreeSet<String>,
        found: Option<&Found>,
    ) -> Result<Token, RegistryError> {
        let fail = |reason: String| RegistryError::Token {
            host: endpoint.registry.clone(),
            realm: Url::parse(&bearer.realm)
                .map_or_else(|_| "its token service".to_owned(), |url| shown(&url)),
            reason,
        };
        let realm =
            Url::parse(&bearer.realm).map_err(|error| fail(format!("the realm is not a URL: {error}")))?;
        if !matches!(realm.scheme(), "http" | "https") {
            return Err(fail(format!("expected an https realm, found `{}`", realm.scheme())));
        }
        let (found, withheld) = match found {
            Some(found) if !self.is_its_own(endpoint, &host_of(&realm)) => {
                (None, Some(self.withhold(endpoint, found, &host_of(&realm))))
            }
            found => (found, None),
        };
        let in_the_clear = realm.scheme() == "http" && !endpoint.is_plain() && !is_loopback(&host_of(&realm));
        if in_the_clear && found.is_some() {
            return Err(fail("a credential is not sent over plain HTTP".to_owned()));
        }
        let ask = TokenRequest { endpoint, bearer, scopes, realm };
        let (status, body) = match found.map(|found| &found.credential) {
            None => self.get_token(&ask, None).await?,
            Some(Credential::Basic { username, password }) => {
                let (status, body) = self.get_token(&ask, Some((username, password))).await?;
                // OAuth2-only services know no GET.
                if matches!(status, 404 | 405 | 501) {
                    let grant =
                        [("grant_type", "password"), ("username", username), ("password", password.reveal())];
                    self.post_token(&ask, &grant).await?
                } else {
                    (status, body)
                }
            }
            Some(Credential::Identity(token)) => {
                let grant = [("grant_type", "refresh_token"), ("refresh_token", token.reveal())];
                let (status, body) = self.post_token(&ask, &grant).await?;
                // Services older than OAuth2 take the refresh token as a password.
                if matches!(status, 404 | 405 | 501) {
                    self.get_token(&ask, Some(("<token>", token))).await?
                } else {
                    (status, body)
                }
            }
            Some(Credential::Bearer(_)) => return Err(fail("the credential is a token already".to_owned())),
        };
        let origin = found.map(|found| found.origin.clone()).or(withheld);
        if status != 200 {
            return Err(self.token_refused(&ask, status, &body, (found, origin)));
        }
        read_token(&body, origin).map_err(fail)
    }

    /// Returns whether a token service is the registry's own or was said to be.
    fn is_its_own(&self, endpoint: &Endpoint, service: &str) -> bool {
        let registry = &endpoint.registry;
        realm::belongs(registry, service)
            || realm::is_among(&endpoint.settings.token_services, service)
            || realm::is_gitlabs(&self.config.credentials.environment, registry, service)
    }

    /// Tells that a credential stays here; returns what to call it in errors.
    fn withhold(&self, endpoint: &Endpoint, found: &Found, service: &str) -> String {
        let (registry, origin) = (&endpoint.registry, &found.origin);
        if endpoint.note_withheld() {
            self.reporter.warning(format!(
                "`{registry}` asks for tokens of `{service}`, which is another's: the credential from {origin} is not \
                 sent there; if that is the registry's token service, say `--registry-token-service \
                 {registry}={service}`"
            ));
        }
        format!("{origin} (not sent to `{service}`: see `--registry-token-service`)")
    }

    fn token_refused(
        &self,
        ask: &TokenRequest<'_>,
        status: u16,
        body: &[u8],
        (found, origin): (Option<&Found>, Option<String>),
    ) -> RegistryError {
        let secrets = match found.map(|found| &found.credential) {
            Some(Credential::Basic { username, password }) => vec![
                STANDARD.encode(format!("{username}:{}", password.reveal())),
                password.reveal().to_owned(),
            ],
            Some(Credential::Identity(token) | Credential::Bearer(token)) => vec![token.reveal().to_owned()],
            None => Vec::new(),
        };
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        // OAuth2 answers a bad grant with 400.
        let status = if status == 400 && found.is_some() { 401 } else { status };
        let what = ask.scopes.iter().cloned().collect::<Vec<_>>().join(" ");
        let what = if what.is_empty() { "a login".to_owned() } else { format!("`{what}`") };
        let authorization = Authorization { origin, ..Authorization::default() };
        super::call::refusal(
            &ask.endpoint.registry,
            &what,
            super::answer::Answer::parse(status, body, &secrets),
            &reqwest::header::HeaderMap::new(),
            &authorization,
        )
    }

    async fn get_token(
        &self,
        ask: &TokenRequest<'_>,
        basic: Option<(&str, &Secret)>,
    ) -> Result<(u16, Vec<u8>), RegistryError> {
        let mut url = ask.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &ask.bearer.service {
                query.append_pair("service", service);
            }
            for scope in ask.scopes {
                query.append_pair("scope", scope);
            }
            if let Some((username, _)) = basic {
                query.append_pair("account", username);
            }
        }
        let mut request = self.token_client(ask)?.request(Method::GET, url.clone());
        if let Some((username, password)) = basic {
            let encoded = STANDARD.encode(format!("{username}:{}", password.reveal()));
            request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
        }
        self.token_answer(request, &url).await
    }

    async fn post_token(
        &self,
        ask: &TokenRequest<'_>,
        grant: &[(&str, &str)],
    ) -> Result<(u16, Vec<u8>), RegistryError> {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(grant);
        form.append_pair("client_id", CLIENT_ID);
        if let Some(service) = &ask.bearer.service {
            form.append_pair("service", service);
        }
        if !ask.scopes.is_empty() {
            form.append_pair("scope", &ask.scopes.iter().cloned().collect::<Vec<_>>().join(" "));
        }
        let request = self
            .token_client(ask)?
            .request(Method::POST, ask.realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish());
        self.token_answer(request, &ask.realm).await
    }

    /// Returns the client for the token service: with its own settings, else with the registry's, whose
    /// private authority is usually that of its token service too.
    fn token_client(&self, ask: &TokenRequest<'_>) -> Result<reqwest::Client, RegistryError> {
        let host = host_of(&ask.realm);
        match self.config.hosts.contains_key(&host) {
            true => self.transport.client(&self.config, &host, &self.config.host(&host), ask.endpoint.side),
            false => ask.endpoint.client_speaking(self, ask.realm.scheme()),
        }
    }

    async fn token_answer(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
    ) -> Result<(u16, Vec<u8>), RegistryError> {
        let response = self.execute(request, url).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = self.small_body(response, url).await?;
        if status == 429 || status >= 500 && status != 501 {
            let answer = super::answer::Answer::parse(status, &body, &[]);
            return Err(super::call::refusal(
                &host_of(url),
                "a token",
                answer,
                &headers,
                &Authorization::default(),
            ));
        }
        Ok((status, body))
    }
}

/// What is asked of a token service.
struct TokenRequest<'a> {
    endpoint: &'a Endpoint,
    bearer: &'a Bearer,
    scopes: &'a BTreeSet<String>,
    realm: Url,
}

fn read_token(body: &[u8], origin: Option<String>) -> Result<Token, String> {
    // The error of serde_json could quote the token.
    let json: TokenJson =
        serde_json::from_slice(body).map_err(|_| "its answer is not the JSON of a token".to_owned())?;
    let value = json
        .token
        .filter(|token| !token.is_empty())
        .or(json.access_token.filter(|token| !token.is_empty()))
        .ok_or_else(|| "its answer holds no token".to_owned())?;
    if value.bytes().any(|b| b.is_ascii_control()) {
        return Err("its token has characters that no token has".to_owned());
    }
    let life = match json.expires_in {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            Duration::from_secs_f64(seconds.min(86_400.0))
        }
        _ => DEFAULT_LIFE,
    };
    // Not used in the last tenth of its life: the request must still arrive.
    let fresh_until = Instant::now() + life.mul_f64(0.9);
    Ok(Token { value: Secret::new(value), fresh_until, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_under_both_names() {
        assert_eq!(read_token(br#"{"token":"a","access_token":"b"}"#, None).unwrap().value.reveal(), "a");
        assert_eq!(
            read_token(br#"{"access_token":"b","expires_in":300}"#, None).unwrap().value.reveal(),
            "b"
        );
        for body in [&b"{}"[..], br#"{"token":""}"#, b"token", br#"{"token":"a\nb"}"#] {
            assert!(read_token(body, None).is_err());
        }
    }

    #[test]
    fn a_token_grows_stale_before_it_expires() {
        let token = read_token(br#"{"token":"a","expires_in":0.02}"#, None).unwrap();
        assert!(token.is_fresh());
        std::thread::sleep(Duration::from_millis(25));
        assert!(!token.is_fresh());
        assert!(read_token(br#"{"token":"a","expires_in":-5}"#, None).unwrap().is_fresh());
    }
}
