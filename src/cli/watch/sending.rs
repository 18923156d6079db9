//! How far the sending of changes has come, and how fast it is, from the figures of one status after the other.

use std::time::Instant;

use serde_json::Value;

/// Weight of the newest speed in the speed that is shown.
const NEWEST: f64 = 0.4;

/// Figures of a status.
#[derive(Clone, Copy)]
struct Figures {
    at: Instant,
    sent_files: u64,
    sent_bytes: u64,
    waiting: u64,
    waiting_bytes: u64,
}

/// See the module header.
#[derive(Default)]
pub(super) struct Sending {
    last: Option<Figures>,
    /// When nothing waited for the last time.
    start: Option<Figures>,
    /// Bytes in a second.
    rate: f64,
}

/// What there is to show.
#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    /// Part of the bytes, or of the changes if they have no content, that was sent: 0 to 1.
    pub(super) done: f64,
    pub(super) waiting: u64,
    pub(super) waiting_bytes: u64,
    /// Bytes in a second.
    pub(super) rate: f64,
}

impl Sending {
    pub(super) fn learn(&mut self, status: &Value, at: Instant) {
        let number = |key: &str| status[key].as_u64().unwrap_or_default();
        let now = Figures {
            at,
            sent_files: number("sent_files"),
            sent_bytes: number("sent_bytes"),
            waiting: number("waiting"),
            waiting_bytes: number("waiting_bytes"),
        };
        if let Some(last) = self.last {
            let (secs, bytes) =
                (at.duration_since(last.at).as_secs_f64(), now.sent_bytes - last.sent_bytes.min(now.sent_bytes));
            if secs > 0.0 {
                self.rate = self.rate * (1.0 - NEWEST) + NEWEST * bytes as f64 / secs;
            }
        }
        if now.waiting == 0 {
            (self.start, self.rate) = (None, 0.0);
        } else if self.start.is_none() {
            // What was sent since the status before is a part of this.
            self.start = Some(self.last.unwrap_or(now));
        }
        self.last = Some(now);
    }

    /// `None`: nothing waits.
    pub(super) fn progress(&self) -> Option<Progress> {
        let now = self.last.filter(|now| now.waiting > 0)?;
        let start = self.start.unwrap_or(now);
        let sent = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let part = |done: f64, left: u64| if left == 0 { 1.0 } else { done / (done + left as f64) };
        let done = match now.waiting_bytes {
            0 => part(sent(now.sent_files, start.sent_files), now.waiting),
            left => part(sent(now.sent_bytes, start.sent_bytes), left),
        };
        Some(Progress { done, waiting: now.waiting, waiting_bytes: now.waiting_bytes, rate: self.rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn the_part_that_was_sent_counts_from_when_nothing_waited() {
        let start = Instant::now();
        let mut sending = Sending::default();
        let mut learn = |secs: u64, sent: u64, waiting: u64, bytes: u64| {
            let status = json!({
                "sent_files": sent, "sent_bytes": sent * 1000, "waiting": waiting, "waiting_bytes": bytes,
            });
            sending.learn(&status, start + Duration::from_secs(secs));
            sending.progress()
        };
        assert_eq!(learn(0, 5, 0, 0), None);
        let half = learn(1, 7, 2, 2000).expect("something waits");
        assert!((half.done - 0.5).abs() < 1e-9 && half.waiting == 2 && half.waiting_bytes == 2000);
        assert!((half.rate - 800.0).abs() < 1e-9, "{}", half.rate);
        let more = learn(2, 8, 1, 1000).expect("something waits");
        assert!((more.done - 0.75).abs() < 1e-9);
        assert_eq!(learn(3, 9, 0, 0), None);
        // A new mount at the same place counts from 0.
        let again = learn(4, 0, 4, 0).expect("something waits");
        assert!(again.done == 0.0 && again.rate == 0.0);
    }
}
