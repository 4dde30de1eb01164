//! Upload sessions that were opened to see whether a repository may be written to, kept for the first blob that goes there:
//! a question and a cancellation less.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::push::Session;

/// Registries forget sessions that nothing comes into; none does so earlier.
const MOST_AGE: Duration = Duration::from_secs(300);

/// At most one session for each repository.
#[derive(Default)]
pub(super) struct Parked {
    /// By registry and repository.
    sessions: Mutex<HashMap<(String, String), (Session, Instant)>>,
}

/// A session that was kept.
pub(super) enum Kept {
    /// To be used.
    Fresh(Session),
    /// Perhaps forgotten by now: to be given back.
    Old(Session),
}

impl Parked {
    /// Keeps a session; returns the one that was there.
    pub(super) fn keep(&self, registry: &str, repository: &str, session: Session) -> Option<Session> {
        let key = (registry.to_owned(), repository.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key, (session, Instant::now())).map(|(session, _)| session)
    }

    /// Takes what is kept for a repository.
    pub(super) fn take(&self, registry: &str, repository: &str) -> Option<Kept> {
        let key = (registry.to_owned(), repository.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, since) = sessions.remove(&key)?;
        Some(if since.elapsed() < MOST_AGE { Kept::Fresh(session) } else { Kept::Old(session) })
    }
}
