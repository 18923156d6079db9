//! Opens what `content` starts with: the disk cache, and the proofs by which bytes may be read from the repository.

use std::path::Path;
use std::sync::Arc;

use crate::cache::Disk;
use crate::content::Proofs;
use crate::mirror::Mirror;
use crate::path::RemotePath;

/// Largest size of the disk cache (bytes); it never takes more than a tenth of the free space.
const CONTENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Opens the disk cache for `owner` (the mounted source). It is optional: without it content is cached in memory
/// only.
pub fn open_disk(dir: &Path, owner: &str) -> Option<Disk> {
    let free = |dir: &Path| {
        std::fs::create_dir_all(dir)?;
        let space = rustix::fs::statvfs(dir)?;
        Ok::<u64, std::io::Error>(space.f_bavail.saturating_mul(space.f_frsize))
    };
    let opened = free(dir).and_then(|free| Disk::open(dir, owner.as_bytes(), CONTENT_BYTES.min(free / 10)));
    opened.inspect_err(|error| log::warn!("{}: {error}; content is cached in memory only", dir.display())).ok()
}

/// The proofs about the code directory of a Pantheon environment.
pub fn proofs_of(mirror: &Arc<Mirror>) -> Option<Arc<Proofs>> {
    let root = RemotePath::parse("code").ok()?;
    Some(Arc::new(Proofs::new(mirror.clone(), root)))
}
