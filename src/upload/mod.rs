//! Local changes on their way to the server.
//!
//! Local first: a change is made in the view, recorded in the journal, and answered; the worker sends it. [`Upload`] owns
//! what is not on the server yet: the journal's records, the spools (content), the files that stay on this machine, and
//! what the server rejected. What reached the server is told to listeners as an [`Applied`] change.
//!
//! Locks, in order (none is held across a round trip or a disk sync): the names lock, then the maps of [`Upload`], then
//! the view's table, the journal's, a spool's own. The names lock is held from the last look at the view to the record in
//! the journal, so that the order of the journal is the order in which the changes were made.
//!
//! | file | what |
//! | --- | --- |
//! | `events` | what listeners are told |
//! | `spools` | content that is only here |
//! | `state` | the type [`Upload`] |
//! | `local_only` | names that never leave this machine |
//! | `finish` | the end of an operation, well or not |
//! | `reject` | what the server does not take: conflicts and stranded files |
//! | `record` | from a change to a record in the journal |
//! | `edit` | changing content: write, truncate, fallocate |
//! | `names` | create, mkdir, rmdir, unlink, symlink |
//! | `rename` | rename |
//! | `attrs` | permission bits and times |
//! | `compare` | is what the server has what we expect there? |
//! | `apply`, `apply_names` | carrying out one operation on the server |
//! | `worker` | the thread that takes operations from the journal |
//! | `recover` | what an earlier mount left |
//! | `barrier` | waiting until the server has everything |

mod apply;
mod apply_names;
mod attrs;
mod barrier;
mod compare;
mod edit;
mod events;
mod finish;
mod local_only;
mod names;
mod record;
mod recover;
mod reject;
mod rename;
mod spools;
mod state;
mod worker;

pub use attrs::{SetAttr, Time};
pub use edit::Allocate;
pub use events::{Applied, AppliedChange, Listener};
pub use names::Created;
pub use state::{Upload, unsent_in};
