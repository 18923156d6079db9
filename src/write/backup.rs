//! Backups copies: everything that this mount changed in code, on the local disk, until it is seen in a commit.
//!
//! Uncommitted changes are in no backup of the platform. Here each changed path has its newest content (as a file named
//! by git's name for it) and a record of what was done. Nothing is replayed by itself; `pantheonfs rescue` reads this,
//! with and without a mount.

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
/// Bytes kept at most; beyond it new content is not kept, and that is said.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// The log is written anew when it has grown to this (bytes) and most of it is history.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
const CHUNK: usize = 128 * 1024;

/// What was done to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It has this content and git mode.
    Content {
        blob: BlobId,
        size: u64,
        mode: u32,
    },
    Deleted,
    /// It was moved here, with all below it, from a path whose content is in the commit.
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
    /// The commit that the environment ran.
    pub commit: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Keep(Backup),
    Forget(RemotePath),
}

/// See the module header.
pub struct Backups {
    dir: PathBuf,
    log: Records<Record>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    copies: BTreeMap<RemotePath, Backup>,
    /// How many records name a blob.
    uses: HashMap<BlobId, usize>,
    /// Of all contents.
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

    /// Returns the blob that nobody names any more.
    fn insert(&mut self, copy: Backup) -> Option<BlobId> {
        if let What::Content { blob, size, .. } = copy.what {
            *self.uses.entry(blob).or_default() += 1;
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

/// Where the content of a blob is kept.
pub fn backup_blob_path(state_dir: &Path, blob: BlobId) -> PathBuf {
    dir_of(state_dir).join("blobs").join(blob.to_string())
}

/// The kept copies of an environment, in path order; nobody needs to have it mounted.
pub fn backups_in(state_dir: &Path) -> io::Result<Vec<Backup>> {
    Ok(fold(read(&dir_of(state_dir).join("log"), KIND)?.records).into_values().collect())
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

    /// How many there are and when the oldest was made (seconds since the epoch).
    pub fn summary(&self) -> (usize, Option<u64>) {
        let state = self.lock();
        (state.copies.len(), state.copies.values().map(|copy| copy.at).min())
    }

    fn blob(&self, blob: BlobId) -> PathBuf {
        self.dir.join("blobs").join(blob.to_string())
    }

    /// Keeps the first `len` bytes of `source` as the content of `path`.
    pub fn content(
        &self,
        path: &RemotePath,
        source: &File,
        (len, mode): (u64, u32),
        at: u64,
        commit: Option<String>,
    ) -> io::Result<()> {
        self.room(len)?;
        let blob = self.keep_blob(source, len)?;
        self.keep(Backup { path: path.clone(), what: What::Content { blob, size: len, mode }, at, commit })
    }

    /// Synced before a record names it: after a power loss a record whose content is empty would pass for a copy.
    fn keep_blob(&self, source: &File, len: u64) -> io::Result<BlobId> {
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
            Ok(blob.to_string().into())
        })?;
        Ok(blob)
    }

    /// Keeps bytes that are at hand.
    pub fn bytes(&self, path: &RemotePath, bytes: &[u8], mode: u32, at: u64, commit: Option<String>) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        self.content(path, &file, (bytes.len() as u64, mode), at, commit)
    }

    /// The path was deleted, and everything below it.
    pub fn deleted(&self, path: &RemotePath, at: u64, commit: Option<String>) -> io::Result<()> {
        self.keep(Backup { path: path.clone(), what: What::Deleted, at, commit })
    }

    /// The path was moved: what is kept of it and below it moves along.
    pub fn moved(&self, from: &RemotePath, to: &RemotePath, at: u64, commit: Option<String>) -> io::Result<()> {
        let below: Vec<Backup> =
            self.lock().copies.values().filter(|copy| copy.path.starts_with(from)).cloned().collect();
        let known = below.iter().any(|copy| copy.path == *from && matches!(copy.what, What::Content { .. }));
        if !known {
            // What is committed of it is there under the old name.
            let origin = below.iter().find_map(|copy| match &copy.what {
                What::Moved { from: origin } if copy.path == *from => Some(origin.clone()),
                _ => None,
            });
            let what = What::Moved { from: origin.unwrap_or_else(|| from.clone()) };
            self.keep(Backup { path: to.clone(), what, at, commit: commit.clone() })?;
        }
        for copy in below {
            let Some(rest) = copy.path.strip_prefix(from) else { continue };
            let path = if rest.is_root() { to.clone() } else { to.join_path(&rest) };
            self.forget(&copy.path)?;
            if known || !rest.is_root() {
                self.keep(Backup { path, ..copy })?;
            }
        }
        self.deleted(from, at, commit)
    }

    fn keep(&self, copy: Backup) -> io::Result<()> {
        self.log.append(&[Record::Keep(copy.clone())])?;
        let unused = self.lock().insert(copy);
        self.drop_blob(unused);
        self.compact()
    }

    fn forget(&self, path: &RemotePath) -> io::Result<()> {
        self.log.append(&[Record::Forget(path.clone())])?;
        let unused = self.lock().remove(path);
        self.drop_blob(unused);
        Ok(())
    }

    /// Content that no record names any more goes.
    fn drop_blob(&self, unused: Option<BlobId>) {
        if let Some(blob) = unused
            && let Err(error) = fs::remove_file(self.blob(blob))
        {
            log::debug!("{blob}: {error}");
        }
    }

    /// Forgets what is committed: `committed` says what a commit has at a path (blob and git mode; `None`: nothing).
    pub fn settle(&self, committed: impl Fn(&RemotePath) -> Option<(BlobId, u32)>) -> io::Result<()> {
        for copy in self.copies() {
            let done = match &copy.what {
                What::Content { blob, mode, .. } => committed(&copy.path) == Some((*blob, *mode)),
                What::Deleted => committed(&copy.path).is_none(),
                What::Moved { from } => committed(&copy.path).is_some() && committed(from).is_none(),
            };
            // Written again meanwhile: that is another copy.
            if done && self.lock().copies.get(&copy.path) == Some(&copy) {
                self.forget(&copy.path)?;
            }
        }
        self.compact()
    }

    pub fn sync(&self) -> io::Result<()> {
        for copy in self.copies() {
            if let What::Content { blob, .. } = copy.what {
                File::open(self.blob(blob))?.sync_data()?;
            }
        }
        File::open(self.dir.join("blobs"))?.sync_all()?;
        self.log.sync()
    }

    fn room(&self, more: u64) -> io::Result<()> {
        let now = self.lock().bytes;
        if now.saturating_add(more) > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "4 GiB of uncommitted work are kept already"));
        }
        Ok(())
    }

    fn compact(&self) -> io::Result<()> {
        let copies = self.lock().copies.len() as u64;
        let grown = self.log.len() > COMPACT_BYTES && self.log.len() > copies * 2000;
        if !grown && (copies > 0 || self.log.is_empty()) {
            return Ok(());
        }
        self.log.rewrite(|| self.copies().into_iter().map(Record::Keep).collect())
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
        assert_eq!(backups_in(dir.path()).expect("read").len(), 3);
        drop(kept);
        let kept = Backups::open(dir.path()).expect("opened again");
        assert_eq!(kept.summary(), (3, Some(1)));
        // The name that git gives to "hello\n".
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(fs::read(dir.path().join("kept/blobs").join(blob)).expect("there"), b"hello\n");
        let hello: BlobId = serde_json::from_str(&format!("\"{blob}\"")).expect("a name");
        kept.settle(|at| (*at == path("a")).then_some((hello, 0o100_644))).expect("settled");
        let left: Vec<String> = kept.copies().iter().map(|copy| copy.path.to_string()).collect();
        assert_eq!(left, ["b"], "a is committed, c is deleted there too");
        assert!(!dir.path().join("kept/blobs").join(blob).exists());
    }

    #[test]
    fn moving_takes_along_what_is_kept_below() {
        let (_dir, kept) = open();
        kept.bytes(&path("d/a"), b"a", 0o100_644, 1, None).expect("kept");
        kept.moved(&path("d"), &path("e"), 2, None).expect("moved");
        let now: Vec<(String, What)> = kept.copies().into_iter().map(|c| (c.path.to_string(), c.what)).collect();
        assert_eq!(now.len(), 3, "{now:?}");
        assert_eq!(now[0], ("d".into(), What::Deleted));
        assert_eq!(now[1], ("e".into(), What::Moved { from: path("d") }));
        assert!(matches!(&now[2], (at, What::Content { .. }) if at == "e/a"));
        kept.moved(&path("e/a"), &path("b"), 3, None).expect("moved");
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
}
