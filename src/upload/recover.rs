//! Recovery: shows the changes that an earlier mount recorded and did not send, on top of the saved tree.

use std::sync::Arc;

use super::apply::LOST_HERE;
use super::here::Object;
use super::state::Upload;
use crate::attr::{Attr, FileKind, secs_from_time};
use crate::error::{Cause, FsError};
use crate::inode::{Child, Ino};
use crate::path::{Name, RemotePath};
use crate::write::{Action, Expected, Op, OpId, Put, RejectKind, SpoolId};

/// Attributes shown for a directory that must exist and was not listed yet.
const UNKNOWN_DIR: Attr = Attr { kind: FileKind::Directory, size: 4096, perm: 0o755, mtime: 0, atime: 0 };

impl Upload {
    /// Shows the operations of the journal in the view. Called before the worker starts: an operation that ends must
    /// find its object.
    pub fn recover(&self) {
        for (path, version, blocks) in self.local.0.journal.take_shown() {
            self.content.restore_shown(path, version, blocks);
        }
        let ops: Vec<_> = self.local.queue(|queue| queue.ops().map(|(id, op)| (id, op.clone())).collect());
        for (id, op) in ops {
            let whole = if let Action::Put(put) = &op.action { self.local.0.journal.is_whole(put) } else { Some(true) };
            match whole {
                Some(true) => {}
                Some(false) => {
                    self.content_is_lost(id, &op);
                    continue;
                }
                None => {
                    log::warn!("{}: its content was probably sent already; the server's version is shown", op.path);
                    drop(self.local.0.journal.finish(id, Expected::Unknown));
                    continue;
                }
            }
            if let Some(ino) = self.show_op(&op) {
                self.local.0.journal.bind(id, ino.0);
                self.local.0.view.pin(ino);
            }
        }
        self.show_local_only();
    }

    /// Rejects a save whose content was not on the local disk when the power failed. What is left of it becomes a
    /// rejected copy; it is never sent, so that the server's version stays.
    fn content_is_lost(&self, id: OpId, op: &Op) {
        let error = FsError::new("recover", &op.path, Cause::Conflict(LOST_HERE.into()));
        self.local.reject(id, op, RejectKind::Stranded, error);
    }

    /// Makes the change of an operation in the view. Returns the object that it leaves, if any.
    fn show_op(&self, op: &Op) -> Option<Ino> {
        let parent = self.dir_at(&op.path.parent()?)?;
        let name = op.path.file_name()?;
        let known = match self.local.0.view.child(parent, &name) {
            Child::Positive(view) => Some(view),
            Child::Negative | Child::Unknown => None,
        };
        let at = u32::try_from(op.at).unwrap_or(u32::MAX);
        let made = |kind, size, perm| Attr { kind, size, perm, mtime: at, atime: at };
        match &op.action {
            Action::Put(put) => {
                let ino = match known.filter(|view| view.attr.is_file()) {
                    Some(view) => view.ino,
                    None => self.local.0.view.insert(parent, &name, made(FileKind::File, put.len, put.perm), None)?,
                };
                self.show_content(ino, put);
                Some(ino)
            }
            Action::MakeDir { perm } => match known.filter(|view| view.attr.is_dir()) {
                Some(view) => Some(view.ino),
                None => {
                    let attr = made(FileKind::Directory, UNKNOWN_DIR.size, *perm);
                    let ino = self.local.0.view.insert(parent, &name, attr, None)?;
                    // The server may have the directory already, with files of other writers.
                    self.local.0.view.expire(ino);
                    Some(ino)
                }
            },
            Action::Symlink { text } => {
                self.local.0.view.insert(parent, &name, made(FileKind::Symlink, text.len() as u64, 0o777), None)
            }
            Action::Unlink { .. } | Action::RemoveDir => {
                self.local.0.view.remove(parent, &name);
                None
            }
            Action::Rename { to, base, dir, .. } => self.show_move((parent, &name), to, *base, *dir),
            Action::SetAttr { perm, times, .. } => {
                let ino = known?.ino;
                self.local.0.view.update(ino, |attr| {
                    attr.perm = perm.unwrap_or(attr.perm);
                    (attr.atime, attr.mtime) = times.unwrap_or((attr.atime, attr.mtime));
                })?;
                Some(ino)
            }
        }
    }

    /// Shows the local-only files of the last mount.
    fn show_local_only(&self) {
        for (path, object) in self.local.0.spools.here.take_found() {
            if self.show_here(&path, &object).is_none() {
                log::warn!("{path}: this local-only directory or link cannot be shown any more");
            }
        }
        for (id, path, perm) in self.local.0.journal.local_only() {
            if self.show_one(id, &path, perm).is_none() {
                log::warn!("{path}: this local-only file cannot be shown any more");
            }
        }
    }

    fn show_here(&self, path: &RemotePath, object: &Object) -> Option<()> {
        let (parent, name) = (self.local_dir_at(&path.parent()?)?, path.file_name()?);
        let (view, at) = (&self.local.0.view, secs_from_time(self.local.0.view.clock().wall()));
        if let Child::Positive(_) = view.child(parent, &name) {
            return None;
        }
        let attr = match object {
            Object::Dir(perm) => Attr { perm: *perm, mtime: at, atime: at, ..UNKNOWN_DIR },
            Object::Link(text) => {
                Attr { kind: FileKind::Symlink, size: text.len() as u64, perm: 0o777, mtime: at, atime: at }
            }
        };
        let ino = view.insert(parent, &name, attr, None)?;
        view.stay_here(ino, true);
        if let Object::Link(text) = object {
            self.local.0.spools.put_link(ino, text);
        }
        Some(())
    }

    fn show_one(&self, id: SpoolId, path: &RemotePath, perm: u16) -> Option<()> {
        let spool = Arc::new(self.local.0.journal.reopen_local_only(id).ok()?);
        let (parent, name) = (self.local_dir_at(&path.parent()?)?, path.file_name()?);
        if let Child::Positive(_) = self.local.0.view.child(parent, &name) {
            return None;
        }
        let at = secs_from_time(self.local.0.view.clock().wall());
        let attr = Attr { kind: FileKind::File, size: spool.len(), perm, mtime: at, atime: at };
        let ino = self.local.0.view.insert(parent, &name, attr, None)?;
        self.local.0.view.stay_here(ino, true);
        // There may be more of them than a process may have open.
        spool.rest();
        self.local.put_spool(ino, spool);
        Some(())
    }

    /// Like [`Upload::dir_at`], for the directory of a local-only file, which may be local-only as well.
    fn local_dir_at(&self, path: &RemotePath) -> Option<Ino> {
        let view = &self.local.0.view;
        if let Some(ino) = view.find(path) {
            return Some(ino);
        }
        let (parent, name) = (self.local_dir_at(&path.parent()?)?, path.file_name()?);
        if !self.local.stays_here(parent, &name, FileKind::Directory) {
            return view.assume_dir(parent, &name, UNKNOWN_DIR);
        }
        let ino = view.insert(parent, &name, Attr { perm: 0o700, ..UNKNOWN_DIR }, None)?;
        view.stay_here(ino, true);
        Some(ino)
    }

    fn show_content(&self, ino: Ino, put: &Put) {
        self.local.0.view.update(ino, |attr| {
            (attr.size, attr.perm, attr.mtime) = (put.len, put.perm, put.mtime);
        });
        match put.base {
            Expected::Version(version) => self.local.0.view.adopt_base(ino, Some(version)),
            Expected::Absent => self.local.0.view.adopt_base(ino, None),
            Expected::After(_) | Expected::Unknown | Expected::Ours => {}
        }
        self.local.put_spool(ino, Arc::new(self.local.0.journal.reopen(put.spool, put.len)));
    }

    fn show_move(&self, from: (Ino, &Name), to: &RemotePath, base: Expected, dir: bool) -> Option<Ino> {
        let (parent, name) = (self.dir_at(&to.parent()?)?, to.file_name()?);
        if let Some(moved) = self.local.0.view.rename(from, (parent, &name)) {
            return Some(moved);
        }
        if let Child::Positive(view) = self.local.0.view.child(parent, &name) {
            // The saved tree has the new name already.
            return Some(view.ino);
        }
        match base {
            _ if dir => self.local.0.view.assume_dir(parent, &name, UNKNOWN_DIR),
            Expected::Version(version) => {
                let (size, mtime) = (version.size, version.mtime);
                let attr = Attr { kind: FileKind::File, size, perm: 0o644, mtime, atime: mtime };
                self.local.0.view.insert(parent, &name, attr, Some(version))
            }
            _ => None,
        }
    }

    /// The directory at a path. Directories on the way that are not known must exist, because a change below them was
    /// recorded.
    fn dir_at(&self, path: &RemotePath) -> Option<Ino> {
        if let Some(ino) = self.local.0.view.find(path) {
            return Some(ino);
        }
        let parent = self.dir_at(&path.parent()?)?;
        self.local.0.view.assume_dir(parent, &path.file_name()?, UNKNOWN_DIR)
    }
}
