//! The end of an operation, whatever came of it.

use super::local::Local;
use crate::inode::Ino;
use crate::write::{Expected, Op, OpId};

impl Local {
    /// Takes the operation out of the journal; `left` is what is at its path now. Under the names lock: what is recorded
    /// next builds upon what the operation left, never upon what was there before it.
    pub(super) fn finish(&self, id: OpId, left: Expected) -> impl Drop + '_ {
        let _names = self.lock_names();
        self.0.journal.finish(id, left)
    }

    /// What was kept for the operation is let go.
    pub(super) fn release_after(&self, op: &Op) {
        let ino = Ino(op.ino);
        if op.ino != 0 {
            if self.0.view.node(ino).is_none_or(|node| node.opens == 0) {
                self.last_closed(ino);
            }
            self.unpin(ino);
        }
        if let Some(spool) = op.spool() {
            if let Some(current) = self.spool(ino).filter(|current| current.id() == spool)
                && let Err(error) = current.file()
            {
                // Just opened by a caller: from here on it is read without its name.
                log::error!("{}: the local copy cannot be held open: {error}", op.path);
            }
            self.0.journal.drop_spool(spool);
        }
    }
}
