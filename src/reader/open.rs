//! open and release; which version an open file stands for.

use parking_lot::Mutex;

use super::state::Reader;
use crate::attr::{FileKind, Version};
use crate::content::ReadAhead;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};

/// How a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
}

/// An open file of the server.
pub struct OpenFile {
    pub(super) ino: Ino,
    pub(super) mode: OpenMode,
    pub(super) reading: Mutex<Reading>,
}

/// Where a reader is and which version it reads.
pub(super) struct Reading {
    /// The node's count of foreign changes when the version was taken.
    pub(super) foreign_changes: u32,
    /// Whether bytes were given out.
    pub(super) started: bool,
    pub(super) ahead: ReadAhead,
}

/// An open file, and what the kernel may do with it.
pub struct OpenedFile {
    pub file: OpenFile,
    /// The kernel's pages are of this version: keep them.
    pub keep_pages: bool,
    /// Nothing to send at `close`: the kernel need not tell us.
    pub no_flush: bool,
}

impl OpenFile {
    pub fn ino(&self) -> Ino {
        self.ino
    }

    pub fn writes(&self) -> bool {
        self.mode.write
    }
}

impl Reader {
    /// # Errors
    ///
    /// [`Cause::ReadOnly`] for writing where the environment takes no changes; [`Cause::IsADirectory`];
    /// [`Cause::NotPermitted`] for what is no regular file.
    pub fn open(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<OpenedFile> {
        let view = &self.0.view;
        if mode.write || mode.truncate {
            self.0.upload.permit("open", ino, &view.object(ino), wait)?;
        } else {
            self.0.scans.read_begins(ino);
        }
        let node = view.fresh_node("open", ino, view.open_freshness(ino), wait)?;
        match node.attr.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FsError::new("open", view.object(ino), Cause::IsADirectory)),
            FileKind::Symlink | FileKind::Other => {
                return Err(FsError::new("open", view.object(ino), Cause::NotPermitted("not a regular file")));
            }
        }
        if mode.truncate {
            self.0.upload.truncate_at_open(&node)?;
        }
        Ok(self.opened(&node, mode))
    }

    /// Opens a node that was just looked up or made.
    pub fn opened(&self, node: &NodeView, mode: OpenMode) -> OpenedFile {
        let view = &self.0.view;
        let version = node.version();
        let reading = Reading { foreign_changes: node.foreign_changes, started: false, ahead: ReadAhead::default() };
        view.opened(node.ino);
        if let Some(spool) = self.0.upload.spool(node.ino)
            && let Err(error) = spool.file()
        {
            // Held open from here on: its name may go as soon as the server has the content.
            log::error!("{}: the local copy cannot be opened: {error}", view.object(node.ino));
        }
        let stable = !version.is_racy(view.clock().wall()) || node.pinned;
        let keep_pages = !mode.truncate && (node.pinned || view.keep_pages(node.ino, version, stable));
        let file = OpenFile { ino: node.ino, mode, reading: Mutex::new(reading) };
        OpenedFile { file, keep_pages, no_flush: !mode.write }
    }

    /// The last descriptor is gone. Pages of a shared mapping may have come after the last flush: they are saved too.
    pub fn release(&self, file: &OpenFile, wait: Wait) -> FsResult<()> {
        let saved = self.0.upload.save("close", file.ino, wait);
        if matches!(&saved, Err(error) if error.would_block()) {
            return saved;
        }
        if self.0.view.closed(file.ino) == 0 {
            self.0.upload.last_closed(file.ino);
        }
        saved
    }

    /// The version for this file: the newest, as long as no other writer changed it since it was opened. `None`: bytes of
    /// another version were given out already.
    pub(super) fn version_of(&self, file: &OpenFile) -> Option<Version> {
        let node = self.0.view.node(file.ino)?;
        let mut reading = file.reading.lock();
        if node.foreign_changes != reading.foreign_changes {
            if reading.started {
                return None;
            }
            reading.foreign_changes = node.foreign_changes;
        }
        Some(node.version())
    }
}
