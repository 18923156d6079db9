//! lookup and getattr: an answer is never older than its validity, and waits for a listing only if it must.

use std::time::{Duration, Instant};

use super::listings::ListResult;
use super::state::{Entry, View};
use crate::attr::Attr;
use crate::cache::Waiter;
use crate::clock::Deadline;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Child, Ino, NodeView, ROOT};
use crate::path::{Name, RemotePath};
use crate::remote::{Class, ErrorKind};

/// If the server has sent nothing at all for this long since it was asked, callers are shown the previous answer
/// where there is one.
const SILENCE: Duration = Duration::from_millis(1500);

impl View {
    /// `Ok(None)`: the name does not exist, and the kernel may cache that for the returned time.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        let object = self.object(parent);
        let name = Name::new(name).map_err(|e| FsError::new("lookup", &object, e))?;
        self.is_directory("lookup", parent, &object)?;
        let known = match self.child(parent, &name) {
            Child::Positive(node) => node.ino,
            Child::Negative | Child::Unknown => parent,
        };
        self.ensure_known("lookup", parent, &name, self.freshness(parent).min(self.freshness(known)), wait)?;
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

    /// The attributes for a check that the caller does not learn them from. They do not count as shown: what another writer
    /// did meanwhile must not become the base of the next change.
    pub fn unshown_attr(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<Attr> {
        let ino = self.successor(ino).unwrap_or(ino);
        Ok(self.fresh_node(op, ino, self.freshness(ino), wait)?.attr)
    }

    /// # Errors
    ///
    /// [`Cause::NotADirectory`], or [`Cause::NotFound`] if the number is unknown.
    pub fn is_directory(&self, op: &'static str, ino: Ino, path: &RemotePath) -> FsResult<()> {
        match self.node(ino) {
            Some(node) if node.attr.is_dir() => Ok(()),
            Some(_) => Err(FsError::new(op, path, Cause::NotADirectory)),
            None => Err(FsError::new(op, path, Cause::NotFound)),
        }
    }

    /// The node, confirmed at most `bound` ago if the connection is up.
    pub fn fresh_node(&self, op: &'static str, ino: Ino, bound: Duration, wait: Wait) -> FsResult<NodeView> {
        let gone = || FsError::new(op, self.object(ino), Cause::NotFound);
        let node = self.node(ino).ok_or_else(gone)?;
        if node.pinned || node.unlinked || self.0.freshness.is_recent(node.seen, bound) {
            return Ok(node);
        }
        if node.parent == ino {
            // A root is in no listing of a parent; its own listing confirms it.
            return Ok(node);
        }
        match self.object(ino).file_name() {
            Some(name) => self.ensure_known(op, node.parent, &name, bound, wait)?,
            None => self.ensure_listed(op, node.parent, bound, wait)?,
        }
        let node = self.node(ino).ok_or_else(gone)?;
        if node.unlinked && node.opens == 0 { Err(gone()) } else { Ok(node) }
    }

    /// Makes sure that the name in the directory is known: by the directory's listing, or, in a directory that may be
    /// entered and not listed, by a look at this name alone.
    pub fn ensure_known(&self, op: &'static str, dir: Ino, name: &Name, bound: Duration, wait: Wait) -> FsResult<()> {
        let listed = self.ensure_listed(op, dir, bound, wait);
        let denied = |error: &FsError| matches!(&error.cause, Cause::Remote(error) if matches!(error.kind, ErrorKind::PermissionDenied));
        if !listed.as_ref().is_err_and(denied) {
            return listed;
        }
        if matches!(self.child(dir, name), Child::Positive(node) if node.pinned) {
            return Ok(());
        }
        let path = self.object(dir).join(name);
        let (table, now) = (&self.0.table, self.clock().now());
        match self.0.remote.lstat(&path) {
            Ok(attr) => self.announce(table.apply_one(dir, name, attr, now)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => self.announce(table.apply_missing(dir, name)),
            Err(error) => return Err(self.0.errors.noted(FsError::new(op, path, error))),
        }
        Ok(())
    }

    /// Makes sure that the directory's listing is complete and at most `bound` old. While the connection is down an
    /// older one is used, so that the mount keeps serving what it has.
    pub fn ensure_listed(&self, op: &'static str, dir: Ino, bound: Duration, wait: Wait) -> FsResult<()> {
        self.0.freshness.admission.touch();
        self.0.freshness.used.used(dir);
        if self.is_listed_within(dir, bound) {
            if !self.is_listed_within(dir, bound / 2) {
                // Renewed before it expires, so that no caller has to wait for it.
                drop(self.start_listing(dir, Class::Background));
            }
            return Ok(());
        }
        if self.0.table.is_only_here(dir) {
            return Ok(());
        }
        let object = self.object(dir);
        let known = self.listed(dir).is_some() || (self.0.table.is_complete(dir) && self.is_offline());
        if known && self.is_elsewhere(&object) {
            // Created or renamed locally and unknown to the server: the table has all of its names.
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

    /// Waits until the server has the object of a local rename under its new name, before it is requested by that
    /// name.
    ///
    /// # Errors
    ///
    /// [`Cause::TimedOut`]: the rename was not sent by the deadline.
    pub fn wait_until_there(&self, path: &RemotePath, deadline: Deadline) -> Result<(), Cause> {
        let unsent = self.0.listings.unsent();
        let there = !unsent.is_elsewhere(path) || unsent.wait_until_there(path, deadline.remaining());
        there.then_some(()).ok_or(Cause::TimedOut)
    }

    /// Waits for a listing. If the server is silent, the known names are used: only the first caller that notices
    /// waits a moment.
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

    /// Whether the directory can be shown without asking: its names are complete, or it has local changes.
    fn holds_something(&self, dir: Ino) -> bool {
        self.0.table.is_complete(dir) || self.child_count(dir) > 0
    }

    /// Starts listing a directory, or joins a listing in progress.
    pub fn start_listing(&self, dir: Ino, class: Class) -> Waiter<ListResult> {
        self.0.listings.start(dir, class)
    }

    /// Starts listing a directory, unless a listing is in progress.
    pub fn try_listing(&self, dir: Ino, class: Class) {
        self.0.listings.try_start(dir, class, |_| {});
    }

    /// A listing of the directory that is in progress.
    pub fn listing_under_way(&self, dir: Ino) -> Option<Waiter<ListResult>> {
        self.0.listings.under_way(dir)
    }

    /// Renews the restored tree at the start of the mount: it is usually read soon, and most of it is fresh by then.
    pub fn renew_from_the_start(&self) {
        if self.0.table.is_complete(ROOT) && self.0.freshness.is_due(ROOT) && !self.is_offline() {
            drop(self.start_listing(ROOT, Class::Background));
            self.0.ahead.renew_below(ROOT);
        }
    }
}
