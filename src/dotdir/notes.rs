//! Recent events, for the status.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::env::Committed;
use crate::path::RemotePath;

/// Number of remembered written paths. Beyond it only the platform's list is complete.
const MAX_WRITTEN: usize = 10_000;

/// Events that a user needs when something went wrong.
#[derive(Default)]
pub(super) struct Notes(Mutex<Noted>);

/// The state of the notes at one moment.
#[derive(Default, Clone)]
pub(super) struct Noted {
    pub(super) sent_files: u64,
    pub(super) sent_bytes: u64,
    pub(super) written: BTreeSet<RemotePath>,
    /// Written paths that are matched by .gitignore and will never be committed.
    pub(super) ignored: BTreeSet<RemotePath>,
    /// Paths with a backup that are gone from the server.
    pub(super) lost: Vec<RemotePath>,
    pub(super) committed: Option<Committed>,
}

impl Notes {
    pub(super) fn now(&self) -> Noted {
        self.0.lock().clone()
    }

    pub(super) fn sent(&self, bytes: u64) {
        let mut inner = self.0.lock();
        inner.sent_files += 1;
        inner.sent_bytes += bytes;
    }

    /// This mount changed a path in code on the server.
    pub(super) fn written(&self, path: &RemotePath) {
        let mut inner = self.0.lock();
        inner.lost.retain(|lost| lost != path);
        if inner.written.len() < MAX_WRITTEN {
            inner.written.insert(path.clone());
        }
    }

    /// An ignored path was written; returns whether that is new.
    pub(super) fn ignored(&self, path: &RemotePath) -> bool {
        let mut inner = self.0.lock();
        inner.ignored.len() < MAX_WRITTEN && inner.ignored.insert(path.clone())
    }

    pub(super) fn lost(&self, lost: Vec<RemotePath>) {
        self.0.lock().lost = lost;
    }

    pub(super) fn all_written(&self) -> Vec<RemotePath> {
        self.0.lock().written.iter().cloned().collect()
    }

    pub(super) fn committed(&self, committed: Committed) {
        self.0.lock().committed = Some(committed);
    }

    /// Everything that was written is committed or discarded.
    pub(super) fn forget_written(&self) {
        self.0.lock().written.clear();
    }
}
