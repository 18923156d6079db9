//! One node of the tree, and the copies of it that other rooms get.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Ino;
use crate::attr::{Attr, Version};
use crate::path::Name;

/// A file, directory or symlink with a number.
pub(super) struct Node {
    pub(super) parent: Ino,
    /// `None` for roots only.
    pub(super) name: Option<Name>,
    /// The shown attributes. While local changes are queued they are newer than the server's.
    pub(super) attr: Attr,
    /// The server's version, as last seen; `None` while the object exists only on this machine.
    pub(super) server: Option<Version>,
    pub(super) callers: Callers,
    /// The permission bits were changed locally and are not on the server yet.
    pub(super) perm_changed: bool,
    /// When `attr` was last confirmed separately from the parent's listing.
    pub(super) seen: Option<Instant>,
    /// How often the content was changed by another writer: an open handle compares it (`ESTALE`).
    pub(super) foreign_changes: u32,
    /// Local changes are queued: listings do not change the node meanwhile.
    pub(super) pinned: bool,
    /// It never leaves this machine: the server does not have it, and is not to get it.
    pub(super) only_here: bool,
    pub(super) unlinked: bool,
    pub(super) dir: Option<Box<Dir>>,
}

/// What the kernel, and the programs that call it, know and hold of a node.
#[derive(Default)]
pub(super) struct Callers {
    /// The server's version when they were last shown the object: its bytes, or attributes in an answer. The next
    /// change is based on it.
    pub(super) shown: Option<Version>,
    /// Whether bytes were returned: a program may compare them with the next `stat`.
    pub(super) was_read: bool,
    /// When they last changed the name, the permissions or the times (seconds since the epoch).
    pub(super) changed: u32,
    /// The size that the kernel was last told or computed itself (bytes). It returns no bytes beyond it, and zeros if
    /// the content is shorter.
    pub(super) size: Option<u64>,
    /// The permission bits that they were last shown.
    pub(super) perm: Option<u16>,
    /// The version whose bytes may be in the kernel's page cache.
    pub(super) pages: Option<Version>,
    pub(super) lookups: u64,
    pub(super) opens: u32,
}

/// The children of a directory.
#[derive(Default)]
pub(super) struct Dir {
    pub(super) children: BTreeMap<Name, Ino>,
    /// When the server's complete listing was last applied; `None`: not complete.
    pub(super) listed: Option<Instant>,
    /// Whether all names were known at some time, by this mount or an earlier one.
    pub(super) complete: bool,
    /// Whether bytes of a file in it were returned.
    pub(super) was_read: bool,
    /// The number of local changes: a listing that was requested before one of them is not applied.
    pub(super) changes: u64,
    /// The state of the names that the kernel may have cached: the count of changes and the listing.
    pub(super) kernel_names: Option<(u64, Instant)>,
}

impl Node {
    pub(super) fn new(parent: Ino, name: Option<Name>, attr: Attr, server: Option<Version>) -> Self {
        Self {
            parent,
            name,
            attr,
            server,
            callers: Callers::default(),
            perm_changed: false,
            seen: None,
            foreign_changes: 0,
            pinned: false,
            only_here: false,
            unlinked: false,
            dir: attr.is_dir().then(Box::default),
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.unlinked && self.callers.lookups == 0 && self.callers.opens == 0
    }
}

/// A copy of a node for other rooms.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub ino: Ino,
    pub parent: Ino,
    pub attr: Attr,
    pub server: Option<Version>,
    /// See [`NodeView::base`].
    pub shown: Option<Version>,
    /// The permission bits were changed locally and are not on the server yet.
    pub perm_changed: bool,
    /// When the attributes were last confirmed by the server or set locally.
    pub seen: Option<Instant>,
    pub foreign_changes: u32,
    pub opens: u32,
    pub pinned: bool,
    /// It never leaves this machine.
    pub only_here: bool,
    pub unlinked: bool,
}

impl NodeView {
    /// The server's version, as last seen; of an object that is only on this machine, the version of its attributes.
    pub fn version(&self) -> Version {
        self.server.unwrap_or(self.attr.version())
    }
}

impl NodeView {
    /// The version that a new change is based on: the one that callers were last shown. `None`: the server does not
    /// have the object yet.
    pub fn base(&self) -> Option<Version> {
        self.server.map(|server| self.shown.unwrap_or(server))
    }
}

/// The table's answer about a name in a directory.
#[derive(Debug, Clone)]
pub enum Child {
    Positive(NodeView),
    /// The listing is complete and the name is not in it.
    Negative,
    /// The directory has not been listed.
    Unknown,
}
