//! What happened to local changes, for those who follow them: content caches, backups, the status.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::attr::{Area, Attr, Version};
use crate::path::RemotePath;

/// A change that the server has now.
pub struct Applied<'a> {
    pub area: Area,
    pub path: &'a RemotePath,
    pub change: AppliedChange<'a>,
}

/// What was changed.
pub enum AppliedChange<'a> {
    Content {
        /// What was sent.
        source: &'a File,
        /// What the server has.
        attr: Attr,
        /// CRC-32 of the content, where it is known.
        sum: Option<u32>,
        /// Nothing newer is waiting, and the file is shown at this path.
        newest: bool,
    },
    Link(&'a [u8]),
    Deleted,
    MovedFrom(&'a RemotePath),
}

/// Told in the thread that made the change, and before the change leaves the journal.
pub trait Listener: Send + Sync {
    fn applied(&self, _applied: &Applied<'_>) {}

    /// Something got another name here; the version is that of a file that the server has. The server is told later.
    fn renamed(&self, _from: &RemotePath, _to: &RemotePath, _version: Option<Version>) {}

    /// Nothing is to be sent just now. Called about twice a second.
    fn idle(&self) {}
}

/// The listeners, in the order in which they came.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Arc<dyn Listener>>>);

impl Listeners {
    pub(super) fn add(&self, listener: impl Listener + 'static) {
        self.0.lock().push(Arc::new(listener));
    }

    pub(super) fn each(&self, tell: impl Fn(&dyn Listener)) {
        let all = self.0.lock().clone();
        all.iter().for_each(|listener| tell(&**listener));
    }
}
