//! How old an answer about an object may be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::used::Used;
use crate::admit::Admission;
use crate::clock::Clock;
use crate::inode::{Ino, Table};

/// How old an answer to `open` may be. Shorter than for names, because `open` decides which bytes are shown.
pub const OPEN_FRESH: Duration = Duration::from_secs(5);
/// Validity of frozen code (Git mode, Test, Live), which only a new commit changes; a new commit is noticed
/// separately.
pub const FROZEN_FRESH: Duration = Duration::from_secs(3600);

/// Computes how long answers are valid, from the mount's options and the environment. Cheap to clone.
#[derive(Clone)]
pub(super) struct Freshness {
    pub(super) table: Arc<Table>,
    pub(super) admission: Admission,
    pub(super) clock: Clock,
    /// `-o fresh=`: the validity of names and attributes.
    pub(super) names: Duration,
    pub(super) used: Arc<Used>,
}

impl Freshness {
    /// How long answers about this object are valid. A file whose bytes were read may be open in an editor, which
    /// checks the attributes before it saves: they are as fresh as at `open`.
    pub(super) fn bound(&self, ino: Ino) -> Duration {
        match self.table.area(ino) {
            Some(area) if self.admission.is_frozen(area) => FROZEN_FRESH,
            _ if self.table.was_read(ino) => self.names.min(OPEN_FRESH),
            _ => self.names,
        }
    }

    /// The rest of the validity: the kernel's own timeout never extends it.
    pub(super) fn remaining(&self, ino: Ino, seen: Option<Instant>) -> Duration {
        let Some(seen) = seen else { return Duration::ZERO };
        self.bound(ino).saturating_sub(self.clock.now().saturating_duration_since(seen))
    }

    pub(super) fn is_recent(&self, seen: Option<Instant>, bound: Duration) -> bool {
        seen.is_some_and(|seen| self.clock.now().saturating_duration_since(seen) <= bound)
    }

    /// Whether a directory was never listed by this mount, or so long ago that a caller would have to wait for a new
    /// listing.
    pub(super) fn is_due(&self, dir: Ino) -> bool {
        !self.is_recent(self.table.listed(dir), self.bound(dir))
    }
}
