//! The table and its snapshot: restores the tree of the last mount, and returns directories to be saved.

use std::sync::Arc;
use std::time::Instant;

use super::Ino;
use super::node::Node;
use super::snapshot::Saved;
use super::table::{Below, Table};
use crate::attr::Attr;
use crate::path::{Name, RemotePath};

/// A directory as on the server, to be saved.
pub struct Unsaved {
    pub dir: Ino,
    /// Path and entries, in the form of a snapshot.
    pub listing: (RemotePath, Vec<(Name, Attr)>),
    /// When it was listed; `None` if the listing is outdated.
    pub listed: Option<Instant>,
}

impl Table {
    /// Restores the tree below a root. Its directories are shown only while the server cannot be asked. Returns those that a
    /// commit vouches for, see [`Table::vouch`].
    pub fn restore(&self, root: Ino, saved: &Saved) -> Vec<(Ino, Arc<str>)> {
        let mut state = self.lock();
        let mut vouched = Vec::new();
        let Some(path) = self.path_in(&state, root) else { return vouched };
        state.nodes.reserve(saved.entry_count());
        let mut queue = vec![(root, path)];
        while let Some((ino, path)) = queue.pop() {
            let Some(dir) = saved.dir(&path) else { continue };
            let (mut children, numbers) = (Vec::with_capacity(dir.len()), Below::new(&path));
            for (name, attr) in saved.entries(dir) {
                let child = state.free_number_below(&numbers, &name);
                if attr.is_dir() {
                    queue.push((child, path.join(&name)));
                }
                children.push(state.nodes.insert(Node::new(child, ino, Some(name), attr)));
            }
            state.nodes.set_children(ino, children);
            if let Some(known) = state.dir_mut(ino) {
                known.complete = true;
            }
            if !dir.commit.is_empty() {
                vouched.push((ino, dir.commit.clone()));
            }
        }
        vouched
    }

    /// Directories that were restored count as listed at this time.
    pub fn vouch(&self, dirs: impl IntoIterator<Item = Ino>, now: Instant) {
        let mut state = self.lock();
        for ino in dirs {
            if let Some(dir) = state.dir_mut(ino) {
                dir.listed = Some(now);
            }
        }
    }

    /// The directories to be saved. They do not count as unsaved any more.
    pub fn take_unsaved(&self) -> Vec<Ino> {
        std::mem::take(&mut self.lock().unsaved).into_iter().collect()
    }

    /// A directory as on the server, if all of its names are known. Objects that are only on this machine are left out.
    pub fn unsaved(&self, ino: Ino) -> Option<Unsaved> {
        let state = self.lock();
        let node = state.nodes.get(ino).filter(|node| !node.is_unlinked())?;
        let dir = node.dir().filter(|dir| dir.complete)?;
        let there = |node: &Node| {
            let (attr, version) = (node.attr(), node.server()?);
            let kept = attr.is_dir() || !attr.is_file();
            Some(if kept { attr } else { Attr { size: version.size, mtime: version.mtime, ..attr } })
        };
        let entries = state.nodes.children(ino).filter_map(|node| Some((node.name.clone()?, there(node)?))).collect();
        Some(Unsaved { dir: ino, listing: (self.path_in(&state, ino)?, entries), listed: dir.listed })
    }

    /// Marks directories as unsaved again because saving failed.
    pub fn still_unsaved(&self, dirs: impl IntoIterator<Item = Ino>) {
        self.lock().unsaved.extend(dirs);
    }

    /// Adds a directory that must exist because something in it was changed locally. Its other names are unknown.
    pub fn assume_dir(&self, parent: Ino, name: &Name, attr: Attr) -> Option<Ino> {
        let mut state = self.lock();
        let path = self.path_in(&state, parent)?.join(name);
        let ino = state.free_number(&path);
        state.dir_mut(parent)?;
        state.link_new(Node::new(ino, parent, Some(name.clone()), attr));
        Some(ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Area, FileKind, Version};
    use crate::inode::{Child, ROOT, Root, Snapshot};

    fn attr(kind: FileKind, size: u64) -> Attr {
        Attr { kind, size, perm: 0o644, mtime: 5, atime: 5 }
    }

    fn table() -> Table {
        let path = RemotePath::parse("code").expect("valid");
        Table::new(vec![Root { ino: ROOT, path, area: Area::Code }])
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("valid")
    }

    #[test]
    fn a_saved_table_has_no_unsent_names() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (snapshot, _) = Snapshot::open(&place.path().join("tree")).expect("begun");
        let first = table();
        let changes = first.changes(ROOT).expect("a directory");
        let entries = vec![(name("a"), attr(FileKind::File, 1)), (name("d"), attr(FileKind::Directory, 0))];
        first.apply_listing(ROOT, changes, entries, Instant::now(), |_| false);
        let Child::Positive(a) = first.child(ROOT, &name("a")) else { panic!("listed") };
        first.pin(a.ino);
        first.update(a.ino, |attr| attr.size = 99);
        first.insert(ROOT, &name("new"), attr(FileKind::File, 7), None).expect("made here");
        let unsaved: Vec<_> =
            first.take_unsaved().into_iter().filter_map(|dir| Some(first.unsaved(dir)?.listing)).collect();
        snapshot.append("", &unsaved).expect("saved");
        assert!(first.take_unsaved().is_empty(), "nothing was learned since");

        let (_, saved) = Snapshot::open(&place.path().join("tree")).expect("read");
        let second = table();
        assert!(second.restore(ROOT, &saved).is_empty(), "no commit vouches for it");
        let Child::Positive(again) = second.child(ROOT, &name("a")) else { panic!("saved") };
        assert_eq!((again.ino, again.server), (a.ino, Some(Version { size: 1, mtime: 5 })));
        assert!(second.is_complete(ROOT) && second.listed(ROOT).is_none());
        assert!(matches!(second.child(ROOT, &name("new")), Child::Unknown));
        let Child::Positive(d) = second.child(ROOT, &name("d")) else { panic!("saved") };
        assert!(!second.is_complete(d.ino), "it was never listed");
    }
}
