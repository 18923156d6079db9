//! Events that tell listeners (content caches, backups, the status) what happened to local changes.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::attr::{Area, Attr, Version};
use crate::path::RemotePath;

/// A change that the server has.
pub struct Applied<'a> {
    pub area: Area,
    pub path: &'a RemotePath,
    pub change: AppliedChange<'a>,
}

/// The kind of change, with the data that listeners need.
pub enum AppliedChange<'a> {
    Content {
        /// The bytes that were sent.
        source: &'a File,
        /// The attributes of the file on the server.
        attr: Attr,
        /// CRC-32 of the content, if it is known.
        sum: Option<u32>,
        /// The path at which readers are shown these bytes; `None` if newer ones are queued, or for large files. A queued
        /// rename may have made it another one.
        shown_at: Option<RemotePath>,
    },
    Link(&'a [u8]),
    Deleted,
    RenamedFrom(&'a RemotePath),
}

/// Called in the worker thread that applied the change, before the operation leaves the journal.
pub trait Listener: Send + Sync {
    fn applied(&self, _applied: &Applied<'_>) {}

    /// An object was renamed locally; `files` are those that the server has of it, relative to it, with the server's
    /// versions. The server's rename follows later.
    fn renamed(&self, _from: &RemotePath, _to: &RemotePath, _files: &[(RemotePath, Version)]) {}

    /// No operation is due. Called about twice a second.
    fn idle(&self) {}
}

/// The listeners, in the order in which they were added.
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
