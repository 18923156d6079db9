//! Local changes and their way to the server.
//!
//! A change is made in the view, recorded in the journal, and answered; the worker sends it later. [`Upload`] takes
//! changes from callers, `Sender` applies them on the server. Between them, `Local` owns what is not on the server
//! yet: the records of the journal, the spools (content), local-only files, and rejected copies. Listeners are told
//! of each [`Applied`] change.
//!
//! Order of the locks, none of which is held across a round trip or a disk sync: the names lock, the maps of
//! [`Upload`], the table of the view, the journal, a spool. The names lock is held from the last check of the view
//! until the change is recorded, so that the order of the records is the order in which the changes were made.
//!
//! | file | what |
//! | --- | --- |
//! | `events` | events for listeners |
//! | `spools` | content that is only on this machine |
//! | `local` | what both sides share: spools, journal, names lock |
//! | `local_only` | names that are never sent |
//! | `patterns` | the user's patterns of such names |
//! | `here` | directories and links that are only here |
//! | `finish` | the end of an operation |
//! | `given_up` | what became rejected, for the next barrier and the status |
//! | `reject` | rejected copies: conflicts and stranded files |
//! | `made` | files on the server that this mount created |
//! | `reject_rename` | a save by rename whose rename is a conflict |
//! | `record` | recording a change in the journal |
//! | `state` | the callers' side: the type [`Upload`] |
//! | `save` | close and fsync |
//! | `edit` | changing content: write, truncate, fallocate |
//! | `names` | create, mkdir, rmdir, unlink, symlink |
//! | `own_links` | which symlinks out of the mount were made through it |
//! | `rename` | rename |
//! | `unreadable` | changing a part of a file that may not be read |
//! | `attrs` | permission bits and times |
//! | `sender` | the worker's side: the type `Sender` |
//! | `root_check` | checking that the environment is present |
//! | `compare` | comparing the content on the server with the expected one |
//! | `apply`, `apply_names` | applying one operation on the server |
//! | `in_place` | saves that overwrite the old bytes |
//! | `worker` | the thread that takes operations from the journal |
//! | `recover` | showing what an earlier mount recorded |
//! | `barrier` | waiting until the server has every change |

mod apply;
mod apply_names;
mod attrs;
mod barrier;
mod compare;
mod edit;
mod events;
mod finish;
mod given_up;
mod here;
mod in_place;
mod local;
mod local_only;
mod made;

mod names;
mod outcome;
mod own_links;
mod patterns;
mod record;
mod recover;
mod reject;
mod reject_rename;
mod rename;
mod root_check;
mod save;
mod sender;
mod spools;
mod state;
mod unchanged;
mod unreadable;
mod worker;

pub use attrs::{SetAttr, Time};
pub use edit::Allocate;
pub use events::{Applied, AppliedChange, Listener};
pub use given_up::Reports;
pub use local_only::LOCAL_ONLY_PATTERNS;
pub use names::{Created, NewFile};
pub use state::{Upload, unsent_in};
