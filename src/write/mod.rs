//! Local state that is not yet on the server: the spool of a file being written, and copies of what could not be sent.
//!
//! A file opened for writing gets a [`Spool`]: a private local file that holds its whole new content. Nothing of it
//! reaches the server before the writer closes or syncs, and then as a whole (`remote.store`), so a truncation never
//! travels ahead of the new bytes. What the server refuses to take is put into the [`Rescue`] store, never dropped.

mod busy;
mod kept;
mod records;
mod rescue;
mod spool;

pub use busy::{Busy, BusyGuard};
pub use kept::{Kept, KeptCopy, What, blob_path, kept_copies};
pub use rescue::{Rescue, Shelf};
pub use spool::{Spool, SpoolMark};
