//! Upload sessions: opened, given back, and kept for later.
//!
//! The one that was opened to see whether a repository may be written to is kept for the first blob that goes there: a
//! question and a cancellation less.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderName;
use reqwest::{Method, Response};
use url::Url;

use super::Inner;
use super::call::{Access, Call, location};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use crate::oci::Reference;
use crate::threads::Beside;

/// How long giving back a session may keep a build that is over.
const CLOSING: Duration = Duration::from_secs(1);

/// Where the bytes of an upload go.
pub(super) struct Session {
    pub(super) url: Url,
    /// The least that a chunk that is not the last may have, as the registry said.
    pub(super) least_chunk_bytes: u64,
}

/// Says how small chunks may be (distribution-spec, "Pushing a blob in chunks").
const LEAST_CHUNK_HEADER: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Registries forget sessions that nothing comes into; none does so earlier.
const MOST_AGE: Duration = Duration::from_secs(300);

/// At most one session for each repository.
#[derive(Default)]
pub(super) struct Parked {
    /// By registry and repository.
    sessions: Mutex<HashMap<(String, String), (Session, Instant)>>,
}

/// A session that was kept.
enum Kept {
    /// To be used.
    Fresh(Session),
    /// Perhaps forgotten by now: to be given back.
    Old(Session),
}

impl Parked {
    /// Keeps a session; returns the one that was there.
    fn keep(&self, registry: &str, repository: &str, session: Session) -> Option<Session> {
        let key = (registry.to_owned(), repository.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key, (session, Instant::now())).map(|(session, _)| session)
    }

    /// Takes what is kept for a repository.
    fn take(&self, registry: &str, repository: &str) -> Option<Kept> {
        let key = (registry.to_owned(), repository.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, since) = sessions.remove(&key)?;
        Some(if since.elapsed() < MOST_AGE { Kept::Fresh(session) } else { Kept::Old(session) })
    }
}

impl Inner {
    /// Returns a session for an upload: the one that is kept, else a new one.
    pub(super) async fn begin(
        &self,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<Session, RegistryError> {
        match self.parked.take(&endpoint.registry, repository) {
            Some(Kept::Fresh(session)) => return Ok(session),
            Some(Kept::Old(session)) => self.cancel(endpoint, repository, session.url).await,
            None => {}
        }
        self.open_session(endpoint, repository).await
    }

    /// Opens an upload session.
    pub(super) async fn open_session(
        &self,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<Session, RegistryError> {
        let url = endpoint.url(self, &format!("{repository}/blobs/uploads/")).await?;
        let what = format!("an upload to `{repository}`");
        let call = Call::new(Method::POST, url, repository, Access::Push, what);
        let response = self.call(endpoint, &call, &[202, 201, 200]).await?;
        self.session(endpoint, &call, &response)
    }

    pub(super) fn session(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        response: &Response,
    ) -> Result<Session, RegistryError> {
        let url = location(&endpoint.registry, &call.what, response.url(), response.headers())?;
        let least = response.headers().get(LEAST_CHUNK_HEADER);
        let least_chunk_bytes = least.and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
        Ok(Session { url: endpoint.repair(url), least_chunk_bytes })
    }

    /// Gives an upload session back. Registries forget them after a while anyway.
    pub(super) async fn cancel(&self, endpoint: &Endpoint, repository: &str, session: Url) {
        let what = format!("an upload to `{repository}` that is not needed");
        let call = Call::new(Method::DELETE, session, repository, Access::Push, what);
        if let Err(error) = self.call_once(endpoint, &call, &[204, 202, 200]).await {
            self.reporter.debug(error.full());
        }
    }

    pub(super) fn check_push(self: &Arc<Self>, to: &Reference) -> Result<(), RegistryError> {
        let endpoint = self.destination(to)?;
        let session = self.runtime.wait(self.open_session(&endpoint, to.repository()))?;
        // The answer is known; giving the session back is nobody's to wait for.
        let (inner, to) = (Arc::clone(self), to.clone());
        Beside::start("close", move || {
            inner.runtime.wait(inner.cancel(&endpoint, to.repository(), session.url));
        });
        Ok(())
    }

    pub(super) fn open_push(&self, to: &Reference) -> Result<(), RegistryError> {
        let endpoint = self.destination(to)?;
        let session = self.runtime.wait(self.open_session(&endpoint, to.repository()))?;
        if let Some(other) = self.parked.keep(&endpoint.registry, to.repository(), session) {
            self.runtime.wait(self.cancel(&endpoint, to.repository(), other.url));
        }
        Ok(())
    }

    pub(super) fn close_push(&self, to: &Reference) {
        let Ok(endpoint) = self.destination(to) else { return };
        if let Some(Kept::Fresh(session) | Kept::Old(session)) =
            self.parked.take(&endpoint.registry, to.repository())
        {
            self.runtime.wait_at_most(CLOSING, self.cancel(&endpoint, to.repository(), session.url));
        }
    }
}
