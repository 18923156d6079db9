//! Updates cached content after this mount sent, renamed or deleted files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::blocks::{blocks_of, clamp};
use super::state::Content;
use super::trust::unconfirmed;
use crate::attr::{ContentId, Version};
use crate::cache::{BLOCK_BYTES, BlockKey};
use crate::path::RemotePath;
use crate::pool::background;

/// Number of blocks that stay cached when a file or directory is renamed. Further blocks are fetched again.
const MAX_RENAMED_BLOCKS: usize = 64 * 1024;

impl Content {
    /// Notes that this content was sent. Everything that was cached for the path before is outdated. If the version is
    /// racy, the checksums of the sent content are noted, so that it is compared with the server's before it is trusted.
    /// The content is cached for readers of `shown_at`, which is another path if a rename follows.
    pub fn stored(&self, path: &RemotePath, version: Version, source: &File, shown_at: Option<&RemotePath>) {
        self.0.clock.set_by_client(version.mtime);
        self.replaced(path);
        let racy = self.0.is_racy(version);
        if racy && self.0.clock.is_server_unknown() {
            self.update_server_time(path);
        }
        if let Some(shown_at) = shown_at.filter(|shown_at| *shown_at != path) {
            self.0.generations.start(shown_at);
        }
        let id = shown_at.map(|shown_at| self.0.remote_id(shown_at, version));
        for index in blocks_of(&(0..version.size)).take_while(|_| racy || id.is_some()) {
            let range = clamp(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES, version);
            let mut block = vec![0; (range.end - range.start) as usize];
            if source.read_exact_at(&mut block, range.start).is_err() {
                return;
            }
            if racy {
                self.0.racy.note(path, version, index, crc32fast::hash(&block));
            }
            if let Some(id) = &id {
                let content = if racy { unconfirmed(id) } else { id.clone() };
                self.0.insert(BlockKey { content, index }, block.into());
            }
        }
    }

    /// Learns the server's time in the background: storing the file has just set the time of its directory.
    fn update_server_time(&self, path: &RemotePath) {
        let (Some(dir), inner) = (path.parent(), self.0.clone()) else { return };
        if inner.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        background().run(move || {
            if let Ok(attr) = inner.remote.lstat(&dir) {
                inner.clock.server_passed(attr.mtime);
            }
            inner.asking.store(false, Ordering::Release);
        });
    }

    /// The object at the path, with everything below it, was removed or replaced on the server: all that is known of it is
    /// outdated.
    pub fn replaced(&self, path: &RemotePath) {
        self.0.racy.forget_below(path);
        self.replaced_locally(path);
    }

    /// Another object is shown at the path, and the server does not have it yet. The checksums of the previous object are
    /// kept, because the server's object is compared with them before it is replaced.
    pub fn replaced_locally(&self, path: &RemotePath) {
        self.0.generations.start(path);
        if let Some(proofs) = &self.0.proofs {
            proofs.replaced(path);
        }
    }

    /// The object, with everything below it, was renamed on the server.
    pub fn renamed_on_server(&self, from: &RemotePath, to: &RemotePath) {
        self.0.racy.renamed(from, to);
    }

    /// The object was renamed locally. `files`: the files that the server has of it, relative to it; their cached blocks
    /// get the new names. What else is cached for both paths is outdated.
    pub fn renamed(&self, from: &RemotePath, to: &RemotePath, files: &[(RemotePath, Version)]) {
        let id = |top: &RemotePath, (below, version): &(RemotePath, Version)| {
            self.0.remote_id(&top.join_path(below), *version)
        };
        let old: Vec<ContentId> = files.iter().map(|file| id(from, file)).collect();
        self.0.generations.start(to);
        let names = files.iter().zip(old).flat_map(|(file, old)| {
            let new = id(to, file);
            let pairs = [(unconfirmed(&old), unconfirmed(&new)), (old, new)];
            blocks_of(&(0..file.1.size)).flat_map(move |index| {
                let key = move |content: &ContentId| BlockKey { content: content.clone(), index };
                pairs.clone().map(|(old, new)| (key(&old), key(&new)))
            })
        });
        let names: Vec<(BlockKey, BlockKey)> = names.take(2 * MAX_RENAMED_BLOCKS).collect();
        for (old, new) in &names {
            if let Some(block) = self.0.memory.remove(old) {
                self.0.memory.insert(new.clone(), block);
            }
        }
        if let Some(disk) = &self.0.disk {
            disk.renamed(&names);
        }
        self.0.generations.start(from);
        if let Some(proofs) = &self.0.proofs {
            proofs.renamed(from, to);
        }
    }
}
