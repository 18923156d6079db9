//! Comparing with the repository: surveys the files on the server and finds what is uncommitted, by `pending`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::comparisons::MeasuredFiles;
use super::state::Dot;
use crate::attr::BlobId;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::path::RemotePath;
use crate::pending::{DiffFile, Found, Measured, Pending, Source, compute};
use crate::reader::{ObjectsAhead, Reader};

/// How long a comparison is used for lookups: a path is looked up name by name.
const COMPARISON_FRESH: Duration = Duration::from_secs(1);

impl Dot {
    /// Compares and writes the diff, unless the last comparison that did is recent.
    pub(super) fn compare_if_old(&self, wait: Wait) {
        let recent =
            |at: SystemTime| self.0.view.clock().wall().duration_since(at).is_ok_and(|age| age < COMPARISON_FRESH);
        let last = self.0.comparisons.last();
        if !last.is_some_and(|(at, result)| recent(at) && result.is_ok_and(|pending| pending.diff.is_some())) {
            self.compare(wait, true);
        }
    }

    /// Compares now. Takes as long as reading the changed files. With `with_diff` the diff is written, too.
    pub(super) fn compare(&self, wait: Wait, with_diff: bool) {
        if self.0.reader.repository().mirror().is_none() {
            return;
        }
        let _running = self.0.comparisons.begin();
        let result = self.compare_files(wait, with_diff).map(Arc::new);
        if let Err(why) = &result {
            log::info!("the files could not be compared with the repository: {why}");
        }
        self.0.comparisons.ended(self.0.view.clock().wall(), result);
        self.review_backups(false);
    }

    /// The difference between the commit of a name and what the server has.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`]: there is no such name; [`Cause::Platform`] with what cannot be read.
    pub(super) fn difference_to(&self, name: &RemotePath, wait: Wait) -> FsResult<Arc<DiffFile>> {
        let failed = |why: String| FsError::new("compare", name, Cause::Platform(why));
        let revision = self.revision(name, wait)?.ok_or_else(|| FsError::new("compare", name, Cause::NotFound))?;
        let _running = self.0.comparisons.begin();
        let found = self.survey_sent(wait).map_err(failed)?;
        let compared = self.compare_with(&revision.commit, &found, true).map_err(failed)?;
        compared.diff.ok_or_else(|| failed("there is no difference".into()))
    }

    fn compare_files(&self, wait: Wait, with_diff: bool) -> Result<Pending, String> {
        let commit = || self.0.reader.repository().commit();
        let before = commit();
        let mut found = self.survey_beside(|| self.0.env.refresh(), wait)?;
        let commit = commit().ok_or("the API has not reported the deployed commit yet")?;
        if before.as_ref() != Some(&commit) {
            // The files may have been listed before the server had those of this commit.
            found = self.survey()?;
        }
        self.compare_with(&commit, &found, with_diff)
    }

    /// Surveys while `ask` asks the platform for the deployed commit and its own list, which must be current.
    fn survey_beside(&self, ask: impl Fn() + Sync, wait: Wait) -> Result<Vec<Found>, String> {
        thread::scope(|scope| {
            if let Err(error) = thread::Builder::new().name("comparison".into()).spawn_scoped(scope, &ask) {
                log::debug!("the platform is asked before the survey: {error}");
                ask();
            }
            self.survey_sent(wait)
        })
    }

    /// The survey after what is queued was sent: the comparison reads the server.
    fn survey_sent(&self, wait: Wait) -> Result<Vec<Found>, String> {
        if let Err(error) = self.0.upload.wait_until_sent(wait) {
            log::info!("before the comparison: {error}");
        }
        self.survey()
    }

    fn compare_with(&self, commit: &str, found: &[Found], with_diff: bool) -> Result<Pending, String> {
        let mirror = self.0.reader.repository().mirror().ok_or("there is no repository")?;
        let before = self.0.comparisons.take_measured();
        let source = Server { dot: self, ahead: ObjectsAhead::of(found), before: &before };
        compute(mirror, commit, found, &source, with_diff).map_err(|e| e.to_string())
    }
}

/// The surveyed files of the server.
struct Server<'a> {
    dot: &'a Dot,
    ahead: ObjectsAhead<'a>,
    before: &'a MeasuredFiles,
}

impl Server<'_> {
    fn reader(&self) -> &Reader {
        &self.dot.0.reader
    }

    fn on_server(&self, object: &Found) -> RemotePath {
        self.dot.0.view.in_code(&object.path)
    }
}

impl Source for Server<'_> {
    fn proved(&self, object: &Found) -> Option<BlobId> {
        self.reader().content().proved(&self.on_server(object), object.attr.version())
    }

    fn measured(&self, object: &Found) -> Option<Measured> {
        let version = object.attr.version();
        let known = self.before.get(&object.path).filter(|(of, _)| *of == version).map(|(_, measured)| *measured);
        known.filter(|_| self.reader().content().is_settled(&self.on_server(object), version))
    }

    fn note(&self, object: &Found, measured: Measured) {
        let (path, version) = (self.on_server(object), object.attr.version());
        if self.reader().content().is_settled(&path, version) {
            self.reader().content().verified(&path, version, measured.blob);
            self.dot.0.comparisons.measured(&object.path, version, measured);
        }
    }

    fn read(&self, object: &Found, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), String> {
        self.reader().read_pieces(object, &self.ahead, sink)
    }
}
