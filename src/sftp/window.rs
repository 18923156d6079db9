//! How much may be under way at once. Both windows grow while latency stays flat and shrink when answers begin to queue:
//! more in flight than the link holds gives no throughput, and makes a caller that asks for one small thing wait (measured: 84 ms
//! with 1 MB in flight, 671 ms with 8 MB, same throughput).

use std::time::{Duration, Instant};

/// Requests in flight: never fewer, never more. Those without file bytes are small (512 of them are about 50 KB), and what
/// they wait for is mostly the server's processor: fewer only make a walk slower (20,000 files listed over 50 ms: 2.4 s with
/// a window that shrank to 64, 2.0 s with this). A reader that writes in between needs about 1,600: with 1,024 `cp -r` of those
/// files inside the mount took 27.2 s, with this 22.3 s.
const REQUESTS: (usize, usize) = (512, 2048);
/// File bytes in flight.
const BULK_BYTES: (u64, u64) = (256 * 1024, 64 * 1024 * 1024);
/// Latency below this is noise of the machine, not a queue on the link.
const NOISE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Window {
    requests: usize,
    bulk_bytes: u64,
    /// Shortest answer seen: the round trip without queues.
    shortest: Duration,
    shrunk: Option<Instant>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { requests: REQUESTS.1, bulk_bytes: 1024 * 1024, shortest: Duration::MAX, shrunk: None }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn bulk_bytes(&self) -> u64 {
        self.bulk_bytes
    }

    /// Shortest round trip seen, once there was one.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        (self.shortest != Duration::MAX).then_some(self.shortest)
    }

    /// An answer came after `latency`; it carried `bulk` bytes and the windows were used up when it did.
    pub(super) fn answered(&mut self, latency: Duration, bulk: u64, full: bool) {
        self.shortest = self.shortest.min(latency);
        let queued = latency.saturating_sub(self.shortest);
        // Half a round trip of queue keeps the link busy; the allowance for noise keeps short links from starving.
        let allowed = self.shortest / 2 + NOISE;
        if queued <= allowed {
            if full {
                self.requests = (self.requests + 1).min(REQUESTS.1);
                self.bulk_bytes = (self.bulk_bytes + bulk).min(BULK_BYTES.1);
            }
            return;
        }
        let now = Instant::now();
        if self.shrunk.is_some_and(|at| now.duration_since(at) < latency) {
            return;
        }
        self.shrunk = Some(now);
        if bulk > 0 {
            self.bulk_bytes = (self.bulk_bytes / 4 * 3).max(BULK_BYTES.0);
        } else {
            self.requests = (self.requests / 4 * 3).max(REQUESTS.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_latency_grows_the_windows_and_queues_shrink_them() {
        let mut window = Window::new();
        let rtt = Duration::from_millis(50);
        for _ in 0..3000 {
            window.answered(rtt, 32 * 1024, true);
        }
        assert_eq!((window.requests(), window.bulk_bytes()), (REQUESTS.1, BULK_BYTES.1));
        window.answered(rtt * 10, 32 * 1024, true);
        assert!(window.bulk_bytes() < BULK_BYTES.1);
        let before = window.bulk_bytes();
        window.answered(rtt * 10, 32 * 1024, true);
        assert_eq!(window.bulk_bytes(), before, "once per round trip");
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = Window::new();
        let before = window.requests();
        window.answered(Duration::from_millis(1), 0, false);
        assert_eq!(window.requests(), before);
    }
}
