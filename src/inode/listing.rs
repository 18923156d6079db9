//! Applies listings of the server to the table: new, changed and missing names.

use std::sync::Arc;
use std::time::Instant;

use super::Ino;
use super::node::{Node, Shown};
use super::table::{State, Table};
use crate::attr::Attr;
use crate::path::{Name, RemotePath};

/// An item that the kernel may have cached and must drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The name leads to another object, does not exist any more, or exists now.
    Entry { parent: Ino, name: Name },
    /// Attributes and content of the file changed.
    Content(Ino),
    /// Only the attributes changed.
    Attr(Ino),
    /// The attributes may have changed.
    Outdated(Ino),
    /// Another writer made the name.
    Made { parent: Ino, name: Name, ino: Ino },
    /// Another writer removed a name: what it led to is the last of these objects, and what was below that comes before it.
    Removed(Arc<[Removed]>),
}

/// An object that another writer removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub parent: Ino,
    pub name: Name,
    pub ino: Ino,
    pub attr: Attr,
    /// Where it was on the server.
    pub path: RemotePath,
}

/// The result of applying a listing.
#[derive(Debug)]
pub enum Applied {
    Changed(Vec<Change>),
    /// A local change happened after the listing was requested: request it again.
    Raced,
    /// The directory does not exist any more.
    Gone,
}

impl Table {
    /// The count of local changes, to be read before a listing is requested.
    pub fn changes(&self, dir: Ino) -> Option<u64> {
        self.lock().dir(dir).map(|d| d.changes)
    }

    /// Applies the complete listing of `dir` that was requested when [`Table::changes`] returned `changes`. Names
    /// that are `hidden` were removed locally, and the server does not know it yet.
    pub fn apply_listing(
        &self,
        dir: Ino,
        changes: u64,
        entries: Vec<(Name, Attr)>,
        now: Instant,
        hidden: impl Fn(&Name) -> bool,
    ) -> Applied {
        let mut state = self.lock();
        let Some(path) = self.path_in(&state, dir) else { return Applied::Gone };
        let Some(known) = state.dir_mut(dir) else { return Applied::Gone };
        if known.changes != changes {
            return Applied::Raced;
        }
        let expired = known.listed.replace(now).is_none();
        let first = expired && !known.complete && known.children.is_empty();
        known.complete = true;
        let listed_before = std::mem::replace(&mut known.listed_before, true);
        let mut gone = std::mem::take(&mut known.children);
        let mut out = Vec::new();
        for (name, attr) in entries {
            if !gone.contains_key(&name) && hidden(&name) {
                continue;
            }
            let ino = match gone.remove(&name) {
                Some(ino) if state.refresh(ino, attr, &mut out) => ino,
                // It has local changes, and the server has another kind of object now: it is removed when they have
                // been sent.
                Some(ino) if state.holds_pinned(ino) => ino,
                other => {
                    if let Some(ino) = other {
                        state.note_removed(dir, &path.join(&name), ino, &mut out);
                        state.unlink_node(ino);
                    }
                    let ino = state.free_number(&path.join(&name));
                    let mut node = Node::new(dir, Some(name.clone()), attr, Some(attr.version()));
                    let restored = state.dir_mut(dir).is_some_and(|known| known.restored.remove(&name));
                    if listed_before && !restored && attr.is_file() {
                        node.callers.shown = Shown::Absent;
                    }
                    state.nodes.insert(ino, node);
                    if !first {
                        out.push(Change::Made { parent: dir, name: name.clone(), ino });
                    }
                    ino
                }
            };
            if let Some(known) = state.dir_mut(dir) {
                known.children.insert(name, ino);
            }
        }
        for (name, ino) in gone {
            state.remove_missing(dir, &path.join(&name), ino, &mut out);
        }
        if expired || !out.is_empty() {
            state.unsaved.insert(dir);
        }
        Applied::Changed(out)
    }

    /// Applies the attributes of one object that were requested separately.
    pub fn apply_attr(&self, ino: Ino, attr: Attr, now: Instant) -> Vec<Change> {
        let mut out = Vec::new();
        let mut state = self.lock();
        if state.refresh(ino, attr, &mut out)
            && let Some(node) = state.nodes.get_mut(&ino)
        {
            node.seen = Some(now);
        }
        out
    }

    /// Applies what the server has under one name of a directory that it does not list.
    pub fn apply_one(&self, dir: Ino, name: &Name, attr: Attr, now: Instant) -> Vec<Change> {
        let (mut state, mut out) = (self.lock(), Vec::new());
        let Some(path) = self.path_in(&state, dir) else { return out };
        let known = state.dir(dir).and_then(|dir| dir.children.get(name).copied());
        let ino = match known {
            Some(ino) if state.refresh(ino, attr, &mut out) || state.holds_pinned(ino) => ino,
            other => {
                if let Some(ino) = other {
                    state.note_removed(dir, &path.join(name), ino, &mut out);
                    state.unlink_node(ino);
                }
                let ino = state.free_number(&path.join(name));
                state.nodes.insert(ino, Node::new(dir, Some(name.clone()), attr, Some(attr.version())));
                if let Some(known) = state.dir_mut(dir) {
                    known.children.insert(name.clone(), ino);
                }
                ino
            }
        };
        if let Some(node) = state.nodes.get_mut(&ino) {
            node.seen = Some(now);
        }
        out
    }

    /// Notes that the server has nothing under one name of a directory that it does not list.
    pub fn apply_missing(&self, dir: Ino, name: &Name) -> Vec<Change> {
        let (mut state, mut out) = (self.lock(), Vec::new());
        let Some(path) = self.path_in(&state, dir) else { return out };
        if let Some(ino) = state.dir_mut(dir).and_then(|dir| dir.children.remove(name)) {
            state.remove_missing(dir, &path.join(name), ino, &mut out);
        }
        out
    }

    /// Notes that another writer changed the content of a file without a change of its version.
    pub fn content_changed(&self, ino: Ino) -> Option<Change> {
        let mut state = self.lock();
        let node = state.nodes.get_mut(&ino)?;
        node.callers.pages = None;
        node.foreign_changes += 1;
        Some(Change::Content(ino))
    }
}

impl State {
    /// Updates a known node from the server's attributes; returns `false` if it is another kind of object now.
    fn refresh(&mut self, ino: Ino, attr: Attr, out: &mut Vec<Change>) -> bool {
        let Some(node) = self.nodes.get_mut(&ino) else { return false };
        if node.pinned {
            return true;
        }
        if node.attr.kind != attr.kind {
            return false;
        }
        if node.server == Some(attr.version()) || attr.is_dir() {
            // The version was sent by this mount: times that the server refused to set stay shown.
            let shown = Attr { mtime: node.attr.mtime, atime: node.attr.atime, ..attr };
            let attr = if attr.is_dir() { attr } else { shown };
            if node.attr.perm != attr.perm || node.attr.mtime != attr.mtime {
                out.push(Change::Attr(ino));
            }
            node.attr = attr;
            node.server = Some(attr.version()).filter(|_| attr.is_dir()).or(node.server);
            return true;
        }
        node.attr = attr;
        node.server = Some(attr.version());
        node.callers.pages = None;
        node.foreign_changes += 1;
        out.push(Change::Content(ino));
        true
    }

    /// Whether the object, or anything below it, has local changes that the server does not know yet.
    fn holds_pinned(&self, ino: Ino) -> bool {
        let mut queue = vec![ino];
        while let Some(node) = queue.pop().map(|ino| self.nodes.get(&ino)) {
            let Some(node) = node else { continue };
            if node.pinned {
                return true;
            }
            queue.extend(node.dir.iter().flat_map(|dir| dir.children.values().copied()));
        }
        false
    }

    /// Removes a name that the listing does not have, unless the object, or something below it, has local changes.
    fn remove_missing(&mut self, dir: Ino, path: &RemotePath, ino: Ino, out: &mut Vec<Change>) {
        if self.holds_pinned(ino) {
            if let (Some(known), Some(name)) = (self.dir_mut(dir), path.file_name()) {
                known.children.insert(name, ino);
            }
            return;
        }
        self.note_removed(dir, path, ino, out);
        self.unlink_node(ino);
    }

    /// Tells of an object that goes, and of all that is below it.
    fn note_removed(&self, dir: Ino, path: &RemotePath, ino: Ino, out: &mut Vec<Change>) {
        let (mut open, mut all) = (vec![(dir, path.clone(), ino)], Vec::new());
        while let Some((parent, path, ino)) = open.pop() {
            let (Some(node), Some(name)) = (self.nodes.get(&ino), path.file_name()) else { continue };
            let below = node.dir.iter().flat_map(|dir| &dir.children);
            open.extend(below.map(|(name, child)| (ino, path.join(name), *child)));
            all.push(Removed { parent, name, ino, attr: node.attr, path });
        }
        all.reverse();
        out.push(Change::Removed(all.into()));
    }
}
