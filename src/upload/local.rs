//! What is not on the server yet, and the steps on it that the sides of the callers and of the worker share.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::made::Made;
use super::spools::Spools;
use crate::call;
use crate::content::Content;
use crate::error::{Cause, FsError, FsResult, LastError};
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::view::View;
use crate::write::{Action, Journal, Op, Queue, Rejects, Spool};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Local(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) view: View,
    /// Only read: what a rejected change was made from.
    pub(super) content: Content,
    pub(super) journal: Arc<Journal>,
    pub(super) spools: Spools,
    names: Mutex<()>,
    pub(super) rejects: Rejects,
    pub(super) made: Made,
    /// With `-o sync`: why an operation was rejected, by its path, until its caller has been told.
    pub(super) failures: Mutex<HashMap<RemotePath, FsError>>,
    /// Files whose content could not be recorded when they were closed: the local disk failed.
    pub(super) unsaved: Mutex<BTreeSet<Ino>>,
    errors: LastError,
    /// `-o sync`: callers wait for the server.
    pub(super) sync: bool,
}

impl Local {
    pub(super) fn new(
        (view, content): (View, Content),
        journal: Arc<Journal>,
        state_dir: &Path,
        sync: bool,
        errors: LastError,
    ) -> Self {
        Self(Arc::new(Inner {
            view,
            content,
            journal,
            spools: Spools::default(),
            names: Mutex::default(),
            rejects: Rejects::new(state_dir),
            made: Made::default(),
            failures: Mutex::default(),
            unsaved: Mutex::default(),
            errors,
            sync,
        }))
    }

    /// Held from the last look at the view to the record in the journal.
    pub(super) fn lock_names(&self) -> MutexGuard<'_, ()> {
        self.0.names.lock()
    }

    /// After the last wait, and before anything is changed for a caller.
    ///
    /// # Errors
    ///
    /// The caller was interrupted and told so: nothing may be changed.
    pub(super) fn begin(&self, op: &'static str, object: &RemotePath) -> FsResult<()> {
        call::begin().map_err(|_| FsError::new(op, object, Cause::TimedOut))
    }

    pub(super) fn noted(&self, error: FsError) -> FsError {
        self.0.errors.noted(error)
    }

    pub(super) fn queue<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        self.0.journal.queue(look)
    }

    /// The content of a file, where it is on this machine.
    pub(super) fn spool(&self, ino: Ino) -> Option<Arc<Spool>> {
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
    pub(super) fn last_closed(&self, ino: Ino) {
        let Some(spool) = self.spool(ino) else { return };
        let unlinked = self.0.view.node(ino).is_none_or(|node| node.unlinked);
        let waits = self.queue(|queue| queue.concerns(ino.0));
        if unlinked || (!spool.is_dirty() && !waits) {
            // The file may have been opened again meanwhile, and another spool may have taken the place of this one. Asked
            // under the lock of the map: an `open` counts itself before it looks for a spool.
            let open = || self.0.view.node(ino).is_some_and(|node| node.opens > 0);
            self.0.spools.remove_this(ino, &spool, || open() || (!unlinked && spool.is_dirty()));
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
    pub(super) fn link_text(&self, ino: Ino, path: &RemotePath) -> Option<Vec<u8>> {
        let text = |op: &Op| match &op.action {
            Action::Symlink { text } if op.path == *path => Some(text.clone()),
            _ => None,
        };
        let waiting = || self.queue(|queue| queue.ops().filter_map(|(_, op)| text(op)).last());
        self.0.spools.link(ino).or_else(waiting)
    }
}
