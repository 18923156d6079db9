//! close and fsync: what was written so far is recorded, and on the disk.

use super::local_only::is_local_only;
use super::state::Upload;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::write::RejectKind;

impl Upload {
    /// What was written so far becomes an operation. When this returns, it survives the death of the process.
    pub fn save(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<()> {
        let Some(spool) = self.local.spool(ino) else { return Ok(()) };
        if !spool.is_dirty() {
            return Ok(());
        }
        let path = self.local.0.view.object(ino);
        if is_local_only(&path) {
            return Ok(());
        }
        self.local.may_record(op, &path, wait)?;
        if let Err(error) = self.permit(op, ino, &path, wait) {
            if matches!(error.cause, Cause::ReadOnly(_)) {
                self.local.reject_unrecorded(RejectKind::Stranded, ino, &path, &spool);
            }
            return Err(error);
        }
        let path = {
            let _names = self.local.lock_names();
            match self.local.save_now(ino) {
                Ok(Some(path)) => path,
                Ok(None) => return Ok(()),
                Err(cause) => return Err(self.local.noted(FsError::new(op, path, cause))),
            }
        };
        self.local.wait_if_sync(op, &path)
    }

    /// What was saved and recorded survives a loss of power when this returns.
    ///
    /// # Errors
    ///
    /// [`Cause::Local`]: the local disk failed.
    pub fn sync_to_disk(&self, ino: Ino) -> FsResult<()> {
        let failed = |e: std::io::Error| FsError::new("fsync", self.local.0.view.object(ino), e);
        if let Some(spool) = self.local.spool(ino) {
            spool.sync().map_err(failed)?;
        }
        self.local.0.journal.sync().map_err(failed)
    }
}
