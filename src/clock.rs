//! Time as a parameter, so that a test can move it without waiting. Does not sleep and starts no timers.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The time source of a mount: the system's, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Duration>>>, Base);

#[derive(Clone, Copy, Debug)]
struct Base(Instant, SystemTime);

impl Default for Base {
    fn default() -> Self {
        Self(Instant::now(), SystemTime::now())
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn manual() -> Self {
        Self(Some(Arc::default()), Base::default())
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(offset) => self.1.0 + *offset.lock(),
        }
    }

    /// Wall-clock time, for texts and files.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(offset) => self.1.1 + *offset.lock(),
        }
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Some(offset) = &self.0 {
            *offset.lock() += by;
        }
    }

    /// The end of a validity that begins now.
    pub fn expiry(&self, valid: Duration) -> Expiry {
        Expiry(self.now() + valid)
    }

    /// The end of a wait that begins now.
    pub fn deadline(&self, limit: Duration) -> Deadline {
        Deadline(self.now() + limit)
    }
}

/// Until when an answer may be served without asking the server again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(pub Instant);

impl Expiry {
    /// What is left of the validity. The kernel is told this, never the full span.
    pub fn remaining(&self, clock: &Clock) -> Duration {
        self.0.saturating_duration_since(clock.now())
    }

    /// Whether the validity has ended.
    pub fn is_over(&self, clock: &Clock) -> bool {
        self.0 <= clock.now()
    }
}

/// When a wait must end in any case. Every wait on the network has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// `limit` from now by the system's clock: waits are real even where a test moves the clock.
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// The time that is left; zero after the end.
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the wait must end.
    pub fn is_over(&self) -> bool {
        self.0 <= Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual();
        let expiry = clock.expiry(Duration::from_secs(30));
        clock.advance(Duration::from_secs(29));
        assert_eq!(expiry.remaining(&clock), Duration::from_secs(1));
        assert!(!expiry.is_over(&clock));
        clock.advance(Duration::from_secs(1));
        assert!(expiry.is_over(&clock));
    }
}
