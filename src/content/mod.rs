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
mod state;
mod turns;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub use attest::{AttestConfig, ask as attest};
pub use provenance::{ProofFigures, Proofs, Provenance};
pub use readahead::ReadAhead;
pub use state::{Content, SharedError};

use crate::attr::{ContentId, Version};
use crate::cache::{
    BLOCK_BYTES, BlockKey, Disk, DiskFigures, Figures, Generations, InFlight, Memory, Role, Ticket, Waiter,
};
use crate::clock::{Clock, Deadline};
use crate::path::RemotePath;
use crate::pool::background;
use crate::remote::{Class, ErrorKind, Remote, RemoteError};
use blocks::{assemble, blocks_of, clamp};
use racy::{RacySums, Sums};
use state::{BlockResult, Inner, OnMismatch};
use turns::Turns;

/// Bytes asked for in one go: larger stretches are split, so that the first part can be used while the rest is coming.
const MAX_FETCH_BYTES: u64 = 1024 * 1024;

/// Stretches of a streamed file that are on their way at a time.
const PIECES_AHEAD: usize = 8;

/// Blocks of a moved file that are kept; more are fetched again.
const MAX_MOVED_BLOCKS: usize = 1024;
/// Marks generations of what was sent from here and not compared.
const UNPROVED_BIT: u64 = 1 << 63;
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

impl Content {
    pub fn new(
        remote: Remote,
        cache_bytes: u64,
        disk: Option<Disk>,
        proofs: Option<Arc<Proofs>>,
        clock: Clock,
    ) -> Self {
        let generations = disk.as_ref().map(|disk| disk.generations().clone());
        Self(Arc::new(Inner {
            remote,
            clock,
            generations: generations.unwrap_or_else(|| Arc::new(Generations::in_memory())),
            memory: Memory::new(cache_bytes),
            disk,
            flights: InFlight::default(),
            racy: RacySums::default(),
            turns: Turns::default(),
            proofs,
            mismatch: OnMismatch::default(),
            asking: AtomicBool::new(false),
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
        for (index, wait) in indices.zip(waits) {
            blocks.push(match wait {
                Wanted::Here(block) => block,
                Wanted::Coming(waiter) => match waiter.wait(deadline.0) {
                    Some(Ok(block)) => block,
                    Some(Err(error)) if error.kind.is_loss() => {
                        self.0.unproved(path, version, index).ok_or(ReadError::Remote(error))?
                    }
                    Some(Err(error)) => return Err(ReadError::Remote(error)),
                    None => self.0.unproved(path, version, index).ok_or(ReadError::TimedOut)?,
                },
            });
        }
        Ok(assemble(&range, &blocks))
    }

    /// Starts fetching what is not here yet, for a reader that will come. Returns the bytes that were asked for.
    pub fn prefetch(&self, path: &RemotePath, version: Version, range: Range<u64>) -> u64 {
        if self.0.is_racy(version) {
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

    /// Whether the whole file could be read without the link, from the local disk.
    pub fn is_here(&self, path: &RemotePath, version: Version) -> bool {
        let id = self.0.content_id(path, version);
        if matches!(id, ContentId::Blob(_)) {
            return true;
        }
        let Some(disk) = &self.0.disk else { return false };
        let (sure, unsure) = (id.clone(), unproved(&id));
        blocks_of(&(0..version.size)).all(|index| {
            let has = |content: &ContentId| disk.contains(&BlockKey { content: content.clone(), index });
            has(&sure) || has(&unsure)
        })
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
                    // What was noted is there, and can become nothing else any more.
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

    /// Whether the content of this version cannot become another one without the version moving, and what is held of it is
    /// that content.
    pub fn is_settled(&self, path: &RemotePath, version: Version) -> bool {
        !self.0.is_racy(version) && !self.0.racy.is_noted(path, version)
    }

    /// Whether the server still has the content that was last read or stored here under this version. Costs nothing where
    /// the version was old enough then to tell one content from the next.
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
            // Another version, or none: for those who compare versions.
            Err(ReadError::Remote(error)) if matches!(error.kind, ErrorKind::Changed { .. } | ErrorKind::NotFound) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// The content of this version was stored here, and is `whole` where that is known: from here on nothing that was held
    /// under the path counts. Where the version may still get another content within its second, what was sent is compared
    /// before it is believed. With `keep` it is kept for readers.
    pub fn stored(&self, path: &RemotePath, version: Version, source: &File, keep: bool) {
        self.0.clock.set_there(version.mtime);
        self.replaced(path);
        let racy = self.0.is_racy(version);
        if racy && self.0.clock.is_server_unknown() {
            self.ask_the_time(path);
        }
        let id = self.0.remote_id(path, version);
        for index in blocks_of(&(0..version.size)).take_while(|_| racy || keep) {
            let range = clamp(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES, version);
            let mut block = vec![0; (range.end - range.start) as usize];
            if source.read_exact_at(&mut block, range.start).is_err() {
                return;
            }
            if racy {
                self.0.racy.note(path, version, index, crc32fast::hash(&block));
            }
            if keep {
                let content = if racy { unproved(&id) } else { id.clone() };
                self.0.insert(BlockKey { content, index }, block.into());
            }
        }
    }

    /// Behind the caller's back: the server has just stamped the directory of what was stored, by its own clock.
    fn ask_the_time(&self, path: &RemotePath) {
        let (Some(dir), inner) = (path.parent(), self.0.clone()) else { return };
        if inner.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        background().run(move || {
            if let Ok(attr) = inner.remote.lstat(&dir) {
                inner.clock.server_stamped(attr.mtime);
            }
            inner.asking.store(false, Ordering::Release);
        });
    }

    /// What was at the path, or below it, is not there any more, or is something else: nothing that is held of it counts.
    pub fn replaced(&self, path: &RemotePath) {
        self.0.generations.begin(path);
        self.0.racy.forget_below(path);
        if let Some(proofs) = &self.0.proofs {
            proofs.replaced(path);
        }
    }

    /// The server has moved it.
    pub fn moved(&self, from: &RemotePath, to: &RemotePath) {
        self.0.racy.renamed(from, to);
        if let Some(proofs) = &self.0.proofs {
            proofs.renamed(from, to);
        }
    }

    fn missing(&self, path: &RemotePath, version: Version, range: &Range<u64>) -> Vec<u64> {
        let content = self.0.content_id(path, version);
        blocks_of(range).filter(|&index| !self.0.has(&BlockKey { content: content.clone(), index })).collect()
    }

    /// The file moved: its blocks go with it.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        let old = self.0.remote_id(from, version);
        self.0.generations.begin(to);
        let new = self.0.remote_id(to, version);
        for index in blocks_of(&(0..version.size)).take(MAX_MOVED_BLOCKS) {
            let key = |content: &ContentId| BlockKey { content: content.clone(), index };
            let (old, new) = (key(&old), key(&new));
            if let Some(disk) = &self.0.disk {
                disk.renamed(&old, &new);
            }
            if let Some(block) = self.0.memory.remove(&old) {
                self.0.memory.insert(new, block);
            }
        }
        self.0.generations.begin(from);
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
        let id = self.0.remote_id(path, version);
        let take_in = move |racy: bool, result: Result<Vec<u8>, RemoteError>| match result {
            Ok(bytes) => {
                inner.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let content = if racy { id } else { inner.read_in_full(&at, version, &bytes, id) };
                let chunks = bytes.chunks(BLOCK_BYTES as usize).map(Arc::<[u8]>::from);
                for ((index, ticket), block) in (first..).zip(tickets).zip(chunks) {
                    // Bytes of a version that may still change under its name are good for whoever asked, and
                    // later only where the server cannot be asked.
                    if racy {
                        inner.racy.note(&at, version, index, crc32fast::hash(&block));
                        inner.insert(BlockKey { content: unproved(&content), index }, block.clone());
                    } else {
                        inner.racy.settled(&at, version, index);
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
        let (remote, clock, path) = (self.0.remote.clone(), self.0.clock.clone(), path.clone());
        self.0.turns.take(class, self.0.stretches(), move |turn| {
            // By the server's clock when it is asked: what it reads is no older than that.
            let racy = version.is_racy(clock.server_floor());
            remote.fetch_async(path, version, range, class, move |result| {
                take_in(racy, result);
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

/// Compares what is read with what was noted.
struct Check<'a> {
    sums: &'a Sums,
    at: u64,
    same: bool,
}

impl<'a> Check<'a> {
    fn new(sums: &'a Sums) -> Self {
        Self { sums, at: 0, same: true }
    }

    /// The next stretch, which begins where a block does.
    fn update(&mut self, piece: &[u8]) {
        for block in piece.chunks(BLOCK_BYTES as usize) {
            self.same &= self.sums.get(&self.at).is_none_or(|sum| crc32fast::hash(block) == *sum);
            self.at += 1;
        }
    }
}

/// What a content is called that was sent from here and has not been compared since.
fn unproved(id: &ContentId) -> ContentId {
    match id {
        ContentId::Remote(path, version, generation) => {
            ContentId::Remote(path.clone(), *version, generation | UNPROVED_BIT)
        }
        blob => blob.clone(),
    }
}

impl Inner {
    fn is_racy(&self, version: Version) -> bool {
        version.is_racy(self.clock.server_floor())
    }

    /// What is called by path and version, since nothing better is known.
    fn remote_id(&self, path: &RemotePath, version: Version) -> ContentId {
        ContentId::Remote(path.clone(), version, self.generations.of(path))
    }

    /// A block that was sent from here, for when the server cannot be asked whether it still is what is there.
    fn unproved(&self, path: &RemotePath, version: Version, index: u64) -> Option<Arc<[u8]>> {
        let key = BlockKey { content: unproved(&self.remote_id(path, version)), index };
        self.memory.get(&key).or_else(|| self.disk.as_ref()?.get(&key))
    }

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
