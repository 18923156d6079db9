//! Reads whole files in order, of any size, for comparisons.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crc32fast::Hasher;

use super::blocks::{assemble, blocks_of, clamp};
use super::racy::Sums;
use super::read::{MAX_FETCH_BYTES, ReadError};
use super::state::Content;
use crate::attr::Version;
use crate::cache::BLOCK_BYTES;
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, RemoteError};

/// Number of pieces of a streamed file that are requested at a time.
const PIECES_AHEAD: usize = 8;
/// Number of blocks whose checksums are recorded with a change that is based on them.
const MAX_SHOWN_BLOCKS: usize = 1024;

impl Content {
    /// The bytes of the version as this mount last returned or sent them, if all are still cached: the base of a change. The
    /// server may have other bytes under the same version.
    pub fn last_shown(&self, path: &RemotePath, version: Version) -> Option<Vec<u8>> {
        self.shown_part(path, version, 0..version.size)
    }

    /// A part of it.
    pub fn shown_part(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Option<Vec<u8>> {
        self.read_cached(path, version, range.clone()).or_else(|| {
            let range = clamp(range, version);
            let blocks: Option<Vec<_>> =
                blocks_of(&range).map(|index| self.0.unconfirmed(path, version, index)).collect();
            Some(assemble(&range, &blocks?))
        })
    }

    /// The CRC-32 of the content that callers were shown for the version, if it is known.
    pub fn shown_sum(&self, path: &RemotePath, version: Version) -> Option<u32> {
        let (sums, all) = (self.0.racy.sums(path, version), blocks_of(&(0..version.size)));
        let sum = all.map(|index| {
            let block = clamp(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES, version);
            Some(Hasher::new_with_initial_len(*sums.get(&index)?, block.end - block.start))
        });
        let whole: Option<Vec<_>> = sum.collect();
        let combined = |parts: Vec<Hasher>| {
            let mut hasher = Hasher::new();
            parts.iter().for_each(|part| hasher.combine(part));
            hasher.finalize()
        };
        whole.map(combined).or_else(|| Some(crc32fast::hash(&self.last_shown(path, version)?)))
    }

    /// CRC-32 of the blocks that callers were shown for the version, by index, if another content may have the same version.
    pub fn shown_blocks(&self, path: &RemotePath, version: Version) -> Vec<(u64, u32)> {
        self.0.racy.sums(path, version).into_iter().take(MAX_SHOWN_BLOCKS).collect()
    }

    /// Notes what callers were shown by the mount before this one, see [`Content::shown_blocks`].
    pub fn restore_shown(&self, path: RemotePath, version: Version, blocks: Vec<(u64, u32)>) {
        self.0.racy.restore(path, version, blocks.into_iter().collect());
    }

    /// Passes the bytes of the whole file to `sink`, in order and in pieces. They are not added to the caches, so that files
    /// that are larger than memory and racy versions can be read. Cached pieces that can be trusted are used. `limit` is the
    /// time limit per piece. The inner result is that of `sink`.
    pub fn stream(
        &self,
        path: &RemotePath,
        version: Version,
        limit: Duration,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ReadError> {
        let (trusted, racy) = (self.is_settled(path, version), self.0.is_racy(version));
        let noted = if racy { Sums::new() } else { self.0.racy.sums(path, version) };
        let mut check = Check::new(&noted);
        let mut coming: VecDeque<Piece> = VecDeque::new();
        let mut asked = 0;
        loop {
            while asked < version.size && coming.len() < PIECES_AHEAD {
                let range = clamp(asked..asked + MAX_FETCH_BYTES, version);
                asked = range.end;
                coming.push_back(self.piece(path, version, range, trusted));
            }
            let bytes = match coming.pop_front() {
                None => {
                    // The server has the noted content, and the version is not racy any more.
                    if check.same && !noted.is_empty() {
                        self.0.racy.forget(path);
                    }
                    return Ok(Ok(()));
                }
                Some(Piece::Here(bytes)) => bytes,
                Some(Piece::Coming(receiver)) => match receiver.recv_timeout(limit) {
                    Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error)))?,
                    Err(_) => return Err(ReadError::TimedOut),
                },
            };
            check.update(&bytes);
            if let Err(error) = sink(&bytes) {
                return Ok(Err(error));
            }
        }
    }

    fn piece(&self, path: &RemotePath, version: Version, range: Range<u64>, trusted: bool) -> Piece {
        // Checked block by block first: if one is missing, the others need not be loaded into the memory cache.
        if trusted
            && self.missing(path, version, &range).is_empty()
            && let Some(bytes) = self.read_cached(path, version, range.clone())
        {
            return Piece::Here(bytes);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.fetched.bytes(range.end - range.start);
        if range.start == 0 {
            self.0.fetched.file();
        }
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), (version, trusted), range, Class::Bulk, done);
        Piece::Coming(receiver)
    }

    /// Whether the server still has the content that was last read or stored under this version. Needs no request if
    /// the version was not racy at that time.
    pub fn is_still(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<bool, ReadError> {
        let sums = self.0.racy.sums(path, version);
        if sums.is_empty() {
            return Ok(true);
        }
        let racy = self.0.is_racy(version);
        let mut check = Check::new(&sums);
        let read = self.stream(path, version, deadline.remaining(), &mut |piece| {
            check.update(piece);
            if check.same { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
        });
        match read {
            Ok(_) => {
                if check.same && !racy {
                    self.0.racy.forget(path);
                }
                Ok(check.same)
            }
            // Another version or no file; callers compare versions separately. Of a file that may not be read, its version
            // is all that can be compared.
            Err(ReadError::Remote(error))
                if matches!(
                    error.kind,
                    ErrorKind::Changed { .. } | ErrorKind::NotFound | ErrorKind::PermissionDenied
                ) =>
            {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

/// A piece of a streamed file.
enum Piece {
    Here(Vec<u8>),
    Coming(mpsc::Receiver<Result<Vec<u8>, RemoteError>>),
}

/// Compares content with the noted checksums.
struct Check<'a> {
    sums: &'a Sums,
    at: u64,
    same: bool,
}

impl<'a> Check<'a> {
    fn new(sums: &'a Sums) -> Self {
        Self { sums, at: 0, same: true }
    }

    /// Checks the next piece, which begins at a block boundary.
    fn update(&mut self, piece: &[u8]) {
        for block in piece.chunks(BLOCK_BYTES as usize) {
            self.same &= self.sums.get(&self.at).is_none_or(|sum| crc32fast::hash(block) == *sum);
            self.at += 1;
        }
    }
}
