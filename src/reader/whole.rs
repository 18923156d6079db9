//! Whole files of the code directory, for comparisons with the repository or with backups. They are passed on in pieces: a
//! large file is never held in memory as a whole, and does not go through the caches.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::state::Reader;
use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::error::FsError;
use crate::path::RemotePath;
use crate::pending::Found;

/// Files prefetched during a comparison.
const FETCH_AHEAD: usize = 200;
/// Bytes prefetched during a comparison.
const FETCH_AHEAD_BYTES: u64 = 16 * 1024 * 1024;
/// Files up to this size (bytes) are read through the caches.
const CACHED_BYTES: u64 = 1024 * 1024;
/// Larger files (bytes) are not read as a whole.
const MAX_READ_BYTES: u64 = 1024 * 1024 * 1024;
/// Time limit per file that is read through the caches, and per piece of a larger one.
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
        let mut bytes = Vec::new();
        let object = Found { path: path.clone(), attr };
        self.read_pieces(&object, (&[], &Cell::new(0)), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Passes the content of an object to `sink`, in order. The objects that follow it in `all` are prefetched; `next` is
    /// the first that was not requested.
    ///
    /// # Errors
    ///
    /// The error of the server or of `sink`, as text for the user.
    pub fn read_pieces(
        &self,
        object: &Found,
        (all, next): (&[Found], &Cell<usize>),
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), String> {
        let path = self.0.view.in_code(&object.path);
        let unkept = |error: io::Error| FsError::new("read", &path, error).to_string();
        if object.attr.kind == FileKind::Symlink {
            let text = self.0.remote.readlink(&path).map_err(|e| e.to_string())?;
            return sink(&text).map_err(unkept);
        }
        let failed = |error| FsError::new("read", &path, error).to_string();
        let (version, content) = (object.attr.version(), &self.0.content);
        let settled = content.is_settled(&path, version);
        if settled && version.size <= CACHED_BYTES {
            self.fetch_ahead(object, all, next);
            let bytes = content.read(&path, version, 0..version.size, Deadline::after(READ_LIMIT)).map_err(failed)?;
            return sink(&bytes).map_err(unkept);
        }
        content.stream(&path, version, READ_LIMIT, sink).map_err(failed)?.map_err(unkept)
    }

    fn fetch_ahead(&self, object: &Found, all: &[Found], next: &Cell<usize>) {
        let here = all.partition_point(|other| other.path < object.path);
        let (mut at, mut bytes) = (next.get().max(here), 0);
        while at < all.len().min(here + FETCH_AHEAD) && bytes < FETCH_AHEAD_BYTES {
            let other = &all[at];
            if other.attr.is_file() && other.attr.size <= CACHED_BYTES {
                let version = other.attr.version();
                let path = self.0.view.in_code(&other.path);
                bytes += self.0.content.prefetch(&path, version, 0..version.size, Duration::ZERO);
            }
            at += 1;
        }
        next.set(at);
    }
}
