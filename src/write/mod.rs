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

pub use backup::{Backup, Backups, What, backup_blob_path, backups_in};
pub use journal::{Journal, Next};
pub use op::{Action, Expected, Op, OpId, Put, SpoolId};
pub use queue::Queue;
pub use reject::{RejectKind, Rejects, base_of};
pub use spool::{Sealed, Spool};
