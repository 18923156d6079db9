//! What the server does not take: its content goes to a shelf, and what the server has is shown again.

use std::fs::File;

use super::syncer::{CACHE_WRITTEN_BYTES, FULL_PAUSE};
use super::{Fs, FsError};
use crate::inode::{Change, Ino};
use crate::write::{Action, Expected, Op, OpId, Put, RejectKind};

impl Fs {
    /// The server does not take it: content goes to a shelf, and what the server has is shown again.
    pub(super) fn put_aside(&self, id: OpId, op: &Op, shelf: RejectKind, error: FsError) {
        let ino = Ino(op.ino);
        if let Some(spool) = op.spool() {
            let path = self.0.journal.spool_path(spool);
            match File::open(&path).and_then(|file| self.0.rescue.keep(shelf, &op.path, &file)) {
                Ok(copy) => {
                    log::warn!("{}: your version is kept in {}", op.path, copy.display());
                    self.keep_base(op, shelf, &copy);
                }
                Err(trouble) => {
                    // Better to hold everything up than to lose it.
                    log::error!("{}: could not be sent ({error}), and keeping a copy failed: {trouble}", op.path);
                    self.0.journal.put_back(id, FULL_PAUSE);
                    return;
                }
            }
        }
        let error = self.noted(error);
        if self.0.config.sync {
            self.0.failures.lock().insert(op.path.clone(), error);
        }
        self.names_changed(op);
        let _ending = self.finish(id, Expected::Unknown);
        self.show_theirs(op, ino);
        self.rest_after(op);
    }

    /// What a conflicting save was made from goes beside it, if it is still here: the base of a merge.
    fn keep_base(&self, op: &Op, shelf: RejectKind, copy: &std::path::Path) {
        if let Action::Put(Put { base: Expected::Version(version), .. }) = &op.action
            && shelf == RejectKind::Conflict
            && version.size <= CACHE_WRITTEN_BYTES
            && let Some(bytes) = self.0.content.read_cached(&op.path, *version, 0..version.size)
            && let Err(error) = self.0.rescue.keep_base(copy, &bytes)
        {
            log::warn!("{}: what it was made from could not be kept: {error}", op.path);
        }
    }

    fn show_theirs(&self, op: &Op, ino: Ino) {
        let current = self.spool(ino).filter(|_| op.ino != 0);
        if current.is_some_and(|spool| Some(spool.id()) == op.spool() && !spool.is_dirty()) {
            self.release_spool(ino);
        }
        // Files that exist only here go with the operation that was to make them.
        if let Some(view) = self.0.table.view(ino).filter(|view| op.ino != 0 && !view.unlinked)
            && view.server.is_none()
            && self.is_unrecorded(&view)
            && self.spool(ino).is_none()
            && let Some(name) = self.0.table.path(ino).and_then(|path| path.file_name())
        {
            self.0.table.remove(view.parent, &name);
            self.announce([Change::Entry { parent: view.parent, name }]);
        }
        self.unpin(ino);
        for path in op.paths() {
            if let Some(dir) = path.parent().and_then(|dir| self.0.table.find(&dir)) {
                self.0.table.expire(Some(dir));
                if let Some(name) = path.file_name() {
                    self.announce([Change::Entry { parent: dir, name }]);
                }
            }
        }
        self.announce([Change::Content(ino)]);
    }
}
