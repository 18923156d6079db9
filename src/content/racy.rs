//! Checksums of racy contents: those that were seen so soon after their mtime that another content may have the same
//! version.

use parking_lot::Mutex;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::attr::Version;
use crate::path::RemotePath;

/// Number of remembered paths.
const MAX_PATHS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// CRC-32 by path and version.
pub(super) struct RacySums(Mutex<LruCache<RemotePath, (Version, u32)>>);

impl Default for RacySums {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_PATHS)))
    }
}

impl RacySums {
    fn with<T>(&self, act: impl FnOnce(&mut LruCache<RemotePath, (Version, u32)>) -> T) -> T {
        act(&mut self.0.lock())
    }

    pub(super) fn note(&self, path: &RemotePath, version: Version, sum: u32) {
        self.with(|sums| sums.put(path.clone(), (version, sum)));
    }

    pub(super) fn sum(&self, path: &RemotePath, version: Version) -> Option<u32> {
        self.with(|sums| sums.get(path).filter(|(of, _)| *of == version).map(|(_, sum)| *sum))
    }

    pub(super) fn forget(&self, path: &RemotePath) {
        self.with(|sums| sums.pop(path));
    }

    pub(super) fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        self.with(|sums| {
            sums.pop(to);
            if let Some(known) = sums.pop(from) {
                sums.put(to.clone(), known);
            }
        });
    }
}
