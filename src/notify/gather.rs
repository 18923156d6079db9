//! Many events become few notices: events of a kind are put together until it has been quiet for a moment, and a kind that was
//! told lately waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::event::{Event, Kind};
use super::text::{Group, MAX_NAMED};

/// How long it must be quiet before a notice.
const QUIET: Duration = Duration::from_secs(2);
/// How long events are gathered at most.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two notices of a kind.
const PAUSE: Duration = Duration::from_secs(30);

/// Events of a kind that were not told yet.
struct Waiting {
    group: Group,
    first: Instant,
    last: Instant,
}

/// See the module header.
#[derive(Default)]
pub(super) struct Gathered {
    waiting: BTreeMap<Kind, Waiting>,
    told: BTreeMap<Kind, Instant>,
}

impl Gathered {
    pub(super) fn add(&mut self, event: Event, now: Instant) {
        let waiting = self.waiting.entry(event.kind()).or_insert_with(|| Waiting {
            group: Group { count: 0, newest: event.clone(), lines: Vec::new() },
            first: now,
            last: now,
        });
        waiting.group.count += 1;
        waiting.last = now;
        if let Event::Conflict(line) | Event::Stranded(line) = &event
            && waiting.group.lines.len() < MAX_NAMED
        {
            waiting.group.lines.push(line.clone());
        }
        waiting.group.newest = event;
    }

    /// Counts events of this kind that could not be passed on one by one.
    pub(super) fn add_uncounted(&mut self, kind: Kind, count: u64) {
        // Without one that was passed on there is nothing to say.
        if let Some(waiting) = self.waiting.get_mut(&kind) {
            waiting.group.count += count;
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.waiting.contains_key(&kind)
    }

    /// Takes the groups that are to be told now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Group> {
        let due: Vec<Kind> =
            self.waiting.iter().filter(|(kind, _)| self.at(**kind) <= now).map(|(kind, _)| *kind).collect();
        due.into_iter()
            .filter_map(|kind| {
                self.told.insert(kind, now);
                self.waiting.remove(&kind).map(|waiting| waiting.group)
            })
            .collect()
    }

    /// Until something is to be told.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.waiting.keys().map(|kind| self.at(*kind).saturating_duration_since(now)).min()
    }

    /// When what waits of this kind is to be told.
    fn at(&self, kind: Kind) -> Instant {
        let Some(waiting) = self.waiting.get(&kind) else { return Instant::now() + PAUSE };
        let quiet = (waiting.last + QUIET).min(waiting.first + LONGEST);
        self.told.get(&kind).map_or(quiet, |told| quiet.max(*told + PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_hundred_conflicts_are_one_notice() {
        let (mut gathered, start) = (Gathered::default(), Instant::now());
        for number in 0..300 {
            gathered.add(Event::Conflict(number.to_string()), start + Duration::from_millis(number));
        }
        gathered.add(Event::Stranded("x".into()), start);
        assert!(gathered.take(start + Duration::from_secs(1)).is_empty());
        let told = gathered.take(start + Duration::from_secs(5));
        assert_eq!(told.iter().map(|group| group.count).collect::<Vec<_>>(), [300, 1]);
        assert_eq!(told[0].lines, ["0", "1", "2"]);
        assert!(gathered.take(start + Duration::from_secs(60)).is_empty() && gathered.wait(start).is_none());
    }

    #[test]
    fn events_that_do_not_end_are_told_after_a_while_and_then_seldom() {
        let (mut gathered, start) = (Gathered::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut told = Vec::new();
        for second in 0..100 {
            gathered.add(Event::Conflict("x".into()), at(second));
            told.extend(gathered.take(at(second)).iter().map(|group| (second, group.count)));
        }
        assert_eq!(told, [(10, 11), (40, 30), (70, 30)]);
    }

    #[test]
    fn what_did_not_fit_is_counted() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        gathered.add_uncounted(Kind::Conflict, 5);
        gathered.add(Event::Conflict("x".into()), now);
        gathered.add_uncounted(Kind::Conflict, 5);
        assert!(gathered.has(Kind::Conflict) && !gathered.has(Kind::Login));
        assert_eq!(gathered.take(now + QUIET)[0].count, 6);
    }
}
