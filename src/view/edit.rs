//! Changes of the table: those that are made here (by `upload`), and what the kernel counts.

use super::state::View;
use crate::attr::{Attr, Version};
use crate::inode::{Change, Ino, ROOT};
use crate::path::{Name, RemotePath};

impl View {
    /// What the server says about the root, learned when the connection was made.
    pub fn set_root_attr(&self, attr: Attr) {
        self.learn(ROOT, attr);
    }

    /// The server said this of one object, outside of a listing.
    pub fn learn(&self, ino: Ino, attr: Attr) {
        let changes = self.0.table.apply_attr(ino, attr, self.clock().now());
        self.announce(changes);
    }

    /// Has the kernel forget.
    pub fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        self.0.changes.announce(changes);
    }

    /// Everything that is known is looked at anew when it is used next.
    pub fn renew_everything(&self) {
        let known = self.walk();
        self.0.table.expire(None);
        self.announce(
            known.into_iter().flat_map(|(parent, name, ino)| [Change::Entry { parent, name }, Change::Attr(ino)]),
        );
    }

    /// The directory is listed anew when it is used next.
    pub fn expire(&self, dir: Ino) {
        self.0.table.expire(Some(dir));
    }

    /// Names in the directories of these paths change now: a listing asked for before is not taken over.
    pub fn touch_parents<'a>(&self, paths: impl IntoIterator<Item = &'a RemotePath>) {
        for path in paths {
            if let Some(dir) = path.parent().and_then(|dir| self.find(&dir)) {
                self.0.table.touch(dir);
            }
        }
    }

    // The kernel's references.

    pub fn add_lookup(&self, ino: Ino) {
        self.0.table.add_lookup(ino);
    }

    pub fn forget(&self, ino: Ino, count: u64) {
        self.0.table.forget(ino, count);
    }

    pub fn opened(&self, ino: Ino) {
        self.0.table.opened(ino);
    }

    /// How often it is still open.
    pub fn closed(&self, ino: Ino) -> u32 {
        self.0.table.closed(ino)
    }

    /// Whether the kernel's pages are of this version. `stable`: the version cannot get another content any more.
    pub fn keep_pages(&self, ino: Ino, version: Version, stable: bool) -> bool {
        self.0.table.keep_pages(ino, version, stable)
    }

    /// Whether the names that the kernel has of a directory are those of now.
    pub fn keep_names(&self, dir: Ino) -> bool {
        self.0.table.keep_names(dir)
    }

    // What programs were shown.

    /// Programs see the object as it is now: the next change builds upon this version.
    pub fn mark_shown(&self, ino: Ino) {
        self.0.table.mark_shown(ino);
    }

    /// Bytes of the file are given out as it is now. With `followed`, attributes are kept as fresh as at `open` from here
    /// on, so that an editor notices what another writer did.
    pub fn mark_read(&self, ino: Ino, followed: bool) {
        self.0.table.mark_read(ino, followed);
    }

    // Changes that are made here.

    pub fn insert(&self, parent: Ino, name: &Name, attr: Attr, server: Option<Version>) -> Option<Ino> {
        self.0.table.insert(parent, name, attr, server)
    }

    pub fn remove(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.0.table.remove(parent, name)
    }

    pub fn rename(&self, from: (Ino, &Name), to: (Ino, &Name)) -> Option<Ino> {
        self.0.table.rename(from, to)
    }

    pub fn update(&self, ino: Ino, change: impl FnOnce(&mut Attr)) -> Option<Attr> {
        self.0.table.update(ino, change)
    }

    /// The server has the object with the attributes `server`. What is shown goes on being shown; the permission bits
    /// too, with `keep_perm`.
    pub fn confirmed(&self, ino: Ino, server: Attr, keep_perm: bool) {
        self.0.table.confirmed(ino, server, keep_perm);
    }

    /// What the object's next content is to take the place of.
    pub fn adopt_base(&self, ino: Ino, base: Option<Version>) {
        self.0.table.adopt_base(ino, base);
    }

    /// The permission bits were changed here, and the server does not have them yet.
    pub fn perm_changed(&self, ino: Ino) {
        self.0.table.perm_changed(ino);
    }

    /// While pinned, listings do not change the object: what is shown is what was made here.
    pub fn pin(&self, ino: Ino, pinned: bool) {
        self.0.table.pin(ino, pinned);
    }

    /// A directory that must exist, since something in it was changed here; its other names are not known.
    pub fn assume_dir(&self, parent: Ino, name: &Name, attr: Attr) -> Option<Ino> {
        self.0.table.assume_dir(parent, name, attr)
    }
}
