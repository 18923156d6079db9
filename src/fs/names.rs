//! mkdir, rmdir, unlink, rename, symlink: operations on names, sent to the server before they are answered.

use std::time::Instant;

use super::kept::Deed;
use super::{Cause, Entry, Fs, FsError, FsResult, Wait};
use crate::attr::{Area, Attr, FileKind};
use crate::gate::WritePermit;
use crate::inode::{Child, Ino, NodeView};
use crate::path::{LinkTarget, Name, RemotePath, resolve_link};
use crate::remote::{ErrorKind, RemoteError};

/// A checked request to change the name `name` in `parent`.
struct Target {
    parent: Ino,
    name: Name,
    path: RemotePath,
    area: Area,
    permit: WritePermit,
}

impl Fs {
    /// The checks that every operation on a name begins with. Waits are allowed from here on.
    fn target(&self, op: &'static str, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Target> {
        if parent.is_virtual() {
            return Err(FsError::new(op, ".pantheon", Cause::NotPermitted("names in .pantheon belong to the mount")));
        }
        let dir = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new(op, &dir, e))?;
        let path = dir.join(&name);
        self.reserved(op, parent, &name)?;
        let permit = self.permit(op, parent, &path, wait)?;
        self.ensure_listed(op, parent, self.freshness(parent), wait)?;
        Ok(Target { parent, name, path, area: permit.area(), permit })
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

    fn failed(&self, op: &'static str, target: &Target, error: RemoteError) -> FsError {
        // Whatever the server objects to, our picture of the directory was wrong.
        self.0.table.expire(Some(target.parent));
        self.mutation_error(op, target.area, &target.path, error)
    }

    fn made(&self, op: &'static str, target: &Target, attr: Attr) -> FsResult<Entry> {
        let ino = self.0.table.insert(target.parent, &target.name, attr, Some(attr.version()));
        let view = ino.and_then(|ino| self.0.table.view(ino));
        let view = view.ok_or_else(|| FsError::new(op, &target.path, Cause::NotFound))?;
        self.0.table.add_lookup(view.ino);
        Ok(self.entry(&view))
    }

    pub fn mkdir(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        let target = self.target("mkdir", parent, name, wait)?;
        self.vacant("mkdir", &target)?;
        self.may_wait("mkdir", &target.path, wait)?;
        let attr = self.0.remote.mkdir(&target.permit, &target.path, perm);
        self.made("mkdir", &target, attr.map_err(|e| self.failed("mkdir", &target, e))?)
    }

    pub fn symlink(&self, parent: Ino, name: &[u8], text: &[u8], wait: Wait) -> FsResult<Entry> {
        let target = self.target("symlink", parent, name, wait)?;
        self.vacant("symlink", &target)?;
        let inside = self.shown_path(&target.path);
        if !matches!(resolve_link(&inside, text), LinkTarget::Inside(_)) {
            let cause = Cause::NotPermitted("a symlink may only lead to a place inside the mount, by a relative path");
            return Err(FsError::new("symlink", &target.path, cause));
        }
        self.may_wait("symlink", &target.path, wait)?;
        let attr = self.0.remote.symlink(&target.permit, &target.path, text);
        let attr = attr.map_err(|e| self.failed("symlink", &target, e))?;
        self.note_done(target.area, &target.path, Deed::Link(text));
        self.made("symlink", &target, attr)
    }

    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("unlink", parent, name, wait)?;
        let view = self.existing("unlink", &target)?;
        if view.attr.is_dir() {
            return Err(FsError::new("unlink", &target.path, Cause::IsADirectory));
        }
        let deadline = self.may_wait("unlink", &target.path, wait)?;
        let Some(_busy) = self.0.busy.objects(&[view.ino.0], deadline) else {
            return Err(FsError::new("unlink", &target.path, Cause::TimedOut));
        };
        self.keep_for_readers("unlink", &view, wait)?;
        // It may have been sent while we waited for our turn.
        let view = self.0.table.view(view.ino).unwrap_or(view);
        if view.server.is_some() {
            match self.0.remote.unlink(&target.permit, &target.path) {
                // Somebody else was faster: it is gone, as the caller wished.
                Err(error) if matches!(error.kind, ErrorKind::NotFound) => {}
                other => other.map_err(|e| self.failed("unlink", &target, e))?,
            }
            self.note_done(target.area, &target.path, Deed::Deleted);
        }
        self.0.table.remove(target.parent, &target.name);
        if view.opens == 0 {
            self.drop_clean_spool(view.ino);
        }
        Ok(())
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("rmdir", parent, name, wait)?;
        let view = self.existing("rmdir", &target)?;
        if !view.attr.is_dir() {
            return Err(FsError::new("rmdir", &target.path, Cause::NotADirectory));
        }
        self.may_wait("rmdir", &target.path, wait)?;
        self.expect_empty("rmdir", view.ino, &target.path, wait)?;
        self.0.remote.rmdir(&target.permit, &target.path).map_err(|e| self.failed("rmdir", &target, e))?;
        self.0.table.remove(target.parent, &target.name);
        Ok(())
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
        if view.opens > 0 && view.attr.is_file() && view.server.is_some() {
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
        let replaced = self.existing("rename", &target).ok();
        if no_replace && replaced.is_some() {
            return Err(FsError::new("rename", &target.path, Cause::Exists));
        }
        if replaced.as_ref().is_some_and(|view| view.ino == moved.ino) {
            return Ok(());
        }
        let deadline = self.may_wait("rename", &source.path, wait)?;
        let objects: Vec<u64> = [Some(&moved), replaced.as_ref()].into_iter().flatten().map(|v| v.ino.0).collect();
        let busy = if moved.attr.is_dir() {
            self.0.busy.everything(deadline)
        } else {
            self.0.busy.objects(&objects, deadline)
        };
        let Some(_busy) = busy else { return Err(FsError::new("rename", &source.path, Cause::TimedOut)) };
        let moved = self.0.table.view(moved.ino).unwrap_or(moved);
        if let Some(view) = &replaced {
            self.check_replace(&moved, view, &target, wait)?;
        }
        self.rename_on_server(&source, &target, &moved, replaced.as_ref(), no_replace)?;
        self.renamed(&source, &target, &moved);
        Ok(())
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

    fn rename_on_server(
        &self,
        source: &Target,
        target: &Target,
        moved: &NodeView,
        replaced: Option<&NodeView>,
        no_replace: bool,
    ) -> FsResult<()> {
        let remote = &self.0.remote;
        if moved.server.is_none() {
            // The file exists only here: it takes the place, and what was there becomes the base of its content.
            let base = replaced.filter(|view| view.attr.kind == FileKind::File).and_then(|view| view.server);
            self.0.table.adopt_base(moved.ino, base);
            return Ok(());
        }
        if replaced.is_some_and(|view| view.attr.is_dir()) {
            remote.rmdir(&target.permit, &target.path).map_err(|e| self.failed("rename", target, e))?;
        }
        let replace = !no_replace && replaced.is_some_and(|view| !view.attr.is_dir());
        remote.rename(&source.permit, &source.path, &target.path, replace).map_err(|e| {
            self.0.table.expire(Some(source.parent));
            self.failed("rename", target, e)
        })
    }

    fn renamed(&self, source: &Target, target: &Target, moved: &NodeView) {
        if moved.server.is_some() {
            self.note_done(target.area, &target.path, Deed::MovedFrom(&source.path));
        }
        if let Some(version) = moved.server.filter(|_| moved.attr.is_file()) {
            self.0.content.renamed(&source.path, &target.path, version);
        }
        self.0.table.rename((source.parent, &source.name), (target.parent, &target.name));
    }

    /// Operations on names always ask the server.
    fn may_wait(&self, op: &'static str, path: &RemotePath, wait: Wait) -> FsResult<crate::clock::Deadline> {
        match wait {
            Wait::Until(deadline) => Ok(deadline),
            Wait::No => Err(FsError::new(op, path, Cause::WouldBlock)),
        }
    }

    /// When the newest of our knowledge about a directory was learned, for tests.
    pub fn listed_at(&self, dir: Ino) -> Option<Instant> {
        self.0.table.listed(dir)
    }
}
