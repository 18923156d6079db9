//! Prefetching for a reader of many files (`grep -r`, an IDE that indexes): the files that follow in tree order are
//! fetched before they are opened, across directories.
//!
//! A scan is recognised by two files that are read in tree order: depth first and by name, which is the order of the
//! listings. A reader that opens files in random order causes no requests. Without prefetching each file costs two
//! round trips, one file after the other: minutes for a tree that the connection could transfer in seconds.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::attr::{FileKind, Version};
use crate::content::Content;
use crate::inode::{Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::remote::{Class, Remote};
use crate::view::{FROZEN_FRESH, OPEN_FRESH, View};

/// Scans that are followed at the same time.
const MAX_SCANS: usize = 4;
/// Deeper paths are not followed.
const MAX_DEPTH: usize = 256;
/// Files examined to recognise the next one: a reader may skip files that it has cached or does not want.
const LOOK_AHEAD: usize = 64;
/// So many files read in tree order tell a program that reads everything (`grep -r`) from one that edits.
const MANY_FILES: usize = 32;
/// Files prefetched at most.
const MAX_FILES: usize = 2048;
/// Bytes prefetched at most; they must fit into the cache beside what is being read.
const MAX_BYTES: u64 = 24 * 1024 * 1024;
/// Seconds of transfer prefetched at most: a caller may need the last bytes of this queue at once.
const SECONDS: u64 = 2;
/// Bytes prefetched while the rate is unknown, and the minimum.
const UNKNOWN_BYTES: u64 = 8 * 1024 * 1024;
const MIN_BYTES: u64 = 1024 * 1024;
/// Fewest and most directories whose listings are renewed ahead of the reader. They take 2 round trips in total, and
/// `open` needs listings that are not older than [`OPEN_FRESH`]. As many as the reader passes in `SPAN` are renewed,
/// since those are still fresh when it arrives.
const DIRS: (usize, usize) = (16, 512);
const SPAN: Duration = Duration::from_millis(OPEN_FRESH.as_millis() as u64 / 3);
/// Only the beginning of a large file is prefetched; the handle's own read-ahead fetches the rest.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The scans that are followed.
pub(super) struct Scans {
    view: View,
    content: Content,
    remote: Remote,
    scans: Mutex<VecDeque<Scan>>,
}

/// One scan and its position in the tree.
struct Scan {
    last: Ino,
    /// Files after `last`, in tree order, as far as they were looked up.
    upcoming: VecDeque<Upcoming>,
    /// How many of them have been requested.
    asked: usize,
    asked_bytes: u64,
    /// When the last ones were requested.
    asked_at: Instant,
    walk: Walk,
    /// Directories from the current one on, as far as they were looked up, and when each was last fresh.
    dirs: VecDeque<(Ino, Option<Instant>)>,
    dir_walk: Walk,
    /// When directories were passed, for the last [`SPAN`].
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

/// A position in the tree: the directories from the root down, and the last name visited in each.
struct Walk(Vec<(Ino, Option<Name>)>);

impl Scans {
    pub(super) fn new(view: View, content: Content, remote: Remote) -> Self {
        Self { view, content, remote, scans: Mutex::default() }
    }

    /// Called when a file is opened for reading; returns whether that is part of a scan of many files. At `open` and
    /// not at the first read: reads that the kernel serves from its cache never arrive, and the listings ahead must
    /// be renewed all the same.
    pub(super) fn read_begins(&self, ino: Ino) -> bool {
        if self.view.node(ino).is_some_and(|node| node.only_here) {
            // There is nothing to fetch, and a look for what comes next would pass everything else that is only here.
            return false;
        }
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
                let fresh = self.view.open_freshness(next.ino);
                self.content.prefetch(&next.path, next.version, 0..next.bytes(), fresh);
            }
        }
        many
    }

    /// `open` needs a listing of at most a certain age. It is renewed ahead, or each directory would cost the reader
    /// two round trips.
    fn renew_ahead(&self, dir: Ino) {
        let old = !self.view.is_listed_within(dir, OPEN_FRESH / 2) && self.view.listed(dir).is_some();
        if self.view.freshness(dir) != FROZEN_FRESH && old {
            self.view.try_listing(dir, Class::Background);
        }
    }
}

impl Walk {
    /// The walk that stands at an object.
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

    /// The next object in tree order that is wanted. `None` at the end, or at a directory whose listing is in
    /// progress: the walk continues when it is known.
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
            let is_dir = node.attr.is_dir() && !node.only_here;
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

    /// The next file with content to fetch.
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
            asked_at: view.clock().now(),
            walk,
            dirs,
            dir_walk,
            passed: VecDeque::new(),
            began: view.clock().now(),
            hits: 0,
        }
    }

    /// Moves the scan to `ino`, and drops everything before it.
    fn advance(&mut self, ino: Ino, now: Instant) {
        while let Some(next) = self.upcoming.pop_front() {
            if self.asked > 0 {
                self.asked -= 1;
                self.asked_bytes = self.asked_bytes.saturating_sub(next.bytes());
            }
            if next.ino == ino {
                // A reader visits a directory before what follows it, so that everything before this one was passed.
                if let Some(at) = self.dirs.iter().position(|(dir, _)| *dir == next.dir) {
                    self.passed.extend(self.dirs.drain(..at).map(|_| now));
                }
                break;
            }
        }
        self.last = ino;
        self.hits += 1;
    }

    /// Looks up the directories that come next, and returns those to renew, in batches of half the number.
    fn fill_dirs(&mut self, view: &View) -> Vec<Ino> {
        let now = view.clock().now();
        let most = self.pace(now);
        while self.dirs.len() < most {
            let Some(dir) = self.dir_walk.next_dir(view) else { break };
            self.dirs.push_back((dir, None));
        }
        // If the reader slowed down, a directory may be outdated again before it is reached.
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

    /// How many directories the reader passes in the next [`SPAN`].
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

    /// Looks up the files that come next, and returns those to fetch: at most `most` bytes ahead of the reader.
    fn fill(&mut self, view: &View, most: u64) -> Vec<Upcoming> {
        // The first hit may be chance; a few are a scan.
        let files = if self.hits == 0 { 0 } else { (8 << self.hits.min(16)).min(MAX_FILES) };
        let now = view.clock().now();
        if now.saturating_duration_since(self.asked_at) > view.open_freshness(self.last) {
            // What was requested for racy versions is too old by now. The others are not requested again.
            (self.asked, self.asked_bytes) = (0, 0);
        }
        // Refilled by halves, because one burst of requests is faster than many single ones.
        if self.asked > files / 2 {
            return Vec::new();
        }
        while self.upcoming.len() < files.max(LOOK_AHEAD) {
            let Some(next) = self.walk.next_file(view) else { break };
            self.upcoming.push_back(next);
        }
        self.asked_at = now;
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

/// How many bytes to prefetch over a connection that transfers `rate` bytes per second.
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
