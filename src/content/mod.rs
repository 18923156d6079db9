//! "These bytes of this version", wherever they are: in the cache, or on the server.
//!
//! A version that moved is an error of its own ([`ErrorKind::Changed`](crate::remote::ErrorKind)): bytes of two versions
//! are never put together. Does not know inodes or handles; what has been written here and not sent is in `write`.

mod readahead;
mod young;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use readahead::ReadAhead;

use crate::attr::{ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey, Disk, DiskFigures, Figures, InFlight, Memory, Role, Ticket, Waiter};
use crate::clock::{Clock, Deadline};
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, Remote, RemoteError};
use young::Young;

/// A failed fetch has many waiters.
pub type SharedError = Arc<RemoteError>;
type BlockResult = Result<Arc<[u8]>, SharedError>;

/// Bytes asked for in one go: larger stretches are split, so that the first part can be used while the rest is coming.
const MAX_FETCH_BYTES: u64 = 1024 * 1024;

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
    young: Young,
    fetched_bytes: AtomicU64,
}

impl Content {
    pub fn new(remote: Remote, cache_bytes: u64, disk: Option<Disk>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            remote,
            clock,
            memory: Memory::new(cache_bytes),
            disk,
            flights: InFlight::default(),
            young: Young::default(),
            fetched_bytes: AtomicU64::new(0),
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

    /// Bytes that came over the wire as file content.
    pub fn fetched_bytes(&self) -> u64 {
        self.0.fetched_bytes.load(Ordering::Relaxed)
    }

    /// The bytes if every one of them is here, in memory or on the local disk. Never waits for the network.
    pub fn read_cached(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Option<Vec<u8>> {
        let range = clamp(range, version);
        let blocks: Option<Vec<_>> = blocks_of(&range).map(|index| self.0.cached(&key(path, version, index))).collect();
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
        let missing: Vec<u64> = blocks_of(&range).filter(|&index| !self.0.has(&key(path, version, index))).collect();
        let bytes = missing.len() as u64 * BLOCK_BYTES;
        for index in missing {
            drop(self.want(path, version, index..index + 1, Class::Background));
        }
        bytes.min(range.end - range.start)
    }

    /// Has the bytes brought to the local disk, if they are not there yet.
    pub fn bring(&self, path: &RemotePath, version: Version, range: Range<u64>) -> Fetching {
        let range = clamp(range, version);
        let mut waiters = Vec::new();
        for index in blocks_of(&range).filter(|&index| !self.0.has(&key(path, version, index))) {
            if let Some(Wanted::Coming(waiter)) = self.want(path, version, index..index + 1, Class::Background).pop() {
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
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let done = move |result| drop(sender.send(result));
        self.0.remote.fetch_async(path.clone(), version, 0..version.size, Class::Interactive, done);
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(result) => result.map_err(|error| ReadError::Remote(Arc::new(error))),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// Whether the server still has the content that was last read or stored here under this version. Costs nothing where
    /// the version was old enough then to tell one content from the next.
    pub fn is_still(&self, path: &RemotePath, version: Version, deadline: Deadline) -> Result<bool, ReadError> {
        let Some(sum) = self.0.young.sum(path, version) else { return Ok(true) };
        let racy = version.is_racy(self.0.clock.wall());
        match self.read_anew(path, version, deadline) {
            Ok(bytes) => {
                let still = crc32fast::hash(&bytes) == sum;
                if still && !racy {
                    self.0.young.forget(path);
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
            Some(sum) => self.0.young.note(path, version, sum),
            None => self.0.young.forget(path),
        }
    }

    /// The server has moved it.
    pub fn moved(&self, from: &RemotePath, to: &RemotePath) {
        self.0.young.renamed(from, to);
    }

    /// Puts bytes that are known to be this version into the cache: what was just written need not be fetched.
    pub fn put(&self, path: &RemotePath, version: Version, index: u64, block: Arc<[u8]>) {
        self.0.insert(key(path, version, index), block);
    }

    /// The file moved: its blocks go with it.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        for index in blocks_of(&(0..version.size)).take(1024) {
            let (old, new) = (key(from, version, index), key(to, version, index));
            if let Some(disk) = &self.0.disk {
                disk.renamed(&old, &new);
            }
            if let Some(block) = self.0.memory.remove(&old) {
                self.0.memory.insert(new, block);
            }
        }
    }

    /// Every block of `indices`: here, or on its way (asked for now if nobody did before).
    fn want(&self, path: &RemotePath, version: Version, indices: Range<u64>, class: Class) -> Vec<Wanted> {
        let mut out = Vec::new();
        let mut run: Vec<Ticket<BlockKey, BlockResult>> = Vec::new();
        let mut run_start = 0;
        for index in indices {
            let key = key(path, version, index);
            let wanted = match self.0.cached(&key) {
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
        self.0.remote.fetch_async(path.clone(), version, range, class, move |result| match result {
            Ok(bytes) => {
                inner.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let racy = version.is_racy(inner.clock.wall());
                if racy && bytes.len() as u64 == version.size {
                    inner.young.note(&at, version, crc32fast::hash(&bytes));
                }
                let chunks = bytes.chunks(BLOCK_BYTES as usize).map(Arc::<[u8]>::from);
                for ((index, ticket), block) in (first..).zip(tickets).zip(chunks) {
                    // Bytes of a version that may still change under its name are good for whoever asked, no longer.
                    if !racy {
                        inner.insert(key(&at, version, index), block.clone());
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
    fn cached(&self, key: &BlockKey) -> Option<Arc<[u8]>> {
        if let Some(block) = self.memory.get(key) {
            return Some(block);
        }
        let block = self.disk.as_ref()?.get(key)?;
        self.memory.insert(key.clone(), block.clone());
        Some(block)
    }

    fn has(&self, key: &BlockKey) -> bool {
        self.memory.contains(key) || self.disk.as_ref().is_some_and(|disk| disk.contains(key))
    }

    fn insert(&self, key: BlockKey, block: Arc<[u8]>) {
        if let Some(disk) = &self.disk {
            disk.put(&key, block.clone());
        }
        self.memory.insert(key, block);
    }
}

enum Wanted {
    Here(Arc<[u8]>),
    Coming(Waiter<BlockResult>),
}

fn key(path: &RemotePath, version: Version, index: u64) -> BlockKey {
    BlockKey { content: ContentId::Remote(path.clone(), version), index }
}

fn clamp(range: Range<u64>, version: Version) -> Range<u64> {
    let end = range.end.min(version.size);
    range.start.min(end)..end
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) }
}

/// Cuts `range` out of the blocks that cover it.
fn assemble(range: &Range<u64>, blocks: &[Arc<[u8]>]) -> Vec<u8> {
    let mut out = Vec::with_capacity((range.end - range.start) as usize);
    for (index, block) in blocks_of(range).zip(blocks) {
        let start = index * BLOCK_BYTES;
        let from = range.start.saturating_sub(start) as usize;
        let to = (range.end - start).min(block.len() as u64) as usize;
        out.extend_from_slice(block.get(from..to).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_out_of_blocks() {
        let blocks: Vec<Arc<[u8]>> = vec![vec![1; BLOCK_BYTES as usize].into(), vec![2; 10].into()];
        let range = BLOCK_BYTES - 2..BLOCK_BYTES + 3;
        assert_eq!(blocks_of(&range), 0..2);
        assert_eq!(assemble(&range, &blocks), [1, 1, 2, 2, 2]);
        assert_eq!(blocks_of(&(5..5)), 0..0);
        assert_eq!(blocks_of(&(0..BLOCK_BYTES)), 0..1);
    }

    #[test]
    fn reading_past_the_end_gives_what_there_is() {
        let version = Version { size: 10, mtime: 0 };
        assert_eq!(clamp(5..100, version), 5..10);
        assert_eq!(clamp(50..100, version), 10..10);
    }
}
