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
}

impl FileRange {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn key(&self) -> Key {
        (self.path.clone(), self.version)
    }

    /// The file is read in one go: keeping it open, or sharing its OPEN, gains nothing.
    fn is_whole(&self) -> bool {
        self.len() >= self.version.size
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
    opening: HashMap<(Key, Class), Vec<Queued>>,
}

/// How a read comes to an open file.
pub(super) enum Access {
    /// The file is open.
    Open(Arc<OpenFile>, Answer<Vec<u8>>),
    /// The caller must open it.
    MustOpen(Answer<Vec<u8>>),
    /// An OPEN is under way, and [`OpenFiles::opened`] will return this read.
    Queued,
}

impl OpenFiles {
    /// At most half of the handles that may be open at once are kept here.
    pub(super) fn new(handles: usize) -> Self {
        let limit = NonZeroUsize::new(handles / 2).unwrap_or(NonZeroUsize::MIN).min(MAX_OPEN_FILES);
        Self(Mutex::new(State { open: LruCache::new(limit), opening: HashMap::new() }))
    }

    pub(super) fn access(&self, wanted: &FileRange, answer: Answer<Vec<u8>>) -> Access {
        let mut state = self.0.lock();
        if let Some(file) = state.open.get(&wanted.key()) {
            return Access::Open(file.clone(), answer);
        }
        if wanted.is_whole() {
            return Access::MustOpen(answer);
        }
        match state.opening.entry((wanted.key(), wanted.class)) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push((wanted.clone(), answer));
                Access::Queued
            }
            Entry::Vacant(free) => {
                free.insert(Vec::new());
                Access::MustOpen(answer)
            }
        }
    }

    /// The OPEN for `wanted` was answered; `None`: by an error. Returns the reads that waited for it.
    pub(super) fn opened(&self, wanted: &FileRange, file: Option<&Arc<OpenFile>>) -> Vec<Queued> {
        if wanted.is_whole() {
            return Vec::new();
        }
        // Dropped outside the lock: closing submits a request.
        let (waiting, evicted) = {
            let mut state = self.0.lock();
            let waiting = state.opening.remove(&(wanted.key(), wanted.class)).unwrap_or_default();
            (waiting, file.and_then(|file| state.open.push(wanted.key(), file.clone())))
        };
        drop(evicted);
        waiting
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
