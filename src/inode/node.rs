//! One node of the tree and the views of it that leave the room.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Ino;
use crate::attr::{Attr, Version};
use crate::path::Name;

/// A file, directory or link that has a number.
pub(super) struct Node {
    pub(super) parent: Ino,
    /// `None` for roots only.
    pub(super) name: Option<Name>,
    /// What is shown. While local changes wait it is ahead of the server.
    pub(super) attr: Attr,
    /// What the server has, as last seen; `None` while the object exists only here.
    pub(super) server: Option<Version>,
    /// The server's version that stood behind what programs were last shown: bytes, or attributes in an answer to the
    /// kernel. The next change builds upon it.
    pub(super) shown: Option<Version>,
    /// Bytes were given out: what a program holds in an editor is compared with the next `stat`.
    pub(super) was_read: bool,
    /// The permission bits were changed here, and the server does not have them yet.
    pub(super) perm_changed: bool,
    /// When `attr` was last confirmed on its own, apart from the parent's listing.
    pub(super) seen: Option<Instant>,
    /// The size that the kernel was told last, or made itself (bytes): it gives out no more of the file, and zeros where we
    /// have less.
    pub(super) kernel_size: Option<u64>,
    /// The version whose bytes may sit in the kernel's page cache.
    pub(super) kernel_pages: Option<Version>,
    /// How often the content was found changed by somebody else: an open handle compares it (`ESTALE`).
    pub(super) foreign_changes: u32,
    pub(super) lookups: u64,
    pub(super) opens: u32,
    /// Local changes wait to be sent: listings do not touch the node meanwhile.
    pub(super) pinned: bool,
    pub(super) unlinked: bool,
    pub(super) dir: Option<Box<Dir>>,
}

/// The children of a directory.
#[derive(Default)]
pub(super) struct Dir {
    pub(super) children: BTreeMap<Name, Ino>,
    /// When the server's complete listing was last taken over; `None`: not complete.
    pub(super) listed: Option<Instant>,
    /// The names are all that there were at some time, perhaps long ago.
    pub(super) complete: bool,
    /// Bytes of a file in it were given out.
    pub(super) was_read: bool,
    /// Local changes to the directory: a listing that was asked for before one of them is not taken over.
    pub(super) changes: u64,
    /// What the kernel may have read of the names: as of this count of changes and this listing.
    pub(super) kernel_names: Option<(u64, Instant)>,
}

impl Node {
    pub(super) fn new(parent: Ino, name: Option<Name>, attr: Attr, server: Option<Version>) -> Self {
        Self {
            parent,
            name,
            attr,
            server,
            shown: None,
            was_read: false,
            perm_changed: false,
            seen: None,
            kernel_size: None,
            kernel_pages: None,
            foreign_changes: 0,
            lookups: 0,
            opens: 0,
            pinned: false,
            unlinked: false,
            dir: attr.is_dir().then(Box::default),
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.unlinked && self.lookups == 0 && self.opens == 0
    }
}

/// What a caller sees of a node.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub ino: Ino,
    pub parent: Ino,
    pub attr: Attr,
    pub server: Option<Version>,
    /// See [`NodeView::base`].
    pub shown: Option<Version>,
    /// Bytes of it were given out.
    pub was_read: bool,
    /// The permission bits were changed here, and the server does not have them yet.
    pub perm_changed: bool,
    /// When the attributes were last confirmed by the server or made here.
    pub seen: Option<Instant>,
    pub foreign_changes: u32,
    pub opens: u32,
    pub pinned: bool,
    pub unlinked: bool,
}

impl NodeView {
    /// The version that the server has, as far as is known; of what only this machine has, that of its attributes.
    pub fn version(&self) -> Version {
        self.server.unwrap_or(self.attr.version())
    }
}

impl NodeView {
    /// What a change that begins now builds upon: the version that programs were last shown. `None`: the server has no
    /// such object yet.
    pub fn base(&self) -> Option<Version> {
        self.server.map(|server| self.shown.unwrap_or(server))
    }
}

/// What the table knows of a name in a directory.
#[derive(Debug, Clone)]
pub enum Child {
    Positive(NodeView),
    /// The listing is complete and the name is not in it.
    Negative,
    /// The directory has not been listed.
    Unknown,
}
