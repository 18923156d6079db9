//! The bytes of a version, from the cache, from the local repository if they are proved to be equal, or from the
//! server.
//!
//! If the server has another version, the result is an error of its own
//! ([`ErrorKind::Changed`](crate::remote::ErrorKind)): bytes of two versions are never mixed. The room does not know
//! inodes or handles; content that was written locally and not sent is in `write`.

mod attest;
mod blocks;
mod proved;
mod provenance;
mod racy;
mod readahead;
mod state;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use attest::{AttestConfig, ask as attest};
pub use provenance::{ProofFigures, Proofs, Provenance};
pub use readahead::ReadAhead;
pub use state::{Content, SharedError};

use crate::attr::{ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey, Disk, DiskFigures, Figures, InFlight, Memory, Role, Ticket, Waiter};
use crate::clock::{Clock, Deadline};
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, Remote};
use blocks::{assemble, blocks_of, clamp};
use proved::remote_id;
use racy::RacySums;
use state::{BlockResult, Inner, OnMismatch};

/// Bytes per request: longer ranges are split, so that the first part can be used while the rest is transferred.
const MAX_FETCH_BYTES: u64 = 1024 * 1024;

/// Why bytes could not be read.
#[derive(Debug, Clone)]
pub enum ReadError {
    Remote(SharedError),
    /// The deadline passed before the bytes arrived.
    TimedOut,
}

impl Content {
    pub fn new(
        remote: Remote,
        cache_bytes: u64,
        disk: Option<Disk>,
        proofs: Option<Arc<Proofs>>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            remote,
            clock,
            memory: Memory::new(cache_bytes),
            disk,
            flights: InFlight::default(),
            racy: RacySums::default(),
            proofs,
            mismatch: OnMismatch::default(),
            fetched_bytes: AtomicU64::new(0),
            fetched_files: AtomicU64::new(0),
        }))
    }

    pub fn figures(&self) -> Figures {
        self.0.memory.figures()
    }

    pub fn disk_figures(&self) -> Option<DiskFigures> {
        self.0.disk.as_ref().map(Disk::figures)
    }

    /// Writes all cached content to the disk cache and closes it.
    pub fn close(&self) {
        if let Some(disk) = &self.0.disk {
            disk.close();
        }
    }

    /// Number of files whose reading was started over the network, and bytes of content received.
    pub fn fetched(&self) -> (u64, u64) {
        (self.0.fetched_files.load(Ordering::Relaxed), self.0.fetched_bytes.load(Ordering::Relaxed))
    }

    /// The bytes, if all of them are cached in memory or on disk. Never waits for the network.
    pub fn read_cached(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Option<Vec<u8>> {
        let range = clamp(range, version);
        let content = self.0.content_id(path, version);
        let block = |index| self.0.cached(path, version, &BlockKey { content: content.clone(), index });
        let blocks: Option<Vec<_>> = blocks_of(&range).map(block).collect();
        Some(assemble(&range, &blocks?))
    }

    /// The bytes, fetched if necessary. A range beyond the end of the file returns the bytes up to the end.
    pub fn read(
        &self,
        path: &RemotePath,
        version: Version,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Vec<u8>, ReadError> {
        let range = clamp(range, version);
        let indices = blocks_of(&range);
        let waits = self.want(path, version, indices.clone(), Class::Interactive);
        let mut blocks = Vec::with_capacity(waits.len());
        for wait in waits {
            blocks.push(match wait {
                Wanted::Here(block) => block,
                Wanted::Coming(waiter) => match waiter.wait(deadline.0) {
                    Some(Ok(block)) => block,
                    Some(Err(error)) => return Err(ReadError::Remote(error)),
                    None => return Err(ReadError::TimedOut),
                },
            });
        }
        Ok(assemble(&range, &blocks))
    }

    /// Starts to fetch the bytes that are not cached, for a later read. Returns the number of bytes requested.
    pub fn prefetch(&self, path: &RemotePath, version: Version, range: Range<u64>) -> u64 {
        if version.is_racy(self.0.clock.wall()) {
            return 0;
        }
        let range = clamp(range, version);
        let missing: Vec<u64> = self.missing(path, version, &range);
        let bytes = missing.len() as u64 * BLOCK_BYTES;
        for index in missing {
            drop(self.want(path, version, index..index + 1, Class::Bulk));
        }
        bytes.min(range.end - range.start)
    }

    /// Starts to fetch the bytes into the disk cache, unless they are there.
    pub fn bring(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Fetching {
        let range = clamp(range, version);
        let mut waiters = Vec::new();
        for index in self.missing(path, version, &range) {
            if let Some(Wanted::Coming(waiter)) = self.want(path, version, index..index + 1, Class::Bulk).pop() {
                waiters.push(waiter);
            }
        }
        Fetching(waiters)
    }

    /// Waits until everything that was read is in the disk cache.
    pub fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            disk.flush();
        }
    }

    /// The bytes as the server has them now, without the memory cache.
    pub fn read_anew(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<Vec<u8>, ReadError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), version, 0..version.size, Class::Interactive, done);
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error))),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// Whether the server still has the content that was last read or stored under this version. Needs no request if
    /// the version was not racy at that time.
    pub fn is_still(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<bool, ReadError> {
        let Some(sum) = self.0.racy.sum(path, version) else { return Ok(true) };
        let racy = version.is_racy(self.0.clock.wall());
        match self.read_anew(path, version, deadline) {
            Ok(bytes) => {
                let still = crc32fast::hash(&bytes) == sum;
                if still && !racy {
                    self.0.racy.forget(path);
                }
                Ok(still)
            }
            // Another version or no file; callers compare versions separately.
            Err(ReadError::Remote(error)) if matches!(error.kind, ErrorKind::Changed { .. } | ErrorKind::NotFound) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that this content was sent: its CRC-32 tells whether another writer changes it within the same second.
    pub fn stored(&self, path: &RemotePath, version: Version, sum: Option<u32>) {
        match sum.filter(|_| version.is_racy(self.0.clock.wall())) {
            Some(sum) => self.0.racy.note(path, version, sum),
            None => self.0.racy.forget(path),
        }
        if let Some(proofs) = &self.0.proofs {
            proofs.written(path);
        }
        // They may be of earlier content with the same size and time.
        for index in blocks_of(&(0..version.size)) {
            self.0.memory.remove(&BlockKey { content: remote_id(path, version), index });
        }
    }

    /// The file was renamed on the server.
    pub fn renamed_on_server(&self, from: &RemotePath, to: &RemotePath) {
        self.0.racy.renamed(from, to);
        if let Some(proofs) = &self.0.proofs {
            proofs.renamed(from, to);
        }
    }

    /// Caches bytes of this version, so that content that was just written need not be fetched.
    pub fn put(&self, path: &RemotePath, version: Version, index: u64, block: Arc<[u8]>) {
        self.0.insert(BlockKey { content: remote_id(path, version), index }, block);
    }

    fn missing(&self, path: &RemotePath, version: Version, range: &Range<u64>) -> Vec<u64> {
        let content = self.0.content_id(path, version);
        blocks_of(range).filter(|&index| !self.0.has(&BlockKey { content: content.clone(), index })).collect()
    }

    /// The file was renamed locally: its cached blocks get the new name.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        for index in blocks_of(&(0..version.size)).take(1024) {
            let key = |path| BlockKey { content: remote_id(path, version), index };
            let (old, new) = (key(from), key(to));
            if let Some(disk) = &self.0.disk {
                disk.renamed(&old, &new);
            }
            match self.0.memory.remove(&old) {
                Some(block) => self.0.memory.insert(new, block),
                // It may be of the replaced file, if that had the same size and time.
                None => drop(self.0.memory.remove(&new)),
            }
        }
    }

    /// Every block of `indices`: cached, or being fetched (requested now if it was not).
    fn want(&self, path: &RemotePath, version: Version, indices: Range<u64>, class: Class) -> Vec<Wanted> {
        let mut out = Vec::new();
        let mut run: Vec<Ticket<BlockKey, BlockResult>> = Vec::new();
        let mut run_start = 0;
        let content = self.0.content_id(path, version);
        for index in indices {
            let key = BlockKey { content: content.clone(), index };
            let wanted = match self.0.cached(path, version, &key) {
                Some(block) => Wanted::Here(block),
                None => match self.0.flights.join(key) {
                    Role::Follower(waiter) => Wanted::Coming(waiter),
                    Role::Leader(ticket) => {
                        if run_start + run.len() as u64 != index || run.len() as u64 * BLOCK_BYTES >= MAX_FETCH_BYTES {
                            self.fetch(path, version, run_start, std::mem::take(&mut run), class);
                            run_start = index;
                        }
                        let waiter = ticket.waiter();
                        run.push(ticket);
                        Wanted::Coming(waiter)
                    }
                },
            };
            out.push(wanted);
        }
        self.fetch(path, version, run_start, run, class);
        out
    }

    /// One request for a run of adjacent blocks.
    fn fetch(
        &self,
        path: &RemotePath,
        version: Version,
        first: u64,
        tickets: Vec<Ticket<BlockKey, BlockResult>>,
        class: Class,
    ) {
        if tickets.is_empty() {
            return;
        }
        let end = (first + tickets.len() as u64) * BLOCK_BYTES;
        let range = clamp(first * BLOCK_BYTES..end, version);
        let (inner, at) = (self.0.clone(), path.clone());
        if first == 0 {
            inner.fetched_files.fetch_add(1, Ordering::Relaxed);
        }
        self.0.remote.fetch_async(path.clone(), version, range, class, move |result| match result {
            Ok(bytes) => {
                inner.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let racy = version.is_racy(inner.clock.wall());
                if racy && bytes.len() as u64 == version.size {
                    inner.racy.note(&at, version, crc32fast::hash(&bytes));
                }
                let content = if racy { remote_id(&at, version) } else { inner.read_in_full(&at, version, &bytes) };
                let chunks = bytes.chunks(BLOCK_BYTES as usize).map(Arc::<[u8]>::from);
                for ((index, ticket), block) in (first..).zip(tickets).zip(chunks) {
                    // Bytes of a racy version are returned to the callers that wait, and not cached.
                    if !racy {
                        inner.insert(BlockKey { content: content.clone(), index }, block.clone());
                    }
                    ticket.complete(Ok(block));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                tickets.into_iter().for_each(|ticket| ticket.complete(Err(error.clone())));
            }
        });
    }
}

/// Blocks that are being fetched.
pub struct Fetching(Vec<Waiter<BlockResult>>);

impl Fetching {
    pub fn wait(self, deadline: Deadline) -> Result<(), ReadError> {
        for waiter in self.0 {
            match waiter.wait(deadline.0) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ReadError::Remote(error)),
                None => return Err(ReadError::TimedOut),
            }
        }
        Ok(())
    }
}

impl Inner {
    fn cached(self: &Arc<Self>, path: &RemotePath, version: Version, key: &BlockKey) -> Option<Arc<[u8]>> {
        if let Some(block) = self.memory.get(key) {
            return Some(block);
        }
        if let ContentId::Blob(blob) = key.content {
            return self.from_repository(path, version, blob, key.index);
        }
        let block = self.disk.as_ref()?.get(key)?;
        self.memory.insert(key.clone(), block.clone());
        Some(block)
    }

    fn has(&self, key: &BlockKey) -> bool {
        let proved = matches!(key.content, ContentId::Blob(_));
        proved || self.memory.contains(key) || self.disk.as_ref().is_some_and(|disk| disk.contains(key))
    }

    fn insert(&self, key: BlockKey, block: Arc<[u8]>) {
        // Content of the repository is on the local disk already.
        if let (Some(disk), ContentId::Remote(..)) = (&self.disk, &key.content) {
            disk.put(&key, block.clone());
        }
        self.memory.insert(key, block);
    }
}

enum Wanted {
    Here(Arc<[u8]>),
    Coming(Waiter<BlockResult>),
}
