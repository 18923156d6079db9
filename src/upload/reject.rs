//! Rejection: content that the server does not accept is stored on this machine as a conflict or as stranded, and the
//! server's version is shown again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::Local;
use crate::attr::Version;
use crate::error::{Cause, FsError};
use crate::inode::{Change, Ino, NodeView};
use crate::path::RemotePath;
use crate::write::{Action, Expected, Op, OpId, Put, RejectKind, Spool};

/// Pause before a rejection whose copy could not be written is retried.
const FULL_PAUSE: Duration = Duration::from_secs(10);
/// The base of a conflict is stored as well, if the file is at most this large (bytes) and still cached.
const MAX_BASE_BYTES: u64 = 4 * 1024 * 1024;

impl Local {
    /// Ends an operation that the server does not accept.
    pub(super) fn reject(&self, id: OpId, op: &Op, kind: RejectKind, error: FsError) {
        self.reject_kept(id, op, kind, error, None);
    }

    /// The same; `kept` is the copy of the content, if there is one already.
    pub(super) fn reject_kept(&self, id: OpId, op: &Op, kind: RejectKind, error: FsError, mut kept: Option<PathBuf>) {
        if let Some(spool) = op.spool() {
            match self.keep_copy(kind, &op.path, &self.0.journal.spool_path(spool)) {
                Ok(copy) => {
                    log::warn!("{}: your version is kept in {}", op.path, copy.display());
                    self.keep_base(op, kind, &copy);
                    kept = Some(copy);
                }
                Err(trouble) => {
                    // Waiting is better than losing the content: the operation stays in the journal.
                    log::error!("{}: could not be sent ({error}), and keeping a copy failed: {trouble}", op.path);
                    self.0.journal.put_back(id, FULL_PAUSE);
                    return;
                }
            }
        }
        let error = self.noted(error);
        self.note_given_up(kind, op, &error, kept);
        if self.0.sync {
            self.0.failures.lock().insert(op.awaited().clone(), error);
        }
        self.0.view.touch_parents(op.paths());
        self.note_restored(op, kind);
        let _ending = self.finish(id, Expected::Unknown);
        // The file at the new name is the one that was there before the rename, as it was. After a conflict another writer has
        // changed it, so that the next save must be a conflict, too.
        if let (Action::Rename { dir: false, .. }, RejectKind::Stranded) = (&op.action, kind) {
            self.0.view.forget_shown(Ino(op.ino));
        }
        self.show_theirs(op);
        self.release_after(op);
    }

    /// Names that the server still has because a change of them was refused: when they are listed again, no other writer has
    /// made them. After a conflict this holds only for the old name of a move.
    fn note_restored(&self, op: &Op, kind: RejectKind) {
        match (&op.action, kind) {
            (_, RejectKind::Stranded) => op.paths().for_each(|path| self.0.view.restored(path)),
            (Action::Rename { .. }, RejectKind::Conflict) => self.0.view.restored(&op.path),
            _ => {}
        }
    }

    /// Takes note of a rejected operation.
    pub(super) fn note_given_up(&self, kind: RejectKind, op: &Op, error: &FsError, copy: Option<PathBuf>) {
        let mut shown = op.clone();
        shown.path = self.0.view.shown_path(&op.path);
        if let Action::Rename { to, .. } = &mut shown.action {
            *to = self.0.view.shown_path(to);
        }
        self.0.given_up.add_op(kind, op, format!("{}: {}", shown.describe(), why(error)), copy);
    }

    /// Stores the rejected copy. If there is no room for one, the spool file itself becomes the copy.
    fn keep_copy(&self, kind: RejectKind, path: &RemotePath, spool: &Path) -> io::Result<PathBuf> {
        let copied = File::open(spool).and_then(|file| self.0.rejects.keep(kind, path, &file));
        copied.or_else(|error| {
            log::info!("{path}: {error}; its spool file becomes the rejected copy");
            self.0.rejects.keep_linked(kind, path, spool).map_err(|_| error)
        })
    }

    fn keep_base(&self, op: &Op, kind: RejectKind, copy: &Path) {
        if let Action::Put(Put { base: Expected::Version(version), .. }) = &op.action
            && kind == RejectKind::Conflict
        {
            self.keep_base_of(&op.path, *version, copy);
        }
    }

    /// Stores the version that a conflicting save is based on beside the rejected copy, if it is still cached: a
    /// three-way merge needs it.
    pub(super) fn keep_base_of(&self, path: &RemotePath, version: Version, copy: &Path) {
        if version.size <= MAX_BASE_BYTES
            && let Some(bytes) = self.0.content.last_shown(path, version)
            && let Err(error) = self.0.rejects.keep_base(copy, &bytes)
        {
            log::warn!("{path}: the version that it is based on could not be stored: {error}");
        }
    }

    fn show_theirs(&self, op: &Op) {
        let ino = Ino(op.ino);
        let current = self.spool(ino).filter(|_| op.ino != 0);
        if current.is_some_and(|spool| Some(spool.id()) == op.spool() && !spool.is_dirty()) {
            self.release_spool(ino);
        }
        // A file that exists only on this machine is removed from the view together with the operation that was to
        // create it.
        if let Some(node) = self.0.view.node(ino).filter(|node| op.ino != 0 && !node.unlinked)
            && node.server.is_none()
            && self.is_unrecorded(&node)
            && self.spool(ino).is_none()
        {
            self.stop_showing(&node);
        }
        self.unpin(ino);
        for path in op.paths() {
            if let Some(dir) = path.parent().and_then(|dir| self.0.view.find(&dir)) {
                self.0.view.expire(dir);
                if let Some(name) = path.file_name() {
                    self.0.view.announce([Change::Entry { parent: dir, name }]);
                }
            }
        }
        self.0.view.announce([Change::Content(ino)]);
    }

    fn stop_showing(&self, node: &NodeView) {
        if let Some(name) = self.0.view.path(node.ino).and_then(|path| path.file_name()) {
            self.0.view.remove(node.parent, &name);
            self.0.view.announce([Change::Entry { parent: node.parent, name }]);
        }
    }

    /// Stores a rejected copy of content that cannot be recorded, and shows the server's version again. Returns
    /// `false`, and leaves the spool, if the copy could not be written.
    pub(super) fn reject_unrecorded(&self, kind: RejectKind, ino: Ino, path: &RemotePath, spool: &Spool) -> bool {
        let kept = spool.file().and_then(|file| self.0.rejects.keep(kind, path, &file));
        match kept {
            Ok(copy) => {
                log::warn!("{path}: could not be sent; your version is kept in {}", copy.display());
                let line = format!("save {}: it could not be sent", self.0.view.shown_path(path));
                self.0.given_up.add(kind, line, Some(copy));
                if self.spool(ino).is_some_and(|now| now.id() == spool.id()) {
                    self.forget_spool(ino);
                }
                self.0.unsaved.lock().remove(&ino);
                true
            }
            Err(error) => {
                log::error!("{path}: could not be sent, and keeping a copy failed: {error}");
                false
            }
        }
    }

    /// Called at unmount for contents that are in no record.
    pub(super) fn keep_unsaved(&self) {
        let unsaved: Vec<Ino> = self.0.unsaved.lock().iter().copied().collect();
        for ino in unsaved {
            if let Some((spool, path)) = self.spool(ino).zip(self.0.view.path(ino)) {
                self.reject_unrecorded(RejectKind::Stranded, ino, &path, &spool);
            }
        }
    }

    /// Drops the local content after a rejected copy was written, so that the server's version is shown again.
    fn forget_spool(&self, ino: Ino) {
        self.release_spool(ino);
        let Some(node) = self.0.view.node(ino) else { return };
        if node.server.is_none() {
            if let Some(path) = self.0.view.path(ino) {
                self.0.view.restored(&path);
            }
            self.stop_showing(&node);
        }
        self.0.view.expire(node.parent);
        self.0.view.announce([Change::Content(ino)]);
    }
}

/// The reason without the request and the path, which the description of the operation says already.
fn why(error: &FsError) -> String {
    match &error.cause {
        Cause::Remote(remote) => remote.kind.to_string(),
        cause => cause.to_string(),
    }
}
