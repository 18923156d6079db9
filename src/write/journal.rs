//! What the server is still to be told, on the local disk and in memory: the queue of operations, its journal, and the
//! spool files with the new contents. What is recorded here survives the death of the process.
//!
//! `journal` in the state directory holds records of kind `J` (layout: `records`). Each is one of
//!
//! - `{"op": [ID, OP]}`: an operation as it is now, new or changed by a later one that was folded into it;
//! - `{"gone": ID}`: it will never be carried out;
//! - `{"done": [ID, LEFT]}`: the server acknowledged its last step, and this is what it left at its path;
//! - `{"litter": [SPOOL, PATH, PERM]}`: a file that stays on this machine is here now;
//! - `{"swept": SPOOL}`: it is not any more;
//! - `{"all": [RECORD…]}`: records that hold together.
//!
//! `spool/N` holds the content that operations name by number; it is never changed once an operation names it.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::op::{Expected, Op, OpId, Put, SpoolId};
use super::queue::Queue;
use super::records::{self, Records};
use super::spool::{FreeFiles, Hold, Spool, checksum};
use crate::path::RemotePath;

pub(super) const KIND: u8 = b'J';
/// The journal is written anew when it has grown to this (bytes) and most of it is history.
const COMPACT_BYTES: u64 = 16 * 1024 * 1024;
/// And emptied when nothing waits and it has grown to this.
const CLEAR_BYTES: u64 = 64 * 1024;
/// Operations and bytes that may wait. Beyond, writers are slowed down to the speed of the link.
const MAX_OPS: usize = 200_000;
const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

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

/// See the module header.
pub struct Journal {
    dir: PathBuf,
    log: Records<Record>,
    state: Mutex<State>,
    changed: Condvar,
    next_spool: AtomicU64,
    free: FreeFiles,
    /// Which spools somebody may have open.
    holds: Mutex<HashMap<SpoolId, Hold>>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Files that stay on this machine: where they are, and their permission bits.
    local_only: LocalOnly,
    /// Somebody waits for everything to be sent.
    hurry: usize,
    /// Operations that ended, well or not, and pieces of content that arrived: who waits looks whether it grows.
    steps: u64,
    /// Ended, but what was kept here for them is not let go yet.
    ending: BTreeSet<OpId>,
    closed: bool,
}

impl State {
    /// The journal as short as it can be.
    fn records(&self) -> Vec<Record> {
        let local_only = self.local_only.iter().map(|(id, (path, perm))| Record::LocalOnly(*id, path.clone(), *perm));
        self.queue.ops().map(|(id, op)| Record::Op(id, op.clone())).chain(local_only).collect()
    }
}

/// An operation that ended and is being tidied up after.
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

/// What there is to do.
pub enum Next {
    Run(OpId, Op, u32),
    /// Nothing now.
    Idle,
    Closed,
}

impl Journal {
    /// Opens what the last mount left. Spool files that no operation names were never finished, and go.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("spool");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let (log, records) = Records::open(&state_dir.join("journal"), KIND)?;
        let (ops, local_only) = fold(records);
        let used: Vec<SpoolId> = ops.values().filter_map(Op::spool).chain(local_only.keys().copied()).collect();
        let free = FreeFiles::default();
        let mut next_spool = 1;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(SpoolId);
            match number {
                Some(id) if used.contains(&id) => next_spool = next_spool.max(id.0 + 1),
                Some(id) => {
                    next_spool = next_spool.max(id.0 + 1);
                    free.give(entry.path())?;
                }
                None => fs::remove_file(entry.path())?,
            }
        }
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (id, op) in ops {
            queue.restore(id, op, now);
        }
        let state = Mutex::new(State { queue, local_only, ..State::default() });
        Ok(Self {
            dir,
            log,
            state,
            changed: Condvar::new(),
            next_spool: AtomicU64::new(next_spool),
            free,
            holds: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A look at what waits.
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

    /// The content that an operation of an earlier mount names.
    pub fn reopen(&self, id: SpoolId, len: u64) -> Spool {
        Spool::reopen(id, self.spool_path(id), len, self.hold(id))
    }

    /// Whether the content of an operation of an earlier mount is what was recorded; `None`: it was let go, since the
    /// operation was carried out and only the record of that is missing.
    pub fn is_whole(&self, put: &Put) -> Option<bool> {
        match fs::File::open(self.spool_path(put.spool)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => {
                let found = file.and_then(|file| checksum(&file, put.len));
                Some(found.is_ok_and(|found| put.sum.is_none_or(|sum| sum == found)))
            }
        }
    }

    /// Files that stay on this machine, as the last mount left them.
    pub fn local_only(&self) -> Vec<(SpoolId, RemotePath, u16)> {
        self.lock().local_only.iter().map(|(id, (path, perm))| (*id, path.clone(), *perm)).collect()
    }

    /// A file that stays on this machine is, or is not any more (`None`), at this path.
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

    /// The content of a file that stayed on this machine: it goes on being written to.
    pub fn reopen_local_only(&self, id: SpoolId) -> io::Result<Spool> {
        Spool::resume(id, self.spool_path(id), self.hold(id))
    }

    fn hold(&self, id: SpoolId) -> Hold {
        let mut holds = self.holds.lock();
        if holds.len() > 2 * MAX_OPS {
            // Spools that went without ever being recorded.
            holds.retain(|_, hold| Arc::strong_count(hold) > 1);
        }
        holds.entry(id).or_default().clone()
    }

    fn is_held(&self, id: SpoolId) -> bool {
        let hold = self.holds.lock().remove(&id);
        hold.is_none_or(|hold| Arc::strong_count(&hold) > 1)
    }

    /// Whether there is room for another operation; a writer that is too fast waits here.
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

    /// Records an operation. When this returns, it survives the death of the process, and it will be carried out.
    pub fn add(&self, op: Op) -> io::Result<()> {
        self.log.reserve()?;
        let unused = {
            let mut state = self.lock();
            let changes = state.queue.add(op, Instant::now());
            let mut records: Vec<Record> = changes.put.into_iter().map(|(id, op)| Record::Op(id, op)).collect();
            records.extend(changes.dropped.iter().map(|(id, _)| Record::Gone(*id)));
            // All of it or nothing, wherever the end is torn off.
            let record = if records.len() == 1 { records.pop() } else { Some(Record::All(records)) };
            self.log.append(record.as_slice())?;
            self.changed.notify_all();
            let dropped = changes.dropped.into_iter().filter_map(|(_, spool)| spool);
            dropped.chain(changes.spools).collect::<Vec<_>>()
        };
        self.tidy();
        unused.into_iter().for_each(|spool| self.drop_spool(spool));
        Ok(())
    }

    /// An operation of an earlier mount is about this object of ours.
    pub fn bind(&self, id: OpId, ino: u64) {
        self.lock().queue.bind(id, ino);
    }

    /// Whoever reads from it still has it open.
    pub fn drop_spool(&self, id: SpoolId) {
        let path = self.spool_path(id);
        let gone = if self.is_held(id) { fs::remove_file(path) } else { self.free.give(path) };
        if let Err(error) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("spool {}: {error}", id.0);
        }
    }

    /// The next operation to carry out, waited for until `until`.
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

    /// From here on the server may have half of the content.
    pub fn touched(&self, id: OpId) {
        let mut state = self.lock();
        let Some(op) = state.queue.touched(id) else { return };
        if let Err(error) = self.log.append(&[Record::Op(id, op)]) {
            log::error!("the journal: {error}");
        }
    }

    /// A piece of a long one arrived: who waits for it may go on waiting.
    pub fn moved(&self) {
        self.lock().steps += 1;
    }

    /// It could not be carried out now.
    pub fn put_back(&self, id: OpId, pause: Duration) {
        let mut state = self.lock();
        state.queue.put_back(id, Instant::now() + pause);
        self.changed.notify_all();
    }

    /// It is done, or was given up, and this is what is at its path now. A barrier counts it until the returned value is
    /// dropped: whoever looks after a barrier is not shown what was kept for an operation.
    #[must_use = "a barrier waits for it to be dropped"]
    pub fn finish(&self, id: OpId, left: Expected) -> Ending<'_> {
        {
            let mut state = self.lock();
            if let Err(error) = self.log.append(&[Record::Done(id, left)]) {
                // It would be carried out again by the next mount, which finds that it was done.
                log::error!("the journal: {error}");
            }
            state.queue.finish(id, left);
            state.steps += 1;
            state.ending.insert(id);
            self.changed.notify_all();
        }
        self.tidy();
        Ending { journal: self, id }
    }

    /// Waits until `done` holds, in a hurry, as long as something moves within every `patience`. `false`: it does not.
    pub fn wait_until(&self, patience: Duration, done: impl Fn(&Queue) -> bool) -> bool {
        self.wait(patience, |state| done(&state.queue))
    }

    /// Waits like `wait_until` for what was recorded before the call.
    pub fn barrier(&self, patience: Duration) -> bool {
        let limit = self.queue(Queue::next_id);
        let earlier = |id: Option<OpId>| id.is_some_and(|id| id < limit);
        self.wait(patience, |state| {
            !earlier(state.queue.ops().next().map(|(id, _)| id)) && !earlier(state.ending.first().copied())
        })
    }

    fn wait(&self, patience: Duration, done: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        state.hurry += 1;
        self.changed.notify_all();
        let (mut seen, mut since) = (state.steps, Instant::now());
        let mut well = done(&state);
        while !well && !state.closed {
            if state.steps != seen {
                (seen, since) = (state.steps, Instant::now());
            }
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            self.changed.wait_for(&mut state, left);
            well = done(&state);
        }
        state.hurry -= 1;
        well
    }

    /// What waits is on the local disk, for power loss.
    pub fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()?;
        self.log.sync()
    }

    /// Nothing more is carried out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.free.remove();
    }

    /// The journal does not grow for ever.
    fn tidy(&self) {
        let len = self.log.len();
        if len < CLEAR_BYTES {
            return;
        }
        let state = self.lock();
        let done = if state.queue.is_empty() && state.local_only.is_empty() {
            self.log.clear()
        } else if len > COMPACT_BYTES && len > (state.queue.len() + state.local_only.len()) as u64 * 2000 {
            self.log.rewrite(|| state.records())
        } else {
            Ok(())
        };
        if let Err(error) = done {
            log::warn!("the journal cannot be shortened: {error}");
        }
    }
}

/// Whether the journal of an environment that is not mounted has anything that only this machine knows.
///
/// # Errors
///
/// Where that cannot be told: it is damaged, or of another version.
pub fn has_unsent(state_dir: &Path) -> io::Result<bool> {
    let found = records::read(&state_dir.join("journal"), KIND)?;
    let (ops, local_only) = fold(found.records);
    if found.damaged {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged"));
    }
    Ok(!ops.is_empty() || !local_only.is_empty())
}

/// What still is to be done, of all that was recorded.
type LocalOnly = BTreeMap<SpoolId, (RemotePath, u16)>;

fn fold(records: Vec<Record>) -> (BTreeMap<OpId, Op>, LocalOnly) {
    let mut ops: BTreeMap<OpId, Op> = BTreeMap::new();
    let mut local_only = LocalOnly::new();
    let mut records: Vec<Record> = records.into_iter().rev().collect();
    while let Some(record) = records.pop() {
        match record {
            Record::All(together) => records.extend(together.into_iter().rev()),
            Record::Op(id, op) => {
                // Folded into this one.
                if let Some(spool) = op.spool() {
                    local_only.remove(&spool);
                    ops.retain(|_, older| older.spool() != Some(spool));
                }
                ops.insert(id, op);
            }
            Record::Gone(id) => drop(ops.remove(&id)),
            Record::LocalOnly(id, path, perm) => drop(local_only.insert(id, (path, perm))),
            Record::Swept(id) => drop(local_only.remove(&id)),
            Record::Done(id, left) => {
                if ops.remove(&id).is_some() {
                    ops.values_mut().for_each(|op| op.settle(id, left));
                }
            }
        }
    }
    (ops, local_only)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Area, Version};
    use crate::path::RemotePath;
    use crate::write::Action;

    fn put(journal: &Journal, at: &str, content: &[u8], base: Expected) -> Op {
        let spool = journal.new_spool().expect("made");
        spool.write_at(0, content).expect("written");
        let sealed = spool.seal();
        let put =
            Put { spool: sealed.id, len: sealed.len, sum: sealed.sum, perm: 0o644, keep_perm: false, mtime: 1, base };
        let path = RemotePath::parse(at).expect("valid");
        Op { area: Area::Code, path, action: Action::Put(put), ino: 0, at: 0 }
    }

    /// Spool files with something in them.
    fn full(state_dir: &Path) -> usize {
        let files = fs::read_dir(state_dir.join("spool")).expect("listed").flatten();
        files.filter(|file| file.metadata().is_ok_and(|meta| meta.len() > 0)).count()
    }

    #[test]
    fn what_was_recorded_is_there_after_a_crash_and_what_was_not_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(dir.path()).expect("opened");
        for (at, content) in [("a", &b"one"[..]), ("b", b"two"), ("a", b"three")] {
            journal.add(put(&journal, at, content, Expected::Absent)).expect("recorded");
        }
        let unfinished = journal.new_spool().expect("made");
        unfinished.write_at(0, b"never closed").expect("written");
        let left = std::mem::ManuallyDrop::new(unfinished);
        assert_eq!(full(dir.path()), 3, "the first content of a is gone");
        // A crash: nothing is told goodbye.
        let journal = Journal::open(dir.path()).expect("opened again");
        let found: Vec<(String, Vec<u8>)> = journal.queue(|queue| {
            let content = |op: &Op| fs::read(journal.spool_path(op.spool().expect("content"))).expect("there");
            queue.ops().map(|(_, op)| (op.path.to_string(), content(op))).collect()
        });
        assert_eq!(found, [("a".into(), b"three".to_vec()), ("b".into(), b"two".to_vec())]);
        assert_eq!(full(dir.path()), 2);
        drop(std::mem::ManuallyDrop::into_inner(left));
    }

    #[test]
    fn a_second_save_knows_after_a_crash_what_the_first_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(dir.path()).expect("opened");
        journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
        let Next::Run(first, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
        journal.add(put(&journal, "a", b"two", Expected::Absent)).expect("recorded");
        let left = Version { size: 3, mtime: 7 };
        drop(journal.finish(first, Expected::Version(left)));
        let journal = Journal::open(dir.path()).expect("opened again");
        let ops: Vec<Op> = journal.queue(|queue| queue.ops().map(|(_, op)| op.clone()).collect());
        assert!(
            matches!(&ops[..], [Op { action: Action::Put(Put { base, .. }), .. }] if *base == Expected::Version(left))
        );
    }

    #[test]
    fn a_barrier_waits_until_an_ended_operation_is_tidied_up_after() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(dir.path()).expect("opened");
        journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
        let Next::Run(first, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
        let ending = journal.finish(first, Expected::Unknown);
        assert!(journal.wait_until(Duration::ZERO, Queue::is_empty) && !journal.barrier(Duration::from_millis(20)));
        drop(ending);
        journal.add(put(&journal, "b", b"two", Expected::Absent)).expect("recorded");
        assert!(!journal.barrier(Duration::ZERO), "nobody carries it out");
        let Next::Run(second, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
        drop(journal.finish(second, Expected::Unknown));
        assert!(journal.barrier(Duration::ZERO));
    }

    #[test]
    fn waiting_hurries_and_ends_without_progress() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(dir.path()).expect("opened");
        assert!(journal.wait_until(Duration::from_secs(1), Queue::is_empty));
        journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
        assert!(!journal.wait_until(Duration::from_millis(20), Queue::is_empty), "nobody carries it out");
    }
}
