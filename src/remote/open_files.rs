//! The files that a session keeps open for reading: the next part of a file is usually asked for soon. One OPEN serves all
//! reads of a version that arrive while it is under way.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Weak};

use lru::LruCache;

use super::error::Answer;
use super::handles::Slot;
use crate::attr::Version;
use crate::path::RemotePath;
use crate::sftp::{Class, Engine, Request};

/// Files that stay open at most.
const MAX_OPEN_FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// What to read: a range of one version of a file (bytes).
#[derive(Clone)]
pub(super) struct FileRange {
    pub(super) path: RemotePath,
    pub(super) version: Version,
    pub(super) range: Range<u64>,
    pub(super) class: Class,
    /// Whether the content of this version cannot change any more: a file that is open already has it, too.
    pub(super) settled: bool,
}

impl FileRange {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn key(&self) -> Key {
        (self.path.clone(), self.version)
    }

    /// Whether the file is opened for this read alone. Where it is read in one go, keeping it open or sharing its OPEN
    /// gains nothing; where its content may change without a change of the version, an open file may be the old one.
    pub(super) fn is_alone(&self) -> bool {
        self.len() >= self.version.size || !self.settled
    }
}

/// A file that is open for reading on the server; closed when its last user drops it.
pub(super) struct OpenFile {
    engine: Weak<Engine>,
    handle: Vec<u8>,
    _slot: Slot,
}

impl OpenFile {
    pub(super) fn new(engine: Weak<Engine>, handle: Vec<u8>, slot: Slot) -> Arc<Self> {
        Arc::new(Self { engine, handle, _slot: slot })
    }

    pub(super) fn handle(&self) -> Vec<u8> {
        self.handle.clone()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.submit(Request::Close { handle: std::mem::take(&mut self.handle) }, Class::Background, |_| {});
        }
    }
}

type Key = (RemotePath, Version);
/// A read that waits for an OPEN under way.
pub(super) type Queued = (FileRange, Answer<Vec<u8>>);

/// See the module header.
pub(super) struct OpenFiles(Mutex<State>);

struct State {
    open: LruCache<Key, Arc<OpenFile>>,
    /// Reads that wait for an OPEN under way, by the file and the class of that OPEN. With an OPEN each, the read whose
    /// OPEN is answered last would come behind all the others.
    opening: HashMap<(Key, Class), Opening>,
    /// How often files were forgotten because this client replaced or removed them.
    changes: u64,
}

/// An OPEN under way: the count of changes when it was sent, and the reads that wait for it.
type Opening = (u64, Vec<Queued>);

/// How a read comes to an open file.
pub(super) enum Access {
    /// The file is open.
    Open(Arc<OpenFile>, Answer<Vec<u8>>),
    /// The caller must open it.
    MustOpen(Answer<Vec<u8>>),
    /// An OPEN is under way, and [`OpenFiles::opened`] will return this read.
    Queued,
}

/// How many of these handles may be kept open.
fn kept(handles: usize) -> NonZeroUsize {
    NonZeroUsize::new(handles / 2).unwrap_or(NonZeroUsize::MIN).min(MAX_OPEN_FILES)
}

impl OpenFiles {
    /// At most half of the handles that may be open at once are kept here.
    pub(super) fn new(handles: usize) -> Self {
        Self(Mutex::new(State { open: LruCache::new(kept(handles)), opening: HashMap::new(), changes: 0 }))
    }

    /// The server told its limit after the session was opened.
    pub(super) fn told(&self, handles: usize) {
        let mut gone = Vec::new();
        {
            let mut state = self.0.lock();
            let limit = kept(handles);
            while state.open.len() > limit.get() {
                gone.extend(state.open.pop_lru());
            }
            state.open.resize(limit);
        }
        drop(gone);
    }

    pub(super) fn access(&self, wanted: &FileRange, answer: Answer<Vec<u8>>) -> Access {
        let mut state = self.0.lock();
        if let Some(file) = state.open.get(&wanted.key()).filter(|_| wanted.settled) {
            return Access::Open(file.clone(), answer);
        }
        if wanted.is_alone() {
            return Access::MustOpen(answer);
        }
        let changes = state.changes;
        match state.opening.entry((wanted.key(), wanted.class)) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().1.push((wanted.clone(), answer));
                Access::Queued
            }
            Entry::Vacant(free) => {
                free.insert((changes, Vec::new()));
                Access::MustOpen(answer)
            }
        }
    }

    /// The OPEN for `wanted` was answered; `None`: by an error. Returns the reads that waited for it.
    pub(super) fn opened(&self, wanted: &FileRange, file: Option<&Arc<OpenFile>>) -> Vec<Queued> {
        if wanted.is_alone() {
            return Vec::new();
        }
        // Dropped outside the lock: closing submits a request.
        let (waiting, evicted) = {
            let mut state = self.0.lock();
            let (changes, waiting) = state.opening.remove(&(wanted.key(), wanted.class)).unwrap_or_default();
            let kept = file.filter(|_| changes == state.changes);
            (waiting, kept.and_then(|file| state.open.push(wanted.key(), file.clone())))
        };
        drop(evicted);
        waiting
    }

    /// This client replaces, moves or removes what is at the path: another file with the same version may be there now.
    pub(super) fn forget_below(&self, path: &RemotePath) {
        let mut gone = Vec::new();
        {
            let mut state = self.0.lock();
            state.changes += 1;
            let below: Vec<Key> =
                state.open.iter().map(|(key, _)| key).filter(|(open, _)| open.starts_with(path)).cloned().collect();
            gone.extend(below.iter().filter_map(|key| state.open.pop(key)));
        }
        drop(gone);
    }

    pub(super) fn forget(&self, wanted: &FileRange) {
        let gone = self.0.lock().open.pop(&wanted.key());
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let mut gone = Vec::new();
        {
            let mut state = self.0.lock();
            while let Some((_, file)) = state.open.pop_lru() {
                gone.push(file);
            }
        }
    }
}
