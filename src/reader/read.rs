//! read: returns bytes of one version only.

use std::ops::Range;

use super::open::OpenFile;
use super::state::Reader;
use crate::attr::Version;
use crate::content::ReadError;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::ErrorKind;
use crate::view::OPEN_FRESH;

/// Bytes before the end of the version before that are compared when a file has grown.
const COMPARED_BYTES: u64 = 64 * 1024;
/// How often a reader that has no bytes yet goes on with a newer version: a file may be replaced again and again.
const MAX_RENEWALS: u32 = 10;
/// How often a file may grow while it is compared.
const MAX_GROWTHS: u32 = 3;

impl Reader {
    /// Reads up to `size` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`Cause::Stale`]: the file changed on the server after bytes of it were returned, other than by growing. [`Cause::TimedOut`].
    pub fn read(&self, file: &OpenFile, offset: u64, size: u32, wait: Wait) -> FsResult<Vec<u8>> {
        let view = &self.0.view;
        let range = offset..offset.saturating_add(u64::from(size));
        let mut renewals = MAX_RENEWALS;
        loop {
            if let Some(bytes) = self.read_spool(file.ino, offset, size)? {
                return Ok(bytes);
            }
            let path = view.object(file.ino);
            match self.read_version(file, range.clone(), wait) {
                // The file was replaced here meanwhile, and its content was kept.
                Err(error) if !error.would_block() && self.0.upload.spool(file.ino).is_some() => {
                    return self.read_spool(file.ino, offset, size)?.ok_or(error);
                }
                // The file was renamed after the path was looked up.
                Err(error) if is_missing(&error) && view.object(file.ino) != path => {
                    return self.read_version(file, range, wait);
                }
                // No bytes of the old version were returned yet: the new version is read.
                Err(error) if has_changed(&error) && renewals > 0 && self.take_newer(file, wait)? => renewals -= 1,
                Err(error) if has_changed(&error) && self.take_grown(file, wait)? => {
                    return self.read_version(file, range, wait);
                }
                other => return other,
            }
        }
    }

    /// Reads content that is on this machine only; `None`: the server has it.
    fn read_spool(&self, ino: Ino, offset: u64, size: u32) -> FsResult<Option<Vec<u8>>> {
        let Some(spool) = self.0.upload.spool(ino) else { return Ok(None) };
        match spool.read_at(offset, size as usize) {
            // The spool was released between the lookup and the read: the server has the content.
            Err(error) if self.0.upload.was_let_go(ino, &spool, &error) => Ok(None),
            other => other.map(Some).map_err(|e| FsError::new("read", self.0.view.object(ino), e)),
        }
    }

    /// Reads the version that the handle stands for, and no other.
    fn read_version(&self, file: &OpenFile, range: Range<u64>, wait: Wait) -> FsResult<Vec<u8>> {
        let path = self.0.view.object(file.ino);
        let stale = || FsError::new("read", &path, Cause::Stale);
        if self.has_lost_content(file.ino) && self.0.view.find(&path).is_some() {
            return Err(stale());
        }
        let version = self.version_of(file).ok_or_else(stale)?;
        let (view, content) = (&self.0.view, &self.0.content);
        // Until a queued rename is sent, the server cannot be asked by this path.
        let unasked = || content.shown_part(&path, version, range.clone()).filter(|_| view.is_elsewhere(&path));
        let bytes = match content.read_cached(&path, version, range.clone()).or_else(unasked) {
            Some(bytes) => bytes,
            None => {
                let Wait::Until(deadline) = wait else { return Err(FsError::new("read", &path, Cause::WouldBlock)) };
                let there = self.0.view.wait_until_there(&path, deadline);
                there.map_err(|cause| FsError::new("read", &path, cause))?;
                self.read_ahead(file, &path, version, &range);
                let read = self.0.content.read(&path, version, range.clone(), deadline);
                read.map_err(|e| self.read_error(file, &path, e))?
            }
        };
        if self.0.content.has_changed(&path, version) {
            // The content changed without a change of the version: as for another version, see `read`. Not if the file was
            // replaced here meanwhile: then that is the other content.
            if self.0.upload.spool(file.ino).is_some() || self.has_lost_content(file.ino) {
                return Err(stale());
            }
            if file.reading.lock().started {
                self.0.view.content_changed(file.ino);
            } else {
                self.accept_changed(file.ino);
            }
            return Err(FsError::new("read", &path, Cause::Stale));
        }
        let first = !bytes.is_empty() && !std::mem::replace(&mut file.reading.lock().started, true);
        if first {
            self.0.view.mark_read(file.ino, !file.scanned);
        }
        self.read_ahead(file, &path, version, &range);
        Ok(bytes)
    }

    fn read_ahead(&self, file: &OpenFile, path: &RemotePath, version: Version, range: &Range<u64>) {
        let ahead = file.reading.lock().ahead.note(range);
        if let Some(ahead) = ahead.filter(|_| !self.0.view.is_elsewhere(path)) {
            self.0.content.prefetch(path, version, ahead, self.0.view.open_freshness(file.ino));
        }
    }

    fn read_error(&self, file: &OpenFile, path: &RemotePath, error: ReadError) -> FsError {
        if let ReadError::Remote(remote) = &error
            && let ErrorKind::Changed { now } = &remote.kind
        {
            self.0.view.learn(file.ino, *now);
            return FsError::new("read", path, Cause::Stale);
        }
        self.noted(FsError::new("read", path, error))
    }

    fn take_newer(&self, file: &OpenFile, wait: Wait) -> FsResult<bool> {
        if file.reading.lock().started {
            return Ok(false);
        }
        let node = self.0.view.fresh_node("read", file.ino, OPEN_FRESH, wait)?;
        let fits = file.fits(&node);
        if fits {
            file.reading.lock().foreign_changes = node.foreign_changes;
        }
        Ok(fits)
    }

    /// Takes a newer version that begins with the one before, as far as a comparison of the bytes before its end shows: a
    /// log that only grew. Whoever follows it has seen nothing that is not in it.
    fn take_grown(&self, file: &OpenFile, wait: Wait) -> FsResult<bool> {
        let before = file.reading.lock().version;
        let part = before.size.saturating_sub(COMPARED_BYTES)..before.size;
        for _ in 0..MAX_GROWTHS {
            let node = self.0.view.fresh_node("read", file.ino, OPEN_FRESH, wait)?;
            let (path, now) = (self.0.view.object(file.ino), node.version());
            if node.unlinked || node.pinned || !node.attr.is_file() || now.size <= before.size {
                return Ok(false);
            }
            let Some(old) = self.0.content.shown_part(&path, before, part.clone()) else { return Ok(false) };
            let Wait::Until(deadline) = wait else { return Err(FsError::new("read", &path, Cause::WouldBlock)) };
            match self.0.content.read(&path, now, part.clone(), deadline) {
                Ok(new) if new == old => {
                    let mut reading = file.reading.lock();
                    (reading.foreign_changes, reading.version) = (node.foreign_changes, now);
                    return Ok(true);
                }
                Ok(_) => return Ok(false),
                Err(error) => {
                    let error = self.read_error(file, &path, error);
                    if !has_changed(&error) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(false)
    }
}

fn is_missing(error: &FsError) -> bool {
    matches!(&error.cause, Cause::Remote(error) if matches!(error.kind, ErrorKind::NotFound))
}

fn has_changed(error: &FsError) -> bool {
    match &error.cause {
        Cause::Stale => true,
        Cause::Remote(error) => matches!(error.kind, ErrorKind::Changed { .. }),
        _ => false,
    }
}
