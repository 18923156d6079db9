//! From a change to a record in the journal: when it is there, the change survives the death of the driver.

use std::time::Instant;

use super::local::Local;
use crate::attr::secs_from_time;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::write::{Action, Op, Put};

impl Local {
    /// Records a change, under the names lock, and pins the node until the server has it.
    pub(super) fn record(&self, ino: Ino, path: &RemotePath, action: Action) -> Result<(), Cause> {
        let area = self.0.view.area_of(path);
        let at = u64::from(secs_from_time(self.0.view.clock().wall()));
        let op = Op { area, path: path.clone(), action, ino: ino.0, at };
        self.0.journal.add(op)?;
        self.0.view.pin(ino, true);
        Ok(())
    }

    /// Before anything is changed: with `-o sync` the caller must be one that may wait, and there must be room.
    pub(super) fn may_record(&self, op: &'static str, path: &RemotePath, wait: Wait) -> FsResult<()> {
        let until = match wait {
            Wait::No if self.0.sync => return Err(FsError::new(op, path, Cause::WouldBlock)),
            Wait::No => Instant::now(),
            Wait::Until(deadline) => deadline.0,
        };
        if self.0.journal.has_room(until) {
            return Ok(());
        }
        Err(match wait {
            Wait::No => FsError::new(op, path, Cause::WouldBlock),
            Wait::Until(_) => self.noted(FsError::new(op, path, Cause::JournalFull)),
        })
    }

    /// With `-o sync`: the server has what was just recorded for this path, or the caller gets the error.
    pub(super) fn wait_if_sync(&self, op: &'static str, path: &RemotePath) -> FsResult<()> {
        if !self.0.sync {
            return Ok(());
        }
        let sent = self.0.journal.wait_until(self.0.view.timeout(), |queue| !queue.involves(path));
        if let Some(error) = self.0.failures.lock().remove(path) {
            return Err(FsError { op, ..error });
        }
        if sent { Ok(()) } else { Err(self.noted(FsError::new(op, path, Cause::TimedOut))) }
    }

    /// Under the names lock. The path at which the content was saved; `None`: there is nothing to save.
    pub(super) fn save_now(&self, ino: Ino) -> Result<Option<RemotePath>, Cause> {
        let (Some(spool), Some(node)) = (self.spool(ino), self.0.view.node(ino)) else { return Ok(None) };
        let Some(path) = self.0.view.path(ino) else { return Ok(None) };
        if node.unlinked || !spool.is_dirty() {
            return Ok(None);
        }
        let sealed = spool.seal();
        let put = Put {
            spool: sealed.id,
            len: sealed.len,
            sum: sealed.sum,
            perm: node.attr.perm,
            keep_perm: node.server.is_some() && !node.perm_changed,
            mtime: node.attr.mtime,
            base: node.base().into(),
        };
        if let Err(cause) = self.record(ino, &path, Action::Put(put)) {
            spool.unseal();
            return Err(cause);
        }
        Ok(Some(path))
    }
}
