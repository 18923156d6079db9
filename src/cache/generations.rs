//! Generations of paths, which invalidate the names of cached blocks. A name is a path at a version. A file that is
//! replaced, renamed or written through this mount may get the same size and time with other bytes. Each such event starts
//! a new generation of the path and of everything below it, so that blocks with a name of an earlier generation are not
//! found any more, in memory and on disk.
//!
//! They are stored in a file in the directory of the packs: `PFSGONE\x01`, then records of 44 bytes: the SHA-256 of owner
//! and path (32), the generation (8, little endian), the CRC-32 of the 40 bytes before (4). The highest generation of a
//! path is valid, independent of the order of the records.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::durable;
use crate::path::RemotePath;

const HEADER: &[u8; 8] = b"PFSGONE\x01";
const RECORD_BYTES: usize = 44;
/// With more records than this they are replaced by one: a new generation of the root, for all paths of the owner.
const MAX_RECORDS: usize = 200_000;

type PathKey = [u8; 32];

/// The generations of one mount's paths.
pub struct Generations {
    owner: Vec<u8>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    of: HashMap<PathKey, u64>,
    newest: u64,
    file: Option<File>,
}

impl Generations {
    /// Generations that are not stored.
    pub fn in_memory() -> Self {
        Self { owner: Vec::new(), state: RwLock::default() }
    }

    /// Reads the generations of earlier mounts from `file`, and stores new ones in it.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written; then no name of an earlier mount may be used.
    pub fn open(file: &Path, owner: &[u8]) -> io::Result<Self> {
        let mut state = State::default();
        let bytes = match std::fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let whole = bytes.starts_with(HEADER);
        for record in bytes.get(HEADER.len()..).unwrap_or_default().chunks_exact(RECORD_BYTES) {
            if let Some((key, generation)) = parse(record) {
                state.newest = state.newest.max(generation);
                let known = state.of.entry(key).or_default();
                *known = generation.max(*known);
            }
        }
        let this = Self { owner: owner.to_vec(), state: RwLock::default() };
        if !whole || state.of.len() > MAX_RECORDS {
            // The file is new, damaged or too large: a new generation of all paths.
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let newest = since_epoch.map_or(0, |since| since.as_nanos() as u64).max(state.newest) + 1;
            state = State { of: HashMap::from([(this.key(b""), newest)]), newest, file: None };
        }
        // The file is rewritten, so that it does not grow with each mount, and to remove a damaged end.
        state.file = Some(durable::replace_unsynced(file, |new| {
            new.write_all(HEADER)?;
            state.of.iter().try_for_each(|(key, generation)| new.write_all(&record(key, *generation)))
        })?);
        *this.state.write() = state;
        Ok(this)
    }

    /// The generation of a path: the highest of the path and all its parents.
    pub fn of(&self, path: &RemotePath) -> u64 {
        let state = self.state.read();
        if state.of.is_empty() {
            return 0;
        }
        let bytes = path.as_bytes();
        let above = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &bytes[..at]);
        let all = above.chain([&b""[..], bytes]);
        all.filter_map(|path| state.of.get(&self.key(path))).max().copied().unwrap_or(0)
    }

    /// Starts a new generation of the path and of everything below it.
    pub fn start(&self, path: &RemotePath) {
        let key = self.key(path.as_bytes());
        let mut state = self.state.write();
        state.newest += 1;
        let newest = state.newest;
        if state.of.len() > 4 * MAX_RECORDS {
            // A new generation of all paths, in one record.
            state.of.clear();
            state.of.insert(self.key(b""), newest);
        }
        state.of.insert(key, newest);
        let written = state.file.as_mut().map_or(Ok(()), |file| file.write_all(&record(&key, newest)));
        if let Err(error) = written {
            log::warn!("cached content of {path} may be outdated after the next mount: {error}");
        }
    }

    fn key(&self, path: &[u8]) -> PathKey {
        let mut hasher = Sha256::new();
        hasher.update(&self.owner);
        hasher.update([0]);
        hasher.update(path);
        hasher.finalize().into()
    }
}

fn record(key: &PathKey, generation: u64) -> Vec<u8> {
    let mut out = [key.as_slice(), &generation.to_le_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

fn parse(record: &[u8]) -> Option<(PathKey, u64)> {
    let (body, sum) = record.split_at_checked(40)?;
    (crc32fast::hash(body).to_le_bytes() == *sum).then_some(())?;
    Some((body[..32].try_into().ok()?, u64::from_le_bytes(body[32..].try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    #[test]
    fn a_new_generation_is_valid_for_everything_below_and_for_the_next_mount() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("gone");
        let all = ["code/a", "code/d/e/f", "code/d2/e"].map(path);
        let generations = Generations::open(&file, b"dev").expect("opened");
        let before = all.clone().map(|path| generations.of(&path));
        generations.start(&path("code/d"));
        let after = all.clone().map(|path| generations.of(&path));
        assert_eq!((before[0], before[2]), (after[0], after[2]));
        assert_ne!(before[1], after[1]);
        drop(generations);
        let next = Generations::open(&file, b"dev").expect("opened");
        assert_eq!(all.clone().map(|path| next.of(&path)), after);
        next.start(&path("code/d/e/f"));
        assert!(next.of(&all[1]) > after[1]);
        let other = Generations::open(&dir.path().join("other"), b"live").expect("opened");
        assert_eq!(other.of(&all[1]), other.of(&all[2]), "other owners are not affected");
    }

    #[test]
    fn damage_starts_a_new_generation_and_an_incomplete_record_is_ignored() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("gone");
        let generations = Generations::open(&file, b"dev").expect("opened");
        generations.start(&path("a"));
        let known = generations.of(&path("a"));
        drop(generations);
        let mut bytes = std::fs::read(&file).expect("there");
        bytes.extend([1; 20]);
        std::fs::write(&file, &bytes).expect("damaged");
        assert_eq!(Generations::open(&file, b"dev").expect("opened").of(&path("a")), known);
        std::fs::write(&file, b"nonsense, and quite a lot of it").expect("damaged");
        let anew = Generations::open(&file, b"dev").expect("opened");
        assert!(anew.of(&path("a")) > known && anew.of(&path("b")) > 0);
    }
}
