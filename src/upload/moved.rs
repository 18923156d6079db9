//! A save by a temporary file and rename whose rename is a conflict: what was to take the place of the file is kept as its
//! conflict, and the temporary file does not stay on the server, where it would be served.

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

/// How long one piece of the content may take to come back, and how large it is (bytes).
const PIECE_LIMIT: Duration = Duration::from_secs(120);
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
impl Sender {
    /// What becomes of an outcome of a rename; all others stay as they are.
    pub(super) fn keep_moved(&self, permit: &WritePermit, op: &Op, outcome: Outcome) -> Outcome {
        let Action::Rename { to, base: Expected::Version(version), replaced, dir: false } = &op.action else {
            return outcome;
        };
        let Outcome::Conflict(what) = outcome else { return outcome };
        if *replaced == Expected::Absent {
            // A move to another name, and no save: it stays where it was, and nothing is lost.
            return Outcome::Conflict(what);
        }
        let made = self.local.0.made.is(&op.path, *version);
        let file = match self.bring(&op.path, *version) {
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
                if made {
                    self.take_away(permit, op, *version);
                }
            }
            Err(trouble) => log::error!("{to}: keeping a copy failed: {trouble}; it is at {} on the server", op.path),
        }
        Outcome::Conflict(what)
    }

    /// The content of a file of the server, as a local file without a name.
    fn bring(&self, path: &RemotePath, version: Version) -> Result<std::io::Result<File>, RemoteError> {
        let mut file = match tempfile::tempfile() {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut at = 0;
        while at < version.size {
            let (sender, receiver) = mpsc::sync_channel(1);
            let range = at..version.size.min(at + PIECE_BYTES);
            let done = move |bytes| drop(sender.send(bytes));
            self.remote.fetch_async(path.clone(), version, range, Class::Interactive, done);
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

    /// Removes a file that this mount made, if it is as it was left.
    fn take_away(&self, permit: &WritePermit, op: &Op, version: Version) {
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
