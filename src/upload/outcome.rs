//! The possible outcomes of an operation.

use std::path::PathBuf;
use std::time::Duration;

use super::sender::Sender;
use crate::gate::ReadOnlyReason;
use crate::path::RemotePath;
use crate::remote::RemoteError;
use crate::write::{Expected, Op, RejectKind};

/// Pause before an operation is retried that failed because of the connection or of a read that it needed.
pub(super) const LINK_PAUSE: Duration = Duration::from_millis(100);
/// The reason of a conflict that neither size nor time shows.
pub(super) const SAME_SECOND: &str = "another writer changed it on the server within the same second";

/// The outcome of one attempt to apply an operation.
pub(super) enum Outcome {
    /// Applied; this state is at its path now.
    Done(Expected),
    /// Not tried, or not possible now: to be retried after the pause, for the reason given.
    Later(Duration, String),
    /// Another writer changed the version that the operation is based on; the text says what was found.
    Conflict(String),
    /// The environment accepts no changes any more.
    Closed(ReadOnlyReason),
    /// A conflict whose content is in this rejected copy already.
    Kept(String, PathBuf),
    /// The server refused the operation.
    Refused(RemoteError),
    /// The operation builds upon another one that was rejected in this way; the text says upon which.
    Follows(RejectKind, String),
}

impl Sender {
    /// The outcome of an operation that builds upon a change of this path that was rejected.
    pub(super) fn after_rejected(&self, path: &RemotePath, what: String) -> Outcome {
        match self.local.0.given_up.kind_of(path) {
            Some(kind) => Outcome::Follows(kind, what),
            None => Outcome::Conflict(what),
        }
    }

    /// The outcome of an operation in a directory that was given up, unless the server has one of that name now: what
    /// has taken its name may lead elsewhere.
    pub(super) fn in_missing_dir(&self, op: &Op) -> Option<Outcome> {
        let (dir, kind) = self.local.0.given_up.above(op)?;
        match self.stat_there(&dir) {
            Ok(Some(there)) if there.is_dir() => {
                self.local.0.given_up.is_there(&dir);
                None
            }
            Ok(_) => Some(self.without_dir(&dir, kind)),
            Err(error) => Some(Outcome::Later(LINK_PAUSE, error.to_string())),
        }
    }

    fn without_dir(&self, dir: &RemotePath, kind: RejectKind) -> Outcome {
        let dir = self.local.0.view.shown_path(dir);
        Outcome::Follows(kind, format!("its directory {dir} could not be made on the server"))
    }

    /// The outcome of an operation for which the server has no file or directory.
    pub(super) fn no_directory(&self, op: &Op, error: RemoteError) -> Outcome {
        if let Some((dir, kind)) = self.local.0.given_up.above(op) {
            return self.without_dir(&dir, kind);
        }
        match op.awaited().parent().map(|dir| self.stat_there(&dir)) {
            // Something else was missing, a temporary file for instance.
            Some(Ok(Some(found))) if found.is_dir() => Outcome::Refused(error),
            Some(Err(error)) => Outcome::Later(LINK_PAUSE, error.to_string()),
            Some(Ok(_)) | None => {
                self.unless_away(op, Outcome::Conflict("its directory is not on the server any more".into()))
            }
        }
    }

    /// The outcome of an operation whose object is missing. If the whole environment is unavailable, the operation is
    /// retried later.
    pub(super) fn unless_away(&self, op: &Op, outcome: Outcome) -> Outcome {
        match self.root.on_missing(&self.local, &self.remote, op.area) {
            Ok(()) => outcome,
            Err(why) => Outcome::Later(LINK_PAUSE, why),
        }
    }
}
