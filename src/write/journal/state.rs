//! The type [`Journal`]: adding, taking and ending operations.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::attr::Version;
use crate::path::RemotePath;
use crate::write::fold::{LocalOnly, Record, Sums};
use crate::write::op::{Action, Expected, Op, OpId, SpoolId};
use crate::write::queue::{Changes, Queue};
use crate::write::records::Records;
use crate::write::replaced::ReplacedSpools;
use crate::write::spool::{FreeFiles, Hold, Spool};

pub(in crate::write) const KIND: u8 = b'J';
/// The journal is rewritten when it has grown to this size (bytes) and most of its records are outdated.
const COMPACT_BYTES: u64 = 16 * 1024 * 1024;
/// An empty journal is cleared when its file has grown to this size (bytes).
const CLEAR_BYTES: u64 = 64 * 1024;
/// Limits for queued operations: their number, and bytes of content. Beyond them writers are slowed down to the speed
/// of the connection.
const MAX_OPS: usize = 200_000;
const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// See the module documentation.
pub struct Journal {
    pub(super) dir: PathBuf,
    pub(super) log: Records<Record>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) next_spool: AtomicU64,
    pub(super) next_barrier: AtomicU64,
    pub(super) free: FreeFiles,
    /// Spools that may be open.
    pub(super) holds: Mutex<HashMap<SpoolId, Hold>>,
    /// Tells the checksums of what callers were shown, see [`Journal::ask_what_was_shown`].
    pub(super) shown: OnceLock<Box<ShownSums>>,
}

/// Tells the checksums of the content that callers were shown for a version, if the version does not tell it from others.
type ShownSums = dyn Fn(&RemotePath, Version) -> Sums + Send + Sync;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// Local-only files: their paths and permission bits.
    pub(super) local_only: LocalOnly,
    pub(super) replaced: ReplacedSpools,
    /// Checksums that the last mount recorded, until they are taken.
    pub(super) shown: BTreeMap<RemotePath, (Version, Sums)>,
    /// Active barriers, by number.
    pub(super) barriers: BTreeMap<u64, Barrier>,
    /// Number of callers that wait for everything to be sent.
    pub(super) hurry: usize,
    /// Counts operations that ended and pieces of content that were transferred; waiting callers check whether it
    /// grows.
    pub(super) steps: u64,
    /// Operations that ended, and whose spools and pins are not released yet.
    pub(super) ending: BTreeSet<OpId>,
    pub(super) closed: bool,
}

/// The operations that a barrier waits for.
pub(super) struct Barrier {
    /// Operations before this number.
    pub(super) limit: OpId,
    /// Operations that one of those was folded into.
    pub(super) also: BTreeSet<OpId>,
}

impl Barrier {
    pub(super) fn awaits(&self, id: OpId) -> bool {
        id < self.limit || self.also.contains(&id)
    }
}

impl State {
    /// The shortest sequence of records that has the present state, without the checksums of what was shown.
    fn ops_and_files(&self) -> Vec<Record> {
        let local_only = self.local_only.iter().map(|(id, (path, perm))| Record::LocalOnly(*id, path.clone(), *perm));
        let mut earlier = self.replaced.records(&self.queue);
        let with_earlier = |(id, op): (OpId, &Op)| {
            let before = earlier.remove(&id).unwrap_or_default();
            before.into_iter().chain([Record::Op(id, op.clone())])
        };
        self.queue.ops().flat_map(with_earlier).chain(local_only).collect()
    }

    /// Updates the barriers and the replaced spools after an addition.
    fn note(&mut self, changes: &Changes) {
        self.replaced.note(changes, Instant::now());
        for barrier in self.barriers.values_mut() {
            if changes.dropped.iter().any(|(id, _)| barrier.awaits(*id)) {
                barrier.also.extend(changes.put.iter().map(|(id, _)| *id));
            }
        }
    }
}

/// An operation that ended and whose resources are being released.
pub struct Ending<'a> {
    journal: &'a Journal,
    id: OpId,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.journal.lock().ending.remove(&self.id);
        self.journal.changed.notify_all();
    }
}

/// What the worker is to do next.
pub enum Next {
    Run(OpId, Op, u32),
    /// No operation is due.
    Idle,
    Closed,
}

impl Journal {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Read access to the queue.
    pub fn queue<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        look(&self.lock().queue)
    }

    pub fn spool_path(&self, id: SpoolId) -> PathBuf {
        self.dir.join(id.0.to_string())
    }

    /// An empty spool.
    pub fn new_spool(&self) -> io::Result<Spool> {
        let id = SpoolId(self.next_spool.fetch_add(1, Ordering::Relaxed));
        Spool::create(id, self.spool_path(id), &self.free, self.hold(id))
    }

    /// The spool of an operation of an earlier mount.
    pub fn reopen(&self, id: SpoolId, len: u64) -> Spool {
        Spool::reopen(id, self.spool_path(id), len, self.hold(id))
    }

    /// The local-only files of the last mount.
    pub fn local_only(&self) -> Vec<(SpoolId, RemotePath, u16)> {
        self.lock().local_only.iter().map(|(id, (path, perm))| (*id, path.clone(), *perm)).collect()
    }

    /// Records that a local-only file is at this path; `None`: that it is gone.
    pub fn note_local_only(&self, id: SpoolId, now: Option<(RemotePath, u16)>) -> io::Result<()> {
        let mut state = self.lock();
        if state.local_only.get(&id) == now.as_ref() {
            return Ok(());
        }
        let record = match &now {
            Some((path, perm)) => Record::LocalOnly(id, path.clone(), *perm),
            None => Record::Swept(id),
        };
        self.log.append(&[record])?;
        match now {
            Some(now) => state.local_only.insert(id, now),
            None => state.local_only.remove(&id),
        };
        Ok(())
    }

    /// The spool of a local-only file of the last mount, which may be written to.
    pub fn reopen_local_only(&self, id: SpoolId) -> io::Result<Spool> {
        Spool::resume(id, self.spool_path(id), self.hold(id))
    }

    fn hold(&self, id: SpoolId) -> Hold {
        let mut holds = self.holds.lock();
        if holds.len() > 2 * MAX_OPS {
            // Drops the entries of spools that were never recorded.
            holds.retain(|_, hold| Arc::strong_count(hold) > 1);
        }
        holds.entry(id).or_default().clone()
    }

    fn is_held(&self, id: SpoolId) -> bool {
        let hold = self.holds.lock().remove(&id);
        hold.is_none_or(|hold| Arc::strong_count(&hold) > 1)
    }

    /// Whether there is room for another operation. Waits until `until`, which slows down fast writers.
    pub fn has_room(&self, until: Instant) -> bool {
        let full = |state: &State| state.queue.len() >= MAX_OPS || state.queue.bytes() >= MAX_BYTES;
        let mut state = self.lock();
        while full(&state) && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.changed.wait_for(&mut state, left);
        }
        true
    }

    /// Records an operation. When this returns, it survives a crash of the process, and it will be applied.
    ///
    /// # Errors
    ///
    /// The local disk is full or failed. Then the operation is neither queued nor recorded.
    pub fn add(&self, op: Op) -> io::Result<()> {
        if let Err(error) = self.log.reserve() {
            // The last free space is for saves, because programs have written their content already.
            if !matches!(op.action, Action::Put(_)) {
                return Err(error);
            }
            log::warn!("the journal: {error}");
        }
        {
            let mut state = self.lock();
            let changes = state.queue.add(op, Instant::now());
            let mut records = self.shown_to(changes.put.iter().map(|(_, op)| op));
            records.extend(changes.put.iter().map(|(id, op)| Record::Op(*id, op.clone())));
            records.extend(changes.dropped.iter().map(|(id, _)| Record::Gone(*id)));
            // One record, so that a torn end loses all of them or none.
            let record = if records.len() == 1 { records.pop() } else { Some(Record::All(records)) };
            if let Err(error) = self.log.append(record.as_slice()) {
                state.queue.take_back();
                return Err(error);
            }
            state.note(&changes);
            self.changed.notify_all();
        }
        self.tidy();
        Ok(())
    }

    /// Sets how the journal learns the checksums of the content that a change is based on. They are recorded with the
    /// change, so that the next mount does not take another content of the same size and second for it.
    pub fn ask_what_was_shown(&self, ask: impl Fn(&RemotePath, Version) -> Sums + Send + Sync + 'static) {
        drop(self.shown.set(Box::new(ask)));
    }

    /// The checksums that the last mount recorded. They are given once.
    pub fn take_shown(&self) -> Vec<(RemotePath, Version, Sums)> {
        let shown = std::mem::take(&mut self.lock().shown);
        shown.into_iter().map(|(path, (version, sums))| (path, version, sums)).collect()
    }

    /// The shortest sequence of records that has the present state.
    pub(super) fn records(&self, state: &State) -> Vec<Record> {
        let mut records = self.shown_to(state.queue.ops().map(|(_, op)| op));
        records.extend(state.ops_and_files());
        records
    }

    fn shown_to<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Vec<Record> {
        ops.flat_map(Op::versions).filter_map(|(path, version)| self.shown_of(path, version)).collect()
    }

    fn shown_of(&self, path: &RemotePath, version: Version) -> Option<Record> {
        let sums = self.shown.get()?(path, version);
        (!sums.is_empty()).then(|| Record::Shown(path.clone(), version, sums))
    }

    /// Assigns the inode number of this mount to an operation of an earlier one.
    pub fn bind(&self, id: OpId, ino: u64) {
        self.lock().queue.bind(id, ino);
    }

    /// Removes a spool whose content is on the server or was replaced by content on the disk. Callers that still read
    /// it have it open.
    pub fn drop_spool(&self, id: SpoolId) {
        let path = self.spool_path(id);
        let gone = if self.is_held(id) { fs::remove_file(path) } else { self.free.give(path) };
        if let Err(error) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("spool {}: {error}", id.0);
        }
    }

    /// The next operation to apply; waits for one until `until`.
    pub fn next(&self, until: Instant) -> Next {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            let (now, hurry) = (Instant::now(), state.hurry > 0);
            if let Some((id, op, tries)) = state.queue.take(now, hurry) {
                return Next::Run(id, op, tries);
            }
            let due = state.queue.next_due().map_or(until, |due| due.min(until));
            let left = due.max(now + Duration::from_millis(1)).saturating_duration_since(now);
            if now >= until {
                return Next::Idle;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Counts a transferred piece of a long operation, so that callers that wait for it keep waiting.
    pub fn progressed(&self) {
        self.lock().steps += 1;
    }

    /// Returns an operation to the queue that could not be applied now.
    pub fn put_back(&self, id: OpId, pause: Duration) {
        let mut state = self.lock();
        state.queue.put_back(id, Instant::now() + pause);
        self.changed.notify_all();
    }

    /// Ends an operation; `left` is the state at its path. A barrier counts the operation until the returned value is
    /// dropped, so that its resources are released before the barrier returns.
    #[must_use = "a barrier waits for it to be dropped"]
    pub fn finish(&self, id: OpId, left: Expected) -> Ending<'_> {
        let replaced = {
            let mut state = self.lock();
            let left_at = left.version().zip(state.queue.op(id).map(|op| op.awaited().clone()));
            state.queue.finish(id, left);
            let expected = left_at.filter(|(version, path)| state.queue.expects(path, *version));
            let shown = expected.and_then(|(version, path)| self.shown_of(&path, version));
            let mut records: Vec<Record> = shown.into_iter().collect();
            records.push(Record::Done(id, left));
            let record = if records.len() == 1 { records.pop() } else { Some(Record::All(records)) };
            if let Err(error) = self.log.append(record.as_slice()) {
                // The next mount applies it again, and finds that it was applied already.
                log::error!("the journal: {error}");
            }
            state.steps += 1;
            state.ending.insert(id);
            self.changed.notify_all();
            state.replaced.ended(id)
        };
        replaced.into_iter().for_each(|spool| self.drop_spool(spool));
        self.tidy();
        Ending { journal: self, id }
    }

    /// Ends the journal: no more operations are taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.free.remove();
    }

    /// Keeps the journal file short.
    fn tidy(&self) {
        let len = self.log.len();
        if len < CLEAR_BYTES {
            return;
        }
        let state = self.lock();
        let done = if state.queue.is_empty() && state.local_only.is_empty() {
            self.log.clear()
        } else if len > COMPACT_BYTES && len > (state.queue.len() + state.local_only.len()) as u64 * 2000 {
            self.log.rewrite(|| self.records(&state))
        } else {
            Ok(())
        };
        if let Err(error) = done {
            log::warn!("the journal cannot be shortened: {error}");
        }
    }
}
