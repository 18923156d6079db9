//! The queue of operations, in memory. Each operation waits only for those that it depends on, and operations that
//! cancel out are never sent. The queue does no I/O; time is a parameter.
//!
//! Two operations depend on each other if a path of one is a path of the other or leads through it. Independent
//! operations may be applied in any order, so that many can run at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::op::{Action, Expected, Op, OpId, Put, SpoolId};
use crate::attr::Version;
use crate::path::RemotePath;

mod undo;

/// How long an operation waits for others to be folded into it: a temporary file for its rename, a burst of saves for
/// the last one.
pub(super) const SETTLE: Duration = Duration::from_millis(150);
/// How long it may be delayed in total by operations that replace it.
const MAX_SETTLE: Duration = Duration::from_secs(2);

/// The changes of the queue by an addition, which the journal must record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New and changed operations.
    pub put: Vec<(OpId, Op)>,
    /// Operations that will never be applied, each with a spool that is not needed any more.
    pub dropped: Vec<(OpId, Option<SpoolId>)>,
    /// Contents that were replaced by the last operation in `put`.
    pub replaced: Vec<Put>,
}

#[derive(Clone)]
struct Entry {
    op: Op,
    running: bool,
    /// It was tried, so that the server may have a part of it: no operation is folded into it any more.
    attempted: bool,
    /// Number of earlier operations that must end first.
    blockers: usize,
    /// Later operations that wait for this one.
    dependents: Vec<OpId>,
    added: Instant,
    due: Instant,
    tries: u32,
}

/// One step of an addition, so that it can be undone.
enum Step {
    /// `ready`: it waited for no other operation.
    TookOut {
        id: OpId,
        entry: Box<Entry>,
        ready: bool,
    },
    Inserted(OpId),
    Replaced {
        id: OpId,
        op: Box<Op>,
        due: Instant,
    },
}

/// See the module documentation.
#[derive(Default)]
pub struct Queue {
    entries: BTreeMap<OpId, Entry>,
    /// Operations by the paths that they change, oldest first.
    by_path: BTreeMap<Vec<u8>, BTreeSet<OpId>>,
    by_ino: HashMap<u64, usize>,
    /// For each operation, those whose expectation depends on it.
    expecting: HashMap<OpId, Vec<OpId>>,
    /// Operations that do not run and wait for no other one, by the time at which they are due.
    ready: BTreeSet<(Instant, OpId)>,
    next: u64,
    bytes: u64,
    /// The steps of the last addition, so that it can be undone.
    steps: Vec<Step>,
}

fn below(path: &RemotePath) -> Vec<u8> {
    if path.is_root() { Vec::new() } else { [path.as_bytes(), b"/"].concat() }
}

impl Queue {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of content in queued operations.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the next operation.
    pub fn next_id(&self) -> OpId {
        OpId(self.next)
    }

    pub fn ops(&self) -> impl Iterator<Item = (OpId, &Op)> {
        self.entries.iter().map(|(id, entry)| (*id, &entry.op))
    }

    pub fn op(&self, id: OpId) -> Option<&Op> {
        self.entries.get(&id).map(|entry| &entry.op)
    }

    /// The spool of an operation.
    pub fn spool_of(&self, id: OpId) -> Option<SpoolId> {
        self.op(id)?.spool()
    }

    /// Whether an operation is queued for this object.
    pub fn concerns(&self, ino: u64) -> bool {
        self.by_ino.contains_key(&ino)
    }

    /// Number of operations for this object that are queued or run.
    pub fn waiting_for(&self, ino: u64) -> usize {
        self.by_ino.get(&ino).copied().unwrap_or_default()
    }

    /// Whether a queued operation carries this spool. The newest are checked first, because most callers have just
    /// saved.
    pub fn carries(&self, spool: SpoolId) -> bool {
        self.entries.values().rev().any(|entry| entry.op.spool() == Some(spool))
    }

    /// Whether a queued operation removes the name.
    pub fn takes_away(&self, path: &RemotePath) -> bool {
        let takes = |op: &Op| match &op.action {
            Action::Unlink { .. } | Action::RemoveDir => op.path == *path,
            Action::Rename { to, .. } => op.path == *path || to == path,
            _ => false,
        };
        self.touching(path).any(|id| self.entries.get(&id).is_some_and(|entry| takes(&entry.op)))
    }

    /// Whether the path, or a directory above it, was renamed or created locally and the server does not know it yet.
    pub fn is_elsewhere(&self, path: &RemotePath) -> bool {
        let moved = |op: &Op, at: &RemotePath| match &op.action {
            Action::Rename { to, .. } => to == at,
            Action::MakeDir { .. } => op.path == *at,
            _ => false,
        };
        let mut at = Some(path.clone());
        while let Some(here) = at {
            if self.touching(&here).any(|id| self.entries.get(&id).is_some_and(|entry| moved(&entry.op, &here))) {
                return true;
            }
            at = here.parent();
        }
        false
    }

    /// Whether an operation on the path, above it or below it is queued or runs.
    pub fn involves(&self, path: &RemotePath) -> bool {
        !self.related(path, true).is_empty()
    }

    /// Whether an operation on this path expects the version there.
    pub(in crate::write) fn expects(&self, path: &RemotePath, version: Version) -> bool {
        let ops = self.touching(path).filter_map(|id| self.op(id));
        ops.flat_map(Op::versions).any(|expected| expected == (path, version))
    }

    fn touching(&self, path: &RemotePath) -> impl Iterator<Item = OpId> + '_ {
        self.by_path.get(path.as_bytes()).into_iter().flatten().copied()
    }

    fn last_on(&self, path: &RemotePath) -> Option<OpId> {
        self.by_path.get(path.as_bytes())?.last().copied()
    }

    /// Operations whose paths lead through the path or, if `deep`, are below it.
    fn related(&self, path: &RemotePath, deep: bool) -> BTreeSet<OpId> {
        let mut out: BTreeSet<OpId> = self.touching(path).collect();
        let mut up = path.parent();
        while let Some(dir) = up {
            out.extend(self.touching(&dir));
            up = dir.parent();
        }
        if deep {
            let prefix = below(path);
            let range = self.by_path.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            out.extend(range.flat_map(|(_, ids)| ids.iter().copied()));
        }
        out
    }

    /// The last operation on a path, if it can be changed: it was never tried, and no other one depends on it.
    fn malleable(&self, path: &RemotePath) -> Option<OpId> {
        let id = self.last_on(path)?;
        let entry = self.entries.get(&id)?;
        let built_upon = entry.dependents.iter().any(|dependent| self.entries.contains_key(dependent));
        (!entry.attempted && !built_upon).then_some(id)
    }

    /// Adds an operation and folds it with those that are queued.
    pub fn add(&mut self, op: Op, now: Instant) -> Changes {
        let mut changes = Changes::default();
        self.steps.clear();
        self.collapse(op, now, &mut changes);
        changes
    }

    fn collapse(&mut self, mut op: Op, now: Instant, changes: &mut Changes) {
        // Only for files: content that is written where a symlink was would be written through it.
        if let Action::Unlink { base, file: true } = &mut op.action
            && let Some(replaced) = self.undo_backup(&op.path, changes)
        {
            if replaced == Expected::Absent {
                return;
            }
            *base = replaced;
        }
        let last = self.malleable(&op.path);
        let before = last.and_then(|id| Some((id, self.entries.get(&id)?.op.action.clone())));
        match (&mut op.action, before) {
            // Only the last of a burst of saves is sent.
            (Action::Put(new), Some((id, Action::Put(old)))) => {
                // Also for `Ours`: the server may have a part of the old content, and the new content completes it.
                new.base = old.base;
                changes.replaced.push(old);
                return self.replace(id, op, now, changes);
            }
            // Removed and created again: a save of the old file.
            (Action::Put(new), Some((id, Action::Unlink { base, file: true }))) => {
                new.base = base;
                self.drop_op(id, changes);
            }
            (Action::Unlink { .. }, Some((id, Action::Symlink { .. }))) => return self.drop_op(id, changes),
            (Action::Unlink { base, .. }, Some((id, Action::Put(old)))) => {
                self.drop_op(id, changes);
                if old.base == Expected::Absent {
                    return;
                }
                *base = old.base;
            }
            (Action::RemoveDir, Some((id, Action::MakeDir { .. }))) if !self.happens_below(&op.path) => {
                return self.drop_op(id, changes);
            }
            (Action::Rename { to, replaced, dir: false, .. }, Some((id, Action::Put(old))))
                if old.base == Expected::Absent =>
            {
                let put = Put { base: *replaced, ..old };
                let moved = Op { path: to.clone(), action: Action::Put(put), ..op };
                self.take_out_noting(id);
                changes.dropped.push((id, None));
                return self.collapse(moved, now, changes);
            }
            (Action::SetAttr { perm, times, .. }, Some((id, old))) => {
                if let Some(merged) = merge(old, *perm, *times) {
                    return self.replace(id, Op { action: merged, ..op }, now, changes);
                }
            }
            _ => {}
        }
        self.await_previous(&mut op);
        self.push(op, now, changes);
    }

    /// Folds the removal of a backup file that an editor made by renaming the file, if the file has new content under
    /// its old name: this is one save, and the file is never missing on the server. Returns what the backup file
    /// replaced.
    fn undo_backup(&mut self, backup: &RemotePath, changes: &mut Changes) -> Option<Expected> {
        let aside = self.last_on(backup)?;
        let entry = self.entries.get(&aside).filter(|entry| !entry.attempted)?;
        let Action::Rename { base, replaced, dir: false, .. } = entry.op.action else { return None };
        let save = self.last_on(&entry.op.path)?;
        let mut waiting = entry.dependents.iter().filter(|id| self.entries.contains_key(id));
        if waiting.next() != Some(&save) || waiting.next().is_some() {
            return None;
        }
        let entry = self.entries.get_mut(&save).filter(|entry| !entry.attempted)?;
        let before = Step::Replaced { id: save, op: Box::new(entry.op.clone()), due: entry.due };
        match &mut entry.op.action {
            Action::Put(put) if put.base == Expected::Absent => put.base = base,
            _ => return None,
        }
        self.steps.push(before);
        let op = entry.op.clone();
        self.expect(save, &op);
        changes.put.push((save, op));
        self.drop_op(aside, changes);
        Some(replaced)
    }

    fn happens_below(&self, path: &RemotePath) -> bool {
        let prefix = below(path);
        self.by_path.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// Sets the expectations that depend on operations in the queue.
    fn await_previous(&self, op: &mut Op) {
        for (path, expected) in op.expectations() {
            *expected = self.before(&path, OpId(u64::MAX)).unwrap_or(*expected);
        }
    }

    /// The state that the operations before `limit` leave at a path, under the name that it had then; `None`: they do
    /// not change it.
    fn before(&self, path: &RemotePath, limit: OpId) -> Option<Expected> {
        let on = |path: &RemotePath| {
            let ids = self.by_path.get(path.as_bytes()).into_iter().flat_map(move |ids| ids.range(..limit));
            ids.rev().filter_map(|id| Some((*id, &self.entries.get(id)?.op))).filter(|(_, op)| !op.is_chmod())
        };
        let mut last = on(path).next().map(|(id, op)| (id, op, path.clone()));
        let mut up = path.parent();
        while let Some(dir) = up {
            let came = on(&dir).find(|(_, op)| op.brings(&dir));
            let newer = came.filter(|(id, _)| last.as_ref().is_none_or(|(last, ..)| last < id));
            last = newer.map(|(id, op)| (id, op, dir.clone())).or(last);
            up = dir.parent();
        }
        match last? {
            // It was renamed to another path.
            (_, Op { path: source, action: Action::Rename { .. }, .. }, at) if at == *source => Some(Expected::Absent),
            (id, _, at) if at == *path => Some(Expected::After(id)),
            (id, Op { path: source, action: Action::Rename { .. }, .. }, dir) => {
                self.before(&source.join_path(&path.strip_prefix(&dir)?), id)
            }
            // A directory above it was created.
            _ => Some(Expected::Absent),
        }
    }

    fn push(&mut self, op: Op, now: Instant, changes: &mut Changes) {
        let id = OpId(self.next);
        self.next += 1;
        changes.put.push((id, op.clone()));
        self.steps.push(Step::Inserted(id));
        self.insert(id, op, now, false);
    }

    /// Adds an operation of an earlier process. It may have been tried.
    pub fn restore(&mut self, id: OpId, op: Op, now: Instant) {
        self.insert(id, op, now, true);
    }

    /// Appends an operation unchanged.
    fn insert(&mut self, id: OpId, op: Op, now: Instant, attempted: bool) {
        self.next = self.next.max(id.0 + 1);
        let deep = op.reaches_below();
        let blockers: BTreeSet<OpId> = op.paths().flat_map(|path| self.related(path, deep)).collect();
        for blocker in &blockers {
            if let Some(entry) = self.entries.get_mut(blocker) {
                entry.dependents.push(id);
            }
        }
        for path in op.paths() {
            self.by_path.entry(path.as_bytes().to_vec()).or_default().insert(id);
        }
        self.count(&op, true);
        self.expect(id, &op);
        let due = now + SETTLE;
        if blockers.is_empty() {
            self.ready.insert((due, id));
        }
        let entry = Entry {
            op,
            running: false,
            attempted,
            blockers: blockers.len(),
            dependents: Vec::new(),
            added: now,
            due,
            tries: 0,
        };
        self.entries.insert(id, entry);
    }

    fn expect(&mut self, id: OpId, op: &Op) {
        for (_, expected) in op.clone().expectations() {
            if let Expected::After(previous) = expected {
                self.expecting.entry(*previous).or_default().push(id);
            }
        }
    }

    fn count(&mut self, op: &Op, more: bool) {
        let bytes = if let Action::Put(put) = &op.action { put.len } else { 0 };
        self.bytes = if more { self.bytes + bytes } else { self.bytes.saturating_sub(bytes) };
        if op.ino != 0 {
            let uses = self.by_ino.entry(op.ino).or_default();
            *uses = if more { *uses + 1 } else { uses.saturating_sub(1) };
            if *uses == 0 {
                self.by_ino.remove(&op.ino);
            }
        }
    }

    fn replace(&mut self, id: OpId, op: Op, now: Instant, changes: &mut Changes) {
        changes.put.push((id, op.clone()));
        let Some(entry) = self.entries.get(&id) else { return };
        let due = (now + SETTLE).min(entry.added + MAX_SETTLE);
        self.steps.push(Step::Replaced { id, op: Box::new(entry.op.clone()), due: entry.due });
        self.put_op(id, op, due);
    }

    fn put_op(&mut self, id: OpId, op: Op, due: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if self.ready.remove(&(entry.due, id)) {
            self.ready.insert((due, id));
        }
        entry.due = due;
        let old = std::mem::replace(&mut entry.op, op.clone());
        self.count(&old, false);
        self.count(&op, true);
    }

    fn drop_op(&mut self, id: OpId, changes: &mut Changes) {
        let spool = self.take_out_noting(id);
        changes.dropped.push((id, spool));
    }

    /// Like [`Queue::take_out`], as a step that can be undone. Returns the spool of the operation.
    fn take_out_noting(&mut self, id: OpId) -> Option<SpoolId> {
        let ready = self.entries.get(&id).is_some_and(|entry| self.ready.contains(&(entry.due, id)));
        let entry = self.take_out(id)?;
        let spool = entry.op.spool();
        self.steps.push(Step::TookOut { id, entry: Box::new(entry), ready });
        spool
    }

    /// Removes an operation and unblocks those that waited for it.
    fn take_out(&mut self, id: OpId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.ready.remove(&(entry.due, id));
        for path in entry.op.paths() {
            if let Some(ids) = self.by_path.get_mut(path.as_bytes()) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_path.remove(path.as_bytes());
                }
            }
        }
        self.count(&entry.op, false);
        for dependent in &entry.dependents {
            if let Some(other) = self.entries.get_mut(dependent) {
                other.blockers = other.blockers.saturating_sub(1);
                if other.blockers == 0 && !other.running {
                    self.ready.insert((other.due, *dependent));
                }
            }
        }
        Some(entry)
    }

    /// The next operation to apply; with `hurry`, settle times are skipped.
    pub fn take(&mut self, now: Instant, hurry: bool) -> Option<(OpId, Op, u32)> {
        let &(due, id) = self.ready.first()?;
        let tries = self.entries.get(&id)?.tries;
        // An operation that failed keeps its pause even then.
        let hurried = hurry && tries == 0;
        let found = if due <= now || hurried { Some((due, id)) } else { None };
        let (due, id) = found.or_else(|| self.hurried(hurry))?;
        self.ready.remove(&(due, id));
        let entry = self.entries.get_mut(&id)?;
        entry.running = true;
        entry.attempted = true;
        Some((id, entry.op.clone(), entry.tries))
    }

    fn hurried(&self, hurry: bool) -> Option<(Instant, OpId)> {
        let fresh = |(_, id): &&(Instant, OpId)| self.entries.get(id).is_some_and(|entry| entry.tries == 0);
        self.ready.iter().filter(|_| hurry).find(fresh).copied()
    }

    /// When the next operation is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.ready.first().map(|(due, _)| *due)
    }

    /// Marks an operation that modifies the server's file in place, or renames a tree entry by entry: only another
    /// attempt can complete it. Returns the operation as it is now.
    pub fn touched(&mut self, id: OpId) -> Option<Op> {
        let entry = self.entries.get_mut(&id)?;
        match &mut entry.op.action {
            Action::Put(put) => put.base = Expected::Ours,
            Action::Rename { replaced, .. } => *replaced = Expected::Ours,
            _ => return None,
        }
        Some(entry.op.clone())
    }

    /// Returns an operation to the queue, due at `due`.
    pub fn put_back(&mut self, id: OpId, due: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.running = false;
            entry.tries += 1;
            entry.due = due;
            self.ready.insert((due, id));
        }
    }

    /// Ends an operation. `left` becomes the expectation of the next operation on its path.
    pub fn finish(&mut self, id: OpId, left: Expected) -> Option<Op> {
        let entry = self.take_out(id)?;
        for waiting in self.expecting.remove(&id).unwrap_or_default() {
            if let Some(other) = self.entries.get_mut(&waiting) {
                other.op.resolve_base(id, left);
            }
        }
        Some(entry.op)
    }

    /// Assigns the inode number of this mount to an operation of an earlier one.
    pub fn bind(&mut self, id: OpId, ino: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.op.ino = ino;
        *self.by_ino.entry(ino).or_default() += 1;
    }
}

/// Merges permission bits and times into a queued action, if it can carry them.
fn merge(mut old: Action, perm: Option<u16>, times: Option<(u32, u32)>) -> Option<Action> {
    match &mut old {
        Action::Put(put) => {
            put.keep_perm = put.keep_perm && perm.is_none();
            put.perm = perm.unwrap_or(put.perm);
            put.mtime = times.map_or(put.mtime, |(_, mtime)| mtime);
        }
        Action::SetAttr { perm: old_perm, times: old_times, .. } => {
            *old_perm = perm.or(*old_perm);
            *old_times = times.or(*old_times);
        }
        _ => return None,
    }
    Some(old)
}

#[cfg(test)]
mod tests;
