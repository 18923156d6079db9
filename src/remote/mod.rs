//! Calls on paths of the server over one SFTP session, which is replaced whenever it ends.
//!
//! [`Remote`] is the whole of it for callers. Which call is asked again after a loss is decided in `retry`; what happens when
//! a session ends, in `current` and `supervise`. Every call that changes something takes a
//! [`WritePermit`](crate::gate::WritePermit). No absolute path of the server outlives a session: all are relative to the login
//! directory or to the path of the source. Knows nothing of inodes, caches or modes.
//!
//! The files, each of which uses only those above it:
//!
//! | file | what is there |
//! | --- | --- |
//! | `error`, `reply` | error kinds; the one reader of replies |
//! | `config`, `wake_detect` | settings; suspend and network changes of this machine |
//! | `handles`, `entries`, `open_files` | what one session may hold open, and what it has gathered |
//! | `second_name` | what a second name of a file is for |
//! | `rename_capabilities`, `link_order`, `temp_files` | which renames the server was seen to refuse; how it makes symlinks; names of temporary files |
//! | `session` | one SFTP session |
//! | `current` | the session in use, and the calls that wait for the next one |
//! | `client` | settings, current session and learned capabilities together |
//! | `attempt`, `retry` | one attempt at a call; the retry rule |
//! | `place` | whether a path leads where it says |
//! | `calls`, `list`, `fetch`, `guard`, `content`, `store`, `copy`, `rename`, `sweep` | the calls |
//! | `supervise` | the thread that connects, keeps alive and replaces sessions |
//! | `api` | [`Remote`] |

mod api;
mod attempt;
mod base_copy;
mod calls;
mod client;
mod config;
mod content;
mod copy;
mod current;
mod entries;
mod error;
mod fetch;
mod guard;
mod handles;
mod link_order;
mod list;
mod open_files;
mod place;
mod rename;
mod rename_capabilities;
mod reply;
mod retry;
mod second_name;
mod session;
mod store;
mod supervise;
mod sweep;
mod temp_files;
mod wake_detect;

pub use api::Remote;
pub use calls::SetAttr;
pub use config::{Dial, RemoteConfig, SessionAge, Wake};
pub use content::Progress;
pub use current::Link;
pub use error::{ErrorKind, RemoteError, RemoteResult};
pub use second_name::Guard;
pub use session::SessionInfo;
pub use store::{Base, Store};
pub use wake_detect::{Machine, WakeDetect};

pub use crate::sftp::{Capabilities, Class, StatVfs};
