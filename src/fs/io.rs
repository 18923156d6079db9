//! read, write, fallocate; making a spool of an existing file.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::handle::{FileHandle, Handle};
use super::{Cause, Fs, FsError, FsResult, HandleId, Wait};
use crate::attr::Version;
use crate::cache::{BLOCK_BYTES, Role};
use crate::clock::Deadline;
use crate::content::ReadError;
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::ErrorKind;
use crate::write::Spool;

/// Bytes fetched at a time when a file is taken over into a spool: small, since each piece has the time limit for itself.
const FILL_BYTES: u64 = BLOCK_BYTES;
/// Pieces on their way ahead of the one being stored.
const FILL_AHEAD: u64 = 32;
/// Largest file that a write may make (bytes): what an SFTP offset and Linux' `loff_t` can both say.
const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// What `fallocate` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    Reserve { keep_size: bool },
    Zero { keep_size: bool },
    PunchHole,
}

impl Fs {
    pub fn read(&self, id: HandleId, offset: u64, size: u32, wait: Wait) -> FsResult<Vec<u8>> {
        let handle = self.handle("read", id)?;
        let file = match &*handle {
            Handle::File(file) => file,
            Handle::Virtual(file) => return self.virt_read(file, offset, size, wait),
            Handle::Dir(_) => return Err(FsError::new("read", "handle", Cause::IsADirectory)),
        };
        if let Some(spool) = self.spool(file.ino) {
            match spool.read_at(offset, size as usize) {
                // Sent in this very moment, and let go: the server has it.
                Err(error) if self.was_let_go(file.ino, &spool, &error) => {}
                other => return other.map_err(|e| FsError::new("read", self.object(file.ino), e)),
            }
        }
        let range = offset..offset.saturating_add(u64::from(size));
        let path = self.object(file.ino);
        match self.read_version(file, range.clone(), wait) {
            // Asked for under a name that it has not any more.
            Err(error) if self.is_missing(&error) && self.object(file.ino) != path => {
                self.read_version(file, range, wait)
            }
            // Nothing of the old version has been given out yet: take the new one, once.
            Err(error) if self.moved(&error) && !file.reading.lock().started => {
                self.renew(file, wait)?;
                self.read_version(file, range, wait)
            }
            other => other,
        }
    }

    /// Reads the version that the handle stands for, and no other.
    fn read_version(&self, file: &FileHandle, range: Range<u64>, wait: Wait) -> FsResult<Vec<u8>> {
        let path = self.object(file.ino);
        let version = self.version_of(file).ok_or_else(|| FsError::new("read", &path, Cause::Stale))?;
        let bytes = match self.0.content.read_cached(&path, version, range.clone()) {
            Some(bytes) => bytes,
            None => {
                let Wait::Until(deadline) = wait else { return Err(FsError::new("read", &path, Cause::WouldBlock)) };
                self.wait_moved(&path, deadline).map_err(|cause| FsError::new("read", &path, cause))?;
                self.read_ahead(file, &path, version, &range);
                self.0
                    .content
                    .read(&path, version, range.clone(), deadline)
                    .map_err(|e| self.read_error(file, &path, e))?
            }
        };
        file.reading.lock().started |= !bytes.is_empty();
        self.read_ahead(file, &path, version, &range);
        Ok(bytes)
    }

    fn read_ahead(&self, file: &FileHandle, path: &RemotePath, version: Version, range: &Range<u64>) {
        let ahead = file.reading.lock().ahead.note(range);
        if let Some(ahead) = ahead.filter(|_| !self.is_elsewhere(path)) {
            self.0.content.prefetch(path, version, ahead);
        }
    }

    /// The version for this handle: the newest, as long as nobody else changed the file since it was opened.
    fn version_of(&self, file: &FileHandle) -> Option<Version> {
        let view = self.0.table.view(file.ino)?;
        let mut reading = file.reading.lock();
        if view.foreign_changes != reading.foreign_changes {
            if reading.started {
                return None;
            }
            reading.foreign_changes = view.foreign_changes;
        }
        reading.version = view.server.unwrap_or(view.attr.version());
        Some(reading.version)
    }

    fn is_missing(&self, error: &FsError) -> bool {
        matches!(&error.cause, Cause::Remote(error) if matches!(error.kind, ErrorKind::NotFound))
    }

    fn moved(&self, error: &FsError) -> bool {
        match &error.cause {
            Cause::Stale => true,
            Cause::Remote(error) => matches!(error.kind, ErrorKind::Changed { .. }),
            _ => false,
        }
    }

    fn read_error(&self, file: &FileHandle, path: &RemotePath, error: ReadError) -> FsError {
        if let ReadError::Remote(remote) = &error
            && let ErrorKind::Changed { now } = &remote.kind
        {
            self.announce(self.0.table.apply_attr(file.ino, *now, self.0.clock.now()));
            return FsError::new("read", path, Cause::Stale);
        }
        self.noted(FsError::new("read", path, error))
    }

    fn renew(&self, file: &FileHandle, wait: Wait) -> FsResult<()> {
        let view = self.fresh_view("read", file.ino, super::OPEN_FRESH, wait)?;
        file.reading.lock().foreign_changes = view.foreign_changes;
        Ok(())
    }

    pub fn write(&self, id: HandleId, offset: u64, bytes: &[u8], wait: Wait) -> FsResult<u32> {
        let handle = self.handle("write", id)?;
        let file = match &*handle {
            Handle::File(file) => file,
            Handle::Virtual(file) => return self.virt_write(file, offset, bytes, wait),
            Handle::Dir(_) => return Err(FsError::new("write", "handle", Cause::IsADirectory)),
        };
        if !file.mode.write {
            return Err(FsError::new("write", self.object(file.ino), Cause::BadHandle));
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > MAX_FILE_BYTES) {
            return Err(FsError::new("write", self.object(file.ino), Cause::TooBig));
        }
        self.change("write", file.ino, wait, |spool| spool.write_at(offset, bytes))?;
        Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    pub fn fallocate(&self, id: HandleId, offset: u64, len: u64, what: Allocate, wait: Wait) -> FsResult<()> {
        let handle = self.handle("fallocate", id)?;
        let Handle::File(file) = &*handle else { return Err(FsError::new("fallocate", "handle", Cause::BadHandle)) };
        if offset.checked_add(len).is_none_or(|end| end > MAX_FILE_BYTES) {
            return Err(FsError::new("fallocate", self.object(file.ino), Cause::TooBig));
        }
        self.change("fallocate", file.ino, wait, |spool| match what {
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

    /// Changes the content of a file; what was sealed meanwhile is copied and changed there.
    pub(super) fn change(
        &self,
        op: &'static str,
        ino: Ino,
        wait: Wait,
        how: impl Fn(&Spool) -> io::Result<Option<u64>>,
    ) -> FsResult<()> {
        loop {
            let spool = self.ensure_spool(op, ino, None, wait)?;
            if let Some(len) = how(&spool).map_err(|e| FsError::new(op, self.object(ino), e))? {
                self.wrote(ino, len);
                return Ok(());
            }
        }
    }

    /// The spool of a file that is to be changed: its content up to `keep` bytes (all of it by default) is taken over
    /// from the server first.
    pub(super) fn ensure_spool(
        &self,
        op: &'static str,
        ino: Ino,
        keep: Option<u64>,
        wait: Wait,
    ) -> FsResult<Arc<Spool>> {
        if let Some(spool) = self.spool(ino).filter(|spool| !spool.is_sealed()) {
            return Ok(spool);
        }
        let object = self.object(ino);
        let Wait::Until(deadline) = wait else { return Err(FsError::new(op, &object, Cause::WouldBlock)) };
        let made = match self.0.fills.join(ino) {
            Role::Follower(waiter) => waiter.wait(deadline.0).unwrap_or(Err(Cause::TimedOut)),
            Role::Leader(ticket) => {
                let made = self.fill_spool(ino, &object, keep, deadline);
                ticket.complete(made.clone());
                made
            }
        };
        made.map_err(|cause| self.noted(FsError::new(op, object, cause)))
    }

    fn fill_spool(
        &self,
        ino: Ino,
        path: &RemotePath,
        keep: Option<u64>,
        deadline: Deadline,
    ) -> Result<Arc<Spool>, Cause> {
        if let Some(sealed) = self.spool(ino) {
            if !sealed.is_sealed() {
                return Ok(sealed);
            }
            let copy = Arc::new(self.0.journal.new_spool()?);
            match copy.copy_from(&sealed, keep.unwrap_or(u64::MAX)) {
                Err(error) if self.was_let_go(ino, &sealed, &error) => {}
                other => {
                    other?;
                    self.put_spool(ino, copy.clone());
                    return Ok(copy);
                }
            }
        }
        self.wait_moved(path, deadline)?;
        // The base is fixed from here on: listings must not move it under the copy.
        self.0.table.pin(ino, true);
        let filled = self.version_now(ino).ok_or(Cause::NotFound).and_then(|version| {
            let spool = self.0.journal.new_spool()?;
            self.fill(&spool, path, version, keep.unwrap_or(u64::MAX), deadline)?;
            Ok(spool)
        });
        let spool = Arc::new(filled.inspect_err(|_| {
            self.0.table.pin(ino, false);
            self.0.table.expire(self.0.table.view(ino).map(|view| view.parent));
        })?);
        self.put_spool(ino, spool.clone());
        Ok(spool)
    }

    /// What was moved here is moved there, before it is asked for by its new name.
    pub(super) fn wait_moved(&self, path: &RemotePath, deadline: Deadline) -> Result<(), Cause> {
        if !self.is_elsewhere(path) || self.0.journal.wait_until(deadline.remaining(), |q| !q.is_elsewhere(path)) {
            return Ok(());
        }
        Err(Cause::TimedOut)
    }

    /// The spool was taken away between being looked up and being used.
    fn was_let_go(&self, ino: Ino, spool: &Arc<Spool>, error: &io::Error) -> bool {
        let current = self.spool(ino).is_some_and(|now| Arc::ptr_eq(&now, spool));
        error.kind() == io::ErrorKind::NotFound && !current
    }

    /// The server has it under another name, or not at all.
    pub(super) fn is_elsewhere(&self, path: &RemotePath) -> bool {
        self.0.journal.queue(|queue| queue.is_elsewhere(path))
    }

    /// Every piece that arrives renews the deadline: a large file over a slow link is progress, not a hang.
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
            self.0.content.prefetch(path, version, piece.start..(piece.end + FILL_AHEAD * FILL_BYTES).min(end));
            let bytes = self.0.content.read(path, version, piece.clone(), deadline).map_err(|error| match error {
                ReadError::Remote(e) if matches!(e.kind, ErrorKind::Changed { .. }) => Cause::Stale,
                other => Cause::from(other),
            })?;
            spool.fill(at, &bytes)?;
            at = piece.end;
            deadline = self.deadline();
        }
        Ok(())
    }
}
