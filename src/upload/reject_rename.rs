//! A save by temporary file and rename whose rename is a conflict. The content of the temporary file becomes a
//! rejected copy of the file that it was to replace, and the temporary file is removed from the server, where it
//! would be served.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use super::events::{Applied, AppliedChange};
use super::outcome::{LINK_PAUSE, Outcome};
use super::sender::Sender;
use crate::attr::Version;
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, RemoteError};
use crate::write::{Action, Expected, Op, RejectKind};

/// Time limit for one piece of the content, and its size (bytes).
const PIECE_LIMIT: Duration = Duration::from_secs(120);
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
impl Sender {
    /// Rejects the content of a rename that is a conflict. All other outcomes are returned unchanged.
    pub(super) fn reject_rename(&self, permit: &WritePermit, op: &Op, outcome: Outcome) -> Outcome {
        let Action::Rename { to, base: Expected::Version(version), replaced, dir: false } = &op.action else {
            return outcome;
        };
        let Outcome::Conflict(what) = outcome else { return outcome };
        let made = self.local.0.made.is(&op.path, *version);
        if *replaced == Expected::Absent && !made {
            // This is no save: the object stays at its old path, and nothing is lost.
            return Outcome::Conflict(what);
        }
        let file = match self.fetch_unnamed(&op.path, *version) {
            Ok(file) => file,
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Changed { .. }) => {
                return Outcome::Conflict(what);
            }
            Err(error) => return Outcome::Later(LINK_PAUSE, error.to_string()),
        };
        match file.and_then(|file| self.local.0.rejects.keep(RejectKind::Conflict, to, &file)) {
            Ok(copy) => {
                log::warn!("{to}: your version is kept in {}", copy.display());
                if let Expected::Version(replaced) = replaced {
                    self.local.keep_base_of(to, *replaced, &copy);
                }
                // Where nothing was to be replaced it may be no save, and the object stays at its old path. It has a copy
                // all the same: if it is the temporary file of a save, the next save replaces it.
                if made && *replaced != Expected::Absent {
                    self.remove_made(permit, op, *version);
                }
                return Outcome::Kept(what, copy);
            }
            Err(trouble) => log::error!("{to}: keeping a copy failed: {trouble}; it is at {} on the server", op.path),
        }
        Outcome::Conflict(what)
    }

    /// Fetches the content of a file on the server into a local file without a name.
    fn fetch_unnamed(&self, path: &RemotePath, version: Version) -> Result<std::io::Result<File>, RemoteError> {
        let mut file = match tempfile::tempfile() {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut at = 0;
        while at < version.size {
            let (sender, receiver) = mpsc::sync_channel(1);
            let range = at..version.size.min(at + PIECE_BYTES);
            let done = move |bytes| drop(sender.send(bytes));
            self.remote.fetch_async(path.clone(), (version, false), range, Class::Interactive, done);
            let timeout = |_| RemoteError { op: "read", path: path.clone(), kind: ErrorKind::Timeout };
            let bytes = receiver.recv_timeout(PIECE_LIMIT).map_err(timeout)??;
            if let Err(error) = file.write_all(&bytes) {
                return Ok(Err(error));
            }
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
        }
        Ok(Ok(file))
    }

    /// Removes a file that this mount created, if it still has the version that this mount left.
    fn remove_made(&self, permit: &WritePermit, op: &Op, version: Version) {
        let path = &op.path;
        match self.stat_there(path) {
            Ok(Some(now)) if now.is_file() && now.version() == version => {}
            Ok(_) => return,
            Err(error) => return log::warn!("{path}: stays on the server: {error}"),
        }
        match self.remote.unlink(permit, path, self.guard(op, path, Some(version)).as_ref()) {
            Ok(()) => self.emit(&Applied { area: permit.area(), path, change: AppliedChange::Deleted }),
            Err(error) => log::warn!("{path}: stays on the server: {error}"),
        }
    }
}
