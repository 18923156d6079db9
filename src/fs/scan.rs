//! Content ahead of a reader of many files (`grep -r`, an IDE that indexes): the files that come next in the order of the
//! tree are fetched before they are asked for, across directories.
//!
//! A scan is recognised by two files read in the order of the tree, depth first and by name, which is the order of our
//! listings. Who reads at random costs nothing. Without this every file costs two round trips, one file after the other:
//! minutes for a tree that the link could carry in seconds.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{FROZEN_FRESH, Fs, OPEN_FRESH};
use crate::attr::{FileKind, Version};
use crate::inode::{Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::remote::Class;

/// Readers that are followed at a time.
const MAX_SCANS: usize = 4;
/// Files that are looked at to recognise the next one: a reader may skip what it has, or what it does not want.
const LOOK_AHEAD: usize = 64;
/// Files fetched ahead at most.
const MAX_FILES: usize = 2048;
/// Bytes fetched ahead at most; they must fit into the cache beside what is being read.
const MAX_BYTES: u64 = 24 * 1024 * 1024;
/// Nor more than the link carries in so many seconds: somebody may want, now, what is the last in this line.
const SECONDS: u64 = 2;
/// The same while the rate is not known, and at least.
const UNKNOWN_BYTES: u64 = 8 * 1024 * 1024;
const MIN_BYTES: u64 = 1024 * 1024;
/// Directories whose listings are renewed ahead of the reader: they come in 2 round trips whatever their number, and `open`
/// wants none that is older than [`OPEN_FRESH`]. As many as it passes in `SPAN`, for those are still fresh when it comes.
const DIRS: (usize, usize) = (16, 512);
const SPAN: Duration = Duration::from_millis(OPEN_FRESH.as_millis() as u64 / 3);
/// Of a large file only the beginning is fetched ahead: its own reader's read-ahead does the rest.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

#[derive(Default)]
pub(super) struct Scans(Mutex<VecDeque<Scan>>);

/// One reader on its way through the tree.
struct Scan {
    last: Ino,
    /// Files after `last`, in order, as far as they were looked up.
    upcoming: VecDeque<Upcoming>,
    /// How many of them have been asked for.
    asked: usize,
    asked_bytes: u64,
    walk: Walk,
    /// Directories from where the reader is, as far as they were looked up, and when they were last seen to be fresh.
    dirs: VecDeque<(Ino, Option<Instant>)>,
    dir_walk: Walk,
    /// When directories were left behind, the last [`SPAN`] of it.
    passed: VecDeque<Instant>,
    began: Instant,
    hits: usize,
}

#[derive(Clone)]
struct Upcoming {
    ino: Ino,
    dir: Ino,
    path: RemotePath,
    version: Version,
}

/// A position in the tree: directories from the root down, and the name last seen in each.
struct Walk(Vec<(Ino, Option<Name>)>);

impl Fs {
    /// A file is being opened for reading. At `open`, not at the first read: what the kernel still has is never read here,
    /// and the listings ahead must be renewed all the same.
    pub(super) fn read_begins(&self, ino: Ino) {
        let (wanted, dirs) = {
            let mut scans = self.0.scans.0.lock();
            if scans.iter().any(|scan| scan.last == ino) {
                return;
            }
            let known = scans.iter().position(|scan| scan.upcoming.iter().take(MAX_FILES).any(|next| next.ino == ino));
            let mut scan = match known.and_then(|at| scans.remove(at)) {
                Some(mut scan) => {
                    scan.advance(ino, self.0.clock.now());
                    scan
                }
                None => {
                    scans.truncate(MAX_SCANS - 1);
                    Scan::begin(self, ino)
                }
            };
            let wanted = (scan.fill(self), scan.fill_dirs(self));
            scans.push_front(scan);
            wanted
        };
        // Submitted without the lock.
        dirs.into_iter().for_each(|dir| self.confirm_ahead(dir));
        for next in wanted {
            if !self.is_elsewhere(&next.path) {
                self.0.content.prefetch(&next.path, next.version, 0..next.bytes());
            }
        }
    }

    /// `open` wants a listing that is at most so old: it is renewed on the way, or every directory would cost the reader
    /// two round trips.
    fn confirm_ahead(&self, dir: Ino) {
        let old = |at: Instant| self.0.clock.now().saturating_duration_since(at) > OPEN_FRESH / 2;
        if self.freshness(dir) != FROZEN_FRESH && self.0.table.listed(dir).is_some_and(old) {
            self.try_listing(dir, Class::Background, |_| {});
        }
    }

    /// The next directory of a walk; `None` at the end, or where the tree is not known yet.
    fn next_dir(&self, walk: &mut Walk) -> Option<Ino> {
        loop {
            let view = self.step(walk)?;
            if view.attr.is_dir() {
                return Some(view.ino);
            }
        }
    }

    /// The next file of a walk that has content to fetch; `None` at the end, or where the tree is not known yet.
    fn next_file(&self, walk: &mut Walk) -> Option<Upcoming> {
        loop {
            let view = self.step(walk)?;
            if view.attr.kind == FileKind::File && view.attr.size > 0 && !view.pinned {
                return Some(Upcoming {
                    ino: view.ino,
                    dir: view.parent,
                    path: self.0.table.path(view.ino)?,
                    version: view.server.unwrap_or(view.attr.version()),
                });
            }
        }
    }

    /// What comes next in the order of the tree. `None` at the end; or at a directory that is being listed ahead: the walk goes
    /// on when it is known.
    fn step(&self, walk: &mut Walk) -> Option<NodeView> {
        loop {
            let (dir, after) = walk.0.last_mut()?;
            let Some((name, view)) = self.0.table.next_child(*dir, after.as_ref()) else {
                if walk.0.len() == 1 {
                    return None;
                }
                walk.0.pop();
                continue;
            };
            let is_dir = view.attr.is_dir();
            if is_dir && self.0.table.listed(view.ino).is_none() {
                return None;
            }
            *after = Some(name);
            if is_dir {
                walk.0.push((view.ino, None));
            }
            return Some(view);
        }
    }
}

impl Scan {
    fn begin(fs: &Fs, ino: Ino) -> Self {
        let mut stack = Vec::new();
        let mut at = ino;
        while let Some(view) = fs.0.table.view(at) {
            let name = fs.0.table.path(at).and_then(|path| path.file_name());
            if view.parent == at || stack.len() > 256 {
                break;
            }
            stack.push((view.parent, name));
            at = view.parent;
        }
        stack.reverse();
        let dirs = stack.last().map(|(dir, _)| (*dir, None)).into_iter().collect();
        let dir_walk = Walk(stack.clone());
        Self {
            last: ino,
            upcoming: VecDeque::new(),
            asked: 0,
            asked_bytes: 0,
            walk: Walk(stack),
            dirs,
            dir_walk,
            passed: VecDeque::new(),
            began: fs.0.clock.now(),
            hits: 0,
        }
    }

    /// The reader is at `ino` now: what comes before it is behind.
    fn advance(&mut self, ino: Ino, now: Instant) {
        while let Some(next) = self.upcoming.pop_front() {
            if self.asked > 0 {
                self.asked -= 1;
                self.asked_bytes = self.asked_bytes.saturating_sub(next.bytes());
            }
            if next.ino == ino {
                // A reader goes down before it goes on: what lies before this directory is behind.
                if let Some(at) = self.dirs.iter().position(|(dir, _)| *dir == next.dir) {
                    self.passed.extend(self.dirs.drain(..at).map(|_| now));
                }
                break;
            }
        }
        self.last = ino;
        self.hits += 1;
    }

    /// Looks up which directories come next and says which to renew; in halves, too.
    fn fill_dirs(&mut self, fs: &Fs) -> Vec<Ino> {
        let now = fs.0.clock.now();
        let most = self.pace(now);
        while self.dirs.len() < most {
            let Some(dir) = fs.next_dir(&mut self.dir_walk) else { break };
            self.dirs.push_back((dir, None));
        }
        // A reader that slowed down comes to some only after they have grown old again.
        let is_old = |renewed: Option<Instant>| renewed.is_none_or(|at| now.saturating_duration_since(at) > SPAN);
        let old = self.dirs.iter().take(most).filter(|(_, renewed)| is_old(*renewed)).count();
        if old < most / 2 && self.dirs.front().is_some_and(|(_, renewed)| !is_old(*renewed)) {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (dir, renewed) in self.dirs.iter_mut().take(most).filter(|(_, renewed)| is_old(*renewed)) {
            *renewed = Some(now);
            wanted.push(*dir);
        }
        wanted
    }

    /// How many directories the reader comes by in the next [`SPAN`].
    fn pace(&mut self, now: Instant) -> usize {
        while self.passed.front().is_some_and(|at| now.saturating_duration_since(*at) > SPAN) {
            self.passed.pop_front();
        }
        let most = match self.hits {
            0 => 0,
            hits if now.saturating_duration_since(self.began) < SPAN => 4 << hits.min(16),
            _ => self.passed.len().max(DIRS.0),
        };
        most.min(DIRS.1)
    }

    /// Looks up what comes next and says what to fetch.
    fn fill(&mut self, fs: &Fs) -> Vec<Upcoming> {
        // The first hit may be chance, a few are a scan.
        let files = if self.hits == 0 { 0 } else { (8 << self.hits.min(16)).min(MAX_FILES) };
        // Refilled in halves: a burst is worth more than a trickle.
        if self.asked > files / 2 {
            return Vec::new();
        }
        while self.upcoming.len() < files.max(LOOK_AHEAD) {
            let Some(next) = fs.next_file(&mut self.walk) else { break };
            self.upcoming.push_back(next);
        }
        let mut wanted = Vec::new();
        let most = bytes_ahead(fs.0.remote.rate());
        while self.asked < files && self.asked_bytes < most {
            let Some(next) = self.upcoming.get(self.asked) else { break };
            self.asked += 1;
            self.asked_bytes += next.bytes();
            wanted.push(next.clone());
        }
        wanted
    }
}

/// How many bytes to fetch ahead over a connection that carries `rate` bytes per second.
fn bytes_ahead(rate: Option<u64>) -> u64 {
    rate.map_or(UNKNOWN_BYTES, |rate| rate.saturating_mul(SECONDS).clamp(MIN_BYTES, MAX_BYTES))
}

impl Upcoming {
    fn bytes(&self) -> u64 {
        self.version.size.min(MAX_FILE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_ahead_arrives_within_moments() {
        assert_eq!(bytes_ahead(None), UNKNOWN_BYTES);
        assert_eq!(bytes_ahead(Some(10)), MIN_BYTES);
        assert_eq!(bytes_ahead(Some(2_500_000)), 5_000_000);
        assert_eq!(bytes_ahead(Some(u64::MAX)), MAX_BYTES);
    }
}
