//! Counts round trips instead of requests: how often the client waited for an answer before its next request.
//!
//! A request belongs to a later round than every answer that the client had when it sent the request. With a simulated
//! round trip of R, an answer sent at S reaches the client at S + R/2, and the request that follows it arrives at S + R. A
//! request that arrives earlier was sent before the answer was there.

use std::time::{Duration, Instant};

/// Counts round trips. Meaningful only while a latency is simulated.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// Times of the answers, each with the latest round answered until then.
    answered: Vec<(Instant, u32)>,
    deepest: u32,
    requests: u64,
}

impl RoundTrips {
    /// Counts a request that came in and returns its round.
    pub(super) fn asked(&mut self, rtt: Duration) -> u32 {
        self.requests += 1;
        // A tenth less, because the delay line may be early by a tick of its clock.
        let with_client = Instant::now().checked_sub(rtt * 9 / 10);
        let before = self.answered.partition_point(|(at, _)| Some(*at) <= with_client);
        let round = 1 + before.checked_sub(1).map_or(0, |i| self.answered[i].1);
        self.deepest = self.deepest.max(round);
        round
    }

    /// Notes that an answer to a request of `round` goes out.
    pub(super) fn answered(&mut self, round: u32) {
        let deepest = self.answered.last().map_or(0, |(_, round)| *round).max(round);
        self.answered.push((Instant::now(), deepest));
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn deepest(&self) -> u32 {
        self.deepest
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_sent_together_count_as_one_round_trip() {
        let rtt = Duration::from_millis(40);
        let mut rounds = RoundTrips::default();
        for _ in 0..10 {
            let round = rounds.asked(rtt);
            rounds.answered(round);
        }
        assert_eq!((rounds.deepest(), rounds.requests()), (1, 10));
        std::thread::sleep(rtt);
        let round = rounds.asked(rtt);
        rounds.answered(round);
        assert_eq!(rounds.deepest(), 2);
    }
}
