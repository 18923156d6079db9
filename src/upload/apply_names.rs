//! Applies operations on names and attributes on the server.

use super::compare::Compared;
use super::events::{Applied, AppliedChange};
use super::outcome::{LINK_PAUSE, Outcome, SAME_SECOND};
use super::sender::Sender;
use crate::attr::{Attr, FileKind, Version};
use crate::gate::WritePermit;
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::{ErrorKind, RemoteError, SetAttr};
use crate::write::{Action, Expected, Op, OpId};

/// What a rename expects at its source and its target.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// The object that is renamed.
    pub(super) base: Expected,
    /// The object that the rename replaces.
    pub(super) replaced: Expected,
    pub(super) dir: bool,
}

impl Ends {
    /// Whether this is the object that was to be renamed.
    fn is_source(&self, there: Attr) -> bool {
        self.dir && there.is_dir() || Expected::Version(there.version()) == self.base
    }

    /// Whether this is no later version of the object that was to be renamed, but a symbolic link, or a directory in place of
    /// a file.
    fn is_another_kind(&self, there: Attr) -> bool {
        there.is_dir() != self.dir || (there.kind == FileKind::Symlink && !self.is_source(there))
    }
}

impl Sender {
    pub(super) fn apply_mkdir(&self, permit: &WritePermit, op: &Op, perm: u16) -> Result<Outcome, RemoteError> {
        let attr = match self.remote.mkdir(permit, &op.path, perm) {
            Err(error) if matches!(error.kind, ErrorKind::Exists | ErrorKind::Failure(_)) => {
                // Made by another writer, or by an attempt whose answer was lost. Either way the directory exists.
                match self.stat_there(&op.path) {
                    Ok(Some(attr)) if attr.is_dir() => attr,
                    Ok(Some(_)) => {
                        return Ok(Outcome::Conflict("there is a file of that name on the server now".into()));
                    }
                    Ok(None) | Err(_) => return Err(error),
                }
            }
            other => other?,
        };
        self.confirm(op, attr);
        Ok(Outcome::Done(Expected::Absent))
    }

    pub(super) fn apply_symlink(&self, permit: &WritePermit, op: &Op, text: &[u8]) -> Result<Outcome, RemoteError> {
        let attr = match self.remote.symlink(permit, &op.path, text) {
            Err(error) if matches!(error.kind, ErrorKind::Exists | ErrorKind::Failure(_)) => {
                match self.remote.readlink(&op.path) {
                    Ok(there) if there == text => self.remote.lstat(&op.path)?,
                    // Unknown, and not another object.
                    Err(unread) if unread.kind.is_unanswered() => return Err(unread),
                    _ if matches!(error.kind, ErrorKind::Exists) => {
                        return Ok(Outcome::Conflict("another object has that name on the server now".into()));
                    }
                    _ => return Err(error),
                }
            }
            other => other?,
        };
        self.emit(&Applied { area: op.area, path: &op.path, change: AppliedChange::Link(text) });
        self.confirm(op, attr);
        Ok(Outcome::Done(Expected::Version(attr.version())))
    }

    pub(super) fn apply_unlink(&self, permit: &WritePermit, op: &Op, base: Expected) -> Result<Outcome, RemoteError> {
        let path = &op.path;
        let Some(now) = self.stat_there(path)? else {
            return Ok(self.unless_away(op, Outcome::Done(Expected::Absent)));
        };
        if base == Expected::Absent {
            return Ok(Outcome::Done(Expected::Absent));
        }
        if now.is_dir() {
            return Ok(Outcome::Conflict("removed here, but there is a directory on the server now".into()));
        }
        if base == Expected::Unknown {
            let what = "removed here, but an earlier change could not be sent: the server's version stays";
            return Ok(self.after_rejected(path, what.into()));
        }
        let was_file = matches!(op.action, Action::Unlink { file: true, .. });
        if let Expected::Version(version) = base
            && (was_file || now.kind == FileKind::File)
        {
            if now.kind != FileKind::File || now.version() != version {
                let what = "removed here, but another writer changed it on the server: the server's version stays";
                return Ok(Outcome::Conflict(what.into()));
            }
            if let Some(other) = self.unless_same(path, version) {
                return Ok(other);
            }
        }
        let guard = self.guard(op, path, base.version().filter(|_| now.kind == FileKind::File));
        match self.remote.unlink(permit, path, guard.as_ref()) {
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {}
            other => other?,
        }
        self.emit(&Applied { area: permit.area(), path, change: AppliedChange::Deleted });
        Ok(Outcome::Done(Expected::Absent))
    }

    /// The outcome if the file no longer has the content that the version stands for, `None` if it has.
    fn unless_same(&self, path: &RemotePath, version: Version) -> Option<Outcome> {
        match self.compare_with_known(path, version) {
            Compared::Same => None,
            Compared::Changed => Some(Outcome::Conflict(SAME_SECOND.into())),
            Compared::Unknown(why) => Some(Outcome::Later(LINK_PAUSE, why)),
        }
    }

    pub(super) fn apply_rmdir(&self, permit: &WritePermit, op: &Op) -> Result<Outcome, RemoteError> {
        let path = &op.path;
        match self.remote.rmdir(permit, path) {
            Ok(()) => Ok(Outcome::Done(Expected::Absent)),
            Err(error) => match error.kind {
                ErrorKind::NotFound => Ok(self.unless_away(op, Outcome::Done(Expected::Absent))),
                ErrorKind::NotEmpty | ErrorKind::Failure(_) if self.holds_there(path) => {
                    let what = "removed here, but it is not empty on the server: it stays";
                    Ok(Outcome::Conflict(what.into()))
                }
                _ => Err(error),
            },
        }
    }

    pub(super) fn apply_rename(
        &self,
        permit: &WritePermit,
        id: OpId,
        op: &Op,
        to: &RemotePath,
        ends: Ends,
    ) -> Result<Outcome, RemoteError> {
        if ends.replaced == Expected::Ours {
            self.remote.resume_rename(permit, &op.path, to, &self.note_progress(id))?;
            self.emit_renamed(op, to);
            return Ok(Outcome::Done(ends.base));
        }
        let [source, there] = self.stat_both_there([&op.path, to])?;
        if ends.replaced == Expected::Unknown || (ends.base == Expected::Unknown && !ends.dir) {
            let which = if ends.replaced == Expected::Unknown { to } else { &op.path };
            return Ok(self.after_rejected(which, format!("an earlier change of {which} could not be sent")));
        }
        if source.is_some_and(|now| ends.is_another_kind(now)) {
            let what = "moved here, but another writer put something else in its place on the server";
            return Ok(Outcome::Conflict(what.into()));
        }
        let expected = match (&there, ends.replaced) {
            (None, _) => true,
            (Some(now), Expected::Version(version)) => now.version() == version || now.kind == FileKind::Symlink,
            (Some(_), _) => false,
        };
        if !expected {
            if let Some(done) = self.renamed_before(permit, op, to, (there, ends))? {
                return Ok(done);
            }
            return Ok(Outcome::Conflict(format!("moved here, but another writer wrote {to} on the server meanwhile")));
        }
        if let (Some(now), Expected::Version(version)) = (&there, ends.replaced)
            && now.kind == FileKind::File
            && let Some(other) = self.unless_same(to, version)
        {
            // Our own file may have the same size and second.
            return Ok(self.renamed_before(permit, op, to, (there, ends))?.unwrap_or(other));
        }
        let guard =
            self.guard(op, to, ends.replaced.version().filter(|_| there.is_some_and(|now| now.kind == FileKind::File)));
        match self.remote.rename(permit, &op.path, to, there.is_some(), guard.as_ref(), &self.note_progress(id)) {
            Ok(()) => {
                self.emit_renamed(op, to);
                Ok(Outcome::Done(ends.base))
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
                let there = self.stat_there(to)?;
                let source_is_there = self.stat_there(&op.path)?.is_some();
                let what = if source_is_there {
                    "its new directory is not on the server"
                } else {
                    "removed on the server meanwhile"
                };
                let gone = || Outcome::Conflict(format!("moved here, but {what}"));
                let done = self.renamed_before(permit, op, to, (there, ends))?;
                Ok(done.unwrap_or_else(|| self.unless_away(op, gone())))
            }
            Err(error) if matches!(error.kind, ErrorKind::Conflict { .. }) => {
                Ok(Outcome::Conflict(format!("moved here, but another writer wrote {to} on the server meanwhile")))
            }
            Err(error) if matches!(error.kind, ErrorKind::Exists) => {
                Ok(Outcome::Conflict(format!("moved here, but another writer made {to} on the server meanwhile")))
            }
            Err(error) => Err(error),
        }
    }

    /// Detects a rename by an earlier attempt whose answer was lost: the object is at its new path, and the old path
    /// is vacant.
    fn renamed_before(
        &self,
        permit: &WritePermit,
        op: &Op,
        to: &RemotePath,
        (there, ends): (Option<Attr>, Ends),
    ) -> Result<Option<Outcome>, RemoteError> {
        if !there.is_some_and(|now| ends.is_source(now)) || self.stat_there(&op.path)?.is_some() {
            return Ok(None);
        }
        self.remote.remove_rename_leftovers(permit, to)?;
        self.emit_renamed(op, to);
        Ok(Some(Outcome::Done(ends.base)))
    }

    fn emit_renamed(&self, op: &Op, to: &RemotePath) {
        // After a restart the object may be one that the saved tree had at the new path, with the version of an earlier
        // object there.
        if let Action::Rename { base: Expected::Version(version), dir: false, .. } = op.action
            && op.ino != 0
        {
            self.local.0.view.adopt_base(Ino(op.ino), Some(version));
        }
        self.emit(&Applied { area: op.area, path: to, change: AppliedChange::RenamedFrom(&op.path) });
    }

    /// Times are part of a version. They are set only if the server has the version that this mount shows; otherwise
    /// another writer's content would be taken for the known one. Permission bits are set on any version.
    pub(super) fn apply_setattr(&self, permit: &WritePermit, op: &Op, change: SetAttr) -> Result<Outcome, RemoteError> {
        let Some(now) = self.stat_there(&op.path)? else {
            return Ok(self.unless_away(op, Outcome::Done(Expected::Absent)));
        };
        if !change.link && now.kind == FileKind::Symlink {
            // They would be set on what it leads to.
            let what = "set here, but another writer put a symbolic link in its place on the server";
            return Ok(Outcome::Conflict(what.into()));
        }
        if change.times.is_some()
            && let Some(known) = self.overtaken(op, now)
        {
            if change.perm.is_some() {
                self.remote.set_attr(permit, &op.path, SetAttr { times: None, ..change })?;
            }
            return Ok(Outcome::Done(Expected::Version(known)));
        }
        match self.remote.set_attr(permit, &op.path, change) {
            Ok(server) => {
                if change.times.is_none()
                    && let Some(known) = self.overtaken(op, server)
                {
                    return Ok(Outcome::Done(Expected::Version(known)));
                }
                // The server's bits are shown, also if it ignored the chmod; after refused times the local times stay shown.
                self.confirm(op, server);
                Ok(Outcome::Done(Expected::Version(server.version())))
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
                Ok(self.unless_away(op, Outcome::Done(Expected::Absent)))
            }
            Err(error) => Err(error),
        }
    }

    /// The version that callers were shown of the file, if the server has another one. The next listing of the
    /// directory then finds the other writer's version.
    fn overtaken(&self, op: &Op, server: Attr) -> Option<Version> {
        let view = &self.local.0.view;
        let node = view.node(Ino(op.ino)).filter(|node| op.ino != 0 && node.attr.is_file())?;
        let known = node.base().filter(|known| *known != server.version())?;
        view.expire(node.parent);
        Some(known)
    }
}
