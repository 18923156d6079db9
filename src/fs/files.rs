//! Operations on open files.

use super::handles::{Handle, HandleId};
use super::state::Fs;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::reader::{OpenMode, OpenedFile};
use crate::upload::{Allocate, Created, NewFile};
use crate::view::Entry;

/// An open file: the handle, and what the kernel may cache of it.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub handle: HandleId,
    /// The kernel's pages are of this version and stay valid.
    pub keep_pages: bool,
    /// There is nothing to send at `close`, so that the kernel need not call flush.
    pub no_flush: bool,
    /// The size is not known before reading (virtual files), so that there is no page cache.
    pub direct: bool,
}

impl Fs {
    pub fn open(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Opened> {
        if !ino.is_virtual() {
            return Ok(self.opened(self.reader.open(ino, mode, wait)?));
        }
        let writes = mode.write || mode.truncate;
        let file = self.dot.open(ino, writes, mode.truncate, wait)?;
        let fixed = file.is_fixed();
        let handle = self.handles.add(Handle::Virtual(file));
        Ok(Opened { handle, keep_pages: fixed, no_flush: !writes, direct: !fixed })
    }

    fn opened(&self, opened: OpenedFile) -> Opened {
        let OpenedFile { file, keep_pages, no_flush, direct } = opened;
        Opened { handle: self.handles.add(Handle::File(file)), keep_pages: keep_pages && !direct, no_flush, direct }
    }

    /// Creates a file, or opens the existing one.
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewFile,
        mode: OpenMode,
        wait: Wait,
    ) -> FsResult<(Entry, Opened)> {
        self.not_virtual("create", parent)?;
        match self.upload.create(parent, name, new, wait)? {
            Created::New(node) => Ok((self.view.entry(&node), self.opened(self.reader.opened(&node, mode)))),
            Created::Existing(node) => {
                let opened = self.open(node.ino, mode, wait)?;
                self.view.add_lookup(node.ino);
                let node = self.view.node(node.ino).unwrap_or(node);
                Ok((self.view.entry(&node), opened))
            }
        }
    }

    /// Creates an empty regular file and sends it, without opening it.
    pub fn mknod(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        let Wait::Until(_) = wait else { return Err(FsError::new("mknod", "", Cause::WouldBlock)) };
        let mode = OpenMode { read: false, write: true, truncate: false };
        let (entry, opened) =
            self.create(parent, name, NewFile { perm, exclusive: true, scratch: false }, mode, wait)?;
        self.release(opened.handle, wait)?;
        Ok(entry)
    }

    pub fn read(&self, id: HandleId, offset: u64, size: u32, wait: Wait) -> FsResult<Vec<u8>> {
        match &*self.handles.get("read", id)? {
            Handle::File(file) => self.reader.read(file, offset, size, wait),
            Handle::Virtual(file) => self.dot.read(file, offset, size),
            Handle::Dir(_) => Err(FsError::new("read", "handle", Cause::IsADirectory)),
        }
    }

    pub fn write(&self, id: HandleId, offset: u64, bytes: &[u8], wait: Wait) -> FsResult<u32> {
        match &*self.handles.get("write", id)? {
            Handle::File(file) if file.writes() => {
                self.reader.may_change("write", file)?;
                let written = self.upload.write(file.ino(), offset, bytes, wait)?;
                file.note_written();
                Ok(written)
            }
            Handle::Virtual(file) => self.dot.write(file, bytes, wait),
            Handle::File(_) | Handle::Dir(_) => Err(FsError::new("write", "handle", Cause::BadHandle)),
        }
    }

    pub fn fallocate(&self, id: HandleId, offset: u64, len: u64, what: Allocate, wait: Wait) -> FsResult<()> {
        match &*self.handles.get("fallocate", id)? {
            Handle::File(file) => {
                self.reader.may_change("fallocate", file)?;
                self.upload.fallocate(file.ino(), offset, len, what, wait)
            }
            Handle::Virtual(_) | Handle::Dir(_) => Err(FsError::new("fallocate", "handle", Cause::BadHandle)),
        }
    }

    /// `close` of one descriptor. When it returns, the content survives a crash of the process and will be sent. With
    /// `-o sync` the server has it.
    pub fn flush(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        match &*self.handles.get("close", id)? {
            Handle::File(file) if file.writes() => {
                self.upload.save("close", file.ino(), wait)?;
                file.note_saved();
                Ok(())
            }
            Handle::Virtual(file) => self.dot.flush(file, wait),
            Handle::File(_) | Handle::Dir(_) => Ok(()),
        }
    }

    /// When it returns, the content also survives a loss of power.
    pub fn fsync(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        match &*self.handles.get("fsync", id)? {
            Handle::File(file) => {
                self.upload.save("fsync", file.ino(), wait)?;
                self.upload.sync_to_disk(file.ino())
            }
            Handle::Virtual(file) => self.dot.flush(file, wait),
            Handle::Dir(dir) => self.upload.sync_to_disk(dir.ino),
        }
    }

    /// Called when the last descriptor is closed. The handle ends whatever the result, unless the result needs a
    /// wait.
    pub fn release(&self, id: HandleId, wait: Wait) -> FsResult<()> {
        let Some(handle) = self.handles.find(id) else { return Ok(()) };
        let result = match &*handle {
            Handle::File(file) => self.reader.release(file, wait),
            Handle::Virtual(file) => self.dot.flush(file, wait),
            Handle::Dir(_) => Ok(()),
        };
        let again = matches!((&*handle, &result), (Handle::File(_), Err(error)) if error.would_block());
        if !again {
            self.handles.remove(id);
        }
        result
    }
}
