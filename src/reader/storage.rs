//! What `content` begins with: the disk tier, and the proofs by which bytes may come from the repository.

use std::path::Path;
use std::sync::Arc;

use crate::cache::Disk;
use crate::content::Proofs;
use crate::mirror::Mirror;
use crate::path::RemotePath;

/// Content on the local disk takes this much at most (bytes), and never more than a tenth of what is free.
const CONTENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Opens the disk tier of `owner` (what was mounted). It is a convenience: without it content is kept in memory only.
pub fn open_disk(dir: &Path, owner: &str) -> Option<Disk> {
    let free = |dir: &Path| {
        std::fs::create_dir_all(dir)?;
        let space = rustix::fs::statvfs(dir)?;
        Ok::<u64, std::io::Error>(space.f_bavail.saturating_mul(space.f_frsize))
    };
    let opened = free(dir).and_then(|free| Disk::open(dir, owner.as_bytes(), CONTENT_BYTES.min(free / 10)));
    opened.inspect_err(|error| log::warn!("{}: {error}; content is kept in memory only", dir.display())).ok()
}

/// The proofs about the code directory of a Pantheon environment.
pub fn proofs_of(mirror: &Arc<Mirror>) -> Option<Arc<Proofs>> {
    let root = RemotePath::parse("code").ok()?;
    Some(Arc::new(Proofs::new(mirror.clone(), root)))
}
