//! The table itself: numbers, lookups, local changes to names. Taking over listings is in `listing`.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashSet, VecDeque};
use std::time::{Instant, SystemTime};

use sha1::{Digest, Sha1};

use super::node::{Child, Dir, Node, NodeView, Shown, Slot};
use super::nodes::Nodes;
use super::{FIRST_HASHED, Ino, VIRTUAL_BIT};
use crate::attr::{Area, Attr, FileKind, Version, secs_from_time};
use crate::path::{Name, RemotePath};

/// A directory of the server and the place where the mount shows it.
#[derive(Debug, Clone)]
pub struct Root {
    pub ino: Ino,
    pub path: RemotePath,
    pub area: Area,
}

/// See the module documentation.
pub struct Table {
    roots: Vec<Root>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) nodes: Nodes,
    /// Directories whose snapshot is outdated.
    pub(super) unsaved: HashSet<Ino>,
    retired: Retired,
}

/// Numbers of removed objects. A queued change, a cached block or an answer in progress may still name one, so that
/// it is not given to another object while it is remembered here.
#[derive(Default)]
struct Retired {
    known: HashSet<Ino>,
    order: VecDeque<Ino>,
}

/// How many of them are remembered: more than changes can be queued.
const MAX_RETIRED: usize = 200_000;

impl Retired {
    fn add(&mut self, ino: Ino) {
        if self.known.insert(ino) {
            self.order.push_back(ino);
        }
        if self.order.len() > MAX_RETIRED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Table {
    pub fn new(roots: Vec<Root>) -> Self {
        let attr = Attr { kind: FileKind::Directory, size: 4096, perm: 0o755, mtime: 0, atime: 0 };
        let mut nodes = Nodes::default();
        for root in &roots {
            nodes.insert(Node::new(root.ino, root.ino, None, attr));
        }
        Self { roots, state: Mutex::new(State { nodes, ..State::default() }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    fn root_of(&self, state: &State, mut ino: Ino) -> Option<&Root> {
        loop {
            let node = state.nodes.get(ino)?;
            if node.name.is_none() {
                return self.roots.iter().find(|root| root.ino == ino);
            }
            ino = node.parent;
        }
    }

    /// The object's path on the server; `None` for unknown numbers.
    pub fn path(&self, ino: Ino) -> Option<RemotePath> {
        self.path_in(&self.lock(), ino)
    }

    pub(super) fn path_in(&self, state: &State, mut ino: Ino) -> Option<RemotePath> {
        let mut names = Vec::new();
        loop {
            let node = state.nodes.get(ino)?;
            let Some(name) = &node.name else { break };
            names.push(name.clone());
            ino = node.parent;
        }
        let root = self.roots.iter().find(|root| root.ino == ino)?;
        Some(names.iter().rev().fold(root.path.clone(), |path, name| path.join(name)))
    }

    pub fn area(&self, ino: Ino) -> Option<Area> {
        self.root_of(&self.lock(), ino).map(|root| root.area)
    }

    pub fn view(&self, ino: Ino) -> Option<NodeView> {
        view_of(&self.lock(), ino)
    }

    /// The number of the object at a path of the server, if it is known.
    pub fn find(&self, path: &RemotePath) -> Option<Ino> {
        let state = self.lock();
        let root = self.roots.iter().filter(|r| path.starts_with(&r.path)).max_by_key(|r| r.path.depth())?;
        let rest = path.strip_prefix(&root.path)?;
        rest.names().try_fold(root.ino, |ino, name| Some(state.nodes.child(ino, &name)?.ino))
    }

    pub fn child(&self, parent: Ino, name: &Name) -> Child {
        let state = self.lock();
        let Some(dir) = state.dir(parent) else { return Child::Unknown };
        match state.nodes.child(parent, name) {
            Some(node) => Child::Positive(view(&state, node)),
            None if dir.listed.is_some() => Child::Negative,
            None => Child::Unknown,
        }
    }

    /// The file that replaced one that has no name any more and is not open.
    pub fn successor(&self, ino: Ino) -> Option<Ino> {
        let state = self.lock();
        let node = state.nodes.get(ino)?;
        if !node.is_unlinked() || node.callers().opens > 0 || !node.attr().is_file() {
            return None;
        }
        let successor = state.nodes.child(node.parent, node.name.as_ref()?)?;
        successor.attr().is_file().then_some(successor.ino)
    }

    /// When the directory's complete listing was applied.
    pub fn listed(&self, dir: Ino) -> Option<Instant> {
        self.lock().dir(dir)?.listed
    }

    /// Whether all names of the directory were known at some time, perhaps by an earlier mount.
    pub fn is_complete(&self, dir: Ino) -> bool {
        self.lock().dir(dir).is_some_and(|dir| dir.complete)
    }

    /// Every name of a directory with its object, in name order.
    pub fn children(&self, dir: Ino) -> Vec<(Name, NodeView)> {
        let state = self.lock();
        let nodes = state.nodes.children(dir);
        nodes.filter_map(|node| Some((node.name.clone()?, view(&state, node)))).collect()
    }

    /// Every name of a directory with its number, in name order.
    pub fn names(&self, dir: Ino) -> Vec<(Name, Ino)> {
        let state = self.lock();
        state.nodes.children(dir).filter_map(|node| Some((node.name.clone()?, node.ino))).collect()
    }

    /// The directories in a directory.
    pub fn subdirs(&self, dir: Ino) -> Vec<Ino> {
        let state = self.lock();
        state.nodes.children(dir).filter(|node| node.dir().is_some()).map(|node| node.ino).collect()
    }

    /// The first name of a directory after `after`, in name order.
    pub fn next_child(&self, dir: Ino, after: Option<&Name>) -> Option<(Name, NodeView)> {
        let state = self.lock();
        let node = state.nodes.next(dir, after)?;
        Some((node.name.clone()?, view(&state, node)))
    }

    /// Every name in the table: parent, name, number.
    pub fn walk(&self) -> Vec<(Ino, Name, Ino)> {
        let state = self.lock();
        let linked = state.nodes.iter().filter(|node| !node.is_unlinked());
        linked.filter_map(|node| Some((node.parent, node.name.clone()?, node.ino))).collect()
    }

    pub fn child_count(&self, dir: Ino) -> usize {
        self.lock().dir(dir).map_or(0, |d| d.children.len())
    }

    /// How many objects are known, for the status.
    pub fn len(&self) -> usize {
        self.lock().nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // --- references of the kernel and of handles

    pub fn add_lookup(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.add_lookup();
        }
    }

    pub fn forget(&self, ino: Ino, count: u64) {
        let mut state = self.lock();
        if let Some(node) = state.nodes.get_mut(ino) {
            node.forget(count);
        }
        state.drop_if_unused(ino);
    }

    pub fn opened(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.callers_mut().opens += 1;
        }
    }

    /// Counts one close; returns how many handles remain.
    pub fn closed(&self, ino: Ino) -> u32 {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(ino) else { return 0 };
        let callers = node.callers_mut();
        callers.opens = callers.opens.saturating_sub(1);
        callers.open_on_older &= callers.opens > 0;
        let remain = callers.opens;
        state.drop_if_unused(ino);
        remain
    }

    /// A caller changes the name, the permissions or the times of the object now (`secs` since the epoch).
    pub fn note_change(&self, ino: Ino, secs: u32) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.callers_mut().changed = secs;
        }
    }

    /// When a caller last did that; 0: not since the object is known.
    pub fn last_change(&self, ino: Ino) -> u32 {
        self.lock().nodes.get(ino).map_or(0, |node| node.callers().changed)
    }

    /// Notes the size that the kernel is told now.
    pub fn tell_size(&self, ino: Ino, size: u64) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.tell_size(size);
        }
    }

    /// The permission bits that callers were last shown.
    pub fn shown_perm(&self, ino: Ino) -> Option<u16> {
        self.lock().nodes.get(ino)?.callers().perm
    }

    /// Whether the kernel has cached another size, or a handle is open on an older content.
    pub fn kernel_is_behind(&self, ino: Ino) -> bool {
        let state = self.lock();
        let Some(node) = state.nodes.get(ino) else { return false };
        let callers = node.callers();
        callers.open_on_older || callers.size.is_some_and(|size| size != node.attr().size)
    }

    /// Whether bytes of the file, or of a file in the directory, were returned.
    pub fn was_read(&self, ino: Ino) -> bool {
        let state = self.lock();
        let was_read = |node: &Node| node.callers().was_read || node.dir().is_some_and(|dir| dir.was_read);
        state.nodes.get(ino).is_some_and(was_read)
    }

    /// Notes that the kernel may cache pages of `version`, and returns whether it had pages of the same version
    /// before. Pages of a racy version (`settled` is false) are not kept.
    pub fn keep_pages(&self, ino: Ino, version: Version, settled: bool) -> bool {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(ino) else { return false };
        std::mem::replace(&mut node.callers_mut().pages, settled.then_some(version)) == Some(version) && settled
    }

    /// Notes that the kernel may cache the names of a directory, and returns whether its cached names are current.
    pub fn keep_names(&self, dir: Ino) -> bool {
        let mut state = self.lock();
        let Some(dir) = state.dir_mut(dir) else { return false };
        let now = dir.listed.map(|listed| (dir.changes, listed));
        std::mem::replace(&mut dir.kernel_names, now) == now && now.is_some()
    }

    // --- local changes

    /// Adds an object that was just created, locally (`server: None`) or on the server. One that is only on this machine
    /// is pinned from the start: a listing that is applied before its change is recorded does not have it.
    pub fn insert(&self, parent: Ino, name: &Name, attr: Attr, server: Option<Version>) -> Option<Ino> {
        let mut state = self.lock();
        let path = self.path_in(&state, parent)?.join(name);
        let ino = state.free_number(&path);
        let mut node = Node::new(ino, parent, Some(name.clone()), attr);
        let now = Some(Instant::now());
        let details = node.details_mut();
        (details.server, details.seen, details.pinned) = (server, now, server.is_none());
        if let Some(dir) = &mut details.dir {
            (dir.listed, dir.complete) = (now, true);
        }
        state.changed_here(parent)?;
        state.link_new(node);
        Some(ino)
    }

    /// Removes a name; the number stays known while it is referenced.
    pub fn remove(&self, parent: Ino, name: &Name) -> Option<Ino> {
        let mut state = self.lock();
        state.changed_here(parent)?;
        let slot = state.nodes.unlink(parent, name)?;
        let ino = state.nodes.at(slot)?.ino;
        state.unlink_node(slot);
        Some(ino)
    }

    /// Renames an object; the object that it replaces is unlinked. The number does not change.
    pub fn rename(&self, from: (Ino, &Name), to: (Ino, &Name)) -> Option<Ino> {
        let mut state = self.lock();
        state.dir_mut(to.0)?;
        state.changed_here(from.0)?;
        let slot = state.nodes.unlink(from.0, from.1)?;
        state.changed_here(to.0)?;
        let node = state.nodes.at_mut(slot)?;
        node.parent = to.0;
        node.name = Some(to.1.clone());
        node.details_mut().seen = Some(Instant::now());
        let ino = node.ino;
        state.link(slot);
        Some(ino)
    }

    /// Changes the shown attributes, as a local operation does.
    pub fn update(&self, ino: Ino, change: impl FnOnce(&mut Attr)) -> Option<Attr> {
        let mut state = self.lock();
        let node = state.nodes.get_mut(ino)?;
        let mut attr = node.attr();
        change(&mut attr);
        node.set_attr(attr);
        let details = node.details_mut();
        details.callers.size = details.callers.size.map(|_| attr.size);
        details.seen = Some(Instant::now());
        Some(attr)
    }

    /// The server has the object with the attributes `server`. The shown attributes stay; the permission bits too,
    /// with `keep_perm`.
    pub fn confirmed(&self, ino: Ino, server: Attr, keep_perm: bool) {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(ino).filter(|node| !node.is_only_here()) else { return };
        if !keep_perm {
            node.set_attr(Attr { perm: server.perm, ..node.attr() });
        }
        let other_perm = node.attr().perm != server.perm;
        let details = node.details_mut();
        details.server = Some(server.version());
        details.callers.shown = details.server.into();
        details.perm_changed &= other_perm;
        details.seen = Some(Instant::now());
        details.callers.pages = details.callers.pages.map(|_| server.version());
        let parent = node.parent;
        if let Some(dir) = state.dir_mut(parent) {
            dir.changes += 1;
        }
        state.unsaved.insert(parent);
    }

    /// Sets the base of an object's content to the version of the object that it replaces.
    pub fn adopt_base(&self, ino: Ino, base: Option<Version>) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            let details = node.details_mut();
            (details.server, details.callers.shown) = (base, base.into());
        }
    }

    /// Sets whether the object never leaves this machine. One that does not has no version on the server, and listings
    /// never change it.
    pub fn stay_here(&self, ino: Ino, stays: bool) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            let details = node.details_mut();
            details.only_here = stays;
            if stays {
                (details.server, details.callers.shown, details.pinned) = (None, Shown::Never, true);
            }
        }
    }

    pub fn is_only_here(&self, ino: Ino) -> bool {
        self.lock().nodes.get(ino).is_some_and(Node::is_only_here)
    }

    /// Notes a local change of the permission bits.
    pub fn perm_changed(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.details_mut().perm_changed = true;
        }
    }

    /// Notes a local change of names in the directory: a listing that was requested before it is not applied.
    pub fn touch(&self, dir: Ino) {
        let mut state = self.lock();
        if let Some(known) = state.dir_mut(dir) {
            known.changes += 1;
            state.unsaved.insert(dir);
        }
    }

    /// A caller changes names in the directory now (`secs` since the epoch).
    pub fn names_changed(&self, dir: Ino, secs: u32) {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(dir) else { return };
        node.set_attr(Attr { mtime: secs, ..node.attr() });
        if let Some(known) = node.dir_mut() {
            known.own_time = true;
        }
    }

    /// Listings do not change the object from here on.
    pub fn pin(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.details_mut().pinned = true;
        }
    }

    /// Unpins unless `keep` holds, which is asked while no one else can pin the object.
    pub fn unpin_unless(&self, ino: Ino, keep: impl FnOnce() -> bool) {
        let mut state = self.lock();
        if let Some(node) = state.nodes.get_mut(ino)
            && !node.is_only_here()
            && !keep()
        {
            node.details_mut().pinned = false;
        }
    }

    /// Marks one directory, or all of them, as outdated.
    pub fn expire(&self, dir: Option<Ino>) {
        let mut state = self.lock();
        let expire = |node: &mut Node| {
            let Some(details) = &mut node.details_if_any() else { return };
            details.seen = None;
            if let Some(dir) = &mut details.dir {
                dir.listed = None;
                // Listings in progress were requested before, and are not applied.
                dir.changes += 1;
            }
        };
        match dir {
            Some(ino) => state.nodes.get_mut(ino).into_iter().for_each(expire),
            None => state.nodes.iter_mut().for_each(expire),
        }
    }
}

pub(super) fn view_of(state: &State, ino: Ino) -> Option<NodeView> {
    Some(view(state, state.nodes.get(ino)?))
}

fn view(state: &State, node: &Node) -> NodeView {
    let listed = state.dir(node.parent).and_then(|dir| dir.listed);
    let (callers, details) = (node.callers(), node.details());
    NodeView {
        ino: node.ino,
        parent: node.parent,
        attr: node.attr(),
        server: node.server(),
        shown: callers.shown,
        perm_changed: details.is_some_and(|details| details.perm_changed),
        seen: details.and_then(|details| details.seen).max(listed),
        foreign_changes: details.map_or(0, |details| details.foreign_changes),
        opens: callers.opens,
        pinned: node.is_pinned(),
        only_here: node.is_only_here(),
        unlinked: node.is_unlinked(),
    }
}

/// The beginning of the hash of each path in a directory.
pub(super) struct Below(Sha1);

impl Below {
    pub(super) fn new(dir: &RemotePath) -> Self {
        let hash = Sha1::new_with_prefix(dir.as_bytes());
        Self(if dir.is_root() { hash } else { hash.chain_update(b"/") })
    }
}

impl State {
    pub(super) fn dir(&self, ino: Ino) -> Option<&Dir> {
        self.nodes.dir(ino)
    }

    pub(super) fn dir_mut(&mut self, ino: Ino) -> Option<&mut Dir> {
        self.nodes.dir_mut(ino)
    }

    /// Called before names of a directory are changed locally: its time changes as it will on the server.
    fn changed_here(&mut self, ino: Ino) -> Option<()> {
        let node = self.nodes.get_mut(ino)?;
        node.dir_mut()?.changes += 1;
        let attr = node.attr();
        node.set_attr(Attr { mtime: attr.mtime.max(secs_from_time(SystemTime::now())), ..attr });
        Some(())
    }

    /// Adds a node with a free number to its directory. What had the name before is unlinked.
    pub(super) fn link_new(&mut self, node: Node) -> Slot {
        let slot = self.nodes.insert(node);
        self.link(slot);
        slot
    }

    fn link(&mut self, slot: Slot) {
        if let Some(old) = self.nodes.link(slot) {
            self.unlink_node(old);
        }
    }

    /// A number for a path: its hash, or the next free one after it.
    pub(super) fn free_number(&self, path: &RemotePath) -> Ino {
        self.free_from(Sha1::new_with_prefix(path.as_bytes()))
    }

    /// A number for the path of a name in a directory.
    pub(super) fn free_number_below(&self, dir: &Below, name: &Name) -> Ino {
        self.free_from(dir.0.clone().chain_update(name.as_bytes()))
    }

    fn free_from(&self, path: Sha1) -> Ino {
        let hash: [u8; 20] = path.finalize().into();
        let mut number = u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
        loop {
            number &= !VIRTUAL_BIT;
            let ino = Ino(number);
            if number >= FIRST_HASHED && !self.nodes.contains(ino) && !self.retired.known.contains(&ino) {
                return ino;
            }
            number = number.wrapping_add(1).max(FIRST_HASHED);
        }
    }

    /// Marks a node that has no name any more, and everything below it, as unlinked.
    pub(super) fn unlink_node(&mut self, slot: Slot) {
        let mut queue = vec![slot];
        while let Some(slot) = queue.pop() {
            let Some(node) = self.nodes.at_mut(slot) else { continue };
            let ino = node.ino;
            node.details_mut().unlinked = true;
            if let Some(dir) = node.dir_mut() {
                queue.extend(std::mem::take(&mut dir.children));
            }
            self.drop_if_unused(ino);
        }
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.nodes.get(ino).is_some_and(Node::is_unused) {
            self.nodes.remove(ino);
            self.retired.add(ino);
        }
    }
}

#[cfg(test)]
mod tests;
