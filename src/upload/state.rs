//! The type [`Upload`]: its parts, and the steps on them that every other file of the room uses.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::events::{Applied, Listener, Listeners};
use super::spools::Spools;
use crate::admit::Admission;
use crate::attr::Area;
use crate::content::Content;
use crate::error::{FsError, FsResult, LastError, Wait};
use crate::gate::WritePermit;
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::remote::Remote;
use crate::view::{Unsent, View};
use crate::write::{Action, Journal, Op, Queue, RejectKind, Rejects, Spool};

/// See the module header. Cheap to clone.
#[derive(Clone)]
pub struct Upload(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) view: View,
    pub(super) admission: Admission,
    pub(super) remote: Remote,
    /// Only read: what the server has, to take it over or to compare it.
    pub(super) content: Content,
    pub(super) journal: Arc<Journal>,
    pub(super) spools: Spools,
    names: Mutex<()>,
    pub(super) rejects: Rejects,
    /// With `-o sync`: why an operation was rejected, by its path, until its caller has been told.
    pub(super) failures: Mutex<HashMap<RemotePath, FsError>>,
    pub(super) listeners: Listeners,
    pub(super) errors: LastError,
    /// `-o sync`: callers wait for the server.
    pub(super) sync: bool,
}

/// What of a journal the server does not know yet, for the view.
pub fn unsent_in(journal: &Arc<Journal>) -> Box<dyn Unsent> {
    Box::new(UnsentNames(journal.clone()))
}

struct UnsentNames(Arc<Journal>);

impl Unsent for UnsentNames {
    fn takes_away(&self, path: &RemotePath) -> bool {
        self.0.queue(|queue| queue.takes_away(path))
    }

    fn is_elsewhere(&self, path: &RemotePath) -> bool {
        self.0.queue(|queue| queue.is_elsewhere(path))
    }

    fn wait_until_there(&self, path: &RemotePath, patience: Duration) -> bool {
        self.0.wait_until(patience, |queue| !queue.is_elsewhere(path))
    }
}

impl Upload {
    /// What an earlier mount left in the journal is not shown yet: see [`Upload::show_what_waits`]. Nothing is sent
    /// before [`Upload::start`].
    pub fn new(
        (view, admission): (View, Admission),
        (remote, content): (Remote, Content),
        journal: Arc<Journal>,
        state_dir: &Path,
        sync: bool,
        errors: LastError,
    ) -> Self {
        Self(Arc::new(Inner {
            view,
            admission,
            remote,
            content,
            journal,
            spools: Spools::default(),
            names: Mutex::default(),
            rejects: Rejects::new(state_dir),
            failures: Mutex::default(),
            listeners: Listeners::default(),
            errors,
            sync,
        }))
    }

    /// Has a listener told of what happens from now on. It must not keep an [`Upload`] alive.
    pub fn listen(&self, listener: impl Listener + 'static) {
        self.0.listeners.add(listener);
    }

    /// Sending stops.
    pub fn close(&self) {
        self.0.journal.close();
    }

    /// Held from the last look at the view to the record in the journal.
    pub(super) fn lock_names(&self) -> MutexGuard<'_, ()> {
        self.0.names.lock()
    }

    pub(super) fn noted(&self, error: FsError) -> FsError {
        self.0.errors.noted(error)
    }

    pub(super) fn emit(&self, applied: &Applied<'_>) {
        self.0.listeners.each(|listener| listener.applied(applied));
    }

    /// Permission for a change of this object.
    pub fn permit(&self, op: &'static str, ino: Ino, object: &RemotePath, wait: Wait) -> FsResult<WritePermit> {
        let gone = || FsError::new(op, object, crate::error::Cause::NotFound);
        let area = self.0.view.area(ino).ok_or_else(gone)?;
        self.0.admission.permit(op, area, object, wait)
    }

    /// Whether the mode of the environment lets this object be changed, for access(2).
    pub fn may_write(&self, op: &'static str, ino: Ino) -> FsResult<()> {
        let Some(area) = self.0.view.area(ino) else { return Ok(()) };
        self.0.admission.may_write(op, area, &self.0.view.object(ino))
    }

    pub(super) fn queue<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        self.0.journal.queue(look)
    }

    // Spools.

    /// The content of a file, where it is on this machine.
    pub fn spool(&self, ino: Ino) -> Option<Arc<Spool>> {
        self.0.spools.get(ino)
    }

    pub(super) fn put_spool(&self, ino: Ino, spool: Arc<Spool>) {
        self.0.spools.put(ino, spool, || self.0.view.pin(ino, true));
    }

    pub(super) fn release_spool(&self, ino: Ino) {
        self.0.spools.remove(ino);
        self.unpin(ino);
    }

    /// The node follows the server again, if nothing local is left about it.
    pub(super) fn unpin(&self, ino: Ino) {
        let waits = self.queue(|queue| queue.concerns(ino.0));
        self.0.spools.if_none(ino, || {
            if !waits {
                self.0.view.pin(ino, false);
            }
        });
    }

    /// The last descriptor is closed: a spool that nobody needs goes, another one gives its descriptor back.
    pub fn last_closed(&self, ino: Ino) {
        let Some(spool) = self.spool(ino) else { return };
        let unlinked = self.0.view.node(ino).is_none_or(|node| node.unlinked);
        let waits = self.queue(|queue| queue.concerns(ino.0));
        if unlinked || (!spool.is_dirty() && !waits) {
            // Another one may have taken its place meanwhile, for a caller that has just opened the file.
            self.0.spools.remove_this(ino, &spool, || !unlinked && spool.is_dirty());
            self.unpin(ino);
        } else {
            // Looked at and done in one step: the name of what no operation carries may go at any moment, and then only
            // the descriptor leads to the content.
            self.queue(|queue| {
                if queue.carries(spool.id()) {
                    spool.park();
                }
            });
        }
    }

    /// An object that only this machine knows, and no operation waits for: the server need not be told of it.
    pub(super) fn is_unrecorded(&self, node: &NodeView) -> bool {
        node.server.is_none() && !self.queue(|queue| queue.concerns(node.ino.0))
    }

    /// The text of a link that is on this machine and not on the server.
    pub fn link_text(&self, ino: Ino, path: &RemotePath) -> Option<Vec<u8>> {
        let text = |op: &Op| match &op.action {
            Action::Symlink { text } if op.path == *path => Some(text.clone()),
            _ => None,
        };
        let waiting = || self.queue(|queue| queue.ops().filter_map(|(_, op)| text(op)).last());
        self.0.spools.link(ino).or_else(waiting)
    }

    // For the status.

    /// What waits to be sent, a line each.
    pub fn waiting(&self) -> Vec<String> {
        self.queue(|queue| queue.ops().map(|(_, op)| op.describe()).collect())
    }

    /// Bytes of content that wait to be sent.
    pub fn waiting_bytes(&self) -> u64 {
        self.queue(Queue::bytes)
    }

    /// Where rejected content of this kind is kept, on the local disk.
    pub fn rejects_dir(&self, kind: RejectKind) -> PathBuf {
        self.0.rejects.dir(kind)
    }

    /// What of this kind is kept, as paths below [`Upload::rejects_dir`].
    pub fn rejects(&self, kind: RejectKind) -> Vec<PathBuf> {
        self.0.rejects.list(kind)
    }

    /// Where the server keeps temporary files for us, outside of what it serves.
    pub(super) fn temp_dir(&self, area: Area) -> Option<RemotePath> {
        let pantheon = self.0.view.is_pantheon() && area == Area::Code;
        pantheon.then(|| RemotePath::parse("tmp").ok()).flatten()
    }
}
