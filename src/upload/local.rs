//! The local state that the callers' side and the worker's side share: what is not on the server yet, and the steps
//! that change it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::given_up::GivenUp;
use super::here::Here;
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
    /// Read only: the version that a rejected change is based on.
    pub(super) content: Content,
    pub(super) journal: Arc<Journal>,
    pub(super) spools: Spools,
    names: Mutex<()>,
    pub(super) rejects: Rejects,
    pub(super) made: Made,
    pub(super) given_up: GivenUp,
    /// With `-o sync`: the error of each rejected operation, by the path for which its caller waits, until its caller has received it.
    pub(super) failures: Mutex<HashMap<RemotePath, FsError>>,
    /// Files whose content could not be recorded at `close` because the local disk failed.
    pub(super) unsaved: Mutex<BTreeSet<Ino>>,
    errors: LastError,
    /// `-o sync`: callers wait until the server has the change.
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
        let shown = content.clone();
        journal.ask_what_was_shown(move |path, version| shown.shown_blocks(path, version));
        let here = Here::open(state_dir, view.is_pantheon());
        Self(Arc::new(Inner {
            view,
            content,
            journal,
            spools: Spools::new(here),
            names: Mutex::default(),
            rejects: Rejects::new(state_dir),
            made: Made::default(),
            given_up: GivenUp::default(),
            failures: Mutex::default(),
            unsaved: Mutex::default(),
            errors,
            sync,
        }))
    }

    /// Held from the last check of the view until the change is recorded in the journal.
    pub(super) fn lock_names(&self) -> MutexGuard<'_, ()> {
        self.0.names.lock()
    }

    /// The point after the last wait and before the first change for a caller.
    ///
    /// # Errors
    ///
    /// [`Cause::TimedOut`]: the caller was interrupted and has its answer already, so that nothing may be changed.
    pub(super) fn begin(&self, op: &'static str, object: &RemotePath) -> FsResult<()> {
        call::begin().map_err(|_| FsError::new(op, object, Cause::TimedOut))?;
        self.0.view.save_at_first_change();
        Ok(())
    }

    pub(super) fn noted(&self, error: FsError) -> FsError {
        self.0.errors.noted(error)
    }

    pub(super) fn queue<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        self.0.journal.queue(look)
    }

    /// The spool of a file whose content is on this machine.
    pub(super) fn spool(&self, ino: Ino) -> Option<Arc<Spool>> {
        self.0.spools.get(ino)
    }

    pub(super) fn put_spool(&self, ino: Ino, spool: Arc<Spool>) {
        self.0.spools.put(ino, spool, || self.0.view.pin(ino));
    }

    /// See [`Spools::put_copy`](super::spools::Spools::put_copy).
    pub(super) fn put_copy(&self, ino: Ino, before: Option<&Arc<Spool>>, copy: Spool) -> Arc<Spool> {
        self.0.spools.put_copy(ino, before, Arc::new(copy), || self.0.view.pin(ino))
    }

    /// Whether a file is open whose content only the server has: it is copied before the file loses its name there.
    pub(super) fn needs_copy(&self, node: &NodeView) -> bool {
        node.opens > 0 && node.attr.is_file() && node.server.is_some() && self.spool(node.ino).is_none()
    }

    /// Releases the spool of a file that has just lost its name, unless it is open.
    pub(super) fn release_if_closed(&self, ino: Ino) {
        if self.0.view.node(ino).is_none_or(|node| node.opens == 0) {
            self.release_spool(ino);
        }
    }

    pub(super) fn release_spool(&self, ino: Ino) {
        self.0.spools.remove(ino);
        self.unpin(ino);
    }

    /// Lets listings update the node again, unless a local change of it remains. Every change pins only after it is in
    /// the queue or among the fills, so that one that is made meanwhile is either seen here or pins again.
    pub(super) fn unpin(&self, ino: Ino) {
        let changes = || self.queue(|queue| queue.concerns(ino.0)) || self.0.spools.is_filled(ino);
        self.0.spools.if_none(ino, || self.0.view.unpin_unless(ino, changes));
    }

    /// Called when the last descriptor of a file is closed. A spool that is not needed any more is removed; another
    /// one closes its own descriptor.
    pub(super) fn last_closed(&self, ino: Ino) {
        let Some(spool) = self.spool(ino) else { return };
        let unlinked = self.0.view.node(ino).is_none_or(|node| node.unlinked);
        let waits = self.queue(|queue| queue.concerns(ino.0));
        let only_here = self.0.view.node(ino).is_some_and(|node| node.only_here);
        if unlinked || (!only_here && !spool.is_dirty() && !waits) {
            // The file may have been opened again, and another spool may have replaced this one. Checked under the
            // lock of the map, because `open` counts itself before it looks for a spool, and again for a save, because
            // the file may have been closed again, too.
            let open = || self.0.view.node(ino).is_some_and(|node| node.opens > 0);
            let needed = || spool.is_dirty() || self.queue(|queue| queue.concerns(ino.0));
            self.0.spools.remove_this(ino, &spool, || open() || (!unlinked && needed()));
            self.unpin(ino);
        } else {
            // Check and action are one step: the name of a spool that no operation uses may be removed at any moment,
            // and then only the descriptor leads to the content.
            self.queue(|queue| {
                if queue.carries(spool.id()) {
                    spool.park();
                }
                if only_here {
                    spool.rest();
                }
            });
        }
    }

    /// Whether the object exists only on this machine and no operation for it is queued, so that the server need not
    /// be told.
    pub(super) fn is_unrecorded(&self, node: &NodeView) -> bool {
        node.only_here || (node.server.is_none() && !self.queue(|queue| queue.concerns(node.ino.0)))
    }

    /// The text of a symlink that is on this machine and not on the server.
    pub(super) fn link_text(&self, ino: Ino, path: &RemotePath) -> Option<Vec<u8>> {
        let text = |op: &Op| match &op.action {
            Action::Symlink { text } if op.path == *path => Some(text.clone()),
            _ => None,
        };
        let waiting = || self.queue(|queue| queue.ops().filter_map(|(_, op)| text(op)).last());
        self.0.spools.link(ino).or_else(waiting)
    }
}
