//! create, mkdir, rmdir, unlink, symlink: changed in the view, recorded in the journal, and sent by the worker.

use super::here::Object;
use super::state::Upload;
use crate::attr::{Area, Attr, FileKind, secs_from_time};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Child, Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::view::{Entry, OUTSIDE_PATH, UPLOADS_DIR, UPLOADS_PATH, outside_text};
use crate::write::Action;

/// The platform keeps uploads as objects of Google Cloud Storage, whose names have at most so many bytes.
const MAX_UPLOAD_PATH_BYTES: usize = 1024;
/// Size shown for a directory that was made by this mount (bytes); most servers report the same.
const DIR_SIZE: u64 = 4096;
/// Permission bits of a symlink, as Linux shows them.
const LINK_PERM: u16 = 0o777;

/// A checked request to change the entry `name` in the directory `parent`.
pub(super) struct Target {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) path: RemotePath,
    pub(super) area: Area,
}

/// How a file is made.
#[derive(Debug, Clone, Copy)]
pub struct NewFile {
    pub perm: u16,
    /// An existing file is an error.
    pub exclusive: bool,
    /// A temporary file that stays on this machine until it is renamed to a name that is sent.
    pub scratch: bool,
}

/// The result of `create`.
pub enum Created {
    /// The file was made; the kernel's lookup of its node is counted.
    New(NodeView),
    /// The file existed.
    Existing(NodeView),
}

impl Upload {
    /// The checks with which every operation on a name begins.
    fn place(&self, op: &'static str, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Target> {
        let view = &self.local.0.view;
        let dir = view.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new(op, &dir, e))?;
        let path = dir.join(&name);
        if view.is_own(parent, name.as_bytes()) {
            return Err(FsError::new(
                op,
                name,
                Cause::NotPermitted(".pantheon and .git in the root belong to the mount"),
            ));
        }
        view.is_directory(op, parent, &dir)?;
        let permit = self.permit(op, parent, &path, wait)?;
        let too_long = path.as_bytes().len() > MAX_UPLOAD_PATH_BYTES;
        if too_long && permit.area() == Area::Uploads && view.is_pantheon() {
            return Err(FsError::new(op, path, Cause::NameTooLong));
        }
        view.ensure_known(op, parent, &name, view.freshness(parent), wait)?;
        Ok(Target { parent, name, path, area: permit.area() })
    }

    /// [`Upload::place`] for operations that are recorded at once.
    pub(super) fn target(&self, op: &'static str, parent: Ino, name: &[u8], wait: Wait) -> FsResult<Target> {
        let target = self.place(op, parent, name, wait)?;
        self.local.may_record(op, &target.path, wait)?;
        Ok(target)
    }

    pub(super) fn existing(&self, op: &'static str, target: &Target) -> FsResult<NodeView> {
        match self.local.0.view.child(target.parent, &target.name) {
            Child::Positive(node) => Ok(node),
            Child::Negative | Child::Unknown => Err(FsError::new(op, &target.path, Cause::NotFound)),
        }
    }

    fn vacant(&self, op: &'static str, target: &Target) -> FsResult<()> {
        match self.local.0.view.child(target.parent, &target.name) {
            Child::Positive(_) => Err(FsError::new(op, &target.path, Cause::Exists)),
            Child::Negative | Child::Unknown => Ok(()),
        }
    }

    fn new_attr(&self, kind: FileKind, size: u64, perm: u16) -> Attr {
        let now = secs_from_time(self.local.0.view.clock().wall());
        Attr { kind, size, perm, mtime: now, atime: now }
    }

    /// Creates a file. It is visible in the mount at once, and is sent to the server when it is closed.
    ///
    /// # Errors
    ///
    /// [`Cause::Exists`] with `exclusive`, the errors of [`Upload::permit`], and [`Cause::Local`] if the local disk
    /// is full.
    pub fn create(&self, parent: Ino, name: &[u8], new: NewFile, wait: Wait) -> FsResult<Created> {
        let target = self.place("create", parent, name, wait)?;
        let view = &self.local.0.view;
        if let Child::Positive(node) = view.child(parent, &target.name) {
            let exists = || FsError::new("create", &target.path, Cause::Exists);
            return if new.exclusive { Err(exists()) } else { Ok(Created::Existing(node)) };
        }
        self.local.begin("create", &target.path)?;
        let attr = self.new_attr(FileKind::File, 0, new.perm);
        let gone = || FsError::new("create", &target.path, Cause::NotFound);
        let ino = {
            let _names = self.local.lock_names();
            self.vacant("create", &target)?;
            let stays = new.scratch || self.local.stays_here(parent, &target.name, FileKind::File);
            let ino = view.insert(parent, &target.name, attr, None).ok_or_else(gone)?;
            view.stay_here(ino, stays);
            ino
        };
        if let Err(error) = self.new_spool("create", ino) {
            view.remove(parent, &target.name);
            return Err(error);
        }
        view.add_lookup(ino);
        Ok(Created::New(view.node(ino).ok_or_else(gone)?))
    }

    /// Adds a new name to the view and records the operation.
    fn make(&self, op: &'static str, target: &Target, attr: Attr, action: Action) -> FsResult<Entry> {
        let view = &self.local.0.view;
        let fail = |cause: Cause| FsError::new(op, &target.path, cause);
        self.local.begin(op, &target.path)?;
        let node = {
            let _names = self.local.lock_names();
            self.vacant(op, target)?;
            let ino = view.insert(target.parent, &target.name, attr, None).ok_or_else(|| fail(Cause::NotFound))?;
            if let Err(cause) = self.local.record(ino, &target.path, action) {
                view.remove(target.parent, &target.name);
                return Err(self.local.noted(fail(cause)));
            }
            view.add_lookup(ino);
            view.node(ino).ok_or_else(|| fail(Cause::NotFound))?
        };
        self.local.wait_if_sync(op, &target.path)?;
        Ok(view.entry(&view.node(node.ino).unwrap_or(node)))
    }

    pub fn mkdir(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        let target = self.target("mkdir", parent, name, wait)?;
        let attr = self.new_attr(FileKind::Directory, DIR_SIZE, perm);
        if self.local.stays_here(parent, &target.name, FileKind::Directory) {
            let entry = self.make_here("mkdir", &target, attr)?;
            self.local.0.spools.here.made(&target.path, &Object::Dir(perm));
            return Ok(entry);
        }
        self.make("mkdir", &target, attr, Action::MakeDir { perm })
    }

    pub fn symlink(&self, parent: Ino, name: &[u8], text: &[u8], wait: Wait) -> FsResult<Entry> {
        let target = self.target("symlink", parent, name, wait)?;
        let copied = self.copied_text(&target, text);
        if copied.is_none() {
            self.own_links.add(&self.local.0.view.shown_path(&target.path), text);
        }
        let text = copied.as_deref().unwrap_or(text);
        let attr = self.new_attr(FileKind::Symlink, text.len() as u64, LINK_PERM);
        if self.local.stays_here(parent, &target.name, FileKind::Symlink) {
            let entry = self.make_here("symlink", &target, attr)?;
            self.local.0.spools.put_link(entry.ino, text);
            self.local.0.spools.here.made(&target.path, &Object::Link(text.to_vec()));
            return Ok(entry);
        }
        self.make("symlink", &target, attr, Action::Symlink { text: text.to_vec() })
    }

    /// The server's text of a symlink that leads out of the mount or to the uploads, if this text is the one by which it is
    /// shown: a program copies it. It may have read it in another directory, so that the number of `..` tells nothing.
    fn copied_text(&self, target: &Target, text: &[u8]) -> Option<Vec<u8>> {
        let mut text = text;
        while let Some(rest) = text.strip_prefix(b"../") {
            text = rest;
        }
        let shown = RemotePath::parse(text).ok()?;
        let below = |path: &str| shown.strip_prefix(&RemotePath::parse(path).ok()?);
        if let Some(real) = below(OUTSIDE_PATH).and_then(|below| outside_text(&below)) {
            return Some(real);
        }
        let in_code = self.local.0.view.is_pantheon() && target.area == Area::Code;
        let uploads = RemotePath::parse(UPLOADS_DIR).ok().filter(|_| in_code)?;
        Some(uploads.join_path(&below(UPLOADS_PATH)?).relative_from(&target.path))
    }

    /// Makes a directory or symlink that is local-only, and stays out of the journal.
    fn make_here(&self, op: &'static str, target: &Target, attr: Attr) -> FsResult<Entry> {
        let view = &self.local.0.view;
        self.local.begin(op, &target.path)?;
        let _names = self.local.lock_names();
        self.vacant(op, target)?;
        let gone = || FsError::new(op, &target.path, Cause::NotFound);
        let ino = view.insert(target.parent, &target.name, attr, None).ok_or_else(gone)?;
        view.stay_here(ino, true);
        view.add_lookup(ino);
        Ok(view.entry(&view.node(ino).ok_or_else(gone)?))
    }

    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("unlink", parent, name, wait)?;
        let node = self.existing("unlink", &target)?;
        if node.attr.is_dir() {
            return Err(FsError::new("unlink", &target.path, Cause::IsADirectory));
        }
        self.keep_for_readers("unlink", &node, wait)?;
        self.local.begin("unlink", &target.path)?;
        loop {
            let names = self.local.lock_names();
            let node = self.existing("unlink", &target)?;
            if self.local.needs_copy(&node) {
                // Opened since the last look: its content is copied first, which takes a round trip.
                drop(names);
                self.keep_for_readers("unlink", &node, wait)?;
                continue;
            }
            if !self.local.is_unrecorded(&node) {
                let action = Action::Unlink { base: node.base().into(), file: node.attr.kind == FileKind::File };
                self.local
                    .record(node.ino, &target.path, action)
                    .map_err(|cause| self.local.noted(FsError::new("unlink", &target.path, cause)))?;
            }
            self.local.0.view.remove(target.parent, &target.name);
            self.local.0.spools.remove_link(node.ino);
            if node.only_here && !node.attr.is_file() {
                self.local.0.spools.here.removed(&target.path);
            }
            self.local.record_local_only(node.ino).map_err(|cause| FsError::new("unlink", &target.path, cause))?;
            self.local.release_if_closed(node.ino);
            break;
        }
        self.local.wait_if_sync("unlink", &target.path)
    }

    /// Counts a descriptor of the file. `false`: the file has just lost its name, and its content was not kept. Takes the
    /// names lock, so that a file which loses its name is either seen here or copied first.
    pub fn count_open(&self, ino: Ino) -> bool {
        let _names = self.local.lock_names();
        let view = &self.local.0.view;
        let lost =
            view.node(ino).is_none_or(|node| node.unlinked && node.opens == 0) && self.local.spool(ino).is_none();
        if !lost {
            view.opened(ino);
        }
        !lost
    }

    /// Copies the content of an open file into a spool before the file loses its name on the server.
    pub(super) fn keep_for_readers(&self, op: &'static str, node: &NodeView, wait: Wait) -> FsResult<()> {
        if self.local.needs_copy(node) {
            self.take_over(op, node.ino, None, wait)?;
        }
        Ok(())
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        let target = self.target("rmdir", parent, name, wait)?;
        let node = self.existing("rmdir", &target)?;
        if !node.attr.is_dir() {
            return Err(FsError::new("rmdir", &target.path, Cause::NotADirectory));
        }
        self.expect_empty("rmdir", node.ino, &target.path, wait)?;
        self.local.begin("rmdir", &target.path)?;
        {
            let _names = self.local.lock_names();
            let node = self.existing("rmdir", &target)?;
            if self.local.0.view.child_count(node.ino) > 0 {
                return Err(FsError::new("rmdir", &target.path, Cause::NotEmpty));
            }
            if node.only_here {
                self.local.0.spools.here.removed(&target.path);
            } else {
                self.local
                    .record(node.ino, &target.path, Action::RemoveDir)
                    .map_err(|cause| self.local.noted(FsError::new("rmdir", &target.path, cause)))?;
            }
            self.local.0.view.remove(target.parent, &target.name);
        }
        self.local.wait_if_sync("rmdir", &target.path)
    }

    pub(super) fn expect_empty(&self, op: &'static str, dir: Ino, path: &RemotePath, wait: Wait) -> FsResult<()> {
        self.local.0.view.ensure_listed(op, dir, self.local.0.view.freshness(dir), wait)?;
        match self.local.0.view.child_count(dir) {
            0 => Ok(()),
            _ => Err(FsError::new(op, path, Cause::NotEmpty)),
        }
    }
}
