//! Sending what was written: from a spool to the server, checked against the base, and kept when it cannot be.

use std::sync::Arc;

use super::kept::Deed;
use super::{Cause, Fs, FsError, FsResult, Wait, lock};
use crate::attr::{Area, Attr, Version};
use crate::cache::BLOCK_BYTES;
use crate::gate::WritePermit;
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::remote::{Base, ErrorKind, RemoteError, Store};
use crate::write::{Shelf, Spool};

/// Written files up to this size go into the cache as well: whoever saves usually reads next (bytes).
const CACHE_WRITTEN_BYTES: u64 = 4 * 1024 * 1024;

impl Fs {
    /// Makes the server's content equal to the spool's, if there is a difference.
    pub(super) fn send(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<()> {
        let Some(spool) = self.spool(ino) else { return Ok(()) };
        if !spool.is_dirty() {
            return Ok(());
        }
        let object = self.object(ino);
        let Wait::Until(deadline) = wait else { return Err(FsError::new(op, &object, Cause::WouldBlock)) };
        let Some(_busy) = self.0.busy.objects(&[ino.0], deadline) else {
            return Err(FsError::new(op, &object, Cause::Busy("another operation on the file is under way".into())));
        };
        while spool.is_dirty() {
            let Some(view) = self.0.table.view(ino) else { return Ok(()) };
            if view.unlinked {
                return Ok(());
            }
            // After the wait: a rename may have moved the file meanwhile.
            let path = self.object(ino);
            let permit = match self.permit(op, ino, &path, wait) {
                Ok(permit) => permit,
                Err(error) => return Err(self.strand(ino, &path, &spool, error)),
            };
            let mark = spool.mark();
            match self.store(&permit, &path, &view, &spool, mark.len) {
                Ok(attr) => {
                    spool.sent(mark);
                    self.stored(ino, &path, &view, &spool, attr);
                }
                Err(error) => return Err(self.store_failed(op, ino, &path, &spool, error)),
            }
        }
        Ok(())
    }

    fn store(
        &self,
        permit: &WritePermit,
        path: &RemotePath,
        view: &NodeView,
        spool: &Arc<Spool>,
        len: u64,
    ) -> Result<Attr, RemoteError> {
        let store = Store {
            base: view.server.map_or(Base::Absent, Base::Version),
            perm: Some(view.attr.perm),
            mtime: Some(view.attr.mtime),
            temp_dir: self.temp_dir(permit.area()),
        };
        self.0.remote.store(permit, path, spool.file(), len, &store)
    }

    /// Where half-sent content may be: outside the web root and outside uploads, where strays do harm.
    fn temp_dir(&self, area: Area) -> Option<RemotePath> {
        let pantheon = self.0.config.layout == super::Layout::Pantheon && area == Area::Code;
        pantheon.then(|| RemotePath::parse("tmp").ok()).flatten()
    }

    fn stored(&self, ino: Ino, path: &RemotePath, sent: &NodeView, spool: &Arc<Spool>, server: Attr) {
        // Size and time go on being shown as they were when the writer looked, or editors see a change that is none.
        let now = self.0.table.view(ino).map_or(sent.attr, |view| view.attr);
        let shown = if spool.is_dirty() { now } else { Attr { perm: server.perm, size: server.size, ..now } };
        self.0.table.confirmed(ino, server, shown);
        self.0.notes.sent(server.size);
        self.note_done(self.0.table.area(ino).unwrap_or(Area::Code), path, Deed::Content(spool, server));
        if server.size <= CACHE_WRITTEN_BYTES && !spool.is_dirty() {
            self.cache_written(path, server.version(), spool);
        }
    }

    fn cache_written(&self, path: &RemotePath, version: Version, spool: &Arc<Spool>) {
        for index in 0..version.size.div_ceil(BLOCK_BYTES) {
            let size = (version.size - index * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
            match spool.read_at(index * BLOCK_BYTES, size) {
                Ok(block) if block.len() == size => self.0.content.put(path, version, index, block.into()),
                _ => return,
            }
        }
    }

    /// What the server did not take stays here: as a conflict, as stranded, or in the spool for the next attempt.
    fn store_failed(
        &self,
        op: &'static str,
        ino: Ino,
        path: &RemotePath,
        spool: &Arc<Spool>,
        error: RemoteError,
    ) -> FsError {
        let area = self.0.table.area(ino).unwrap_or(Area::Code);
        if let ErrorKind::Conflict { .. } = error.kind {
            self.keep_aside(Shelf::Conflicts, ino, path, spool);
            return self.noted(FsError::new(op, path, Cause::Stale));
        }
        let error = self.mutation_error(op, area, path, error);
        match error.cause {
            Cause::ReadOnly(_) => self.strand(ino, path, spool, error),
            _ => error,
        }
    }

    fn strand(&self, ino: Ino, path: &RemotePath, spool: &Arc<Spool>, error: FsError) -> FsError {
        if matches!(error.cause, Cause::ReadOnly(_)) {
            self.keep_aside(Shelf::Stranded, ino, path, spool);
        }
        error
    }

    /// Copies the spool to a shelf and gives the file back to the server's version. If even the copy fails, the spool
    /// stays dirty, so that nothing is lost while the mount lives.
    fn keep_aside(&self, shelf: Shelf, ino: Ino, path: &RemotePath, spool: &Arc<Spool>) {
        match self.0.rescue.keep(shelf, path, spool.file()) {
            Ok(copy) => {
                log::warn!("{path}: could not be sent; your version is kept in {}", copy.display());
                spool.sent(spool.mark());
                self.forget_spool(ino);
            }
            Err(error) => log::error!("{path}: could not be sent, and keeping a copy failed: {error}"),
        }
    }

    /// Drops the spool of a closed file once the server has everything.
    pub(super) fn drop_clean_spool(&self, ino: Ino) {
        match self.spool(ino) {
            Some(spool) if spool.is_dirty() && self.0.table.view(ino).is_some_and(|view| !view.unlinked) => {}
            Some(_) => self.release_spool(ino),
            None => {}
        }
    }

    fn release_spool(&self, ino: Ino) {
        lock(&self.0.spools).remove(&ino);
        self.0.table.pin(ino, false);
    }

    /// The local content is given up (a copy is kept): what the server has is shown again.
    fn forget_spool(&self, ino: Ino) {
        self.release_spool(ino);
        let Some(view) = self.0.table.view(ino) else { return };
        if view.server.is_none()
            && let Some(name) = self.0.table.path(ino).and_then(|path| path.file_name())
        {
            self.0.table.remove(view.parent, &name);
            self.announce([crate::inode::Change::Entry { parent: view.parent, name }]);
        }
        self.0.table.expire(Some(view.parent));
        self.announce([crate::inode::Change::Content(ino)]);
    }

    /// Files whose content is not on the server yet.
    pub fn dirty_files(&self) -> Vec<RemotePath> {
        let spools: Vec<(Ino, Arc<Spool>)> = lock(&self.0.spools).iter().map(|(i, s)| (*i, s.clone())).collect();
        let live = |ino: &Ino| self.0.table.view(*ino).is_some_and(|view| !view.unlinked);
        spools.iter().filter(|(ino, spool)| spool.is_dirty() && live(ino)).map(|(ino, _)| self.object(*ino)).collect()
    }

    /// Sends everything that waits; the first error is returned, the rest is tried all the same.
    pub fn sync(&self, wait: Wait) -> FsResult<()> {
        let inos: Vec<Ino> = lock(&self.0.spools).keys().copied().collect();
        inos.into_iter().map(|ino| self.send("sync", ino, wait)).fold(Ok(()), Result::and)
    }

    /// What cannot be sent before the mount ends is put aside, named in the log.
    pub fn strand_unsent(&self) -> Vec<RemotePath> {
        let spools: Vec<(Ino, Arc<Spool>)> = lock(&self.0.spools).iter().map(|(i, s)| (*i, s.clone())).collect();
        let mut stranded = Vec::new();
        for (ino, spool) in spools {
            let Some(view) = self.0.table.view(ino) else { continue };
            if spool.is_dirty() && !view.unlinked {
                let path = self.object(ino);
                self.keep_aside(Shelf::Stranded, ino, &path, &spool);
                stranded.push(path);
            }
        }
        stranded
    }
}
