//! The end of an operation, whether it succeeded or was rejected.

use super::local::Local;
use crate::inode::Ino;
use crate::write::{Expected, Op, OpId};

impl Local {
    /// Removes the operation from the journal; `left` is the state that it leaves at its path. Takes the names lock,
    /// so that the next record builds on the state after the operation, never on the state before it.
    pub(super) fn finish(&self, id: OpId, left: Expected) -> impl Drop + '_ {
        let _names = self.lock_names();
        self.0.journal.finish(id, left)
    }

    /// Releases the spool and the pin that the operation held.
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
                // A caller has just opened it: from here on it is read by descriptor, since its name is removed next.
                log::error!("{}: the local copy cannot be held open: {error}", op.path);
            }
            self.0.journal.drop_spool(spool);
        }
    }
}
