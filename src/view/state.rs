//! The type [`View`]: its parts, and what can be read from it without asking the server.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ahead::Ahead;
use super::changes::KernelChanges;
use super::freshness::{FROZEN_FRESH, Freshness, OPEN_FRESH};
use super::layout::{Layout, Own, root_above, shown_at};
use super::listings::{Listings, Unsent};
use super::saved::{EarlierTree, Restored, SavedTree, vouch};
use super::space::{Space, SpaceCache};
use super::touched::{Since, Touched};
use crate::admit::Admission;
use crate::attr::{Area, Attr};
use crate::clock::{Clock, Deadline};
use crate::error::{FsResult, LastError, Wait};
use crate::inode::{Change, Child, Ino, NodeView, ROOT, Root, Shown, Table};
use crate::path::{Name, RemotePath};
use crate::remote::{Link, Remote};

/// The options of a view.
pub struct ViewConfig {
    pub layout: Layout,
    /// How long names and attributes may be shown without asking again.
    pub fresh: Duration,
    /// How long an operation may wait for the network.
    pub timeout: Duration,
    /// Whether the root has a `.git` of this machine, which takes the place of one on the server.
    pub own_git: bool,
    /// Stands for the options that have a say in the attributes that are shown.
    pub shown_as: u16,
}

/// An answer to `lookup` or `getattr`: attributes, and how long the kernel may cache them.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub ino: Ino,
    pub attr: Attr,
    /// Seconds since the epoch. The server has none: the mtime, or the time of a later change that was made here.
    pub ctime: u32,
    /// How long the kernel may cache the name and the attributes.
    pub valid: Duration,
    /// Whether the kernel must request the attributes separately before it shows them.
    pub ask_attr: bool,
    /// It has no name any more: programs that have it open are told that no link leads to it.
    pub unlinked: bool,
}

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct View(pub(super) Arc<Inner>);

pub(super) struct Inner {
    own: Own,
    pub(super) timeout: Duration,
    pub(super) remote: Remote,
    pub(super) table: Arc<Table>,
    pub(super) freshness: Freshness,
    pub(super) listings: Listings,
    pub(super) ahead: Ahead,
    pub(super) changes: KernelChanges,
    saved: SavedTree,
    space: SpaceCache,
    pub(super) errors: LastError,
    /// How many bytes the server had sent in total when it was last found silent.
    pub(super) silent_at: Mutex<Option<u64>>,
}

impl View {
    /// Makes a view of what the last mount knew.
    pub fn new(
        config: ViewConfig,
        tree: EarlierTree,
        remote: Remote,
        admission: Admission,
        unsent: Box<dyn Unsent>,
        clock: Clock,
        errors: LastError,
    ) -> Self {
        let ViewConfig { layout, fresh, timeout, own_git, shown_as } = config;
        let Restored { saved, table, vouched, log } = tree.wait(layout);
        let table = Arc::new(table);
        let freshness = Freshness { table: table.clone(), admission, clock, names: fresh, used: Arc::default() };
        let changes = KernelChanges::new(Touched::new(table.clone(), shown_as, log));
        let listings = Listings::new(remote.clone(), freshness.clone(), unsent, changes.clone(), timeout);
        let ahead = Ahead::new(freshness.clone(), listings.clone());
        ahead.follow(&listings);
        vouch(&freshness, vouched);
        let space = SpaceCache::new(remote.clone());
        let silent_at = Mutex::default();
        Self(Arc::new(Inner {
            own: Own { layout, git: own_git },
            timeout,
            remote,
            table,
            freshness,
            listings,
            ahead,
            changes,
            saved,
            space,
            errors,
            silent_at,
        }))
    }

    /// The stream of what the kernel must drop from its caches. There is one receiver, the invalidator's thread.
    pub fn subscribe(&self) -> mpsc::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// The stream of what other writers changed, as far as there is room for it. There is one receiver.
    pub fn subscribe_seen(&self) -> mpsc::Receiver<Change> {
        self.0.changes.subscribe_seen()
    }

    /// The object as it is known, for a request of this program's own: asks nobody, and nobody was shown it.
    pub fn as_known(&self, node: &NodeView) -> Entry {
        Entry {
            ino: node.ino,
            attr: node.attr,
            ctime: self.ctime(node),
            valid: Duration::ZERO,
            ask_attr: false,
            unlinked: node.unlinked,
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.0.freshness.clock
    }

    /// How long one step may wait for the network.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The deadline of an operation that starts now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.0.timeout)
    }

    /// What `df` shows.
    ///
    /// # Errors
    ///
    /// Only [`Cause::WouldBlock`](crate::error::Cause::WouldBlock): the server was not asked yet.
    pub fn statfs(&self, wait: Wait) -> FsResult<Space> {
        self.0.space.statfs(wait, self.is_offline())
    }

    pub fn is_offline(&self) -> bool {
        matches!(self.0.remote.link(), Link::Down { .. })
    }

    /// Stops listing ahead and saves the tree.
    pub fn close(&self) {
        self.0.ahead.close();
        self.save_tree(true);
    }

    /// Saves what can be told of changes. Nothing may be shown or changed any more.
    pub fn save_log(&self) {
        self.save_tree(true);
        if let Some(log) = self.0.changes.touched().to_be_saved() {
            self.0.saved.save_log(&log);
        }
    }

    pub fn is_closing(&self) -> bool {
        self.0.ahead.is_closing()
    }

    /// Saves what was learned of the tree; with `all` also directories that no commit vouches for yet.
    pub fn save_tree(&self, all: bool) {
        self.0.saved.save(&self.0.freshness, all);
    }

    /// To be called before each local change.
    pub fn save_at_first_change(&self) {
        self.0.saved.save_at_first_change(&self.0.freshness);
    }

    pub fn is_pantheon(&self) -> bool {
        self.0.own.layout == Layout::Pantheon
    }

    /// Whether this name in the root of the mount is the mount's own.
    pub fn is_own(&self, parent: Ino, name: &[u8]) -> bool {
        parent == ROOT && self.0.own.has(name)
    }

    /// What changed since this token was given, here or on the server, as far as it was noticed.
    pub fn since(&self, token: &[u8]) -> Since {
        self.0.changes.touched().since(token)
    }

    // Paths.

    /// The path of an object, also for messages; the login directory if the object has no path any more.
    pub fn object(&self, ino: Ino) -> RemotePath {
        self.0.table.path(ino).unwrap_or_else(RemotePath::root)
    }

    pub fn path(&self, ino: Ino) -> Option<RemotePath> {
        self.0.table.path(ino)
    }

    pub fn find(&self, path: &RemotePath) -> Option<Ino> {
        self.0.table.find(path)
    }

    /// The root that a path is in.
    pub fn root_above(&self, path: &RemotePath) -> Option<&Root> {
        root_above(self.0.table.roots(), path)
    }

    pub fn area(&self, ino: Ino) -> Option<Area> {
        self.0.table.area(ino)
    }

    pub fn area_of(&self, path: &RemotePath) -> Area {
        self.root_above(path).map_or(Area::Code, |root| root.area)
    }

    /// The path of an object as the mount shows it, from the mount's root.
    pub fn shown_path(&self, path: &RemotePath) -> RemotePath {
        let Some(root) = self.root_above(path) else { return path.clone() };
        let rest = path.strip_prefix(&root.path).unwrap_or_else(RemotePath::root);
        shown_at(root.ino).join_path(&rest)
    }

    /// The path on the server of a path below the code directory.
    pub fn in_code(&self, path: &RemotePath) -> RemotePath {
        self.object(ROOT).join_path(path)
    }

    /// The path below the code directory of an object in it.
    pub fn below_code(&self, ino: Ino) -> Option<RemotePath> {
        self.path(ino)?.strip_prefix(&self.object(ROOT))
    }

    // Nodes.

    pub fn node(&self, ino: Ino) -> Option<NodeView> {
        self.0.table.view(ino)
    }

    /// The file that replaced one that has no name any more and is not open. A program that looked up the old file a
    /// moment ago is shown the new one instead of "not found".
    pub fn successor(&self, ino: Ino) -> Option<Ino> {
        self.0.table.successor(ino)
    }

    pub fn child(&self, parent: Ino, name: &Name) -> Child {
        self.0.table.child(parent, name)
    }

    pub fn children(&self, dir: Ino) -> Vec<(Name, NodeView)> {
        self.0.table.children(dir)
    }

    /// Every name of a directory with its number, in name order.
    pub fn names(&self, dir: Ino) -> Vec<(Name, Ino)> {
        self.0.table.names(dir)
    }

    pub fn next_child(&self, dir: Ino, after: Option<&Name>) -> Option<(Name, NodeView)> {
        self.0.table.next_child(dir, after)
    }

    pub fn child_count(&self, dir: Ino) -> usize {
        self.0.table.child_count(dir)
    }

    /// Every known name: parent, name, inode number.
    pub fn walk(&self) -> Vec<(Ino, Name, Ino)> {
        self.0.table.walk()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.0.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.table.is_empty()
    }

    /// The answer to a lookup. As part of `stat` it shows the attributes to the program; as part of `open` it does
    /// not, and must not become the base of the next change. For a file that was read, or that changed since it was
    /// shown, the two are told apart by having the kernel request the attributes separately.
    pub fn looked_up(&self, node: &NodeView) -> Entry {
        let other_perm = self.0.table.shown_perm(node.ino).is_some_and(|perm| perm != node.attr.perm);
        let changed = other_perm || (node.shown != Shown::Never && node.shown != node.server.into());
        if node.pinned || !node.attr.is_file() || !(changed || self.0.table.was_read(node.ino)) {
            return self.entry(node);
        }
        Entry { ask_attr: true, ..self.answer(node) }
    }

    /// The answer in a listing: that there is a file of this name is shown by the name alone.
    pub fn listed_to_callers(&self, ino: Ino) -> Option<Entry> {
        let node = self.node(ino)?;
        Some(if node.shown == Shown::Absent { self.entry(&node) } else { self.looked_up(&node) })
    }

    /// The answer to the kernel about an object: from here on it counts as shown.
    pub fn entry(&self, node: &NodeView) -> Entry {
        self.0.table.mark_shown(node.ino);
        self.answer(node)
    }

    fn ctime(&self, node: &NodeView) -> u32 {
        node.attr.mtime.max(self.0.table.last_change(node.ino))
    }

    fn answer(&self, node: &NodeView) -> Entry {
        let valid = self.0.freshness.remaining(node.ino, node.seen);
        self.0.table.tell_size(node.ino, node.attr.size);
        Entry {
            ino: node.ino,
            attr: node.attr,
            ctime: self.ctime(node),
            valid,
            ask_attr: false,
            unlinked: node.unlinked,
        }
    }

    /// The permission bits that programs were last shown; if there are none, those that are known.
    pub fn shown_perm(&self, ino: Ino) -> Option<u16> {
        self.0.table.shown_perm(ino).or_else(|| Some(self.node(ino)?.attr.perm))
    }

    /// Whether a handle must not be read through the kernel's page cache: the kernel has cached another size than the file
    /// has, so that reads would be cut off or end in zeros, or an older handle would find bytes of the new content there.
    pub fn kernel_is_behind(&self, ino: Ino) -> bool {
        self.0.table.kernel_is_behind(ino)
    }

    /// How long answers about this object are valid.
    pub fn freshness(&self, ino: Ino) -> Duration {
        self.0.freshness.bound(ino)
    }

    /// How old an answer to `open` may be.
    pub fn open_freshness(&self, ino: Ino) -> Duration {
        match self.freshness(ino) {
            FROZEN_FRESH => FROZEN_FRESH,
            fresh => fresh.min(OPEN_FRESH),
        }
    }

    /// When the directory was last listed by this mount.
    pub fn listed(&self, dir: Ino) -> Option<Instant> {
        self.0.table.listed(dir)
    }

    /// Whether the listing of the directory is younger than `bound`.
    pub fn is_listed_within(&self, dir: Ino, bound: Duration) -> bool {
        self.0.freshness.is_recent(self.listed(dir), bound)
    }

    // Local changes that the server does not know yet.

    /// Whether the server has the object under another name, or not at all.
    pub fn is_elsewhere(&self, path: &RemotePath) -> bool {
        self.0.listings.unsent().is_elsewhere(path)
    }
}
