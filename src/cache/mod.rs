//! Blocks by content identity: a memory LRU tier over a disk tier; one fetch per missing block.
