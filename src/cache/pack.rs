//! One file of the disk tier: blocks and the names that lead to them, appended one after the other.
//!
//! Byte for byte (all numbers little endian):
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 7 | `PFSPACK` |
//! | 7 | 1 | version of this layout: 2 |
//! | 8 | | records, one after the other |
//!
//! A record is a head of 45 bytes and a body. The head: kind (1), key (32), length of the body (4), CRC-32 of the body (4),
//! CRC-32 of the 41 bytes before (4). Kinds:
//!
//! - `B`: a block. The key is the SHA-256 of the body: packs are shared between environments, and nobody can make two
//!   contents with the same key.
//! - `N`: a name. The key is a digest of the name of a block (owner, path, version, generation, index); the body is the key
//!   of the block.
//!
//! A head that is cut off or damaged ends the reading, because the start of the next record is unknown. The body of a
//! block is checked when it is used.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const HEADER: &[u8; 8] = b"PFSPACK\x02";
const HEAD_BYTES: u64 = 45;
/// Longest body (bytes). A larger length is damage.
const MAX_BODY: u32 = 16 * 1024 * 1024;

/// The key of a block or a name.
pub(super) type Key = [u8; 32];

/// The key of these bytes.
pub(super) fn digest(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

/// A record that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Block { key: Key, at: u64, len: u32, sum: u32 },
    Name { key: Key, block: Key },
}

/// A pack that is being written.
pub(super) struct Pack {
    file: File,
    len: u64,
    buffer: Vec<u8>,
}

impl Pack {
    /// Creates a new file. It is locked while it is open, so that no other mount removes it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(HEADER)?;
        Ok(Self { file, len: HEADER.len() as u64, buffer: Vec::new() })
    }

    /// Opens a pack of an earlier mount for appending; its first `end` bytes are readable. `None`: another mount uses it.
    pub(super) fn append_to(path: &Path, end: u64, expected_len: u64) -> io::Result<Option<Self>> {
        let file = File::options().read(true).write(true).open(path)?;
        let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if !locked || file.metadata()?.len() != expected_len {
            return Ok(None);
        }
        file.set_len(end)?;
        Ok(Some(Self { file, len: end, buffer: Vec::new() }))
    }

    /// Length in bytes, with those that are not written yet.
    pub(super) fn len(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    /// Appends a record; returns the offset and checksum of its body. It is in the file after [`Pack::flush`].
    pub(super) fn add(&mut self, kind: u8, key: &Key, body: &[u8]) -> (u64, u32) {
        let sum = crc32fast::hash(body);
        let start = self.buffer.len();
        self.buffer.push(kind);
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        let head = crc32fast::hash(&self.buffer[start..]);
        self.buffer.extend_from_slice(&head.to_le_bytes());
        self.buffer.extend_from_slice(body);
        (self.len + start as u64 + HEAD_BYTES, sum)
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.len)?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// The readable records of a file, and the offset of their end.
pub(super) fn read(file: &File) -> io::Result<(Vec<Record>, u64)> {
    let len = file.metadata()?.len();
    let mut header = [0; HEADER.len()];
    if len < HEADER.len() as u64 || file.read_exact_at(&mut header, 0).is_err() || header != *HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a pack of this version"));
    }
    let (mut records, mut at) = (Vec::new(), HEADER.len() as u64);
    // Heads and names are small and many: they are read through a window, and blocks are skipped.
    let mut window = Window { file, len, start: 0, bytes: Vec::new() };
    while let Some(head) = window.get(at, HEAD_BYTES)? {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, size, sum) = (head[0], number(33), number(37));
        let whole = crc32fast::hash(&head[..41]) == number(41) && size <= MAX_BODY;
        let Some(key) = head[1..33].try_into().ok().filter(|_| whole) else { break };
        let (body, end) = (at + HEAD_BYTES, at + HEAD_BYTES + u64::from(size));
        if end > len {
            break;
        }
        records.push(match kind {
            b'B' => Record::Block { key, at: body, len: size, sum },
            b'N' => {
                let bytes = window.get(body, u64::from(size))?.filter(|bytes| crc32fast::hash(bytes) == sum);
                let Some(block) = bytes.and_then(|bytes| bytes.try_into().ok()) else { break };
                Record::Name { key, block }
            }
            _ => break,
        });
        at = end;
    }
    Ok((records, at))
}

/// Bytes read at a time.
const WINDOW_BYTES: u64 = 64 * 1024;

struct Window<'a> {
    file: &'a File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `None`: the file ends before.
    fn get(&mut self, at: u64, count: u64) -> io::Result<Option<&[u8]>> {
        if at + count > self.len {
            return Ok(None);
        }
        if at < self.start || at + count > self.start + self.bytes.len() as u64 {
            self.start = at;
            self.bytes.resize(count.max(WINDOW_BYTES).min(self.len - at) as usize, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
        }
        let from = (at - self.start) as usize;
        Ok(self.bytes.get(from..from + count as usize))
    }
}

/// The packs of a directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let packs = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    Ok(packs.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &Path) -> Vec<Record> {
        let mut pack = Pack::create(path).expect("made");
        let (block, name) = (digest(b"some bytes"), digest(b"a name"));
        let (at, sum) = pack.add(b'B', &block, b"some bytes");
        pack.add(b'N', &name, &block);
        pack.flush().expect("written");
        vec![Record::Block { key: block, at, len: 10, sum }, Record::Name { key: name, block }]
    }

    #[test]
    fn a_cut_pack_loses_only_its_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("1.pack");
        let written = sample(&path);
        assert_eq!(read(&File::open(&path).expect("there")).expect("read").0, written);
        let bytes = std::fs::read(&path).expect("read");
        let copy = dir.path().join("copy");
        for cut in HEADER.len()..bytes.len() {
            std::fs::write(&copy, &bytes[..cut]).expect("cut off");
            let (found, _) = read(&File::open(&copy).expect("there")).expect("read");
            assert_eq!(found, written[..found.len()], "cut at {cut}");
            assert!(found.len() < 2);
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&copy, &flipped).expect("flipped");
            let found = read(&File::open(&copy).expect("there")).map(|(found, _)| found).unwrap_or_default();
            // The body of a block is checked when it is used.
            assert_eq!(found, written[..found.len()], "flipped at {at}");
        }
    }

    #[test]
    fn the_layout_of_version_2_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("golden");
        let mut golden = HEADER.to_vec();
        let mut head =
            [b"B".as_slice(), &[7; 32], &3_u32.to_le_bytes(), &crc32fast::hash(b"abc").to_le_bytes()].concat();
        head.extend(crc32fast::hash(&head).to_le_bytes());
        golden.extend([head.as_slice(), b"abc"].concat());
        std::fs::write(&path, golden).expect("written");
        let (found, _) = read(&File::open(&path).expect("there")).expect("read");
        assert_eq!(found, [Record::Block { key: [7; 32], at: 53, len: 3, sum: 0x3524_41c2 }]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_read(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400), cut in 0..100_usize) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("1.pack");
            sample(&path);
            let mut bytes = std::fs::read(&path).expect("read");
            bytes.truncate(cut.max(HEADER.len()));
            bytes.extend(noise);
            std::fs::write(&path, bytes).expect("damaged");
            let _ = read(&File::open(&path).expect("there"));
        }
    }
}
