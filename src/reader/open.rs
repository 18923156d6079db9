//! open and release, and which version an open file stands for.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::state::Reader;
use crate::attr::{FileKind, Version};
use crate::content::ReadAhead;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};

/// The mode of an `open` call.
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
    /// Opened by a program that reads many files in a row.
    pub(super) scanned: bool,
    /// The size at `open` (bytes), if the kernel relies on it.
    size: Option<u64>,
    /// Written by this handle since the last flush.
    written: AtomicBool,
    pub(super) reading: Mutex<Reading>,
}

/// The reading position of a handle, and the version it reads.
pub(super) struct Reading {
    /// The node's count of changes by other writers when the version was chosen.
    pub(super) foreign_changes: u32,
    /// The version that was chosen last.
    pub(super) version: Version,
    /// Whether bytes were returned.
    pub(super) started: bool,
    pub(super) ahead: ReadAhead,
}

/// An open file, and what the kernel may cache of it.
pub struct OpenedFile {
    pub file: OpenFile,
    /// The kernel's pages are of this version and stay valid.
    pub keep_pages: bool,
    /// There is nothing to send at `close`, so that the kernel need not call flush.
    pub no_flush: bool,
    /// Another file replaced the one that the kernel looked up: its cached size and pages are not of this file.
    pub direct: bool,
}

impl OpenFile {
    pub fn ino(&self) -> Ino {
        self.ino
    }

    pub fn writes(&self) -> bool {
        self.mode.write
    }

    /// Whether the kernel, which relies on the size at `open`, would return the node's content in full.
    pub(super) fn fits(&self, node: &NodeView) -> bool {
        self.size.is_none_or(|size| size == node.attr.size)
    }

    /// Notes that a write by this handle was accepted.
    pub fn note_written(&self) {
        self.written.store(true, Ordering::Release);
    }

    /// Notes that everything written by this handle is saved.
    pub fn note_saved(&self) {
        self.written.store(false, Ordering::Release);
    }
}

impl Reader {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// [`Cause::ReadOnly`] for writing if the environment accepts no changes; [`Cause::IsADirectory`];
    /// [`Cause::NotPermitted`] if it is not a regular file.
    pub fn open(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<OpenedFile> {
        // The kernel keeps a reference to the inode that it opens, but not to the one that took its place, which may be
        // replaced and forgotten before it is open: each attempt begins at the kernel's.
        let mut opens = self.0.view.successor(ino).unwrap_or(ino);
        loop {
            let opened = self.open_this(opens, mode, wait);
            match (&opened, self.0.view.successor(ino)) {
                (Err(error), Some(next)) if matches!(error.cause, Cause::NotFound) && next != opens => opens = next,
                _ => return opened.map(|opened| OpenedFile { direct: opened.direct || opens != ino, ..opened }),
            }
        }
    }

    fn open_this(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<OpenedFile> {
        let view = &self.0.view;
        let scanned = if mode.write || mode.truncate {
            self.0.upload.permit("open", ino, &view.object(ino), wait)?;
            false
        } else {
            self.0.scans.read_begins(ino)
        };
        let mut node = view.fresh_node("open", ino, view.open_freshness(ino), wait)?;
        match node.attr.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FsError::new("open", view.object(ino), Cause::IsADirectory)),
            FileKind::Symlink | FileKind::Other => {
                return Err(FsError::new("open", view.object(ino), Cause::NotPermitted("not a regular file")));
            }
        }
        if mode.truncate {
            // What this call learned is not a base: the new content is based on the version that was shown before.
            self.0.upload.truncate_at_open(&node)?;
        } else {
            if !node.pinned && self.0.content.has_changed(&view.object(ino), node.version()) {
                self.accept_changed(ino);
                node = view.node(ino).unwrap_or(node);
            }
            view.mark_shown(ino);
        }
        if !self.0.upload.count_open(ino) {
            // It lost its name before it was counted as open, so that its content was not kept.
            return Err(FsError::new("open", view.object(ino), Cause::NotFound));
        }
        Ok(self.opened_by(&node, mode, scanned))
    }

    /// Whether the file has no name any more, and no content on this machine. What its path leads to is another file.
    pub(super) fn has_lost_content(&self, ino: Ino) -> bool {
        self.0.view.node(ino).is_some_and(|node| node.unlinked) && self.0.upload.spool(ino).is_none()
    }

    /// The server has other content than callers were shown, under the same version: it is shown from now on.
    pub(super) fn accept_changed(&self, ino: Ino) {
        self.0.content.accept(&self.0.view.object(ino));
        self.0.view.content_changed(ino);
    }

    /// Opens a node that was just created.
    pub fn opened(&self, node: &NodeView, mode: OpenMode) -> OpenedFile {
        self.0.view.opened(node.ino);
        self.opened_by(node, mode, false)
    }

    fn opened_by(&self, node: &NodeView, mode: OpenMode, scanned: bool) -> OpenedFile {
        let view = &self.0.view;
        let version = node.version();
        let reading =
            Reading { foreign_changes: node.foreign_changes, version, started: false, ahead: ReadAhead::default() };
        if let Some(spool) = self.0.upload.spool(node.ino)
            && let Err(error) = spool.file()
        {
            // Its descriptor is held from here on, because its name may be removed as soon as the server has the
            // content.
            log::error!("{}: the local copy cannot be opened: {error}", view.object(node.ino));
        }
        let stable = node.pinned || self.0.content.is_settled(&view.object(node.ino), version);
        let keep_pages = !mode.truncate && (node.pinned || view.keep_pages(node.ino, version, stable));
        if keep_pages && mode.read {
            // The kernel uses its cached pages, so that no read may arrive here.
            view.mark_read(node.ino, !scanned);
        }
        // Checked now: the kernel still uses the size that it was told before.
        let direct = !mode.write && view.kernel_is_behind(node.ino);
        let size = (!direct).then_some(version.size);
        let (written, reading) = (AtomicBool::new(false), Mutex::new(reading));
        let file = OpenFile { ino: node.ino, mode, scanned, size, written, reading };
        OpenedFile { file, keep_pages, no_flush: !mode.write, direct }
    }

    /// Called before a write by this handle: fails if the handle was opened on another version. Content that is on
    /// this machine already may be changed further.
    ///
    /// # Errors
    ///
    /// [`Cause::Stale`]: another writer changed the file since it was opened.
    pub fn may_change(&self, op: &'static str, file: &OpenFile) -> FsResult<()> {
        let node = self.0.view.node(file.ino).filter(|node| !node.unlinked);
        let foreign = node.is_some_and(|node| node.foreign_changes != file.reading.lock().foreign_changes);
        if foreign && self.0.upload.spool(file.ino).is_none() {
            return Err(FsError::new(op, self.0.view.object(file.ino), Cause::Stale));
        }
        Ok(())
    }

    /// Called when the last descriptor of a handle is closed. Pages of a shared mapping may have been written after
    /// the last flush, and are saved, too. The kernel sends release some time after `close` returned, so that it must
    /// not save what another handle has written meanwhile and not closed.
    pub fn release(&self, file: &OpenFile, wait: Wait) -> FsResult<()> {
        let last = self.0.view.node(file.ino).is_none_or(|node| node.opens <= 1);
        let saved = if last || file.written.load(Ordering::Acquire) {
            self.0.upload.save("close", file.ino, wait)
        } else {
            Ok(())
        };
        if matches!(&saved, Err(error) if error.would_block()) {
            return saved;
        }
        if self.0.view.closed(file.ino) == 0 {
            self.0.upload.last_closed(file.ino);
        }
        saved
    }

    /// The version to read: the newest, unless another writer changed the file since it was opened. `None`: bytes of
    /// another version were returned already.
    pub(super) fn version_of(&self, file: &OpenFile) -> Option<Version> {
        let node = self.0.view.node(file.ino)?;
        let mut reading = file.reading.lock();
        if node.foreign_changes != reading.foreign_changes {
            if reading.started || !file.fits(&node) {
                return None;
            }
            reading.foreign_changes = node.foreign_changes;
        }
        reading.version = node.version();
        Some(reading.version)
    }
}
