//! Whole files of the code directory, for comparisons with the repository or with backups. They are passed on in pieces: a
//! large file is never held in memory as a whole, and does not go through the caches.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::thread;
use std::time::Duration;

use super::state::Reader;
use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::error::FsError;
use crate::path::RemotePath;
use crate::pending::Found;
use crate::view::OPEN_FRESH;

/// Files prefetched during a comparison.
const FETCH_AHEAD: usize = 600;
/// Bytes prefetched during a comparison.
const FETCH_AHEAD_BYTES: u64 = 16 * 1024 * 1024;
/// Symlinks whose texts are read at a time.
const LINKS_AHEAD: usize = 128;
/// Files up to this size (bytes) are read through the caches.
const CACHED_BYTES: u64 = 1024 * 1024;
/// Larger files (bytes) are not read as a whole.
const MAX_READ_BYTES: u64 = 1024 * 1024 * 1024;
/// Time limit per file that is read through the caches, and per piece of a larger one.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// What is read ahead of someone who reads objects in their order.
#[derive(Default)]
pub struct ObjectsAhead<'a> {
    /// In path order.
    all: &'a [Found],
    /// The first file of `all` that was not prefetched.
    next: Cell<usize>,
    links: RefCell<HashMap<RemotePath, Result<Vec<u8>, String>>>,
}

impl<'a> ObjectsAhead<'a> {
    /// Reads ahead among these objects, which are in path order.
    pub fn of(all: &'a [Found]) -> Self {
        Self { all, ..Self::default() }
    }

    /// The index of this object, or of the one behind it.
    fn index_of(&self, object: &Found) -> usize {
        self.all.partition_point(|other| other.path < object.path)
    }
}

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
        self.read_pieces(&object, &ObjectsAhead::default(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Passes the content of an object to `sink`, in order. What follows it in `ahead` is prefetched.
    ///
    /// # Errors
    ///
    /// The error of the server or of `sink`, as text for the user.
    pub fn read_pieces(
        &self,
        object: &Found,
        ahead: &ObjectsAhead<'_>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), String> {
        let path = self.0.view.in_code(&object.path);
        let unkept = |error: io::Error| FsError::new("read", &path, error).to_string();
        if object.attr.kind == FileKind::Symlink {
            return sink(&self.link_text(object, ahead)?).map_err(unkept);
        }
        let failed = |error| FsError::new("read", &path, error).to_string();
        let (version, content) = (object.attr.version(), &self.0.content);
        if version.size > CACHED_BYTES {
            return content.stream(&path, version, READ_LIMIT, sink).map_err(failed)?.map_err(unkept);
        }
        self.fetch_ahead(object, ahead);
        let bytes = content.read(&path, version, 0..version.size, Deadline::after(READ_LIMIT)).map_err(failed)?;
        sink(&bytes).map_err(unkept)
    }

    fn link_text(&self, object: &Found, ahead: &ObjectsAhead<'_>) -> Result<Vec<u8>, String> {
        if let Some(text) = ahead.links.borrow_mut().remove(&object.path) {
            return text;
        }
        let read = |link: &Found| self.0.remote.readlink(&self.0.view.in_code(&link.path)).map_err(|e| e.to_string());
        let following = ahead.all[ahead.index_of(object)..].iter().filter(|other| other.path != object.path);
        let following = following.filter(|other| other.attr.kind == FileKind::Symlink).take(LINKS_AHEAD);
        thread::scope(|scope| {
            let reads: Vec<_> = following
                .filter_map(|link| Some((link, thread::Builder::new().spawn_scoped(scope, || read(link)).ok()?)))
                .collect();
            let text = read(object);
            let texts = reads.into_iter().filter_map(|(link, reading)| Some((link.path.clone(), reading.join().ok()?)));
            ahead.links.borrow_mut().extend(texts);
            text
        })
    }

    fn fetch_ahead(&self, object: &Found, ahead: &ObjectsAhead<'_>) {
        let (here, all) = (ahead.index_of(object), ahead.all);
        let (mut at, mut bytes) = (ahead.next.get().max(here), 0);
        while at < all.len().min(here + FETCH_AHEAD) && bytes < FETCH_AHEAD_BYTES {
            let other = &all[at];
            if other.attr.is_file() && other.attr.size <= CACHED_BYTES {
                let version = other.attr.version();
                let path = self.0.view.in_code(&other.path);
                bytes += self.0.content.prefetch(&path, version, 0..version.size, OPEN_FRESH);
            }
            at += 1;
        }
        ahead.next.set(at);
    }
}
