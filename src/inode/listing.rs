//! Applies listings of the server to the table: new, changed and missing names.

use std::sync::Arc;
use std::time::Instant;

use super::Ino;
use super::node::{Node, Shown, Slot};
use super::table::{Below, State, Table};
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

/// The clocks of the server and of this machine may differ by so much (seconds).
const MAX_SKEW: u32 = 120;

/// Whether `server` can be the time at which a change that was made at `here` arrived on the server (seconds since the epoch).
fn can_be_arrival(server: u32, here: u32) -> bool {
    server.saturating_add(MAX_SKEW) >= here
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
        let mut gone = Gone::new(std::mem::take(&mut known.children));
        let numbers = Below::new(&path);
        let (mut out, mut replaced, mut children) = (Vec::new(), Vec::new(), Vec::with_capacity(entries.len()));
        for (name, attr) in entries {
            let known = gone.take(&state, &name);
            if known.is_none() && hidden(&name) {
                continue;
            }
            children.push(match known {
                Some(slot) if state.refresh(slot, attr, &mut out) => slot,
                // It has local changes, and the server has another kind of object now: it is removed when they have
                // been sent.
                Some(slot) if state.holds_pinned(slot) => slot,
                other => {
                    if let Some(slot) = other {
                        state.note_removed(dir, &path.join(&name), slot, &mut out);
                        // Unlinked in the end: the known names are searched until then.
                        replaced.push(slot);
                    }
                    let ino = state.free_number_below(&numbers, &name);
                    let mut node = Node::new(ino, dir, Some(name.clone()), attr);
                    let restored = state.dir_mut(dir).is_some_and(|known| known.restored.remove(&name));
                    if listed_before && !restored && attr.is_file() {
                        node.callers_mut().shown = Shown::Absent;
                    }
                    if !first {
                        out.push(Change::Made { parent: dir, name, ino });
                    }
                    state.nodes.insert(node)
                }
            });
        }
        replaced.into_iter().for_each(|slot| state.unlink_node(slot));
        for slot in gone.rest() {
            if state.holds_pinned(slot) {
                children.push(slot);
            } else {
                state.remove_missing(dir, &path, slot, &mut out);
            }
        }
        state.nodes.set_children(dir, children);
        state.changed_by_others(dir, &out);
        if expired || !out.is_empty() {
            state.unsaved.insert(dir);
        }
        Applied::Changed(out)
    }

    /// Applies the attributes of one object that were requested separately.
    pub fn apply_attr(&self, ino: Ino, attr: Attr, now: Instant) -> Vec<Change> {
        let mut out = Vec::new();
        let mut state = self.lock();
        if let Some(slot) = state.nodes.slot(ino)
            && state.refresh(slot, attr, &mut out)
        {
            state.seen(slot, now);
        }
        out
    }

    /// Applies what the server has under one name of a directory that it does not list.
    pub fn apply_one(&self, dir: Ino, name: &Name, attr: Attr, now: Instant) -> Vec<Change> {
        let (mut state, mut out) = (self.lock(), Vec::new());
        let Some(path) = self.path_in(&state, dir) else { return out };
        let slot = match state.nodes.child_slot(dir, name) {
            Some(slot) if state.refresh(slot, attr, &mut out) || state.holds_pinned(slot) => slot,
            other => {
                if let Some(slot) = other {
                    state.note_removed(dir, &path.join(name), slot, &mut out);
                    state.nodes.unlink(dir, name);
                    state.unlink_node(slot);
                }
                let ino = state.free_number(&path.join(name));
                state.link_new(Node::new(ino, dir, Some(name.clone()), attr))
            }
        };
        state.seen(slot, now);
        out
    }

    /// Notes that the server has nothing under one name of a directory that it does not list.
    pub fn apply_missing(&self, dir: Ino, name: &Name) -> Vec<Change> {
        let (mut state, mut out) = (self.lock(), Vec::new());
        let Some(path) = self.path_in(&state, dir) else { return out };
        if let Some(slot) = state.nodes.child_slot(dir, name)
            && !state.holds_pinned(slot)
        {
            state.nodes.unlink(dir, name);
            state.remove_missing(dir, &path, slot, &mut out);
        }
        out
    }

    /// Notes that another writer changed the content of a file without a change of its version.
    pub fn content_changed(&self, ino: Ino) -> Option<Change> {
        let mut state = self.lock();
        let details = state.nodes.get_mut(ino)?.details_mut();
        details.change_content();
        Some(Change::Content(ino))
    }
}

/// The names of a directory that a listing has not named yet.
struct Gone {
    /// In the order of names.
    names: Vec<Slot>,
    taken: Vec<bool>,
    /// The place after the last one that was taken: listings come in the order of names.
    next: usize,
}

impl Gone {
    fn new(names: Vec<Slot>) -> Self {
        Self { taken: vec![false; names.len()], names, next: 0 }
    }

    fn take(&mut self, state: &State, name: &Name) -> Option<Slot> {
        let expected = self.names.get(self.next).and_then(|slot| state.nodes.name_at(*slot));
        let at = match expected == Some(name) {
            true => self.next,
            false => state.nodes.search(&self.names, name).ok()?,
        };
        self.next = at + 1;
        (!std::mem::replace(&mut self.taken[at], true)).then(|| self.names[at])
    }

    fn rest(self) -> impl Iterator<Item = Slot> {
        self.names.into_iter().zip(self.taken).filter(|(_, taken)| !taken).map(|(slot, _)| slot)
    }
}

impl State {
    fn seen(&mut self, slot: Slot, now: Instant) {
        if let Some(node) = self.nodes.at_mut(slot) {
            node.details_mut().seen = Some(now);
        }
    }

    /// If others changed names in the directory, its time on the server is theirs.
    fn changed_by_others(&mut self, dir: Ino, changes: &[Change]) {
        let names = |change: &Change| matches!(change, Change::Made { .. } | Change::Removed(_) | Change::Entry { .. });
        if changes.iter().any(names)
            && let Some(dir) = self.dir_mut(dir)
        {
            dir.own_time = false;
        }
    }

    /// Updates a known node from the server's attributes; returns `false` if it is another kind of object now.
    fn refresh(&mut self, slot: Slot, attr: Attr, out: &mut Vec<Change>) -> bool {
        let Some(node) = self.nodes.at_mut(slot) else { return false };
        if node.is_pinned() {
            return true;
        }
        let (ino, known) = (node.ino, node.attr());
        if known.kind != attr.kind {
            return false;
        }
        if node.server() == Some(attr.version()) || attr.is_dir() {
            // The version was sent by this mount: times that the server refused to set stay shown.
            let shown = Attr { mtime: known.mtime, atime: known.atime, ..attr };
            let own_time = node.dir().is_some_and(|dir| dir.own_time && can_be_arrival(attr.mtime, known.mtime));
            let attr = match attr.is_dir() {
                true if own_time => Attr { mtime: known.mtime, ..attr },
                true => attr,
                false => shown,
            };
            if known.perm != attr.perm || known.mtime != attr.mtime {
                out.push(Change::Attr(ino));
            }
            node.set_attr(attr);
            if attr.is_dir() {
                node.details_mut().server = Some(attr.version());
            }
            return true;
        }
        node.set_attr(attr);
        let details = node.details_mut();
        details.server = Some(attr.version());
        details.change_content();
        out.push(Change::Content(ino));
        true
    }

    /// Whether the object, or anything below it, has local changes that the server does not know yet.
    fn holds_pinned(&self, slot: Slot) -> bool {
        let mut queue = vec![slot];
        while let Some(node) = queue.pop().map(|slot| self.nodes.at(slot)) {
            let Some(node) = node else { continue };
            if node.is_pinned() {
                return true;
            }
            queue.extend(node.dir().iter().flat_map(|dir| &dir.children));
        }
        false
    }

    /// Removes an object that has no name any more because the server does not list it.
    fn remove_missing(&mut self, dir: Ino, path: &RemotePath, slot: Slot, out: &mut Vec<Change>) {
        if let Some(name) = self.nodes.name_at(slot) {
            self.note_removed(dir, &path.join(name), slot, out);
        }
        self.unlink_node(slot);
    }

    /// Tells of an object that goes, and of all that is below it.
    fn note_removed(&self, dir: Ino, path: &RemotePath, slot: Slot, out: &mut Vec<Change>) {
        let (mut open, mut all) = (vec![(dir, path.clone(), slot)], Vec::new());
        while let Some((parent, path, slot)) = open.pop() {
            let (Some(node), Some(name)) = (self.nodes.at(slot), path.file_name()) else { continue };
            for child in node.dir().iter().flat_map(|dir| &dir.children) {
                open.extend(self.nodes.name_at(*child).map(|name| (node.ino, path.join(name), *child)));
            }
            all.push(Removed { parent, name, ino: node.ino, attr: node.attr(), path });
        }
        all.reverse();
        out.push(Change::Removed(all.into()));
    }
}
