//! Turns a change into a record in the journal. A recorded change survives a crash of the process.

use std::time::Instant;

use super::local::Local;
use crate::attr::secs_from_time;
use crate::call;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::write::{Action, Op, Put};

/// How often the checksum is computed without the names lock, before it is computed under the lock.
const MAX_SUMS: u32 = 3;

impl Local {
    /// Records a change and pins the node until the server has it. The caller holds the names lock.
    pub(super) fn record(&self, ino: Ino, path: &RemotePath, action: Action) -> Result<(), Cause> {
        let area = self.0.view.area_of(path);
        let at = u64::from(secs_from_time(self.0.view.clock().wall()));
        let op = Op { area, path: path.clone(), action, ino: ino.0, at };
        self.0.journal.add(op)?;
        self.0.view.pin(ino);
        Ok(())
    }

    /// Called before anything is changed: fails with `-o sync` if the caller may not wait, and if the journal has no
    /// room.
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

    /// With `-o sync`: waits until the server has the change that was recorded for this path, and returns the error
    /// if it was rejected.
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

    /// Records the content of a file as an operation. Returns the path at which it was saved; `None` if it was not
    /// dirty.
    ///
    /// # Errors
    ///
    /// [`Cause::Local`]: the local disk is full or failed. The content stays dirty and is recorded later by
    /// [`Local::save_unsaved`].
    pub(super) fn save_content(&self, ino: Ino) -> Result<Option<RemotePath>, Cause> {
        for attempt in 0..MAX_SUMS {
            let Some(spool) = self.spool(ino) else { return Ok(None) };
            spool.take_sum();
            let _names = self.lock_names();
            if attempt + 1 < MAX_SUMS && spool.needs_sum() {
                // A caller wrote to the file meanwhile.
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

    /// Retries to record the contents that could not be recorded at `close`.
    ///
    /// # Errors
    ///
    /// The error of the first file that still cannot be recorded.
    pub(super) fn save_unsaved(&self) -> FsResult<()> {
        let unsaved: Vec<Ino> = self.0.unsaved.lock().iter().copied().collect();
        let save = |ino: Ino| {
            let path = self.0.view.object(ino);
            self.save_content(ino).map_err(|cause| FsError::new("save", path, cause))
        };
        let tried: Vec<FsResult<_>> = unsaved.into_iter().map(save).collect();
        tried.into_iter().try_for_each(|saved| saved.map(drop))
    }

    /// Like [`Local::save_content`], for callers that hold the names lock.
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
            keep_perm: !node.perm_changed,
            own_perm: false,
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
