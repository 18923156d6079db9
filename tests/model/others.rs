//! Another writer on the server's disk, who always sees what is replaced.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::ledger::{Actor, Ledger};

/// How it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The file stays the same one, and gets other bytes.
    InPlace,
    /// The same, with as many bytes as before; often within the same second.
    SameSize,
    /// Another file takes its place.
    ByRename,
    Remove,
}

/// One change by another writer.
pub struct Other {
    /// One at a time.
    pub turn: Arc<Mutex<()>>,
    pub ledger: Arc<Mutex<Ledger>>,
    /// The directory of the code.
    pub code: PathBuf,
    pub path: &'static str,
    pub how: How,
}

impl Other {
    pub fn act(&self) {
        let _turn = self.turn.lock();
        let at = self.code.join(self.path);
        match self.how {
            How::InPlace | How::SameSize if at.exists() => self.overwrite(&at),
            How::InPlace | How::SameSize | How::ByRename => self.replace(&at),
            How::Remove => self.remove(&at),
        }
    }

    /// A place beside the code, on the same disk.
    fn aside(&self) -> PathBuf {
        self.code.with_file_name(format!("aside-{}", self.ledger.lock().next()))
    }

    fn new_content(&self, before: Option<&[u8]>) -> (usize, Vec<u8>) {
        let mut ledger = self.ledger.lock();
        let len = match before {
            Some(before) if self.how == How::SameSize => before.len(),
            _ => 17 + 3 * ledger.next(),
        };
        ledger.new_content(Actor::Other, self.path, len)
    }

    /// `new` is on the server now, in place of these bytes.
    fn stored(&self, new: usize, before: Option<&[u8]>) {
        let mut ledger = self.ledger.lock();
        let before = before.and_then(|bytes| ledger.which(bytes));
        ledger.replaced(before, new);
        ledger.accepted(new);
        ledger.changed(self.path, Actor::Other);
    }

    fn overwrite(&self, at: &Path) {
        let Ok(file) = File::options().read(true).write(true).open(at) else { return };
        let before = fs::read(at).unwrap_or_default();
        let (id, bytes) = self.new_content(Some(&before));
        file.write_all_at(&bytes, 0).expect("written");
        file.set_len(bytes.len() as u64).expect("cut");
        let still = |meta: fs::Metadata| meta.ino() == file.metadata().expect("open").ino();
        if fs::metadata(at).is_ok_and(still) {
            self.stored(id, Some(&before));
        }
    }

    /// In one step, so that what is replaced is known for certain.
    fn replace(&self, at: &Path) {
        let aside = self.aside();
        let (id, bytes) = self.new_content(None);
        fs::write(&aside, bytes).expect("written");
        let exchanged = renameat_with(CWD, &aside, CWD, at, RenameFlags::EXCHANGE);
        let done = exchanged.or_else(|_| renameat_with(CWD, &aside, CWD, at, RenameFlags::NOREPLACE));
        if done.is_ok() {
            let before = fs::read(&aside).ok();
            self.stored(id, before.as_deref());
        }
        drop(fs::remove_file(aside));
    }

    fn remove(&self, at: &Path) {
        let aside = self.aside();
        if fs::rename(at, &aside).is_ok() {
            let bytes = fs::read(&aside).unwrap_or_default();
            let mut ledger = self.ledger.lock();
            let before = ledger.which(&bytes);
            ledger.removed(before);
            ledger.changed(self.path, Actor::Other);
            drop(fs::remove_file(aside));
        }
    }
}
