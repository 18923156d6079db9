//! statfs. It never waits for the network, because `df` must not hang when the connection does.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// The last figures of the server. Cheap to clone.
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
