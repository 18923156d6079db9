//! The objects of the table in one place each, found by their number; and the names of directories, which lead to these
//! places. Neither a number nor a name is held twice.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Ino;
use super::node::{Dir, Node, Slot};
use crate::path::Name;

#[derive(Default)]
pub(super) struct Nodes {
    slots: Vec<Option<Node>>,
    free: Vec<Slot>,
    by_number: HashTable<Slot>,
    /// A fast hash, because each shown name causes many lookups; seeded, because the server chooses the names.
    hasher: RandomState,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn slot(&self, ino: Ino) -> Option<Slot> {
        let found = self.by_number.find(self.hasher.hash_one(ino), |slot| self.is_at(*slot, ino));
        found.copied()
    }

    fn is_at(&self, slot: Slot, ino: Ino) -> bool {
        self.at(slot).is_some_and(|node| node.ino == ino)
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Node> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.at(self.slot(ino)?)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        let slot = self.slot(ino)?;
        self.at_mut(slot)
    }

    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.slot(ino).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.slots.iter_mut().flatten()
    }

    pub(super) fn reserve(&mut self, count: usize) {
        let Self { slots, free, by_number, hasher } = self;
        slots.reserve(count.saturating_sub(free.len()));
        by_number.reserve(count, |slot| hash_at(slots, hasher, *slot));
    }

    /// Adds a node whose number is free.
    pub(super) fn insert(&mut self, node: Node) -> Slot {
        let hash = self.hasher.hash_one(node.ino);
        let slot = self.free.pop().unwrap_or(Slot(self.slots.len() as u32));
        match self.slots.get_mut(slot.0 as usize) {
            Some(place) => *place = Some(node),
            None => self.slots.push(Some(node)),
        }
        let Self { slots, by_number, hasher, .. } = self;
        by_number.insert_unique(hash, slot, |slot| hash_at(slots, hasher, *slot));
        slot
    }

    pub(super) fn remove(&mut self, ino: Ino) {
        let hash = self.hasher.hash_one(ino);
        let slots = &self.slots;
        let is_it = |slot: &Slot| slots[slot.0 as usize].as_ref().is_some_and(|node| node.ino == ino);
        let Ok(entry) = self.by_number.find_entry(hash, is_it) else { return };
        let (slot, _) = entry.remove();
        self.slots[slot.0 as usize] = None;
        self.free.push(slot);
    }

    // --- names of directories

    pub(super) fn dir(&self, ino: Ino) -> Option<&Dir> {
        self.get(ino)?.dir()
    }

    pub(super) fn dir_mut(&mut self, ino: Ino) -> Option<&mut Dir> {
        self.get_mut(ino)?.dir_mut()
    }

    pub(super) fn name_at(&self, slot: Slot) -> Option<&Name> {
        self.at(slot)?.name.as_ref()
    }

    /// Where a name is in a list of children, or where it belongs.
    pub(super) fn search(&self, children: &[Slot], name: &Name) -> Result<usize, usize> {
        children.binary_search_by(|slot| self.name_at(*slot).cmp(&Some(name)))
    }

    pub(super) fn child_slot(&self, dir: Ino, name: &Name) -> Option<Slot> {
        let children = &self.dir(dir)?.children;
        Some(children[self.search(children, name).ok()?])
    }

    pub(super) fn child(&self, dir: Ino, name: &Name) -> Option<&Node> {
        self.at(self.child_slot(dir, name)?)
    }

    /// The nodes in a directory, in the order of names.
    pub(super) fn children(&self, dir: Ino) -> impl Iterator<Item = &Node> {
        let children = self.dir(dir).map_or(&[][..], |dir| &dir.children);
        children.iter().filter_map(|slot| self.at(*slot))
    }

    /// The node behind a name, in the order of names.
    pub(super) fn next(&self, dir: Ino, after: Option<&Name>) -> Option<&Node> {
        let children = &self.dir(dir)?.children;
        let at = after.map_or(0, |name| self.search(children, name).map_or_else(|at| at, |at| at + 1));
        self.at(*children.get(at)?)
    }

    /// Adds a node to the names of its parent; returns the node that had the name.
    pub(super) fn link(&mut self, slot: Slot) -> Option<Slot> {
        let node = self.at(slot)?;
        let parent = node.parent;
        let at = self.search(&self.dir(parent)?.children, node.name.as_ref()?);
        let children = &mut self.dir_mut(parent)?.children;
        match at {
            Ok(at) => Some(std::mem::replace(&mut children[at], slot)).filter(|old| *old != slot),
            Err(at) => {
                children.insert(at, slot);
                None
            }
        }
    }

    /// Takes a name out of a directory.
    pub(super) fn unlink(&mut self, dir: Ino, name: &Name) -> Option<Slot> {
        let at = self.search(&self.dir(dir)?.children, name).ok()?;
        Some(self.dir_mut(dir)?.children.remove(at))
    }

    /// Gives a directory these names, each of which is there once.
    pub(super) fn set_children(&mut self, dir: Ino, mut children: Vec<Slot>) {
        children.sort_by(|a, b| self.name_at(*a).cmp(&self.name_at(*b)));
        if let Some(dir) = self.dir_mut(dir) {
            dir.children = children;
        }
    }
}

fn hash_at(slots: &[Option<Node>], hasher: &RandomState, slot: Slot) -> u64 {
    slots[slot.0 as usize].as_ref().map_or(0, |node| hasher.hash_one(node.ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Attr, FileKind};
    use crate::inode::ROOT;

    fn node(number: u64, name: &str) -> Node {
        let attr = Attr { kind: FileKind::File, size: 0, perm: 0o644, mtime: 1, atime: 1 };
        Node::new(Ino(number), ROOT, Name::new(name).ok(), attr)
    }

    fn with_root() -> Nodes {
        let mut nodes = Nodes::default();
        let attr = Attr { kind: FileKind::Directory, size: 0, perm: 0o755, mtime: 1, atime: 1 };
        nodes.insert(Node::new(ROOT, ROOT, None, attr));
        nodes
    }

    fn names(nodes: &Nodes) -> Vec<String> {
        nodes.children(ROOT).filter_map(|node| node.name.as_ref()).map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_in_order_and_each_leads_to_one_node() {
        let mut nodes = with_root();
        for (number, name) in [(20, "b"), (21, "a"), (22, "c")] {
            let slot = nodes.insert(node(number, name));
            assert_eq!(nodes.link(slot), None);
        }
        let newer = nodes.insert(node(23, "b"));
        let older = nodes.link(newer).expect("the name was taken");
        assert_eq!(nodes.at(older).map(|node| node.ino), Some(Ino(20)));
        assert_eq!(names(&nodes), ["a", "b", "c"]);
        let name = |text: &str| Name::new(text).expect("valid");
        assert_eq!(nodes.child(ROOT, &name("b")).map(|node| node.ino), Some(Ino(23)));
        assert_eq!(nodes.next(ROOT, Some(&name("aa"))).map(|node| node.ino), Some(Ino(23)));
        assert_eq!(nodes.next(ROOT, Some(&name("c"))).map(|node| node.ino), None);
        assert_eq!(nodes.unlink(ROOT, &name("b")), Some(newer));
        assert_eq!(names(&nodes), ["a", "c"]);
    }

    #[test]
    fn the_place_of_a_removed_node_is_used_again() {
        let mut nodes = with_root();
        for round in 0..10 {
            for number in 0..1000 {
                nodes.insert(node(100 + number, &format!("{round}-{number}")));
            }
            assert_eq!((nodes.len(), nodes.iter().count()), (1001, 1001));
            assert!(nodes.get(Ino(1099)).is_some_and(|node| node.name.is_some()));
            (0..1000).for_each(|number| nodes.remove(Ino(100 + number)));
            assert!(!nodes.contains(Ino(1099)));
        }
        assert_eq!((nodes.len(), nodes.slots.len()), (1, 1001));
    }
}
