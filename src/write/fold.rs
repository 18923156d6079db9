//! Folds the records of a journal into the operations that are still to be applied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::op::{Action, Expected, Op, OpId, Put, SpoolId};
use crate::attr::Version;
use crate::path::RemotePath;

/// A record of the journal; see the documentation of `journal`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Op(OpId, Op),
    Gone(OpId),
    Done(OpId, Expected),
    /// The first name of this record, which files on disk still have.
    #[serde(rename = "litter")]
    LocalOnly(SpoolId, RemotePath, u16),
    Swept(SpoolId),
    Shown(RemotePath, Version, Sums),
    All(Vec<Record>),
}

/// CRC-32 of blocks of a content that callers were shown, by index, in ascending order.
pub(super) type Sums = Vec<(u64, u32)>;

/// Local-only files: their paths and permission bits.
pub(super) type LocalOnly = BTreeMap<SpoolId, (RemotePath, u16)>;

/// The operations that remain of all records.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) ops: BTreeMap<OpId, Op>,
    /// Older contents of each operation, oldest first. They are used if the newest did not reach the disk before a
    /// power loss.
    pub(super) earlier: BTreeMap<OpId, Vec<Put>>,
    pub(super) local_only: LocalOnly,
    /// Checksums of the contents that changes are based on, where the version alone does not tell them from others.
    pub(super) shown: BTreeMap<RemotePath, (Version, Sums)>,
}

pub(super) fn fold(records: Vec<Record>) -> Folded {
    let mut folded = Folded::default();
    let mut records: Vec<Record> = records.into_iter().rev().collect();
    while let Some(record) = records.pop() {
        match record {
            Record::All(together) => records.extend(together.into_iter().rev()),
            Record::Op(id, op) => folded.put(id, op),
            Record::Gone(id) => folded.take(id),
            Record::LocalOnly(id, path, perm) => drop(folded.local_only.insert(id, (path, perm))),
            Record::Swept(id) => drop(folded.local_only.remove(&id)),
            Record::Shown(path, version, sums) => drop(folded.shown.insert(path, (version, sums))),
            Record::Done(id, left) => {
                if folded.ops.contains_key(&id) {
                    folded.take(id);
                    folded.ops.values_mut().for_each(|op| op.resolve_base(id, left));
                }
            }
        }
    }
    folded.forget_unneeded();
    folded
}

impl Folded {
    /// Forgets the checksums of versions that no operation expects any more.
    fn forget_unneeded(&mut self) {
        let mut shown = std::mem::take(&mut self.shown);
        let expected = self.ops.values_mut().flat_map(Op::expectations);
        let needed = expected.filter_map(|(path, expected)| {
            shown.remove_entry(&path).filter(|(_, (version, _))| expected.version() == Some(*version))
        });
        self.shown = needed.collect();
    }

    fn take(&mut self, id: OpId) {
        self.ops.remove(&id);
        self.earlier.remove(&id);
    }

    fn put(&mut self, id: OpId, op: Op) {
        if let Action::Put(new) = &op.action {
            self.local_only.remove(&new.spool);
            let same =
                |(other, older): (&OpId, &Op)| (*other != id && older.spool() == Some(new.spool)).then_some(*other);
            // Operations that were folded into this one.
            for other in self.ops.iter().filter_map(same).collect::<Vec<_>>() {
                self.ops.remove(&other);
                let moved = self.earlier.remove(&other).unwrap_or_default();
                let now = self.earlier.entry(id).or_default();
                now.splice(0..0, moved);
            }
            if let Some(Op { action: Action::Put(old), .. }) = self.ops.get(&id)
                && old.spool != new.spool
            {
                self.earlier.entry(id).or_default().push(old.clone());
            }
        }
        self.ops.insert(id, op);
    }

    /// Called if records are missing: an operation that depends on a missing one has an unknown base.
    pub(super) fn cut_loose(&mut self) {
        let known: Vec<OpId> = self.ops.keys().copied().collect();
        for op in self.ops.values_mut() {
            for (_, expected) in op.expectations() {
                if let Expected::After(id) = expected
                    && known.binary_search(id).is_err()
                {
                    *expected = Expected::Unknown;
                }
            }
        }
    }
}
