//! A file of records that is only appended to, each with a checksum: what a crash leaves of it can be told from what it
//! was meant to be.
//!
//! Byte for byte (all numbers little endian):
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 6 | `PFSLOG` |
//! | 6 | 1 | kind of the records: `K` kept copies, `J` journal, `R` rejects |
//! | 7 | 1 | version of this layout: 1 |
//! | 8 | | records, one after the other |
//!
//! A record is its length (4 bytes), the CRC-32 of its payload (4 bytes), and its payload: one JSON object. A record that
//! is cut off at the end was never finished and is cut away. One whose checksum is wrong ends the reading; what follows it
//! is kept in a file beside it, since nobody can say any more what it means.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable;

const MAGIC: &[u8; 6] = b"PFSLOG";
pub(super) const VERSION: u8 = 1;
const HEADER_BYTES: u64 = 8;
/// Longest payload (bytes): two paths and some numbers. More is damage.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// Room on the disk that is made at a time (bytes): hundreds of records.
const ROOM_BYTES: u64 = 1024 * 1024;

/// See the module header.
pub(super) struct Records<T> {
    path: PathBuf,
    kind: u8,
    state: Mutex<State>,
    _records: PhantomData<fn(T) -> T>,
}

struct State {
    file: File,
    /// Bytes of whole records and the header.
    len: u64,
    /// Bytes that the disk has room for.
    reserved: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    /// Bytes up to the end of the last good record.
    good: u64,
    /// Bytes in all.
    len: u64,
    /// The bytes after the good ones are no unfinished record, but damage.
    pub(super) damaged: bool,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads what is there; a missing file has no records.
pub(super) fn read<T: DeserializeOwned>(path: &Path, kind: u8) -> io::Result<Found<T>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    parse(&bytes, kind)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], kind: u8) -> io::Result<Found<T>> {
    let len = bytes.len() as u64;
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES as usize) else {
        // Not even a header was finished.
        return Ok(Found { records: Vec::new(), good: 0, len, damaged: false });
    };
    if &header[..6] != MAGIC || header[6] != kind {
        return Err(bad("not a file of this kind"));
    }
    if header[7] != VERSION {
        return Err(bad("written by another version of pantheonfs"));
    }
    let (mut records, mut damaged) = (Vec::new(), false);
    while let Some((head, after)) = rest.split_at_checked(8) {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let size = number(0) as usize;
        let Some((payload, after)) = after.split_at_checked(size) else {
            damaged = size > MAX_PAYLOAD;
            break;
        };
        let record = (crc32fast::hash(payload) == number(4)).then(|| serde_json::from_slice(payload).ok()).flatten();
        let Some(record) = record else {
            damaged = true;
            break;
        };
        records.push(record);
        rest = after;
    }
    Ok(Found { records, good: len - rest.len() as u64, len, damaged })
}

fn frame<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record).map_err(io::Error::other)?;
    let size = u32::try_from(payload.len()).ok().filter(|size| *size as usize <= MAX_PAYLOAD);
    let size = size.ok_or_else(|| bad("the record is too long"))?;
    let mut out = Vec::with_capacity(payload.len() + 8);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

fn header(kind: u8) -> Vec<u8> {
    [MAGIC.as_slice(), &[kind, VERSION]].concat()
}

fn create(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens for appending. What cannot be read is cut away; damage is kept beside the file first.
    pub(super) fn open(path: &Path, kind: u8) -> io::Result<(Self, Vec<T>)> {
        let found = read::<T>(path, kind)?;
        if found.damaged {
            let aside = path.with_extension(format!("damaged-{}", std::process::id()));
            std::fs::copy(path, &aside)?;
            log::error!(
                "{}: damaged after byte {}; the whole file is kept as {}",
                path.display(),
                found.good,
                aside.display()
            );
        }
        let file = create(path)?;
        let mut len = found.good;
        if len != found.len {
            file.set_len(len)?;
        }
        if len == 0 {
            (&file).write_all(&header(kind))?;
            len = HEADER_BYTES;
        }
        let state = Mutex::new(State { file, len, reserved: 0 });
        Ok((Self { path: path.to_owned(), kind, state, _records: PhantomData }, found.records))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds records, all or none.
    pub(super) fn append(&self, records: &[T]) -> io::Result<()> {
        let bytes = records.iter().map(frame).collect::<io::Result<Vec<_>>>()?.concat();
        let mut state = self.lock();
        if let Err(error) = state.file.write_all(&bytes) {
            // A full disk must not leave half a record in front of the next one.
            state.file.set_len(state.len)?;
            return Err(error);
        }
        state.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes sure that the next records find room on the disk: a full one shows here, before anything was changed.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.len + ROOM_BYTES / 2 <= state.reserved {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&state.file, flags, state.len, ROOM_BYTES) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {
                state.reserved = state.len + ROOM_BYTES;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Nothing of it is needed any more.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.file.set_len(HEADER_BYTES)?;
        state.len = HEADER_BYTES;
        state.reserved = 0;
        Ok(())
    }

    /// On the disk, for power loss.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = self.lock().file.try_clone()?;
        file.sync_data()
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.lock().len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() <= HEADER_BYTES
    }

    /// Replaces everything by these records, at once. `records` is asked for under the lock: nothing is appended meanwhile.
    pub(super) fn rewrite(&self, records: impl FnOnce() -> Vec<T>) -> io::Result<()> {
        let mut state = self.lock();
        let mut bytes = header(self.kind);
        for record in records() {
            bytes.extend(frame(&record)?);
        }
        let replaced = durable::replace(&self.path, |file| file.write_all(&bytes));
        // The directory's sync may have failed when the new file was in place: what is appended must not go to the old one.
        let (file, done) = match replaced {
            Ok(file) => (file, Ok(())),
            Err(error) => (File::options().append(true).open(&self.path)?, Err(error)),
        };
        *state = State { len: file.metadata()?.len(), file, reserved: 0 };
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(path: &Path, records: &[String]) -> Records<String> {
        let (log, found) = Records::open(path, b'K').expect("opened");
        assert!(found.is_empty());
        log.append(records).expect("appended");
        log
    }

    /// The layout of version 1, as it was first released.
    #[test]
    fn the_golden_sample_reads_as_ever() {
        let golden = b"PFSLOGK\x01\x05\0\0\0\x10\x95\xf2\x24\"one\"\x05\0\0\0";
        let crc = crc32fast::hash(b"\"one\"").to_le_bytes();
        let golden = [&golden[..12], &crc, &golden[16..]].concat();
        let found = parse::<String>(&golden, b'K').expect("read");
        assert_eq!((found.records, found.damaged), (vec!["one".to_owned()], false));
        assert!(parse::<String>(&golden, b'J').is_err());
        assert!(parse::<String>(b"PFSLOGK\x02", b'K').is_err());
    }

    #[test]
    fn damage_is_told_from_an_unfinished_end_and_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        drop(write(&path, &["one".into(), "two".into()]));
        let mut bytes = std::fs::read(&path).expect("read");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, &bytes).expect("damaged");
        let (log, found) = Records::<String>::open(&path, b'K').expect("opened");
        assert_eq!(found, ["one"]);
        log.append(&["three".into()]).expect("appended");
        assert_eq!(read::<String>(&path, b'K').expect("read").records, ["one", "three"]);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2, "the damaged file is kept");
        log.rewrite(|| vec!["four".into()]).expect("rewritten");
        log.append(&["five".into()]).expect("appended");
        assert_eq!(read::<String>(&path, b'K').expect("read").records, ["four", "five"]);
    }

    #[test]
    fn a_rewrite_that_fails_changes_nothing_and_what_follows_is_appended() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let log = write(&path, &["one".into()]);
        let before = log.len();
        // No directory, no temporary file in it.
        let away = dir.path().with_extension("away");
        std::fs::rename(dir.path(), &away).expect("moved away");
        assert!(log.rewrite(|| vec!["lost".into()]).is_err());
        std::fs::rename(&away, dir.path()).expect("moved back");
        assert_eq!(log.len(), before);
        log.append(&["two".into()]).expect("appended");
        assert_eq!(read::<String>(&path, b'K').expect("read").records, ["one", "two"]);
    }

    proptest! {
        /// However much of the end is missing, what is read is a beginning of what was written.
        #[test]
        fn a_torn_end_loses_only_the_end(records in proptest::collection::vec(".{0,20}", 0..8), cut in 0..200_usize) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("log");
            drop(write(&path, &records));
            let bytes = std::fs::read(&path).expect("read");
            std::fs::write(&path, &bytes[..bytes.len().saturating_sub(cut)]).expect("torn");
            let (log, found) = Records::<String>::open(&path, b'K').expect("opened");
            prop_assert!(records.starts_with(&found));
            prop_assert!(cut > 0 || found == records);
            log.append(&["next".into()]).expect("appended");
            prop_assert_eq!(read::<String>(&path, b'K').expect("read").records.len(), found.len() + 1);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse::<String>(&bytes, b'K');
            let _ = parse::<String>(&[&header(b'K')[..], &bytes].concat(), b'K');
        }
    }
}
