//! statfs: never waits for the network, because `df` must not hang when the link does.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::pool::background;
use crate::remote::{Remote, StatVfs};

/// What `df` shows.
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

/// Servers without statvfs say nothing about space. Zero would make installers refuse; this is 1 TiB, all free.
const UNKNOWN: Space = Space {
    block_bytes: 4096,
    blocks: 1 << 28,
    free: 1 << 28,
    available: 1 << 28,
    files: 1 << 24,
    files_free: 1 << 24,
    name_bytes: 255,
};

/// How old the figures may get before they are asked for again, behind the answer.
const VALID: Duration = Duration::from_secs(30);

/// What the server said last. Cheap to clone.
#[derive(Clone)]
pub(super) struct SpaceCache(Arc<Inner>);

struct Inner {
    remote: Remote,
    known: Mutex<Option<(Instant, Space)>>,
    asking: AtomicBool,
}

impl SpaceCache {
    pub(super) fn new(remote: Remote) -> Self {
        Self(Arc::new(Inner { remote, known: Mutex::default(), asking: AtomicBool::new(false) }))
    }

    pub(super) fn statfs(&self) -> Space {
        let known = *self.0.known.lock();
        let fresh = known.is_some_and(|(at, _)| at.elapsed() < VALID);
        if !fresh && !self.0.asking.swap(true, Ordering::AcqRel) {
            let cache = self.clone();
            background().run(move || cache.ask());
        }
        known.map_or(UNKNOWN, |(_, space)| space)
    }

    fn ask(&self) {
        let space = match self.0.remote.statvfs() {
            Ok(Some(stat)) => Space::from(stat),
            Ok(None) | Err(_) => UNKNOWN,
        };
        *self.0.known.lock() = Some((Instant::now(), space));
        self.0.asking.store(false, Ordering::Release);
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
