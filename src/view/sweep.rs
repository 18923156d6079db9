//! Lists the code directory again as a whole, for a program that is to be told what changed anywhere in it. Known directories
//! are listed without waiting for those above them, so that it costs a few round trips and not a few for each level.

use std::collections::{HashSet, VecDeque};

use super::freshness::FROZEN_FRESH;
use super::listings::ListResult;
use super::state::View;
use crate::cache::Waiter;
use crate::clock::Deadline;
use crate::content::SharedError;
use crate::inode::{Ino, ROOT};
use crate::remote::Class;

/// Listings that are under way at a time, which bounds the memory. Each has about two requests on their way.
const AT_ONCE: usize = 512;

/// Which listings are new enough.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    /// Those that are older than names may be shown.
    Outdated,
    /// All that began before, but those of code that cannot change: they may have missed later changes.
    Everything,
}

/// Why a directory was not listed.
pub enum Unlisted {
    Remote(SharedError),
    /// The server did not answer in time.
    TimedOut,
}

/// A directory that is being listed.
struct Coming {
    dir: Ino,
    listing: Waiter<ListResult>,
    /// The listing began before the sweep: another one follows.
    earlier: bool,
}

impl View {
    /// Lists all directories below the code directory that `enters` accepts, as far as `renew` asks for it. Directories that
    /// are only on this machine have no listing. `limit` makes the deadline of each wait.
    ///
    /// # Errors
    ///
    /// The first directory that could not be listed and is still there.
    pub fn sweep(
        &self,
        renew: Renew,
        enters: impl Fn(Ino) -> bool,
        limit: impl Fn() -> Deadline,
    ) -> Result<(), Unlisted> {
        let mut known = HashSet::from([ROOT]);
        let mut waiting = VecDeque::from([ROOT]);
        let mut coming = VecDeque::new();
        let mut failed = Vec::new();
        let below = |dir| self.0.table.subdirs(dir).into_iter().filter(|&dir| !self.0.table.is_only_here(dir));
        loop {
            while coming.len() < AT_ONCE
                && let Some(dir) = waiting.pop_front()
            {
                coming.extend(self.begin(renew, dir));
                waiting.extend(below(dir).filter(|&dir| enters(dir) && known.insert(dir)));
            }
            let Some(Coming { dir, listing, earlier }) = coming.pop_front() else { break };
            match listing.wait(limit().0) {
                _ if earlier => {
                    let listing = self.start_listing(dir, Class::Interactive);
                    coming.push_back(Coming { dir, listing, earlier: false });
                }
                Some(Ok(())) => waiting.extend(below(dir).filter(|&dir| enters(dir) && known.insert(dir))),
                Some(Err(error)) => failed.push((dir, Unlisted::Remote(error))),
                None => return Err(Unlisted::TimedOut),
            }
        }
        // What another writer removed cannot be listed: the listing of the directory above has told that.
        let still_there = |dir| self.node(dir).is_some_and(|node| !node.unlinked);
        failed.into_iter().find(|(dir, _)| still_there(*dir)).map_or(Ok(()), |(_, error)| Err(error))
    }

    fn begin(&self, renew: Renew, dir: Ino) -> Option<Coming> {
        let bound = self.freshness(dir);
        let wanted = renew == Renew::Everything && bound != FROZEN_FRESH;
        if !wanted && self.is_listed_within(dir, bound) {
            return None;
        }
        let earlier = self.listing_under_way(dir).filter(|_| wanted);
        let is_earlier = earlier.is_some();
        let listing = earlier.unwrap_or_else(|| self.start_listing(dir, Class::Interactive));
        Some(Coming { dir, listing, earlier: is_earlier })
    }
}
