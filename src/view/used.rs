//! When directories were used last, by which it is decided what is renewed, and how much the server sent lately.

use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::inode::Ino;

/// How long after its last use a mount looks for changes of others.
pub(super) const IN_USE: Duration = Duration::from_secs(600);
/// Directories count as used lately for so long, and how many of them.
const LATELY: Duration = Duration::from_secs(300);
const MAX_DIRS: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// See the file header.
#[derive(Default)]
pub(super) struct Used {
    thread: OnceLock<Thread>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Option<Instant>,
    dirs: HashMap<Ino, Instant>,
    /// Bytes received in all, at times of the last minute.
    received: VecDeque<(Instant, u64)>,
}

impl Used {
    /// Sets the thread that is woken when the mount is used again.
    pub(super) fn wakes(&self, thread: &Thread) {
        // There is one; it is set once.
        let _ = self.thread.set(thread.clone());
    }

    /// A caller used the directory.
    pub(super) fn used(&self, dir: Ino) {
        let now = Instant::now();
        let was_idle = {
            let mut state = self.state.lock();
            let was_idle = !state.is_in_use(now);
            state.used = Some(now);
            if state.dirs.len() >= 2 * MAX_DIRS && !state.dirs.contains_key(&dir) {
                state.forget_old(now, MAX_DIRS - 1);
            }
            state.dirs.insert(dir, now);
            was_idle
        };
        if was_idle && let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The directories that were used lately; `None`: the mount is not used. `received`: bytes so far.
    pub(super) fn lately(&self, now: Instant, received: u64) -> Option<Vec<Ino>> {
        let mut state = self.state.lock();
        if !state.is_in_use(now) {
            state.received.clear();
            return None;
        }
        state.received.retain(|(at, _)| now.duration_since(*at) <= MINUTE);
        state.received.push_back((now, received));
        state.forget_old(now, MAX_DIRS);
        Some(state.dirs.keys().copied().collect())
    }

    /// How many bytes of these were received within the last minute, as far as the mount was used then.
    pub(super) fn received_in_a_minute(&self, received: u64) -> u64 {
        let state = self.state.lock();
        let first = state.received.iter().find(|(at, _)| at.elapsed() <= MINUTE);
        first.map_or(0, |(_, before)| received.saturating_sub(*before))
    }
}

impl State {
    fn is_in_use(&self, now: Instant) -> bool {
        self.used.is_some_and(|at| now.duration_since(at) <= IN_USE)
    }

    /// Keeps the `most` directories that were used last, and none that was used long ago.
    fn forget_old(&mut self, now: Instant, most: usize) {
        self.dirs.retain(|_, at| now.duration_since(*at) <= LATELY);
        let mut times: Vec<Instant> = self.dirs.values().copied().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(oldest) = times.get(most) {
            self.dirs.retain(|_, at| *at > *oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_that_were_used_last_are_kept() {
        let used = Used::default();
        for number in 0..1000 {
            used.used(Ino(number));
        }
        let mut state = used.state.lock();
        assert!(state.dirs.len() <= 2 * MAX_DIRS && state.dirs.contains_key(&Ino(999)));
        let now = Instant::now();
        state.forget_old(now, 1);
        assert!(state.dirs.len() <= 1);
        assert!(state.is_in_use(now) && !state.is_in_use(now + IN_USE + Duration::from_secs(1)));
        state.dirs.insert(Ino(1), now);
        state.forget_old(now + LATELY + Duration::from_secs(1), MAX_DIRS);
        assert!(state.dirs.is_empty());
    }
}
