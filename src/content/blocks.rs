//! Ranges of bytes and the blocks that cover them.

use std::ops::Range;
use std::sync::Arc;

use crate::attr::Version;
use crate::cache::BLOCK_BYTES;

pub(super) fn clamp(range: Range<u64>, version: Version) -> Range<u64> {
    let end = range.end.min(version.size);
    range.start.min(end)..end
}

pub(super) fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) }
}

/// Cuts `range` out of the blocks that cover it.
pub(super) fn assemble(range: &Range<u64>, blocks: &[Arc<[u8]>]) -> Vec<u8> {
    let mut out = Vec::with_capacity((range.end - range.start) as usize);
    for (index, block) in blocks_of(range).zip(blocks) {
        let start = index * BLOCK_BYTES;
        let from = range.start.saturating_sub(start) as usize;
        let to = (range.end - start).min(block.len() as u64) as usize;
        out.extend_from_slice(block.get(from..to).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_out_of_blocks() {
        let blocks: Vec<Arc<[u8]>> = vec![vec![1; BLOCK_BYTES as usize].into(), vec![2; 10].into()];
        let range = BLOCK_BYTES - 2..BLOCK_BYTES + 3;
        assert_eq!(blocks_of(&range), 0..2);
        assert_eq!(assemble(&range, &blocks), [1, 1, 2, 2, 2]);
        assert_eq!(blocks_of(&(5..5)), 0..0);
        assert_eq!(blocks_of(&(0..BLOCK_BYTES)), 0..1);
    }

    #[test]
    fn reading_past_the_end_gives_what_there_is() {
        let version = Version { size: 10, mtime: 0 };
        assert_eq!(clamp(5..100, version), 5..10);
        assert_eq!(clamp(50..100, version), 10..10);
    }
}
