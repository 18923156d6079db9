//! The worker's side: the type [`Sender`], the only one that changes the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::events::{Applied, Listeners};
use super::local::Local;
use super::root_check::RootCheck;
use crate::admit::Admission;
use crate::attr::{Area, Version};
use crate::content::Content;
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::remote::{Guard, Remote};
use crate::write::{Op, OpId};

/// Larger files (bytes) are not read again to compare their content.
const MAX_YOUNG_BYTES: u64 = 4 * 1024 * 1024;

/// Applies recorded operations on the server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) local: Local,
    pub(super) admission: Admission,
    pub(super) remote: Remote,
    /// Read only: the cached content of the server, for comparisons.
    pub(super) content: Content,
    pub(super) listeners: Arc<Listeners>,
    pub(super) root: Arc<RootCheck>,
    /// How often the server refused each operation. Attempts that were not sent do not count.
    pub(super) refused: Arc<Mutex<HashMap<OpId, u32>>>,
    /// Whether temporary files of earlier mounts were removed.
    pub(super) swept: Arc<AtomicBool>,
}

impl Sender {
    pub(super) fn emit(&self, applied: &Applied<'_>) {
        self.listeners.each(|listener| listener.applied(applied));
    }

    /// Removes the temporary files that an earlier mount left, before the first operation of this mount.
    pub(super) fn sweep_once(&self, permit: &WritePermit, area: Area) {
        let Some(dir) = self.temp_dir(area) else { return };
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        match self.remote.sweep(permit, &dir) {
            Ok(0) => {}
            Ok(count) => log::info!("{dir}: {count} temporary file(s) of an earlier mount removed"),
            Err(error) => {
                log::info!("{dir}: temporary files of an earlier mount may be left there: {error}");
                self.swept.store(!error.kind.is_loss(), Ordering::Relaxed);
            }
        }
    }

    /// Where the server stores the object that a request is about to destroy, so that it can be checked and restored.
    pub(super) fn guard(&self, op: &Op, path: &RemotePath, base: Option<Version>) -> Option<Guard> {
        let base = base?;
        Some(Guard { base, sum: self.sum_if_young(path, base), temp_dir: self.temp_dir(op.area)? })
    }

    /// CRC-32 of the content that this mount knows for the version, if the version is racy: another writer may have
    /// changed the content without changing the version.
    pub(super) fn sum_if_young(&self, path: &RemotePath, version: Version) -> Option<u32> {
        let young = !self.content.is_settled(path, version) && version.size <= MAX_YOUNG_BYTES;
        young.then(|| self.content.shown_sum(path, version)).flatten()
    }

    /// The server's directory for temporary files of this mount, outside of what the web server serves.
    pub(super) fn temp_dir(&self, area: Area) -> Option<RemotePath> {
        let pantheon = self.local.0.view.is_pantheon() && area == Area::Code;
        pantheon.then(|| RemotePath::parse("tmp").ok()).flatten()
    }
}
