//! Updates the caches with what was sent or renamed, under its present name and version.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::attr::Version;
use crate::cache::BLOCK_BYTES;
use crate::content::Content;
use crate::path::RemotePath;
use crate::upload::{Applied, AppliedChange, Listener};

/// Updates the caches with the events of `upload`.
pub(super) struct CacheFollower(pub(super) Content);

impl Listener for CacheFollower {
    fn applied(&self, applied: &Applied<'_>) {
        match &applied.change {
            AppliedChange::Content { source, attr, sum, newest } => {
                self.0.stored(applied.path, attr.version(), *sum);
                if *newest {
                    put_blocks(&self.0, applied.path, attr.version(), source);
                }
            }
            AppliedChange::RenamedFrom(from) => self.0.renamed_on_server(from, applied.path),
            AppliedChange::Link(_) | AppliedChange::Deleted => {}
        }
    }

    fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        self.0.renamed(from, to, version);
    }
}

fn put_blocks(content: &Content, path: &RemotePath, version: Version, source: &File) {
    for index in 0..version.size.div_ceil(BLOCK_BYTES) {
        let size = (version.size - index * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
        let mut block = vec![0; size];
        if source.read_exact_at(&mut block, index * BLOCK_BYTES).is_err() {
            return;
        }
        content.put(path, version, index, block.into());
    }
}
