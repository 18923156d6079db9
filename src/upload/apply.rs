//! Applies one operation on the server. Applying it twice does no harm, because an attempt whose answer was lost is
//! repeated. This file applies content; `apply_names` applies names and attributes.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::compare::Compared;
use super::events::{Applied, AppliedChange};
use super::in_place::Resumed;
use super::outcome::{LINK_PAUSE, Outcome, SAME_SECOND};
use super::sender::Sender;
use crate::attr::{Area, Attr, FileKind, Version};
use crate::error::FsError;
use crate::gate::WritePermit;
use crate::inode::Ino;
use crate::remote::{Base, ErrorKind, Progress, RemoteError, SetAttr, Store};
use crate::write::{Action, Expected, Op, OpId, Put, RejectKind};

/// Written files up to this size (bytes) go into the cache as well: what was saved is usually read next.
const MAX_CACHED_BYTES: u64 = 4 * 1024 * 1024;
/// Pause before an operation is tried again whose content cannot be opened at the moment.
const DISK_PAUSE: Duration = Duration::from_secs(2);
/// The reason given for a save whose content did not reach the local disk.
pub(super) const LOST_HERE: &str =
    "it was saved, but had not reached the local disk when the machine stopped; the server has the previous version";

impl Sender {
    pub(super) fn apply_content(
        &self,
        permit: &WritePermit,
        id: OpId,
        op: &Op,
        put: &Put,
    ) -> Result<Outcome, RemoteError> {
        let mut base = match put.base {
            Expected::Absent => Base::Absent,
            Expected::Version(version) => Base::Version(version),
            Expected::Ours => Base::Any,
            Expected::After(_) | Expected::Unknown => {
                return Ok(self.after_rejected(&op.path, "the save before it could not be sent".into()));
            }
        };
        if self.local.0.journal.is_whole(put) == Some(false) {
            return Ok(Outcome::Conflict(LOST_HERE.into()));
        }
        let source = match File::open(self.local.0.journal.spool_path(put.spool)) {
            Ok(source) => source,
            // A temporary failure, for example no free file descriptor: the content still exists.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Ok(Outcome::Later(DISK_PAUSE, format!("its content cannot be opened: {error}")));
            }
            Err(error) => {
                log::error!("{}: its content cannot be read from the local disk: {error}", op.path);
                return Ok(Outcome::Done(Expected::Unknown));
            }
        };
        if base == Base::Any {
            base = match self.resume_in_place(op, put, &source)? {
                Resumed::GoOn(base) => base,
                Resumed::Stored(found) => return Ok(self.found_stored(op, put, found, &source)),
                Resumed::End(outcome) => return Ok(outcome),
            };
        } else if let Base::Version(version) = base {
            match self.compare_with_known(&op.path, version) {
                Compared::Same => {}
                Compared::Unknown(why) => return Ok(Outcome::Later(LINK_PAUSE, why)),
                Compared::Changed => {
                    return Ok(match self.compare_with_ours(&op.path, version, &source) {
                        Compared::Same if version.size == put.len => self.found_stored(op, put, version, &source),
                        Compared::Same | Compared::Changed => Outcome::Conflict(SAME_SECOND.into()),
                        Compared::Unknown(why) => Outcome::Later(LINK_PAUSE, why),
                    });
                }
            }
        }
        self.store(permit, id, (op, put), base, &source)
    }

    fn store(
        &self,
        permit: &WritePermit,
        id: OpId,
        (op, put): (&Op, &Put),
        base: Base,
        source: &File,
    ) -> Result<Outcome, RemoteError> {
        let base_sum = match base {
            Base::Version(version) => self.sum_if_young(&op.path, version),
            Base::Absent | Base::Any => None,
        };
        let how = Store {
            base,
            base_sum,
            unchanged: self.unchanged(&op.path, base, source, put.len),
            perm: (!put.keep_perm).then_some(put.perm),
            made_with: Some(put.perm),
            own_perm: put.own_perm,
            mtime: Some(put.mtime),
            temp_dir: self.temp_dir(op.area),
        };
        let store = |how: &Store| {
            let progress = |progress| match progress {
                Progress::Modifying => self.begin_in_place(id, &op.path, put),
                Progress::Transferred => self.local.0.journal.progressed(),
            };
            self.remote.store(permit, &op.path, source, put.len, how, &progress)
        };
        let error = match store(&how) {
            Ok(attr) => {
                let attr = self.with_asked_perm(permit, op, attr, how.perm)?;
                self.stored(op, put, attr, source);
                return Ok(Outcome::Done(Expected::Version(attr.version())));
            }
            Err(error) => error,
        };
        let ErrorKind::Conflict { found: Some(found) } = error.kind else { return Err(error) };
        // Reading it would follow a symbolic link.
        if self.stat_there(&op.path)?.is_some_and(|now| now.kind != FileKind::File) {
            return Err(error);
        }
        if let Base::Version(known) = base {
            match self.compare_with_shown(&op.path, known, found) {
                Compared::Same => {
                    log::info!("{}: only its time changed on the server ({known}, now {found})", op.path);
                    // Its time is of this moment, in which others may write the same number of bytes.
                    let base_sum = self.content.shown_sum(&op.path, known);
                    let attr = store(&Store { base: Base::Version(found), base_sum, unchanged: Vec::new(), ..how })?;
                    self.stored(op, put, attr, source);
                    return Ok(Outcome::Done(Expected::Version(attr.version())));
                }
                Compared::Unknown(why) => return Ok(Outcome::Later(LINK_PAUSE, why)),
                Compared::Changed => {}
            }
        }
        if found.size > put.len || (found.size < put.len && base != Base::Absent) {
            return Err(error);
        }
        // The content was sent by an attempt whose answer was lost, or another writer wrote the same bytes: no
        // conflict. If a new file has only the beginning of the content, an earlier attempt was interrupted, and the
        // transfer is resumed.
        match self.compare_with_ours(&op.path, found, source) {
            Compared::Same if found.size == put.len => Ok(self.found_stored(op, put, found, source)),
            Compared::Same => {
                let base_sum = self.sum_of_beginning(source, found.size);
                let attr = store(&Store { base: Base::Version(found), base_sum, unchanged: Vec::new(), ..how })?;
                self.stored(op, put, attr, source);
                Ok(Outcome::Done(Expected::Version(attr.version())))
            }
            Compared::Changed => Err(error),
            Compared::Unknown(why) => Ok(Outcome::Later(LINK_PAUSE, why)),
        }
    }

    /// Returns the callback that reports the progress of a long operation to the journal.
    pub(super) fn note_progress(&self, id: OpId) -> impl Fn(Progress) + '_ {
        move |note| match note {
            Progress::Modifying => self.local.0.journal.touched(id),
            Progress::Transferred => self.local.0.journal.progressed(),
        }
    }

    /// Ends a save whose bytes the server has already.
    pub(super) fn found_stored(&self, op: &Op, put: &Put, found: Version, source: &File) -> Outcome {
        let (size, mtime) = (found.size, found.mtime);
        let attr = Attr { kind: FileKind::File, size, perm: put.perm, mtime, atime: mtime };
        self.stored(op, put, attr, source);
        Outcome::Done(Expected::Version(found))
    }

    /// A save does not fail because the server refuses the permissions that were set here. They are sent alone once more,
    /// and what the server says to that is reported as for a `chmod`.
    fn with_asked_perm(
        &self,
        permit: &WritePermit,
        op: &Op,
        stored: Attr,
        asked: Option<u16>,
    ) -> Result<Attr, RemoteError> {
        let Some(perm) = asked.filter(|perm| *perm != stored.perm && op.area == Area::Code) else { return Ok(stored) };
        match self.remote.set_attr(permit, &op.path, SetAttr { perm: Some(perm), ..SetAttr::default() }) {
            Ok(now) if now.version() == stored.version() => Ok(now),
            Err(error) if error.kind.is_unanswered() => Err(error),
            Err(error) if matches!(error.kind, ErrorKind::PermissionDenied) => {
                let action = Action::SetAttr { perm: Some(perm), times: None, link: false };
                let error = self.local.noted(FsError::new("sync", &op.path, error));
                self.local.note_given_up(RejectKind::Stranded, &Op { action, ..op.clone() }, &error, None);
                Ok(stored)
            }
            // Changed by another writer since: the next look at it finds that.
            Ok(_) | Err(_) => Ok(stored),
        }
    }

    /// Takes note that the server has the content.
    fn stored(&self, op: &Op, put: &Put, server: Attr, source: &File) {
        let ino = Ino(op.ino);
        let node = self.local.0.view.node(ino).filter(|_| op.ino != 0);
        let newest = self.local.spool(ino).is_none_or(|spool| spool.id() == put.spool && !spool.is_dirty());
        let cached = node.is_some() && newest && server.size <= MAX_CACHED_BYTES;
        let shown_at = self.local.0.view.path(ino).filter(|_| cached);
        let change = AppliedChange::Content { source, attr: server, sum: put.sum, shown_at };
        self.emit(&Applied { area: op.area, path: &op.path, change });
        if node.is_some() {
            // The size and time that are shown do not change, or editors would report a change by another program.
            self.confirm(op, server);
        }
    }

    /// The server has the object of the operation with these attributes.
    pub(super) fn confirm(&self, op: &Op, server: Attr) {
        if op.ino != 0 {
            // If more operations are queued for the object, one may be another chmod, or a save that sends the
            // permission bits.
            let keep_perm = self.local.queue(|queue| queue.waiting_for(op.ino)) > 1;
            self.local.0.view.confirmed(Ino(op.ino), server, keep_perm);
        }
    }
}
