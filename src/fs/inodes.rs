//! Operations on inode numbers.

use std::time::Duration;

use super::state::Fs;
use crate::attr::Attr;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::gate::ReadOnlyReason;
use crate::inode::{Child, Ino, NodeView};
use crate::path::Name;
use crate::reader::OpenMode;
use crate::upload::{NewFile, SetAttr};
use crate::view::Entry;

/// Permission bits of the owner.
const READ_BIT: u16 = 0o400;
const WRITE_BIT: u16 = 0o200;
const SEARCH_BIT: u16 = 0o100;

impl Fs {
    /// `Ok(None)`: the name does not exist, and the kernel may cache that for the returned time.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        if parent.is_virtual() || self.view.is_own(parent, name) {
            return self.dot.lookup(parent, name, wait);
        }
        self.view.lookup(parent, name, wait)
    }

    pub fn getattr(&self, ino: Ino, wait: Wait) -> FsResult<Entry> {
        if ino.is_virtual() { self.dot.getattr(ino) } else { self.view.getattr(ino, wait) }
    }

    fn unshown_attr(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<Attr> {
        if ino.is_virtual() { Ok(self.dot.getattr(ino)?.attr) } else { self.view.unshown_attr(op, ino, wait) }
    }

    pub fn forget(&self, ino: Ino, count: u64) {
        if !ino.is_virtual() {
            self.view.forget(ino, count);
        }
    }

    pub fn setattr(&self, ino: Ino, change: SetAttr, wait: Wait) -> FsResult<Entry> {
        if !ino.is_virtual() {
            return self.upload.setattr(ino, change, wait);
        }
        self.not_of_a_version("setattr", ino)?;
        self.dot.getattr(ino)
    }

    pub fn readlink(&self, ino: Ino, wait: Wait) -> FsResult<Vec<u8>> {
        if ino.is_virtual() { self.dot.readlink(ino) } else { self.reader.readlink(ino, wait) }
    }

    pub fn mkdir(&self, parent: Ino, name: &[u8], perm: u16, wait: Wait) -> FsResult<Entry> {
        self.not_virtual("mkdir", parent)?;
        self.upload.mkdir(parent, name, perm, wait)
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        self.not_virtual("rmdir", parent)?;
        self.upload.rmdir(parent, name, wait)
    }

    pub fn symlink(&self, parent: Ino, name: &[u8], text: &[u8], wait: Wait) -> FsResult<Entry> {
        self.not_virtual("symlink", parent)?;
        self.upload.symlink(parent, name, text, wait)
    }

    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        self.not_virtual("unlink", parent)?;
        self.upload.unlink(parent, name, wait)
    }

    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), no_replace: bool, wait: Wait) -> FsResult<()> {
        self.not_virtual("rename", from.0)?;
        self.not_virtual("rename", to.0)?;
        self.upload.rename(from, to, no_replace, wait)
    }

    /// access(2): checks the mode of the environment first, then the permission bits. Root may read and write
    /// everything that the mode allows.
    pub fn access(&self, ino: Ino, mask: i32, caller_uid: u32, wait: Wait) -> FsResult<()> {
        let attr = self.unshown_attr("access", ino, wait)?;
        if mask & libc::W_OK != 0 {
            self.not_of_a_version("access", ino)?;
            self.upload.may_write("access", ino)?;
        }
        let denied = || Err(FsError::new("access", self.view.object(ino), Cause::AccessDenied));
        if mask & libc::X_OK != 0 && !attr.is_dir() && attr.perm & 0o111 == 0 {
            return denied();
        }
        if caller_uid == 0 {
            return Ok(());
        }
        let shift = if caller_uid == self.uid() { 6 } else { 0 };
        let bits = i32::from((self.shown_perm(attr.perm) >> shift) & 0o7);
        if mask & 0o7 & !bits != 0 { denied() } else { Ok(()) }
    }
}

impl Fs {
    /// Checks the permission bits that the mount shows, as a local disk does: its owner may change a file, or names in a
    /// directory, only with the write bit. The server would refuse the change later. Root is not bound by them, and for other
    /// users they are checked by the kernel (`-o default_permissions`) or not at all.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`]: the write bit is missing.
    pub fn check_write(&self, objects: &[Ino], caller_uid: u32, wait: Wait) -> FsResult<()> {
        if caller_uid == 0 || caller_uid != self.uid() {
            return Ok(());
        }
        objects.iter().try_for_each(|ino| self.check_owner_bits("write", *ino, WRITE_BIT, wait))
    }

    /// Checks in the same way whether a file may be made. A temporary file (`new.scratch`) may be made in a directory without
    /// the write bit, and stays on this machine: when it is renamed over a file, as `sed -i` does, that file is saved.
    /// Returns whether it is one there.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`]: the write bit is missing.
    pub fn check_create(&self, parent: Ino, new: NewFile, caller_uid: u32, wait: Wait) -> FsResult<NewFile> {
        let denied = match self.check_write(&[parent], caller_uid, wait) {
            Ok(()) => return Ok(NewFile { scratch: false, ..new }),
            Err(error) => error,
        };
        let reached = new.scratch && self.check_owner_bits("create", parent, SEARCH_BIT, wait).is_ok();
        if reached { Ok(new) } else { Err(denied) }
    }

    /// Checks in the same way whether a name may be removed. What is only on this machine does not ask the server.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`]: the write bit is missing.
    pub fn check_unlink(&self, parent: Ino, name: &[u8], caller_uid: u32, wait: Wait) -> FsResult<()> {
        self.check_write(&[parent], caller_uid, wait).or_else(|denied| match self.known(parent, name) {
            Some(node) if node.only_here => self.check_owner_bits("unlink", parent, SEARCH_BIT, wait),
            _ => Err(denied),
        })
    }

    /// Checks in the same way whether a name may be moved. A directory that gets another parent is changed by that: it needs
    /// its own write bit. What is only on this machine and replaces a file changes no name on the server: that file
    /// needs the write bit.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`]: a write bit is missing.
    pub fn check_rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), caller_uid: u32, wait: Wait) -> FsResult<()> {
        let moved = self.known(from.0, from.1);
        if let Err(denied) = self.check_write(&[from.0, to.0], caller_uid, wait) {
            let saves = moved.is_some_and(|node| node.only_here && node.attr.is_file());
            let replaced = self.known(to.0, to.1).filter(|node| saves && node.attr.is_file()).ok_or(denied)?;
            self.check_owner_bits("rename", from.0, SEARCH_BIT, wait)?;
            self.check_owner_bits("rename", to.0, SEARCH_BIT, wait)?;
            return self.check_owner_bits("rename", replaced.ino, WRITE_BIT, wait);
        }
        match moved.filter(|node| from.0 != to.0 && node.attr.is_dir()) {
            Some(dir) => self.check_write(&[dir.ino], caller_uid, wait),
            None => Ok(()),
        }
    }

    fn known(&self, parent: Ino, name: &[u8]) -> Option<NodeView> {
        match self.view.child(parent, &Name::new(name).ok()?) {
            Child::Positive(node) => Some(node),
            _ => None,
        }
    }

    /// Checks in the same way whether an object may be opened. To run a program, its owner needs no read bit.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`]: the read bit or the write bit is missing.
    pub fn check_open(&self, ino: Ino, mode: OpenMode, runs: bool, caller_uid: u32, wait: Wait) -> FsResult<()> {
        if caller_uid == 0 || caller_uid != self.uid() {
            return Ok(());
        }
        let read = if mode.read && !runs { READ_BIT } else { 0 };
        let write = if mode.write || mode.truncate { WRITE_BIT } else { 0 };
        self.check_owner_bits("open", ino, read | write, wait)
    }

    fn check_owner_bits(&self, op: &'static str, ino: Ino, bits: u16, wait: Wait) -> FsResult<()> {
        if bits == 0 || ino.is_virtual() {
            return Ok(());
        }
        let denies = |is_dir: bool, perm: u16| {
            // Names in a directory are reached through it.
            let bits = if is_dir && bits & WRITE_BIT != 0 { bits | SEARCH_BIT } else { bits };
            bits & !self.shown_perm(perm) != 0
        };
        // What was shown counts: a change that the server refuses is reported later. The server is asked only before a
        // call is refused.
        let is_dir = self.view.node(ino).is_some_and(|node| node.attr.is_dir());
        if self.view.shown_perm(ino).is_some_and(|perm| !denies(is_dir, perm)) {
            return Ok(());
        }
        let attr = self.unshown_attr(op, ino, wait)?;
        if denies(attr.is_dir(), attr.perm) {
            Err(FsError::new(op, self.view.object(ino), Cause::AccessDenied))
        } else {
            Ok(())
        }
    }
}

impl Fs {
    /// Names in `.pantheon` cannot be changed.
    pub(super) fn not_virtual(&self, op: &'static str, parent: Ino) -> FsResult<()> {
        self.not_of_a_version(op, parent)?;
        let what = "names in .pantheon belong to the mount";
        if parent.is_virtual() { Err(FsError::new(op, ".pantheon", Cause::NotPermitted(what))) } else { Ok(()) }
    }

    /// Nothing in `.pantheon/at` can be changed.
    fn not_of_a_version(&self, op: &'static str, ino: Ino) -> FsResult<()> {
        if ino.is_virtual() && self.dot.is_of_a_version(ino) {
            return Err(FsError::new(op, ".pantheon/at", Cause::ReadOnly(ReadOnlyReason::Committed)));
        }
        Ok(())
    }
}
