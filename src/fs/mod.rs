//! The filesystem: operations on inode numbers and handles, with types of its own. `fuse` translates them for the
//! kernel; tests call them directly.
//!
//! It only dispatches: `.pantheon` goes to `dotdir`, content to `reader`, changes to `upload`, everything else to
//! `view`. Operations that may need the network take a [`Wait`]: the kernel's worker threads call with [`Wait::No`]
//! first, and pass the call to a thread that may wait only if the answer is not known yet.
//!
//! | file | what |
//! | --- | --- |
//! | `errno` | the one errno table |
//! | `handles` | open files and directories |
//! | `assemble` | [`FsConfig`], and building a filesystem |
//! | `state` | the type [`Fs`] |
//! | `inodes` | operations on inode numbers |
//! | `files` | operations on open files |
//! | `dirs` | opendir, readdirplus, releasedir |
//! | `replay` | doing changes of other writers again, for programs that watch files |

mod assemble;
mod dirs;
mod errno;
mod files;
mod handles;
mod inodes;
mod replay;
mod state;

pub use assemble::FsConfig;
pub use dirs::DirEntry;
pub use files::Opened;
pub use handles::HandleId;
pub use replay::{Again, Step};
pub use state::Fs;

pub use crate::content::AttestConfig;
pub use crate::error::{Cause, FsError, FsResult, Wait};
pub use crate::reader::{Links, OpenMode};
pub use crate::upload::{Allocate, NewFile, SetAttr, Time};
pub use crate::view::{EarlierTree, Entry, Layout, Space, knows_a_tree};
