//! Local state that is not yet on the server, and copies of what was changed.
//!
//! A file opened for writing gets a [`Spool`]: a private local file that holds its whole new content. When it is closed the
//! spool is sealed and an operation ([`Op`]) that names it goes into the [`Journal`], as do changes of names. What cancels
//! out in the [`Queue`] never reaches the server. What the server refuses to take is put into the [`Rescue`] store, never
//! dropped; what it took is [`Kept`] until it is committed.

mod journal;
mod kept;
mod op;
mod queue;
mod records;
mod rescue;
mod spool;

pub use journal::{Journal, Next};
pub use kept::{Kept, KeptCopy, What, blob_path, kept_copies};
pub use op::{Action, Expected, Op, OpId, Put, SpoolId};
pub use queue::Queue;
pub use rescue::{Rescue, Shelf, base_of};
pub use spool::{Sealed, Spool};
