//! Reads ranges of a version: from the caches, else with one request for each missing part, however many callers wait.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::blocks::{assemble, blocks_of, clamp};
use super::fetch_limit::FetchLimit;
use super::provenance::Proofs;
use super::racy::RacySums;
use super::state::{BlockResult, Content, Fetched, Inner, OnMismatch, SharedError};
use super::trust::unconfirmed;
use crate::attr::{ContentId, Version};
use crate::cache::{
    BLOCK_BYTES, BlockKey, Disk, DiskFigures, Figures, Generations, InFlight, Memory, Role, Ticket, Waiter,
};
use crate::clock::{Clock, Deadline, Expiry};
use crate::path::RemotePath;
use crate::remote::{Class, Remote, RemoteError};

/// Bytes per request: longer ranges are split, so that the first part can be used while the rest is transferred.
pub(super) const MAX_FETCH_BYTES: u64 = 1024 * 1024;

/// Largest number of concurrent fetches.
const MAX_FETCHES: usize = 384;

/// For whom blocks are fetched.
#[derive(Clone, Copy)]
enum Purpose {
    /// A caller that waits.
    Waiting,
    /// A caller that may ask for them later, and may be given bytes that were requested at most so long ago.
    Ahead(Duration),
}

impl Purpose {
    fn class(self) -> Class {
        match self {
            Self::Waiting => Class::Interactive,
            Self::Ahead(_) => Class::Bulk,
        }
    }
}

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
        let generations = disk.as_ref().map(|disk| disk.generations().clone());
        Self(Arc::new(Inner {
            remote,
            clock,
            generations: generations.unwrap_or_else(|| Arc::new(Generations::in_memory())),
            memory: Memory::new(cache_bytes),
            disk,
            flights: InFlight::default(),
            racy: RacySums::default(),
            fetch_limit: FetchLimit::default(),
            proofs,
            mismatch: OnMismatch::default(),
            asking: AtomicBool::new(false),
            fetched: Fetched::default(),
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
        self.0.fetched.figures()
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
        let waits = self.want(path, version, indices.clone(), Purpose::Waiting);
        let mut blocks = Vec::with_capacity(waits.len());
        for (index, wait) in indices.zip(waits) {
            blocks.push(match wait {
                Wanted::Here(block) => block,
                Wanted::Coming(waiter) => match waiter.wait(deadline.0) {
                    Some(Ok(block)) => block,
                    Some(Err(error)) if error.kind.is_loss() => {
                        self.0.unconfirmed(path, version, index).ok_or(ReadError::Remote(error))?
                    }
                    Some(Err(error)) => return Err(ReadError::Remote(error)),
                    None => self.0.unconfirmed(path, version, index).ok_or(ReadError::TimedOut)?,
                },
            });
        }
        Ok(assemble(&range, &blocks))
    }

    /// Starts to fetch the bytes that are not cached, for a later read. Returns the number of bytes requested. Bytes of a
    /// racy version serve one read, within `fresh` of the request; later ones need those that the server has then.
    pub fn prefetch(&self, path: &RemotePath, version: Version, range: Range<u64>, fresh: Duration) -> u64 {
        let racy = self.0.is_racy(version);
        if racy && fresh.is_zero() {
            return 0;
        }
        let range = clamp(range, version);
        let missing: Vec<u64> = self.missing(path, version, &range);
        let bytes = missing.len() as u64 * BLOCK_BYTES;
        // Each request for a racy version opens the file anew, so that its blocks are requested together.
        let together = |before: &u64, after: &u64| racy && before + 1 == *after;
        for run in missing.chunk_by(together) {
            if let [first, .., last] | [first @ last] = run {
                drop(self.want(path, version, *first..last + 1, Purpose::Ahead(fresh)));
            }
        }
        bytes.min(range.end - range.start)
    }

    /// Starts to fetch the bytes into the disk cache, unless they are there.
    pub fn bring(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Fetching {
        let range = clamp(range, version);
        let mut waiters = Vec::new();
        for index in self.missing(path, version, &range) {
            if let Some(Wanted::Coming(waiter)) =
                self.want(path, version, index..index + 1, Purpose::Ahead(Duration::ZERO)).pop()
            {
                waiters.push(waiter);
            }
        }
        Fetching(waiters)
    }

    /// Whether the whole file can be read from the local disk, without the server.
    pub fn is_on_disk(&self, path: &RemotePath, version: Version) -> bool {
        let id = self.0.content_id(path, version);
        if matches!(id, ContentId::Blob(_)) {
            return true;
        }
        let Some(disk) = &self.0.disk else { return false };
        let unconfirmed = unconfirmed(&id);
        blocks_of(&(0..version.size)).all(|index| {
            let has = |content: &ContentId| disk.contains(&BlockKey { content: content.clone(), index });
            has(&id) || has(&unconfirmed)
        })
    }

    /// Waits until everything that was read is in the disk cache.
    pub fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            disk.flush();
        }
    }

    /// The bytes as the server has them now, without the memory cache.
    pub fn read_anew(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<Vec<u8>, ReadError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), (version, false), 0..version.size, Class::Interactive, done);
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error))),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    pub(super) fn missing(&self, path: &RemotePath, version: Version, range: &Range<u64>) -> Vec<u64> {
        let content = self.0.content_id(path, version);
        blocks_of(range).filter(|&index| !self.0.has(&BlockKey { content: content.clone(), index })).collect()
    }

    /// Every block of `indices`: cached, or being fetched (requested now if it was not).
    fn want(&self, path: &RemotePath, version: Version, indices: Range<u64>, purpose: Purpose) -> Vec<Wanted> {
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
                            self.fetch(path, version, run_start, std::mem::take(&mut run), purpose);
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
        self.fetch(path, version, run_start, run, purpose);
        out
    }

    /// One request for a run of adjacent blocks.
    fn fetch(
        &self,
        path: &RemotePath,
        version: Version,
        first: u64,
        tickets: Vec<Ticket<BlockKey, BlockResult>>,
        purpose: Purpose,
    ) {
        if tickets.is_empty() {
            return;
        }
        let end = (first + tickets.len() as u64) * BLOCK_BYTES;
        let range = clamp(first * BLOCK_BYTES..end, version);
        let (inner, at) = (self.0.clone(), path.clone());
        if first == 0 {
            inner.fetched.file();
        }
        let id = self.0.remote_id(path, version);
        let take_in = move |racy: bool, asked: Instant, result: Result<Vec<u8>, RemoteError>| match result {
            Ok(bytes) => {
                inner.fetched.bytes(bytes.len() as u64);
                let content = if racy { id } else { inner.read_in_full(&at, version, &bytes, id) };
                let chunks = bytes.chunks(BLOCK_BYTES as usize).map(Arc::<[u8]>::from);
                for ((index, ticket), block) in (first..).zip(tickets).zip(chunks) {
                    // Bytes of a racy version are returned to the callers that wait, or to the one for whom they were
                    // prefetched. Later they are used only if the server cannot be asked.
                    let sum = crc32fast::hash(&block);
                    if racy {
                        inner.racy.note(&at, version, index, sum);
                        let key = BlockKey { content: unconfirmed(&content), index };
                        if let Purpose::Ahead(fresh) = purpose {
                            inner.fetched.note_ahead(key.clone(), Expiry(asked + fresh));
                        }
                        inner.insert(key, block.clone());
                    } else {
                        inner.racy.confirm(&at, version, index, sum);
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
        let class = purpose.class();
        self.0.fetch_limit.run(class, self.0.max_fetches(), move |permit| {
            // By the server's clock at the time of the request: the server reads the content after that.
            let (racy, asked) = (version.is_racy(clock.server_floor()), clock.now());
            remote.fetch_async(path, (version, !racy), range, class, move |result| {
                take_in(racy, asked, result);
                drop(permit);
            });
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
    fn max_fetches(&self) -> usize {
        self.remote.fetches().unwrap_or(MAX_FETCHES).clamp(1, MAX_FETCHES)
    }

    fn cached(self: &Arc<Self>, path: &RemotePath, version: Version, key: &BlockKey) -> Option<Arc<[u8]>> {
        if let Some(block) = self.memory.get(key) {
            return Some(block);
        }
        if let ContentId::Blob(blob) = key.content {
            return self.from_repository(path, version, blob, key.index);
        }
        let racy = unconfirmed_key(key);
        if self.fetched.take_ahead(&racy, &self.clock)
            && let Some(block) = self.memory.get(&racy)
        {
            return Some(block);
        }
        let block = self.disk.as_ref()?.get(key)?;
        self.memory.insert(key.clone(), block.clone());
        Some(block)
    }

    fn has(&self, key: &BlockKey) -> bool {
        let proved = matches!(key.content, ContentId::Blob(_));
        proved
            || self.memory.contains(key)
            || self.disk.as_ref().is_some_and(|disk| disk.contains(key))
            || self.fetched.is_ahead(&unconfirmed_key(key), &self.clock)
    }

    pub(super) fn insert(&self, key: BlockKey, block: Arc<[u8]>) {
        // Content of the repository is on the local disk already.
        if let (Some(disk), ContentId::Remote(..)) = (&self.disk, &key.content) {
            disk.put(&key, block.clone());
        }
        self.memory.insert(key, block);
    }
}

fn unconfirmed_key(key: &BlockKey) -> BlockKey {
    BlockKey { content: unconfirmed(&key.content), index: key.index }
}

enum Wanted {
    Here(Arc<[u8]>),
    Coming(Waiter<BlockResult>),
}
