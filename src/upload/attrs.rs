//! setattr: size, permission bits, times.

use std::time::SystemTime;

use super::state::Upload;
use crate::attr::{Attr, FileKind, secs_from_time};
use crate::error::{FsError, FsResult, Wait};
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::view::Entry;
use crate::write::Action;

/// A time to set on a file.
#[derive(Debug, Clone, Copy)]
pub enum Time {
    Now,
    At(SystemTime),
}

/// The attributes that a caller asks to change. Owner and group are missing: everything belongs to the mounting user,
/// and a refused chown would fail saves that do not depend on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// The new size in bytes.
    pub size: Option<u64>,
    /// Permission bits: `mode & 0o7777`.
    pub perm: Option<u16>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

/// The part of a [`SetAttr`] without the size; times in whole seconds, as the server stores them.
#[derive(Clone, Copy)]
struct Wanted {
    perm: Option<u16>,
    atime: Option<u32>,
    mtime: Option<u32>,
}

impl Wanted {
    fn apply(self, attr: &mut Attr) {
        attr.perm = self.perm.unwrap_or(attr.perm);
        attr.atime = self.atime.unwrap_or(attr.atime);
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
    }
}

impl Upload {
    pub fn setattr(&self, ino: Ino, change: SetAttr, wait: Wait) -> FsResult<Entry> {
        let view = &self.local.0.view;
        let path = view.object(ino);
        self.permit("setattr", ino, &path, wait)?;
        let node = view.fresh_node("setattr", ino, view.freshness(ino), wait)?;
        if let Some(size) = change.size {
            self.truncate(&node, size, wait)?;
        }
        let node = view.node(ino).unwrap_or(node);
        if change.perm.is_some() || change.atime.is_some() || change.mtime.is_some() {
            self.set_perm_and_times(&path, &node, self.wanted(change), wait)?;
        }
        let node = view.node(ino).unwrap_or(node);
        Ok(view.looked_up(&node))
    }

    fn wanted(&self, change: SetAttr) -> Wanted {
        let wall = self.local.0.view.clock().wall();
        let secs = |time: Time| match time {
            Time::Now => secs_from_time(wall),
            Time::At(at) => secs_from_time(at),
        };
        Wanted { perm: change.perm, atime: change.atime.map(secs), mtime: change.mtime.map(secs) }
    }

    fn show_wanted(&self, ino: Ino, wanted: Wanted) {
        self.local.0.view.update(ino, |attr| wanted.apply(attr));
        self.local.0.view.note_change(ino);
        if wanted.perm.is_some() {
            self.local.0.view.perm_changed(ino);
        }
    }

    fn set_perm_and_times(&self, path: &RemotePath, node: &NodeView, wanted: Wanted, wait: Wait) -> FsResult<()> {
        let (view, ino) = (&self.local.0.view, node.ino);
        let travels = || {
            let node = view.node(ino).unwrap_or_else(|| node.clone());
            let waits_for_content = self.local.spool(ino).is_some_and(|spool| spool.is_dirty());
            node.unlinked || node.only_here || waits_for_content || self.local.is_unrecorded(&node)
        };
        if !travels() {
            self.local.may_record("setattr", path, wait)?;
        }
        self.local.begin("setattr", path)?;
        {
            let _names = self.local.lock_names();
            if travels() {
                // They are sent together with the content.
                self.show_wanted(ino, wanted);
                return self.local.perm_of_local_only(ino).map_err(|cause| FsError::new("setattr", path, cause));
            }
        }
        {
            let _names = self.local.lock_names();
            let mut attr = node.attr;
            wanted.apply(&mut attr);
            let times = (wanted.atime.is_some() || wanted.mtime.is_some()).then_some((attr.atime, attr.mtime));
            let link = node.attr.kind == FileKind::Symlink;
            let action = Action::SetAttr { perm: wanted.perm, times, link };
            let now = view.path(ino).unwrap_or_else(|| path.clone());
            self.local.record(ino, &now, action).map_err(|cause| FsError::new("setattr", path, cause))?;
            self.show_wanted(ino, wanted);
        }
        self.local.wait_if_sync("setattr", path)
    }
}
