//! statfs. It waits for the network only for the first answer, and not long, because `df` must not hang when the
//! connection does.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Cause, FsError, FsResult, Wait};
use crate::pool::background;
use crate::remote::{Remote, StatVfs};

/// The figures that `df` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub block_bytes: u32,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_bytes: u32,
}

/// For servers without statvfs. Zero would make installers refuse to run; this is 1 TiB, all free.
const UNKNOWN: Space = Space {
    block_bytes: 4096,
    blocks: 1 << 28,
    free: 1 << 28,
    available: 1 << 28,
    files: 1 << 24,
    files_free: 1 << 24,
    name_bytes: 255,
};

/// Age of the figures at which they are requested again, after the answer was given.
const VALID: Duration = Duration::from_secs(30);

/// How long the first answer is waited for, from the moment when it was asked for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last figures of the server. Cheap to clone.
#[derive(Clone)]
pub(super) struct SpaceCache(Arc<Inner>);

struct Inner {
    remote: Remote,
    known: Mutex<Option<(Instant, Space)>>,
    asking: AtomicBool,
    /// When the server was asked first.
    asked: OnceLock<Instant>,
    answered: Condvar,
}

impl SpaceCache {
    pub(super) fn new(remote: Remote) -> Self {
        Self(Arc::new(Inner {
            remote,
            known: Mutex::default(),
            asking: AtomicBool::new(false),
            asked: OnceLock::new(),
            answered: Condvar::new(),
        }))
    }

    pub(super) fn statfs(&self, wait: Wait, offline: bool) -> FsResult<Space> {
        let known = *self.0.known.lock();
        let fresh = known.is_some_and(|(at, _)| at.elapsed() < VALID);
        if !fresh && !self.0.asking.swap(true, Ordering::AcqRel) {
            let cache = self.clone();
            background().run(move || cache.ask());
        }
        if let Some((_, space)) = known {
            return Ok(space);
        }
        let Wait::Until(deadline) = wait else { return Err(FsError::new("statfs", "", Cause::WouldBlock)) };
        let asked = *self.0.asked.get_or_init(Instant::now);
        let mut known = self.0.known.lock();
        if !offline {
            let asking = |known: &mut Option<_>| known.is_none() && self.0.asking.load(Ordering::Acquire);
            let patience = PATIENCE.saturating_sub(asked.elapsed()).min(deadline.remaining());
            self.0.answered.wait_while_for(&mut known, asking, patience);
        }
        Ok(known.map_or(UNKNOWN, |(_, space)| space))
    }

    fn ask(&self) {
        let asked = self.0.remote.statvfs();
        let mut known = self.0.known.lock();
        *known = match (asked, *known) {
            (Ok(stat), _) => Some((Instant::now(), stat.map_or(UNKNOWN, Space::from))),
            // The previous figures, if any, are nearer the truth than none.
            (Err(_), before) => before.map(|(_, space)| (Instant::now(), space)),
        };
        self.0.asking.store(false, Ordering::Release);
        self.0.answered.notify_all();
    }
}

impl From<StatVfs> for Space {
    fn from(stat: StatVfs) -> Self {
        Self {
            block_bytes: u32::try_from(stat.frsize).unwrap_or(4096),
            blocks: stat.blocks,
            free: stat.bfree,
            available: stat.bavail,
            files: stat.files,
            files_free: stat.ffree,
            name_bytes: u32::try_from(stat.namemax).unwrap_or(255),
        }
    }
}
