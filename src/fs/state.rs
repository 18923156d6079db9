//! The type [`Fs`]: its parts, and the operations on the whole mount.

use std::sync::{Arc, mpsc};

use super::handles::Handles;
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::dotdir::Dot;
use crate::error::{FsResult, Wait};
use crate::inode::Change;
use crate::path::RemotePath;
use crate::reader::Reader;
use crate::upload::{Reports, Upload};
use crate::vfiles::Status;
use crate::view::{Space, View};
use crate::write::RejectKind;

/// The filesystem of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Fs {
    pub(super) view: View,
    pub(super) upload: Upload,
    pub(super) reader: Reader,
    pub(super) dot: Dot,
    pub(super) handles: Arc<Handles>,
    pub(super) owner: Owner,
}

/// The owner of everything shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits removed from everything shown.
    pub(super) umask: u16,
}

impl Fs {
    /// Sets the attributes of the root, which the server sent when the connection was made.
    pub fn set_root_attr(&self, attr: Attr) {
        self.view.set_root_attr(attr);
    }

    pub fn uid(&self) -> u32 {
        self.owner.uid
    }

    pub fn gid(&self) -> u32 {
        self.owner.gid
    }

    /// Permission bits as shown: those of the server without the mount's umask.
    pub fn shown_perm(&self, perm: u16) -> u16 {
        perm & !self.owner.umask
    }

    /// The deadline of an operation that starts now.
    pub fn deadline(&self) -> Deadline {
        self.view.deadline()
    }

    /// The stream of what the kernel must drop from its caches. There is one receiver, the invalidator's thread.
    pub fn subscribe(&self) -> mpsc::Receiver<Change> {
        self.view.subscribe()
    }

    /// Marks everything as outdated, so that it is listed again when it is used.
    pub fn renew_everything(&self) {
        self.view.renew_everything();
    }

    /// Sends what an earlier mount recorded before this one is used, and returns a line about the result. Then renews
    /// the tree.
    pub fn recover(&self) -> Option<String> {
        let said = self.upload.send_recovered();
        self.view.renew_from_the_start();
        said
    }

    /// The paths of all dirty objects: those whose shown state is not on the server yet.
    pub fn dirty_files(&self) -> Vec<RemotePath> {
        self.upload.dirty_files()
    }

    /// Whether no program has a file or directory open.
    pub fn is_unused(&self) -> bool {
        self.handles.is_empty()
    }

    /// Returns when everything that was changed before the call is on the server.
    ///
    /// # Errors
    ///
    /// The changes that are queued, and why they were not sent.
    pub fn sync(&self, wait: Wait) -> FsResult<()> {
        self.upload.barrier(Reports::Refused, wait)
    }

    /// The status of the mount, from local state.
    pub fn status(&self) -> Status {
        self.dot.status()
    }

    /// What `df` shows.
    ///
    /// # Errors
    ///
    /// Only [`Cause::WouldBlock`](crate::error::Cause::WouldBlock): the server was not asked yet.
    pub fn statfs(&self, wait: Wait) -> FsResult<Space> {
        self.view.statfs(wait)
    }

    /// Sets the one listener that is told of each change that is given up: its kind, and a line about it. It must not wait.
    pub fn on_given_up(&self, listener: impl Fn(RejectKind, &str) + Send + Sync + 'static) {
        self.upload.on_given_up(listener);
    }

    /// Prepares the end of the mount: stops prefetching and sending, and saves what was learned.
    pub fn close(&self) {
        self.upload.close();
        self.view.close();
        self.reader.close();
    }

    /// The mount is gone: saves for the next one what git may be told of changes.
    pub fn end(&self) {
        self.view.save_log();
    }
}
