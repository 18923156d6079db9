//! The whole new content of one file, in a private local file, while it is open for writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes copied or cleared at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// See the module header. The file has no name: it goes with the process.
pub struct Spool {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    len: u64,
    /// Grows with each change of the content.
    changes: u64,
    /// The value of `changes` that the server has.
    sent: u64,
}

/// A state of the content: what a sender remembers before it starts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolMark {
    pub len: u64,
    changes: u64,
}

impl Spool {
    /// An empty spool in `dir`. It counts as not sent: a file that was created and never written exists too.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        Ok(Self { file, state: Mutex::new(State { len: 0, changes: 1, sent: 0 }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn len(&self) -> u64 {
        self.lock().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is something that the server does not have.
    pub fn is_dirty(&self) -> bool {
        let state = self.lock();
        state.changes != state.sent
    }

    pub fn mark(&self) -> SpoolMark {
        let state = self.lock();
        SpoolMark { len: state.len, changes: state.changes }
    }

    /// The server has the content as it was at `mark`; says whether that is still the newest.
    pub fn sent(&self, mark: SpoolMark) -> bool {
        let mut state = self.lock();
        state.sent = mark.changes;
        state.sent == state.changes
    }

    /// Takes over content that the server has: not a change.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let mut state = self.lock();
        state.len = state.len.max(offset + bytes.len() as u64);
        state.sent = state.changes;
        Ok(())
    }

    pub fn read_at(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let len = self.len();
        let want = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
        let mut bytes = vec![0; want];
        // The spool is as long as `len` says: a shorter file is an error, not an end.
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Writes and returns the new length.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        // `changes` grows before and after: a sender that reads in between finds its mark outdated either way.
        self.lock().changes += 1;
        self.file.write_all_at(bytes, offset)?;
        let mut state = self.lock();
        state.changes += 1;
        state.len = state.len.max(offset + bytes.len() as u64);
        Ok(state.len)
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().changes += 1;
        self.file.set_len(len)?;
        let mut state = self.lock();
        state.changes += 1;
        state.len = len;
        Ok(())
    }

    /// Zeroes a range inside the file.
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK_BYTES];
        let end = offset.saturating_add(len).min(self.len());
        let mut at = offset;
        while at < end {
            let part = (end - at).min(CHUNK_BYTES as u64);
            self.write_at(at, &zeros[..part as usize])?;
            at += part;
        }
        Ok(())
    }

    /// Makes room on the local disk for the range, so that a full disk shows now.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, len)?;
        if !keep_size && end > self.len() {
            self.set_len(end)?;
        }
        Ok(())
    }

    /// On the local disk, for power loss.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spool = Spool::create(dir.path()).expect("created");
        (dir, spool)
    }

    #[test]
    fn a_new_spool_is_dirty_and_a_filled_one_is_not() {
        let (_dir, spool) = spool();
        assert!(spool.is_dirty(), "an empty file must reach the server too");
        spool.fill(0, b"base").expect("filled");
        assert!(!spool.is_dirty());
        spool.write_at(2, b"!!!").expect("written");
        assert!(spool.is_dirty());
        assert_eq!(spool.read_at(0, 100).expect("read"), b"ba!!!");
    }

    #[test]
    fn a_write_during_sending_keeps_it_dirty() {
        let (_dir, spool) = spool();
        spool.write_at(0, b"one").expect("written");
        let mark = spool.mark();
        spool.write_at(0, b"two").expect("written");
        assert!(!spool.sent(mark));
        assert!(spool.is_dirty());
        let mark = spool.mark();
        assert!(spool.sent(mark));
        assert!(!spool.is_dirty());
    }

    #[test]
    fn length_changes_and_holes() {
        let (_dir, spool) = spool();
        spool.write_at(10, b"x").expect("written");
        assert_eq!(spool.read_at(0, 11).expect("read"), b"\0\0\0\0\0\0\0\0\0\0x");
        spool.set_len(4).expect("cut");
        assert_eq!((spool.len(), spool.read_at(2, 10).expect("read").len()), (4, 2));
        spool.set_len(6).expect("grown");
        assert_eq!(spool.read_at(0, 10).expect("read"), [0; 6]);
        spool.allocate(0, 100, true).expect("allocated");
        assert_eq!(spool.len(), 6);
        spool.allocate(0, 100, false).expect("allocated");
        assert_eq!(spool.len(), 100);
        spool.write_at(0, &[7; 100]).expect("written");
        spool.zero(10, 20).expect("zeroed");
        assert_eq!(spool.read_at(9, 3).expect("read"), [7, 0, 0]);
    }
}
