//! Which parts of a large save the server has already, as far as this machine knows the content that the change is based on.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::sender::Sender;
use crate::cache::BLOCK_BYTES;
use crate::path::RemotePath;
use crate::remote::Base;

/// Smaller files are sent whole (bytes).
const MIN_BYTES: u64 = 4 * 1024 * 1024;
/// Blocks in a row without anything in common after which the rest is taken to be new.
const MAX_OTHER: u64 = 64;
/// Unchanged parts at most.
const MAX_PARTS: usize = 64;

impl Sender {
    /// The parts that are equal in the new content and in the base, block by block. Only content that is cached here, of a version
    /// that cannot stand for another content, is compared: nothing is fetched.
    pub(super) fn unchanged(&self, path: &RemotePath, base: Base, source: &File, len: u64) -> Vec<Range<u64>> {
        let Base::Version(version) = base else { return Vec::new() };
        let end = version.size.min(len);
        if end < MIN_BYTES || !self.content.is_settled(path, version) {
            return Vec::new();
        }
        let (mut parts, mut other): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
        let mut ours = vec![0; BLOCK_BYTES as usize];
        for at in (0..end).step_by(BLOCK_BYTES as usize) {
            let block = at..(at + BLOCK_BYTES).min(end);
            let ours = &mut ours[..(block.end - block.start) as usize];
            let theirs = self.content.read_cached(path, version, block.clone());
            let same = theirs.is_some_and(|theirs| source.read_exact_at(ours, at).is_ok() && theirs == *ours);
            other = if same { 0 } else { other + 1 };
            let room = parts.len() < MAX_PARTS;
            match parts.last_mut().filter(|part| part.end == block.start) {
                _ if !same => {}
                Some(part) => part.end = block.end,
                None if room => parts.push(block),
                None => {}
            }
            if other > MAX_OTHER {
                break;
            }
        }
        parts
    }
}
