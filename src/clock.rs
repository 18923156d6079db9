//! Time as a parameter, so that a test can move it without waiting. Does not sleep and starts no timers.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The time source of a mount: the system's, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Duration>>>, Base, Arc<ServerTime>);

/// Largest error assumed for this machine's clock (seconds).
pub const MAX_SKEW_SECS: u32 = 24 * 3600;
/// Largest difference assumed between the clocks of the platform's machines (seconds).
const AGREE_SECS: u32 = 1;
/// The server's clock counts as unknown if its lower bound is more than this behind this machine's clock (seconds).
const UNKNOWN_SECS: u32 = 5;
/// Number of remembered times that this mount set on the server; the latest times are kept.
const MAX_SET_BY_CLIENT: usize = 4096;

/// Knowledge about the server's clock.
#[derive(Debug, Default)]
struct ServerTime {
    /// A time that the server's clock had passed, and when that was known.
    stamp: Mutex<Option<(u32, Instant)>>,
    set_by_client: Mutex<BTreeSet<u32>>,
}

fn secs_of(time: SystemTime) -> u32 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX))
}

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
        Self(Some(Arc::default()), Base::default(), Arc::default())
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

    /// Notes the time of an object on the server (seconds since the epoch), which the server's clock has passed. It is
    /// ignored if this mount set it ([`Clock::set_by_client`]), or if it is ahead of this machine's clock, because then
    /// another client probably set it.
    pub fn server_passed(&self, secs: u32) {
        let wall = secs_of(self.wall());
        if secs > wall || secs <= self.server_floor() || self.2.set_by_client.lock().contains(&secs) {
            return;
        }
        *self.2.stamp.lock() = Some((secs, self.now()));
    }

    /// Notes the time of the platform's API (seconds since the epoch), from an answer that was received at `heard`. The
    /// clocks of the platform's machines differ by at most `AGREE_SECS`.
    pub fn platform_time(&self, secs: u32, heard: Instant) {
        let secs = secs.saturating_sub(AGREE_SECS);
        let since = self.now().saturating_duration_since(heard).as_secs();
        if secs.saturating_add(u32::try_from(since).unwrap_or(u32::MAX)) > self.server_floor() {
            *self.2.stamp.lock() = Some((secs, heard));
        }
    }

    /// Notes that this mount set the time (seconds since the epoch) on an object, so that it does not tell the server's
    /// clock.
    pub fn set_by_client(&self, secs: u32) {
        let mut set = self.2.set_by_client.lock();
        set.insert(secs);
        while set.len() > MAX_SET_BY_CLIENT {
            set.pop_first();
        }
    }

    /// A lower bound of the server's clock (seconds since the epoch): the latest time that it is known to have passed,
    /// plus the time since then. Without one it is this machine's clock, less the error of up to [`MAX_SKEW_SECS`].
    pub fn server_floor(&self) -> u32 {
        let stamped = self.2.stamp.lock().map_or(0, |(secs, at)| {
            let since = self.now().saturating_duration_since(at).as_secs();
            secs.saturating_add(u32::try_from(since).unwrap_or(u32::MAX))
        });
        stamped.max(secs_of(self.wall()).saturating_sub(MAX_SKEW_SECS))
    }

    /// Whether the lower bound is so far behind this machine's clock that a better one is worth a request.
    pub fn is_server_unknown(&self) -> bool {
        self.server_floor().saturating_add(UNKNOWN_SECS) < secs_of(self.wall())
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
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        let expiry = clock.expiry(Duration::from_secs(30));
        clock.advance(Duration::from_secs(29));
        assert_eq!(expiry.remaining(&clock), Duration::from_secs(1));
        assert!(!expiry.is_over(&clock));
        clock.advance(Duration::from_secs(1));
        assert!(expiry.is_over(&clock));
    }

    #[test]
    fn the_servers_clock_runs_on_from_the_last_known_time() {
        let clock = Clock::manual();
        let wall = secs_of(clock.wall());
        assert_eq!(clock.server_floor(), wall - MAX_SKEW_SECS);
        assert!(clock.is_server_unknown());
        clock.server_passed(wall - 100);
        assert_eq!(clock.server_floor(), wall - 100);
        clock.set_by_client(wall - 50);
        clock.server_passed(wall - 50);
        clock.server_passed(wall + 50);
        assert_eq!(clock.server_floor(), wall - 100, "set by this mount; ahead of this machine");
        clock.advance(Duration::from_secs(30));
        assert_eq!(clock.server_floor(), wall - 70);
        clock.server_passed(wall - 90);
        assert_eq!(clock.server_floor(), wall - 70, "older than what is known");
    }
}
