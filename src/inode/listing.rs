//! Taking over a listing that the server sent: what appeared, what changed, what went.

use std::time::Instant;

use super::Ino;
use super::node::Node;
use super::table::{State, Table};
use crate::attr::Attr;
use crate::path::Name;

/// Something that the kernel may still believe and must forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The name leads elsewhere, or nowhere, or exists now.
    Entry { parent: Ino, name: Name },
    /// Attributes and bytes of the file are other ones.
    Content(Ino),
    /// Attributes only.
    Attr(Ino),
}

/// What became of a listing.
#[derive(Debug)]
pub enum Applied {
    Changed(Vec<Change>),
    /// A local change happened after the listing was asked for: ask again.
    Raced,
    /// The directory is gone.
    Gone,
}

impl Table {
    /// The count of local changes, to be read before a listing is asked for.
    pub fn changes(&self, dir: Ino) -> Option<u64> {
        self.lock().dir(dir).map(|d| d.changes)
    }

    /// Takes over the complete listing of `dir` that was asked for when [`Table::changes`] said `changes`. Names that are
    /// `hidden` were taken away here, and the server does not know it yet.
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
        let first = expired && known.children.is_empty();
        known.complete = true;
        let mut gone = std::mem::take(&mut known.children);
        let mut out = Vec::new();
        for (name, attr) in entries {
            if !gone.contains_key(&name) && hidden(&name) {
                continue;
            }
            let ino = match gone.remove(&name) {
                Some(ino) if state.refresh(ino, attr, &mut out) => ino,
                // Changed here, in what is no directory there any more: it goes when that has ended.
                Some(ino) if state.holds_pinned(ino) => ino,
                other => {
                    if let Some(ino) = other {
                        state.unlink_node(ino);
                    }
                    let ino = state.free_number(&path.join(&name));
                    state.nodes.insert(ino, Node::new(dir, Some(name.clone()), attr, Some(attr.version())));
                    if !first {
                        out.push(Change::Entry { parent: dir, name: name.clone() });
                    }
                    ino
                }
            };
            if let Some(known) = state.dir_mut(dir) {
                known.children.insert(name, ino);
            }
        }
        for (name, ino) in gone {
            state.remove_missing(dir, name, ino, &mut out);
        }
        if expired || !out.is_empty() {
            state.unsaved.insert(dir);
        }
        Applied::Changed(out)
    }

    /// Takes over the attributes of one object, asked for on its own.
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
}

impl State {
    /// Compares a known node with what the server says; `false` when it is another kind of object now.
    fn refresh(&mut self, ino: Ino, attr: Attr, out: &mut Vec<Change>) -> bool {
        let Some(node) = self.nodes.get_mut(&ino) else { return false };
        if node.pinned {
            return true;
        }
        if node.attr.kind != attr.kind {
            return false;
        }
        if node.server == Some(attr.version()) || attr.is_dir() {
            // The version is ours: times that were set here and refused there go on being shown.
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
        node.kernel_pages = None;
        node.foreign_changes += 1;
        out.push(Change::Content(ino));
        true
    }

    /// Whether it, or anything below it, was changed here and the server does not know yet.
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

    /// A known name that the listing does not have: gone on the server, unless it, or something in it, exists only here so far.
    fn remove_missing(&mut self, dir: Ino, name: Name, ino: Ino, out: &mut Vec<Change>) {
        if self.holds_pinned(ino) {
            if let Some(known) = self.dir_mut(dir) {
                known.children.insert(name, ino);
            }
            return;
        }
        self.unlink_node(ino);
        out.push(Change::Entry { parent: dir, name });
    }
}
