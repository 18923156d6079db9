//! Ahead of the reader: listing a directory queues its subdirectories, breadth first, behind whatever a caller waits for.
//!
//! Once a walk begins, the whole tree is asked for with many requests outstanding, so that the walk costs a few round
//! trips per level instead of two per directory. The same after a pause: the first touch renews all that is below it.
//!
//! Load on the server: about four requests and 40 bytes per entry for each directory, at most once per freshness bound (30 s)
//! while the mount is in use, and nothing at all while it is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::freshness::Freshness;
use super::listings::Listings;
use crate::attr::Area;
use crate::inode::Ino;
use crate::remote::Class;

/// Directories being listed ahead at a time. Each is about four requests (open, two reads, close) one or two of which are on
/// their way at once, so that this fills the window of 1,024 requests that the engine allows at most.
const MAX_LISTINGS: usize = 512;
/// Directories that may wait in line; beyond, a walk asks for them itself.
const MAX_QUEUED: usize = 100_000;
/// Nothing is listed ahead deeper than this: a directory that contains itself would be listed for ever.
const MAX_DEPTH: usize = 100;
/// Nor when this many objects are known: a tree that never ends must not fill the memory unasked.
const MAX_KNOWN: usize = 300_000;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Ahead(Arc<Inner>);

struct Inner {
    freshness: Freshness,
    listings: Listings,
    queue: Mutex<Queue>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Ino>,
    running: usize,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}

impl Ahead {
    pub(super) fn new(freshness: Freshness, listings: Listings) -> Self {
        let (queue, closing) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { freshness, listings, queue, closing }))
    }

    /// Goes on from each listing that is taken over.
    pub(super) fn follow(&self, listings: &Listings) {
        // Weak: the listings do not keep their listener alive.
        let ahead = Arc::downgrade(&self.0);
        listings.on_listed(move |dir| {
            if let Some(inner) = ahead.upgrade() {
                Self(inner).listed(dir);
            }
        });
    }

    /// Nothing more is listed ahead.
    pub(super) fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }

    /// A directory's listing was taken over: its subdirectories are next.
    fn listed(&self, dir: Ino) {
        let table = &self.0.freshness.table;
        let children = table.children(dir).into_iter();
        let due = children.filter(|(_, node)| node.attr.is_dir() && self.0.freshness.is_due(node.ino));
        let subdirs: Vec<Ino> = due.map(|(_, node)| node.ino).collect();
        // Uploads may hold 100,000 files that nobody asked for: only what is below the code root is walked ahead.
        if table.area(dir) == Some(Area::Code) && self.may_descend(dir) {
            let mut queue = self.0.queue.lock();
            let room = MAX_QUEUED.saturating_sub(queue.waiting.len());
            queue.waiting.extend(subdirs.into_iter().take(room));
        }
        self.run();
    }

    /// A caller wants to know a directory anew: what is known below it from before is asked for beside it, all levels at
    /// once, so that the walk that begins here costs a few round trips in all.
    pub(super) fn renew_below(&self, dir: Ino) {
        let table = &self.0.freshness.table;
        if table.area(dir) != Some(Area::Code) || !self.0.queue.lock().is_idle() {
            return;
        }
        let mut level = vec![dir];
        let mut due = Vec::new();
        while !level.is_empty() && due.len() < MAX_QUEUED {
            level = level.iter().flat_map(|dir| table.subdirs(*dir)).collect();
            due.extend(level.iter().copied().filter(|dir| table.is_complete(*dir) && self.0.freshness.is_due(*dir)));
        }
        due.truncate(MAX_QUEUED);
        {
            let mut queue = self.0.queue.lock();
            if due.is_empty() || !queue.is_idle() {
                return;
            }
            queue.waiting.extend(due);
        }
        self.run();
    }

    fn may_descend(&self, dir: Ino) -> bool {
        let table = &self.0.freshness.table;
        let depth = table.path(dir).map_or(usize::MAX, |path| path.depth());
        depth < MAX_DEPTH && table.len() < MAX_KNOWN
    }

    fn run(&self) {
        loop {
            let dir = {
                let mut queue = self.0.queue.lock();
                if queue.running >= MAX_LISTINGS || self.is_closing() {
                    return;
                }
                let Some(dir) = queue.waiting.pop_front() else { return };
                queue.running += 1;
                dir
            };
            let ahead = self.clone();
            // Looked at again: what was queued before may have grown without an end meanwhile.
            let wanted = self.0.freshness.is_due(dir) && self.may_descend(dir);
            let started = wanted && self.0.listings.try_start(dir, Class::Background, move |well| ahead.ended(well));
            if !started {
                self.0.queue.lock().running -= 1;
            }
        }
    }

    fn ended(&self, well: bool) {
        let mut queue = self.0.queue.lock();
        queue.running -= 1;
        if !well {
            // The link is away or the server is in trouble: callers ask for the directories that they need.
            queue.waiting.clear();
        }
        drop(queue);
        self.run();
    }
}
