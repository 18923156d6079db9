//! Steps that show the kernel what other writers changed. Programs that watch files are told by the kernel, and the kernel
//! tells only what is done through the mount: so each change is done again there, by a process of this program, and
//! answered from what is known. Nothing is sent, and nothing counts as shown to a program.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::state::Fs;
use crate::attr::{Attr, FileKind};
use crate::inode::{Change, Child, Ino, Removed};
use crate::path::{Name, RemotePath};
use crate::view::Entry;

/// One change, to be done again.
#[derive(Debug, Clone)]
pub struct Step {
    /// From the root of the mount.
    pub path: RemotePath,
    pub what: Again,
    parent: Ino,
    name: Name,
    ino: Ino,
    /// What was removed together. The process comes past these names until all are gone.
    removed: Arc<[Removed]>,
}

/// What is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Make(FileKind),
    Remove(FileKind),
    /// The content changed at this time (seconds since the epoch).
    Content(u32),
    Attributes(u32),
}

impl Fs {
    /// Starts to look for changes of other writers while the mount is used.
    pub fn follow_others(&self) {
        self.view.follow_others();
    }

    /// The stream of what other writers changed. There is one receiver.
    pub fn subscribe_seen(&self) -> mpsc::Receiver<Change> {
        self.view.subscribe_seen()
    }

    /// The steps that do a change again; none if nothing is to be seen of it.
    pub fn steps(&self, change: &Change) -> Vec<Step> {
        let one = |what: &dyn Fn(Attr) -> Again, ino: Ino| {
            let node = self.view.node(ino).filter(|node| !node.unlinked)?;
            let path = self.view.path(ino)?;
            Some(Step {
                path: self.view.shown_path(&path),
                what: what(node.attr),
                parent: node.parent,
                name: path.file_name()?,
                ino,
                removed: Arc::default(),
            })
        };
        let steps: Vec<Step> = match change {
            Change::Made { ino, .. } => one(&|attr| Again::Make(attr.kind), *ino).into_iter().collect(),
            Change::Content(ino) => one(&|attr| Again::Content(attr.mtime), *ino).into_iter().collect(),
            Change::Attr(ino) if self.view.node(*ino).is_some_and(|node| node.attr.is_file()) => {
                one(&|attr| Again::Attributes(attr.mtime), *ino).into_iter().collect()
            }
            Change::Removed(objects) => objects.iter().map(|object| self.step_of_removed(object, objects)).collect(),
            Change::Entry { .. } | Change::Outdated(_) | Change::Attr(_) => Vec::new(),
        };
        let is_seen = |step: &Step| {
            let other = [Again::Make(FileKind::Other), Again::Remove(FileKind::Other)].contains(&step.what);
            !other && !self.view.is_own(step.parent, step.name.as_bytes())
        };
        steps.into_iter().filter(is_seen).collect()
    }

    fn step_of_removed(&self, object: &Removed, all: &Arc<[Removed]>) -> Step {
        Step {
            path: self.view.shown_path(&object.path),
            what: Again::Remove(object.attr.kind),
            parent: object.parent,
            name: object.name.clone(),
            ino: object.ino,
            removed: all.clone(),
        }
    }

    /// The answer to the lookup of a name by the process that carries out the step. Counts as a lookup of the kernel.
    pub fn lookup_for(&self, step: &Step, parent: Ino, name: &[u8]) -> Option<Entry> {
        let name = Name::new(name).ok()?;
        if matches!(step.what, Again::Make(_)) && parent == step.parent && name == step.name {
            return None;
        }
        let removed = step.removed.iter().find(|object| object.parent == parent && object.name == name);
        let entry = match removed {
            Some(object) => as_it_was(object),
            None => match self.view.child(parent, &name) {
                Child::Positive(node) => self.view.as_known(&node),
                Child::Negative | Child::Unknown => return None,
            },
        };
        self.view.add_lookup(entry.ino);
        Some(entry)
    }

    /// The object that the step makes. Counts as a lookup of the kernel.
    pub fn made_for(&self, step: &Step, parent: Ino, name: &[u8]) -> Option<Entry> {
        let is_its = parent == step.parent && name == step.name.as_bytes();
        let node = self.view.node(step.ino).filter(|node| is_its && !node.unlinked)?;
        if step.what != Again::Make(node.attr.kind) {
            return None;
        }
        self.view.add_lookup(node.ino);
        Some(self.view.as_known(&node))
    }

    /// Whether the step removes this name.
    pub fn removes(&self, step: &Step, parent: Ino, name: &[u8]) -> bool {
        matches!(step.what, Again::Remove(_)) && parent == step.parent && name == step.name.as_bytes()
    }

    /// The attributes of an object for the process that carries out the step.
    pub fn attr_for(&self, step: &Step, ino: Ino) -> Option<Entry> {
        let removed = || step.removed.iter().find(|object| object.ino == ino).map(as_it_was);
        self.view.node(ino).map(|node| self.view.as_known(&node)).or_else(removed)
    }
}

fn as_it_was(object: &Removed) -> Entry {
    Entry {
        ino: object.ino,
        attr: object.attr,
        ctime: object.attr.mtime,
        valid: Duration::ZERO,
        ask_attr: false,
        unlinked: false,
    }
}
