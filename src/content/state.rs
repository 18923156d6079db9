//! Where content is looked for, and what is counted.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::provenance::Proofs;
use super::racy::RacySums;
use super::turns::Turns;
use crate::cache::{BlockKey, Disk, Generations, InFlight, Memory};
use crate::clock::Clock;
use crate::remote::{Remote, RemoteError};

/// A failed fetch has many waiters.
pub type SharedError = Arc<RemoteError>;
pub(super) type BlockResult = Result<Arc<[u8]>, SharedError>;

pub(super) type Listener = Arc<dyn Fn() + Send + Sync>;

/// Who wants to know that proofs were wrong.
#[derive(Default)]
pub(super) struct OnMismatch(pub(super) Mutex<Option<Listener>>);

/// "These bytes of this version", wherever they are. Cheap to clone.
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
    pub(super) turns: Turns,
    /// What may come from the repository, where there is one.
    pub(super) proofs: Option<Arc<Proofs>>,
    /// Told when something that was given out was wrong.
    pub(super) mismatch: OnMismatch,
    /// The server's clock is being asked for.
    pub(super) asking: AtomicBool,
    pub(super) fetched_bytes: AtomicU64,
    pub(super) fetched_files: AtomicU64,
}
