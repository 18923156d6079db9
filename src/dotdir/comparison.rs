//! The comparison with the repository: surveys the files on the server and finds what is uncommitted, by `pending`.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::state::Dot;
use crate::error::Wait;
use crate::path::RemotePath;
use crate::pending::{Found, Known, Pending, compute};

/// How long a comparison is used for lookups: a path is looked up name by name.
const COMPARISON_FRESH: Duration = Duration::from_secs(1);

/// The time and the result of the last comparison.
type LastComparison = Option<(SystemTime, Result<Arc<Pending>, String>)>;

/// The last comparison.
#[derive(Default)]
pub(super) struct Comparisons(Mutex<LastComparison>);

impl Comparisons {
    pub(super) fn last(&self) -> LastComparison {
        self.0.lock().clone()
    }

    /// The result of the last comparison, if it succeeded.
    pub(super) fn pending(&self) -> Option<Arc<Pending>> {
        self.last()?.1.ok()
    }
}

impl Dot {
    /// Compares, unless the last comparison is recent.
    pub(super) fn compare_if_old(&self, wait: Wait) {
        let recent =
            |at: SystemTime| self.0.view.clock().wall().duration_since(at).is_ok_and(|age| age < COMPARISON_FRESH);
        if !self.0.comparisons.last().is_some_and(|(at, _)| recent(at)) {
            self.compare(wait);
        }
    }

    /// Compares now. Takes as long as reading the changed files.
    pub(super) fn compare(&self, wait: Wait) {
        if self.0.reader.repository().mirror().is_none() {
            return;
        }
        // The deployed commit and the platform's own list must be current.
        self.0.env.refresh();
        let result = self.compare_files(wait).map(Arc::new);
        if let Err(why) = &result {
            log::info!("the files could not be compared with the repository: {why}");
        }
        *self.0.comparisons.0.lock() = Some((self.0.view.clock().wall(), result));
        self.review_backups(false);
    }

    fn compare_files(&self, wait: Wait) -> Result<Pending, String> {
        let (reader, content) = (&self.0.reader, self.0.reader.content());
        let mirror = reader.repository().mirror().ok_or("there is no repository")?;
        let commit = reader.repository().commit().ok_or("the API has not reported the deployed commit yet")?;
        // Queued changes are not on the server yet, and the comparison reads the server.
        if let Err(error) = self.0.upload.barrier(wait) {
            log::info!("before the comparison: {error}");
        }
        let found = self.survey()?;
        let next = Cell::new(0);
        let read = |object: &Found| reader.read_whole(object, &found, &next);
        let on_server = |path: &RemotePath| self.0.view.in_code(path);
        let known = Known {
            blob: &|object| content.proved(&on_server(&object.path), object.attr.version()),
            note: &|object, blob| content.verified(&on_server(&object.path), object.attr.version(), blob),
        };
        compute(mirror, &commit, &found, &known, &read).map_err(|e| e.to_string())
    }
}
