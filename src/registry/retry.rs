//! When to ask again: bounded, with growing pauses, and never without saying so.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::config::Retries;
use super::error::{RegistryError, Unreachable};
use crate::event::Reporter;

/// A host that refuses connections or has no name rarely changes its mind: people wait for this in vain.
const HOPELESS_RETRIES: u32 = 2;

/// Returns how often a failure of a kind is worth another try.
fn most_repetitions(error: &RegistryError) -> u32 {
    match error {
        RegistryError::Unreachable { reason, .. } => match reason {
            Unreachable::Refused | Unreachable::Name(_) => HOPELESS_RETRIES,
            // The deadline is what the user would wait: not several times that for one request.
            Unreachable::Silent(_) => 0,
            // A connection that died without a word: another one may live.
            Unreachable::Timeout(_) | Unreachable::Stalled => 1,
            Unreachable::Cut | Unreachable::NoRoute | Unreachable::Proxy(_) | Unreachable::Failed(_) => {
                u32::MAX
            }
        },
        _ => u32::MAX,
    }
}

/// Counts the failures of one piece of work.
pub(super) struct Backoff<'a> {
    retries: &'a Retries,
    reporter: &'a Reporter,
    failures: u32,
    began: Instant,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(retries: &'a Retries, reporter: &'a Reporter) -> Self {
        Self { retries, reporter, failures: 0, began: Instant::now() }
    }

    /// Goes on counting from `failures`.
    pub(super) fn resumed(retries: &'a Retries, reporter: &'a Reporter, failures: u32) -> Self {
        Self { failures, ..Self::new(retries, reporter) }
    }

    /// Takes a failure; waits and returns if the work is to be tried again, else gives the error back.
    pub(super) async fn wait(&mut self, what: &str, error: RegistryError) -> Result<(), RegistryError> {
        let pause = self.pause(what, error)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The same without waiting: returns the pause.
    pub(super) fn pause(&mut self, what: &str, error: RegistryError) -> Result<Duration, RegistryError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        let limit = self.retries.count.min(most_repetitions(&error));
        let asked = error.retry_after();
        // Asking again before the server wants it would only be counted against us.
        let too_long = asked.is_some_and(|pause| pause > self.retries.longest_retry_after);
        if self.failures > limit || too_long {
            if self.failures == 1 {
                return Err(error);
            }
            return Err(RegistryError::GaveUp {
                tries: self.failures,
                elapsed: self.began.elapsed(),
                last: Box::new(error),
            });
        }
        let pause = asked.unwrap_or_else(|| self.growing_pause());
        self.reporter.warning(format!(
            "{what}: {error}; trying again in {:.1} s ({} of {limit})",
            pause.as_secs_f64(),
            self.failures
        ));
        Ok(pause)
    }

    /// Counts a session that the registry forgot: not an error of a kind that is usually repeated, but a new
    /// session may do.
    pub(super) fn pause_for_lost_session(
        &mut self,
        what: &str,
        error: RegistryError,
    ) -> Result<Duration, RegistryError> {
        self.failures += 1;
        if self.failures > self.retries.count {
            let (tries, elapsed) = (self.failures, self.began.elapsed());
            return Err(RegistryError::GaveUp { tries, elapsed, last: Box::new(error) });
        }
        let pause = if self.failures == 1 { Duration::ZERO } else { self.growing_pause() };
        self.reporter.warning(format!(
            "{what}: {error}; beginning again in {:.1} s ({} of {})",
            pause.as_secs_f64(),
            self.failures,
            self.retries.count
        ));
        Ok(pause)
    }

    /// Forgets the failures so far: the work got further.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    fn growing_pause(&self) -> Duration {
        let doublings = (self.failures - 1).min(16);
        let pause = self.retries.first_pause.saturating_mul(1 << doublings).min(self.retries.longest_pause);
        // A quarter up or down, so that the layers of an image do not all come back at the same moment.
        let noise = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        pause.mul_f64(0.75 + f64::from(noise % 1000) / 2000.0)
    }
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date. A date is compared with the server's
/// own clock where it shows it, so that ours need not agree.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = http_date(text)?;
    let now = headers
        .get(DATE)
        .and_then(|date| http_date(date.to_str().ok()?))
        .unwrap_or_else(jiff::Timestamp::now);
    Some(Duration::from_secs(u64::try_from(then.as_second() - now.as_second()).unwrap_or(0)))
}

fn http_date(text: &str) -> Option<jiff::Timestamp> {
    let text = text.trim().strip_suffix("GMT").map_or(text.to_owned(), |rest| format!("{rest}+0000"));
    Some(jiff::fmt::rfc2822::parse(&text).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn limited(retry_after: Option<Duration>) -> RegistryError {
        RegistryError::RateLimited { host: "r.io".to_owned(), retry_after, answer: Answer::default() }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let skewed = headers(&[
            ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        assert_eq!(retry_after(&skewed), Some(Duration::from_secs(10)));
        let past = headers(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn failures_are_bounded() {
        let retries = Retries { count: 3, first_pause: Duration::from_millis(1), ..Retries::default() };
        let reporter = Reporter::silent();
        let mut backoff = Backoff::new(&retries, &reporter);
        for _ in 0..3 {
            backoff.pause("x", limited(None)).unwrap();
        }
        assert!(matches!(backoff.pause("x", limited(None)), Err(RegistryError::GaveUp { tries: 4, .. })));
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_limit() {
        let retries = Retries::default();
        let reporter = Reporter::silent();
        let mut backoff = Backoff::new(&retries, &reporter);
        let asked = Duration::from_secs(9);
        assert_eq!(backoff.pause("x", limited(Some(asked))).unwrap(), asked);
        let endless = limited(Some(Duration::from_secs(3600)));
        assert!(backoff.pause("x", endless).is_err());
    }

    #[test]
    fn silence_is_not_waited_for_again() {
        let retries = Retries { first_pause: Duration::ZERO, ..Retries::default() };
        let reporter = Reporter::silent();
        let deadline = Duration::from_secs(60);
        for (reason, repetitions) in [
            (Unreachable::Silent(deadline), 0),
            (Unreachable::Timeout(deadline), 1),
            (Unreachable::Stalled, 1),
            (Unreachable::Refused, HOPELESS_RETRIES),
            (Unreachable::Cut, retries.count),
        ] {
            let mut backoff = Backoff::new(&retries, &reporter);
            let mut fail = || {
                let error = RegistryError::Unreachable { host: "r.io".to_owned(), reason: reason.clone() };
                backoff.pause("x", error).is_ok()
            };
            assert_eq!((0..9).take_while(|_| fail()).count(), repetitions as usize, "{reason:?}");
        }
    }

    #[test]
    fn what_a_build_can_do_without_is_asked_once_more_and_soon() {
        let (retries, reporter) = (Retries::default().few(), Reporter::silent());
        let mut backoff = Backoff::new(&retries, &reporter);
        assert!(backoff.pause("x", limited(None)).unwrap() < Duration::from_secs(1));
        assert!(backoff.pause("x", limited(None)).is_err());
        for (seconds, is_waited_for) in [(2, true), (3, false)] {
            let error = limited(Some(Duration::from_secs(seconds)));
            assert_eq!(
                Backoff::new(&retries, &reporter).pause("x", error).is_ok(),
                is_waited_for,
                "{seconds}"
            );
        }
    }

    #[test]
    fn what_can_not_change_is_not_repeated() {
        let retries = Retries::default();
        let reporter = Reporter::silent();
        let denied = RegistryError::Denied {
            host: "r.io".to_owned(),
            what: "x".to_owned(),
            credential: None,
            answer: Answer::default(),
        };
        assert!(matches!(
            Backoff::new(&retries, &reporter).pause("x", denied),
            Err(RegistryError::Denied { .. })
        ));
    }
}
