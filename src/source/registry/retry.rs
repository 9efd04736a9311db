//! Repeating failed requests.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::source::assemble::Context;
use crate::source::error::Error;

/// Longest wait of our own choosing.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Whether a failed request is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It would fail again.
    Never,
    /// After a wait of our choosing.
    Soon,
    /// After the wait that the server asked for.
    After(Duration),
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub retry: Retry,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }
}

/// Counts the repetitions of one request and waits between them.
pub(super) struct Retrier<'a> {
    context: &'a Context<'a>,
    host: &'a str,
    failed: u32,
}

impl<'a> Retrier<'a> {
    pub(super) fn new(context: &'a Context<'a>, host: &'a str) -> Self {
        Self { context, host, failed: 0 }
    }

    /// Some bytes arrived: count from zero again.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next attempt, or returns the error if there is to be none.
    pub(super) fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        let options = self.context.options;
        // A mistyped name or a registry that is down shows at once; no need to wait long.
        let unreachable = matches!(failure.error, Error::Unreachable { .. });
        let retries = if unreachable { options.retries.min(2) } else { options.retries };
        if self.failed >= retries || failure.retry == Retry::Never {
            return Err(failure.error);
        }
        let own = own_delay(options.retry_delay, self.failed);
        let wait = match failure.retry {
            Retry::After(wait) if wait > options.max_wait => {
                return Err(Error::RateLimited { host: self.host.into(), wait });
            }
            Retry::After(wait) => wait,
            _ => own,
        };
        self.failed += 1;
        self.context.progress.retrying(&failure.error.to_string(), wait);
        let end = Instant::now() + wait;
        loop {
            if self.context.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => {
                    std::thread::sleep(left.min(Duration::from_millis(100)));
                }
                _ => return Ok(()),
            }
        }
    }
}

/// Doubling, with up to a half taken off at random so that clients don't return in step.
fn own_delay(first: Duration, failed: u32) -> Duration {
    let full = first.saturating_mul(1 << failed.min(16)).min(MAX_DELAY);
    let random = RandomState::new().hash_one(failed) % 512;
    full.mul_f64(1.0 - random as f64 / 1024.0)
}

/// The wait that a `Retry-After` header asks for: seconds or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        let later = "Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(retry_after(later, now), Some(Duration::from_secs(30)));
        let past = "Sun, 06 Nov 1994 08:00:00 GMT";
        assert_eq!(retry_after(past, now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }

    #[test]
    fn delays_double_within_bounds() {
        let first = Duration::from_millis(100);
        for failed in 0..40 {
            let delay = own_delay(first, failed);
            let full = first.saturating_mul(1 << failed.min(16)).min(MAX_DELAY);
            assert!(delay <= full && delay >= full / 2, "{failed}: {delay:?}");
        }
    }
}
