//! Everything that is shown, in one value.

use std::path::PathBuf;
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
    /// What changed about the connection since earlier ones, newest last.
    pub changes: Vec<String>,
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

/// What was changed through this mount, and where it is.
#[derive(Debug, Clone, Default)]
pub struct LocalChanges {
    /// Paths whose content is not on the server yet.
    pub dirty: Vec<String>,
    /// Operations that wait, in few words, oldest first, and how many bytes of content they carry.
    pub waiting: Vec<String>,
    pub waiting_bytes: u64,
    /// Kept because another writer changed the file.
    pub conflicts: Vec<String>,
    /// Kept because the server takes no such change.
    pub stranded: Vec<String>,
    /// Paths in code that were changed through this mount, in order; not more than can be shown.
    pub written: Vec<String>,
    /// Written through this mount, and never to be committed.
    pub ignored_written: Vec<String>,
    /// Backups of uncommitted work on this machine, and since when the oldest.
    pub backups: usize,
    pub backups_since: Option<SystemTime>,
    /// Paths that have a backup, and are not on the server as it says.
    pub lost: Vec<String>,
    /// The last commit made through this mount.
    pub committed: Option<Committed>,
}

/// What was transferred, and what of it is kept on this machine.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub sent_files: u64,
    pub sent_bytes: u64,
    pub fetched_files: u64,
    pub fetched_bytes: u64,
    /// What comes from the repository; `None`: there is none.
    pub origin: Option<Origin>,
    /// File content in memory.
    pub cached_bytes: u64,
    pub hydration: Hydration,
    /// File content on the local disk.
    pub disk_bytes: u64,
    /// Blocks that came from there.
    pub disk_hits: u64,
    /// Objects that are known.
    pub inodes: usize,
}

/// See the module header.
#[derive(Debug, Clone)]
pub struct Status {
    pub now: SystemTime,
    /// What was mounted.
    pub source: String,
    /// Where this machine keeps what must survive.
    pub state_dir: PathBuf,
    pub belief: Belief,
    pub code: Write,
    /// `None`: the mount shows no uploads.
    pub uploads: Option<Write>,
    pub link: LinkStatus,
    pub connection: Connection,
    pub local: LocalChanges,
    pub traffic: Traffic,
    /// What is uncommitted, by comparing with the repository: the last look, or why there was none.
    pub compared: Option<(SystemTime, Result<Arc<Pending>, String>)>,
    pub last_error: Option<(SystemTime, String)>,
}
