//! The whole new content of one file, in a private local file, from the first write until the server has it.
//!
//! A spool that was sealed is what an operation in the journal names: it never changes again. Who writes on gets a copy.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::op::SpoolId;

/// Bytes cleared at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// See the module header.
pub struct Spool {
    id: SpoolId,
    path: PathBuf,
    state: Mutex<State>,
    /// Held as long as somebody may read or write it: its file is not given to another spool meanwhile.
    _hold: Hold,
}

/// Whoever has a clone may be using the file.
pub(super) type Hold = Arc<()>;

/// Files that no spool needs any more, for those that come. Making and removing thousands of files is what a local disk is
/// slow at (ext4 searches long for an inode that was not freed a moment ago: 0.1 ms and more, against 0.03 ms here).
#[derive(Default)]
pub(super) struct FreeFiles(Mutex<Vec<PathBuf>>);

/// More are removed: an empty file costs an inode.
const MAX_FREE: usize = 4096;

impl FreeFiles {
    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock()
    }

    /// Takes a file that nobody has open.
    pub(super) fn give(&self, path: PathBuf) -> io::Result<()> {
        if self.lock().len() >= MAX_FREE {
            return std::fs::remove_file(&path);
        }
        let file = File::options().write(true).open(&path)?;
        if file.metadata()?.nlink() > 1 {
            // What the server rejected may be kept under another name.
            return std::fs::remove_file(&path);
        }
        file.set_len(0)?;
        self.lock().push(path);
        Ok(())
    }

    /// Nobody needs one any more.
    pub(super) fn remove(&self) {
        for path in self.lock().drain(..) {
            // The next mount finds it and takes it over.
            let _ = std::fs::remove_file(path);
        }
    }

    /// An empty file at this path.
    fn take(&self, path: &Path) -> io::Result<File> {
        while let Some(free) = self.lock().pop() {
            if std::fs::rename(&free, path).is_ok() {
                return File::options().read(true).write(true).open(path);
            }
        }
        File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
    }
}

struct State {
    /// Closed while nobody uses it: there may be thousands of spools.
    file: Option<Arc<File>>,
    len: u64,
    /// There is something that no operation carries yet.
    dirty: bool,
    sealed: bool,
    /// The journal knows it although it is not sealed: it outlives its owner.
    stays: bool,
}

/// A content that will not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    pub id: SpoolId,
    pub len: u64,
    /// CRC-32 of the content.
    pub sum: Option<u32>,
}

impl Spool {
    /// An empty spool. It counts as dirty: a file that was created and never written exists too.
    pub(super) fn create(id: SpoolId, path: PathBuf, free: &FreeFiles, hold: Hold) -> io::Result<Self> {
        let file = free.take(&path)?;
        let state = State { file: Some(Arc::new(file)), len: 0, dirty: true, sealed: false, stays: false };
        Ok(Self { id, path, state: Mutex::new(state), _hold: hold })
    }

    /// The content that an operation of an earlier mount names.
    pub(super) fn reopen(id: SpoolId, path: PathBuf, len: u64, hold: Hold) -> Self {
        let state = State { file: None, len, dirty: false, sealed: true, stays: false };
        Self { id, path, state: Mutex::new(state), _hold: hold }
    }

    /// A spool that was not sealed, as it is.
    pub(super) fn resume(id: SpoolId, path: PathBuf, hold: Hold) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        let len = file.metadata()?.len();
        let state = State { file: Some(Arc::new(file)), len, dirty: true, sealed: false, stays: true };
        Ok(Self { id, path, state: Mutex::new(state), _hold: hold })
    }

    /// Whether it outlives its owner without being sealed.
    pub fn stay(&self, stays: bool) {
        self.lock().stays = stays;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn id(&self) -> SpoolId {
        self.id
    }

    /// Where the content is while it is needed.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    pub fn file(&self) -> io::Result<Arc<File>> {
        Self::file_of(&mut self.lock(), &self.path)
    }

    fn file_of(state: &mut State, path: &PathBuf) -> io::Result<Arc<File>> {
        if let Some(file) = &state.file {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(path)?);
        state.file = Some(file.clone());
        Ok(file)
    }

    /// Nobody reads or writes for now.
    pub fn park(&self) {
        let mut state = self.lock();
        if state.sealed {
            state.file = None;
        }
    }

    pub fn len(&self) -> u64 {
        self.lock().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_dirty(&self) -> bool {
        self.lock().dirty
    }

    pub fn is_sealed(&self) -> bool {
        self.lock().sealed
    }

    /// From here on it stays as it is.
    pub fn seal(&self) -> Sealed {
        let mut state = self.lock();
        state.sealed = true;
        state.dirty = false;
        let file = Self::file_of(&mut state, &self.path).ok();
        Sealed { id: self.id, len: state.len, sum: file.and_then(|file| checksum(&file, state.len).ok()) }
    }

    /// The operation could not be recorded: it is as before.
    pub fn unseal(&self) {
        let mut state = self.lock();
        state.sealed = false;
        state.dirty = true;
    }

    /// Takes over content that the server has: not a change.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        Self::file_of(&mut state, &self.path)?.write_all_at(bytes, offset)?;
        state.len = state.len.max(offset + bytes.len() as u64);
        state.dirty = false;
        Ok(())
    }

    /// Takes over the content of another spool, up to `keep` bytes.
    pub fn copy_from(&self, other: &Spool, keep: u64) -> io::Result<()> {
        let (source, len) = (other.file()?, other.len().min(keep));
        let mut state = self.lock();
        let target = Self::file_of(&mut state, &self.path)?;
        let mut at = 0;
        while at < len {
            let (mut from, mut to) = (at, at);
            let left = usize::try_from(len - at).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(&source, Some(&mut from), &target, Some(&mut to), left)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n as u64,
            }
        }
        state.len = len;
        state.dirty = false;
        Ok(())
    }

    pub fn read_at(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let (file, len) = {
            let mut state = self.lock();
            (Self::file_of(&mut state, &self.path)?, state.len)
        };
        let want = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
        let mut bytes = vec![0; want];
        // The spool is as long as `len` says: a shorter file is an error, not an end.
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Changes the content; `None` when it is sealed: a copy must be written instead. Returns the new length.
    fn change(&self, how: impl FnOnce(&File, u64) -> io::Result<u64>) -> io::Result<Option<u64>> {
        let mut state = self.lock();
        if state.sealed {
            return Ok(None);
        }
        let file = Self::file_of(&mut state, &self.path)?;
        // Before the outcome is known: half a write is a change too.
        state.dirty = true;
        state.len = how(&file, state.len)?;
        Ok(Some(state.len))
    }

    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<Option<u64>> {
        self.change(|file, len| {
            file.write_all_at(bytes, offset)?;
            Ok(len.max(offset + bytes.len() as u64))
        })
    }

    pub fn set_len(&self, len: u64) -> io::Result<Option<u64>> {
        self.change(|file, _| file.set_len(len).map(|()| len))
    }

    /// Zeroes a range inside the file.
    pub fn zero(&self, offset: u64, more: u64) -> io::Result<Option<u64>> {
        self.change(|file, len| {
            let zeros = vec![0; CHUNK_BYTES];
            let (mut at, end) = (offset, offset.saturating_add(more).min(len));
            while at < end {
                let part = (end - at).min(CHUNK_BYTES as u64);
                file.write_all_at(&zeros[..part as usize], at)?;
                at += part;
            }
            Ok(len)
        })
    }

    /// Makes room on the local disk for the range, so that a full disk shows now.
    pub fn allocate(&self, offset: u64, more: u64, keep_size: bool) -> io::Result<Option<u64>> {
        let end = offset.checked_add(more).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.change(|file, len| {
            rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, more)?;
            if keep_size || end <= len {
                return Ok(len);
            }
            file.set_len(end).map(|()| end)
        })
    }

    /// On the local disk, for power loss.
    pub fn sync(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }
}

/// CRC-32 of the first `len` bytes.
pub(super) fn checksum(file: &File, len: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; CHUNK_BYTES.min(usize::try_from(len).unwrap_or(CHUNK_BYTES))];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(CHUNK_BYTES).min(piece.len());
        file.read_exact_at(&mut piece[..part], at)?;
        hasher.update(&piece[..part]);
        at += part as u64;
    }
    Ok(hasher.finalize())
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is sealed belongs to the journal.
        let stays = self.is_sealed() || self.lock().stays;
        if !stays && let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let free = FreeFiles::default();
        let spool = Spool::create(SpoolId(1), dir.path().join("1"), &free, Hold::default()).expect("created");
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
    fn what_is_sealed_never_changes_and_outlives_its_owner() {
        let (dir, spool) = spool();
        spool.write_at(0, b"one").expect("written");
        assert_eq!(spool.seal(), Sealed { id: SpoolId(1), len: 3, sum: Some(crc32fast::hash(b"one")) });
        assert_eq!(spool.write_at(0, b"two").expect("no error"), None);
        assert_eq!(spool.set_len(0).expect("no error"), None);
        spool.park();
        let free = FreeFiles::default();
        let copy = Spool::create(SpoolId(2), dir.path().join("2"), &free, Hold::default()).expect("created");
        copy.copy_from(&spool, 2).expect("copied");
        assert!(!copy.is_dirty());
        copy.write_at(2, b"!").expect("written");
        assert_eq!(copy.read_at(0, 9).expect("read"), b"on!");
        drop((spool, copy));
        assert_eq!(std::fs::read(dir.path().join("1")).expect("there"), b"one");
        assert!(!dir.path().join("2").exists());
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
        let bytes = spool.read_at(0, 100).expect("read");
        assert!(bytes[10..30].iter().all(|b| *b == 0) && bytes[30..].iter().all(|b| *b == 7));
    }
}
