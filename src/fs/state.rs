//! The type [`Fs`]: its parts, and what concerns the mount as a whole.

use std::sync::{Arc, mpsc};

use super::handles::Handles;
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::dotdir::Dot;
use crate::error::{FsResult, Wait};
use crate::inode::Change;
use crate::path::RemotePath;
use crate::reader::Reader;
use crate::upload::Upload;
use crate::vfiles::Status;
use crate::view::{Space, View};

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

/// Who everything shown belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits taken away from everything shown.
    pub(super) umask: u16,
}

impl Fs {
    /// What the server says about the root, learned when the connection was made.
    pub fn set_root_attr(&self, attr: Attr) {
        self.view.set_root_attr(attr);
    }

    pub fn uid(&self) -> u32 {
        self.owner.uid
    }

    pub fn gid(&self) -> u32 {
        self.owner.gid
    }

    /// Permission bits as shown: what the server says, less the mount's umask.
    pub fn shown_perm(&self, perm: u16) -> u16 {
        perm & !self.owner.umask
    }

    /// The deadline of an operation that starts now.
    pub fn deadline(&self) -> Deadline {
        self.view.deadline()
    }

    /// Where changes go that the kernel must forget. One receiver: the invalidator's thread.
    pub fn subscribe(&self) -> mpsc::Receiver<Change> {
        self.view.subscribe()
    }

    /// Everything that is known is looked at anew when it is used next.
    pub fn renew_everything(&self) {
        self.view.renew_everything();
    }

    /// What an earlier mount left to be sent goes first, before this one is used: says what came of it. Then the tree is
    /// renewed.
    pub fn recover(&self) -> Option<String> {
        let said = self.upload.send_recovered();
        self.view.renew_from_the_start();
        said
    }

    /// Paths that are not on the server as they are shown here.
    pub fn dirty_files(&self) -> Vec<RemotePath> {
        self.upload.dirty_files()
    }

    /// Returns when everything that was changed before is on the server.
    ///
    /// # Errors
    ///
    /// What waits, and why it is not sent.
    pub fn sync(&self, wait: Wait) -> FsResult<()> {
        self.upload.barrier(wait)
    }

    /// How things stand, from what is known here.
    pub fn status(&self) -> Status {
        self.dot.status()
    }

    pub fn statfs(&self) -> Space {
        self.view.statfs()
    }

    /// Begins the end: prefetching and sending stop, and what was learned is saved.
    pub fn close(&self) {
        self.upload.close();
        self.view.close();
        self.reader.close();
    }
}
