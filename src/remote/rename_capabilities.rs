//! What the server was seen to do or refuse when files are moved, per area and separately for directories. Learned by the
//! calls, kept over sessions. A refusal may have been a busy moment or a quota: it takes several in a row to count, and the
//! server is asked again later.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::attr::Area;

/// Refusals in a row after which a feature counts as not offered.
const MAX_REFUSALS: u32 = 3;
/// How long it counts so.
const REFUSED_FOR: Duration = Duration::from_secs(600);

/// See the module header.
#[derive(Default)]
pub(super) struct RenameCapabilities {
    renames: Mutex<HashMap<(Area, bool), Seen>>,
    temp: Mutex<Seen>,
}

#[derive(Default, Clone, Copy)]
struct Seen {
    worked: bool,
    refusals: u32,
    refused_at: Option<Instant>,
}

impl Seen {
    fn is_offered(self) -> bool {
        self.refusals < MAX_REFUSALS || self.refused_at.is_none_or(|at| at.elapsed() > REFUSED_FOR)
    }

    fn worked(&mut self) {
        *self = Self { worked: true, ..Self::default() };
    }

    fn refused(&mut self) {
        (self.refusals, self.refused_at) = (self.refusals.saturating_add(1), Some(Instant::now()));
    }
}

impl RenameCapabilities {
    /// Whether moving was refused the last time it was asked for.
    pub(super) fn last_refused_rename(&self, area: Area, is_dir: bool) -> bool {
        self.renames.lock().get(&(area, is_dir)).is_some_and(|seen| seen.refusals > 0)
    }

    pub(super) fn refuses_rename(&self, area: Area, is_dir: bool) -> bool {
        self.renames.lock().get(&(area, is_dir)).is_some_and(|seen| !seen.is_offered())
    }

    /// Whether renaming has worked here: then a failure without a reason is a passing one.
    pub(super) fn rename_worked_before(&self, area: Area, is_dir: bool) -> bool {
        self.renames.lock().get(&(area, is_dir)).is_some_and(|seen| seen.worked)
    }

    pub(super) fn refused_rename(&self, area: Area, is_dir: bool) {
        self.renames.lock().entry((area, is_dir)).or_default().refused();
    }

    pub(super) fn renamed(&self, area: Area, is_dir: bool) {
        self.renames.lock().entry((area, is_dir)).or_default().worked();
    }

    /// Whether a save may go by a temporary file.
    pub(super) fn temp_works(&self) -> bool {
        self.temp.lock().is_offered()
    }

    /// Whether a temporary file has ever taken a file's place here.
    pub(super) fn temp_worked_before(&self) -> bool {
        self.temp.lock().worked
    }

    pub(super) fn temp_worked(&self) {
        self.temp.lock().worked();
    }

    pub(super) fn temp_failed(&self) {
        self.temp.lock().refused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_counts_as_refused_after_several_refusals_in_a_row() {
        let seen = RenameCapabilities::default();
        (1..MAX_REFUSALS).for_each(|_| seen.temp_failed());
        assert!(seen.temp_works() && !seen.temp_worked_before());
        seen.temp_worked();
        (1..MAX_REFUSALS).for_each(|_| seen.temp_failed());
        assert!(seen.temp_works() && seen.temp_worked_before());
        seen.temp_failed();
        assert!(!seen.temp_works());
    }
}
