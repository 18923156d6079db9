//! Ahead of the reader: listing a directory queues its subdirectories, breadth first, behind whatever a caller waits for.
//!
//! Once a walk begins, the whole tree is asked for with many requests outstanding, so that the walk costs a few round
//! trips per level instead of two per directory. The same after a pause: the first touch renews all that is below it.
//!
//! Load on the server: about four requests and 40 bytes per entry for each directory, at most once per freshness bound (30 s)
//! while the mount is in use, and nothing at all while it is not.

use parking_lot::Mutex;
use std::collections::VecDeque;

use super::Fs;
use crate::inode::{Ino, ROOT};
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

#[derive(Default)]
pub(super) struct Ahead(Mutex<Queue>);

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

impl Fs {
    /// A directory's listing was taken over: its subdirectories are next.
    pub(super) fn listed(&self, dir: Ino) {
        let subdirs: Vec<Ino> = self
            .0
            .table
            .children(dir)
            .into_iter()
            .filter(|(_, view)| view.attr.is_dir() && self.is_due(view.ino))
            .map(|(_, view)| view.ino)
            .collect();
        // Uploads may hold 100,000 files that nobody asked for: only what is below the code root is walked ahead.
        if self.0.table.area(dir) == Some(crate::attr::Area::Code) && self.has_an_end(dir) {
            let mut queue = self.0.ahead.0.lock();
            let room = MAX_QUEUED.saturating_sub(queue.waiting.len());
            queue.waiting.extend(subdirs.into_iter().take(room));
        }
        self.list_ahead();
    }

    /// A caller wants to know a directory anew: what is known below it from before is asked for beside it, all levels at
    /// once, so that the walk that begins here costs a few round trips in all.
    pub(super) fn renew_below(&self, dir: Ino) {
        if self.0.table.area(dir) != Some(crate::attr::Area::Code) || !self.0.ahead.0.lock().is_idle() {
            return;
        }
        let mut level = vec![dir];
        let mut due = Vec::new();
        while !level.is_empty() && due.len() < MAX_QUEUED {
            level = level.iter().flat_map(|dir| self.0.table.subdirs(*dir)).collect();
            due.extend(level.iter().copied().filter(|dir| self.0.table.is_complete(*dir) && self.is_due(*dir)));
        }
        due.truncate(MAX_QUEUED);
        {
            let mut queue = self.0.ahead.0.lock();
            if due.is_empty() || !queue.is_idle() {
                return;
            }
            queue.waiting.extend(due);
        }
        self.list_ahead();
    }

    /// The tree that an earlier mount knew is renewed as this one begins: whoever mounts wants to look, and by then most of it
    /// is there.
    pub(super) fn renew_from_the_start(&self) {
        if self.0.table.is_complete(ROOT) && self.is_due(ROOT) && !self.is_offline() {
            drop(self.start_listing(ROOT, Class::Background));
            self.renew_below(ROOT);
        }
    }

    fn has_an_end(&self, dir: Ino) -> bool {
        let depth = self.0.table.path(dir).map_or(usize::MAX, |path| path.depth());
        depth < MAX_DEPTH && self.0.table.len() < MAX_KNOWN
    }

    /// Never listed by this mount, or so long ago that a caller would have to wait for it.
    fn is_due(&self, dir: Ino) -> bool {
        !self.is_recent(self.0.table.listed(dir), self.freshness(dir))
    }

    fn list_ahead(&self) {
        loop {
            let dir = {
                let mut queue = self.0.ahead.0.lock();
                if queue.running >= MAX_LISTINGS || self.is_closing() {
                    return;
                }
                let Some(dir) = queue.waiting.pop_front() else { return };
                queue.running += 1;
                dir
            };
            let fs = self.clone();
            // Looked at again: what was queued before may have grown without an end meanwhile.
            let wanted = self.is_due(dir) && self.has_an_end(dir);
            let started = wanted && self.try_listing(dir, Class::Background, move |well| fs.listed_ahead(well));
            if !started {
                self.0.ahead.0.lock().running -= 1;
            }
        }
    }

    fn listed_ahead(&self, well: bool) {
        let mut queue = self.0.ahead.0.lock();
        queue.running -= 1;
        if !well {
            // The link is away or the server is in trouble: whoever needs a directory asks for it.
            queue.waiting.clear();
        }
        drop(queue);
        self.list_ahead();
    }
}
