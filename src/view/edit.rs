//! Changes of the table: local changes (made by `upload`), and the references that the kernel counts.

use super::state::View;
use crate::attr::{Attr, Version, secs_from_time};
use crate::inode::{Change, Ino, ROOT};
use crate::path::{Name, RemotePath};

impl View {
    /// Sets the attributes of the root, which the server sent when the connection was made.
    pub fn set_root_attr(&self, attr: Attr) {
        self.learn(ROOT, attr);
    }

    /// Applies attributes of one object that the server sent outside of a listing.
    pub fn learn(&self, ino: Ino, attr: Attr) {
        let changes = self.0.table.apply_attr(ino, attr, self.clock().now());
        self.announce(changes);
    }

    /// Notes that another writer changed the content of a file without a change of its version.
    pub fn content_changed(&self, ino: Ino) {
        self.announce(self.0.table.content_changed(ino));
    }

    /// Has the kernel drop these entries from its caches.
    pub fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        self.0.changes.announce(changes);
    }

    /// Marks every directory as outdated, so that it is listed again when it is used.
    pub fn renew_everything(&self) {
        let known = self.walk();
        self.0.table.expire(None);
        self.announce(
            known.into_iter().flat_map(|(parent, name, ino)| [Change::Entry { parent, name }, Change::Outdated(ino)]),
        );
    }

    /// Marks one directory as outdated.
    pub fn expire(&self, dir: Ino) {
        self.0.table.expire(Some(dir));
    }

    /// Notes that names in the parent directories of these paths change: a listing requested before that is not
    /// applied.
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

    /// Counts one close; returns how many handles remain.
    pub fn closed(&self, ino: Ino) -> u32 {
        self.0.table.closed(ino)
    }

    /// Whether the kernel's cached pages are of this version. `stable`: the content of the version cannot change any
    /// more.
    pub fn keep_pages(&self, ino: Ino, version: Version, stable: bool) -> bool {
        self.0.table.keep_pages(ino, version, stable)
    }

    /// Whether the names that the kernel has cached for the directory are current.
    pub fn keep_names(&self, dir: Ino) -> bool {
        self.0.table.keep_names(dir)
    }

    // What programs were shown.

    /// A caller was shown the object as it is now: the next change is based on this version.
    pub fn mark_shown(&self, ino: Ino) {
        self.0.table.mark_shown(ino);
    }

    /// A caller was given bytes of the file. With `followed`, its attributes are kept as fresh as at `open` from now
    /// on, so that an editor notices the changes of another writer.
    pub fn mark_read(&self, ino: Ino, followed: bool) {
        self.0.table.mark_read(ino, followed);
    }

    // Changes that are made here.

    pub fn insert(&self, parent: Ino, name: &Name, attr: Attr, server: Option<Version>) -> Option<Ino> {
        let made = self.0.table.insert(parent, name, attr, server);
        if made.is_some() {
            self.names_changed(parent);
        }
        // Noted when it can be seen: a caller that asks in between learns it the next time.
        self.0.changes.touched().name(parent, name);
        made
    }

    pub fn remove(&self, parent: Ino, name: &Name) -> Option<Ino> {
        let removed = self.0.table.remove(parent, name);
        if let Some(ino) = removed {
            self.note_change(ino);
            self.names_changed(parent);
        }
        self.0.changes.touched().name(parent, name);
        removed
    }

    pub fn rename(&self, from: (Ino, &Name), to: (Ino, &Name)) -> Option<Ino> {
        let renamed = self.0.table.rename(from, to);
        if let Some(ino) = renamed {
            self.note_change(ino);
            [from, to].into_iter().for_each(|(parent, _)| self.names_changed(parent));
        }
        [from, to].into_iter().for_each(|(parent, name)| self.0.changes.touched().name(parent, name));
        renamed
    }

    fn names_changed(&self, dir: Ino) {
        self.0.table.names_changed(dir, secs_from_time(self.clock().wall()));
    }

    /// A caller changes the name, the permissions or the times now: that is the ctime, which no server tells.
    pub fn note_change(&self, ino: Ino) {
        self.0.table.note_change(ino, secs_from_time(self.clock().wall()));
    }

    pub fn update(&self, ino: Ino, change: impl FnOnce(&mut Attr)) -> Option<Attr> {
        let updated = self.0.table.update(ino, change);
        self.0.changes.touched().object(ino);
        updated
    }

    /// The server has the object with the attributes `server`. The shown attributes stay; the permission bits too,
    /// with `keep_perm`.
    pub fn confirmed(&self, ino: Ino, server: Attr, keep_perm: bool) {
        self.0.table.confirmed(ino, server, keep_perm);
    }

    /// See [`Table::forget_shown`](crate::inode::Table::forget_shown).
    pub fn forget_shown(&self, ino: Ino) {
        self.0.table.forget_shown(ino);
    }

    /// See [`Table::restored`](crate::inode::Table::restored).
    pub fn restored(&self, path: &RemotePath) {
        if let Some((dir, name)) = path.parent().and_then(|dir| self.find(&dir)).zip(path.file_name()) {
            self.0.table.restored(dir, name);
        }
    }

    /// See [`Table::taken_over`](crate::inode::Table::taken_over).
    pub fn taken_over(&self, ino: Ino) {
        self.0.table.taken_over(ino);
    }

    /// Sets the version that the next content of the object is to replace.
    pub fn adopt_base(&self, ino: Ino, base: Option<Version>) {
        self.0.table.adopt_base(ino, base);
    }

    /// Sets whether the object never leaves this machine.
    pub fn stay_here(&self, ino: Ino, stays: bool) {
        self.0.table.stay_here(ino, stays);
    }

    /// The permission bits were changed locally and are not on the server yet.
    pub fn perm_changed(&self, ino: Ino) {
        self.0.table.perm_changed(ino);
    }

    /// While an object is pinned, listings do not change it, so that the local state stays shown.
    pub fn pin(&self, ino: Ino) {
        self.0.table.pin(ino);
    }

    /// Unpins unless `keep` holds, which is asked while no one else can pin the object. It must not look at the view.
    pub fn unpin_unless(&self, ino: Ino, keep: impl FnOnce() -> bool) {
        self.0.table.unpin_unless(ino, keep);
    }

    /// Adds a directory that must exist because something in it was changed locally. Its other names are unknown.
    pub fn assume_dir(&self, parent: Ino, name: &Name, attr: Attr) -> Option<Ino> {
        self.0.table.assume_dir(parent, name, attr)
    }
}
