//! Listing a directory of the server into the table: one request for all waiters, repeated when a local change raced
//! with it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::changes::KernelChanges;
use super::freshness::Freshness;
use crate::attr::Attr;
use crate::cache::{InFlight, Role, Waiter};
use crate::content::SharedError;
use crate::inode::{Applied, Ino};
use crate::path::{Name, RemotePath};
use crate::pool::background;
use crate::remote::{Class, ErrorKind, Remote};

/// How often a listing that raced with local changes is repeated before the next caller has to request it.
const MAX_RACED_LISTINGS: u32 = 5;

/// The result of a listing, shared by its waiters.
pub type ListResult = Result<(), SharedError>;

type Done = Box<dyn FnOnce(ListResult) + Send>;

/// What the server does not know yet about names, because the changes are still queued.
pub trait Unsent: Send + Sync {
    /// Whether a queued change removes the name: a listing that still has it is outdated.
    fn takes_away(&self, path: &RemotePath) -> bool;
    /// Whether the server has the object under another name, or not at all.
    fn is_elsewhere(&self, path: &RemotePath) -> bool;
    /// Waits until the server knows the object by this name. Returns `false` if it does not within `patience`.
    fn wait_until_there(&self, path: &RemotePath, patience: Duration) -> bool;
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Listings(Arc<Inner>);

struct Inner {
    remote: Remote,
    freshness: Freshness,
    unsent: Box<dyn Unsent>,
    changes: KernelChanges,
    timeout: Duration,
    under_way: InFlight<Ino, ListResult>,
    /// Called with each directory whose listing was applied.
    listener: OnceLock<Box<dyn Fn(Ino) + Send + Sync>>,
}

impl Listings {
    pub(super) fn new(
        remote: Remote,
        freshness: Freshness,
        unsent: Box<dyn Unsent>,
        changes: KernelChanges,
        timeout: Duration,
    ) -> Self {
        let under_way = InFlight::default();
        Self(Arc::new(Inner { remote, freshness, unsent, changes, timeout, under_way, listener: OnceLock::new() }))
    }

    /// Sets the only listener.
    pub(super) fn on_listed(&self, listener: impl Fn(Ino) + Send + Sync + 'static) {
        let _ = self.0.listener.set(Box::new(listener));
    }

    pub(super) fn unsent(&self) -> &dyn Unsent {
        &*self.0.unsent
    }

    /// A listing of the directory that is in progress.
    pub(super) fn under_way(&self, dir: Ino) -> Option<Waiter<ListResult>> {
        self.0.under_way.peek(&dir)
    }

    /// Starts listing a directory, or joins a listing in progress.
    pub(super) fn start(&self, dir: Ino, class: Class) -> Waiter<ListResult> {
        match self.0.under_way.join(dir) {
            Role::Follower(waiter) => waiter,
            Role::Leader(ticket) => {
                let waiter = ticket.waiter();
                self.list(dir, class, MAX_RACED_LISTINGS, Box::new(move |result| ticket.complete(result)));
                waiter
            }
        }
    }

    /// Like [`Listings::start`], and calls `after` with whether it succeeded. Returns `false`, without doing
    /// anything, if the directory is being listed already.
    pub(super) fn try_start(&self, dir: Ino, class: Class, after: impl FnOnce(bool) + Send + 'static) -> bool {
        let Role::Leader(ticket) = self.0.under_way.join(dir) else { return false };
        let done = move |result: ListResult| {
            let well = result.is_ok();
            ticket.complete(result);
            after(well);
        };
        self.list(dir, class, MAX_RACED_LISTINGS, Box::new(done));
        true
    }

    fn list(&self, dir: Ino, class: Class, tries: u32, done: Done) {
        let table = &self.0.freshness.table;
        let (Some(path), Some(count)) = (table.path(dir), table.changes(dir)) else {
            return done(Ok(()));
        };
        if table.is_only_here(dir) {
            return done(Ok(()));
        }
        if self.0.unsent.is_elsewhere(&path) {
            return self.list_when_there(dir, class, tries, done);
        }
        let (listings, at, known) = (self.clone(), path.clone(), table.is_complete(dir));
        let known_names = known.then(|| table.child_count(dir));
        self.0.remote.list_async(path, class, known_names, move |result| match result {
            // A move that is carried out entry by entry: this is neither the state before it nor the one after it.
            Ok(_) if listings.was_renamed(dir, &at) => listings.list_when_there(dir, class, tries, done),
            Ok(entries) => match listings.take_over(dir, &at, count, entries) {
                Applied::Changed(changes) => {
                    listings.0.changes.announce(changes);
                    if !known {
                        listings.0.changes.touched().first_listed(dir);
                    }
                    if let Some(listener) = listings.0.listener.get() {
                        listener(dir);
                    }
                    done(Ok(()));
                }
                Applied::Raced if tries > 0 => listings.list(dir, class, tries - 1, done),
                Applied::Raced | Applied::Gone => done(Ok(())),
            },
            Err(error) if tries > 0 && matches!(error.kind, ErrorKind::NotFound) && listings.was_renamed(dir, &at) => {
                listings.list_when_there(dir, class, tries, done);
            }
            Err(error) => done(Err(error.into())),
        });
    }

    /// Lists a directory when the server has it under its present name. If that takes too long, the known names stay.
    fn list_when_there(&self, dir: Ino, class: Class, tries: u32, done: Done) {
        let Some(tries) = tries.checked_sub(1) else { return done(Ok(())) };
        let listings = self.clone();
        background().run(move || {
            let now = listings.0.freshness.table.path(dir).unwrap_or_else(RemotePath::root);
            listings.0.unsent.wait_until_there(&now, listings.0.timeout);
            listings.list(dir, class, tries, done);
        });
    }

    /// Whether the directory was requested by a name that it no longer has, or does not have yet.
    fn was_renamed(&self, dir: Ino, asked: &RemotePath) -> bool {
        self.0.unsent.is_elsewhere(asked) || self.0.freshness.table.path(dir).is_some_and(|now| now != *asked)
    }

    fn take_over(&self, dir: Ino, path: &RemotePath, count: u64, entries: Vec<(Name, Attr)>) -> Applied {
        let hidden = |name: &Name| self.0.unsent.takes_away(&path.join(name));
        let Freshness { table, clock, .. } = &self.0.freshness;
        // In ascending order, so that the latest one is noted.
        let mut times: Vec<u32> = entries.iter().map(|(_, attr)| attr.mtime).collect();
        times.sort_unstable();
        times.into_iter().for_each(|secs| clock.server_passed(secs));
        table.apply_listing(dir, count, entries, clock.now(), hidden)
    }
}
