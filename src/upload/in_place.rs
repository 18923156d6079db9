//! Saves that overwrite the old bytes, on servers and in directories where a temporary file cannot replace a file.
//! While the server has only a part of the new content, the old content is stored on the local disk. The next attempt
//! overwrites the file only if every byte is of the old or of the new content, so that it never destroys what another
//! writer wrote. A save that has touched the file is not given up before the old content is there again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::outcome::{LINK_PAUSE, Outcome};
use super::sender::Sender;
use crate::attr::{FileKind, Version};
use crate::clock::Deadline;
use crate::durable;
use crate::error::Cause;
use crate::path::RemotePath;
use crate::remote::{Base, RemoteError, Store};
use crate::write::{Action, Expected, Op, OpId, Put, SpoolId};

/// Directory of old contents in the state directory. Each file is named by the number of the spool that replaces it.
const DIR: &str = "replaced";
/// Larger files (bytes) are neither stored nor compared.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How to continue a save that an earlier attempt may have left unfinished.
pub(super) enum Resumed {
    /// The server has a mixture of the old and the new content: it is overwritten.
    GoOn(Base),
    /// The server has the new content already.
    Stored(Version),
    End(Outcome),
}

impl Sender {
    /// Stores the old content before it is overwritten, and records in the journal that the server's file is being
    /// modified.
    pub(super) fn begin_in_place(&self, id: OpId, path: &RemotePath, put: &Put) {
        if let Some(version) = put.base.version().filter(|version| version.size <= MAX_BYTES) {
            let deadline = Deadline::after(self.local.0.view.timeout());
            let old = self.content.read(path, version, 0..version.size, deadline);
            let kept = old.map_err(|error| format!("{error:?}")).and_then(|old| {
                fs::create_dir_all(self.old_dir()).map_err(|e| e.to_string())?;
                let write = |file: &mut File| file.write_all_at(&old, 0);
                durable::replace(&self.old_path(put.spool), write).map_err(|e| e.to_string())
            });
            if let Err(error) = kept {
                log::warn!(
                    "{path}: the file is overwritten in place, and its old content could not be stored on the local disk: {error}"
                );
            }
        }
        self.local.0.journal.touched(id);
    }

    /// Called before a save is given up: if the server may have a part of the new content, the old content is stored
    /// there again. Returns why that is not so; then the save must not be given up.
    pub(super) fn undo_if_touched(&self, id: OpId, op: &Op) -> Option<String> {
        let is_touched = |op: &Op| matches!(&op.action, Action::Put(put) if put.base == Expected::Ours);
        let touched = self.local.queue(|queue| queue.op(id).is_some_and(is_touched));
        let Action::Put(put) = &op.action else { return None };
        if !touched {
            return None;
        }
        let undone = self.undo_in_place(op, put);
        undone.err().map(|why| format!("the server may have a part of the new content, and {why}"))
    }

    fn undo_in_place(&self, op: &Op, put: &Put) -> Result<(), String> {
        let permit = self.admission.permit_sending(op.area).map_err(|refused| Cause::from(refused).to_string())?;
        let source = File::open(self.local.0.journal.spool_path(put.spool)).map_err(|error| error.to_string())?;
        let base = match self.resume_in_place(op, put, &source).map_err(|error| error.to_string())? {
            Resumed::GoOn(base) => base,
            Resumed::Stored(_) => return Err("all of it was found there".into()),
            // It has nothing of ours any more.
            Resumed::End(Outcome::Conflict(_)) => return Ok(()),
            Resumed::End(_) => return Err("what it has is not known".into()),
        };
        let none = |error| format!("the old content is not on the local disk: {error}");
        let old = File::open(self.old_path(put.spool)).map_err(none)?;
        let len = old.metadata().map_err(none)?.len();
        let how = Store {
            base,
            base_sum: None,
            unchanged: Vec::new(),
            perm: None,
            made_with: None,
            own_perm: false,
            mtime: None,
            temp_dir: None,
        };
        let progress = |_| self.local.0.journal.progressed();
        let stored = self.remote.store(&permit, &op.path, &old, len, &how, &progress);
        stored.map_err(|error| format!("the old content could not be stored: {error}"))?;
        log::info!("{}: the server has the old content again", op.path);
        self.end_in_place(put.spool);
        Ok(())
    }

    /// Removes the stored old content after the save.
    pub(super) fn end_in_place(&self, spool: SpoolId) {
        // Most saves did not store an old content.
        drop(fs::remove_file(self.old_path(spool)));
    }

    /// Checks what an earlier attempt left on the server.
    pub(super) fn resume_in_place(&self, op: &Op, put: &Put, source: &File) -> Result<Resumed, RemoteError> {
        let Some(now) = self.stat_there(&op.path)? else {
            let gone = Outcome::Conflict("it was removed on the server while it was being saved".into());
            return Ok(Resumed::End(self.unless_away(op, gone)));
        };
        if now.is_dir() {
            return Ok(Resumed::End(Outcome::Conflict("there is a directory of that name on the server now".into())));
        }
        if now.kind != FileKind::File {
            // Reading it would follow a symbolic link.
            return Ok(Resumed::End(Outcome::Conflict("another writer replaced it on the server".into())));
        }
        let found = now.version();
        if found.size > MAX_BYTES || put.len > MAX_BYTES {
            return Ok(Resumed::GoOn(Base::Version(found)));
        }
        let deadline = Deadline::after(self.local.0.view.timeout());
        let there = match self.content.read_anew(&op.path, found, deadline) {
            Ok(there) => there,
            Err(error) => {
                let why = format!("the server's content cannot be read: {error:?}");
                return Ok(Resumed::End(Outcome::Later(LINK_PAUSE, why)));
            }
        };
        let mut ours = vec![0; put.len as usize];
        if source.read_exact_at(&mut ours, 0).is_err() {
            return Ok(Resumed::GoOn(Base::Version(found)));
        }
        let old = fs::read(self.old_path(put.spool)).unwrap_or_default();
        if there == ours {
            return Ok(Resumed::Stored(found));
        }
        if is_mixture(&there, &ours, &old) {
            return Ok(Resumed::GoOn(Base::Version(found)));
        }
        let what = "another writer changed it on the server while it was being saved";
        Ok(Resumed::End(Outcome::Conflict(what.into())))
    }

    fn old_dir(&self) -> PathBuf {
        self.local.0.rejects.state_dir().join(DIR)
    }

    fn old_path(&self, spool: SpoolId) -> PathBuf {
        self.old_dir().join(spool.0.to_string())
    }
}

/// Whether every byte belongs to the new or the old content. Beyond the end of the shorter one, a part that did not arrive
/// reads as zeros: the server's file had that size for a moment.
fn is_mixture(there: &[u8], ours: &[u8], old: &[u8]) -> bool {
    let fits = there.len() <= ours.len().max(old.len());
    let is_one = |(at, byte): (usize, &u8)| {
        ours.get(at) == Some(byte) || old.get(at) == Some(byte) || (*byte == 0 && at >= old.len().min(ours.len()))
    };
    fits && there.iter().enumerate().all(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_consists_of_old_and_new_is_a_mixture() {
        let (ours, old) = (b"new content".as_slice(), b"old bytes".as_slice());
        for there in
            [&b"new contebytes"[..0], b"new bytes", b"old bytes", b"new conte", b"new bytes\0\0", b"old byteent"]
        {
            assert!(is_mixture(there, ours, old), "{there:?}");
        }
        for there in [&b"theirs"[..], b"new content and more", b"old bytes!"] {
            assert!(!is_mixture(there, ours, old), "{there:?}");
        }
        assert!(is_mixture(b"old\0\0\0\0\0\0", b"new", old), "cut to the size of ours, and made longer again");
        assert!(is_mixture(b"new", ours, b""), "a beginning of ours");
        assert!(!is_mixture(b"another", ours, b""));
    }
}
