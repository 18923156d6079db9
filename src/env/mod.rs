//! The belief about the environment (mode, commit, running workflows), and the one place that opens and closes the gate.
//!
//! A watcher thread asks the API while the mount is in use; a write that the server refuses makes it ask at once. Without
//! an API (a plain SFTP server, or no login) the belief follows the mount options.

mod belief;
mod code_jobs;
mod config;
mod error;
mod handle;
mod hold;
mod jobs;
mod memory;
mod pace;
mod settle;
mod tracker;
mod watcher;

pub use belief::{Belief, Running, Source};
pub use config::EnvConfig;
pub use error::{CommitError, SwitchError};
pub use handle::Env;
pub use hold::Holding;
pub use jobs::Committed;
