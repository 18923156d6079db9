//! Content ahead of a reader of many files (`grep -r`, an IDE that indexes): the files that come next in the order of the
//! tree are fetched before they are asked for, across directories.
//!
//! A scan is recognised by two files read in the order of the tree, depth first and by name, which is the order of our
//! listings. Who reads at random costs nothing. Without this every file costs two round trips, one file after the other:
//! minutes for a tree that the link could carry in seconds.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::attr::{FileKind, Version};
use crate::content::Content;
use crate::inode::{Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::remote::{Class, Remote};
use crate::view::{FROZEN_FRESH, OPEN_FRESH, View};

/// Readers that are followed at a time.
const MAX_SCANS: usize = 4;
/// A path with more names is not followed.
const MAX_DEPTH: usize = 256;
/// Files that are looked at to recognise the next one: a reader may skip what it has, or what it does not want.
const LOOK_AHEAD: usize = 64;
/// Files read in the order of the tree that tell a program that reads everything (`grep -r`) from one that edits.
const MANY_FILES: usize = 32;
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

/// The readers of many files that are followed.
pub(super) struct Scans {
    view: View,
    content: Content,
    remote: Remote,
    scans: Mutex<VecDeque<Scan>>,
}

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

impl Scans {
    pub(super) fn new(view: View, content: Content, remote: Remote) -> Self {
        Self { view, content, remote, scans: Mutex::default() }
    }

    /// A file is being opened for reading; says whether that is part of a scan of many. At `open`, not at the first read: what the kernel still has is never read here,
    /// and the listings ahead must be renewed all the same.
    pub(super) fn read_begins(&self, ino: Ino) -> bool {
        let now = self.view.clock().now();
        let (wanted, dirs, many) = {
            let mut scans = self.scans.lock();
            if let Some(scan) = scans.iter().find(|scan| scan.last == ino) {
                return scan.hits >= MANY_FILES;
            }
            let known = scans.iter().position(|scan| scan.upcoming.iter().take(MAX_FILES).any(|next| next.ino == ino));
            let mut scan = match known.and_then(|at| scans.remove(at)) {
                Some(mut scan) => {
                    scan.advance(ino, now);
                    scan
                }
                None => {
                    scans.truncate(MAX_SCANS - 1);
                    Scan::begin(&self.view, ino)
                }
            };
            let many = scan.hits >= MANY_FILES;
            let wanted = (scan.fill(&self.view, bytes_ahead(self.remote.rate())), scan.fill_dirs(&self.view), many);
            scans.push_front(scan);
            wanted
        };
        // Submitted without the lock.
        dirs.into_iter().for_each(|dir| self.renew_ahead(dir));
        for next in wanted {
            if !self.view.is_elsewhere(&next.path) {
                self.content.prefetch(&next.path, next.version, 0..next.bytes());
            }
        }
        many
    }

    /// `open` wants a listing that is at most so old: it is renewed on the way, or every directory would cost the reader
    /// two round trips.
    fn renew_ahead(&self, dir: Ino) {
        let old = !self.view.is_listed_within(dir, OPEN_FRESH / 2) && self.view.listed(dir).is_some();
        if self.view.freshness(dir) != FROZEN_FRESH && old {
            self.view.try_listing(dir, Class::Background);
        }
    }
}

impl Walk {
    /// The way from the root to an object.
    fn to(view: &View, ino: Ino) -> Self {
        let mut stack = Vec::new();
        let mut at = ino;
        while let Some(node) = view.node(at) {
            let name = view.path(at).and_then(|path| path.file_name());
            if node.parent == at || stack.len() > MAX_DEPTH {
                break;
            }
            stack.push((node.parent, name));
            at = node.parent;
        }
        stack.reverse();
        Self(stack)
    }

    /// The next object of this kind in the order of the tree. `None` at the end; or at a directory that is being listed
    /// ahead: the walk goes on when it is known.
    fn next(&mut self, view: &View, wanted: impl Fn(&NodeView) -> bool) -> Option<NodeView> {
        loop {
            let (dir, after) = self.0.last_mut()?;
            let Some((name, node)) = view.next_child(*dir, after.as_ref()) else {
                if self.0.len() == 1 {
                    return None;
                }
                self.0.pop();
                continue;
            };
            let is_dir = node.attr.is_dir();
            if is_dir && view.listed(node.ino).is_none() {
                return None;
            }
            *after = Some(name);
            if is_dir {
                self.0.push((node.ino, None));
            }
            if wanted(&node) {
                return Some(node);
            }
        }
    }

    fn next_dir(&mut self, view: &View) -> Option<Ino> {
        self.next(view, |node| node.attr.is_dir()).map(|node| node.ino)
    }

    /// The next file that has content to fetch.
    fn next_file(&mut self, view: &View) -> Option<Upcoming> {
        let has_content = |node: &NodeView| node.attr.kind == FileKind::File && node.attr.size > 0 && !node.pinned;
        let node = self.next(view, has_content)?;
        Some(Upcoming { ino: node.ino, dir: node.parent, path: view.path(node.ino)?, version: node.version() })
    }
}

impl Scan {
    fn begin(view: &View, ino: Ino) -> Self {
        let walk = Walk::to(view, ino);
        let dirs = walk.0.last().map(|(dir, _)| (*dir, None)).into_iter().collect();
        let dir_walk = Walk(walk.0.clone());
        Self {
            last: ino,
            upcoming: VecDeque::new(),
            asked: 0,
            asked_bytes: 0,
            walk,
            dirs,
            dir_walk,
            passed: VecDeque::new(),
            began: view.clock().now(),
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
    fn fill_dirs(&mut self, view: &View) -> Vec<Ino> {
        let now = view.clock().now();
        let most = self.pace(now);
        while self.dirs.len() < most {
            let Some(dir) = self.dir_walk.next_dir(view) else { break };
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

    /// Looks up what comes next and says what to fetch, `most` bytes ahead of the reader.
    fn fill(&mut self, view: &View, most: u64) -> Vec<Upcoming> {
        // The first hit may be chance, a few are a scan.
        let files = if self.hits == 0 { 0 } else { (8 << self.hits.min(16)).min(MAX_FILES) };
        // Refilled in halves: a burst is worth more than a trickle.
        if self.asked > files / 2 {
            return Vec::new();
        }
        while self.upcoming.len() < files.max(LOOK_AHEAD) {
            let Some(next) = self.walk.next_file(view) else { break };
            self.upcoming.push_back(next);
        }
        let mut wanted = Vec::new();
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
