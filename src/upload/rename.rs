//! rename: changed in the view, recorded, and sent by the worker. Between a local-only name and another name it
//! becomes a removal or a save.

use std::sync::Arc;

use super::local_only::is_local_only;
use super::names::Target;
use super::state::Upload;
use crate::attr::FileKind;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};
use crate::write::{Action, Expected};

impl Upload {
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), no_replace: bool, wait: Wait) -> FsResult<()> {
        let source = self.target("rename", from.0, from.1, wait)?;
        let target = self.target("rename", to.0, to.1, wait)?;
        let moved = self.existing("rename", &source)?;
        check_places(&source, &target, &moved)?;
        let replaced = self.existing("rename", &target).ok();
        if no_replace && replaced.is_some() {
            return Err(FsError::new("rename", &target.path, Cause::Exists));
        }
        if replaced.as_ref().is_some_and(|node| node.ino == moved.ino) {
            return Ok(());
        }
        if let Some(node) = &replaced {
            self.check_replace(&moved, node, &target, wait)?;
        }
        if becomes_local_only(&moved, &source, &target) && self.local.spool(moved.ino).is_none() {
            self.take_over("rename", moved.ino, None, wait)?;
        }
        self.local.begin("rename", &target.path)?;
        if let Some(spool) = self.local.spool(moved.ino) {
            spool.take_sum();
        }
        {
            let _names = self.local.lock_names();
            self.rename_now(&source, &target)?;
        }
        self.local.wait_if_sync("rename", &target.path)
    }

    /// Repeats the checks under the names lock, records the rename, and changes the view.
    fn rename_now(&self, source: &Target, target: &Target) -> FsResult<()> {
        let failed = |cause: Cause| FsError::new("rename", &target.path, cause);
        let moved = self.existing("rename", source)?;
        let replaced = self.existing("rename", target).ok();
        self.record_rename(source, target, &moved, replaced.as_ref())
            .map_err(|cause| self.local.noted(FsError::new("rename", &source.path, cause)))?;
        self.tell_renamed(&source.path, &target.path, moved.server.filter(|_| moved.attr.is_file()));
        self.local.0.view.rename((source.parent, &source.name), (target.parent, &target.name));
        if let Some(node) = &replaced {
            self.local.record_local_only(node.ino).map_err(failed)?;
        }
        if let Some(node) = replaced.filter(|node| node.opens == 0) {
            self.local.release_spool(node.ino);
        }
        self.save_from_local_only(source, target, &moved)
            .and_then(|()| self.local.renamed_local_only(&moved, &target.path))
            .map_err(|cause| self.local.noted(failed(cause)))
    }

    /// Checks what rename(2) demands of the object that is replaced, and keeps its content for open descriptors.
    fn check_replace(&self, moved: &NodeView, node: &NodeView, target: &Target, wait: Wait) -> FsResult<()> {
        match (moved.attr.is_dir(), node.attr.is_dir()) {
            (false, true) => Err(FsError::new("rename", &target.path, Cause::IsADirectory)),
            (true, false) => Err(FsError::new("rename", &target.path, Cause::NotADirectory)),
            (true, true) => self.expect_empty("rename", node.ino, &target.path, wait),
            (false, false) => self.keep_for_readers("rename", node, wait),
        }
    }

    /// Records the rename. Called before the view is changed.
    fn record_rename(
        &self,
        source: &Target,
        target: &Target,
        moved: &NodeView,
        replaced: Option<&NodeView>,
    ) -> Result<(), Cause> {
        let dir = moved.attr.is_dir();
        if becomes_local_only(moved, source, target) {
            return self.keep_here(source, target, moved);
        }
        if let Some(node) = replaced.filter(|node| node.attr.is_dir()) {
            self.local.record(node.ino, &target.path, Action::RemoveDir)?;
        }
        if let Some(node) = replaced.filter(|node| node.attr.kind == FileKind::Symlink) {
            // A save cannot replace an object of another kind.
            self.local.record(node.ino, &target.path, Action::Unlink { base: node.base().into(), file: false })?;
        }
        let replaced = replaced.filter(|node| node.attr.is_file() && !is_local_only(&target.path));
        if self.local.is_unrecorded(moved) {
            // The object exists only on this machine. It is saved under the new name, with the replaced file as its
            // base.
            let base = replaced.and_then(NodeView::base);
            self.local.0.view.adopt_base(moved.ino, base);
            return Ok(());
        }
        let taken: Expected = replaced.and_then(NodeView::base).into();
        let action = Action::Rename { to: target.path.clone(), base: moved.server.into(), replaced: taken, dir };
        self.local.record(moved.ino, &source.path, action)
    }

    /// Renames a file of the server to a local-only name. Its content is in a spool already (see `rename`), and the
    /// file on the server is removed.
    fn keep_here(&self, source: &Target, target: &Target, moved: &NodeView) -> Result<(), Cause> {
        if let Some(spool) = self.local.spool(moved.ino).filter(|spool| spool.is_sealed()) {
            let copy = Arc::new(self.local.0.journal.new_spool()?);
            copy.copy_from(&spool, u64::MAX)?;
            self.local.put_spool(moved.ino, copy);
        }
        if let Some(spool) = self.local.spool(moved.ino) {
            // Recorded before the removal, so that the content is never without a record.
            spool.stay(true);
            self.local.0.journal.note_local_only(spool.id(), Some((target.path.clone(), moved.attr.perm)))?;
        }
        if !self.local.is_unrecorded(moved) {
            self.local.record(moved.ino, &source.path, Action::Unlink { base: moved.base().into(), file: true })?;
        }
        self.local.0.view.adopt_base(moved.ino, None);
        Ok(())
    }

    /// Renames a local-only file to a name that the server gets. A file that is still open is saved when it is
    /// closed.
    fn save_from_local_only(&self, source: &Target, target: &Target, moved: &NodeView) -> Result<(), Cause> {
        let comes = is_local_only(&source.path) && !is_local_only(&target.path) && moved.attr.is_file();
        if comes && moved.opens == 0 { self.local.save_now(moved.ino).map(drop) } else { Ok(()) }
    }
}

fn check_places(source: &Target, target: &Target, moved: &NodeView) -> FsResult<()> {
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
    Ok(())
}

fn becomes_local_only(moved: &NodeView, source: &Target, target: &Target) -> bool {
    moved.attr.is_file() && is_local_only(&target.path) && !is_local_only(&source.path)
}
