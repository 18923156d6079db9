//! The barrier: waits until the server has every recorded change, and lists what is still dirty.

use std::time::Duration;

use super::given_up::Reports;
use super::state::Upload;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::Link;
use crate::write::Queue;

impl Upload {
    /// The paths of all dirty objects: those whose shown state is not on the server yet.
    pub fn dirty_files(&self) -> Vec<RemotePath> {
        let view = &self.local.0.view;
        let live = |ino: &Ino| view.node(*ino).is_some_and(|node| !node.unlinked && !node.only_here);
        let spools = self.local.0.spools.all().into_iter();
        let dirty = spools.filter(|(ino, spool)| spool.is_dirty() && live(ino)).map(|(ino, _)| view.object(ino));
        let mut paths: Vec<RemotePath> = dirty.collect();
        paths.extend(self.local.queue(|queue| queue.ops().map(|(_, op)| op.path.clone()).collect::<Vec<_>>()));
        paths.sort();
        paths.dedup();
        paths
    }

    /// Waits until everything that was recorded before the call is on the server. Files that are still open for
    /// writing and were not saved do not count. As long as operations make progress the barrier keeps waiting: the
    /// deadline of one operation says nothing about all of them.
    ///
    /// # Errors
    ///
    /// [`Cause::Rejected`]: everything else is there, and the text names what was given up since the last barrier
    /// that reported it. Otherwise see [`Upload::wait_until_sent`].
    pub fn barrier(&self, reports: Reports, wait: Wait) -> FsResult<()> {
        let sent = self.wait_until_sent(wait);
        if sent.as_ref().is_err_and(FsError::would_block) {
            return sent;
        }
        let Some(report) = self.local.0.given_up.report(reports) else { return sent };
        Err(FsError::new(
            "sync",
            "the mount",
            match sent {
                Ok(()) => Cause::Rejected(report),
                Err(error) => Cause::Busy(format!("{}; {report}", error.cause)),
            },
        ))
    }

    /// Waits like [`Upload::barrier`], and leaves the report of what was given up to the next barrier.
    ///
    /// # Errors
    ///
    /// [`Cause::Busy`]: nothing progressed for the mount's time limit; the text says what is queued and why.
    pub fn wait_until_sent(&self, wait: Wait) -> FsResult<()> {
        let Wait::Until(_) = wait else { return Err(FsError::new("sync", "", Cause::WouldBlock)) };
        let unsaved = self.local.save_unsaved();
        if self.local.0.journal.barrier(self.local.0.view.timeout()) {
            return unsaved.map_err(|error| {
                let text =
                    format!("{} was written and cannot be recorded: {}; make room there", error.object, error.cause);
                self.local.noted(FsError::new("sync", "the mount", Cause::Busy(text)))
            });
        }
        let first = |queue: &Queue| queue.ops().next().map(|(_, op)| op.describe()).unwrap_or_default();
        let (left, first) = self.local.queue(|queue| (queue.len(), first(queue)));
        let why = match self.remote.link() {
            Link::Down { why, .. } => format!("the link is down: {why}"),
            Link::Up { .. } => "the server does not take them; see last-error in the status".into(),
        };
        let text = format!("{left} change(s) are not on the server yet (first: {first}); {why}");
        Err(FsError::new("sync", "the mount", Cause::Busy(text)))
    }

    /// Sends what an earlier mount left in the journal, and returns a line that describes the result; `None` if the
    /// journal was empty.
    pub fn send_recovered(&self) -> Option<String> {
        let before = self.local.queue(Queue::len);
        if before == 0 {
            return None;
        }
        let patience = if self.local.0.view.is_offline() { Duration::ZERO } else { self.local.0.view.timeout() };
        self.local.0.journal.barrier(patience);
        let (left, given_up) = (self.local.queue(Queue::len), self.local.0.given_up.count());
        let sent = before.saturating_sub(left + given_up);
        let said = match (left, given_up) {
            (0, 0) => format!("{before} change(s) that the last mount could not send are on the server now"),
            (_, 0) => {
                format!("{before} change(s) were left by the last mount: {sent} are on the server now, {left} wait")
            }
            _ => format!(
                "{before} change(s) were left by the last mount: {sent} are on the server now, {left} wait, {given_up} were given up"
            ),
        };
        log::warn!("{said}");
        Some(said)
    }
}
