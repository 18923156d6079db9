//! Open files and directories: ours, not the server's.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Cause, Fs, FsError, FsResult};
use crate::attr::Version;
use crate::content::ReadAhead;
use crate::inode::Ino;
use crate::path::Name;

/// The number by which the kernel names an open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// How a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
}

pub(super) enum Handle {
    File(FileHandle),
    Dir(DirHandle),
    Virtual(super::virt::VirtualHandle),
}

pub(super) struct FileHandle {
    pub(super) ino: Ino,
    pub(super) mode: OpenMode,
    pub(super) reading: Mutex<Reading>,
}

/// Where a reader is and which version it reads.
pub(super) struct Reading {
    pub(super) version: Version,
    /// The node's count of foreign changes when the version was taken.
    pub(super) foreign_changes: u32,
    pub(super) started: bool,
    pub(super) ahead: ReadAhead,
}

pub(super) struct DirHandle {
    pub(super) ino: Ino,
    /// The snapshot that offsets refer to; taken at the first read and at a rewind.
    pub(super) entries: Mutex<Arc<Vec<(Name, Ino)>>>,
}

impl Fs {
    pub(super) fn add_handle(&self, handle: Handle) -> HandleId {
        let id = self.0.next_handle.fetch_add(1, Ordering::Relaxed);
        self.0.handles.lock().insert(id, Arc::new(handle));
        HandleId(id)
    }

    pub(super) fn handle(&self, op: &'static str, id: HandleId) -> FsResult<Arc<Handle>> {
        self.0.handles.lock().get(&id.0).cloned().ok_or_else(|| FsError::new(op, "handle", Cause::BadHandle))
    }

    pub(super) fn drop_handle(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.0.handles.lock().remove(&id.0)
    }
}
