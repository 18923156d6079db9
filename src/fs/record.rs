//! Local first: a change is made in the table, recorded in the journal, and answered. `syncer` tells the server.
//!
//! `names` is held from the last look at the table to the record in the journal, so that the order of the journal is the
//! order in which the changes were seen here. Nothing waits for the network or for a disk sync under it.

use std::sync::Arc;

use super::local_only::is_local_only;
use super::{Cause, Fs, FsError, FsResult, Layout, Wait};
use crate::attr::{Area, secs_from_time};
use crate::inode::{Change, Ino, NodeView};
use crate::path::RemotePath;
use crate::write::{Action, Op, Put, RejectKind, Spool};

impl Fs {
    /// The last steps of a change to names or attributes: recorded, and on `-o sync` waited for.
    pub(super) fn record(&self, ino: Ino, path: &RemotePath, action: Action) -> Result<(), Cause> {
        let area = self.area_of(path);
        let at = u64::from(secs_from_time(self.0.clock.wall()));
        let op = Op { area, path: path.clone(), action, ino: ino.0, at };
        self.0.journal.add(op)?;
        self.0.table.pin(ino, true);
        Ok(())
    }

    pub(super) fn area_of(&self, path: &RemotePath) -> Area {
        let roots = self.0.table.roots().iter().filter(|root| path.starts_with(&root.path));
        roots.max_by_key(|root| root.path.depth()).map_or(Area::Code, |root| root.area)
    }

    /// Before anything is changed: with `-o sync` the caller must be one that may wait, and there must be room.
    pub(super) fn may_record(&self, op: &'static str, path: &RemotePath, wait: Wait) -> FsResult<()> {
        let until = match wait {
            Wait::No if self.0.config.sync => return Err(FsError::new(op, path, Cause::WouldBlock)),
            Wait::No => std::time::Instant::now(),
            Wait::Until(deadline) => deadline.0,
        };
        if self.0.journal.has_room(until) {
            return Ok(());
        }
        Err(match wait {
            Wait::No => FsError::new(op, path, Cause::WouldBlock),
            Wait::Until(_) => self.noted(FsError::new(op, path, Cause::JournalFull)),
        })
    }

    /// With `-o sync`: the server has what was just recorded for this path, or the caller gets the error.
    pub(super) fn settle(&self, op: &'static str, path: &RemotePath) -> FsResult<()> {
        if !self.0.config.sync {
            return Ok(());
        }
        let sent = self.0.journal.wait_until(self.0.config.timeout, |queue| !queue.involves(path));
        if let Some(error) = self.0.failures.lock().remove(path) {
            return Err(FsError { op, ..error });
        }
        if sent { Ok(()) } else { Err(self.noted(FsError::new(op, path, Cause::TimedOut))) }
    }

    /// What was written so far becomes an operation. When this returns, it survives the death of the process.
    pub(super) fn save(&self, op: &'static str, ino: Ino, wait: Wait) -> FsResult<()> {
        let Some(spool) = self.spool(ino) else { return Ok(()) };
        if !spool.is_dirty() {
            return Ok(());
        }
        let path = self.object(ino);
        if is_local_only(&path) {
            return Ok(());
        }
        self.may_record(op, &path, wait)?;
        if let Err(error) = self.permit(op, ino, &path, wait) {
            if matches!(error.cause, Cause::ReadOnly(_)) {
                self.keep_aside(RejectKind::Stranded, ino, &path, &spool);
            }
            return Err(error);
        }
        let path = {
            let _names = self.0.names.lock();
            match self.save_now(ino) {
                Ok(Some(path)) => path,
                Ok(None) => return Ok(()),
                Err(cause) => return Err(self.noted(FsError::new(op, path, cause))),
            }
        };
        self.settle(op, &path)
    }

    /// Under `names`. The path at which it was saved; `None`: there is nothing to save.
    pub(super) fn save_now(&self, ino: Ino) -> Result<Option<RemotePath>, Cause> {
        let (Some(spool), Some(view)) = (self.spool(ino), self.0.table.view(ino)) else { return Ok(None) };
        let Some(path) = self.0.table.path(ino) else { return Ok(None) };
        if view.unlinked || !spool.is_dirty() {
            return Ok(None);
        }
        let sealed = spool.seal();
        let put = Put {
            spool: sealed.id,
            len: sealed.len,
            sum: sealed.sum,
            perm: view.attr.perm,
            mtime: view.attr.mtime,
            base: view.server.into(),
        };
        if let Err(cause) = self.record(ino, &path, Action::Put(put)) {
            spool.unseal();
            return Err(cause);
        }
        Ok(Some(path))
    }

    /// An object that only this machine knows, and no operation waits for: nobody need be told of it.
    pub(super) fn is_unrecorded(&self, view: &NodeView) -> bool {
        view.server.is_none() && !self.0.journal.queue(|queue| queue.concerns(view.ino.0))
    }

    pub(super) fn spool(&self, ino: Ino) -> Option<Arc<Spool>> {
        self.0.spools.lock().get(&ino).cloned()
    }

    pub(super) fn put_spool(&self, ino: Ino, spool: Arc<Spool>) {
        let mut spools = self.0.spools.lock();
        spools.insert(ino, spool);
        self.0.table.pin(ino, true);
    }

    /// An empty spool for a file whose old content is not needed.
    pub(super) fn new_spool(&self, op: &'static str, ino: Ino) -> FsResult<Arc<Spool>> {
        let spool = self.0.journal.new_spool().map_err(|e| FsError::new(op, self.object(ino), e))?;
        let spool = Arc::new(spool);
        // What it takes the place of.
        let before = self.spool(ino);
        self.put_spool(ino, spool.clone());
        self.replaced_local_only(ino, before).map_err(|cause| FsError::new(op, self.object(ino), cause))?;
        Ok(spool)
    }

    /// The last descriptor is closed: a spool that nobody needs goes, another one gives its descriptor back.
    pub(super) fn rest(&self, ino: Ino) {
        let Some(spool) = self.spool(ino) else { return };
        let unlinked = self.0.table.view(ino).is_none_or(|view| view.unlinked);
        let waits = self.0.journal.queue(|queue| queue.concerns(ino.0));
        if unlinked || (!spool.is_dirty() && !waits) {
            {
                // Another one may have taken its place meanwhile, for somebody who has just opened the file.
                let mut spools = self.0.spools.lock();
                if spools.get(&ino).is_some_and(|now| Arc::ptr_eq(now, &spool)) && (unlinked || !spool.is_dirty()) {
                    spools.remove(&ino);
                }
            }
            self.unpin(ino);
        } else {
            // Looked at and done in one step: the name of what no operation carries may go at any moment, and then only
            // the descriptor leads to the content.
            self.0.journal.queue(|queue| {
                if queue.carries(spool.id()) {
                    spool.park();
                }
            });
        }
    }

    pub(super) fn release_spool(&self, ino: Ino) {
        self.0.spools.lock().remove(&ino);
        self.unpin(ino);
    }

    /// The node follows the server again, if nothing local is left about it.
    pub(super) fn unpin(&self, ino: Ino) {
        let waits = self.0.journal.queue(|queue| queue.concerns(ino.0));
        let spools = self.0.spools.lock();
        if !waits && !spools.contains_key(&ino) {
            self.0.table.pin(ino, false);
        }
    }

    /// Copies the spool to a shelf and gives the file back to the server's version. If even the copy fails, the spool
    /// stays, so that nothing is lost while the mount lives.
    pub(super) fn keep_aside(&self, shelf: RejectKind, ino: Ino, path: &RemotePath, spool: &Spool) {
        let kept = spool.file().and_then(|file| self.0.rescue.keep(shelf, path, &file));
        match kept {
            Ok(copy) => {
                log::warn!("{path}: could not be sent; your version is kept in {}", copy.display());
                if self.spool(ino).is_some_and(|now| now.id() == spool.id()) {
                    self.forget_spool(ino);
                }
            }
            Err(error) => log::error!("{path}: could not be sent, and keeping a copy failed: {error}"),
        }
    }

    /// The local content is given up (a copy is kept): what the server has is shown again.
    fn forget_spool(&self, ino: Ino) {
        self.release_spool(ino);
        let Some(view) = self.0.table.view(ino) else { return };
        if view.server.is_none()
            && let Some(name) = self.0.table.path(ino).and_then(|path| path.file_name())
        {
            self.0.table.remove(view.parent, &name);
            self.announce([Change::Entry { parent: view.parent, name }]);
        }
        self.0.table.expire(Some(view.parent));
        self.announce([Change::Content(ino)]);
    }

    /// Paths that are not on the server as they are shown here.
    pub fn dirty_files(&self) -> Vec<RemotePath> {
        let spools: Vec<(Ino, Arc<Spool>)> = self.0.spools.lock().iter().map(|(i, s)| (*i, s.clone())).collect();
        let live = |ino: &Ino| self.0.table.view(*ino).is_some_and(|view| !view.unlinked);
        let dirty =
            spools.iter().filter(|(ino, spool)| spool.is_dirty() && live(ino)).map(|(ino, _)| self.object(*ino));
        let mut paths: Vec<RemotePath> = dirty.filter(|path| !is_local_only(path)).collect();
        paths.extend(self.0.journal.queue(|queue| queue.ops().map(|(_, op)| op.path.clone()).collect::<Vec<_>>()));
        paths.sort();
        paths.dedup();
        paths
    }

    /// The barrier: everything that was recorded before is on the server when this returns well. Files that are still
    /// being written do not count.
    pub fn sync(&self, wait: Wait) -> FsResult<()> {
        // As long as something moves it goes on: the deadline of a single operation says nothing about all of them.
        let Wait::Until(_) = wait else { return Err(FsError::new("sync", "", Cause::WouldBlock)) };
        if self.0.journal.barrier(self.0.config.timeout) {
            return Ok(());
        }
        let (left, first) = self
            .0
            .journal
            .queue(|queue| (queue.len(), queue.ops().next().map(|(_, op)| op.describe()).unwrap_or_default()));
        let why = match self.0.remote.link() {
            crate::remote::Link::Down { why, .. } => format!("the link is down: {why}"),
            crate::remote::Link::Up { .. } => "the server does not take them; see last-error in the status".into(),
        };
        let text = format!("{left} change(s) are not on the server yet (first: {first}); {why}");
        Err(FsError::new("sync", &self.0.config.source, Cause::Busy(text)))
    }

    /// What an earlier mount left to be sent goes first, before anybody looks: says what came of it. Then the tree is renewed.
    pub fn recover(&self) -> Option<String> {
        let said = self.send_what_was_left();
        self.renew_from_the_start();
        said
    }

    fn send_what_was_left(&self) -> Option<String> {
        let before = self.0.journal.queue(crate::write::Queue::len);
        if before == 0 {
            return None;
        }
        let patience = if self.is_offline() { std::time::Duration::ZERO } else { self.0.config.timeout };
        self.0.journal.barrier(patience);
        let left = self.0.journal.queue(crate::write::Queue::len);
        let sent = before.saturating_sub(left);
        let said = match left {
            0 => format!("{before} change(s) that the last mount could not send are on the server now"),
            _ => format!("{before} change(s) were left by the last mount: {sent} are on the server now, {left} wait"),
        };
        log::warn!("{said}");
        Some(said)
    }

    /// Whether the server keeps temporary files for us outside of what it serves.
    pub(super) fn temp_dir(&self, area: Area) -> Option<RemotePath> {
        let pantheon = self.0.config.layout == Layout::Pantheon && area == Area::Code;
        pantheon.then(|| RemotePath::parse("tmp").ok()).flatten()
    }
}
