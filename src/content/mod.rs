//! "These bytes of this version", wherever they are: in the cache, in the repository on this machine where that is proved, or
//! on the server.
//!
//! A version that moved is an error of its own ([`ErrorKind::Changed`](crate::remote::ErrorKind)): bytes of two versions
//! are never put together. Does not know inodes or handles; what has been written here and not sent is in `write`.

mod attest;
mod blocks;
mod proved;
mod provenance;
mod racy;
mod readahead;
mod turns;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub use attest::{AttestConfig, ask as attest};
pub use provenance::{ProofFigures, Proofs, Provenance};
pub use readahead::ReadAhead;

use crate::attr::{ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey, Disk, DiskFigures, Figures, InFlight, Memory, Role, Ticket, Waiter};
use crate::clock::{Clock, Deadline};
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, Remote, RemoteError};
use blocks::{assemble, blocks_of, clamp};
use proved::{OnMismatch, remote_id};
use racy::RacySums;
use turns::Turns;

/// A failed fetch has many waiters.
pub type SharedError = Arc<RemoteError>;
type BlockResult = Result<Arc<[u8]>, SharedError>;

/// Bytes asked for in one go: larger stretches are split, so that the first part can be used while the rest is coming.
const MAX_FETCH_BYTES: u64 = 1024 * 1024;

/// Stretches of a streamed file that are on their way at a time.
const PIECES_AHEAD: usize = 8;

/// Handles that a server gives which does not tell; and stretches that are under way at most.
const DEFAULT_HANDLES: usize = 100;
const MAX_STRETCHES: usize = 384;

/// Why bytes could not be had.
#[derive(Debug, Clone)]
pub enum ReadError {
    Remote(SharedError),
    /// The deadline passed before the bytes came.
    TimedOut,
}

/// See the module header. Cheap to clone.
#[derive(Clone)]
pub struct Content(Arc<Inner>);

struct Inner {
    remote: Remote,
    clock: Clock,
    memory: Memory,
    disk: Option<Disk>,
    flights: InFlight<BlockKey, BlockResult>,
    racy: RacySums,
    turns: Turns,
    /// What may come from the repository, where there is one.
    proofs: Option<Arc<Proofs>>,
    /// Told when something that was given out was wrong.
    mismatch: OnMismatch,
    fetched_bytes: AtomicU64,
    fetched_files: AtomicU64,
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
            turns: Turns::default(),
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

    /// What was kept is on the local disk.
    pub fn close(&self) {
        if let Some(disk) = &self.0.disk {
            disk.close();
        }
    }

    /// Files that were begun to be read over the wire, and bytes of content that came.
    pub fn fetched(&self) -> (u64, u64) {
        (self.0.fetched_files.load(Ordering::Relaxed), self.0.fetched_bytes.load(Ordering::Relaxed))
    }

    /// The bytes if every one of them is here, in memory or on the local disk. Never waits for the network.
    pub fn read_cached(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Option<Vec<u8>> {
        let range = clamp(range, version);
        let content = self.0.content_id(path, version);
        let block = |index| self.0.cached(path, version, &BlockKey { content: content.clone(), index });
        let blocks: Option<Vec<_>> = blocks_of(&range).map(block).collect();
        Some(assemble(&range, &blocks?))
    }

    /// The bytes, fetched if need be. A range that reaches past the end of the file gives what there is.
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

    /// Starts fetching what is not here yet, for a reader that will come. Returns the bytes that were asked for.
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

    /// Has the bytes brought to the local disk, if they are not there yet.
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

    /// What was read so far is on the local disk.
    pub fn settle(&self) {
        if let Some(disk) = &self.0.disk {
            disk.settle();
        }
    }

    /// The bytes as the server has them now, whatever is in memory.
    pub fn read_anew(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<Vec<u8>, ReadError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), version, 0..version.size, Class::Interactive, done);
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error))),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// The bytes of the whole file in order, in pieces, past the caches: what is larger than the memory can be read so, and
    /// what may still change under its version. Pieces that are in a cache and can be trusted are taken from there. Each may
    /// take as long as `limit`. The inner result is what `sink` said.
    pub fn stream(
        &self,
        path: &RemotePath,
        version: Version,
        limit: Duration,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ReadError> {
        let trusted = self.is_settled(path, version);
        let mut coming: VecDeque<Piece> = VecDeque::new();
        let mut asked = 0;
        loop {
            while asked < version.size && coming.len() < PIECES_AHEAD {
                let range = clamp(asked..asked + MAX_FETCH_BYTES, version);
                asked = range.end;
                coming.push_back(self.piece(path, version, range, trusted));
            }
            let bytes = match coming.pop_front() {
                None => return Ok(Ok(())),
                Some(Piece::Here(bytes)) => bytes,
                Some(Piece::Coming(receiver)) => match receiver.recv_timeout(limit) {
                    Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error)))?,
                    Err(_) => return Err(ReadError::TimedOut),
                },
            };
            if let Err(error) = sink(&bytes) {
                return Ok(Err(error));
            }
        }
    }

    fn piece(&self, path: &RemotePath, version: Version, range: Range<u64>, trusted: bool) -> Piece {
        // Asked block by block: one that is missing must not bring the others into the memory for nothing.
        if trusted
            && self.missing(path, version, &range).is_empty()
            && let Some(bytes) = self.read_cached(path, version, range.clone())
        {
            return Piece::Here(bytes);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.fetched_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        if range.start == 0 {
            self.0.fetched_files.fetch_add(1, Ordering::Relaxed);
        }
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), version, range, Class::Bulk, done);
        Piece::Coming(receiver)
    }

    /// Whether the content of this version cannot become another one without the version moving.
    pub fn is_settled(&self, _path: &RemotePath, version: Version) -> bool {
        !version.is_racy(self.0.clock.wall())
    }

    /// Whether the server still has the content that was last read or stored here under this version. Costs nothing where
    /// the version was old enough then to tell one content from the next.
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
            // Another version, or none: for those who compare versions.
            Err(ReadError::Remote(error)) if matches!(error.kind, ErrorKind::Changed { .. } | ErrorKind::NotFound) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// This was stored here: its CRC-32 tells whether somebody changes it within the second.
    pub fn stored(&self, path: &RemotePath, version: Version, sum: Option<u32>) {
        match sum.filter(|_| version.is_racy(self.0.clock.wall())) {
            Some(sum) => self.0.racy.note(path, version, sum),
            None => self.0.racy.forget(path),
        }
        if let Some(proofs) = &self.0.proofs {
            proofs.written(path);
        }
        // Of content that had the same size and time.
        for index in blocks_of(&(0..version.size)) {
            self.0.memory.remove(&BlockKey { content: remote_id(path, version), index });
        }
    }

    /// The server has moved it.
    pub fn moved(&self, from: &RemotePath, to: &RemotePath) {
        self.0.racy.renamed(from, to);
        if let Some(proofs) = &self.0.proofs {
            proofs.renamed(from, to);
        }
    }

    /// Puts bytes that are known to be this version into the cache: what was just written need not be fetched.
    pub fn put(&self, path: &RemotePath, version: Version, index: u64, block: Arc<[u8]>) {
        self.0.insert(BlockKey { content: remote_id(path, version), index }, block);
    }

    fn missing(&self, path: &RemotePath, version: Version, range: &Range<u64>) -> Vec<u64> {
        let content = self.0.content_id(path, version);
        blocks_of(range).filter(|&index| !self.0.has(&BlockKey { content: content.clone(), index })).collect()
    }

    /// The file moved: its blocks go with it.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        for index in blocks_of(&(0..version.size)).take(1024) {
            let key = |path| BlockKey { content: remote_id(path, version), index };
            let (old, new) = (key(from), key(to));
            if let Some(disk) = &self.0.disk {
                disk.renamed(&old, &new);
            }
            match self.0.memory.remove(&old) {
                Some(block) => self.0.memory.insert(new, block),
                // Of the one whose place it takes, if that had the same size and time.
                None => drop(self.0.memory.remove(&new)),
            }
        }
    }

    /// Every block of `indices`: here, or on its way (asked for now if nobody did before).
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

    /// One request for a run of neighbouring blocks.
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
        let take_in = move |result: Result<Vec<u8>, RemoteError>| match result {
            Ok(bytes) => {
                inner.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let racy = version.is_racy(inner.clock.wall());
                if racy && bytes.len() as u64 == version.size {
                    inner.racy.note(&at, version, crc32fast::hash(&bytes));
                }
                let content = if racy { remote_id(&at, version) } else { inner.read_in_full(&at, version, &bytes) };
                let chunks = bytes.chunks(BLOCK_BYTES as usize).map(Arc::<[u8]>::from);
                for ((index, ticket), block) in (first..).zip(tickets).zip(chunks) {
                    // Bytes of a version that may still change under its name are good for whoever asked, no longer.
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
        };
        let (remote, path) = (self.0.remote.clone(), path.clone());
        self.0.turns.take(class, self.0.stretches(), move |turn| {
            remote.fetch_async(path, version, range, class, move |result| {
                take_in(result);
                drop(turn);
            });
        });
    }
}

/// A stretch of a file that is streamed.
enum Piece {
    Here(Vec<u8>),
    Coming(mpsc::Receiver<Result<Vec<u8>, RemoteError>>),
}

/// Blocks on their way.
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
    /// How many stretches may be under way: most of the handles that the server gives to one connection.
    fn stretches(&self) -> usize {
        let told = self.remote.session_info().map_or(0, |info| info.capabilities.max_open_handles as usize);
        let handles = if told == 0 { DEFAULT_HANDLES } else { told };
        (handles - handles / 4).clamp(1, MAX_STRETCHES)
    }

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
        // What the repository has is on the local disk already.
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
