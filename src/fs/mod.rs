//! The filesystem: operations on inode numbers and handles, on our own types. `fuse` translates them for the kernel, the
//! tests call them directly.
//!
//! Nothing is decided here but who is asked: `.pantheon` is `dotdir`'s, content is `reader`'s, changes are `upload`'s, the
//! rest is `view`'s. Every operation that may need the network takes a [`Wait`]: the kernel's worker threads call with
//! [`Wait::No`] first and hand the call to a thread that may wait only when the answer is not known yet.
//!
//! | file | what |
//! | --- | --- |
//! | `errno` | the one errno table |
//! | `handles` | open files and directories |
//! | `assemble` | [`FsConfig`], and what a filesystem is made of |
//! | `state` | the type [`Fs`] |
//! | `inodes` | operations on inode numbers |
//! | `files` | operations on open files |
//! | `dirs` | opendir, readdirplus, releasedir |

mod assemble;
mod dirs;
mod errno;
mod files;
mod handles;
mod inodes;
mod state;

pub use assemble::FsConfig;
pub use dirs::DirEntry;
pub use files::Opened;
pub use handles::HandleId;
pub use state::Fs;

pub use crate::content::AttestConfig;
pub use crate::error::{Cause, FsError, FsResult, Wait};
pub use crate::reader::OpenMode;
pub use crate::upload::{Allocate, SetAttr, Time};
pub use crate::view::{Entry, Layout, Space, knows_a_tree};
