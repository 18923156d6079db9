//! Prefetching for a reader of many files (`grep -r`, `cp -r`, an IDE that indexes): the files that follow are fetched
//! before they are opened, across directories.
//!
//! A scan is recognised by files that are read in the order of a walk (see [`Order`]), or by several of one directory in
//! any order. From then on each file that was looked up ahead belongs to it, in whatever order it is read, so that several
//! threads and shuffled lists are followed as well. What the reader skips is not fetched again, and what is fetched ahead of
//! it is bounded by [`MAX_FILES`] and [`bytes_ahead`]. A reader that opens files all over the tree is another case (see
//! `roam`). Without prefetching each file costs two round trips, one file after the other: minutes for a tree that the
//! connection could transfer in seconds.

use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::roam::Roam;
use super::walk::{Course, Order, Upcoming, Walk};
use crate::content::Content;
use crate::inode::Ino;
use crate::remote::{Class, Remote};
use crate::view::{FROZEN_FRESH, OPEN_FRESH, View};

/// Scans that are followed at the same time.
const MAX_SCANS: usize = 4;
/// Files examined to recognise the next one: a reader may skip files that it has cached or does not want.
const LOOK_AHEAD: usize = 64;
/// The same for the order of inode numbers, in directories of at most so many names: they have to be sorted.
const LOOK_AHEAD_BY_NUMBER: usize = 16;
const MAX_SORTED: usize = 2048;
/// So many files read in a row tell a program that reads everything (`grep -r`) from one that edits.
const MANY_FILES: usize = 32;
/// Files prefetched at most, and remembered at most after the reader skipped them.
const MAX_FILES: usize = 2048;
/// Files that are remembered as read.
const MAX_READ: usize = 256;
/// A file in the directory of the one before that was not foreseen. Several of them are a reader in no order: from the
/// first number on a few files are fetched for each, up to the second one, unless some of these are read.
const GUESSES: std::ops::RangeInclusive<usize> = 2..=16;
const GUESSED_FILES: usize = 8;
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

/// The scans that are followed.
pub(super) struct Scans {
    view: View,
    content: Content,
    remote: Remote,
    scans: Mutex<Followed>,
}

struct Followed {
    in_order: VecDeque<Scan>,
    roam: Roam,
}

/// One scan.
struct Scan {
    /// The file that was read last, and its directory.
    last: Ino,
    dir: Ino,
    /// The files that were read last.
    read: VecDeque<Ino>,
    course: Course,
    files: FilesAhead,
    dirs: DirsAhead,
    hits: usize,
    /// How well the reader is foreseen: grows with each file that was, and is halved by each that was not.
    sure: usize,
    /// Files that were not foreseen, less those that were requested in time.
    guesses: usize,
}

/// The files ahead of the reader.
struct FilesAhead {
    walk: Walk,
    /// Looked up, and not requested.
    next: VecDeque<Upcoming>,
    /// While the order is unknown: what follows in the order of inode numbers.
    by_number: Vec<Ino>,
    /// Requested and not read, by the number of the request.
    asked: HashMap<Ino, (u64, Upcoming)>,
    requests: u64,
    /// The latest of them that the reader reached: what was requested before is skipped or is read later, and what was
    /// requested after it is ahead.
    reached: u64,
    /// When the last ones were requested.
    asked_at: Instant,
}

/// What was known of a file when the reader came to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// It was requested.
    Asked,
    /// It was looked up.
    Next,
    Unknown,
}

/// The directories ahead of the reader, whose listings are renewed.
struct DirsAhead {
    walk: Walk,
    /// From the current one on, as far as they were looked up, and when each was last fresh.
    next: VecDeque<(Ino, Option<Instant>)>,
    /// When directories were passed, for the last [`SPAN`].
    passed: VecDeque<Instant>,
    began: Instant,
}

impl Scans {
    pub(super) fn new(view: View, content: Content, remote: Remote) -> Self {
        let roam = Roam::new(view.clock().now());
        Self { view, content, remote, scans: Mutex::new(Followed { in_order: VecDeque::new(), roam }) }
    }

    /// Called when a file is opened for reading; returns whether that is part of a scan of many files. At `open` and
    /// not at the first read: reads that the kernel serves from its cache never arrive, and the listings ahead must
    /// be renewed all the same.
    pub(super) fn read_begins(&self, ino: Ino) -> bool {
        let Some(node) = self.view.node(ino).filter(|node| !node.only_here) else {
            // There is nothing to fetch, and a look for what comes next would pass everything else that is only here.
            return false;
        };
        let now = self.view.clock().now();
        let most = bytes_ahead(self.remote.rate());
        let Ahead { files, dirs, many } = {
            let mut followed = self.scans.lock();
            if let Some(scan) = followed.in_order.iter().find(|scan| scan.last == ino) {
                return scan.hits >= MANY_FILES;
            }
            followed.read_begins(&self.view, (ino, node.parent), now, most)
        };
        // Submitted without the lock.
        dirs.into_iter().for_each(|dir| self.renew_ahead(dir));
        for next in files {
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

/// What to request when a file is opened.
struct Ahead {
    files: Vec<Upcoming>,
    /// To be renewed.
    dirs: Vec<Ino>,
    /// Many files were read in a row.
    many: bool,
}

impl Followed {
    fn read_begins(&mut self, view: &View, (ino, dir): (Ino, Ino), now: Instant, most: u64) -> Ahead {
        let scans = &mut self.in_order;
        let expected = scans.iter().position(|scan| scan.files.expects(ino));
        if expected.is_none() && self.roam.expects(ino) {
            return self.roam.opened(view, (ino, dir), now, most).into();
        }
        let known = expected.or_else(|| scans.iter().position(|scan| scan.is_at(ino, dir)));
        let (mut scan, more) = match known.and_then(|at| scans.remove(at)) {
            Some(mut scan) => {
                scan.advance(view, (ino, dir), now);
                (scan, Vec::new())
            }
            None => {
                scans.truncate(MAX_SCANS - 1);
                (Scan::begin(view, ino, dir), self.roam.opened(view, (ino, dir), now, most))
            }
        };
        let mut ahead = Ahead::from(more);
        ahead.many = scan.hits >= MANY_FILES;
        ahead.files.append(&mut scan.fill(view, most));
        ahead.dirs.append(&mut scan.fill_dirs(view));
        scans.push_front(scan);
        ahead
    }
}

impl From<Vec<Upcoming>> for Ahead {
    /// With the directories of the files.
    fn from(files: Vec<Upcoming>) -> Self {
        let dirs: BTreeSet<Ino> = files.iter().map(|next| next.dir).collect();
        Self { dirs: dirs.into_iter().collect(), many: !files.is_empty(), files }
    }
}

impl Scan {
    fn begin(view: &View, ino: Ino, dir: Ino) -> Self {
        let by_number = if view.child_count(dir) <= MAX_SORTED {
            let mut walk = Walk::to(view, ino, Order::Numbers);
            let next = std::iter::from_fn(|| walk.next_file(view));
            next.take(LOOK_AHEAD_BY_NUMBER).map(|next| next.ino).collect()
        } else {
            Vec::new()
        };
        Self {
            last: ino,
            dir,
            read: VecDeque::from([ino]),
            course: Course::default(),
            files: FilesAhead {
                walk: Walk::to(view, ino, Order::Names),
                next: VecDeque::new(),
                by_number,
                asked: HashMap::new(),
                requests: 0,
                reached: 0,
                asked_at: view.clock().now(),
            },
            dirs: DirsAhead {
                walk: Walk::to(view, ino, Order::Names),
                next: VecDeque::from([(dir, None)]),
                passed: VecDeque::new(),
                began: view.clock().now(),
            },
            hits: 0,
            sure: 0,
            guesses: 0,
        }
    }

    /// Whether the reader is in this directory, and has not read the file yet: a file read again is another pass.
    fn is_at(&self, ino: Ino, dir: Ino) -> bool {
        self.dir == dir && !self.read.contains(&ino)
    }

    /// Moves the scan to a file.
    fn advance(&mut self, view: &View, (ino, dir): (Ino, Ino), now: Instant) {
        self.course.step(view, self.last, ino);
        let before = self.files.walk.order();
        let by_number = std::mem::take(&mut self.files.by_number).contains(&ino);
        let reached = self.files.reach(view, ino);
        let expected = reached != Reached::Unknown;
        let order = if by_number && !expected { Order::Numbers } else { self.course.order(before) };
        match reached {
            Reached::Asked => (self.sure, self.guesses) = (self.sure + 1, self.guesses.saturating_sub(1)),
            // Without an order it is chance that it was looked up.
            Reached::Next if self.course.has_no_order() => self.guesses += 1,
            Reached::Next => self.sure += 1,
            Reached::Unknown if by_number => self.sure += 1,
            Reached::Unknown => (self.sure, self.guesses) = (self.sure / 2, self.guesses + 1),
        }
        if !expected || order != before {
            self.turn(view, ino, order);
        }
        self.dirs.pass(dir, now);
        self.read.push_back(ino);
        if self.read.len() > MAX_READ {
            self.read.pop_front();
        }
        (self.last, self.dir) = (ino, dir);
        self.hits += 1;
    }

    /// The rest of the walk is another one.
    fn turn(&mut self, view: &View, ino: Ino, order: Order) {
        let walk = || match self.course.has_no_order() {
            true => Walk::into_dir_of(view, ino, order),
            false => Walk::to(view, ino, order),
        };
        (self.files.walk, self.dirs.walk) = (walk(), Walk::to(view, ino, order));
        self.files.next.clear();
        self.files.reached = self.files.requests;
        self.dirs.next = view.node(ino).map(|node| (node.parent, None)).into_iter().collect();
    }

    /// Looks up the directories that come next, and returns those to renew, in batches of half the number.
    fn fill_dirs(&mut self, view: &View) -> Vec<Ino> {
        let now = view.clock().now();
        let most = self.dirs.pace(self.sure, now);
        self.dirs.fill(view, most, now)
    }

    /// Looks up the files that come next, and returns those to fetch: at most `most` bytes ahead of the reader.
    fn fill(&mut self, view: &View, most: u64) -> Vec<Upcoming> {
        let files = match self.sure {
            0 if GUESSES.contains(&self.guesses) => GUESSED_FILES,
            // One that was foreseen may be chance; a few are a scan.
            0 => 0,
            sure => (8 << sure.min(16)).min(MAX_FILES),
        };
        let now = view.clock().now();
        if now.saturating_duration_since(self.files.asked_at) > view.open_freshness(self.last) {
            // What was requested for racy versions is too old by now. The others are not requested again.
            self.files.ask_again(self.dir);
        }
        self.files.fill(view, (files, most), &self.read, now)
    }
}

impl FilesAhead {
    fn expects(&self, ino: Ino) -> bool {
        self.asked.contains_key(&ino) || self.next.iter().any(|next| next.ino == ino) || self.by_number.contains(&ino)
    }

    /// The reader is at this file.
    fn reach(&mut self, view: &View, ino: Ino) -> Reached {
        if let Some((request, _)) = self.asked.remove(&ino) {
            self.reached = self.reached.max(request);
            return Reached::Asked;
        }
        let Some(at) = self.next.iter().position(|next| next.ino == ino) else { return Reached::Unknown };
        // What was passed is not read any more, unless it is below the same directory: files may be read before
        // directories, or in no order.
        let here = view.path(ino).and_then(|path| path.parent());
        let passed: Vec<Upcoming> = self.next.drain(..=at).collect();
        let stay = |next: &Upcoming| next.ino != ino && here.as_ref().is_some_and(|here| next.path.starts_with(here));
        passed.into_iter().filter(stay).rev().for_each(|next| self.next.push_front(next));
        self.reached = self.requests;
        Reached::Next
    }

    /// Puts back what is still ahead of the reader, or in its directory.
    fn ask_again(&mut self, dir: Ino) {
        let reached = self.reached;
        let ahead = self.asked.extract_if(|_, (request, next)| *request > reached || next.dir == dir);
        let mut ahead: Vec<_> = ahead.map(|(_, asked)| asked).collect();
        ahead.sort_unstable_by_key(|(request, _)| std::cmp::Reverse(*request));
        ahead.into_iter().for_each(|(_, next)| self.next.push_front(next));
    }

    fn fill(&mut self, view: &View, (files, bytes): (usize, u64), read: &VecDeque<Ino>, now: Instant) -> Vec<Upcoming> {
        let ahead = self.asked.values().filter(|(request, _)| *request > self.reached);
        let (mut count, mut sum) = ahead.fold((0, 0), |(count, sum), (_, next)| (count + 1, sum + next.bytes()));
        // Refilled by halves, because one burst of requests is faster than many single ones.
        if count > files / 2 {
            return Vec::new();
        }
        while self.next.len() < files.max(LOOK_AHEAD) {
            let Some(next) = self.walk.next_file(view) else { break };
            if !self.asked.contains_key(&next.ino) && !read.contains(&next.ino) {
                self.next.push_back(next);
            }
        }
        self.asked_at = now;
        let mut wanted = Vec::new();
        while count < files && sum < bytes {
            let Some(next) = self.next.pop_front() else { break };
            (count, sum) = (count + 1, sum + next.bytes());
            self.requests += 1;
            self.asked.insert(next.ino, (self.requests, next.clone()));
            wanted.push(next);
        }
        self.forget_skipped();
        wanted
    }

    fn forget_skipped(&mut self) {
        if self.asked.len() > 2 * MAX_FILES {
            let mut requests: Vec<u64> = self.asked.values().map(|(request, _)| *request).collect();
            requests.sort_unstable();
            let oldest = requests[requests.len() - MAX_FILES];
            self.asked.retain(|_, (request, _)| *request >= oldest);
        }
    }
}

impl DirsAhead {
    /// The reader is in this directory. It visits a directory before what follows it, so that everything before this one
    /// was passed.
    fn pass(&mut self, dir: Ino, now: Instant) {
        if let Some(at) = self.next.iter().position(|(next, _)| *next == dir) {
            self.passed.extend(self.next.drain(..at).map(|_| now));
        }
    }

    /// How many directories the reader passes in the next [`SPAN`].
    fn pace(&mut self, sure: usize, now: Instant) -> usize {
        while self.passed.front().is_some_and(|at| now.saturating_duration_since(*at) > SPAN) {
            self.passed.pop_front();
        }
        let most = match sure {
            0 => 0,
            sure if now.saturating_duration_since(self.began) < SPAN => 4 << sure.min(16),
            _ => self.passed.len().max(DIRS.0),
        };
        most.min(DIRS.1)
    }

    fn fill(&mut self, view: &View, most: usize, now: Instant) -> Vec<Ino> {
        while self.next.len() < most {
            let Some(dir) = self.walk.next_dir(view) else { break };
            self.next.push_back((dir, None));
        }
        // If the reader slowed down, a directory may be outdated again before it is reached.
        let is_old = |renewed: Option<Instant>| renewed.is_none_or(|at| now.saturating_duration_since(at) > SPAN);
        let old = self.next.iter().take(most).filter(|(_, renewed)| is_old(*renewed)).count();
        if old < most / 2 && self.next.front().is_some_and(|(_, renewed)| !is_old(*renewed)) {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (dir, renewed) in self.next.iter_mut().take(most).filter(|(_, renewed)| is_old(*renewed)) {
            *renewed = Some(now);
            wanted.push(*dir);
        }
        wanted
    }
}

/// How many bytes to prefetch over a connection that transfers `rate` bytes per second.
fn bytes_ahead(rate: Option<u64>) -> u64 {
    rate.map_or(UNKNOWN_BYTES, |rate| rate.saturating_mul(SECONDS).clamp(MIN_BYTES, MAX_BYTES))
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
