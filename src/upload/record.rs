//! From a change to a record in the journal: when it is there, the change survives the death of the driver.

use std::time::Instant;

use super::local::Local;
use crate::attr::secs_from_time;
use crate::call;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::write::{Action, Op, Put};

/// How often a checksum is taken outside of the names lock, before it is taken there.
const MAX_SUMS: u32 = 3;

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
        call::wait_again();
        let sent = self.0.journal.wait_until(self.0.view.timeout(), |queue| !queue.involves(path));
        if let Some(error) = self.0.failures.lock().remove(path) {
            return Err(FsError { op, ..error });
        }
        if sent { Ok(()) } else { Err(self.noted(FsError::new(op, path, Cause::TimedOut))) }
    }

    /// The content of a file becomes an operation. The path at which it was saved; `None`: there was nothing to save.
    ///
    /// # Errors
    ///
    /// The local disk is full or failed. The content stays dirty, and is tried again: see [`Local::save_unsaved`].
    pub(super) fn save_content(&self, ino: Ino) -> Result<Option<RemotePath>, Cause> {
        for attempt in 0..MAX_SUMS {
            let Some(spool) = self.spool(ino) else { return Ok(None) };
            spool.take_sum();
            let _names = self.lock_names();
            if attempt + 1 < MAX_SUMS && spool.needs_sum() {
                // Written to meanwhile.
                continue;
            }
            let saved = self.save_now(ino);
            let mut unsaved = self.0.unsaved.lock();
            if saved.is_err() {
                unsaved.insert(ino)
            } else {
                unsaved.remove(&ino)
            };
            return saved;
        }
        Ok(None)
    }

    /// What could not be recorded when it was closed is tried again.
    ///
    /// # Errors
    ///
    /// The first that cannot be recorded still.
    pub(super) fn save_unsaved(&self) -> FsResult<()> {
        let unsaved: Vec<Ino> = self.0.unsaved.lock().iter().copied().collect();
        let save = |ino: Ino| {
            let path = self.0.view.object(ino);
            self.save_content(ino).map_err(|cause| FsError::new("save", path, cause))
        };
        let tried: Vec<FsResult<_>> = unsaved.into_iter().map(save).collect();
        tried.into_iter().try_for_each(|saved| saved.map(drop))
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
