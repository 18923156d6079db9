//! Local changes on their way to the server.
//!
//! Local first: a change is made in the view, recorded in the journal, and answered; the worker sends it. The room has two
//! sides: [`Upload`] takes changes from callers, `Sender` carries them out on the server. Between them is `Local`, which owns
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
//! | `local` | what both sides share: spools, journal, names lock |
//! | `local_only` | names that never leave this machine |
//! | `finish` | the end of an operation, well or not |
//! | `reject` | what the server does not take: conflicts and stranded files |
//! | `made` | files of the server that this mount made |
//! | `moved` | a save by rename whose rename is a conflict |
//! | `record` | from a change to a record in the journal |
//! | `state` | the callers' side: the type [`Upload`] |
//! | `save` | close and fsync |
//! | `edit` | changing content: write, truncate, fallocate |
//! | `names` | create, mkdir, rmdir, unlink, symlink |
//! | `rename` | rename |
//! | `attrs` | permission bits and times |
//! | `sender` | the worker's side: the type `Sender` |
//! | `root_check` | is the environment there at all? |
//! | `compare` | is what the server has what we expect there? |
//! | `apply`, `apply_names` | carrying out one operation on the server |
//! | `in_place` | saves that are written over the old bytes |
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
mod in_place;
mod local;
mod local_only;
mod made;
mod moved;
mod names;
mod outcome;
mod record;
mod recover;
mod reject;
mod rename;
mod root_check;
mod save;
mod sender;
mod spools;
mod state;
mod worker;

pub use attrs::{SetAttr, Time};
pub use edit::Allocate;
pub use events::{Applied, AppliedChange, Listener};
pub use names::Created;
pub use state::{Upload, unsent_in};
