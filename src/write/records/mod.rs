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
//! | | | zeros, up to the length that the file was given ahead |
//!
//! A record is its length (4 bytes), the CRC-32 of its payload (4 bytes), and its payload: one JSON object. The file is
//! made longer in steps, ahead of the records, so that a sync of the disk need not write a new length.
//!
//! What is behind the last good record is zeros, a record that was never finished, or damage. Where a good record follows
//! a place that cannot be read, the place is damage: a bad byte, a page that a power loss dropped, a record of a kind that
//! only a newer version knows. Damage is skipped, the whole file is kept beside, and what could be read is written anew.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable;

const MAGIC: &[u8; 6] = b"PFSLOG";
pub(in crate::write) const VERSION: u8 = 1;
const KINDS: [u8; 3] = [b'K', b'J', b'R'];
const HEADER_BYTES: u64 = 8;
/// Longest payload (bytes): two paths and some numbers. More is damage.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// Room on the disk that is made at a time (bytes): hundreds of records.
const ROOM_BYTES: u64 = 1024 * 1024;
/// The file is made longer by this at a time (bytes).
const STEP_BYTES: u64 = 64 * 1024;
/// Bytes of payload that are looked at to find the next record behind damage.
const RESYNC_BYTES: usize = 256 * 1024 * 1024;

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
    /// Bytes of the file, zeros behind the records included.
    size: u64,
    /// Bytes that the disk has room for.
    reserved: u64,
    /// Bytes of a record that could not be appended may be behind `len`.
    torn: bool,
    /// Bytes that a sync has put on the disk.
    synced: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    /// Bytes up to the end of the last good record.
    good: u64,
    /// Bytes in all.
    len: u64,
    /// Some of it is no unfinished record, but cannot be read; the offset of the first such place.
    pub(super) damage: Option<u64>,
    /// There is something behind the good records: what it was cannot be told.
    pub(super) torn: bool,
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
    let mut found = Found { records: Vec::new(), good: 0, len, damage: None, torn: false };
    let header = match bytes.get(..HEADER_BYTES as usize) {
        Some(header) if bytes.iter().any(|byte| *byte != 0) => header,
        // Not even a header was finished.
        _ => return Ok(found),
    };
    let is_other = KINDS.contains(&header[6]) && header[6] != kind;
    if &header[..6] != MAGIC || header[6] != kind {
        let first = payload_at(bytes, HEADER_BYTES as usize).map(serde_json::from_slice::<T>);
        let gone = header.iter().all(|byte| *byte == 0);
        if is_other || !(gone || first.is_some_and(|record| record.is_ok())) {
            return Err(bad("not a file of this kind"));
        }
        // Records of ours follow: the header is damaged, or the first page is gone and later ones are there.
        found.damage = Some(0);
    } else if header[7] != VERSION {
        return Err(bad("written by another version of pantheonfs"));
    }
    let mut at = HEADER_BYTES as usize;
    found.good = HEADER_BYTES;
    let mut budget = RESYNC_BYTES;
    while let Some(next) = next_record(bytes, at, &mut budget) {
        if next.start != at || next.record.is_none() {
            found.damage.get_or_insert(at as u64);
        }
        found.records.extend(next.record);
        at = next.end;
        found.good = at as u64;
    }
    found.torn = bytes[at..].iter().any(|byte| *byte != 0);
    if found.torn && is_complete(&bytes[at..]) {
        // Whole, and with a wrong checksum: no record that was cut off.
        found.damage.get_or_insert(at as u64);
    }
    Ok(found)
}

/// A frame that was found at or behind a place.
struct Next<T> {
    start: usize,
    end: usize,
    /// `None`: of a kind that this version does not know.
    record: Option<T>,
}

/// The payload of the frame at this place, if its checksum is right. An empty one is no frame: zeros would be one.
fn payload_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let head = bytes.get(at..at + 8)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let size = number(0) as usize;
    let payload = bytes.get(at + 8..at + 8 + size).filter(|_| (1..=MAX_PAYLOAD).contains(&size))?;
    (crc32fast::hash(payload) == number(4)).then_some(payload)
}

/// Whether the length of a frame is one that the rest of the file has.
fn is_complete(rest: &[u8]) -> bool {
    let size = rest.get(..4).map_or(0, |head| u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize);
    size > MAX_PAYLOAD || (size > 0 && rest.len() >= 8 + size && rest[8..8 + size].iter().any(|byte| *byte != 0))
}

/// The next good frame. Behind damage it is looked for at every byte, for as long as `budget` (bytes of payload) lasts.
fn next_record<T: DeserializeOwned>(bytes: &[u8], from: usize, budget: &mut usize) -> Option<Next<T>> {
    for start in from..bytes.len().saturating_sub(8) {
        if start != from {
            // Cheap, before the checksum is taken: what is written here is JSON.
            let size =
                u32::from_le_bytes([bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]]) as usize;
            if !(2..=MAX_PAYLOAD).contains(&size) || !matches!(bytes[start + 8], b'{' | b'"') {
                continue;
            }
            *budget = budget.checked_sub(size)?;
        }
        if let Some(payload) = payload_at(bytes, start) {
            return Some(Next { start, end: start + 8 + payload.len(), record: serde_json::from_slice(payload).ok() });
        }
    }
    None
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
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Names in the directory of this file survive a loss of power from here on.
fn sync_dir_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Keeps a file that is damaged beside itself.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let names = (0..).map(|n| path.with_extension(format!("damaged-{}", std::process::id() + n)));
    let aside = names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| path.with_extension("damaged"));
    std::fs::copy(path, &aside)?;
    File::open(&aside)?.sync_all()?;
    Ok(aside)
}

/// What was read of a file that is opened for appending.
pub(super) struct Opened<T> {
    pub(super) log: Records<T>,
    pub(super) records: Vec<T>,
    /// Records may be missing: there was damage, or an end that cannot be read, or not even a header.
    pub(super) incomplete: bool,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens for appending. An unfinished end is cut away; where there is damage, the file is kept beside first, and what
    /// can be read in front of it and behind it is written anew.
    pub(super) fn open(path: &Path, kind: u8) -> io::Result<(Self, Vec<T>)> {
        Self::open_telling(path, kind).map(|opened| (opened.log, opened.records))
    }

    /// The same, and says whether records may be missing.
    pub(super) fn open_telling(path: &Path, kind: u8) -> io::Result<Opened<T>> {
        let found = read::<T>(path, kind)?;
        let is_new = found.good == 0;
        let incomplete = found.damage.is_some() || found.torn || is_new;
        let file = create(path)?;
        let len = found.good.max(HEADER_BYTES);
        let state = State { file, len, size: found.len, reserved: 0, torn: found.torn, synced: 0 };
        let log = Self { path: path.to_owned(), kind, state: Mutex::new(state), _records: PhantomData };
        if is_new {
            log.clear()?;
            log.lock().file.write_all_at(&header(kind), 0)?;
            sync_dir_of(path)?;
        }
        let mut records = found.records;
        if let Some(at) = found.damage {
            let aside = keep_aside(path)?;
            log::error!(
                "{}: damaged after byte {at}; the whole file is kept as {}, and what can be read of it is used",
                path.display(),
                aside.display()
            );
            records = log.replace(|| records)?;
        }
        Ok(Opened { log, records, incomplete })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds records, all or none.
    pub(super) fn append(&self, records: &[T]) -> io::Result<()> {
        let bytes = records.iter().map(frame).collect::<io::Result<Vec<_>>>()?.concat();
        self.lock().append(&bytes)
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
        (state.len, state.size, state.reserved, state.torn) = (HEADER_BYTES, HEADER_BYTES, 0, false);
        state.synced = HEADER_BYTES;
        Ok(())
    }

    /// On the disk, for power loss.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (file, len) = {
            let state = self.lock();
            (state.file.try_clone()?, state.len)
        };
        file.sync_data()?;
        let mut state = self.lock();
        // It may have been written anew meanwhile, and shorter.
        state.synced = state.synced.max(len.min(state.len));
        Ok(())
    }

    /// Bytes that a sync has put on the disk: what a loss of power leaves in any case.
    pub(super) fn synced(&self) -> u64 {
        self.lock().synced
    }

    /// From here on the disk takes nothing, or again what it is given.
    #[cfg(test)]
    pub(super) fn fail(&self, fails: bool) {
        let path = if fails { Path::new("/dev/full") } else { &self.path };
        self.lock().file = File::options().write(true).open(path).expect("opened");
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.lock().len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() <= HEADER_BYTES
    }

    /// Replaces everything by these records, at once, and for good: it is on the disk when this returns. `records` is
    /// asked for under the lock: nothing is appended meanwhile.
    pub(super) fn rewrite(&self, records: impl FnOnce() -> Vec<T>) -> io::Result<()> {
        self.replace(records).map(drop)
    }

    fn replace(&self, records: impl FnOnce() -> Vec<T>) -> io::Result<Vec<T>> {
        let mut state = self.lock();
        let records = records();
        let mut bytes = header(self.kind);
        for record in &records {
            bytes.extend(frame(record)?);
        }
        let replaced = durable::replace(&self.path, |file| file.write_all(&bytes));
        // The directory's sync may have failed when the new file was in place: what is appended must not go to the old one.
        let failed = replaced.err();
        let file = File::options().write(true).open(&self.path)?;
        let size = file.metadata()?.len();
        if let Some(error) = failed {
            let is_new = size == bytes.len() as u64;
            if is_new {
                *state = State { file, len: size, size, reserved: 0, torn: false, synced: HEADER_BYTES };
            }
            return Err(error);
        }
        *state = State { file, len: size, size, reserved: 0, torn: false, synced: size };
        Ok(records)
    }
}

impl State {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            // Half a record must not be in front of the next one, nor behind it.
            self.file.set_len(self.len)?;
            (self.size, self.reserved, self.torn) = (self.len, 0, false);
        }
        let end = self.len + bytes.len() as u64;
        if end > self.size {
            let size = end.next_multiple_of(STEP_BYTES);
            self.file.set_len(size)?;
            self.size = size;
        }
        if let Err(error) = self.file.write_all_at(bytes, self.len) {
            self.torn = self.file.set_len(self.len).is_err();
            (self.size, self.reserved) = (self.len, 0);
            return Err(error);
        }
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
