//! Local state that is not yet on the server, and copies of what was changed.
//!
//! A file opened for writing gets a [`Spool`]: a private local file that holds its whole new content. When it is closed the
//! spool is sealed and an operation ([`Op`]) that names it goes into the [`Journal`], as do changes of names. What cancels
//! out in the [`Queue`] never reaches the server. What the server refuses to take is put into the [`Rejects`] store, never
//! dropped; what it took is [`Backups`] until it is committed.

mod backup;
mod fold;
#[cfg(test)]
mod golden;
mod journal;
mod op;
mod queue;
mod records;
mod reject;
mod replaced;
mod spool;

pub use backup::{Backup, Backups, What, backups_in, read_backup};
pub use journal::{Journal, Next, has_unsent};
pub use op::{Action, Expected, Op, OpId, Put, SpoolId};
pub use queue::Queue;
pub use reject::{Reject, RejectKind, Rejects, base_of, keep_reverted, rejects_in};
pub use spool::{Sealed, Spool};
