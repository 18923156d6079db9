//! What is uncommitted: the files of the server, surveyed now, compared with the repository by `pending`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::state::Dot;
use crate::attr::{BlobId, Version};
use crate::error::Wait;
use crate::path::RemotePath;
use crate::pending::{DiffFile, Found, Measured, Pending, Source, compute};
use crate::reader::Reader;

/// How long a look is good for the next name of a path.
const LOOK_FRESH: Duration = Duration::from_secs(1);

/// When was looked last, and what came of it.
type LastLook = Option<(SystemTime, Result<Arc<Pending>, String>)>;

/// The last look, and what looks have measured.
#[derive(Default)]
pub(super) struct Looks {
    last: Mutex<LastLook>,
    /// Of uncommitted files as the last look saw them: a version that has not moved is not read again.
    measured: Mutex<HashMap<RemotePath, (Version, Measured)>>,
    /// One look at a time: a second one would read the same.
    looking: Mutex<()>,
}

impl Looks {
    pub(super) fn last(&self) -> LastLook {
        self.last.lock().clone()
    }

    /// What the last look saw, if it saw anything.
    pub(super) fn pending(&self) -> Option<Arc<Pending>> {
        self.last()?.1.ok()
    }

    /// The differences that the last look wrote down.
    pub(super) fn diff(&self) -> Option<Arc<DiffFile>> {
        self.pending()?.diff.clone()
    }
}

impl Dot {
    /// Looks and writes the differences down, unless that was just done: a path is walked name by name.
    pub(super) fn look_if_old(&self, wait: Wait) {
        let recent = |at: SystemTime| self.0.view.clock().wall().duration_since(at).is_ok_and(|age| age < LOOK_FRESH);
        let last = self.0.looks.last();
        if !last.is_some_and(|(at, seen)| recent(at) && seen.is_ok_and(|pending| pending.diff.is_some())) {
            self.look(wait, true);
        }
    }

    /// Looks now. May take as long as reading what has changed takes. With `with_diff` the differences are written down.
    pub(super) fn look(&self, wait: Wait, with_diff: bool) {
        if self.0.reader.repository().mirror().is_none() {
            return;
        }
        let _one = self.0.looks.looking.lock();
        // Which commit runs, and what the platform's own list says: both of now.
        self.0.env.refresh();
        let result = self.look_at_files(wait, with_diff).map(Arc::new);
        if let Err(why) = &result {
            log::info!("what is uncommitted could not be compared: {why}");
        }
        *self.0.looks.last.lock() = Some((self.0.view.clock().wall(), result));
        self.review_backups(false);
    }

    fn look_at_files(&self, wait: Wait, with_diff: bool) -> Result<Pending, String> {
        let repository = self.0.reader.repository();
        let mirror = repository.mirror().ok_or("there is no repository")?;
        let commit = repository.commit().ok_or("the API has not said which commit runs")?;
        // What waits here is not on the server, and the comparison is with the server.
        if let Err(error) = self.0.upload.barrier(wait) {
            log::info!("before looking: {error}");
        }
        let found = self.survey()?;
        let before = std::mem::take(&mut *self.0.looks.measured.lock());
        let source = Server { dot: self, found: &found, next: Cell::new(0), before: &before };
        compute(mirror, &commit, &found, &source, with_diff).map_err(|e| e.to_string())
    }
}

/// The files of the server, as they were found.
struct Server<'a> {
    dot: &'a Dot,
    found: &'a [Found],
    /// How far files were asked for ahead.
    next: Cell<usize>,
    before: &'a HashMap<RemotePath, (Version, Measured)>,
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
            self.dot.0.looks.measured.lock().insert(object.path.clone(), (version, measured));
        }
    }

    fn read(&self, object: &Found, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), String> {
        self.reader().read_pieces(object, (self.found, &self.next), sink)
    }
}
