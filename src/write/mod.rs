//! Local state that is not yet on the server, and backups of uncommitted changes.
//!
//! A file opened for writing gets a [`Spool`]: a private local file with its whole new content. When the file is
//! closed, the spool is sealed, and an operation ([`Op`]) that names it is recorded in the [`Journal`], as are
//! changes of names. Operations that cancel out in the [`Queue`] are never sent. Content that the server refuses is
//! stored in [`Rejects`], never dropped; changes of code that the server has are in [`Backups`] until they are
//! committed.

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
