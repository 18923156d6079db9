//! What a second name of a file on the server is for: see `guard`.

use crate::attr::Version;
use crate::path::RemotePath;

/// What is expected at a path that is about to be replaced or removed, and where its second name can be.
#[derive(Debug, Clone)]
pub struct Guard {
    pub base: Version,
    /// CRC-32 of its content, where the version alone does not tell one content from the next (written within the last
    /// seconds). It costs a reading of the file.
    pub sum: Option<u32>,
    /// A directory on the same disk of the server that is not served.
    pub temp_dir: RemotePath,
}

/// What the second name of a file is for.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) path: RemotePath,
    pub(super) guard: Guard,
    pub(super) done: Done,
}

/// What the guarded request leaves at the path.
#[derive(Debug, Clone)]
pub(super) enum Done {
    Removed,
    /// This version; `None`: its time is the server's.
    Stored(Option<Version>),
    /// What was at another path.
    Moved(RemotePath),
}
