//! mkdir, rmdir, unlink, rename, symlink: made here, recorded, and sent behind the caller's back.

use std::sync::Arc;

use super::local_only::is_local_only;
use super::{Cause, Entry, Fs, FsError, FsResult, Wait};
use crate::attr::{Area, Attr, FileKind, secs_from_time};
use crate::inode::{Child, Ino, NodeView};
use crate::path::{LinkTarget, Name, RemotePath, resolve_link};
use crate::write::{Action, Expected};

/// Size shown for a directory that was made here (bytes), as most servers have it.
const DIR_SIZE: u64 = 4096;
/// Permission bits of a symlink, as Linux shows them.
const LINK_PERM: u16 = 0o777;

/// A checked request to change the name `name` in `parent`.
struct Target {
    parent: Ino,
    name: Name,
    path: RemotePath,
    area: Area,
}

impl Fs {
    /// The checks that every operation on a name begins with.
    fn target(&self, op: &'static str, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Target> {
        if parent.is_virtual() {
            return Err(FsError::new(op, ".pantheon", Cause::NotPermitted("names in .pantheon belong to the mount")));
        }
        let dir = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new(op, &dir, e))?;
        let path = dir.join(&name);
        self.reserved(op, parent, &name)?;
        self.is_directory(op, parent, &dir)?;
        let permit = self.permit(op, parent, &path, wait)?;
        self.ensure_listed(op, parent, self.freshness(parent), wait)?;
        self.may_record(op, &path, wait)?;
        Ok(Target { parent, name, path, area: permit.area() })
    }

    pub(super) fn is_directory(&self, op: &'static str, ino: Ino, path: &RemotePath) -> FsResult<()> {
        match self.0.table.view(ino) {
            Some(view) if view.attr.is_dir() => Ok(()),
            Some(_) => Err(FsError::new(op, path, Cause::NotADirectory)),
            None => Err(FsError::new(op, path, Cause::NotFound)),
        }
    }

    fn existing(&self, op: &'static str, target: &Target) -> FsResult<NodeView> {
        match self.0.table.child(target.parent, &target.name) {
            Child::Positive(view) => Ok(view),
            Child::Negative | Child::Unknown => Err(FsError::new(op, &target.path, Cause::NotFound)),
        }
    }

    fn vacant(&self, op: &'static str, target: &Target) -> FsResult<()> {
        match self.0.table.child(target.parent, &target.name) {
            Child::Positive(_) => Err(FsError::new(op, &target.path, Cause::Exists)),
            Child::Negative | Child::Unknown => Ok(()),
        }
    }

    /// Makes a new name here and records what the server is to do.
    fn make(&self, op: &'static str, target: &Target, attr: Attr, action: Action) -> FsResult<Entry> {
        let fail = |cause: Cause| FsError::new(op, &target.path, cause);
        let view = {
            let _names = self.0.names.lock();
            self.vacant(op, target)?;
            let ino =
                self.0.table.insert(target.parent, &target.name, attr, None).ok_or_else(|| fail(Cause::NotFound))?;
            if let Err(cause) = self.record(ino, &target.path, action) {
                self.0.table.remove(target.parent, &target.name);
                return Err(self.noted(fail(cause)));
            }
            self.0.table.add_lookup(ino);
            self.0.table.view(ino).ok_or_else(|| fail(Cause::NotFound))?
        };
        self.settle(op, &target.path)?;
        Ok(self.entry(&self.0.table.view(view.ino).unwrap_or(view)))
    }

    pub fn mkdir(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        let target = self.target("mkdir", parent, name, wait)?;
        let now = secs_from_time(self.0.clock.wall());
        let attr = Attr { kind: FileKind::Directory, size: DIR_SIZE, perm, mtime: now, atime: now };
        self.make("mkdir", &target, attr, Action::MakeDir { perm })
    }

    pub fn symlink(&self, parent: Ino, name: &[u8], text: &[u8], wait: Wait) -> FsResult<Entry> {
        let target = self.target("symlink", parent, name, wait)?;
        let inside = self.shown_path(&target.path);
        if !matches!(resolve_link(&inside, text), LinkTarget::Inside(_)) {
            let cause = Cause::NotPermitted("a symlink may only lead to a place inside the mount, by a relative path");
            return Err(FsError::new("symlink", &target.path, cause));
        }
        let now = secs_from_time(self.0.clock.wall());
        let size = text.len() as u64;
        let attr = Attr { kind: FileKind::Symlink, size, perm: LINK_PERM, mtime: now, atime: now };
        if is_local_only(&target.path) {
            return self.make_local_link(&target, attr, text);
        }
        self.make("symlink", &target, attr, Action::Symlink { text: text.to_vec() })
    }

    /// The lock of an editor: nobody else need know of it, and it ends with the editor.
    fn make_local_link(&self, target: &Target, attr: Attr, text: &[u8]) -> FsResult<Entry> {
        let _names = self.0.names.lock();
        self.vacant("symlink", target)?;
        let gone = || FsError::new("symlink", &target.path, Cause::NotFound);
        let ino = self.0.table.insert(target.parent, &target.name, attr, None).ok_or_else(gone)?;
        self.0.table.pin(ino, true);
        self.0.local_links.lock().insert(ino, text.to_vec());
        self.0.table.add_lookup(ino);
        Ok(self.entry(&self.0.table.view(ino).ok_or_else(gone)?))
    }

    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("unlink", parent, name, wait)?;
        let view = self.existing("unlink", &target)?;
        if view.attr.is_dir() {
            return Err(FsError::new("unlink", &target.path, Cause::IsADirectory));
        }
        self.keep_for_readers("unlink", &view, wait)?;
        {
            let _names = self.0.names.lock();
            let view = self.existing("unlink", &target)?;
            if !self.is_unrecorded(&view) {
                let action = Action::Unlink { base: view.server.into(), file: view.attr.kind == FileKind::File };
                self.record(view.ino, &target.path, action)
                    .map_err(|cause| self.noted(FsError::new("unlink", &target.path, cause)))?;
            }
            self.0.table.remove(target.parent, &target.name);
            self.0.local_links.lock().remove(&view.ino);
            self.record_local_only(view.ino).map_err(|cause| FsError::new("unlink", &target.path, cause))?;
            if view.opens == 0 {
                self.release_spool(view.ino);
            }
        }
        self.settle("unlink", &target.path)
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("rmdir", parent, name, wait)?;
        let view = self.existing("rmdir", &target)?;
        if !view.attr.is_dir() {
            return Err(FsError::new("rmdir", &target.path, Cause::NotADirectory));
        }
        self.expect_empty("rmdir", view.ino, &target.path, wait)?;
        {
            let _names = self.0.names.lock();
            let view = self.existing("rmdir", &target)?;
            if self.0.table.child_count(view.ino) > 0 {
                return Err(FsError::new("rmdir", &target.path, Cause::NotEmpty));
            }
            self.record(view.ino, &target.path, Action::RemoveDir)
                .map_err(|cause| self.noted(FsError::new("rmdir", &target.path, cause)))?;
            self.0.table.remove(target.parent, &target.name);
        }
        self.settle("rmdir", &target.path)
    }

    fn expect_empty(&self, op: &'static str, dir: Ino, path: &RemotePath, wait: Wait) -> FsResult<()> {
        self.ensure_listed(op, dir, self.freshness(dir), wait)?;
        match self.0.table.child_count(dir) {
            0 => Ok(()),
            _ => Err(FsError::new(op, path, Cause::NotEmpty)),
        }
    }

    /// An object that is about to lose its name on the server while it is open here: its content is taken over first.
    fn keep_for_readers(&self, op: &'static str, view: &NodeView, wait: Wait) -> FsResult<()> {
        if view.opens > 0 && view.attr.is_file() && view.server.is_some() && self.spool(view.ino).is_none() {
            self.ensure_spool(op, view.ino, None, wait)?;
        }
        Ok(())
    }

    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), no_replace: bool, wait: Wait) -> FsResult<()> {
        let source = self.target("rename", from.0, from.1, wait)?;
        let target = self.target("rename", to.0, to.1, wait)?;
        let moved = self.existing("rename", &source)?;
        if source.area != target.area {
            return Err(FsError::new("rename", &target.path, Cause::CrossesAreas));
        }
        if moved.attr.is_dir() && target.path.starts_with(&source.path) && target.path != source.path {
            let cause = Cause::Invalid("a directory cannot be moved into itself".into());
            return Err(FsError::new("rename", &target.path, cause));
        }
        if source.path.starts_with(&target.path) && target.path != source.path {
            return Err(FsError::new("rename", &target.path, Cause::NotEmpty));
        }
        let replaced = self.existing("rename", &target).ok();
        if no_replace && replaced.is_some() {
            return Err(FsError::new("rename", &target.path, Cause::Exists));
        }
        if replaced.as_ref().is_some_and(|view| view.ino == moved.ino) {
            return Ok(());
        }
        if let Some(view) = &replaced {
            self.check_replace(&moved, view, &target, wait)?;
        }
        if self.becomes_local_only(&moved, &source, &target) && self.spool(moved.ino).is_none() {
            self.ensure_spool("rename", moved.ino, None, wait)?;
        }
        {
            let _names = self.0.names.lock();
            let moved = self.existing("rename", &source)?;
            let replaced = self.existing("rename", &target).ok();
            self.record_rename(&source, &target, &moved, replaced.as_ref())
                .map_err(|cause| self.noted(FsError::new("rename", &source.path, cause)))?;
            if let Some(version) = moved.server.filter(|_| moved.attr.is_file()) {
                self.0.content.renamed(&source.path, &target.path, version);
            }
            self.0.table.rename((source.parent, &source.name), (target.parent, &target.name));
            if let Some(view) = &replaced {
                self.record_local_only(view.ino).map_err(|cause| FsError::new("rename", &target.path, cause))?;
            }
            if let Some(view) = replaced.filter(|view| view.opens == 0) {
                self.release_spool(view.ino);
            }
            self.save_from_local_only(&source, &target, &moved)
                .and_then(|()| self.local_only_renamed(&moved, &target.path))
                .map_err(|cause| self.noted(FsError::new("rename", &target.path, cause)))?;
        }
        self.settle("rename", &target.path)
    }

    /// What rename(2) asks of the object that is replaced; its readers keep their content.
    fn check_replace(&self, moved: &NodeView, view: &NodeView, target: &Target, wait: Wait) -> FsResult<()> {
        match (moved.attr.is_dir(), view.attr.is_dir()) {
            (false, true) => Err(FsError::new("rename", &target.path, Cause::IsADirectory)),
            (true, false) => Err(FsError::new("rename", &target.path, Cause::NotADirectory)),
            (true, true) => self.expect_empty("rename", view.ino, &target.path, wait),
            (false, false) => self.keep_for_readers("rename", view, wait),
        }
    }

    fn becomes_local_only(&self, moved: &NodeView, source: &Target, target: &Target) -> bool {
        moved.attr.is_file() && is_local_only(&target.path) && !is_local_only(&source.path)
    }

    /// Under `names`, before the table is changed.
    fn record_rename(
        &self,
        source: &Target,
        target: &Target,
        moved: &NodeView,
        replaced: Option<&NodeView>,
    ) -> Result<(), Cause> {
        let dir = moved.attr.is_dir();
        if self.becomes_local_only(moved, source, target) {
            return self.take_home(source, target, moved);
        }
        if let Some(view) = replaced.filter(|view| view.attr.is_dir()) {
            self.record(view.ino, &target.path, Action::RemoveDir)?;
        }
        if let Some(view) = replaced.filter(|view| view.attr.kind == FileKind::Symlink) {
            // New content can only take the place of content.
            self.record(view.ino, &target.path, Action::Unlink { base: view.server.into(), file: false })?;
        }
        let replaced = replaced.filter(|view| view.attr.is_file() && !is_local_only(&target.path));
        if self.is_unrecorded(moved) {
            // The object exists only here: it takes the place, and what was there becomes the base of its content.
            let base = replaced.and_then(|view| view.server);
            self.0.table.adopt_base(moved.ino, base);
            return Ok(());
        }
        let taken: Expected = replaced.and_then(|view| view.server).into();
        let action = Action::Rename { to: target.path.clone(), base: moved.server.into(), replaced: taken, dir };
        self.record(moved.ino, &source.path, action)
    }

    /// A file of the server gets a name that stays here: its content is here (`rename` saw to that), and there it goes.
    fn take_home(&self, source: &Target, target: &Target, moved: &NodeView) -> Result<(), Cause> {
        if let Some(spool) = self.spool(moved.ino).filter(|spool| spool.is_sealed()) {
            let copy = Arc::new(self.0.journal.new_spool()?);
            copy.copy_from(&spool, u64::MAX)?;
            self.put_spool(moved.ino, copy);
        }
        if let Some(spool) = self.spool(moved.ino) {
            // Before the server may forget it.
            spool.stay(true);
            self.0.journal.note_local_only(spool.id(), Some((target.path.clone(), moved.attr.perm)))?;
        }
        if !self.is_unrecorded(moved) {
            self.record(moved.ino, &source.path, Action::Unlink { base: moved.server.into(), file: true })?;
        }
        self.0.table.adopt_base(moved.ino, None);
        Ok(())
    }

    /// A file that was only here gets a name that the server should know.
    fn save_from_local_only(&self, source: &Target, target: &Target, moved: &NodeView) -> Result<(), Cause> {
        let comes = is_local_only(&source.path) && !is_local_only(&target.path) && moved.attr.is_file();
        // Whoever still writes to it saves it by closing it.
        if comes && moved.opens == 0 { self.save_now(moved.ino).map(drop) } else { Ok(()) }
    }
}
