//! Finds what other writers change while the mount is used, without a caller that asks: directories that were used lately
//! are listed every few seconds, and the whole known tree less often. A mount that nobody uses is silent, and so is code
//! that cannot change.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::freshness::FROZEN_FRESH;
use super::state::{Inner, View};
use super::used::IN_USE;
use crate::inode::ROOT;
use crate::remote::Class;

/// Age of the listing of a directory that was used lately at which it is renewed.
const NEAR: Duration = Duration::from_secs(6);
/// Between two renewals of the whole tree.
const WHOLE: Duration = Duration::from_secs(45);
/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);

impl View {
    /// Starts to look for changes of other writers while the mount is used.
    pub fn follow_others(&self) {
        let weak = Arc::downgrade(&self.0);
        match std::thread::Builder::new().name("renewal".into()).spawn(move || run(&weak)) {
            Ok(thread) => self.0.freshness.used.wakes(thread.thread()),
            Err(error) => log::warn!("changes of others are seen when something is looked at: {error}"),
        }
    }

    /// Bytes that the server sent within the last minute, as far as the mount was used then.
    pub fn received_in_a_minute(&self) -> u64 {
        let received = self.0.remote.received_bytes().unwrap_or_default();
        self.0.freshness.used.received_in_a_minute(received)
    }

    /// Renews what is due. Returns `false` if the mount is not used.
    fn renew_due(&self, whole: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        let received = self.0.remote.received_bytes().unwrap_or_default();
        let Some(near) = self.0.freshness.used.lately(now, received) else { return false };
        if self.is_offline() {
            return true;
        }
        for dir in near {
            let bound = self.freshness(dir);
            // Who wants older answers than usual wants less traffic.
            let age = NEAR.max(bound / 5);
            if bound != FROZEN_FRESH && self.listed(dir).is_some() && !self.is_listed_within(dir, age) {
                self.0.listings.try_start(dir, Class::Background, |_| {});
            }
        }
        // Without a time everything was marked as outdated: the environment runs another commit.
        let outdated = self.0.table.is_complete(ROOT) && self.listed(ROOT).is_none();
        let due = whole.is_none_or(|at| now.duration_since(at) >= WHOLE.max(self.freshness(ROOT)));
        if outdated || due {
            *whole = Some(now);
            if self.0.freshness.is_due(ROOT) {
                self.0.listings.try_start(ROOT, Class::Background, |_| {});
            }
            self.0.ahead.renew_below(ROOT);
        }
        true
    }
}

fn run(weak: &Weak<Inner>) {
    let mut whole = Some(Instant::now());
    loop {
        let used = match weak.upgrade().map(View) {
            Some(view) if !view.is_closing() => view.renew_due(&mut whole),
            _ => return,
        };
        if used {
            std::thread::sleep(TICK);
        } else {
            // The end of the mount is seen at the next wake-up.
            std::thread::park_timeout(IN_USE);
        }
    }
}
