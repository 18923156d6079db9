//! rename: changed in the view, recorded, and sent by the worker. Between a local-only name and another name it
//! becomes a removal or a save.

use std::sync::Arc;

use super::names::Target;
use super::state::Upload;
use crate::attr::{FileKind, Version};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
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
        let stays = self.stays_at(&target, &moved, replaced.as_ref());
        if stays != moved.only_here && !moved.attr.is_file() {
            // What only this machine has cannot be moved to the server at once, nor the other way.
            return Err(FsError::new("rename", &target.path, Cause::CrossesAreas));
        }
        if stays && !moved.only_here && self.local.spool(moved.ino).is_none() {
            self.take_over("rename", moved.ino, None, wait)?;
        }
        self.local.begin("rename", &target.path)?;
        if let Some(spool) = self.local.spool(moved.ino) {
            spool.take_sum();
        }
        loop {
            let names = self.local.lock_names();
            let opened = self.existing("rename", &target).ok().filter(|node| self.local.needs_copy(node));
            let Some(node) = opened else {
                self.rename_now(&source, &target)?;
                break;
            };
            // Opened since the last look: its content is copied first, which takes a round trip.
            drop(names);
            self.keep_for_readers("rename", &node, wait)?;
        }
        self.local.wait_if_sync("rename", &target.path)
    }

    /// Whether the object is local-only under its new name. What the server has under such a name is replaced there.
    fn stays_at(&self, target: &Target, moved: &NodeView, replaced: Option<&NodeView>) -> bool {
        match replaced.filter(|node| node.attr.is_file()) {
            Some(node) => node.only_here,
            // Only an editor's lock is a local-only symlink, and it is made under its name.
            None if moved.attr.kind == FileKind::Symlink && !moved.only_here => self.local.is_only_here(target.parent),
            None => self.local.stays_here(target.parent, &target.name, moved.attr.kind),
        }
    }

    /// Repeats the checks under the names lock, records the rename, and changes the view.
    fn rename_now(&self, source: &Target, target: &Target) -> FsResult<()> {
        let failed = |cause: Cause| FsError::new("rename", &target.path, cause);
        let moved = self.existing("rename", source)?;
        let replaced = self.existing("rename", target).ok();
        let stays = self.stays_at(target, &moved, replaced.as_ref());
        self.record_rename((source, target), &moved, replaced.as_ref(), stays)
            .map_err(|cause| self.local.noted(FsError::new("rename", &source.path, cause)))?;
        self.tell_renamed(&source.path, &target.path, &self.files_of(&moved));
        self.local.0.view.rename((source.parent, &source.name), (target.parent, &target.name));
        if let Some(node) = &replaced {
            self.local.record_local_only(node.ino).map_err(failed)?;
        }
        self.local.moved_here((&source.path, &target.path), &moved, replaced.as_ref());
        if let Some(node) = replaced {
            self.local.release_if_closed(node.ino);
        }
        self.save_from_local_only(&moved, stays)
            .and_then(|()| self.local.renamed_local_only(&moved, &target.path))
            .map_err(|cause| self.local.noted(failed(cause)))
    }

    /// The files that the server has of an object, relative to it, with the server's versions.
    fn files_of(&self, object: &NodeView) -> Vec<(RemotePath, Version)> {
        let (mut waiting, mut files) = (vec![(RemotePath::root(), object.clone())], Vec::new());
        while let Some((below, node)) = waiting.pop() {
            if node.attr.is_dir() {
                let children = self.local.0.view.children(node.ino).into_iter();
                waiting.extend(children.map(|(name, child)| (below.join(&name), child)));
            } else if node.attr.is_file()
                && let Some(version) = node.server
            {
                files.push((below, version));
            }
        }
        files
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
        (source, target): (&Target, &Target),
        moved: &NodeView,
        replaced: Option<&NodeView>,
        stays: bool,
    ) -> Result<(), Cause> {
        let dir = moved.attr.is_dir();
        match (moved.only_here, stays) {
            (true, true) => return Ok(()),
            (false, true) => return self.keep_here(source, target, moved),
            (_, false) => {}
        }
        if let Some(node) = replaced.filter(|node| node.attr.is_dir()) {
            self.local.record(node.ino, &target.path, Action::RemoveDir)?;
        }
        if let Some(node) = replaced.filter(|node| node.attr.kind == FileKind::Symlink) {
            // A save cannot replace an object of another kind.
            self.local.record(node.ino, &target.path, Action::Unlink { base: node.base().into(), file: false })?;
        }
        let replaced = replaced.filter(|node| node.attr.is_file() && !node.only_here);
        if self.local.is_unrecorded(moved) {
            // The object exists only on this machine. It is saved under the new name, with the replaced file as its
            // base.
            let base = replaced.and_then(NodeView::base);
            self.local.0.view.stay_here(moved.ino, false);
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
            // It may go to the server under another name later, which has nothing of it then.
            spool.write_at(spool.len(), &[])?;
            // Recorded before the removal, so that the content is never without a record.
            spool.stay(true);
            self.local.0.journal.note_local_only(spool.id(), Some((target.path.clone(), moved.attr.perm)))?;
        }
        if !self.local.is_unrecorded(moved) {
            self.local.record(
                moved.ino,
                &source.path,
                Action::Unlink { base: moved.removal_base().into(), file: true },
            )?;
        }
        self.local.0.view.stay_here(moved.ino, true);
        Ok(())
    }

    /// Renames a local-only file to a name that the server gets. A file that is still open is saved when it is
    /// closed.
    fn save_from_local_only(&self, moved: &NodeView, stays: bool) -> Result<(), Cause> {
        let comes = moved.only_here && !stays && moved.attr.is_file();
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
