//! How to reach the server, how long to wait for it, and how old a session may get.

use std::sync::Arc;
use std::time::Duration;

use super::wake_detect::{Machine, WakeDetect};
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::transport::{Transport, TransportError};

/// Connects before the deadline, without questions to the user.
pub type Dial = Box<dyn Fn(Deadline) -> Result<Box<dyn Transport>, TransportError> + Send + Sync>;

/// Wakes a sleeping server before the deadline, or says why it could not.
pub type Wake = Arc<dyn Fn(Deadline) -> Result<(), String> + Send + Sync>;

/// How old a session gets. The platform has ended each connection after 60 minutes,
/// whatever was under way; its present pages name no such limit.
#[derive(Debug, Clone, Copy)]
pub struct SessionAge {
    /// From this age on a session is replaced as soon as that interrupts no call.
    pub renew_after: Duration,
    /// At this age it is replaced even if calls are under way.
    pub max: Duration,
}

impl Default for SessionAge {
    fn default() -> Self {
        Self { renew_after: Duration::from_secs(50 * 60), max: Duration::from_secs(57 * 60) }
    }
}

/// See the module header.
pub struct RemoteConfig {
    /// Connects; called again after each loss.
    pub dial: Dial,
    /// What every path is relative to: empty for the login directory.
    pub base: Vec<u8>,
    /// The directory that the mount shows as its root. It and the directories beside and above it are the server's own, as
    /// `code` and `files` of the platform, and may be symbolic links.
    pub root: RemotePath,
    /// How long a call may take, and how long an answer may stay out before the session counts as dead.
    pub timeout: Duration,
    /// Wakes a server that may be asleep.
    pub wake: Option<Wake>,
    pub session_age: SessionAge,
    pub wake_detect: Box<dyn WakeDetect>,
    /// Part of the names of temporary files on the server: the same for every mount of this machine and source, and no
    /// other's.
    pub temp_prefix: String,
}

impl RemoteConfig {
    /// For a server that never sleeps, with the platform's limits on a connection, on this machine.
    pub fn new(dial: Dial, base: Vec<u8>, timeout: Duration) -> Self {
        let wake_detect = Box::<Machine>::default();
        let session_age = SessionAge::default();
        let root = RemotePath::root();
        Self { dial, base, root, timeout, wake: None, session_age, wake_detect, temp_prefix: "0".to_owned() }
    }
}
