//! What time brings: a link that stays away, work that stays uncommitted, a login that ends soon.

use std::time::{Duration, Instant};

use super::event::Event;

/// A link that is away for so long, with changes that are not sent, is told.
const AWAY: Duration = Duration::from_secs(60);
/// Work of this age that is uncommitted is told, and how often.
const OLD: Duration = Duration::from_secs(86_400);
const DAILY: Duration = Duration::from_secs(86_400);
/// Between two looks at work and login, which change slowly.
const HOURLY: Duration = Duration::from_secs(3600);

/// What is asked of the mount. Each answer costs no round trip.
pub(super) trait State {
    /// How long the link has been down; `None`: it is up.
    fn link_down(&self) -> Option<Duration>;
    /// How many files are not on the server yet.
    fn unsent(&self) -> usize;
    /// The uncommitted changes of this machine, and the age of the oldest.
    fn uncommitted(&self) -> Option<(usize, Duration)>;
    /// A sentence about a login that ends soon.
    fn login(&self) -> Option<String>;
}

/// What was told already.
#[derive(Default)]
pub(super) struct Due {
    /// The present absence of the link was told.
    link: bool,
    looked: Option<Instant>,
    uncommitted: Option<Instant>,
    login: Option<Instant>,
}

impl Due {
    pub(super) fn events(&mut self, state: &impl State, now: Instant) -> Vec<Event> {
        let mut out = Vec::new();
        match state.link_down() {
            None => self.link = false,
            Some(lasting) if lasting >= AWAY && !self.link => {
                let unsent = state.unsent();
                if unsent > 0 {
                    self.link = true;
                    out.push(Event::LinkAway(lasting, unsent));
                }
            }
            Some(_) => {}
        }
        let is_over =
            |last: Option<Instant>, pause: Duration| last.is_none_or(|last| now.duration_since(last) >= pause);
        if !is_over(self.looked, HOURLY) {
            return out;
        }
        self.looked = Some(now);
        if is_over(self.uncommitted, DAILY)
            && let Some((count, age)) = state.uncommitted().filter(|(_, age)| *age >= OLD)
        {
            self.uncommitted = Some(now);
            out.push(Event::Uncommitted(count, age));
        }
        if is_over(self.login, DAILY)
            && let Some(sentence) = state.login()
        {
            self.login = Some(now);
            out.push(Event::Login(sentence));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told {
        down: Option<u64>,
        unsent: usize,
        uncommitted: Option<(usize, u64)>,
        login: Option<String>,
    }

    impl State for Told {
        fn link_down(&self) -> Option<Duration> {
            self.down.map(Duration::from_secs)
        }

        fn unsent(&self) -> usize {
            self.unsent
        }

        fn uncommitted(&self) -> Option<(usize, Duration)> {
            self.uncommitted.map(|(count, hours)| (count, Duration::from_secs(hours * 3600)))
        }

        fn login(&self) -> Option<String> {
            self.login.clone()
        }
    }

    #[test]
    fn a_link_that_stays_away_with_unsent_work_is_told_once() {
        let (mut due, now) = (Due::default(), Instant::now());
        let mut of = |down: Option<u64>, unsent: usize| due.events(&Told { down, unsent, ..Told::default() }, now);
        assert!(of(Some(59), 2).is_empty() && of(Some(61), 0).is_empty());
        assert_eq!(of(Some(75), 2), [Event::LinkAway(Duration::from_secs(75), 2)]);
        assert!(of(Some(90), 3).is_empty() && of(None, 3).is_empty());
        assert_eq!(of(Some(61), 1).len(), 1);
    }

    #[test]
    fn old_work_and_a_login_that_ends_are_told_once_a_day() {
        let (mut due, start) = (Due::default(), Instant::now());
        let state = Told { uncommitted: Some((3, 25)), login: Some("soon".into()), ..Told::default() };
        let mut at = |hours: u64| due.events(&state, start + Duration::from_secs(hours * 3600)).len();
        assert_eq!([at(0), at(1), at(23), at(24), at(25), at(49)], [2, 0, 0, 2, 0, 2]);
        let young = Told { uncommitted: Some((3, 23)), ..Told::default() };
        assert!(Due::default().events(&young, start).is_empty());
    }
}
