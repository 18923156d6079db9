//! Blocks by content identity under an LRU byte budget, in memory and on the local disk, and one fetch per missing block.
//!
//! A key identifies the bytes themselves ([`ContentId`](crate::attr::ContentId)), so that an entry is never wrong and
//! never expires. The room does not know where bytes come from; see `content`.

mod disk;
mod flight;
mod generations;
mod memory;
mod pack;

pub use disk::{Disk, DiskFigures};
pub use flight::{InFlight, Role, Ticket, Waiter};
pub use generations::Generations;
pub use memory::{BlockKey, Figures, Memory};

/// Bytes in a block. The kernel asks for at most 128 KiB at a time when it reads ahead, so one request is one block;
/// smaller blocks would only multiply keys.
pub const BLOCK_BYTES: u64 = 128 * 1024;
