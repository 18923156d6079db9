//! Listing a directory of the server into the table: one request for many waiters, asked again when a local change
//! overtook it.

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

/// A listing that races with local changes is asked for again this often, then the next caller tries.
const MAX_RACED_LISTINGS: u32 = 5;

/// A listing has many waiters.
pub type ListResult = Result<(), SharedError>;

type Done = Box<dyn FnOnce(ListResult) + Send>;

/// What of the local changes the server does not know yet, as far as names are concerned.
pub trait Unsent: Send + Sync {
    /// A change that waits takes the name away: a listing that still has it is not to be believed.
    fn takes_away(&self, path: &RemotePath) -> bool;
    /// The server has the object under another name, or not at all.
    fn is_elsewhere(&self, path: &RemotePath) -> bool;
    /// Waits until the server knows the object by this name. `false`: it did not within `patience`.
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
    /// Told of each directory whose listing was taken over.
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

    /// Sets the one listener.
    pub(super) fn on_listed(&self, listener: impl Fn(Ino) + Send + Sync + 'static) {
        let _ = self.0.listener.set(Box::new(listener));
    }

    pub(super) fn unsent(&self) -> &dyn Unsent {
        &*self.0.unsent
    }

    /// A listing of the directory that has not ended yet.
    pub(super) fn under_way(&self, dir: Ino) -> Option<Waiter<ListResult>> {
        self.0.under_way.peek(&dir)
    }

    /// Starts listing a directory, or joins a listing that is under way.
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

    /// Like [`Listings::start`], with something to do afterwards (told whether it went well); `false` and nothing done
    /// when the directory is being listed already.
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
        let (listings, at) = (self.clone(), path.clone());
        self.0.remote.list_async(path, class, move |result| match result {
            Ok(entries) => match listings.take_over(dir, &at, count, entries) {
                Applied::Changed(changes) => {
                    listings.0.changes.announce(changes);
                    if let Some(listener) = listings.0.listener.get() {
                        listener(dir);
                    }
                    done(Ok(()));
                }
                Applied::Raced if tries > 0 => listings.list(dir, class, tries - 1, done),
                Applied::Raced | Applied::Gone => done(Ok(())),
            },
            Err(error) if tries > 0 && matches!(error.kind, ErrorKind::NotFound) && listings.has_moved(dir, &at) => {
                background().run(move || {
                    let now = listings.0.freshness.table.path(dir).unwrap_or_else(RemotePath::root);
                    listings.0.unsent.wait_until_there(&now, listings.0.timeout);
                    listings.list(dir, class, tries - 1, done);
                });
            }
            Err(error) => done(Err(error.into())),
        });
    }

    /// Asked for by a name that it does not have any more, or not yet.
    fn has_moved(&self, dir: Ino, asked: &RemotePath) -> bool {
        self.0.unsent.is_elsewhere(asked) || self.0.freshness.table.path(dir).is_some_and(|now| now != *asked)
    }

    fn take_over(&self, dir: Ino, path: &RemotePath, count: u64, entries: Vec<(Name, Attr)>) -> Applied {
        let hidden = |name: &Name| self.0.unsent.takes_away(&path.join(name));
        let Freshness { table, clock, .. } = &self.0.freshness;
        // The newest of them tells the server's clock best.
        let mut times: Vec<u32> = entries.iter().map(|(_, attr)| attr.mtime).collect();
        times.sort_unstable();
        times.into_iter().for_each(|secs| clock.server_stamped(secs));
        table.apply_listing(dir, count, entries, clock.now(), hidden)
    }
}
