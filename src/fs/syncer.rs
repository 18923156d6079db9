//! Tells the server what was done here: takes operations from the journal, many at a time, and carries each out so that a
//! second time does no harm. What the server does not take is put on a shelf; nothing is overwritten unseen.

use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::backup::AppliedChange;
use super::{Cause, Fs, FsError, Layout, Shared};
use crate::attr::{Area, Attr, FileKind, Version};
use crate::cache::BLOCK_BYTES;
use crate::clock::Deadline;
use crate::gate::{ReadOnlyReason, Refused, WritePermit};
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::{self, Base, Class, ErrorKind, Link, Note, RemoteError, Store};
use crate::write::{Action, Expected, Journal, Next, Op, OpId, Put, RejectKind};

/// Operations that are carried out at a time, and bytes of content in them.
const MAX_RUNNING: usize = 256;
const MAX_RUNNING_BYTES: u64 = 16 * 1024 * 1024;
/// How often the thread looks whether the mount still exists.
const TICK: Duration = Duration::from_millis(500);
/// Pauses before an operation is tried again.
const LINK_PAUSE: Duration = Duration::from_millis(100);
const GATE_PAUSE: Duration = Duration::from_millis(500);
pub(super) const FULL_PAUSE: Duration = Duration::from_secs(10);
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// How often a server may fail at an operation before it is put aside.
const MAX_FAILURES: u32 = 5;
/// Written files up to this size go into the cache as well: whoever saves usually reads next (bytes).
pub(super) const CACHE_WRITTEN_BYTES: u64 = 4 * 1024 * 1024;
/// What is said of a content that the local disk does not have as it was saved.
pub(super) const LOST_HERE: &str =
    "it was saved, but not on the local disk when the machine stopped; the server has the version before";
/// How long reading a file may take that is compared with ours.
const COMPARE_LIMIT: Duration = Duration::from_secs(120);

/// What runs now.
#[derive(Default)]
pub(super) struct Slots(Mutex<(usize, u64)>, Condvar);

impl Slots {
    fn take(&self, bytes: u64) {
        let full = |(count, sum): (usize, u64)| count >= MAX_RUNNING || (count > 0 && sum + bytes > MAX_RUNNING_BYTES);
        let mut state = self.0.lock();
        while full(*state) {
            self.1.wait(&mut state);
        }
        *state = (state.0 + 1, state.1 + bytes);
    }

    fn give(&self, bytes: u64) {
        let mut state = self.0.lock();
        *state = (state.0 - 1, state.1 - bytes);
        self.1.notify_all();
    }
}

/// What came of an operation.
enum Outcome {
    /// This is at its path now.
    Done(Expected),
    /// It could not be tried, or not now.
    Later(Duration, String),
    /// Somebody else changed what it builds upon.
    Conflict(String),
    /// The environment takes no changes any more.
    Closed(ReadOnlyReason),
    /// The server will not do it.
    Refused(RemoteError),
}

/// Runs until the journal is closed or the mount is gone.
pub(super) fn start(weak: Weak<Shared>, journal: Arc<Journal>) {
    let run = move || {
        loop {
            let next = journal.next(Instant::now() + TICK);
            let Some(shared) = weak.upgrade() else { return };
            let fs = Fs(shared);
            match next {
                Next::Closed => return,
                Next::Idle => {
                    fs.check_migration();
                    fs.save_tree(false);
                }
                Next::Run(id, op, tries) => {
                    let bytes = if let Action::Put(put) = &op.action { put.len } else { 0 };
                    fs.0.slots.take(bytes);
                    blocking::unblock(move || {
                        fs.carry_out(id, &op, tries);
                        fs.0.slots.give(bytes);
                    })
                    .detach();
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("syncer".into()).spawn(run) {
        log::error!("nothing will be sent to the server: {error}");
    }
}

impl Fs {
    fn carry_out(&self, id: OpId, op: &Op, tries: u32) {
        match self.attempt(id, op) {
            Outcome::Done(left) => self.done(id, op, left),
            Outcome::Later(pause, why) => {
                log::debug!("{}: later ({why})", op.describe());
                self.0.journal.put_back(id, pause);
            }
            Outcome::Refused(error) if tries < MAX_FAILURES => {
                log::info!("{}: {error}; it is tried again", op.describe());
                // In code the platform is being asked whether the mode was switched: the answer is near.
                let denied = op.area == Area::Code && matches!(error.kind, ErrorKind::PermissionDenied);
                self.0.notes.error(&FsError::new("sync", &op.path, error), self.0.clock.wall());
                self.0.journal.put_back(id, if denied { GATE_PAUSE } else { FAILURE_PAUSE });
            }
            Outcome::Refused(error) => {
                let error = FsError::new("sync", &op.path, error);
                self.put_aside(id, op, RejectKind::Stranded, error);
            }
            Outcome::Closed(reason) => {
                self.put_aside(id, op, RejectKind::Stranded, FsError::new("sync", &op.path, Cause::ReadOnly(reason)));
            }
            Outcome::Conflict(what) => {
                log::warn!("{}: {what}", op.describe());
                self.put_aside(id, op, RejectKind::Conflict, FsError::new("sync", &op.path, Cause::Conflict(what)));
            }
        }
    }

    fn attempt(&self, id: OpId, op: &Op) -> Outcome {
        if let Link::Down { why, .. } = self.0.remote.link() {
            return Outcome::Later(LINK_PAUSE, why);
        }
        let permit = match self.0.gate.admit(op.area) {
            Ok(permit) => permit,
            Err(Refused::Held(why)) => return Outcome::Later(GATE_PAUSE, why),
            // Not known for certain until the platform was asked.
            Err(Refused::Closed(ReadOnlyReason::RefusedByServer)) => {
                return Outcome::Later(GATE_PAUSE, "the mode is being asked for".into());
            }
            Err(Refused::Closed(reason)) => return Outcome::Closed(reason),
        };
        let done = match &op.action {
            Action::Put(put) => self.send_content(&permit, id, op, put),
            Action::MakeDir { perm } => self.make_dir(&permit, op, *perm),
            Action::Symlink { text } => self.make_link(&permit, op, text),
            Action::Unlink { base, .. } => self.unlink_there(&permit, &op.path, *base),
            Action::RemoveDir => self.remove_dir(&permit, &op.path),
            Action::Rename { to, base, replaced, dir } => {
                self.rename_there(&permit, id, op, to, (*base, *replaced), *dir)
            }
            Action::SetAttr { perm, times, link } => {
                let change = remote::SetAttr { perm: *perm, times: *times, link: *link };
                self.set_attr_there(&permit, op, change)
            }
        };
        done.unwrap_or_else(|error| self.classify(op, error))
    }

    /// What an error of the server means for an operation that was to be carried out.
    fn classify(&self, op: &Op, error: RemoteError) -> Outcome {
        match &error.kind {
            ErrorKind::Down(_) | ErrorKind::Timeout | ErrorKind::Protocol(_) => {
                Outcome::Later(LINK_PAUSE, error.to_string())
            }
            ErrorKind::Refused(Refused::Held(why)) => Outcome::Later(GATE_PAUSE, why.clone()),
            ErrorKind::Refused(Refused::Closed(_)) => Outcome::Later(GATE_PAUSE, "the gate was closed".into()),
            ErrorKind::NoSpace => {
                self.0.notes.error(&FsError::new("sync", &op.path, error), self.0.clock.wall());
                Outcome::Later(FULL_PAUSE, "the server's disk is full".into())
            }
            ErrorKind::PermissionDenied if op.area == Area::Code && self.0.config.layout == Layout::Pantheon => {
                self.0.env.refused();
                Outcome::Refused(error)
            }
            ErrorKind::NotFound => Outcome::Conflict("the directory it is in was removed on the server".into()),
            ErrorKind::Conflict { .. } | ErrorKind::Changed { .. } => {
                Outcome::Conflict("somebody else changed it on the server meanwhile".into())
            }
            ErrorKind::IsADirectory => Outcome::Conflict("there is a directory of that name on the server now".into()),
            _ => Outcome::Refused(error),
        }
    }

    fn send_content(&self, permit: &WritePermit, id: OpId, op: &Op, put: &Put) -> Result<Outcome, RemoteError> {
        let base = match put.base {
            Expected::Absent => Base::Absent,
            Expected::Version(version) => Base::Version(version),
            Expected::Ours => Base::Any,
            Expected::After(_) | Expected::Unknown => {
                return Ok(Outcome::Conflict("the save before it could not be sent".into()));
            }
        };
        if self.0.journal.is_whole(put) == Some(false) {
            return Ok(Outcome::Conflict(LOST_HERE.into()));
        }
        let source = match File::open(self.0.journal.spool_path(put.spool)) {
            Ok(source) => source,
            Err(error) => {
                log::error!("{}: its content is gone from the local disk: {error}", op.path);
                return Ok(Outcome::Done(Expected::Unknown));
            }
        };
        if let Base::Version(version) = base
            && let Some(other) = self.changed_unseen(&op.path, version)
        {
            if matches!(other, Outcome::Conflict(_)) && self.same_there(&op.path, version, &source) {
                self.stored(op, put, Attr { perm: put.perm, ..file_attr(version) }, &source);
                return Ok(Outcome::Done(Expected::Version(version)));
            }
            return Ok(other);
        }
        let how = Store { base, perm: Some(put.perm), mtime: Some(put.mtime), temp_dir: self.temp_dir(op.area) };
        let store =
            |how: &Store| self.0.remote.store_noting(permit, &op.path, &source, put.len, how, &self.following(id));
        let mut stored = store(&how);
        if let (Base::Absent, Err(error)) = (base, &stored)
            && let ErrorKind::Conflict { found: Some(found) } = &error.kind
            && found.size < put.len
            && self.same_there(&op.path, *found, &source)
        {
            // The beginning of ours: an attempt whose end nobody saw made it, and nothing is lost by going on.
            stored = store(&Store { base: Base::Version(*found), ..how });
        }
        match stored {
            Ok(attr) => {
                self.stored(op, put, attr, &source);
                Ok(Outcome::Done(Expected::Version(attr.version())))
            }
            // Sent by an attempt whose end nobody saw, or by somebody else: the same bytes are no conflict.
            Err(error) => match &error.kind {
                ErrorKind::Conflict { found: Some(found) }
                    if found.size == put.len && self.same_there(&op.path, *found, &source) =>
                {
                    let attr = Attr { perm: put.perm, ..file_attr(*found) };
                    self.stored(op, put, attr, &source);
                    Ok(Outcome::Done(Expected::Version(*found)))
                }
                _ => Err(error),
            },
        }
    }

    /// Where a version is too young to tell one content from the next, the bytes are compared.
    fn changed_unseen(&self, path: &RemotePath, version: Version) -> Option<Outcome> {
        match self.0.content.is_still(path, version, Deadline::after(COMPARE_LIMIT)) {
            Ok(true) => None,
            Ok(false) => {
                Some(Outcome::Conflict("somebody else changed it on the server within the same second".into()))
            }
            Err(error) => Some(Outcome::Later(LINK_PAUSE, format!("the version before it cannot be read: {error:?}"))),
        }
    }

    /// Whether what is there is what ours begins with.
    fn same_there(&self, path: &RemotePath, found: Version, ours: &File) -> bool {
        let Ok(theirs) = self.0.content.read_anew(path, found, Deadline::after(COMPARE_LIMIT)) else { return false };
        let mut bytes = vec![0; theirs.len()];
        theirs.len() as u64 == found.size && ours.read_exact_at(&mut bytes, 0).is_ok() && bytes == theirs
    }

    /// The server has the content now.
    fn stored(&self, op: &Op, put: &Put, server: Attr, source: &File) {
        let ino = Ino(op.ino);
        self.0.notes.sent(server.size);
        self.0.content.stored(&op.path, server.version(), put.sum);
        self.note_done(op.area, &op.path, AppliedChange::Content(source, server));
        let Some(view) = self.0.table.view(ino).filter(|_| op.ino != 0) else { return };
        // Size and time go on being shown as they were when the writer looked, or editors see a change that is none.
        let newest = self.spool(ino).is_none_or(|spool| spool.id() == put.spool && !spool.is_dirty());
        let perm = self.perm_after(op.ino, server, view.attr);
        let shown = if newest { Attr { perm, size: server.size, ..view.attr } } else { view.attr };
        self.0.table.confirmed(ino, server, shown);
        // Where it is shown now; a rename may wait behind this.
        if newest && server.size <= CACHE_WRITTEN_BYTES && self.0.table.path(ino).as_ref() == Some(&op.path) {
            self.cache_written(&op.path, server.version(), source);
        }
    }

    fn cache_written(&self, path: &RemotePath, version: Version, source: &File) {
        for index in 0..version.size.div_ceil(BLOCK_BYTES) {
            let size = (version.size - index * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
            let mut block = vec![0; size];
            if source.read_exact_at(&mut block, index * BLOCK_BYTES).is_err() {
                return;
            }
            self.0.content.put(path, version, index, block.into());
        }
    }

    fn make_dir(&self, permit: &WritePermit, op: &Op, perm: u16) -> Result<Outcome, RemoteError> {
        let attr = match self.0.remote.mkdir(permit, &op.path, perm) {
            Err(error) if matches!(error.kind, ErrorKind::Exists | ErrorKind::Failure(_)) => {
                // Made by somebody else, or by an attempt whose end nobody saw: either way it is there.
                match self.0.remote.lstat(&op.path) {
                    Ok(attr) if attr.is_dir() => attr,
                    Ok(_) => return Ok(Outcome::Conflict("there is a file of that name on the server now".into())),
                    Err(_) => return Err(error),
                }
            }
            other => other?,
        };
        let attr = if attr.perm == perm {
            attr
        } else {
            // The server took its own umask off, or it was there already.
            let change = remote::SetAttr { perm: Some(perm), ..remote::SetAttr::default() };
            self.0.remote.set_attr(permit, &op.path, change).unwrap_or(attr)
        };
        self.confirm(op, attr);
        Ok(Outcome::Done(Expected::Absent))
    }

    fn make_link(&self, permit: &WritePermit, op: &Op, text: &[u8]) -> Result<Outcome, RemoteError> {
        let attr = match self.0.remote.symlink(permit, &op.path, text) {
            Err(error) if matches!(error.kind, ErrorKind::Exists | ErrorKind::Failure(_)) => {
                if self.0.remote.readlink(&op.path).is_ok_and(|there| there == text) {
                    self.0.remote.lstat(&op.path)?
                } else if matches!(error.kind, ErrorKind::Exists) {
                    return Ok(Outcome::Conflict("there is something of that name on the server now".into()));
                } else {
                    return Err(error);
                }
            }
            other => other?,
        };
        self.note_done(op.area, &op.path, AppliedChange::Link(text));
        self.confirm(op, attr);
        Ok(Outcome::Done(Expected::Version(attr.version())))
    }

    /// The object of the operation is on the server with these attributes.
    fn confirm(&self, op: &Op, server: Attr) {
        let ino = Ino(op.ino);
        if let Some(view) = self.0.table.view(ino).filter(|_| op.ino != 0) {
            self.0.table.confirmed(ino, server, Attr { perm: self.perm_after(op.ino, server, view.attr), ..view.attr });
        }
    }

    /// What the server has, unless more waits for the object: that may be another chmod, and the next save takes it along.
    fn perm_after(&self, ino: u64, server: Attr, shown: Attr) -> u16 {
        if self.0.journal.queue(|queue| queue.waiting_for(ino)) > 1 { shown.perm } else { server.perm }
    }

    /// What is at a path, if anything.
    fn there(&self, path: &RemotePath) -> Result<Option<Attr>, RemoteError> {
        match self.0.remote.lstat(path) {
            Ok(attr) => Ok(Some(attr)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unlink_there(&self, permit: &WritePermit, path: &RemotePath, base: Expected) -> Result<Outcome, RemoteError> {
        match (self.there(path)?, base) {
            (None, _) | (_, Expected::Absent) => return Ok(Outcome::Done(Expected::Absent)),
            (Some(now), _) if now.is_dir() => {
                return Ok(Outcome::Conflict("removed here, but there is a directory on the server now".into()));
            }
            (Some(_), Expected::Unknown) => {
                return Ok(Outcome::Conflict(
                    "removed here, but an earlier change could not be sent: theirs stays".into(),
                ));
            }
            (Some(now), Expected::Version(version)) if now.kind == FileKind::File && now.version() != version => {
                return Ok(Outcome::Conflict("removed here, but changed on the server meanwhile: theirs stays".into()));
            }
            (Some(now), Expected::Version(version)) if now.kind == FileKind::File => {
                if let Some(other) = self.changed_unseen(path, version) {
                    return Ok(other);
                }
            }
            _ => {}
        }
        match self.0.remote.unlink(permit, path) {
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {}
            other => other?,
        }
        self.note_done(permit.area(), path, AppliedChange::Deleted);
        Ok(Outcome::Done(Expected::Absent))
    }

    fn remove_dir(&self, permit: &WritePermit, path: &RemotePath) -> Result<Outcome, RemoteError> {
        match self.0.remote.rmdir(permit, path) {
            Ok(()) => Ok(Outcome::Done(Expected::Absent)),
            Err(error) => match error.kind {
                ErrorKind::NotFound => Ok(Outcome::Done(Expected::Absent)),
                ErrorKind::NotEmpty | ErrorKind::Failure(_) if self.holds_there(path) => {
                    let what = "removed here, but something was put into it on the server: it stays";
                    Ok(Outcome::Conflict(what.into()))
                }
                _ => Err(error),
            },
        }
    }

    /// Whether the server has something in the directory.
    fn holds_there(&self, dir: &RemotePath) -> bool {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.0.remote.list_async(dir.clone(), Class::Interactive, move |listed| drop(sender.send(listed)));
        let listed = receiver.recv_timeout(self.0.config.timeout);
        listed.is_ok_and(|listed| listed.is_ok_and(|entries| !entries.is_empty()))
    }

    /// Has the journal know how far a long operation is.
    fn following(&self, id: OpId) -> impl Fn(Note) + '_ {
        move |note| match note {
            Note::Touching => self.0.journal.touched(id),
            Note::Moved => self.0.journal.moved(),
        }
    }

    fn rename_there(
        &self,
        permit: &WritePermit,
        id: OpId,
        op: &Op,
        to: &RemotePath,
        (base, replaced): (Expected, Expected),
        dir: bool,
    ) -> Result<Outcome, RemoteError> {
        if replaced == Expected::Ours {
            self.0.remote.resume_rename(permit, &op.path, to, &self.following(id))?;
            self.moved_there(op, to);
            return Ok(Outcome::Done(base));
        }
        let there = self.there(to)?;
        let expected = match (&there, replaced) {
            (None, _) => true,
            (Some(now), Expected::Version(version)) => now.version() == version || now.kind == FileKind::Symlink,
            (Some(_), _) => false,
        };
        if replaced == Expected::Unknown || (base == Expected::Unknown && !dir) {
            let which = if replaced == Expected::Unknown { to } else { &op.path };
            return Ok(Outcome::Conflict(format!("an earlier change of {which} could not be sent")));
        }
        if !expected {
            // Moved by an attempt whose end nobody saw?
            let ours = there.is_some_and(|now| dir && now.is_dir() || Expected::Version(now.version()) == base);
            if ours && self.there(&op.path)?.is_none() {
                self.0.remote.end_rename(permit, to)?;
                return Ok(Outcome::Done(base));
            }
            return Ok(Outcome::Conflict(format!("moved here, but somebody else wrote {to} on the server meanwhile")));
        }
        if let (Some(now), Expected::Version(version)) = (&there, replaced)
            && now.kind == FileKind::File
            && let Some(other) = self.changed_unseen(to, version)
        {
            return Ok(other);
        }
        match self.0.remote.rename(permit, &op.path, to, there.is_some(), &self.following(id)) {
            Ok(()) => {
                self.moved_there(op, to);
                Ok(Outcome::Done(base))
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
                // Moved by an attempt whose answer was lost?
                let there = self.there(to)?;
                if there.is_some_and(|now| dir && now.is_dir() || Expected::Version(now.version()) == base) {
                    self.0.remote.end_rename(permit, to)?;
                    self.moved_there(op, to);
                    return Ok(Outcome::Done(base));
                }
                Ok(Outcome::Conflict("moved here, but removed on the server meanwhile".into()))
            }
            Err(error) if matches!(error.kind, ErrorKind::Exists) => {
                Ok(Outcome::Conflict(format!("moved here, but somebody else made {to} on the server meanwhile")))
            }
            Err(error) => Err(error),
        }
    }

    fn moved_there(&self, op: &Op, to: &RemotePath) {
        self.0.content.moved(&op.path, to);
        self.note_done(op.area, to, AppliedChange::MovedFrom(&op.path));
    }

    fn set_attr_there(&self, permit: &WritePermit, op: &Op, change: remote::SetAttr) -> Result<Outcome, RemoteError> {
        let gone = |error: &RemoteError| matches!(error.kind, ErrorKind::NotFound);
        match self.0.remote.set_attr(permit, &op.path, change) {
            Ok(server) => {
                if let Some(known) = self.overtaken(op, server, change.times.is_some()) {
                    return Ok(Outcome::Done(Expected::Version(known)));
                }
                // A refused chmod shows what the server has; refused times go on being shown as they were set.
                self.confirm(op, server);
                Ok(Outcome::Done(Expected::Version(server.version())))
            }
            Err(error) if gone(&error) => Ok(Outcome::Done(Expected::Absent)),
            Err(error) => Err(error),
        }
    }

    /// The version that we know of a file of which the server has another: somebody else's, for the next look to find.
    fn overtaken(&self, op: &Op, server: Attr, timed: bool) -> Option<Version> {
        let view = self.0.table.view(Ino(op.ino)).filter(|view| op.ino != 0 && view.attr.is_file())?;
        let known = view.server?;
        let ours = known.size == server.size && (timed || known.mtime == server.mtime);
        if ours {
            return None;
        }
        self.0.table.expire(Some(view.parent));
        Some(known)
    }

    fn done(&self, id: OpId, op: &Op, left: Expected) {
        self.names_changed(op);
        self.0.failures.lock().remove(&op.path);
        let _ending = self.finish(id, left);
        self.rest_after(op);
    }

    /// Nobody is between the look at the table and the record in the journal: what is recorded next builds upon this operation
    /// or upon what it left, never upon what was there before it.
    pub(super) fn finish(&self, id: OpId, left: Expected) -> impl Drop + '_ {
        let _names = self.0.names.lock();
        self.0.journal.finish(id, left)
    }

    /// A listing that was asked for before this must not be taken over after it.
    pub(super) fn names_changed(&self, op: &Op) {
        for path in op.paths() {
            if let Some(dir) = path.parent().and_then(|dir| self.0.table.find(&dir)) {
                self.0.table.touch(dir);
            }
        }
    }

    /// The operation is over: what was kept for it is let go.
    pub(super) fn rest_after(&self, op: &Op) {
        let ino = Ino(op.ino);
        if op.ino != 0 {
            if self.0.table.view(ino).is_none_or(|view| view.opens == 0) {
                self.rest(ino);
            }
            self.unpin(ino);
        }
        if let Some(spool) = op.spool() {
            if let Some(current) = self.spool(ino).filter(|current| current.id() == spool)
                && let Err(error) = current.file()
            {
                // Somebody has just opened it: from here on it is read without its name.
                log::error!("{}: the local copy cannot be held open: {error}", op.path);
            }
            self.0.journal.drop_spool(spool);
        }
    }
}

/// A file of this version, for the table.
fn file_attr(version: Version) -> Attr {
    Attr { kind: FileKind::File, size: version.size, perm: 0o644, mtime: version.mtime, atime: version.mtime }
}
