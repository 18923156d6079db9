//! One node of the tree, and the copies of it that other rooms get.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Ino;
use crate::attr::{Attr, Version};
use crate::path::Name;

/// The place of a node among all nodes, for as long as the node exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u32);

/// A file, directory or symlink with a number. A mount may have a million of them, most of which are as the server listed
/// them and were at most looked at: these have no [`Details`].
pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) parent: Ino,
    /// `None` for roots only.
    pub(super) name: Option<Name>,
    attr: Attr,
    details: Option<Box<Details>>,
    /// References of the kernel. At the largest number they are not counted any more, and the node stays.
    lookups: u32,
    /// What of the attributes callers were told. Counts where there are no details.
    told: Told,
}

#[derive(Clone, Copy, Default)]
struct Told {
    shown: bool,
    size: bool,
    perm: bool,
}

/// What cannot be told from the attributes as the server has them. Directories always have details.
pub(super) struct Details {
    /// The server's version, as last seen; `None` while the object exists only on this machine.
    pub(super) server: Option<Version>,
    pub(super) callers: Callers,
    /// The permission bits were changed locally and are not on the server yet.
    pub(super) perm_changed: bool,
    /// When the attributes were last confirmed separately from the parent's listing.
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

/// What the programs that call the kernel were last shown of the server's state of an object: its bytes, or attributes in an
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// Nothing, since the object is known.
    #[default]
    Never,
    /// Its directory without it: another writer made it since.
    Absent,
    Version(Version),
}

impl From<Option<Version>> for Shown {
    fn from(version: Option<Version>) -> Self {
        version.map_or(Self::Never, Self::Version)
    }
}

/// What the kernel, and the programs that call it, know and hold of a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Callers {
    /// The next change is based on it.
    pub(super) shown: Shown,
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
    pub(super) opens: u32,
    /// A handle is open since before another writer changed the content: it must not find bytes of the new content in the
    /// kernel's page cache.
    pub(super) open_on_older: bool,
}

impl Details {
    /// Another writer changed the content.
    pub(super) fn change_content(&mut self) {
        self.foreign_changes += 1;
        self.callers.pages = None;
        self.callers.open_on_older |= self.callers.opens > 0;
    }
}

/// The children of a directory.
#[derive(Default)]
pub(super) struct Dir {
    /// In the order of names, which the nodes have.
    pub(super) children: Vec<Slot>,
    /// When the server's complete listing was last applied; `None`: not complete.
    pub(super) listed: Option<Instant>,
    /// Whether all names were known at some time, by this mount or an earlier one.
    pub(super) complete: bool,
    /// Whether the server's complete listing was applied before, by this mount.
    pub(super) listed_before: bool,
    /// Names whose local change was refused: the server has them still, and nobody made them anew.
    pub(super) restored: BTreeSet<Name>,
    /// Whether bytes of a file in it were returned.
    pub(super) was_read: bool,
    /// Its time is that of a change that was made here. The server sets another when the change arrives; that one is not shown,
    /// or `tar` would find a directory changed as it read it.
    pub(super) own_time: bool,
    /// The number of local changes: a listing that was requested before one of them is not applied.
    pub(super) changes: u64,
    /// The state of the names that the kernel may have cached: the count of changes and the listing.
    pub(super) kernel_names: Option<(u64, Instant)>,
}

impl Node {
    /// An object as the server has it.
    pub(super) fn new(ino: Ino, parent: Ino, name: Option<Name>, attr: Attr) -> Self {
        let mut node = Self { ino, parent, name, attr, details: None, lookups: 0, told: Told::default() };
        if attr.is_dir() {
            node.details_mut().dir = Some(Box::default());
        }
        node
    }

    pub(super) fn attr(&self) -> Attr {
        self.attr
    }

    pub(super) fn set_attr(&mut self, attr: Attr) {
        if attr != self.attr {
            // Without details, the attributes also say what the server has and callers were told.
            self.details_mut();
            self.attr = attr;
        }
    }

    pub(super) fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }

    pub(super) fn details_mut(&mut self) -> &mut Details {
        let (server, callers) = (self.server(), self.callers());
        self.details.get_or_insert_with(|| {
            Box::new(Details {
                server,
                callers,
                perm_changed: false,
                seen: None,
                foreign_changes: 0,
                pinned: false,
                only_here: false,
                unlinked: false,
                dir: None,
            })
        })
    }

    pub(super) fn details_if_any(&mut self) -> Option<&mut Details> {
        self.details.as_deref_mut()
    }

    pub(super) fn server(&self) -> Option<Version> {
        self.details().map_or(Some(self.attr.version()), |details| details.server)
    }

    pub(super) fn callers(&self) -> Callers {
        self.details().map_or_else(|| self.told_only(), |details| details.callers)
    }

    fn told_only(&self) -> Callers {
        let Told { shown, size, perm } = self.told;
        Callers {
            shown: shown.then(|| self.attr.version()).into(),
            size: size.then_some(self.attr.size),
            perm: perm.then_some(self.attr.perm),
            ..Callers::default()
        }
    }

    pub(super) fn callers_mut(&mut self) -> &mut Callers {
        &mut self.details_mut().callers
    }

    pub(super) fn dir(&self) -> Option<&Dir> {
        self.details()?.dir.as_deref()
    }

    pub(super) fn dir_mut(&mut self) -> Option<&mut Dir> {
        self.details.as_mut()?.dir.as_deref_mut()
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.details().is_some_and(|details| details.pinned)
    }

    pub(super) fn is_only_here(&self) -> bool {
        self.details().is_some_and(|details| details.only_here)
    }

    pub(super) fn is_unlinked(&self) -> bool {
        self.details().is_some_and(|details| details.unlinked)
    }

    /// Callers are shown the server's state. While local changes are queued, these are what is shown.
    pub(super) fn show_server(&mut self) {
        match &mut self.details {
            Some(details) if details.pinned => {}
            Some(details) => details.callers.shown = details.server.into(),
            None => self.told.shown = true,
        }
    }

    pub(super) fn show_perm(&mut self) {
        match &mut self.details {
            Some(details) => details.callers.perm = Some(self.attr.perm),
            None => self.told.perm = true,
        }
    }

    pub(super) fn tell_size(&mut self, size: u64) {
        match &mut self.details {
            None if size == self.attr.size => self.told.size = true,
            _ => self.callers_mut().size = Some(size),
        }
    }

    pub(super) fn add_lookup(&mut self) {
        self.lookups = self.lookups.saturating_add(1);
    }

    pub(super) fn forget(&mut self, count: u64) {
        if self.lookups < u32::MAX {
            self.lookups = self.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.is_unlinked() && self.lookups == 0 && self.callers().opens == 0
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
    pub shown: Shown,
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
    /// The version that a new content is based on: the one that callers were last shown. `None`: the server does not
    /// have the object, as far as they know.
    pub fn base(&self) -> Option<Version> {
        match self.shown {
            Shown::Absent => None,
            Shown::Version(shown) => self.server.and(Some(shown)),
            Shown::Never => self.server,
        }
    }

    /// The version that a removal is based on. What is removed without a look is what the server has.
    pub fn removal_base(&self) -> Option<Version> {
        self.base().or(self.server)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::FileKind;
    use crate::inode::ROOT;

    #[test]
    fn a_file_that_was_only_listed_takes_eighty_bytes() {
        assert_eq!(size_of::<Option<Node>>(), 80);
    }

    #[test]
    fn what_was_told_stays_told_when_the_attributes_change() {
        let attr = Attr { kind: FileKind::File, size: 5, perm: 0o644, mtime: 7, atime: 7 };
        let mut node = Node::new(Ino(99), ROOT, None, attr);
        assert_eq!((node.server(), node.callers().shown), (Some(attr.version()), Shown::Never));
        node.show_server();
        node.show_perm();
        node.tell_size(5);
        node.set_attr(attr);
        assert!(node.details().is_none(), "a look costs no memory");
        node.set_attr(Attr { size: 6, perm: 0o600, mtime: 8, ..attr });
        let callers = node.callers();
        assert_eq!((node.server(), callers.shown), (Some(attr.version()), Shown::Version(attr.version())));
        assert_eq!((callers.size, callers.perm), (Some(5), Some(0o644)));
    }
}
