//! The sources of content, and the figures.

use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::fetch_limit::FetchLimit;
use super::provenance::Proofs;
use super::racy::RacySums;
use crate::cache::{BlockKey, Disk, Generations, InFlight, Memory};
use crate::clock::{Clock, Expiry};
use crate::remote::{Remote, RemoteError};

/// The error of a fetch, shared by its waiters.
pub type SharedError = Arc<RemoteError>;
pub(super) type BlockResult = Result<Arc<[u8]>, SharedError>;

pub(super) type Listener = Arc<dyn Fn() + Send + Sync>;

/// The listener for wrong proofs.
#[derive(Default)]
pub(super) struct OnMismatch(pub(super) Mutex<Option<Listener>>);

/// The bytes of a version, from cache, repository or server. Cheap to clone.
#[derive(Clone)]
pub struct Content(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) remote: Remote,
    pub(super) clock: Clock,
    pub(super) memory: Memory,
    pub(super) disk: Option<Disk>,
    pub(super) generations: Arc<Generations>,
    pub(super) flights: InFlight<BlockKey, BlockResult>,
    pub(super) racy: RacySums,
    pub(super) fetch_limit: FetchLimit,
    /// The proofs for reading from the repository, if there is one.
    pub(super) proofs: Option<Arc<Proofs>>,
    /// Called if bytes that were returned turn out to be wrong.
    pub(super) mismatch: OnMismatch,
    /// A request for the server's time is in progress.
    pub(super) asking: AtomicBool,
    pub(super) fetched: Fetched,
}

/// Number of prefetched blocks of racy versions that are remembered.
const MAX_PREFETCHED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What was requested over the network.
pub(super) struct Fetched {
    files: AtomicU64,
    bytes: AtomicU64,
    /// Blocks of racy versions that were fetched before a caller asked for them, and until when a caller may be given them.
    /// The bytes are in the memory cache.
    racy_ahead: Mutex<LruCache<BlockKey, Expiry>>,
}

impl Default for Fetched {
    fn default() -> Self {
        let racy_ahead = Mutex::new(LruCache::new(MAX_PREFETCHED));
        Self { files: AtomicU64::new(0), bytes: AtomicU64::new(0), racy_ahead }
    }
}

impl Fetched {
    /// Counts a file whose first bytes are requested.
    pub(super) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Numbers of files and of bytes.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(super) fn note_ahead(&self, key: BlockKey, until: Expiry) {
        self.racy_ahead.lock().put(key, until);
    }

    pub(super) fn is_ahead(&self, key: &BlockKey, clock: &Clock) -> bool {
        self.racy_ahead.lock().peek(key).is_some_and(|until| !until.is_over(clock))
    }

    /// Whether a caller may be given the block now. Only one is: the next one is given what the server has then.
    pub(super) fn take_ahead(&self, key: &BlockKey, clock: &Clock) -> bool {
        self.racy_ahead.lock().pop(key).is_some_and(|until| !until.is_over(clock))
    }
}
