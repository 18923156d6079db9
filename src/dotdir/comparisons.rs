//! The last comparison with the repository, and what comparisons have read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use crate::attr::Version;
use crate::path::RemotePath;
use crate::pending::{DiffFile, Measured, Pending};

/// The time and the result of the last comparison.
type LastComparison = Option<(SystemTime, Result<Arc<Pending>, String>)>;

/// The results of reading uncommitted files, each of a version.
pub(super) type MeasuredFiles = HashMap<RemotePath, (Version, Measured)>;

/// The last comparison, and what comparisons have read.
#[derive(Default)]
pub(super) struct Comparisons {
    last: Mutex<LastComparison>,
    /// Results of reading the uncommitted files of the last comparison. They are not read again while their version
    /// stays the same.
    measured: Mutex<MeasuredFiles>,
    /// Held during a comparison, so that concurrent ones do not read the same files.
    running: Mutex<()>,
}

impl Comparisons {
    /// Waits until no other comparison runs.
    pub(super) fn begin(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    pub(super) fn ended(&self, at: SystemTime, result: Result<Arc<Pending>, String>) {
        *self.last.lock() = Some((at, result));
    }

    /// Takes the results of the comparison before.
    pub(super) fn take_measured(&self) -> MeasuredFiles {
        std::mem::take(&mut *self.measured.lock())
    }

    pub(super) fn measured(&self, path: &RemotePath, version: Version, measured: Measured) {
        self.measured.lock().insert(path.clone(), (version, measured));
    }

    pub(super) fn last(&self) -> LastComparison {
        self.last.lock().clone()
    }

    /// The result of the last comparison, if it succeeded.
    pub(super) fn pending(&self) -> Option<Arc<Pending>> {
        self.last()?.1.ok()
    }

    /// The diff of the last comparison, if it made one.
    pub(super) fn diff(&self) -> Option<Arc<DiffFile>> {
        self.pending()?.diff.clone()
    }
}
