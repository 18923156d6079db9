//! The tree on the local disk: read when the mount starts, written as directories are listed.

use std::path::Path;
use std::sync::Once;

use super::freshness::{FROZEN_FRESH, Freshness};
use crate::attr::Attr;
use crate::inode::{ChangeLog, Ino, ROOT, Saved, Snapshot, Unsaved};
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
    /// Opens the snapshot in the cache directory and reads it. It is optional: without it the server is asked.
    pub(super) fn open(cache_dir: Option<&Path>) -> (Self, Saved) {
        let tree = |snapshot| Self { snapshot, changed: Once::new() };
        let Some(dir) = cache_dir else { return (tree(None), Saved::default()) };
        match Snapshot::open(&dir.join(FILE)) {
            Ok((snapshot, saved)) => (tree(Some(snapshot)), saved),
            Err(error) => {
                log::warn!("{}: {error}; the tree is not saved for the next mount", dir.join(FILE).display());
                (tree(None), Saved::default())
            }
        }
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

/// Restores what the last mount knew. Code that was frozen since then counts as listed now.
pub(super) fn restore(freshness: &Freshness, saved: &Saved) {
    let commit = freshness.admission.frozen_commit().map_or_else(String::new, |(commit, _)| commit);
    let holds = |commit_then: &str| !commit.is_empty() && *commit_then == *commit;
    freshness.table.restore(ROOT, saved, freshness.clock.now(), |dir| holds(&dir.commit));
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
