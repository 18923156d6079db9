//! The memory cache: an LRU of blocks with a byte budget.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

use lru::LruCache;

use crate::attr::ContentId;

/// A block of a content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockKey {
    pub content: ContentId,
    pub index: u64,
}

/// Figures of the memory cache, for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub blocks: u64,
    pub bytes: u64,
    pub budget_bytes: u64,
    pub hits: u64,
    pub misses: u64,
}

/// Bookkeeping per block beside its bytes: key, path, list pointers. An estimate that keeps millions of tiny blocks
/// from escaping the budget.
const OVERHEAD_BYTES: u64 = 200;

/// See the module documentation.
pub struct Memory(Mutex<Inner>);

struct Inner {
    blocks: LruCache<BlockKey, Arc<[u8]>>,
    figures: Figures,
}

impl Memory {
    pub fn new(budget_bytes: u64) -> Self {
        let figures = Figures { budget_bytes, ..Figures::default() };
        Self(Mutex::new(Inner { blocks: LruCache::unbounded(), figures }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }

    pub fn get(&self, key: &BlockKey) -> Option<Arc<[u8]>> {
        let mut inner = self.lock();
        let block = inner.blocks.get(key).cloned();
        match block {
            Some(_) => inner.figures.hits += 1,
            None => inner.figures.misses += 1,
        }
        block
    }

    /// Whether the block is cached; does not count as a use.
    pub fn contains(&self, key: &BlockKey) -> bool {
        self.lock().blocks.contains(key)
    }

    pub fn insert(&self, key: BlockKey, block: Arc<[u8]>) {
        let mut inner = self.lock();
        let cost = block.len() as u64 + OVERHEAD_BYTES;
        if cost > inner.figures.budget_bytes {
            return;
        }
        if let Some(old) = inner.blocks.put(key, block) {
            inner.forget_cost(&old);
        }
        inner.figures.bytes += cost;
        while inner.figures.bytes > inner.figures.budget_bytes {
            let Some((_, old)) = inner.blocks.pop_lru() else { break };
            inner.forget_cost(&old);
        }
    }

    pub fn remove(&self, key: &BlockKey) -> Option<Arc<[u8]>> {
        let mut inner = self.lock();
        let block = inner.blocks.pop(key)?;
        inner.forget_cost(&block);
        Some(block)
    }

    pub fn figures(&self) -> Figures {
        let inner = self.lock();
        Figures { blocks: inner.blocks.len() as u64, ..inner.figures }
    }
}

impl Inner {
    fn forget_cost(&mut self, block: &Arc<[u8]>) {
        self.figures.bytes = self.figures.bytes.saturating_sub(block.len() as u64 + OVERHEAD_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Version;
    use crate::path::RemotePath;

    fn key(index: u64) -> BlockKey {
        let path = RemotePath::parse("code/a").expect("valid");
        BlockKey { content: ContentId::Remote(path, Version { size: 1, mtime: 1 }, 0), index }
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let memory = Memory::new(3 * (1000 + OVERHEAD_BYTES));
        let block: Arc<[u8]> = vec![7; 1000].into();
        for index in 0..3 {
            memory.insert(key(index), block.clone());
        }
        assert!(memory.get(&key(0)).is_some());
        memory.insert(key(3), block.clone());
        assert!(memory.get(&key(1)).is_none(), "1 was the oldest");
        assert!(memory.get(&key(0)).is_some());
        let figures = memory.figures();
        assert!(figures.bytes <= figures.budget_bytes);
        assert_eq!(figures.blocks, 3);
    }

    #[test]
    fn a_block_over_the_budget_is_not_kept() {
        let memory = Memory::new(100);
        memory.insert(key(0), vec![0; 101].into());
        assert_eq!(memory.figures().blocks, 0);
    }

    #[test]
    fn replacing_a_block_does_not_count_it_twice() {
        let memory = Memory::new(10_000);
        memory.insert(key(0), vec![0; 100].into());
        memory.insert(key(0), vec![0; 300].into());
        assert_eq!(memory.figures().bytes, 300 + OVERHEAD_BYTES);
        memory.remove(&key(0));
        assert_eq!(memory.figures().bytes, 0);
    }
}
