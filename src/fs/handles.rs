//! Handles: the files and directories that the kernel has open. The server's handles are not among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::dotdir::VirtualFile;
use crate::error::{Cause, FsError, FsResult};
use crate::inode::Ino;
use crate::path::Name;
use crate::reader::OpenFile;

/// The number by which the kernel names an open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

pub(super) enum Handle {
    File(OpenFile),
    Dir(OpenDir),
    Virtual(VirtualFile),
}

pub(super) struct OpenDir {
    pub(super) ino: Ino,
    /// The names that offsets refer to; read at the first `readdir` and after a rewind.
    pub(super) entries: Mutex<Arc<Vec<(Name, Ino)>>>,
}

/// All open files and directories of a mount, by number.
#[derive(Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    pub(super) fn add(&self, handle: Handle) -> HandleId {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(id, Arc::new(handle));
        HandleId(id)
    }

    /// The open file or directory of a number.
    ///
    /// # Errors
    ///
    /// [`Cause::BadHandle`]: no handle has this number.
    pub(super) fn get(&self, op: &'static str, id: HandleId) -> FsResult<Arc<Handle>> {
        self.find(id).ok_or_else(|| FsError::new(op, "handle", Cause::BadHandle))
    }

    pub(super) fn find(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.open.lock().get(&id.0).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }

    pub(super) fn remove(&self, id: HandleId) {
        self.open.lock().remove(&id.0);
    }
}
