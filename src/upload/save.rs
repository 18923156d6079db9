//! close and fsync: record what was written, and flush it to the local disk.

use super::state::Upload;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::write::RejectKind;

impl Upload {
    /// Records what was written so far. When this returns, it survives a crash of the process.
    pub fn save(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<()> {
        let Some(spool) = self.local.spool(ino) else { return Ok(()) };
        if !spool.is_dirty() {
            return Ok(());
        }
        let path = self.local.0.view.object(ino);
        if self.local.0.view.node(ino).is_some_and(|node| node.only_here) {
            return Ok(());
        }
        let room = self.local.may_record(op, &path, wait);
        let admitted = room.and_then(|()| self.permit(op, ino, &path, wait).map(drop));
        if admitted.as_ref().is_err_and(FsError::would_block) {
            return admitted;
        }
        let closed = admitted.as_ref().is_err_and(|error| matches!(error.cause, Cause::ReadOnly(_)));
        if closed && self.local.reject_unrecorded(RejectKind::Stranded, ino, &path, &spool) {
            return admitted;
        }
        // Recorded even if a wait before this timed out: the writes were accepted, and their content must be sent.
        let path = match self.local.save_content(ino) {
            Ok(Some(path)) => path,
            Ok(None) => return Ok(()),
            Err(cause) => return Err(self.local.noted(FsError::new(op, path, cause))),
        };
        if closed {
            return admitted;
        }
        self.local.wait_if_sync(op, &path)
    }

    /// Flushes what was saved and recorded to the local disk. When this returns, it survives a loss of power.
    ///
    /// # Errors
    ///
    /// [`Cause::Local`]: the local disk failed.
    pub fn sync_to_disk(&self, ino: Ino) -> FsResult<()> {
        let failed = |e: std::io::Error| FsError::new("fsync", self.local.0.view.object(ino), e);
        let spool = self.local.spool(ino);
        if let Some(spool) = &spool
            && let Err(error) = spool.sync()
            && !self.was_let_go(ino, spool, &error)
        {
            return Err(failed(error));
        }
        self.local.0.journal.sync(spool.map(|spool| spool.id())).map_err(failed)
    }
}
