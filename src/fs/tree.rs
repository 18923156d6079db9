//! The tree on the local disk: read when the mount begins, written as it is learned.

use std::path::Path;

use super::Fs;
use crate::cache::Disk;
use crate::inode::{ROOT, Saved, Snapshot, Unsaved};

/// The name of the snapshot in the cache directory.
const FILE: &str = "tree";
/// A snapshot that is not longer (bytes) knows no directory.
const MIN_BYTES: u64 = 32;

impl Fs {
    /// Takes over what the last mount knew. Code that nobody could change since is as good as listed just now.
    pub(super) fn restore_tree(&self, saved: &Saved) {
        let belief = self.0.env.belief();
        let commit = belief.target_commit.filter(|_| belief_is_frozen(self)).unwrap_or_default();
        self.0.table.restore(ROOT, saved, self.0.clock.now(), |dir| !commit.is_empty() && *dir.commit == *commit);
    }

    /// Saves what was learned since the last time; with `all` also what nobody vouches for yet.
    pub(super) fn save_tree(&self, all: bool) {
        let Some(snapshot) = &self.0.snapshot else { return };
        let unsaved: Vec<Unsaved> = self
            .0
            .table
            .take_unsaved()
            .into_iter()
            .filter(|dir| dir.listing.0.starts_with(&self.object(ROOT)))
            .collect();
        if unsaved.is_empty() {
            return;
        }
        let belief = self.0.env.belief();
        let frozen = belief_is_frozen(self);
        let commit = belief.target_commit.filter(|_| frozen).unwrap_or_default();
        // The platform must have named this commit after the server was asked for the names, or the two may not agree.
        let age = self.0.clock.wall().duration_since(belief.learned).unwrap_or_default();
        let vouched = |dir: &Unsaved| {
            dir.listed.is_some_and(|at| self.0.clock.now().saturating_duration_since(at) > age) && !commit.is_empty()
        };
        let (sure, unsure): (Vec<_>, Vec<_>) = unsaved.into_iter().partition(vouched);
        let mut done = write(snapshot, &commit, sure);
        if frozen && !all {
            self.0.table.still_unsaved(unsure.into_iter().map(|dir| dir.dir));
        } else {
            done = done.and_then(|()| write(snapshot, "", unsure));
        }
        if let Err(error) = done {
            log::warn!("{}: {error}; the next mount may start slower", snapshot.path().display());
        }
    }

    /// Whether a mount could begin here without a connection.
    pub fn knows_a_tree(cache_dir: &Path) -> bool {
        std::fs::metadata(cache_dir.join(FILE)).is_ok_and(|file| file.len() > MIN_BYTES)
    }
}

fn belief_is_frozen(fs: &Fs) -> bool {
    fs.freshness(ROOT) == super::FROZEN_FRESH
}

fn write(snapshot: &Snapshot, commit: &str, dirs: Vec<Unsaved>) -> std::io::Result<()> {
    if dirs.is_empty() {
        return Ok(());
    }
    let listings: Vec<_> = dirs.into_iter().map(|dir| dir.listing).collect();
    snapshot.append(commit, &listings)
}

/// Content on the local disk takes this much at most (bytes), and never more than a tenth of what is free.
const CONTENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Opens the disk tier. A convenience, too.
pub(super) fn open_content(dir: &Path, owner: &str) -> Option<Disk> {
    let free = |dir: &Path| {
        std::fs::create_dir_all(dir)?;
        let space = rustix::fs::statvfs(dir)?;
        Ok::<u64, std::io::Error>(space.f_bavail.saturating_mul(space.f_frsize))
    };
    let opened = free(dir).and_then(|free| Disk::open(dir, owner.as_bytes(), CONTENT_BYTES.min(free / 10)));
    opened.inspect_err(|error| log::warn!("{}: {error}; content is kept in memory only", dir.display())).ok()
}

/// Opens the snapshot below the cache directory. It is a convenience: without it the server is asked.
pub(super) fn open(cache_dir: Option<&Path>) -> (Option<Snapshot>, Saved) {
    let Some(dir) = cache_dir else { return (None, Saved::default()) };
    match Snapshot::open(&dir.join(FILE)) {
        Ok((snapshot, saved)) => (Some(snapshot), saved),
        Err(error) => {
            log::warn!("{}: {error}; the tree is not kept for the next mount", dir.join(FILE).display());
            (None, Saved::default())
        }
    }
}
