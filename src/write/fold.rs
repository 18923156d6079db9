//! From the records of a journal to what is still to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::op::{Action, Expected, Op, OpId, Put, SpoolId};
use crate::path::RemotePath;

/// What the journal holds; see there.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Op(OpId, Op),
    Gone(OpId),
    Done(OpId, Expected),
    /// On disk under its first name.
    #[serde(rename = "litter")]
    LocalOnly(SpoolId, RemotePath, u16),
    Swept(SpoolId),
    All(Vec<Record>),
}

/// Files that stay on this machine: where they are, and their permission bits.
pub(super) type LocalOnly = BTreeMap<SpoolId, (RemotePath, u16)>;

/// What still is to be done, of all that was recorded.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) ops: BTreeMap<OpId, Op>,
    /// Contents that an operation carried before, oldest first: its newest may not have reached the disk.
    pub(super) earlier: BTreeMap<OpId, Vec<Put>>,
    pub(super) local_only: LocalOnly,
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
            Record::Done(id, left) => {
                if folded.ops.contains_key(&id) {
                    folded.take(id);
                    folded.ops.values_mut().for_each(|op| op.settle(id, left));
                }
            }
        }
    }
    folded
}

impl Folded {
    fn take(&mut self, id: OpId) {
        self.ops.remove(&id);
        self.earlier.remove(&id);
    }

    fn put(&mut self, id: OpId, op: Op) {
        if let Action::Put(new) = &op.action {
            self.local_only.remove(&new.spool);
            let same =
                |(other, older): (&OpId, &Op)| (*other != id && older.spool() == Some(new.spool)).then_some(*other);
            // Folded into this one.
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

    /// Records are missing: what was to follow an operation that is not there follows nothing that is known.
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
