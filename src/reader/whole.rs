//! Files of the code directory in full, for comparing them: with the repository, or with copies that are kept here. They are
//! handed out piece by piece; a large one is never in the memory as a whole, nor in the caches.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::state::Reader;
use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::error::FsError;
use crate::path::RemotePath;
use crate::pending::Found;

/// Files, and bytes, fetched ahead of the comparison.
const FETCH_AHEAD: usize = 200;
const FETCH_AHEAD_BYTES: u64 = 16 * 1024 * 1024;
/// Files up to this size (bytes) come through the caches.
const CACHED_BYTES: u64 = 1024 * 1024;
/// Content of more bytes than this is not read as a whole.
const MAX_READ_BYTES: u64 = 1024 * 1024 * 1024;
/// How long one file may take that comes through the caches, and how long one piece of a larger one.
const READ_LIMIT: Duration = Duration::from_secs(60);

impl Reader {
    /// The content of one path below the code directory.
    ///
    /// # Errors
    ///
    /// A text for people: too large for the memory, or what the server said.
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

    /// The content of an object in order, with those that follow it in `all` on their way. `next` says how far they were
    /// asked for.
    ///
    /// # Errors
    ///
    /// A text for people: what the server said, or what `sink` did.
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
                bytes += self.0.content.prefetch(&self.0.view.in_code(&other.path), version, 0..version.size);
            }
            at += 1;
        }
        next.set(at);
    }
}
