//! The tree on the local disk: read when the mount starts, written as directories are listed.

use std::path::Path;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use super::freshness::{FROZEN_FRESH, Freshness};
use super::layout::Layout;
use crate::attr::Attr;
use crate::inode::{ChangeLog, Ino, ROOT, Snapshot, Table, Unsaved};
use crate::path::{Name, RemotePath};

/// A directory in the form of a snapshot.
type Listing = (RemotePath, Vec<(Name, Attr)>);

/// The name of the snapshot in the cache directory.
const FILE: &str = "tree";
/// A snapshot of at most this length (bytes) has no directory.
const MIN_BYTES: u64 = 32;

/// Whether a mount can start with this cache directory and without a connection.
pub fn knows_a_tree(cache_dir: &Path) -> bool {
    std::fs::metadata(cache_dir.join(FILE)).is_ok_and(|file| file.len() > MIN_BYTES)
}

/// The snapshot of one mount.
pub(super) struct SavedTree {
    /// `None`: nothing is saved.
    snapshot: Option<Snapshot>,
    /// The first local change.
    changed: Once,
}

impl SavedTree {
    fn new(snapshot: Option<Snapshot>) -> Self {
        Self { snapshot, changed: Once::new() }
    }

    /// Saves before the first local change. It is to be shown by the next mount, also without the server, if this one dies
    /// at once.
    pub(super) fn save_at_first_change(&self, freshness: &Freshness) {
        self.changed.call_once(|| self.save(freshness, true));
    }

    /// Saves what can be told of changes until now.
    pub(super) fn save_log(&self, log: &ChangeLog) {
        let Some(snapshot) = &self.snapshot else { return };
        if let Err(error) = snapshot.append_log(log) {
            log::debug!("{}: {error}; git compares everything after the next mount", snapshot.path().display());
        }
    }

    /// Saves what was learned since the last time; with `all` also directories that no commit vouches for yet.
    pub(super) fn save(&self, freshness: &Freshness, all: bool) {
        let Some(snapshot) = &self.snapshot else { return };
        let Freshness { table, clock, admission, .. } = freshness;
        let Some(root) = table.path(ROOT) else { return };
        let frozen = admission.frozen_commit();
        // The platform must have named this commit after the directory was listed; otherwise the two may not belong
        // together.
        let age = frozen.as_ref().map(|(_, learned)| clock.wall().duration_since(*learned).unwrap_or_default());
        let vouched = |dir: &Unsaved| {
            let since = |at| clock.now().saturating_duration_since(at);
            age.zip(dir.listed).is_some_and(|(age, at)| since(at) > age)
        };
        // One directory at a time: a million names need not be in the memory once more.
        let saved_as_is = |dir: &Ino| table.unsaved(*dir).filter(|dir| dir.listing.0.starts_with(&root));
        let mut unsure = Vec::new();
        let sure = table.take_unsaved().into_iter().filter_map(|dir| {
            let found = saved_as_is(&dir)?;
            let sure = vouched(&found);
            if !sure {
                unsure.push(dir);
            }
            sure.then_some(found.listing)
        });
        let commit = frozen.map_or_else(String::new, |(commit, _)| commit);
        let mut done = write(snapshot, &commit, sure);
        if is_frozen(freshness) && !all {
            table.still_unsaved(unsure);
        } else {
            let rest = unsure.iter().filter_map(saved_as_is).map(|dir| dir.listing);
            done = done.and_then(|()| write(snapshot, "", rest));
        }
        if let Err(error) = done {
            log::warn!("{}: {error}; the next mount may start slower", snapshot.path().display());
        }
    }
}

/// What the last mount knew. A tree of a million names takes half a second and more to read: that is begun before the server is
/// connected.
pub struct EarlierTree(JoinHandle<Restored>);

/// A table with the tree of the last mount.
pub(super) struct Restored {
    pub(super) saved: SavedTree,
    pub(super) table: Table,
    /// Directories whose code was frozen, with its commit.
    pub(super) vouched: Vec<(Ino, Arc<str>)>,
    pub(super) log: Option<ChangeLog>,
}

impl EarlierTree {
    /// Begins to read the snapshot in the cache directory. It is optional: without it the server is asked.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn read(cache_dir: Option<&Path>, layout: Layout) -> std::io::Result<Self> {
        let file = cache_dir.map(|dir| dir.join(FILE));
        let thread = std::thread::Builder::new().name("tree".into());
        thread.spawn(move || Restored::read(file.as_deref(), layout)).map(Self)
    }

    pub(super) fn wait(self, layout: Layout) -> Restored {
        // A panic is in the log.
        self.0.join().unwrap_or_else(|_| Restored::read(None, layout))
    }
}

impl Restored {
    fn read(file: Option<&Path>, layout: Layout) -> Self {
        let table = Table::new(layout.roots());
        match file.map(|file| (file, Snapshot::open(file))) {
            None => Self { saved: SavedTree::new(None), table, vouched: Vec::new(), log: None },
            Some((_, Ok((snapshot, saved)))) => {
                let vouched = table.restore(ROOT, &saved);
                Self { saved: SavedTree::new(Some(snapshot)), table, vouched, log: saved.log().cloned() }
            }
            Some((file, Err(error))) => {
                log::warn!("{}: {error}; the tree is not saved for the next mount", file.display());
                Self { saved: SavedTree::new(None), table, vouched: Vec::new(), log: None }
            }
        }
    }
}

/// Code that was frozen at the present commit counts as listed now.
pub(super) fn vouch(freshness: &Freshness, dirs: Vec<(Ino, Arc<str>)>) {
    let Some((commit, _)) = freshness.admission.frozen_commit() else { return };
    let holds = dirs.into_iter().filter(|(_, then)| **then == *commit).map(|(dir, _)| dir);
    freshness.table.vouch(holds, freshness.clock.now());
}

fn is_frozen(freshness: &Freshness) -> bool {
    freshness.bound(ROOT) == FROZEN_FRESH
}

fn write(snapshot: &Snapshot, commit: &str, dirs: impl Iterator<Item = Listing>) -> std::io::Result<()> {
    let mut dirs = dirs.peekable();
    if dirs.peek().is_none() {
        return Ok(());
    }
    snapshot.append(commit, dirs)
}
