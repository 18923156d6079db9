//! The inode table: the objects that names lead to, their attributes, the references of the kernel, and how long each
//! is valid; and the snapshot of the tree on the local disk. The table does no network I/O and never waits.
//!
//! A directory is known as a whole or not at all: a complete listing answers for the names in it and for all names
//! that are not in it. Numbers are derived from the path at first sight, so that they are the same after a remount; a
//! rename does not change the number.

mod bytes;
mod change_log;
mod listing;
mod node;
mod nodes;
mod saved;
mod shown;
mod snapshot;
mod table;

pub use change_log::ChangeLog;
pub use listing::{Applied, Change, Removed};
pub use node::{Child, NodeView, Shown};
pub use saved::Unsaved;
pub use snapshot::{Saved, SavedDir, Snapshot};
pub use table::{Root, Table};

/// An inode number as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The mount's root: the code directory.
pub const ROOT: Ino = Ino(1);
/// `.pantheon/files`: the uploads.
pub const UPLOADS: Ino = Ino(2);
/// `.pantheon/logs`.
pub const LOGS: Ino = Ino(3);
/// First number that a path may hash to; lower ones are fixed roots.
const FIRST_HASHED: u64 = 16;
/// Set in the numbers of virtual files, never in those of real ones, so that the two cannot collide.
pub const VIRTUAL_BIT: u64 = 1 << 63;

impl Ino {
    pub fn is_virtual(self) -> bool {
        self.0 & VIRTUAL_BIT != 0
    }
}
