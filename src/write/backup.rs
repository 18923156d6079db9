//! Backups: the changes that this mount made in code, stored on the local disk until the deployed commit has them.
//!
//! The platform does not back up uncommitted changes. For each changed path, the store has its newest content (a file
//! that is named by git's blob name) and a record of the change. Nothing is restored automatically; `pantheonfs
//! rescue` reads the store, with and without a mount.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::records::{Records, read};
use crate::attr::BlobId;
use crate::durable;
use crate::path::RemotePath;

pub(super) const KIND: u8 = b'K';
/// Largest size of all backups (bytes). Beyond it new content is not backed up, and the mount reports that.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// The log is rewritten when it has grown to this size (bytes) and most of its records are outdated.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
const CHUNK: usize = 128 * 1024;

/// The kind of change of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The path has this content and git mode.
    Content {
        blob: BlobId,
        size: u64,
        mode: u32,
    },
    Deleted,
    /// The path was renamed, with everything below it, from a path whose content is in the commit.
    Moved {
        from: RemotePath,
    },
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Below the code directory.
    pub path: RemotePath,
    pub what: What,
    /// Seconds since the epoch.
    pub at: u64,
    /// The commit that the environment ran at that time.
    pub commit: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Keep(Backup),
    Forget(RemotePath),
}

/// See the module documentation.
pub struct Backups {
    dir: PathBuf,
    log: Records<Record>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    copies: BTreeMap<RemotePath, Backup>,
    /// For each blob, how many records name it and how many writers are about to.
    uses: HashMap<BlobId, usize>,
    /// Size of all contents.
    bytes: u64,
}

impl State {
    fn new(copies: BTreeMap<RemotePath, Backup>) -> Self {
        let mut state = Self::default();
        for copy in copies.into_values() {
            state.insert(copy);
        }
        state
    }

    /// Returns the replaced blob if no record names it any more.
    fn insert(&mut self, copy: Backup) -> Option<BlobId> {
        if let What::Content { blob, size, .. } = copy.what {
            self.hold(blob);
            self.bytes += size;
        }
        let old = self.copies.insert(copy.path.clone(), copy);
        self.unused(old)
    }

    fn remove(&mut self, path: &RemotePath) -> Option<BlobId> {
        let old = self.copies.remove(path);
        self.unused(old)
    }

    fn unused(&mut self, old: Option<Backup>) -> Option<BlobId> {
        let What::Content { blob, size, .. } = old?.what else { return None };
        self.bytes = self.bytes.saturating_sub(size);
        self.release(blob)
    }

    fn hold(&mut self, blob: BlobId) {
        *self.uses.entry(blob).or_default() += 1;
    }

    /// Returns the blob if this was its last use.
    fn release(&mut self, blob: BlobId) -> Option<BlobId> {
        let uses = self.uses.get_mut(&blob)?;
        *uses -= 1;
        if *uses > 0 {
            return None;
        }
        self.uses.remove(&blob);
        Some(blob)
    }
}

fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("kept")
}

fn fold(records: Vec<Record>) -> BTreeMap<RemotePath, Backup> {
    let mut copies = BTreeMap::new();
    for record in records {
        match record {
            Record::Keep(copy) => drop(copies.insert(copy.path.clone(), copy)),
            Record::Forget(path) => drop(copies.remove(&path)),
        }
    }
    copies
}

/// The backups of an environment, in path order, whether it is mounted or not; and whether their log is damaged, so
/// that some may be missing.
pub fn backups_in(state_dir: &Path) -> io::Result<(Vec<Backup>, bool)> {
    let found = read(&dir_of(state_dir).join("log"), KIND)?;
    Ok((fold(found.records).into_values().collect(), found.damage.is_some()))
}

/// The content of a backup, checked against its name.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if the bytes on the disk do not match the name; otherwise the error of reading
/// them.
pub fn read_backup(state_dir: &Path, blob: BlobId) -> io::Result<Vec<u8>> {
    let bytes = fs::read(blob_path(&dir_of(state_dir), blob))?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(&bytes);
    if BlobId(hasher.finalize().into()) == blob {
        return Ok(bytes);
    }
    let text = format!("the backup is damaged: its {} bytes do not match its checksum", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

fn blob_path(dir: &Path, blob: BlobId) -> PathBuf {
    dir.join("blobs").join(blob.to_string())
}

impl Backups {
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = dir_of(state_dir);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("blobs"))?;
        let (log, records) = Records::open(&dir.join("log"), KIND)?;
        Ok(Self { dir, log, state: Mutex::new(State::new(fold(records))) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn copies(&self) -> Vec<Backup> {
        self.lock().copies.values().cloned().collect()
    }

    /// The number of backups and the time of the oldest (seconds since the epoch).
    pub fn summary(&self) -> (usize, Option<u64>) {
        let state = self.lock();
        (state.copies.len(), state.copies.values().map(|copy| copy.at).min())
    }

    fn blob(&self, blob: BlobId) -> PathBuf {
        blob_path(&self.dir, blob)
    }

    /// Backs up the first `len` bytes of `source` as the content of `path`.
    pub fn content(
        &self,
        path: &RemotePath,
        source: &File,
        (len, mode): (u64, u32),
        at: u64,
        commit: Option<String>,
    ) -> io::Result<()> {
        self.room(len)?;
        let mut held = None;
        let kept = self.keep_blob(source, len, &mut held).and_then(|blob| {
            self.keep(Backup { path: path.clone(), what: What::Content { blob, size: len, mode }, at, commit })
        });
        let unused = held.and_then(|blob| self.lock().release(blob));
        self.drop_blobs(unused);
        kept
    }

    /// Stores a blob and syncs it before a record names it: after a power loss, a record with empty content would
    /// pass for a backup. The blob is counted as used before it is in place, so that dropping another record of the
    /// same content does not remove it.
    fn keep_blob(&self, source: &File, len: u64, held: &mut Option<BlobId>) -> io::Result<BlobId> {
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {len}\0"));
        let (mut buffer, mut done, mut blob) = (vec![0; CHUNK], 0, BlobId([0; 20]));
        durable::replace_named(&self.dir.join("blobs"), |copy| {
            while done < len {
                let want = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
                source.read_exact_at(&mut buffer[..want], done)?;
                hasher.update(&buffer[..want]);
                copy.write_all(&buffer[..want])?;
                done += want as u64;
            }
            blob = BlobId(hasher.finalize().into());
            self.lock().hold(blob);
            *held = Some(blob);
            Ok(blob.to_string().into())
        })?;
        Ok(blob)
    }

    /// Backs up bytes that are in memory.
    pub fn bytes(&self, path: &RemotePath, bytes: &[u8], mode: u32, at: u64, commit: Option<String>) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        self.content(path, &file, (bytes.len() as u64, mode), at, commit)
    }

    /// Records that the path, with everything below it, was deleted.
    pub fn deleted(&self, path: &RemotePath, at: u64, commit: Option<String>) -> io::Result<()> {
        self.keep(Backup { path: path.clone(), what: What::Deleted, at, commit })
    }

    /// Records that the path was renamed; the backups of it and of everything below it are renamed, too.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, at: u64, commit: Option<String>) -> io::Result<()> {
        self.change(|copies| {
            let below = || copies.values().filter(|copy| copy.path.starts_with(from));
            let mut records = Vec::new();
            let known = copies.get(from).is_some_and(|copy| matches!(copy.what, What::Content { .. }));
            if !known {
                // The committed content is still under the old path.
                let origin = match copies.get(from).map(|copy| &copy.what) {
                    Some(What::Moved { from: origin }) => origin.clone(),
                    _ => from.clone(),
                };
                let what = What::Moved { from: origin };
                records.push(Record::Keep(Backup { path: to.clone(), what, at, commit: commit.clone() }));
            }
            for copy in below() {
                let Some(rest) = copy.path.strip_prefix(from) else { continue };
                let path = if rest.is_root() { to.clone() } else { to.join_path(&rest) };
                if known || !rest.is_root() {
                    records.push(Record::Keep(Backup { path, ..copy.clone() }));
                }
            }
            records.extend(below().map(|copy| Record::Forget(copy.path.clone())));
            records.push(Record::Keep(Backup { path: from.clone(), what: What::Deleted, at, commit }));
            records
        })
    }

    /// Imports the backups of another state directory of the same environment. Of two backups of a path the newer one
    /// is used; damaged content is not imported and stays where it is.
    ///
    /// # Errors
    ///
    /// An error of the local disk.
    pub fn adopt(&self, state_dir: &Path) -> io::Result<()> {
        for copy in backups_in(state_dir)?.0 {
            if self.lock().copies.get(&copy.path).is_some_and(|own| own.at >= copy.at) {
                continue;
            }
            match copy.what {
                What::Content { blob, mode, .. } => match read_backup(state_dir, blob) {
                    Ok(bytes) => self.bytes(&copy.path, &bytes, mode, copy.at, copy.commit)?,
                    Err(error) => log::error!("{}: {error}", copy.path),
                },
                What::Deleted | What::Moved { .. } => self.keep(copy)?,
            }
        }
        Ok(())
    }

    fn keep(&self, copy: Backup) -> io::Result<()> {
        self.change(|_| vec![Record::Keep(copy)])
    }

    /// Appends the records that `decide` returns, all or none, under the lock. They are on the disk when this
    /// returns; only then are blobs removed that no record names any more.
    fn change(&self, decide: impl FnOnce(&BTreeMap<RemotePath, Backup>) -> Vec<Record>) -> io::Result<()> {
        let mut unused = Vec::new();
        {
            let mut state = self.lock();
            let records = decide(&state.copies);
            if records.is_empty() {
                return Ok(());
            }
            self.log.append(&records)?;
            for record in records {
                unused.extend(match record {
                    Record::Keep(copy) => state.insert(copy),
                    Record::Forget(path) => state.remove(&path),
                });
            }
        }
        self.log.sync()?;
        self.drop_blobs(unused);
        self.compact()
    }

    /// Removes blobs that no record names any more, unless a new record does.
    fn drop_blobs(&self, unused: impl IntoIterator<Item = BlobId>) {
        for blob in unused {
            let state = self.lock();
            if !state.uses.contains_key(&blob)
                && let Err(error) = fs::remove_file(self.blob(blob))
            {
                log::debug!("{blob}: {error}");
            }
        }
    }

    /// Drops the backups that a commit has: `committed` returns what the commit has at a path (blob and git mode;
    /// `None`: nothing).
    pub fn drop_committed(&self, committed: impl Fn(&RemotePath) -> Option<(BlobId, u32)>) -> io::Result<()> {
        let is_done = |copy: &Backup| match &copy.what {
            What::Content { blob, mode, .. } => committed(&copy.path) == Some((*blob, *mode)),
            What::Deleted => committed(&copy.path).is_none(),
            What::Moved { from } => committed(&copy.path).is_some() && committed(from).is_none(),
        };
        let done: Vec<Backup> = self.copies().into_iter().filter(is_done).collect();
        self.change(|copies| {
            // A path that was written again meanwhile has a new backup, which stays.
            let still = done.into_iter().filter(|copy| copies.get(&copy.path) == Some(copy));
            still.map(|copy| Record::Forget(copy.path)).collect()
        })
    }

    /// Flushes all backups to the disk. When this returns, they survive a loss of power.
    ///
    /// # Errors
    ///
    /// An error of the local disk. Missing content is no error here; it is reported when it is restored.
    pub fn sync(&self) -> io::Result<()> {
        for copy in self.copies() {
            if let What::Content { blob, .. } = copy.what {
                match File::open(self.blob(blob)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    opened => opened?.sync_data()?,
                }
            }
        }
        File::open(self.dir.join("blobs"))?.sync_all()?;
        self.log.sync()
    }

    fn room(&self, more: u64) -> io::Result<()> {
        let now = self.lock().bytes;
        if now.saturating_add(more) > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "4 GiB of uncommitted work are backed up already",
            ));
        }
        Ok(())
    }

    fn compact(&self) -> io::Result<()> {
        let state = self.lock();
        let copies = state.copies.len() as u64;
        let grown = self.log.len() > COMPACT_BYTES && self.log.len() > copies * 2000;
        if !grown && (copies > 0 || self.log.is_empty()) {
            return Ok(());
        }
        self.log.rewrite(|| state.copies.values().cloned().map(Record::Keep).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    fn open() -> (tempfile::TempDir, Backups) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = Backups::open(dir.path()).expect("opened");
        (dir, kept)
    }

    #[test]
    fn copies_live_until_they_are_committed_and_survive_a_crash() {
        let (dir, kept) = open();
        kept.bytes(&path("a"), b"hello\n", 0o100_644, 1, None).expect("kept");
        kept.bytes(&path("b"), b"x", 0o100_644, 2, None).expect("kept");
        kept.deleted(&path("c"), 3, None).expect("kept");
        assert_eq!(backups_in(dir.path()).expect("read").0.len(), 3);
        drop(kept);
        let kept = Backups::open(dir.path()).expect("opened again");
        assert_eq!(kept.summary(), (3, Some(1)));
        // Git's name for "hello
        // ".
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(fs::read(dir.path().join("kept/blobs").join(blob)).expect("there"), b"hello\n");
        let hello: BlobId = serde_json::from_str(&format!("\"{blob}\"")).expect("a name");
        kept.drop_committed(|at| (*at == path("a")).then_some((hello, 0o100_644))).expect("dropped");
        let left: Vec<String> = kept.copies().iter().map(|copy| copy.path.to_string()).collect();
        assert_eq!(left, ["b"], "a is committed, c is deleted there too");
        assert!(!dir.path().join("kept/blobs").join(blob).exists());
    }

    #[test]
    fn moving_takes_along_what_is_kept_below() {
        let (_dir, kept) = open();
        kept.bytes(&path("d/a"), b"a", 0o100_644, 1, None).expect("kept");
        kept.renamed(&path("d"), &path("e"), 2, None).expect("renamed");
        let now: Vec<(String, What)> = kept.copies().into_iter().map(|c| (c.path.to_string(), c.what)).collect();
        assert_eq!(now.len(), 3, "{now:?}");
        assert_eq!(now[0], ("d".into(), What::Deleted));
        assert_eq!(now[1], ("e".into(), What::Moved { from: path("d") }));
        assert!(matches!(&now[2], (at, What::Content { .. }) if at == "e/a"));
        kept.renamed(&path("e/a"), &path("b"), 3, None).expect("renamed");
        assert!(kept.copies().iter().any(|c| c.path == path("b") && matches!(c.what, What::Content { .. })));
    }

    #[test]
    fn content_that_two_paths_share_goes_with_the_last() {
        let (dir, kept) = open();
        for at in ["a", "b"] {
            kept.bytes(&path(at), b"same", 0o100_644, 1, None).expect("kept");
        }
        let blobs = || fs::read_dir(dir.path().join("kept/blobs")).expect("listed").count();
        kept.bytes(&path("a"), b"other", 0o100_644, 2, None).expect("kept");
        assert_eq!(blobs(), 2);
        kept.deleted(&path("b"), 3, None).expect("kept");
        assert_eq!(blobs(), 1);
    }
    fn blobs(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path().join("kept/blobs")).expect("listed").count()
    }

    #[test]
    fn a_move_takes_the_only_copy_along() {
        let (dir, kept) = open();
        kept.bytes(&path("d/a"), b"precious", 0o100_644, 1, None).expect("kept");
        kept.renamed(&path("d"), &path("e"), 2, None).expect("renamed");
        assert_eq!(blobs(&dir), 1);
        let (copies, damaged) = backups_in(dir.path()).expect("read");
        let content = copies.iter().find_map(|copy| match copy.what {
            What::Content { blob, .. } => Some(blob),
            _ => None,
        });
        let bytes = read_backup(dir.path(), content.expect("there")).expect("whole");
        assert_eq!((bytes.as_slice(), damaged), (&b"precious"[..], false));
    }

    #[test]
    fn a_damaged_copy_is_told_from_a_whole_one() {
        let (dir, kept) = open();
        kept.bytes(&path("a"), b"precious", 0o100_644, 1, None).expect("kept");
        let Some(What::Content { blob, .. }) = kept.copies().first().map(|copy| copy.what.clone()) else {
            panic!("no content")
        };
        for damage in [&b""[..], b"preciouS", b"precious and more"] {
            fs::write(kept.blob(blob), damage).expect("damaged");
            let error = read_backup(dir.path(), blob).expect_err("damaged");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        // The next save of the same content repairs the blob.
        kept.bytes(&path("b"), b"precious", 0o100_644, 2, None).expect("kept");
        assert_eq!(read_backup(dir.path(), blob).expect("whole"), b"precious");
    }

    /// Many threads write and drop two paths with the same content: a blob that a record names is always there.
    #[test]
    fn content_referenced_again_during_removal_stays() {
        let (dir, kept) = open();
        std::thread::scope(|scope| {
            for at in ["a", "b", "c", "d"] {
                let kept = &kept;
                scope.spawn(move || {
                    for round in 0..40 {
                        kept.bytes(&path(at), b"same", 0o100_644, round, None).expect("kept");
                        assert!(kept.copies().iter().all(|copy| match copy.what {
                            What::Content { blob, .. } => copy.path != path(at) || kept.blob(blob).exists(),
                            _ => true,
                        }));
                        kept.deleted(&path(at), round, None).expect("kept");
                    }
                });
            }
        });
        assert_eq!(blobs(&dir), 0);
        assert!(kept.lock().uses.is_empty());
    }
}
