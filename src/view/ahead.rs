//! Listing ahead: listing a directory queues its subdirectories, breadth first, with a lower priority than the
//! requests of callers.
//!
//! When a walk begins, the whole tree is requested with many listings outstanding, so that the walk costs a few round
//! trips per level instead of two per directory. After a pause, the first access renews everything below it in the
//! same way.
//!
//! Load on the server: about four requests per directory and 40 bytes per entry, at most once per freshness bound (30
//! s) while the mount is in use, and nothing while it is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::freshness::Freshness;
use super::listings::Listings;
use crate::attr::Area;
use crate::inode::Ino;
use crate::remote::Class;

/// Directories listed ahead at a time. Each takes about four requests (open, two reads, close), one or two of which
/// are outstanding at once, so that this fills the engine's largest window of 1,024 requests.
const MAX_LISTINGS: usize = 512;
/// Directories that may be queued. Beyond this number, a walk requests them itself.
const MAX_QUEUED: usize = 100_000;
/// Greatest depth of directories listed ahead: a directory that contains itself would be listed forever.
const MAX_DEPTH: usize = 100;
/// Largest number of known objects with which listing ahead continues: an endless tree must not fill the memory. Each takes
/// about 150 bytes.
const MAX_KNOWN: usize = 1_500_000;

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

    /// Continues from each listing that is applied to the table.
    pub(super) fn follow(&self, listings: &Listings) {
        // Weak: the listings do not keep their listener alive.
        let ahead = Arc::downgrade(&self.0);
        listings.on_listed(move |dir| {
            if let Some(inner) = ahead.upgrade() {
                Self(inner).listed(dir);
            }
        });
    }

    /// Stops listing ahead.
    pub(super) fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }

    /// Queues the subdirectories of a directory whose listing was applied.
    fn listed(&self, dir: Ino) {
        let table = &self.0.freshness.table;
        let mut subdirs = table.subdirs(dir);
        subdirs.retain(|dir| self.0.freshness.is_due(*dir));
        // Uploads may hold 100,000 files that no caller asked for: only the tree below the code root is listed ahead.
        if table.area(dir) == Some(Area::Code) && self.may_descend(dir) {
            let mut queue = self.0.queue.lock();
            let room = MAX_QUEUED.saturating_sub(queue.waiting.len());
            queue.waiting.extend(subdirs.into_iter().take(room));
        }
        self.run();
    }

    /// Called when a caller needs a new listing of a directory: the known directories below it are requested in
    /// parallel, so that the walk that begins here costs a few round trips.
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
            // Checked again: a queued directory may have been listed, or the tree may have grown too large.
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
            // The connection is down or the server has a problem: callers request the directories that they need.
            queue.waiting.clear();
        }
        drop(queue);
        self.run();
    }
}
