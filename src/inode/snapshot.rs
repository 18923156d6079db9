//! The tree on the local disk, so that the next mount knows it without asking the server. It is a cache: it may be
//! deleted at any time, and if it is damaged the server is asked.
//!
//! Byte for byte (all numbers little endian):
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 7 | `PFSTREE` |
//! | 7 | 1 | version of this layout: 1 |
//! | 8 | | records, one after the other; a later one about the same directory counts |
//!
//! A record is the length of its payload (4), the CRC-32 of its payload (4), and its payload. The first byte of a payload
//! says what it is:
//!
//! - `C`: the commit of the frozen code when the following directories were listed; empty: no commit vouches for
//!   them.
//! - `D`: a directory as the server listed it: length of its path (2), path, number of entries (4), and for each its kind
//!   (1: `f`ile, `d`irectory, `l`ink, `o`ther), length of the name (2), name, size (8), permission bits (2), mtime (4),
//!   atime (4).
//! - `L`: what was told of changes until then, see `change_log`. It counts only as the last record: the next mount begins
//!   with one of another kind.
//!
//! A record that is cut off or has a wrong checksum ends the reading; the records before it are used.

use parking_lot::Mutex;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bytes::{Input, put_text};
use super::change_log::ChangeLog;
use crate::attr::{Attr, FileKind};
use crate::durable;
use crate::path::{Name, RemotePath};

const HEADER: &[u8; 8] = b"PFSTREE\x01";
/// Longest payload (bytes): a directory of a million entries fits. A larger length is damage.
const MAX_PAYLOAD: usize = 256 * 1024 * 1024;
/// The file is rewritten when more than half of it, and more than this (bytes), is outdated.
const MIN_WASTE: usize = 256 * 1024;

/// Bytes that are written at a time.
const WRITE_BYTES: usize = 256 * 1024;
/// What a record has beside its payload (bytes).
const FRAME_BYTES: usize = 8;

/// A directory as it was listed.
pub struct SavedDir {
    /// The commit that vouches for it; empty: none.
    pub commit: Arc<str>,
    /// Where its record's payload is in the file, and its entries, of which there are `count`.
    payload: Range<usize>,
    entries: Range<usize>,
    count: usize,
}

impl SavedDir {
    /// The number of names.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The tree of the last mount: the bytes of the file, and where in them each directory is. A tree may have a million names,
/// which are read from there when they are needed.
#[derive(Default)]
pub struct Saved {
    bytes: Vec<u8>,
    dirs: HashMap<RemotePath, SavedDir>,
    log: Option<ChangeLog>,
}

impl Saved {
    /// Reads the records of a file's bytes; also returns the length of the readable part.
    pub fn parse(bytes: Vec<u8>) -> (Self, usize) {
        parse(bytes)
    }

    pub fn dir(&self, path: &RemotePath) -> Option<&SavedDir> {
        self.dirs.get(path)
    }

    /// The entries of a directory of this tree.
    pub fn entries(&self, dir: &SavedDir) -> impl Iterator<Item = (Name, Attr)> {
        let mut input = Input(self.bytes.get(dir.entries.clone()).unwrap_or_default());
        // All were read when the file was opened.
        (0..dir.count).map_while(move |_| entry(&mut input))
    }

    /// The number of names in all directories.
    pub fn entry_count(&self) -> usize {
        self.dirs.values().map(SavedDir::len).sum()
    }

    /// What the last mount told of changes, if it ended in good order and this is the tree that it had in the end.
    pub fn log(&self) -> Option<&ChangeLog> {
        self.log.as_ref()
    }

    pub fn len(&self) -> usize {
        self.dirs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }
}

/// The file, open for appending.
pub struct Snapshot {
    path: PathBuf,
    out: Mutex<Out>,
}

struct Out {
    file: File,
    commit: String,
}

impl Snapshot {
    /// Opens or creates the file, and reads it.
    pub fn open(path: &Path) -> io::Result<(Self, Saved)> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let len = bytes.len();
        let (saved, good) = Saved::parse(bytes);
        if good < len {
            log::info!("{}: {} bytes at its end are incomplete and are removed", path.display(), len - good);
        }
        let live: usize = saved.dirs.values().map(|dir| dir.payload.len() + FRAME_BYTES).sum();
        let mut file = if good < len || good < HEADER.len() || good > 2 * live + MIN_WASTE {
            rewrite(path, &saved)?
        } else {
            File::options().append(true).open(path)?
        };
        // A new record `C` follows before the next directories, so that the last mount's commit does not vouch for
        // them.
        file.write_all(&frame(b"C"))?;
        Ok((Self { path: path.to_owned(), out: Mutex::new(Out { file, commit: String::new() }) }, saved))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends directories as they are on the server now; `commit` vouches for them.
    pub fn append<D: Borrow<(RemotePath, Vec<(Name, Attr)>)>>(
        &self,
        commit: &str,
        dirs: impl IntoIterator<Item = D>,
    ) -> io::Result<()> {
        let mut out = self.out.lock();
        let mut bytes = Vec::new();
        if out.commit != commit {
            bytes.extend(frame(&[b"C", commit.as_bytes()].concat()));
        }
        for dir in dirs {
            let (path, entries) = dir.borrow();
            bytes.extend(frame(&encode(path, entries)));
            if bytes.len() >= WRITE_BYTES {
                out.file.write_all(&std::mem::take(&mut bytes))?;
            }
        }
        out.file.write_all(&bytes)?;
        commit.clone_into(&mut out.commit);
        Ok(())
    }

    /// Appends what was told of changes. The tree must have been saved as it is.
    pub fn append_log(&self, log: &ChangeLog) -> io::Result<()> {
        self.out.lock().file.write_all(&frame(&[b"L", &log.encode()[..]].concat()))
    }
}

/// Replaces the file by one with the newest records only.
fn rewrite(path: &Path, saved: &Saved) -> io::Result<File> {
    let mut commit: &str = "";
    // Consecutive directories with the same commit share its record.
    let mut dirs: Vec<_> = saved.dirs.iter().collect();
    dirs.sort_by(|a, b| (&a.1.commit, a.0).cmp(&(&b.1.commit, b.0)));
    durable::replace_unsynced(path, |file| {
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        file.write_all(HEADER)?;
        for (_, dir) in dirs {
            if *commit != *dir.commit {
                commit = &dir.commit;
                file.write_all(&frame(&[b"C", commit.as_bytes()].concat()))?;
            }
            file.write_all(&frame(saved.bytes.get(dir.payload.clone()).unwrap_or_default()))?;
        }
        file.flush()
    })
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 8);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn payload_len(path: &RemotePath, entries: &[(Name, Attr)]) -> usize {
    7 + path.as_bytes().len() + entries.iter().map(|(name, _)| 21 + name.as_bytes().len()).sum::<usize>()
}

fn encode(path: &RemotePath, entries: &[(Name, Attr)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload_len(path, entries));
    out.push(b'D');
    put_text(&mut out, path.as_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (name, attr) in entries {
        out.push(match attr.kind {
            FileKind::File => b'f',
            FileKind::Directory => b'd',
            FileKind::Symlink => b'l',
            FileKind::Other => b'o',
        });
        put_text(&mut out, name.as_bytes());
        out.extend_from_slice(&attr.size.to_le_bytes());
        out.extend_from_slice(&attr.perm.to_le_bytes());
        out.extend_from_slice(&attr.mtime.to_le_bytes());
        out.extend_from_slice(&attr.atime.to_le_bytes());
    }
    out
}

fn parse(bytes: Vec<u8>) -> (Saved, usize) {
    let mut saved = Saved::default();
    let Some(mut rest) = bytes.strip_prefix(HEADER) else { return (saved, 0) };
    let mut commit: Arc<str> = "".into();
    loop {
        let mut input = Input(rest);
        let Some(payload) = record(&mut input) else { break };
        // It tells of the tree as it is known at this place.
        saved.log = None;
        match payload.split_first() {
            Some((b'C', text)) => commit = String::from_utf8_lossy(text).into(),
            Some((b'D', body)) => {
                let end = bytes.len() - input.0.len();
                let Some((path, count, entries)) = decode(body) else { break };
                let (payload, entries) = (end - payload.len()..end, end - entries..end);
                saved.dirs.insert(path, SavedDir { commit: commit.clone(), payload, entries, count });
            }
            Some((b'L', body)) => {
                let Some(log) = ChangeLog::decode(body) else { break };
                saved.log = Some(log);
            }
            _ => break,
        }
        rest = input.0;
    }
    let good = bytes.len() - rest.len();
    saved.bytes = bytes;
    (saved, good)
}

/// The path of a directory, the number of its entries, and their length (bytes), if all of them are valid.
fn decode(body: &[u8]) -> Option<(RemotePath, usize, usize)> {
    let mut input = Input(body);
    let path = RemotePath::parse(input.text()?).ok()?;
    let count = usize::try_from(input.number::<4>()?).ok()?;
    let len = input.0.len();
    (0..count).try_for_each(|_| entry(&mut input).map(drop))?;
    input.0.is_empty().then_some((path, count, len))
}

fn entry(input: &mut Input<'_>) -> Option<(Name, Attr)> {
    let kind = match input.take(1)? {
        b"f" => FileKind::File,
        b"d" => FileKind::Directory,
        b"l" => FileKind::Symlink,
        b"o" => FileKind::Other,
        _ => return None,
    };
    let name = Name::new(input.text()?).ok()?;
    let size = input.number::<8>()?;
    let perm = u16::try_from(input.number::<2>()?).ok()?;
    let mtime = u32::try_from(input.number::<4>()?).ok()?;
    let atime = u32::try_from(input.number::<4>()?).ok()?;
    Some((name, Attr { kind, size, perm, mtime, atime }))
}

/// The payload of the next record, if it is whole.
fn record<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    let (len, sum) = (usize::try_from(input.number::<4>()?).ok()?, input.number::<4>()?);
    let payload = input.take(len).filter(|_| len <= MAX_PAYLOAD)?;
    (u64::from(crc32fast::hash(payload)) == sum).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &str, names: &[&str]) -> (RemotePath, Vec<(Name, Attr)>) {
        let attr = Attr { kind: FileKind::File, size: 300, perm: 0o644, mtime: 7, atime: 8 };
        let entries = names.iter().map(|name| (Name::new(name).expect("valid"), attr)).collect();
        (RemotePath::parse(path).expect("valid"), entries)
    }

    fn names(saved: &Saved, path: &str) -> Vec<String> {
        let dir = saved.dir(&RemotePath::parse(path).expect("valid"));
        dir.map(|dir| saved.entries(dir).map(|(name, _)| name.to_string()).collect()).unwrap_or_default()
    }

    #[test]
    fn what_was_saved_is_there_again_and_the_last_word_counts() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("tree");
        let (snapshot, saved) = Snapshot::open(&file).expect("begun");
        assert!(saved.is_empty());
        snapshot.append("", &[dir("code", &["a", "b"]), dir("code/d", &[])]).expect("written");
        snapshot.append("c0ffee", &[dir("code", &["b", "c"])]).expect("written");
        let (_, saved) = Snapshot::open(&file).expect("read");
        assert_eq!((saved.len(), names(&saved, "code")), (2, vec!["b".to_owned(), "c".to_owned()]));
        let commit = |path: &str| saved.dir(&RemotePath::parse(path).expect("valid")).map(|dir| dir.commit.to_string());
        assert_eq!((commit("code"), commit("code/d")), (Some("c0ffee".into()), Some(String::new())));
    }

    #[test]
    fn a_log_of_changes_counts_only_as_the_last_word() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("tree");
        let log = ChangeLog { mounts: vec![(1, 2)], ..ChangeLog::default() };
        let (snapshot, _) = Snapshot::open(&file).expect("begun");
        snapshot.append_log(&log).expect("written");
        snapshot.append("", &[dir("code", &["a"])]).expect("written");
        let (snapshot, saved) = Snapshot::open(&file).expect("read");
        assert_eq!(saved.log(), None, "the tree changed behind it");
        snapshot.append_log(&log).expect("written");
        let (_, saved) = Snapshot::open(&file).expect("read");
        assert_eq!(saved.log(), Some(&log));
        let (_, saved) = Snapshot::open(&file).expect("read");
        assert_eq!((saved.log(), saved.len()), (None, 1), "another mount began and did not end in good order");
    }

    #[test]
    fn every_cut_and_every_flipped_byte_loses_only_what_comes_after() {
        let mut bytes = HEADER.to_vec();
        bytes.extend(frame(&{
            let (path, entries) = dir("code", &["a"]);
            encode(&path, &entries)
        }));
        let first = bytes.len();
        bytes.extend(frame(&{
            let (path, entries) = dir("code/d", &["b"]);
            encode(&path, &entries)
        }));
        for cut in 0..bytes.len() {
            let (saved, good) = parse(bytes[..cut].to_vec());
            assert_eq!(saved.len(), usize::from(cut >= first), "cut at {cut}");
            assert!(good <= cut);
        }
        for at in first..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert_eq!(parse(flipped).0.len(), 1, "flipped at {at}");
        }
        assert_eq!(parse(bytes).0.len(), 2);
    }

    #[test]
    fn a_damaged_file_is_written_anew_and_history_does_not_pile_up() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("tree");
        fs::write(&file, b"nonsense").expect("written");
        let (snapshot, saved) = Snapshot::open(&file).expect("begun anew");
        assert!(saved.is_empty());
        let many: Vec<String> = (0..2000).map(|n| format!("file-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for _ in 0..20 {
            snapshot.append("", &[dir("code", &many)]).expect("written");
        }
        let before = fs::metadata(&file).expect("there").len();
        let (_, saved) = Snapshot::open(&file).expect("read");
        assert_eq!(names(&saved, "code").len(), 2000);
        assert!(fs::metadata(&file).expect("there").len() < before / 10);
    }

    #[test]
    fn the_layout_of_version_1_is_read() {
        let golden = [
            HEADER.as_slice(),
            &frame(b"Cabc"),
            &frame(b"D\x04\0code\x01\0\0\0f\x01\0a\x2c\x01\0\0\0\0\0\0\xa4\x01\x07\0\0\0\x08\0\0\0"),
        ]
        .concat();
        let (saved, good) = parse(golden.clone());
        assert_eq!(good, golden.len());
        let (path, entries) = dir("code", &["a"]);
        let found = saved.dir(&path).expect("there");
        assert_eq!((saved.entries(found).collect(), &*found.commit), (entries.clone(), "abc"));
        assert_eq!(frame(&encode(&path, &entries)), golden[HEADER.len() + 12..]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_read(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400), at in 0..60_usize) {
            let (path, entries) = dir("code", &["a", "b"]);
            let mut bytes = [HEADER.as_slice(), &frame(&encode(&path, &entries)), &noise].concat();
            Saved::parse(bytes.clone());
            // The checksum is right and the payload is wrong.
            let mut payload = encode(&path, &entries);
            if let (Some(byte), Some(new)) = (payload.get_mut(at), noise.first()) {
                *byte = *new;
            }
            bytes.truncate(HEADER.len());
            bytes.extend(frame(&payload));
            let (saved, _) = Saved::parse(bytes);
            for dir in saved.dirs.values() {
                assert_eq!(saved.entries(dir).count(), dir.len());
            }
        }
    }
}
