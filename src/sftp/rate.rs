//! How fast file bytes travel, while there is always something under way: what the link, or the ends of it, can do.

use std::time::{Duration, Instant};

/// What is measured at a time: long enough for the buffers of the link to be emptied many times.
const SPAN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When this span began, and bytes since.
    span: Option<(Instant, u64)>,
    best: u64,
}

impl Rate {
    /// `bytes` of files arrived at either end; whether `more` are under way. Gives the rate (bytes/s) of a span that was the best by
    /// a tenth.
    pub(super) fn moved(&mut self, now: Instant, bytes: u64, more: bool) -> Option<u64> {
        if !more {
            // A pause follows, which says nothing about the link.
            self.span = None;
            return None;
        }
        let (began, before) = *self.span.get_or_insert((now, 0));
        // The first answer of a span ended something that began before it.
        let moved = if began == now { before } else { before + bytes };
        self.span = Some((began, moved));
        let took = now.duration_since(began);
        if took < SPAN {
            return None;
        }
        self.span = None;
        let rate = (moved as f64 / took.as_secs_f64()) as u64;
        if rate <= self.best + self.best / 10 {
            return None;
        }
        self.best = rate;
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_second_without_a_pause_counts() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        assert_eq!(rate.moved(at(0), 500, true), None);
        assert_eq!(rate.moved(at(500), 1000, true), None);
        assert_eq!(rate.moved(at(1000), 1000, true), Some(2000));
        // Slower, or hardly faster: nothing to say.
        assert_eq!(rate.moved(at(1100), 1, true), None);
        assert_eq!(rate.moved(at(2100), 2100, true), None);
        // With a pause: begun anew.
        assert_eq!(rate.moved(at(2200), 1, true), None);
        assert_eq!(rate.moved(at(2300), 9000, false), None);
        assert_eq!(rate.moved(at(9000), 1, true), None);
        assert_eq!(rate.moved(at(9900), 4500, true), None);
        assert_eq!(rate.moved(at(10000), 4500, true), Some(9000));
    }
}
