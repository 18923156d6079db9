//! Replaced spools: contents that no operation carries any more. They stay until the content that replaced them is on
//! the disk, because a power loss would otherwise leave neither. Content that the server has is not among them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fold::Record;
use super::op::{Action, Op, OpId, Put, SpoolId};
use super::queue::{Changes, Queue};

/// How long they stay if no program requests a sync of the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// Number of replaced spools; beyond it they are released at once.
const MAX_KEPT: usize = 2000;

struct Replaced {
    spool: SpoolId,
    /// The replaced save; `None` if its path was removed and has no new content.
    put: Option<Put>,
    /// The operation that carries the new content.
    by: Option<OpId>,
    since: Instant,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct ReplacedSpools {
    kept: Vec<Replaced>,
    /// Whether a thread is about to release them.
    busy: bool,
}

impl ReplacedSpools {
    /// Called after an addition to the queue.
    pub(super) fn note(&mut self, changes: &Changes, now: Instant) {
        let by = changes.put.last().map(|(id, _)| *id);
        for (gone, _) in &changes.dropped {
            self.kept.iter_mut().filter(|old| old.by == Some(*gone)).for_each(|old| old.by = by);
        }
        let removed = changes.dropped.iter().filter_map(|(_, spool)| Some((spool.as_ref().copied()?, None)));
        let replaced = changes.replaced.iter().map(|put| (put.spool, Some(put.clone())));
        self.kept.extend(removed.chain(replaced).map(|(spool, put)| Replaced { spool, put, by, since: now }));
    }

    /// Adds an older content of an operation of the last mount, whose newest content may not be on the disk yet.
    pub(super) fn note_earlier(&mut self, id: OpId, put: Put, now: Instant) {
        self.kept.push(Replaced { spool: put.spool, put: Some(put), by: Some(id), since: now });
    }

    /// The server has the content of an operation: returns the spools that it replaced.
    pub(super) fn ended(&mut self, id: OpId) -> Vec<SpoolId> {
        self.kept.extract_if(.., |old| old.by == Some(id)).map(|old| old.spool).collect()
    }

    /// The spools that may be released when the journal is on the disk, if the disk has the contents `on_disk`.
    pub(super) fn covered(&self, queue: &Queue, on_disk: &[SpoolId]) -> Vec<SpoolId> {
        let is_covered = |by: OpId| {
            let current = queue.spool_of(by);
            current.is_none_or(|spool| on_disk.contains(&spool))
        };
        self.kept.iter().filter(|old| old.by.is_none_or(is_covered)).map(|old| old.spool).collect()
    }

    /// Removes spools that are being released.
    pub(super) fn remove(&mut self, spools: &[SpoolId]) {
        self.kept.retain(|old| !spools.contains(&old.spool));
    }

    /// Whether it is time to sync the new contents. Returns `true` once, until [`ReplacedSpools::rest`].
    pub(super) fn is_time(&mut self, now: Instant) -> bool {
        let old = self.kept.first().is_some_and(|old| now.duration_since(old.since) > PATIENCE);
        let due = !self.busy && (old || self.kept.len() > MAX_KEPT);
        self.busy |= due;
        due
    }

    pub(super) fn rest(&mut self) {
        self.busy = false;
    }

    /// The contents that replaced them.
    pub(super) fn replacing(&self, queue: &Queue) -> Vec<SpoolId> {
        let mut spools: Vec<SpoolId> = self.kept.iter().filter_map(|old| queue.spool_of(old.by?)).collect();
        spools.sort();
        spools.dedup();
        spools
    }

    /// The records of older contents, for a journal that is rewritten.
    pub(super) fn records(&self, queue: &Queue) -> BTreeMap<OpId, Vec<Record>> {
        let mut out: BTreeMap<OpId, Vec<Record>> = BTreeMap::new();
        for old in &self.kept {
            if let (Some(id), Some(put)) = (old.by, &old.put)
                && let Some(op) = queue.op(id)
            {
                let op = Op { action: Action::Put(put.clone()), ..op.clone() };
                out.entry(id).or_default().push(Record::Op(id, op));
            }
        }
        out
    }
}
