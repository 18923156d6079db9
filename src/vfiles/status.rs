//! The status: everything that the virtual files show, in one value.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{GitStatus, Hydration, Origin};
use crate::env::{Belief, Committed};
use crate::pending::Pending;

/// Whether writes are possible, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Yes,
    /// Writes wait, for this reason.
    Held(String),
    No(String),
}

/// The state of the connection to the server.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// `None`: up. Otherwise why it is down.
    pub down: Option<String>,
    /// For how long it has been up or down.
    pub lasting: Duration,
    pub round_trip: Option<Duration>,
    /// `libssh2`, `ssh` or `exec`.
    pub transport: String,
    pub compressed: bool,
    pub peer: String,
    pub host_key: String,
    /// Extensions that the server offers.
    pub extensions: Vec<&'static str>,
    /// Requests sent over this connection.
    pub requests: u64,
    /// Differences between this connection and earlier ones, newest last.
    pub changes: Vec<String>,
}

/// The data that another client needs to connect.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Relative to the login directory, or absolute.
    pub path: String,
    /// URL of the site's git repository, if it has one.
    pub git_url: Option<String>,
}

/// The local changes, and how far each has come.
#[derive(Debug, Clone, Default)]
pub struct LocalChanges {
    /// Paths whose content is not on the server yet.
    pub dirty: Vec<String>,
    /// Queued operations, oldest first, and their bytes of content.
    pub waiting: Vec<String>,
    pub waiting_bytes: u64,
    /// Rejected copies: another writer changed the file.
    pub conflicts: Vec<String>,
    /// Rejected copies: the server does not accept the change.
    pub stranded: Vec<String>,
    /// Paths in code that were changed through this mount, in order; the number is limited.
    pub written: Vec<String>,
    /// Paths that were written through this mount and are matched by .gitignore.
    pub ignored_written: Vec<String>,
    /// Number of backups of uncommitted work, and the time of the oldest.
    pub backups: usize,
    pub backups_since: Option<SystemTime>,
    /// Paths whose backup differs from the server.
    pub lost: Vec<String>,
    /// The last commit made through this mount.
    pub committed: Option<Committed>,
    /// The `.git` of the mount, if it has one.
    pub git: Option<GitStatus>,
}

/// Names that stay on this machine.
#[derive(Debug, Clone, Default)]
pub struct LocalNames {
    /// The patterns, as the user wrote them.
    pub patterns: String,
    /// Number of files, and their bytes.
    pub files: usize,
    pub bytes: u64,
}

/// Transferred and cached data.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub sent_files: u64,
    pub sent_bytes: u64,
    pub fetched_files: u64,
    pub fetched_bytes: u64,
    /// Bytes that the server sent within the last minute, names and attributes included.
    pub minute_bytes: u64,
    /// Figures of the local repository; `None`: there is none.
    pub origin: Option<Origin>,
    /// File content in memory.
    pub cached_bytes: u64,
    pub hydration: Hydration,
    pub stays: LocalNames,
    /// File content on the local disk.
    pub disk_bytes: u64,
    /// Blocks that were read from the disk cache.
    pub disk_hits: u64,
    /// Number of known objects.
    pub inodes: usize,
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Status {
    pub now: SystemTime,
    /// What was mounted.
    pub source: String,
    /// The local directory for state that must survive the mount.
    pub state_dir: PathBuf,
    pub belief: Belief,
    pub code: Write,
    /// `None`: the source has no uploads.
    pub uploads: Option<Write>,
    pub link: LinkStatus,
    pub connection: Connection,
    pub local: LocalChanges,
    pub traffic: Traffic,
    /// The last comparison with the repository, or why it failed.
    pub compared: Option<(SystemTime, Result<Arc<Pending>, String>)>,
    pub last_error: Option<(SystemTime, String)>,
}
