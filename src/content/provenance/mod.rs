//! Which files are proved to be equal to a committed object, so that their bytes can be read from the local
//! repository.
//!
//! A proof is about one path at one [`Version`], and is valid as long as the version is. There are four kinds (see
//! [`Provenance`]). The API's list of changes proves nothing, because it can be outdated. A wrong proof would not be
//! noticed otherwise, so that a sample of the returned objects is compared with the server ([`Proofs::audit_due`]); a
//! single difference ends the use of proofs for this mount.
//!
//! The room does not fetch the repository and runs no programs; see the provenance thread of `reader`, and `attest`.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::attr::{BlobId, Version, secs_from_time};
use crate::mirror::{Committed, Mirror, Tree, hash};
use crate::path::RemotePath;

use super::attest::Attested;

/// The kind of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// The code is frozen, the deployed commit has the path with this size, and the file is older than the time since
    /// when the code is known to be frozen.
    Frozen,
    /// It was read in full over SFTP once, and its hash is that of the object.
    Verified,
    /// The server's own checksum of this version is that of the object.
    Attested,
    /// A proof of an earlier mount, and the server still has the version.
    Carried,
}

/// How much older than that time a file must be: clocks differ, and a deploy takes a while.
const FROZEN_MARGIN: Duration = Duration::from_secs(120);
/// One of so many returned objects is compared with the server, beginning with the first.
const AUDIT_EVERY: u64 = 256;
/// Larger objects (bytes) are read over SFTP in pieces, because git returns an object only as a whole.
const MAX_BLOB_BYTES: u64 = 16 * 1024 * 1024;

/// Figures for the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofFigures {
    /// Number of files in the deployed commit, and how many files are proved at some version.
    pub files: u64,
    pub proved: u64,
    /// Proofs of an earlier mount whose versions the server was not seen to have yet.
    pub unconfirmed: u64,
    /// Objects that were returned, their bytes, and how many were compared with the server.
    pub read_files: u64,
    pub read_bytes: u64,
    pub audited: u64,
    /// Why nothing is read from the repository.
    pub off: Option<String>,
}

/// One proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) version: Version,
    pub(super) blob: BlobId,
    pub(super) how: Provenance,
}

/// The deployed commit.
#[derive(Clone)]
struct Runs {
    tree: Arc<Tree>,
    /// Since when the code is known to be frozen; `None`: it is not.
    frozen: Option<SystemTime>,
    /// Paths that git converts on checkout, so that an equal size proves nothing.
    converted: Arc<BTreeSet<RemotePath>>,
}

#[derive(Default)]
struct State {
    runs: Option<Runs>,
    table: BTreeMap<RemotePath, Proof>,
    /// Proofs of an earlier mount. They count when the server is seen to have the same version still.
    carried: BTreeMap<RemotePath, Proof>,
    /// Changed since it was stored.
    dirty: bool,
    off: Option<String>,
}

/// See the module documentation.
pub struct Proofs {
    mirror: Arc<Mirror>,
    /// The code directory on the server. Paths of a commit are relative to it.
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

    /// Sets the deployed commit, which is in the repository; `frozen` is the time since when the code is known to be
    /// frozen. `converted` are the paths of the commit that are not proved by size and age, because git converts their
    /// bytes on checkout.
    pub fn learn(&self, tree: Arc<Tree>, frozen: Option<SystemTime>, converted: Arc<BTreeSet<RemotePath>>) {
        self.lock().runs = Some(Runs { tree, frozen, converted });
    }

    /// The deployed commit is not known any more: proofs stay, and no new ones are added.
    pub fn unlearn(&self) {
        self.lock().runs = None;
    }

    /// The object that this version of the file is proved to be equal to.
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
        if let Some(blob) = state.confirm(path, version) {
            return Some(blob);
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

    /// The committed file with the same path and size.
    fn candidate(&self, runs: &Runs, path: &RemotePath, version: Version) -> Option<Committed> {
        let file = *runs.tree.get(&path.strip_prefix(&self.root)?)?;
        let regular = matches!(file.mode, 0o100_644 | 0o100_755);
        (regular && file.size == version.size && file.size <= MAX_BLOB_BYTES).then_some(file)
    }

    /// Notes that this version was read in full. Returns the object if it is the committed one. The caller must not
    /// pass racy versions.
    pub fn verify(&self, path: &RemotePath, version: Version, bytes: &[u8]) -> Option<BlobId> {
        let runs = self.lock().runs.clone()?;
        let file = self.candidate(&runs, path, version)?;
        let same = hash(bytes).is_ok_and(|blob| blob == file.blob);
        same.then(|| self.verified(path, version, file.blob)).flatten()
    }

    /// Notes the hash of a version that the caller has read in full.
    pub fn verified(&self, path: &RemotePath, version: Version, blob: BlobId) -> Option<BlobId> {
        let mut state = self.lock();
        if state.off.is_some() || self.candidate(state.runs.as_ref()?, path, version)?.blob != blob {
            return None;
        }
        state.note(path, Proof { version, blob, how: Provenance::Verified });
        Some(blob)
    }

    /// Adds proofs from the server's checksums, computed when its clock had passed `server_secs`. Returns how many files
    /// they prove.
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

    /// The bytes of a proved object. `None`: the repository does not have it any more, and the proof is dropped.
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

    /// Whether the object that is returned now must be compared with the server.
    pub fn audit_due(&self) -> bool {
        let given = self.read_files.load(Ordering::Relaxed);
        if given.is_multiple_of(AUDIT_EVERY) || given == 1 {
            self.audited.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// The server has other content than was returned: all proofs are dropped, and no new ones are used.
    pub fn turn_off(&self, path: &RemotePath) {
        let why = format!("{path} was not what the repository has, although that seemed proved");
        log::error!("{why}: everything is read from the server from here on");
        let mut state = self.lock();
        state.clear();
        state.off.get_or_insert(why);
    }

    /// Drops all proofs (after a migration); the deployed commit stays known.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// The object, with everything below it, was renamed.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        let mut state = self.lock();
        state.thaw(from, &self.root);
        state.thaw(to, &self.root);
        let State { table, carried, dirty, .. } = &mut *state;
        *dirty |= move_below(table, from, to) | move_below(carried, from, to);
    }

    /// The file was written: its new version may be equal to the proved one.
    pub fn written(&self, path: &RemotePath) {
        let mut state = self.lock();
        state.drop_proof(path);
        state.thaw(path, &self.root);
    }

    /// The object at the path, with everything below it, was removed or replaced.
    pub fn replaced(&self, path: &RemotePath) {
        let mut state = self.lock();
        state.thaw(path, &self.root);
        for known in path.keys_below(&state.table) {
            state.dirty |= state.table.remove(&known).is_some();
        }
    }

    /// The figures of the proofs.
    pub fn figures(&self) -> ProofFigures {
        let state = self.lock();
        ProofFigures {
            files: state.runs.as_ref().map_or(0, |runs| runs.tree.len() as u64),
            proved: state.table.len() as u64,
            unconfirmed: state.carried.len() as u64,
            read_files: self.read_files.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            audited: self.audited.load(Ordering::Relaxed),
            off: state.off.clone(),
        }
    }

    /// Takes over the proofs of an earlier mount, which are valid if the version is the same.
    pub(super) fn carry(&self, proofs: impl IntoIterator<Item = (RemotePath, Proof)>) {
        self.lock().carried.extend(proofs);
    }

    /// The carried proofs whose versions the server was not seen to have yet.
    pub fn unconfirmed(&self) -> Vec<(RemotePath, Version)> {
        self.lock().carried.iter().map(|(path, proof)| (path.clone(), proof.version)).collect()
    }

    /// The server has this version of the path now, or no file. A carried proof of another version is dropped.
    pub fn confirm(&self, path: &RemotePath, now: Option<Version>) {
        let mut state = self.lock();
        if now.is_none_or(|now| state.confirm(path, now).is_none()) {
            state.dirty |= state.carried.remove(path).is_some();
        }
    }

    /// All proofs, if they changed since the last call.
    pub(super) fn take_changed(&self) -> Option<Vec<(RemotePath, Proof)>> {
        let mut state = self.lock();
        let all =
            |state: &State| state.carried.iter().chain(&state.table).map(|(p, proof)| (p.clone(), *proof)).collect();
        std::mem::take(&mut state.dirty).then(|| all(&state))
    }

    /// The number of proofs of each kind.
    pub fn kinds(&self) -> Vec<(Provenance, u64)> {
        let mut kinds =
            [Provenance::Frozen, Provenance::Verified, Provenance::Attested, Provenance::Carried].map(|k| (k, 0));
        self.lock().table.values().for_each(|proof| kinds[proof.how as usize].1 += 1);
        kinds.into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

impl Proof {
    /// `BLOB SIZE MTIME PATH`; paths that are not text on one line are not stored.
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
    /// The path was written, so that the code cannot be frozen.
    fn thaw(&mut self, path: &RemotePath, root: &RemotePath) {
        if let Some(runs) = self.runs.as_mut().filter(|_| path.starts_with(root)) {
            runs.frozen = None;
        }
    }

    fn clear(&mut self) {
        self.table.clear();
        self.carried.clear();
        self.dirty = true;
    }

    fn drop_proof(&mut self, path: &RemotePath) {
        self.dirty |= self.table.remove(path).is_some() | self.carried.remove(path).is_some();
    }

    /// The carried proof of this version counts from here on.
    fn confirm(&mut self, path: &RemotePath, version: Version) -> Option<BlobId> {
        let proof = *self.carried.get(path).filter(|proof| proof.version == version)?;
        self.note(path, proof);
        Some(proof.blob)
    }

    fn note(&mut self, path: &RemotePath, proof: Proof) {
        self.carried.remove(path);
        self.table.insert(path.clone(), proof);
        self.dirty = true;
    }
}

/// Moves the proofs of a path and everything below it, in place of those of the other. Returns whether there were any.
fn move_below(proofs: &mut BTreeMap<RemotePath, Proof>, from: &RemotePath, to: &RemotePath) -> bool {
    let (moved, replaced) = (from.keys_below(proofs), to.keys_below(proofs));
    for path in &replaced {
        proofs.remove(path);
    }
    for path in &moved {
        if let (Some(proof), Some(below)) = (proofs.remove(path), path.strip_prefix(from)) {
            proofs.insert(to.join_path(&below), proof);
        }
    }
    !moved.is_empty() || !replaced.is_empty()
}

#[cfg(test)]
mod tests;
