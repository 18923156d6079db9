//! lookup and getattr: an answer is at most as old as it may be, and waits for a listing only where it must.

use std::time::{Duration, Instant};

use super::listings::ListResult;
use super::state::{Entry, View};
use crate::cache::Waiter;
use crate::clock::Deadline;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Child, Ino, NodeView, ROOT};
use crate::path::{Name, RemotePath};
use crate::remote::Class;

/// A server that says nothing at all for this long, although it was asked, is not waited for by those who can be shown what
/// it said before.
const SILENCE: Duration = Duration::from_millis(1500);

impl View {
    /// `Ok(None)`: the name does not exist, and the kernel may believe that for the time given beside it.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        let object = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new("lookup", &object, e))?;
        self.is_directory("lookup", parent, &object)?;
        let known = match self.child(parent, &name) {
            Child::Positive(node) => node.ino,
            Child::Negative | Child::Unknown => parent,
        };
        self.ensure_listed("lookup", parent, self.freshness(parent).min(self.freshness(known)), wait)?;
        match self.child(parent, &name) {
            Child::Positive(node) => {
                self.add_lookup(node.ino);
                let entry = self.looked_up(&node);
                Ok((Some(entry), entry.valid))
            }
            Child::Negative | Child::Unknown => {
                Ok((None, self.0.freshness.remaining(parent, self.0.table.listed(parent))))
            }
        }
    }

    pub fn getattr(&self, ino: Ino, wait: Wait) -> FsResult<Entry> {
        let shown = self.successor(ino).unwrap_or(ino);
        let node = self.fresh_node("getattr", shown, self.freshness(shown), wait)?;
        Ok(Entry { ino, ..self.entry(&node) })
    }

    /// # Errors
    ///
    /// [`Cause::NotADirectory`], or [`Cause::NotFound`] where nothing has this number.
    pub fn is_directory(&self, op: &'static str, ino: Ino, path: &RemotePath) -> FsResult<()> {
        match self.node(ino) {
            Some(node) if node.attr.is_dir() => Ok(()),
            Some(_) => Err(FsError::new(op, path, Cause::NotADirectory)),
            None => Err(FsError::new(op, path, Cause::NotFound)),
        }
    }

    /// The node, confirmed at most `bound` ago where the link allows it.
    pub fn fresh_node(&self, op: &'static str, ino: Ino, bound: Duration, wait: Wait) -> FsResult<NodeView> {
        let gone = || FsError::new(op, self.object(ino), Cause::NotFound);
        let node = self.node(ino).ok_or_else(gone)?;
        if node.pinned || node.unlinked || self.0.freshness.is_recent(node.seen, bound) {
            return Ok(node);
        }
        if node.parent == ino {
            // A root has no parent to be listed in; its own listing is what is known of it.
            return Ok(node);
        }
        self.ensure_listed(op, node.parent, bound, wait)?;
        let node = self.node(ino).ok_or_else(gone)?;
        if node.unlinked && node.opens == 0 { Err(gone()) } else { Ok(node) }
    }

    /// Makes sure that the directory's listing is complete and at most `bound` old. With the link away, an older one
    /// will do: the mount goes on serving what it holds.
    pub fn ensure_listed(&self, op: &'static str, dir: Ino, bound: Duration, wait: Wait) -> FsResult<()> {
        self.0.freshness.admission.touch();
        if self.is_listed_within(dir, bound) {
            if !self.is_listed_within(dir, bound / 2) {
                // Ahead of its end, so that no caller has to wait for it.
                drop(self.start_listing(dir, Class::Background));
            }
            return Ok(());
        }
        let object = self.object(dir);
        let known = self.listed(dir).is_some() || (self.0.table.is_complete(dir) && self.is_offline());
        if known && self.is_elsewhere(&object) {
            // Made or moved here, and the server does not know it yet: what is known is all there is.
            return Ok(());
        }
        let Wait::Until(deadline) = wait else { return Err(FsError::new(op, "", Cause::WouldBlock)) };
        let noted = |cause: Cause| self.0.errors.noted(FsError::new(op, &object, cause));
        self.wait_until_there(&object, deadline).map_err(noted)?;
        let coming = self.start_listing(dir, Class::Interactive);
        self.0.ahead.renew_below(dir);
        match self.wait_for(dir, &coming, deadline) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                let error = FsError::new(op, &object, Cause::Remote(error));
                let will_do = error.is_link_trouble() && self.holds_something(dir);
                if will_do { Ok(()) } else { Err(self.0.errors.noted(error)) }
            }
            None if self.holds_something(dir) => Ok(()),
            None => Err(noted(Cause::TimedOut)),
        }
    }

    /// What was moved here is moved there, before it is asked for by its new name.
    ///
    /// # Errors
    ///
    /// [`Cause::TimedOut`]: it was not by the deadline.
    pub fn wait_until_there(&self, path: &RemotePath, deadline: Deadline) -> Result<(), Cause> {
        let unsent = self.0.listings.unsent();
        let there = !unsent.is_elsewhere(path) || unsent.wait_until_there(path, deadline.remaining());
        there.then_some(()).ok_or(Cause::TimedOut)
    }

    /// Waits for a listing. What is known from before will do when the server has fallen silent: the first caller to
    /// notice waits a moment, those after it do not.
    fn wait_for(&self, dir: Ino, coming: &Waiter<ListResult>, deadline: Deadline) -> Option<ListResult> {
        if !self.0.table.is_complete(dir) {
            return coming.wait(deadline.0);
        }
        loop {
            let heard = self.0.remote.received_bytes();
            let silent = heard.is_some() && *self.0.silent_at.lock() == heard;
            let pause = if silent { Duration::ZERO } else { SILENCE };
            let result = coming.wait(deadline.0.min(Instant::now() + pause));
            if result.is_some() || Instant::now() >= deadline.0 {
                return result;
            }
            if self.0.remote.received_bytes() == heard {
                *self.0.silent_at.lock() = heard;
                return None;
            }
        }
    }

    /// Whether the directory can be shown without asking: all of it as it was, or what was made here.
    fn holds_something(&self, dir: Ino) -> bool {
        self.0.table.is_complete(dir) || self.child_count(dir) > 0
    }

    /// Starts listing a directory, or joins a listing that is under way.
    pub fn start_listing(&self, dir: Ino, class: Class) -> Waiter<ListResult> {
        self.0.listings.start(dir, class)
    }

    /// Starts listing a directory, unless that is under way already.
    pub fn try_listing(&self, dir: Ino, class: Class) {
        self.0.listings.try_start(dir, class, |_| {});
    }

    /// A listing of the directory that has not ended yet.
    pub fn listing_under_way(&self, dir: Ino) -> Option<Waiter<ListResult>> {
        self.0.listings.under_way(dir)
    }

    /// The tree that an earlier mount knew is renewed as this one begins: it is looked at soon, and by then most of it is
    /// there.
    pub fn renew_from_the_start(&self) {
        if self.0.table.is_complete(ROOT) && self.0.freshness.is_due(ROOT) && !self.is_offline() {
            drop(self.start_listing(ROOT, Class::Background));
            self.0.ahead.renew_below(ROOT);
        }
    }
}
