//! open, create, flush, fsync, release.

use parking_lot::Mutex;

use super::handle::{FileHandle, Handle, Reading};
use super::{Cause, Entry, Fs, FsError, FsResult, HandleId, OPEN_FRESH, OpenMode, Wait};
use crate::attr::{Attr, FileKind, Version, secs_from_time};
use crate::content::ReadAhead;
use crate::inode::{Child, Ino, NodeView};
use crate::path::Name;

/// An open file: the handle and what the kernel may do with it.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub handle: HandleId,
    /// The kernel's pages are of this version: keep them.
    pub keep_pages: bool,
    /// Nothing to send at `close`: the kernel need not tell us.
    pub no_flush: bool,
    /// The size is not known before reading (virtual files): no page cache.
    pub direct: bool,
}

impl Fs {
    pub fn open(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Opened> {
        if ino.is_virtual() {
            return self.virt_open(ino, mode, wait);
        }
        if mode.write || mode.truncate {
            self.permit("open", ino, &self.object(ino), wait)?;
        }
        if !mode.write && !mode.truncate {
            self.read_begins(ino);
        }
        let bound = self.freshness(ino).min(OPEN_FRESH).max(self.frozen_bound(ino));
        let view = self.fresh_view("open", ino, bound, wait)?;
        match view.attr.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FsError::new("open", self.object(ino), Cause::IsADirectory)),
            FileKind::Symlink | FileKind::Other => {
                return Err(FsError::new("open", self.object(ino), Cause::NotPermitted("not a regular file")));
            }
        }
        if mode.truncate {
            self.truncate_open(ino, &view)?;
        }
        Ok(self.opened(&view, mode))
    }

    fn opened(&self, view: &NodeView, mode: OpenMode) -> Opened {
        let version = view.server.unwrap_or(view.attr.version());
        let reading =
            Reading { version, foreign_changes: view.foreign_changes, started: false, ahead: ReadAhead::default() };
        self.0.table.opened(view.ino);
        if let Some(spool) = self.spool(view.ino)
            && let Err(error) = spool.file()
        {
            // Held open from here on: its name may go as soon as the server has the content.
            log::error!("{}: the local copy cannot be opened: {error}", self.object(view.ino));
        }
        let settled = !version.is_racy(self.0.clock.wall()) || view.pinned;
        let keep_pages = !mode.truncate && (view.pinned || self.0.table.keep_pages(view.ino, version, settled));
        let handle = self.add_handle(Handle::File(FileHandle { ino: view.ino, mode, reading: Mutex::new(reading) }));
        Opened { handle, keep_pages, no_flush: !mode.write, direct: false }
    }

    /// The new content starts empty, here. The server hears of it together with the new bytes.
    fn truncate_open(&self, ino: Ino, view: &NodeView) -> FsResult<()> {
        let failed = |e: std::io::Error| FsError::new("truncate", self.object(ino), e);
        let cut = match self.spool(ino) {
            Some(spool) => spool.set_len(0).map_err(failed)?.is_some(),
            None => view.attr.size == 0 && view.server.is_some(),
        };
        if !cut {
            self.new_spool("truncate", ino)?;
        }
        self.wrote(ino, 0);
        Ok(())
    }

    /// The content changed here: size and time follow.
    pub(super) fn wrote(&self, ino: Ino, len: u64) {
        let now = secs_from_time(self.0.clock.wall());
        self.0.table.update(ino, |attr| {
            attr.size = len;
            attr.mtime = now;
        });
    }

    /// Creates a file. It exists here at once and on the server when it is closed.
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        perm: u16,
        mode: OpenMode,
        exclusive: bool,
        wait: Wait,
    ) -> FsResult<(Entry, Opened)> {
        if parent.is_virtual() {
            return Err(FsError::new(
                "create",
                ".pantheon",
                Cause::NotPermitted("nothing can be created in .pantheon"),
            ));
        }
        let object = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new("create", &object, e))?;
        let object = object.join(&name);
        self.reserved("create", parent, &name)?;
        self.is_directory("create", parent, &object)?;
        self.permit("create", parent, &object, wait)?;
        self.ensure_listed("create", parent, self.freshness(parent), wait)?;
        if let Child::Positive(view) = self.0.table.child(parent, &name) {
            if exclusive {
                return Err(FsError::new("create", object, Cause::Exists));
            }
            let opened = self.open(view.ino, mode, wait)?;
            self.0.table.add_lookup(view.ino);
            let view = self.0.table.view(view.ino).unwrap_or(view);
            return Ok((self.entry(&view), opened));
        }
        let now = secs_from_time(self.0.clock.wall());
        let attr = Attr { kind: FileKind::File, size: 0, perm, mtime: now, atime: now };
        let gone = || FsError::new("create", &object, Cause::NotFound);
        let ino = {
            let _names = self.0.names.lock();
            if let Child::Positive(_) = self.0.table.child(parent, &name) {
                return Err(FsError::new("create", object, Cause::Exists));
            }
            self.0.table.insert(parent, &name, attr, None).ok_or_else(gone)?
        };
        if let Err(error) = self.new_spool("create", ino) {
            self.0.table.remove(parent, &name);
            return Err(error);
        }
        self.0.table.add_lookup(ino);
        let view = self.0.table.view(ino).ok_or_else(gone)?;
        Ok((self.entry(&view), self.opened(&view, mode)))
    }

    /// An empty regular file without opening it: created and sent.
    pub fn mknod(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        let Wait::Until(_) = wait else { return Err(FsError::new("mknod", "", Cause::WouldBlock)) };
        let mode = OpenMode { read: false, write: true, truncate: false };
        let (entry, opened) = self.create(parent, name, perm, mode, true, wait)?;
        self.release(opened.handle, wait)?;
        Ok(entry)
    }

    /// `close` of one descriptor: when it returns, the content survives the death of the process and will be sent. On
    /// `-o sync` the server has it.
    pub fn flush(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        match &*self.handle("close", id)? {
            Handle::File(file) if file.mode.write => self.save("close", file.ino, wait),
            Handle::Virtual(file) => self.virt_flush(file, wait),
            Handle::File(_) | Handle::Dir(_) => Ok(()),
        }
    }

    /// When it returns, the content survives a loss of power, too.
    pub fn fsync(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        match &*self.handle("fsync", id)? {
            Handle::File(file) => {
                self.save("fsync", file.ino, wait)?;
                let failed = |e: std::io::Error| FsError::new("fsync", self.object(file.ino), e);
                if let Some(spool) = self.spool(file.ino) {
                    spool.sync().map_err(failed)?;
                }
                self.0.journal.sync().map_err(failed)
            }
            Handle::Virtual(file) => self.virt_flush(file, wait),
            Handle::Dir(dir) => self.0.journal.sync().map_err(|e| FsError::new("fsync", self.object(dir.ino), e)),
        }
    }

    /// The last descriptor is gone. Pages of a shared mapping may have come after the last flush: they are saved too.
    pub fn release(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        let Some(handle) = self.0.handles.lock().get(&id.0).cloned() else { return Ok(()) };
        let result = match &*handle {
            Handle::File(file) => {
                let saved = self.save("close", file.ino, wait);
                if matches!(&saved, Err(error) if error.would_block()) {
                    return saved;
                }
                if self.0.table.closed(file.ino) == 0 {
                    self.rest(file.ino);
                }
                saved
            }
            Handle::Virtual(file) => self.virt_flush(file, wait),
            Handle::Dir(_) => Ok(()),
        };
        self.drop_handle(id);
        result
    }

    /// Code that nobody can change needs no confirmation at `open`.
    fn frozen_bound(&self, ino: Ino) -> std::time::Duration {
        let fresh = self.freshness(ino);
        if fresh == super::FROZEN_FRESH { fresh } else { std::time::Duration::ZERO }
    }

    pub(super) fn reserved(&self, op: &'static str, parent: Ino, name: &Name) -> FsResult<()> {
        if parent == crate::inode::ROOT && name.as_bytes() == super::virt::DIR_NAME {
            return Err(FsError::new(op, name, Cause::NotPermitted(".pantheon belongs to the mount")));
        }
        Ok(())
    }

    pub(super) fn version_now(&self, ino: Ino) -> Option<Version> {
        self.0.table.view(ino).map(|view| view.server.unwrap_or(view.attr.version()))
    }
}
