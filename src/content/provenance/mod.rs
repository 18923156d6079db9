//! Which files are proved to be a committed object, so that their bytes can come from the repository on this machine.
//!
//! A proof is about one path at one [`Version`], and holds for as long as the version does. There are four kinds (see
//! [`Provenance`]). The API's own list of changes is none: it can be stale. Because this is the one part that could be wrong
//! without anybody noticing, a sample of what it gives out is compared with the server ([`Proofs::audit_due`]); a single
//! difference ends it for the life of the mount.
//!
//! Does not fetch the repository and does not run anything; see `fs`' provenance thread and `attest`.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::attr::{BlobId, Version, secs_from_time};
use crate::mirror::{Committed, Mirror, Tree, hash};
use crate::path::RemotePath;

use super::attest::Attested;

/// Why bytes of a committed object are those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// Nobody can change the code, the commit that runs has the path with this size, and the file is older than our knowing.
    Frozen,
    /// It was read in full over SFTP once, and hashed to the object.
    Verified,
    /// The server's own checksum of this version is that of the object.
    Attested,
    /// One of these, learned by an earlier mount: the version has not moved since.
    Carried,
}

/// A file must be older than our knowledge of the frozen commit by this: clocks differ, and a deploy takes a while.
const FROZEN_MARGIN: Duration = Duration::from_secs(120);
/// Of this many objects that were given out one is compared with the server, the first among them.
const AUDIT_EVERY: u64 = 256;
/// Larger objects (bytes) are read over SFTP, piece by piece: an object of git comes out as a whole only.
const MAX_BLOB_BYTES: u64 = 16 * 1024 * 1024;

/// For status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofFigures {
    /// Files of the commit that runs, and how many are proved to be as committed (then or now).
    pub files: u64,
    pub proved: u64,
    /// Objects given out, their bytes, and how many were compared with the server.
    pub read_files: u64,
    pub read_bytes: u64,
    pub audited: u64,
    /// Why nothing is taken from the repository.
    pub off: Option<String>,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) version: Version,
    pub(super) blob: BlobId,
    pub(super) how: Provenance,
}

/// What the environment runs.
#[derive(Clone)]
struct Runs {
    tree: Arc<Tree>,
    /// Since when we know that nobody can change it; `None`: somebody can.
    frozen: Option<SystemTime>,
    /// Paths that git converts on their way into a work tree: their size says nothing about their bytes.
    converted: Arc<BTreeSet<RemotePath>>,
}

#[derive(Default)]
struct State {
    runs: Option<Runs>,
    table: HashMap<RemotePath, Proof>,
    /// Changed since it was saved.
    dirty: bool,
    off: Option<String>,
}

/// See the module header.
pub struct Proofs {
    mirror: Arc<Mirror>,
    /// The code directory on the server, which the paths of a commit are relative to.
    root: RemotePath,
    state: Mutex<State>,
    read_files: AtomicU64,
    read_bytes: AtomicU64,
    audited: AtomicU64,
}

impl Proofs {
    pub fn new(mirror: Arc<Mirror>, root: RemotePath) -> Self {
        let (read_files, read_bytes, audited) = Default::default();
        Self { mirror, root, state: Mutex::default(), read_files, read_bytes, audited }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The environment runs this commit, which is in the repository; `frozen` says since when we know that nobody can change
    /// the code, if that is so. The paths `converted` (of the commit) are not proved by that: git changes their bytes on
    /// their way to the server.
    pub fn learn(&self, tree: Arc<Tree>, frozen: Option<SystemTime>, converted: Arc<BTreeSet<RemotePath>>) {
        self.lock().runs = Some(Runs { tree, frozen, converted });
    }

    /// What runs is not known any more: what was proved stays, nothing is added.
    pub fn unlearn(&self) {
        self.lock().runs = None;
    }

    /// The object that this version of the file is proved to be.
    pub fn of(&self, path: &RemotePath, version: Version) -> Option<BlobId> {
        let mut state = self.lock();
        if state.off.is_some() {
            return None;
        }
        if let Some(proof) = state.table.get(path)
            && proof.version == version
        {
            return Some(proof.blob);
        }
        let runs = state.runs.as_ref()?;
        let since = runs.frozen?;
        let known = secs_from_time(since.checked_sub(FROZEN_MARGIN)?);
        let blob = self.candidate(runs, path, version)?.blob;
        if version.mtime >= known || runs.converted.contains(&path.strip_prefix(&self.root)?) {
            return None;
        }
        state.note(path, Proof { version, blob, how: Provenance::Frozen });
        Some(blob)
    }

    /// The committed file that this could be, going by its size.
    fn candidate(&self, runs: &Runs, path: &RemotePath, version: Version) -> Option<Committed> {
        let file = *runs.tree.get(&path.strip_prefix(&self.root)?)?;
        let regular = matches!(file.mode, 0o100_644 | 0o100_755);
        (regular && file.size == version.size && file.size <= MAX_BLOB_BYTES).then_some(file)
    }

    /// This version was read in full. The object, if it is the committed one. Versions that may still change are no business
    /// of ours: the caller looks.
    pub fn verify(&self, path: &RemotePath, version: Version, bytes: &[u8]) -> Option<BlobId> {
        let runs = self.lock().runs.clone()?;
        let file = self.candidate(&runs, path, version)?;
        let same = hash(bytes).is_ok_and(|blob| blob == file.blob);
        same.then(|| self.verified(path, version, file.blob)).flatten()
    }

    /// Whoever read it has hashed it.
    pub fn verified(&self, path: &RemotePath, version: Version, blob: BlobId) -> Option<BlobId> {
        let mut state = self.lock();
        if state.off.is_some() || self.candidate(state.runs.as_ref()?, path, version)?.blob != blob {
            return None;
        }
        state.note(path, Proof { version, blob, how: Provenance::Verified });
        Some(blob)
    }

    /// Takes over what the server said of its files when its clock had passed `server_secs`. Returns how many are proved by it.
    pub fn attest(&self, said: &[Attested], server_secs: u32) -> u64 {
        let Some(runs) = self.lock().runs.clone() else { return 0 };
        let mut proved = 0;
        for file in said.iter().filter(|file| !file.version.is_racy(server_secs)) {
            let path = self.root.join_path(&file.path);
            let Some(committed) = self.candidate(&runs, &path, file.version) else { continue };
            let Ok(bytes) = self.mirror.blob(committed.blob) else { continue };
            if md5::compute(&bytes).0 == file.md5 {
                let proof = Proof { version: file.version, blob: committed.blob, how: Provenance::Attested };
                self.lock().note(&path, proof);
                proved += 1;
            }
        }
        proved
    }

    /// The bytes of a proved object; `None`: the repository has it no more, and the proof goes, too.
    pub fn bytes(&self, path: &RemotePath, version: Version, blob: BlobId) -> Option<Vec<u8>> {
        match self.mirror.blob(blob) {
            Ok(bytes) if bytes.len() as u64 == version.size => {
                self.read_files.fetch_add(1, Ordering::Relaxed);
                self.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Some(bytes)
            }
            other => {
                let why = other.err().map_or("another length".to_owned(), |error| error.to_string());
                log::warn!("{path}: the repository on this machine: {why}; it is read from the server");
                self.lock().table.remove(path);
                None
            }
        }
    }

    /// Whether what is given out now is to be compared with the server.
    pub fn audit_due(&self) -> bool {
        let given = self.read_files.load(Ordering::Relaxed);
        if given.is_multiple_of(AUDIT_EVERY) || given == 1 {
            self.audited.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// The server has something else than was given out: nothing that was proved counts any more.
    pub fn turn_off(&self, path: &RemotePath) {
        let why = format!("{path} was not what the repository has, although that seemed proved");
        log::error!("{why}: everything is read from the server from here on");
        let mut state = self.lock();
        state.table.clear();
        state.dirty = true;
        state.off.get_or_insert(why);
    }

    /// Nothing that was proved counts any more (a migration); what runs is still known.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.table.clear();
        state.dirty = true;
    }

    pub fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        let mut state = self.lock();
        state.drop_proof(to);
        if let Some(proof) = state.table.remove(from) {
            state.note(to, proof);
        }
    }

    /// It was written: its size and its time may still be those that were proved.
    pub fn written(&self, path: &RemotePath) {
        let mut state = self.lock();
        state.drop_proof(path);
        state.thaw(path, &self.root);
    }

    /// It, and everything below it, is not there any more, or is something else.
    pub fn replaced(&self, path: &RemotePath) {
        let mut state = self.lock();
        state.thaw(path, &self.root);
        let before = state.table.len();
        state.table.retain(|known, _| !known.starts_with(path));
        state.dirty |= state.table.len() != before;
    }

    /// How many files are proved at some version, and what came of it.
    pub fn figures(&self) -> ProofFigures {
        let state = self.lock();
        ProofFigures {
            files: state.runs.as_ref().map_or(0, |runs| runs.tree.len() as u64),
            proved: state.table.len() as u64,
            read_files: self.read_files.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            audited: self.audited.load(Ordering::Relaxed),
            off: state.off.clone(),
        }
    }

    /// What an earlier mount had proved. The version says whether it still holds.
    pub(super) fn carry(&self, proofs: impl IntoIterator<Item = (RemotePath, Proof)>) {
        self.lock().table.extend(proofs);
    }

    /// Everything that is proved, if that changed since it was asked for.
    pub(super) fn take_changed(&self) -> Option<Vec<(RemotePath, Proof)>> {
        let mut state = self.lock();
        std::mem::take(&mut state.dirty).then(|| state.table.iter().map(|(p, proof)| (p.clone(), *proof)).collect())
    }

    /// How often each kind of proof is in the table.
    pub fn kinds(&self) -> Vec<(Provenance, u64)> {
        let mut kinds =
            [Provenance::Frozen, Provenance::Verified, Provenance::Attested, Provenance::Carried].map(|k| (k, 0));
        self.lock().table.values().for_each(|proof| kinds[proof.how as usize].1 += 1);
        kinds.into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

impl Proof {
    /// `BLOB SIZE MTIME PATH`; paths that are not text on one line are not kept.
    pub(super) fn line(&self, path: &RemotePath) -> Option<String> {
        let path = std::str::from_utf8(path.as_bytes()).ok().filter(|path| !path.contains('\n'))?;
        Some(format!("{} {} {} {path}\n", self.blob, self.version.size, self.version.mtime))
    }

    pub(super) fn parse(line: &str) -> Option<(RemotePath, Self)> {
        let mut words = line.splitn(4, ' ');
        let blob = BlobId::parse(words.next()?)?;
        let version = Version { size: words.next()?.parse().ok()?, mtime: words.next()?.parse().ok()? };
        Some((RemotePath::parse(words.next()?).ok()?, Self { version, blob, how: Provenance::Carried }))
    }
}

impl State {
    /// What is written here is not frozen, whatever was believed.
    fn thaw(&mut self, path: &RemotePath, root: &RemotePath) {
        if let Some(runs) = self.runs.as_mut().filter(|_| path.starts_with(root)) {
            runs.frozen = None;
        }
    }

    fn drop_proof(&mut self, path: &RemotePath) {
        self.dirty |= self.table.remove(path).is_some();
    }

    fn note(&mut self, path: &RemotePath, proof: Proof) {
        self.table.insert(path.clone(), proof);
        self.dirty = true;
    }
}

#[cfg(test)]
mod tests;
