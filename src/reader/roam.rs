//! A reader that opens files all over a tree in no order, each once: an index that is built from a shuffled list, or a
//! program with its own idea of what comes next. What it will open is known, and only not when: the rest of the tree.
//!
//! The first files are left alone. From then on the number of files that are fetched ahead doubles with every few that it
//! opens, so that what is fetched for a reader who stops is bounded by what it read, and by a number of bytes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::walk::{Order, Upcoming, Walk};
use crate::inode::Ino;
use crate::view::View;

/// A pause that ends it: a program that reads a tree does not rest.
const PAUSE: Duration = Duration::from_secs(2);
/// Files that are opened before anything is fetched, and how many more double the number of those ahead.
const FIRST_FILES: usize = 12;
const DOUBLING: usize = 4;
/// Files fetched ahead and not opened, at most.
const MAX_AHEAD: usize = 2048;
/// Files that are remembered as opened; more begin it anew.
const MAX_READ: usize = 100_000;

/// Where the reader was, and what was fetched ahead of it.
pub(super) struct Roam {
    read: HashSet<Ino>,
    /// Bytes that were requested and not read.
    asked: HashMap<Ino, u64>,
    last: Instant,
    /// The lowest directory above all that was opened, and how far its files were looked up.
    below: Option<(Ino, Walk)>,
}

impl Roam {
    pub(super) fn new(now: Instant) -> Self {
        Self { read: HashSet::new(), asked: HashMap::new(), last: now, below: None }
    }

    /// Whether this file was fetched ahead and not opened yet.
    pub(super) fn expects(&self, ino: Ino) -> bool {
        self.asked.contains_key(&ino)
    }

    /// A file is opened that no order foresees. Returns what to fetch, at most `most` bytes ahead.
    pub(super) fn opened(&mut self, view: &View, (ino, dir): (Ino, Ino), now: Instant, most: u64) -> Vec<Upcoming> {
        let is_over = now.saturating_duration_since(self.last) > PAUSE || self.read.len() >= MAX_READ;
        // A file that is opened again is another pass, or a program that looks up a few files over and over.
        if is_over || self.read.contains(&ino) {
            *self = Self::new(now);
        }
        self.last = now;
        self.read.insert(ino);
        self.asked.remove(&ino);
        let top = match &self.below {
            Some((top, _)) => common(view, *top, dir),
            None => Some(dir),
        };
        let Some(top) = top else { return Vec::new() };
        if self.below.as_ref().is_none_or(|(known, _)| *known != top) {
            self.below = Some((top, Walk::below(top, Order::Names)));
        }
        self.fill(view, most)
    }

    fn fill(&mut self, view: &View, most: u64) -> Vec<Upcoming> {
        let Some(more) = self.read.len().checked_sub(FIRST_FILES) else { return Vec::new() };
        let files = (1 << (1 + more / DOUBLING).min(16)).min(MAX_AHEAD);
        let Some((_, walk)) = &mut self.below else { return Vec::new() };
        let mut bytes: u64 = self.asked.values().sum();
        let mut wanted = Vec::new();
        while self.asked.len() < files && bytes < most {
            let Some(next) = walk.next_file(view) else { break };
            if self.read.contains(&next.ino) || self.asked.contains_key(&next.ino) {
                continue;
            }
            bytes += next.bytes();
            self.asked.insert(next.ino, next.bytes());
            wanted.push(next);
        }
        wanted
    }
}

/// The lowest directory above, or equal to, both.
fn common(view: &View, one: Ino, other: Ino) -> Option<Ino> {
    let above = |dir: Ino| {
        std::iter::successors(Some(dir), |at| view.node(*at).map(|node| node.parent).filter(|parent| parent != at))
    };
    let ours: HashSet<Ino> = above(one).collect();
    above(other).find(|dir| ours.contains(dir))
}
