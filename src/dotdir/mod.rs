//! `.pantheon`: shows the environment as files, and takes commands that are written to them.
//!
//! [`Dot`] owns the virtual inodes, the notes for the status, the last comparison with the repository, and the
//! backups of uncommitted work. It follows the events of `upload` and of the environment.
//!
//! | file | what |
//! | --- | --- |
//! | `inodes` | numbers of virtual objects |
//! | `notes` | recent events, for the status |
//! | `state` | the type [`Dot`] |
//! | `survey` | listing everything below the code directory |
//! | `backups` | backups of uncommitted work |
//! | `comparisons` | the last comparison |
//! | `comparison` | comparing the survey with the repository |
//! | `discard` | backing up uncommitted work before it is discarded |
//! | `migration` | remembering the connection, and detecting migrations |
//! | `follow` | reactions to events |
//! | `git` | the `.git` of the mount |
//! | `git_follow` | showing `.git`, and following the environment with it |
//! | `status` | the value that virtual files are rendered from |
//! | `at` | versions: the trees of other commits |
//! | `objects` | lookup, getattr, readdir |
//! | `commands` | carrying out commands |
//! | `files` | open, read, write, close of virtual files |

mod at;
mod backups;
mod commands;
mod comparison;
mod comparisons;
mod discard;
mod files;
mod follow;
mod git;
mod git_follow;
mod inodes;
mod migration;
mod notes;
mod objects;
mod state;
mod status;
mod survey;

pub use files::VirtualFile;
pub use git::Git;
pub use inodes::parent;
pub use state::{Dot, DotConfig};
