//! An append-only file of records, each with a checksum, so that complete records can be told from torn or damaged
//! ones after a crash.
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
//! A record is its length (4 bytes), the CRC-32 of its payload (4 bytes), and its payload: one JSON object. The file
//! is extended in steps, ahead of the records, so that a sync need not write a new length.
//!
//! After the last good record there are zeros, a record that was never finished, or damage. If a good record follows
//! a place that cannot be read, the place is damaged: a bad byte, a page that was lost in a power failure, or a
//! record of a kind that only a newer version knows. Damage is skipped, a copy of the whole file is stored beside it,
//! and the readable records are written to a new file.

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
/// Longest payload (bytes): two paths and some numbers. A larger length is damage.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// Disk space that is reserved at a time (bytes): hundreds of records.
const ROOM_BYTES: u64 = 1024 * 1024;
/// Step by which the file is extended (bytes).
const STEP_BYTES: u64 = 64 * 1024;
/// Bytes of payload that are examined to find the next record after damage.
const RESYNC_BYTES: usize = 256 * 1024 * 1024;

/// See the module documentation.
pub(super) struct Records<T> {
    path: PathBuf,
    kind: u8,
    state: Mutex<State>,
    _records: PhantomData<fn(T) -> T>,
}

struct State {
    file: File,
    /// Bytes of the header and of whole records.
    len: u64,
    /// Bytes of the file, with the zeros after the records.
    size: u64,
    /// Bytes for which disk space is reserved.
    reserved: u64,
    /// Whether a part of a record that could not be appended may follow `len`.
    torn: bool,
    /// Bytes that were synced to the disk.
    synced: u64,
}

/// The result of reading a file.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    /// Bytes up to the end of the last good record.
    good: u64,
    /// Bytes of the whole file.
    len: u64,
    /// The offset of the first place that cannot be read and is not an unfinished record.
    pub(super) damage: Option<u64>,
    /// Whether unreadable bytes follow the good records.
    pub(super) torn: bool,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the records of a file; a missing file has none.
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
        // The header was not finished.
        _ => return Ok(found),
    };
    let is_other = KINDS.contains(&header[6]) && header[6] != kind;
    if &header[..6] != MAGIC || header[6] != kind {
        let first = payload_at(bytes, HEADER_BYTES as usize).map(serde_json::from_slice::<T>);
        let gone = header.iter().all(|byte| *byte == 0);
        if is_other || !(gone || first.is_some_and(|record| record.is_ok())) {
            return Err(bad("not a file of this kind"));
        }
        // Good records follow: the header is damaged, or the first page was lost and later ones were not.
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
        // Complete, but with a wrong checksum: not a torn record.
        found.damage.get_or_insert(at as u64);
    }
    Ok(found)
}

/// A frame that was found at or after an offset.
struct Next<T> {
    start: usize,
    end: usize,
    /// `None`: of a kind that this version does not know.
    record: Option<T>,
}

/// The payload of the frame at this offset, if its checksum is right. An empty payload is no frame, because zeros
/// would be one.
fn payload_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let head = bytes.get(at..at + 8)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let size = number(0) as usize;
    let payload = bytes.get(at + 8..at + 8 + size).filter(|_| (1..=MAX_PAYLOAD).contains(&size))?;
    (crc32fast::hash(payload) == number(4)).then_some(payload)
}

/// Whether the rest of the file is as long as the frame.
fn is_complete(rest: &[u8]) -> bool {
    let size = rest.get(..4).map_or(0, |head| u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize);
    size > MAX_PAYLOAD || (size > 0 && rest.len() >= 8 + size && rest[8..8 + size].iter().any(|byte| *byte != 0))
}

/// The next good frame. After damage every byte is tried, until `budget` (bytes of payload) is used up.
fn next_record<T: DeserializeOwned>(bytes: &[u8], from: usize, budget: &mut usize) -> Option<Next<T>> {
    for start in from..bytes.len().saturating_sub(8) {
        if start != from {
            // Checked before the checksum because it is cheap: payloads are JSON.
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

/// Syncs the directory of this file, so that names in it survive a loss of power.
fn sync_dir_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Copies a damaged file to a free name beside it.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let names = (0..).map(|n| path.with_extension(format!("damaged-{}", std::process::id() + n)));
    let aside = names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| path.with_extension("damaged"));
    std::fs::copy(path, &aside)?;
    File::open(&aside)?.sync_all()?;
    Ok(aside)
}

/// The result of opening a file for appending.
pub(super) struct Opened<T> {
    pub(super) log: Records<T>,
    pub(super) records: Vec<T>,
    /// Whether records may be missing because of damage, an unreadable end, or a missing header.
    pub(super) incomplete: bool,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens a file for appending. An unfinished end is cut off. If the file is damaged, a copy is stored beside it
    /// first, and all readable records are written to a new file.
    pub(super) fn open(path: &Path, kind: u8) -> io::Result<(Self, Vec<T>)> {
        Self::open_telling(path, kind).map(|opened| (opened.log, opened.records))
    }

    /// Like [`Records::open`], and tells whether records may be missing.
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

    /// Appends records, all or none.
    pub(super) fn append(&self, records: &[T]) -> io::Result<()> {
        let bytes = records.iter().map(frame).collect::<io::Result<Vec<_>>>()?.concat();
        self.lock().append(&bytes)
    }

    /// Reserves disk space for the next records, so that a full disk is reported before anything was changed.
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

    /// Removes all records.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.file.set_len(HEADER_BYTES)?;
        (state.len, state.size, state.reserved, state.torn) = (HEADER_BYTES, HEADER_BYTES, 0, false);
        state.synced = HEADER_BYTES;
        Ok(())
    }

    /// Flushes the records to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (file, len) = {
            let state = self.lock();
            (state.file.try_clone()?, state.len)
        };
        file.sync_data()?;
        let mut state = self.lock();
        // The file may have been rewritten meanwhile, and be shorter.
        state.synced = state.synced.max(len.min(state.len));
        Ok(())
    }

    /// Bytes that were synced to the disk and survive a loss of power.
    pub(super) fn synced(&self) -> u64 {
        self.lock().synced
    }

    /// Simulates a disk that is full, or works again.
    #[cfg(test)]
    pub(super) fn fail(&self, fails: bool) {
        let path = if fails { Path::new("/dev/full") } else { &self.path };
        self.lock().file = File::options().write(true).open(path).expect("opened");
    }

    /// Length of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.lock().len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() <= HEADER_BYTES
    }

    /// Replaces all records at once; the new ones are on the disk when this returns. `records` is called under the
    /// lock, so that no record is appended meanwhile.
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
        // If only the sync of the directory failed, the new file is in place, and appended records must not go to the
        // old one.
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
            // A torn record must not be between two others, nor after the last one.
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
