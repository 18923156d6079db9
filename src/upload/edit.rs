//! Local changes of content: write, truncate, fallocate; before the first one the existing content is copied from the
//! server into a spool.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::spools::Filled;
use super::state::Upload;
use super::unreadable::may_not_be_read;
use crate::attr::{Version, secs_from_time};
use crate::cache::{BLOCK_BYTES, Role};
use crate::clock::Deadline;
use crate::content::ReadError;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::remote::ErrorKind;
use crate::write::Spool;

/// Bytes per request when a file is copied into a spool. The time limit applies to each piece, so that pieces are
/// small.
const FILL_BYTES: u64 = BLOCK_BYTES;
/// Pieces requested ahead of the one being stored.
const FILL_AHEAD: u64 = 32;
/// Largest file that a write may make (bytes): the range that SFTP offsets and Linux' `loff_t` have in common.
const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// The kind of change that a `fallocate` call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    Reserve { keep_size: bool },
    Zero { keep_size: bool },
    PunchHole,
}

impl Upload {
    /// Writes into the local content of the file.
    ///
    /// # Errors
    ///
    /// [`Cause::TooBig`] beyond 2^63 - 1 bytes; the error of fetching the rest of the file; [`Cause::Local`] if the
    /// local disk is full.
    pub fn write(&self, ino: Ino, offset: u64, bytes: &[u8], wait: Wait) -> FsResult<u32> {
        self.check_end("write", ino, offset, bytes.len() as u64)?;
        self.change("write", ino, wait, |spool| spool.write_at(offset, bytes))?;
        Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    pub fn fallocate(&self, ino: Ino, offset: u64, len: u64, what: Allocate, wait: Wait) -> FsResult<()> {
        self.check_end("fallocate", ino, offset, len)?;
        self.change("fallocate", ino, wait, |spool| match what {
            Allocate::Reserve { keep_size } => spool.allocate(offset, len, keep_size),
            Allocate::Zero { keep_size } => {
                if !keep_size && offset + len > spool.len() && spool.set_len(offset + len)?.is_none() {
                    return Ok(None);
                }
                spool.zero(offset, len)
            }
            Allocate::PunchHole => spool.zero(offset, len),
        })
    }

    fn check_end(&self, op: &'static str, ino: Ino, offset: u64, len: u64) -> FsResult<()> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= MAX_FILE_BYTES);
        fits.then_some(()).ok_or_else(|| FsError::new(op, self.local.0.view.object(ino), Cause::TooBig))
    }

    /// Changes the content of a file. A spool that was sealed meanwhile is copied, and the copy is changed.
    fn change(
        &self,
        op: &'static str,
        ino: Ino,
        wait: Wait,
        how: impl Fn(&Spool) -> io::Result<Option<u64>>,
    ) -> FsResult<()> {
        loop {
            let spool = self.take_over(op, ino, None, wait)?;
            self.local.begin(op, &self.local.0.view.object(ino))?;
            if let Some(len) = how(&spool).map_err(|e| FsError::new(op, self.local.0.view.object(ino), e))? {
                self.show_written(ino, len);
                return Ok(());
            }
        }
    }

    /// Updates the shown size and time after a local change of the content.
    fn show_written(&self, ino: Ino, len: u64) {
        let now = secs_from_time(self.local.0.view.clock().wall());
        self.local.0.view.update(ino, |attr| {
            attr.size = len;
            attr.mtime = now;
        });
    }

    /// `open` with O_TRUNC: the new content starts empty, on this machine only. The server gets it with the first
    /// save.
    pub fn truncate_at_open(&self, node: &NodeView) -> FsResult<()> {
        let ino = node.ino;
        self.local.begin("open", &self.local.0.view.object(ino))?;
        let failed = |e: io::Error| FsError::new("truncate", self.local.0.view.object(ino), e);
        let cut = match self.local.spool(ino) {
            Some(spool) => spool.set_len(0).map_err(failed)?.is_some(),
            None => node.attr.size == 0 && node.server.is_some(),
        };
        if !cut {
            self.new_spool("truncate", ino)?;
        }
        self.show_written(ino, 0);
        Ok(())
    }

    /// truncate(2). While the file is open for writing the cut stays local; otherwise the new content is sent at
    /// once.
    pub(super) fn truncate(&self, node: &NodeView, size: u64, wait: Wait) -> FsResult<()> {
        let (ino, path) = (node.ino, self.local.0.view.object(node.ino));
        if node.attr.is_dir() {
            return Err(FsError::new("truncate", path, Cause::IsADirectory));
        }
        if size > MAX_FILE_BYTES {
            return Err(FsError::new("truncate", path, Cause::TooBig));
        }
        if size == node.attr.size && self.local.spool(ino).is_none() {
            return Ok(());
        }
        let before = self.local.spool(ino);
        let begin = || self.local.begin("truncate", &path);
        let cut = match &before {
            Some(spool) if !spool.is_sealed() => begin().map(|()| spool.set_len(size))?,
            _ if size == 0 => begin().and_then(|()| self.new_spool("truncate", ino).map(|_| Ok(Some(0))))?,
            _ => {
                let spool = self.take_over("truncate", ino, Some(size), wait)?;
                if let Err(error) = begin() {
                    if !spool.is_dirty() {
                        self.give_back(node, before);
                    }
                    return Err(error);
                }
                spool.set_len(size)
            }
        };
        match cut.map_err(|e| FsError::new("truncate", &path, e))? {
            Some(len) => self.show_written(ino, len),
            // The spool was sealed between the check and the call.
            None => return self.truncate(node, size, wait),
        }
        if self.local.0.view.node(ino).is_some_and(|node| node.opens == 0) {
            let saved = self.save("truncate", ino, wait);
            if saved.is_err() && self.local.spool(ino).is_some_and(|spool| spool.is_dirty()) {
                self.give_back(node, before);
            }
            self.local.last_closed(ino);
            saved?;
        }
        Ok(())
    }

    /// Restores the state before a truncation that failed.
    fn give_back(&self, node: &NodeView, before: Option<Arc<Spool>>) {
        match before {
            Some(spool) if spool.is_sealed() => self.local.put_spool(node.ino, spool),
            // The spool had unsaved writes before: they stay.
            Some(_) => return,
            None => self.local.release_spool(node.ino),
        }
        self.local.0.unsaved.lock().remove(&node.ino);
        self.local.0.view.update(node.ino, |attr| (attr.size, attr.mtime) = (node.attr.size, node.attr.mtime));
    }

    /// Makes an empty spool for a file whose old content is not needed.
    pub(super) fn new_spool(&self, op: &'static str, ino: Ino) -> FsResult<Arc<Spool>> {
        let spool = self.local.0.journal.new_spool().map_err(|e| FsError::new(op, self.local.0.view.object(ino), e))?;
        let spool = Arc::new(spool);
        // The spool that the new one replaces.
        let before = self.local.spool(ino);
        self.local.put_spool(ino, spool.clone());
        self.local
            .replaced_local_only(ino, before)
            .map_err(|cause| FsError::new(op, self.local.0.view.object(ino), cause))?;
        Ok(spool)
    }

    /// Returns a spool that may be changed. If there is none, the first `keep` bytes of the file (all of them by
    /// default) are copied from the server into a new one.
    pub(super) fn take_over(&self, op: &'static str, ino: Ino, keep: Option<u64>, wait: Wait) -> FsResult<Arc<Spool>> {
        if let Some(spool) = self.local.spool(ino).filter(|spool| !spool.is_sealed()) {
            return Ok(spool);
        }
        let object = self.local.0.view.object(ino);
        let Wait::Until(deadline) = wait else { return Err(FsError::new(op, &object, Cause::WouldBlock)) };
        let made = match self.local.0.spools.fills.join(ino) {
            Role::Follower(waiter) => waiter.wait(deadline.0).unwrap_or(Err(Cause::TimedOut)),
            Role::Leader(ticket) => {
                let made = self.fill_spool(ino, &object, keep, deadline);
                ticket.complete(made.clone());
                if made.is_err() {
                    self.local.unpin(ino);
                }
                made
            }
        };
        made.map_err(|cause| self.local.noted(FsError::new(op, object, cause)))
    }

    fn fill_spool(&self, ino: Ino, path: &RemotePath, keep: Option<u64>, deadline: Deadline) -> Filled {
        if let Some(sealed) = self.local.spool(ino) {
            if !sealed.is_sealed() {
                return Ok(sealed);
            }
            let copy = self.local.0.journal.new_spool()?;
            match copy.copy_from(&sealed, keep.unwrap_or(u64::MAX)) {
                Err(error) if self.was_let_go(ino, &sealed, &error) => {}
                other => {
                    other?;
                    return Ok(self.local.put_copy(ino, Some(&sealed), copy));
                }
            }
        }
        self.local.0.view.wait_until_there(path, deadline)?;
        // The base is fixed from here on: a listing must not replace the version while it is copied.
        self.local.0.view.pin(ino);
        let version = self.local.0.view.node(ino).map(|node| node.version());
        let filled = version.ok_or(Cause::NotFound).and_then(|version| {
            let spool = self.local.0.journal.new_spool()?;
            let fill = || self.fill(&spool, path, version, keep.unwrap_or(u64::MAX), deadline);
            match fill() {
                Err(refused) if may_not_be_read(&refused) => {
                    self.with_read_bit((ino, path), refused, deadline, fill)?
                }
                filled => filled?,
            }
            if self.content.has_changed(path, version) {
                // Callers were shown other content under the same version: it is not a base for their changes.
                self.local.0.view.content_changed(ino);
                return Err(Cause::Stale);
            }
            if keep != Some(0) {
                self.local.0.view.taken_over(ino);
            }
            Ok(spool)
        });
        let spool = filled.inspect_err(|_| {
            if let Some(node) = self.local.0.view.node(ino) {
                self.local.0.view.expire(node.parent);
            }
        })?;
        Ok(self.local.put_copy(ino, None, spool))
    }

    /// Each piece that arrives renews the deadline: a large file over a slow connection is progress, not a hang.
    fn fill(
        &self,
        spool: &Spool,
        path: &RemotePath,
        version: Version,
        keep: u64,
        deadline: Deadline,
    ) -> Result<(), Cause> {
        let (end, mut at) = (version.size.min(keep), 0);
        let mut deadline = deadline;
        spool.fill(0, &[])?;
        while at < end {
            let piece = at..(at + FILL_BYTES).min(end);
            let ahead = piece.start..(piece.end + FILL_AHEAD * FILL_BYTES).min(end);
            self.content.prefetch(path, version, ahead, Duration::ZERO);
            let bytes = self.content.read(path, version, piece.clone(), deadline).map_err(|error| match error {
                ReadError::Remote(e) if matches!(e.kind, ErrorKind::Changed { .. }) => Cause::Stale,
                other => Cause::from(other),
            })?;
            spool.fill(at, &bytes)?;
            at = piece.end;
            deadline = self.local.0.view.deadline();
        }
        Ok(())
    }
}
