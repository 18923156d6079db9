//! lookup, getattr, forget; keeping directories fresh.

use std::time::{Duration, Instant};

use super::{Cause, FROZEN_FRESH, Fs, FsError, FsResult, Layout, ListResult, Wait};
use crate::attr::{Area, Attr};
use crate::cache::{Role, Waiter};
use crate::clock::Deadline;
use crate::inode::{Applied, Child, Ino, NodeView, ROOT};
use crate::path::{Name, RemotePath};
use crate::remote::{Class, ErrorKind, Link};

/// An answer to `lookup` or `getattr`: attributes and how long the kernel may go by them.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub ino: Ino,
    pub attr: Attr,
    pub valid: Duration,
}

/// A server that says nothing at all for this long, although it was asked, is not waited for by those who can be shown what
/// it said before.
const SILENCE: Duration = Duration::from_millis(1500);

/// A listing that races with local changes is asked for again this often, then the next caller tries.
const MAX_RACED_LISTINGS: u32 = 5;

impl Fs {
    /// `Ok(None)`: the name does not exist, and the kernel may believe that for the time given beside it.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        if parent.is_virtual() || (parent == ROOT && name == super::virt::DIR_NAME) {
            return self.virt_lookup(parent, name, wait);
        }
        let object = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new("lookup", &object, e))?;
        self.is_directory("lookup", parent, &object)?;
        self.ensure_listed("lookup", parent, self.freshness(parent), wait)?;
        match self.0.table.child(parent, &name) {
            Child::Positive(view) => {
                self.0.table.add_lookup(view.ino);
                let entry = self.entry(&view);
                Ok((Some(entry), entry.valid))
            }
            Child::Negative | Child::Unknown => Ok((None, self.remaining(parent, self.0.table.listed(parent)))),
        }
    }

    pub fn getattr(&self, ino: Ino, wait: Wait) -> FsResult<Entry> {
        if ino.is_virtual() {
            return self.virt_getattr(ino);
        }
        let view = self.fresh_view("getattr", ino, self.freshness(ino), wait)?;
        Ok(self.entry(&view))
    }

    pub fn forget(&self, ino: Ino, count: u64) {
        if !ino.is_virtual() {
            self.0.table.forget(ino, count);
        }
    }

    pub(super) fn entry(&self, view: &NodeView) -> Entry {
        Entry { ino: view.ino, attr: view.attr, valid: self.remaining(view.ino, view.seen) }
    }

    /// How long answers about this object hold.
    pub(super) fn freshness(&self, ino: Ino) -> Duration {
        match self.0.table.area(ino) {
            Some(Area::Code) if self.0.config.layout == Layout::Pantheon && self.0.env.is_frozen() => FROZEN_FRESH,
            _ => self.0.config.fresh,
        }
    }

    /// What is left of the validity: the kernel gets this, never a fresh span.
    fn remaining(&self, ino: Ino, seen: Option<Instant>) -> Duration {
        let Some(seen) = seen else { return Duration::ZERO };
        self.freshness(ino).saturating_sub(self.0.clock.now().saturating_duration_since(seen))
    }

    /// The node, confirmed at most `bound` ago where the link allows it.
    pub(super) fn fresh_view(&self, op: &'static str, ino: Ino, bound: Duration, wait: Wait) -> FsResult<NodeView> {
        let gone = || FsError::new(op, self.object(ino), Cause::NotFound);
        let view = self.0.table.view(ino).ok_or_else(gone)?;
        if view.pinned || view.unlinked || self.is_recent(view.seen, bound) {
            return Ok(view);
        }
        if view.parent == ino {
            // A root has no parent to be listed in; its own listing is what is known of it.
            return Ok(view);
        }
        self.ensure_listed(op, view.parent, bound, wait)?;
        let view = self.0.table.view(ino).ok_or_else(gone)?;
        if view.unlinked && view.opens == 0 { Err(gone()) } else { Ok(view) }
    }

    pub(super) fn is_recent(&self, seen: Option<Instant>, bound: Duration) -> bool {
        seen.is_some_and(|seen| self.0.clock.now().saturating_duration_since(seen) <= bound)
    }

    /// Makes sure that the directory's listing is complete and at most `bound` old. With the link away, an older one
    /// will do: the mount goes on serving what it holds.
    pub(super) fn ensure_listed(&self, op: &'static str, dir: Ino, bound: Duration, wait: Wait) -> FsResult<()> {
        self.0.env.touch();
        let listed = self.0.table.listed(dir);
        if self.is_recent(listed, bound) {
            if !self.is_recent(listed, bound / 2) {
                // Ahead of its end, so that nobody has to wait for it.
                drop(self.start_listing(dir, Class::Background));
            }
            return Ok(());
        }
        let object = self.object(dir);
        let known = listed.is_some() || (self.0.table.is_complete(dir) && self.is_offline());
        if known && self.is_elsewhere(&object) {
            // Made or moved here, and the server does not know it yet: what is known is all there is.
            return Ok(());
        }
        let Wait::Until(deadline) = wait else { return Err(FsError::new(op, "", Cause::WouldBlock)) };
        self.wait_moved(&object, deadline).map_err(|cause| self.noted(FsError::new(op, &object, cause)))?;
        let coming = self.start_listing(dir, Class::Interactive);
        self.renew_below(dir);
        match self.wait_patiently(dir, &coming, deadline) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                let error = FsError::new(op, &object, Cause::Remote(error));
                if error.is_link_trouble() && self.holds_something(dir) { Ok(()) } else { Err(self.noted(error)) }
            }
            None if self.holds_something(dir) => Ok(()),
            None => Err(self.noted(FsError::new(op, &object, Cause::TimedOut))),
        }
    }

    /// Waits for a listing. What is known from before will do when the server has fallen silent: the first who notices
    /// waits a moment, those who come after him do not.
    fn wait_patiently(&self, dir: Ino, coming: &Waiter<ListResult>, deadline: Deadline) -> Option<ListResult> {
        if !self.0.table.is_complete(dir) {
            return coming.wait(deadline.0);
        }
        loop {
            let heard = self.0.remote.heard();
            let silent = heard.is_some() && *self.0.silent_at.lock() == heard;
            let pause = if silent { Duration::ZERO } else { SILENCE };
            let result = coming.wait(deadline.0.min(Instant::now() + pause));
            if result.is_some() || Instant::now() >= deadline.0 {
                return result;
            }
            if self.0.remote.heard() == heard {
                *self.0.silent_at.lock() = heard;
                return None;
            }
        }
    }

    pub(super) fn is_offline(&self) -> bool {
        matches!(self.0.remote.link(), Link::Down { .. })
    }

    /// Whether the directory can be shown without asking: all of it as it was, or what was made here.
    fn holds_something(&self, dir: Ino) -> bool {
        self.0.table.is_complete(dir) || self.0.table.child_count(dir) > 0
    }

    /// Somebody's listing of the directory that has not ended yet.
    pub(super) fn listing_under_way(&self, dir: Ino) -> Option<Waiter<ListResult>> {
        self.0.listings.peek(&dir)
    }

    /// Starts listing a directory, or joins whoever does already.
    pub(super) fn start_listing(&self, dir: Ino, class: Class) -> Waiter<ListResult> {
        match self.0.listings.join(dir) {
            Role::Follower(waiter) => waiter,
            Role::Leader(ticket) => {
                let waiter = ticket.waiter();
                self.list_into_table(dir, class, MAX_RACED_LISTINGS, Box::new(move |result| ticket.complete(result)));
                waiter
            }
        }
    }

    /// Like [`Fs::start_listing`], with something to do afterwards (told whether it went well); `false` and nothing done
    /// when the directory is being listed already.
    pub(super) fn try_listing(&self, dir: Ino, class: Class, after: impl FnOnce(bool) + Send + 'static) -> bool {
        let Role::Leader(ticket) = self.0.listings.join(dir) else { return false };
        let done = move |result: ListResult| {
            let well = result.is_ok();
            ticket.complete(result);
            after(well);
        };
        self.list_into_table(dir, class, MAX_RACED_LISTINGS, Box::new(done));
        true
    }

    fn take_over(&self, dir: Ino, path: &RemotePath, changes: u64, entries: Vec<(Name, Attr)>) -> Applied {
        let hidden = |name: &Name| self.0.journal.queue(|queue| queue.takes_away(&path.join(name)));
        self.0.table.apply_listing(dir, changes, entries, self.0.clock.now(), hidden)
    }

    fn list_into_table(&self, dir: Ino, class: Class, tries: u32, done: Box<dyn FnOnce(ListResult) + Send>) {
        let (Some(path), Some(changes)) = (self.0.table.path(dir), self.0.table.changes(dir)) else {
            return done(Ok(()));
        };
        let (fs, at) = (self.clone(), path.clone());
        self.0.remote.list_async(path, class, move |result| match result {
            Ok(entries) => match fs.take_over(dir, &at, changes, entries) {
                Applied::Changed(changes) => {
                    fs.announce(changes);
                    fs.listed(dir);
                    done(Ok(()));
                }
                Applied::Raced if tries > 0 => fs.list_into_table(dir, class, tries - 1, done),
                Applied::Raced | Applied::Gone => done(Ok(())),
            },
            // Asked for under a name that it has not any more, or not yet.
            Err(error)
                if tries > 0
                    && matches!(error.kind, ErrorKind::NotFound)
                    && (fs.is_elsewhere(&at) || fs.0.table.path(dir).is_some_and(|now| now != at)) =>
            {
                blocking::unblock(move || {
                    let now = fs.object(dir);
                    fs.0.journal.wait_until(fs.0.config.timeout, |queue| !queue.is_elsewhere(&now));
                    fs.list_into_table(dir, class, tries - 1, done);
                })
                .detach();
            }
            Err(error) => done(Err(error.into())),
        });
    }
}
