//! What was sent from here, moved or taken away: what is held follows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::blocks::{blocks_of, clamp};
use super::state::Content;
use super::trust::unproved;
use crate::attr::{ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey};
use crate::path::RemotePath;
use crate::pool::background;

/// Blocks of a moved file that are kept; more are fetched again.
const MAX_MOVED_BLOCKS: usize = 1024;

impl Content {
    /// The content of this version was stored here, and is `whole` where that is known: from here on nothing that was held
    /// under the path counts. Where the version may still get another content within its second, what was sent is compared
    /// before it is believed. With `keep` it is kept for readers.
    pub fn stored(&self, path: &RemotePath, version: Version, source: &File, keep: bool) {
        self.0.clock.set_there(version.mtime);
        self.replaced(path);
        let racy = self.0.is_racy(version);
        if racy && self.0.clock.is_server_unknown() {
            self.ask_the_time(path);
        }
        let id = self.0.remote_id(path, version);
        for index in blocks_of(&(0..version.size)).take_while(|_| racy || keep) {
            let range = clamp(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES, version);
            let mut block = vec![0; (range.end - range.start) as usize];
            if source.read_exact_at(&mut block, range.start).is_err() {
                return;
            }
            if racy {
                self.0.racy.note(path, version, index, crc32fast::hash(&block));
            }
            if keep {
                let content = if racy { unproved(&id) } else { id.clone() };
                self.0.insert(BlockKey { content, index }, block.into());
            }
        }
    }

    /// Behind the caller's back: the server has just stamped the directory of what was stored, by its own clock.
    fn ask_the_time(&self, path: &RemotePath) {
        let (Some(dir), inner) = (path.parent(), self.0.clone()) else { return };
        if inner.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        background().run(move || {
            if let Ok(attr) = inner.remote.lstat(&dir) {
                inner.clock.server_stamped(attr.mtime);
            }
            inner.asking.store(false, Ordering::Release);
        });
    }

    /// What was at the path, or below it, is not there any more, or is something else: nothing that is held of it counts.
    pub fn replaced(&self, path: &RemotePath) {
        self.0.generations.begin(path);
        self.0.racy.forget_below(path);
        if let Some(proofs) = &self.0.proofs {
            proofs.replaced(path);
        }
    }

    /// The server has moved it.
    pub fn moved(&self, from: &RemotePath, to: &RemotePath) {
        self.0.racy.renamed(from, to);
        if let Some(proofs) = &self.0.proofs {
            proofs.renamed(from, to);
        }
    }

    /// The file moved: its blocks go with it.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Version) {
        let old = self.0.remote_id(from, version);
        self.0.generations.begin(to);
        let new = self.0.remote_id(to, version);
        for index in blocks_of(&(0..version.size)).take(MAX_MOVED_BLOCKS) {
            let key = |content: &ContentId| BlockKey { content: content.clone(), index };
            let (old, new) = (key(&old), key(&new));
            if let Some(disk) = &self.0.disk {
                disk.renamed(&old, &new);
            }
            if let Some(block) = self.0.memory.remove(&old) {
                self.0.memory.insert(new, block);
            }
        }
        self.0.generations.begin(from);
    }
}
