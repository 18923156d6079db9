//! Whole files of the code directory, for comparisons with the repository or with backups.

use std::cell::Cell;
use std::time::Duration;

use super::state::Reader;
use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::error::FsError;
use crate::path::RemotePath;
use crate::pending::{Found, LARGE_BYTES};

/// Files prefetched during a comparison.
const FETCH_AHEAD: usize = 200;
/// Larger files (bytes) are not read as a whole.
const MAX_READ_BYTES: u64 = 1024 * 1024 * 1024;
/// Time limit per file.
const READ_LIMIT: Duration = Duration::from_secs(60);

impl Reader {
    /// The content of one path below the code directory.
    ///
    /// # Errors
    ///
    /// A text for the log: the file is too large for the memory, or the error of the server.
    pub fn read_path(&self, path: &RemotePath, attr: Attr) -> Result<Vec<u8>, String> {
        if attr.size > MAX_READ_BYTES {
            return Err(format!("{path}: {} bytes are more than can be held in memory", attr.size));
        }
        self.read_whole(&Found { path: path.clone(), attr }, &[], &Cell::new(0))
    }

    /// The content of an object. The objects that follow it in `all` are prefetched; `next` is the first that was not
    /// requested.
    pub fn read_whole(&self, object: &Found, all: &[Found], next: &Cell<usize>) -> Result<Vec<u8>, String> {
        let path = self.0.view.in_code(&object.path);
        if object.attr.kind == FileKind::Symlink {
            return self.0.remote.readlink(&path).map_err(|e| e.to_string());
        }
        let deadline = Deadline::after(READ_LIMIT);
        let failed = |error| FsError::new("read", &path, error).to_string();
        if object.attr.version().is_racy(self.0.view.clock().wall()) {
            return self.0.content.read_anew(&path, object.attr.version(), deadline).map_err(failed);
        }
        self.fetch_ahead(object, all, next);
        let content = self.0.content.read(&path, object.attr.version(), 0..object.attr.size, deadline);
        content.map_err(failed)
    }

    fn fetch_ahead(&self, object: &Found, all: &[Found], next: &Cell<usize>) {
        let here = all.partition_point(|other| other.path < object.path);
        let mut at = next.get().max(here);
        while at < all.len().min(here + FETCH_AHEAD) {
            let other = &all[at];
            if other.attr.is_file() && other.attr.size <= LARGE_BYTES {
                self.0.content.prefetch(&self.0.view.in_code(&other.path), other.attr.version(), 0..other.attr.size);
            }
            at += 1;
        }
        next.set(at);
    }
}
