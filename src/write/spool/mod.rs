//! The whole new content of one file, in a private local file, from the first write until the server has it.
//!
//! A sealed spool is named by an operation in the journal and never changes again. Further writes go to a copy.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::write::op::SpoolId;

/// Bytes zeroed at a time.
const CHUNK_BYTES: usize = 128 * 1024;
/// Size (bytes) from which a checksum is not computed under the lock.
const LARGE_BYTES: u64 = 1024 * 1024;

/// See the module documentation.
pub struct Spool {
    id: SpoolId,
    path: PathBuf,
    state: Mutex<State>,
    /// Held while the spool exists: its file is not reused for another spool meanwhile.
    _hold: Hold,
}

/// The owner of a clone may be using the file.
pub(super) type Hold = Arc<()>;

/// Files of released spools, for reuse. Creating and removing thousands of files is slow on local disks (ext4 avoids
/// inodes that were freed a moment ago: 0.1 ms and more per file, against 0.03 ms with reuse).
#[derive(Default)]
pub(super) struct FreeFiles(Mutex<Vec<PathBuf>>, AtomicU64);

/// Files beyond this number are removed, because an empty file takes an inode.
const MAX_FREE: usize = 4096;

impl FreeFiles {
    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock()
    }

    /// Takes a file that no spool has open.
    pub(super) fn give(&self, path: PathBuf) -> io::Result<()> {
        if self.lock().len() >= MAX_FREE {
            return std::fs::remove_file(&path);
        }
        // Renamed first: after a loss of power an old record must find its content or nothing, never an empty file.
        let free = path.with_extension(format!("free-{}", self.1.fetch_add(1, Ordering::Relaxed)));
        std::fs::rename(&path, &free)?;
        let file = File::options().write(true).open(&free)?;
        if file.metadata()?.nlink() > 1 {
            // A rejected copy may be a hard link to the file.
            return std::fs::remove_file(&free);
        }
        file.set_len(0)?;
        self.lock().push(free);
        Ok(())
    }

    /// Removes all files.
    pub(super) fn remove(&self) {
        for path in self.lock().drain(..) {
            // If it fails, the next mount reuses the file.
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
    /// Closed while it is not in use, because there may be thousands of spools.
    file: Option<Arc<File>>,
    len: u64,
    /// Whether it has content that no operation carries yet.
    dirty: bool,
    sealed: bool,
    /// Whether the journal knows it although it is not sealed, so that the file is kept when the spool is dropped.
    stays: bool,
    sum: Sum,
}

/// The checksum of a content, computed while it is written.
#[derive(Default)]
struct Sum {
    /// Covers so many bytes from the start, if they were written in sequence.
    running: Option<(crc32fast::Hasher, u64)>,
    /// Number of changes: a checksum that was computed during a change is outdated.
    changes: u64,
    /// The checksum of the whole content after so many changes.
    taken: Option<(u64, u32)>,
}

impl Sum {
    fn of_nothing() -> Self {
        Self { running: Some((crc32fast::Hasher::new(), 0)), ..Self::default() }
    }

    fn wrote(&mut self, offset: u64, bytes: &[u8]) {
        self.changes += 1;
        match &mut self.running {
            Some((hasher, at)) if *at == offset => {
                hasher.update(bytes);
                *at += bytes.len() as u64;
            }
            _ => self.running = None,
        }
    }

    /// Notes a change that was not an append.
    fn changed(&mut self, len: u64) {
        self.changes += 1;
        self.running = (len == 0).then(|| (crc32fast::Hasher::new(), 0));
    }

    fn known(&self, len: u64) -> Option<u32> {
        let running = self.running.as_ref().filter(|(_, at)| *at == len).map(|(hasher, _)| hasher.clone().finalize());
        running.or_else(|| self.taken.filter(|(changes, _)| *changes == self.changes).map(|(_, sum)| sum))
    }
}

/// A content that does not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    pub id: SpoolId,
    pub len: u64,
    /// CRC-32 of the content.
    pub sum: Option<u32>,
}

impl Spool {
    /// An empty spool. It counts as dirty, because a file that was created and never written must be sent, too.
    pub(super) fn create(id: SpoolId, path: PathBuf, free: &FreeFiles, hold: Hold) -> io::Result<Self> {
        let file = free.take(&path)?;
        let state = State {
            file: Some(Arc::new(file)),
            len: 0,
            dirty: true,
            sealed: false,
            stays: false,
            sum: Sum::of_nothing(),
        };
        Ok(Self { id, path, state: Mutex::new(state), _hold: hold })
    }

    /// The spool of an operation of an earlier mount.
    pub(super) fn reopen(id: SpoolId, path: PathBuf, len: u64, hold: Hold) -> Self {
        let state = State { file: None, len, dirty: false, sealed: true, stays: false, sum: Sum::default() };
        Self { id, path, state: Mutex::new(state), _hold: hold }
    }

    /// A spool that was not sealed, with its present content.
    pub(super) fn resume(id: SpoolId, path: PathBuf, hold: Hold) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        let len = file.metadata()?.len();
        let state =
            State { file: Some(Arc::new(file)), len, dirty: true, sealed: false, stays: true, sum: Sum::default() };
        Ok(Self { id, path, state: Mutex::new(state), _hold: hold })
    }

    /// Sets whether the file is kept when the spool is dropped unsealed.
    pub fn stay(&self, stays: bool) {
        self.lock().stays = stays;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn id(&self) -> SpoolId {
        self.id
    }

    /// The path of the file while it is needed.
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
        let file = Arc::new(File::options().read(true).write(!state.sealed).open(path)?);
        state.file = Some(file.clone());
        Ok(file)
    }

    /// Closes the descriptor until the next use.
    pub fn park(&self) {
        let mut state = self.lock();
        if state.sealed {
            state.file = None;
        }
    }

    /// As [`Spool::park`], for a file that stays on this machine and may be written to again.
    pub fn rest(&self) {
        let mut state = self.lock();
        if state.stays {
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

    /// Seals the spool: its content does not change any more.
    pub fn seal(&self) -> Sealed {
        let mut state = self.lock();
        state.sealed = true;
        state.dirty = false;
        let len = state.len;
        let known = state.sum.known(len);
        let taken = || Self::file_of(&mut state, &self.path).ok().and_then(|file| checksum(&file, len).ok());
        Sealed { id: self.id, len, sum: known.or_else(taken) }
    }

    /// Computes the checksum without the lock before the spool is sealed; it takes seconds for gigabytes.
    pub fn take_sum(&self) {
        let (file, len, changes) = {
            let mut state = self.lock();
            if state.sealed || state.sum.known(state.len).is_some() {
                return;
            }
            let Ok(file) = Self::file_of(&mut state, &self.path) else { return };
            (file, state.len, state.sum.changes)
        };
        if let Ok(sum) = checksum(&file, len) {
            self.lock().sum.taken = Some((changes, sum));
        }
    }

    /// Whether sealing would take long, because the checksum is not known.
    pub fn needs_sum(&self) -> bool {
        let state = self.lock();
        state.len > LARGE_BYTES && state.sum.known(state.len).is_none()
    }

    /// Undoes [`Spool::seal`] if the operation could not be recorded.
    pub fn unseal(&self) {
        let mut state = self.lock();
        state.sealed = false;
        state.dirty = true;
    }

    /// Writes content that the server has, so that the spool does not become dirty.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        Self::file_of(&mut state, &self.path)?.write_all_at(bytes, offset)?;
        if !bytes.is_empty() {
            state.sum.wrote(offset, bytes);
            state.len = state.len.max(offset + bytes.len() as u64);
        }
        state.dirty = false;
        Ok(())
    }

    /// Copies the content of another spool, up to `keep` bytes.
    pub fn copy_from(&self, other: &Spool, keep: u64) -> io::Result<()> {
        let (source, len) = (other.file()?, other.len().min(keep));
        let mut state = self.lock();
        let target = Self::file_of(&mut state, &self.path)?;
        state.sum.changed(len);
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
        // The spool has the length `len`: a shorter file is an error, not its end.
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Changes the content and returns the new length; `None` if the spool is sealed, so that a copy must be changed
    /// instead.
    fn change(&self, how: impl FnOnce(&File, u64) -> io::Result<u64>) -> io::Result<Option<u64>> {
        self.change_noting(how, |sum, len| sum.changed(len))
    }

    fn change_noting(
        &self,
        how: impl FnOnce(&File, u64) -> io::Result<u64>,
        note: impl FnOnce(&mut Sum, u64),
    ) -> io::Result<Option<u64>> {
        let mut state = self.lock();
        if state.sealed {
            return Ok(None);
        }
        let file = Self::file_of(&mut state, &self.path)?;
        // Set before the result is known, because a failed write may have changed a part.
        state.dirty = true;
        let changed = how(&file, state.len);
        match &changed {
            Ok(len) => note(&mut state.sum, *len),
            Err(_) => state.sum.changed(u64::MAX),
        }
        state.len = changed?;
        Ok(Some(state.len))
    }

    /// Writes the bytes. As in POSIX, an empty write beyond the end does not extend the content.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<Option<u64>> {
        if bytes.is_empty() {
            return self.change_noting(|_, len| Ok(len), |_, _| {});
        }
        let write = |file: &File, len: u64| {
            file.write_all_at(bytes, offset)?;
            Ok(len.max(offset + bytes.len() as u64))
        };
        self.change_noting(write, |sum, _| sum.wrote(offset, bytes))
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

    /// Reserves space on the local disk for the range, so that a full disk is reported now.
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

    /// Flushes the content to the local disk.
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
        // A sealed spool belongs to the journal.
        let stays = self.is_sealed() || self.lock().stays;
        if !stays && let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests;
