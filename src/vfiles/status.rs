//! Everything that is shown, in one value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Hydration, Origin};
use crate::env::{Belief, Committed};
use crate::pending::Pending;

/// May something be written, and if not, why?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Yes,
    /// Not now: something runs.
    Held(String),
    No(String),
}

/// The link to the server.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// `None`: up. Otherwise why it is down.
    pub down: Option<String>,
    /// How long it has been so.
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
}

/// What another client would need to know to connect.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Relative to the login directory, or absolute.
    pub path: String,
    /// Where the site's git repository is, if it has one.
    pub git_url: Option<String>,
}

/// See the module header.
#[derive(Debug, Clone)]
pub struct Status {
    pub now: SystemTime,
    /// What was mounted.
    pub source: String,
    /// Where this machine keeps what must survive.
    pub state_dir: std::path::PathBuf,
    pub belief: Belief,
    pub code: Write,
    /// `None`: the mount shows no uploads.
    pub uploads: Option<Write>,
    pub link: LinkStatus,
    pub connection: Connection,
    /// Paths whose content is not on the server yet.
    pub dirty: Vec<String>,
    /// Operations that wait, in few words, oldest first, and how many bytes of content they carry.
    pub waiting: Vec<String>,
    pub waiting_bytes: u64,
    /// Kept because someone else changed the file.
    pub conflicts: Vec<String>,
    /// Kept because the environment took no writes any more.
    pub stranded: Vec<String>,
    /// Paths in code that were changed through this mount, in order; not more than can be shown.
    pub written: Vec<String>,
    /// Written through this mount, and never to be committed.
    pub ignored_written: Vec<String>,
    /// Kept copies of uncommitted work on this machine, and since when the oldest.
    pub kept: usize,
    pub kept_since: Option<SystemTime>,
    /// Paths whose kept copy is not on the server any more.
    pub lost: Vec<String>,
    /// What changed about the connection, newest last.
    pub connection_changes: Vec<String>,
    pub sent_files: u64,
    pub sent_bytes: u64,
    pub fetched_files: u64,
    pub fetched_bytes: u64,
    /// What comes from the repository; `None`: there is none.
    pub origin: Option<Origin>,
    pub cached_bytes: u64,
    /// File content on the local disk.
    pub hydration: Hydration,
    pub disk_bytes: u64,
    /// Blocks that came from there.
    pub disk_hits: u64,
    pub inodes: usize,
    /// What is uncommitted, by comparing with the repository: the last look, or why there was none.
    pub looked: Option<(SystemTime, Result<Arc<Pending>, String>)>,
    /// The last commit made through this mount.
    pub committed: Option<Committed>,
    pub last_error: Option<(SystemTime, String)>,
}
