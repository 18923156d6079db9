//! When an answer is overdue. Over a slow link a request waits behind those that were sent before it: while they are being
//! answered, its time has not come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers that came this close together are one entry.
const SPAN: Duration = Duration::from_millis(50);

/// What was answered within the time limit.
#[derive(Debug)]
pub(super) struct LateAnswers {
    limit: Duration,
    /// When answers came, and when the oldest of their requests was sent.
    answers: VecDeque<(Instant, Instant)>,
}

impl LateAnswers {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, answers: VecDeque::new() }
    }

    /// A request that was sent then is answered now.
    pub(super) fn answered(&mut self, now: Instant, sent: Instant) {
        self.forget(now);
        match self.answers.back_mut() {
            Some((began, oldest)) if now.duration_since(*began) < SPAN => *oldest = sent.min(*oldest),
            _ => self.answers.push_back((now, sent)),
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.answers.front().is_some_and(|(came, _)| now.duration_since(*came) > self.limit + SPAN) {
            self.answers.pop_front();
        }
    }

    /// Requests sent before this are overdue, if there is no answer yet.
    pub(super) fn before(&mut self, now: Instant) -> Option<Instant> {
        self.forget(now);
        let limit = now.checked_sub(self.limit)?;
        Some(self.answers.iter().map(|(_, oldest)| *oldest).fold(limit, Instant::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_behind_others_is_not_late_while_they_are_answered() {
        let begin = Instant::now() + Duration::from_secs(60);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut overdue = LateAnswers::new(Duration::from_secs(3));
        let mut is_late = |sent: u64, now: u64| overdue.before(at(now)).is_some_and(|before| at(sent) < before);
        assert!(!is_late(0, 3) && is_late(0, 4));
        // One that was sent at 1 is answered at 6 only: the one that was sent at 2 has time until 9.
        overdue.answered(at(6), at(1));
        let mut is_late = |sent: u64, now: u64| overdue.before(at(now)).is_some_and(|before| at(sent) < before);
        assert!(is_late(0, 6) && !is_late(2, 9) && is_late(2, 10));
        // Answers to later ones do not help it.
        overdue.answered(at(11), at(8));
        let mut is_late = |sent: u64, now: u64| overdue.before(at(now)).is_some_and(|before| at(sent) < before);
        assert!(is_late(2, 12) && !is_late(9, 13));
    }
}
