//! When the API is asked. A mount in use asks for its environment three times a minute and for the site's jobs once, which
//! is the longest answer (about 400 kB); one that nobody uses asks every five minutes. Jobs that hold writes are asked for
//! one by one until they end.

use std::time::{Duration, Instant};

/// Between questions for the environment while the mount is in use, and while it is not.
const ENVIRONMENT: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(300)];
/// Between questions for the jobs of the site, likewise.
pub(super) const JOBS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(900)];
/// How much later a mount asks that learns from another one, so that the two do not ask at the same time.
const STAGGER: Duration = Duration::from_secs(2);
/// Between questions for jobs that hold writes.
const HELD: Duration = Duration::from_secs(3);

/// How a mount is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) in_use: bool,
    /// A job on the platform holds writes.
    pub(super) held: bool,
}

/// What is to be asked for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) environment: bool,
    pub(super) jobs: bool,
    /// The jobs that hold writes, one by one.
    pub(super) held: bool,
}

/// When each question was asked last; see the module header.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    environment: Option<Instant>,
    jobs: Option<Instant>,
    held: Option<Instant>,
}

impl Pace {
    /// Takes note that these questions are asked now.
    pub(super) fn asked(&mut self, due: Due, now: Instant) {
        for (asked, last) in
            [(due.environment, &mut self.environment), (due.jobs, &mut self.jobs), (due.held, &mut self.held)]
        {
            if asked {
                *last = Some(now);
            }
        }
    }

    /// Takes note that another process of the user asked for the environment, so long ago. That process is due first next
    /// time, too.
    pub(super) fn told(&mut self, now: Instant, age: Duration) {
        self.environment = now.checked_sub(age).map(|asked| asked + STAGGER);
    }

    /// How old the environment that another process knows may be, to be used in place of a question.
    pub(super) fn max_age(usage: Usage) -> Duration {
        ENVIRONMENT[usize::from(!usage.in_use)]
    }

    pub(super) fn due(&self, usage: Usage, now: Instant) -> Due {
        let [environment, jobs, held] = self.waits(usage, now);
        Due { environment: environment.is_zero(), jobs: jobs.is_zero(), held: usage.held && held.is_zero() }
    }

    /// Until the next question.
    pub(super) fn wait(&self, usage: Usage, now: Instant) -> Duration {
        let [environment, jobs, held] = self.waits(usage, now);
        let next = environment.min(jobs);
        if usage.held { next.min(held) } else { next }
    }

    fn waits(&self, usage: Usage, now: Instant) -> [Duration; 3] {
        let row = usize::from(!usage.in_use);
        let left = |last: Option<Instant>, pause: Duration| {
            last.map_or(Duration::ZERO, |last| (last + pause).saturating_duration_since(now))
        };
        [left(self.environment, ENVIRONMENT[row]), left(self.jobs, JOBS[row]), left(self.held, HELD)]
    }
}

/// How many questions callers may cause beyond that: some at once after a pause, then one every 15 s.
#[derive(Debug)]
pub(super) struct Budget {
    left: f64,
    since: Instant,
}

/// Questions that may follow each other at once.
const AT_ONCE: f64 = 6.0;
/// Seconds after which one more is permitted.
const REFILL_SECS: f64 = 15.0;

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now }
    }

    /// Takes one question, if there is one left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let grown = now.saturating_duration_since(self.since).as_secs_f64() / REFILL_SECS;
        (self.left, self.since) = ((self.left + grown).min(AT_ONCE), now);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an answer: an environment, and the list of jobs of a site.
    const BYTES: [u64; 2] = [4_000, 400_000];

    /// The calls of an hour, minute by minute, and their bytes. `save`: seconds between saves that ask for the mode.
    fn hour(usage: Usage, save: Option<u64>) -> (Vec<u64>, u64) {
        let start = Instant::now();
        let (mut pace, mut budget) = (Pace::default(), Budget::new(start));
        let (mut minutes, mut bytes) = (vec![0; 60], 0);
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            let mut due = pace.due(usage, now);
            due.environment |= save.is_some_and(|every| second % every == 0) && budget.take(now);
            pace.asked(due, now);
            let calls = [due.environment, due.jobs].map(u64::from);
            minutes[usize::try_from(second / 60).expect("small")] += calls[0] + calls[1];
            bytes += calls[0] * BYTES[0] + calls[1] * BYTES[1];
        }
        (minutes, bytes)
    }

    #[test]
    fn an_hour_of_a_mount_is_few_calls() {
        let used = Usage { in_use: true, held: false };
        let (minutes, bytes) = hour(used, None);
        assert!(minutes.iter().all(|calls| *calls <= 4), "{minutes:?}");
        assert!(bytes <= 25_000_000, "{bytes}");
        let (minutes, bytes) = hour(Usage { in_use: false, held: false }, None);
        assert!(minutes.iter().sum::<u64>() <= 16 && bytes <= 2_000_000, "{minutes:?}, {bytes} bytes");
        // Somebody saves every 5 s for an hour.
        let (minutes, _) = hour(used, Some(5));
        assert!(minutes.iter().skip(2).all(|calls| *calls <= 6), "{minutes:?}");
    }

    #[test]
    fn who_learns_from_another_mount_is_due_after_it() {
        let start = Instant::now();
        let usage = Usage { in_use: true, held: false };
        let (mut asking, mut learning) = (Pace::default(), Pace::default());
        asking.asked(Due { environment: true, jobs: true, held: false }, start);
        let later = start + Duration::from_secs(9);
        learning.asked(Due { jobs: true, ..Due::default() }, later);
        learning.told(later, Duration::from_secs(9));
        assert!(asking.wait(usage, later) + STAGGER == learning.wait(usage, later));
        assert_eq!(Pace::max_age(usage), ENVIRONMENT[0]);
    }

    #[test]
    fn jobs_that_hold_writes_are_asked_for_often_and_only_they() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let usage = Usage { in_use: true, held: true };
        pace.asked(pace.due(usage, start), start);
        let later = start + HELD;
        assert_eq!(pace.wait(usage, start), HELD);
        assert_eq!(pace.due(usage, later), Due { held: true, ..Due::default() });
        assert_eq!(pace.due(Usage { held: false, ..usage }, later), Due::default());
    }

    #[test]
    fn questions_of_callers_run_out_and_come_back() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..20).filter(|_| budget.take(start)).count(), 6);
        assert!(budget.take(start + Duration::from_secs(16)));
        assert!(!budget.take(start + Duration::from_secs(17)));
    }
}
