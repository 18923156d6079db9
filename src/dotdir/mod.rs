//! `.pantheon`: the environment shown as files, and commands taken the same way.
//!
//! [`Dot`] owns the virtual inodes, what is remembered for the status, the last comparison with the repository, and the
//! backups of uncommitted work. It follows what `upload` sends and how the environment changes.
//!
//! | file | what |
//! | --- | --- |
//! | `inodes` | numbers of virtual objects |
//! | `notes` | what happened lately, for the status |
//! | `state` | the type [`Dot`] |
//! | `survey` | everything below the code directory, listed just now |
//! | `backups` | copies of uncommitted work on this machine |
//! | `comparison` | what is uncommitted: the survey compared with the repository |
//! | `discard` | saving what is uncommitted before it is deleted on purpose |
//! | `migration` | noticing that the environment has moved |
//! | `follow` | what is done when something was sent, or the environment changed |
//! | `status` | the one value from which files are rendered |
//! | `objects` | lookup, getattr, readdir |
//! | `commands` | what a written command does |
//! | `files` | open, read, write, close of virtual files |

mod backups;
mod commands;
mod comparison;
mod discard;
mod files;
mod follow;
mod inodes;
mod migration;
mod notes;
mod objects;
mod state;
mod status;
mod survey;

pub use files::VirtualFile;
pub use inodes::{parent, root_entry};
pub use state::{Dot, DotConfig};
