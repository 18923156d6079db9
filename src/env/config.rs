//! What a mount knows about its environment at the start.

use std::path::PathBuf;

use crate::control::{ConnectionMode, Control};

/// Which environment, and where its state comes from.
pub struct EnvConfig {
    /// The environment's name; `None` for a plain SFTP server.
    pub name: Option<String>,
    /// The API and the site's id there.
    pub api: Option<(Control, String)>,
    /// The mode until the API has answered, or for good without an API. `None`: the remembered mode, else SFTP mode.
    pub mode: Option<ConnectionMode>,
    /// The file that remembers the last answer of the API.
    pub memory: Option<PathBuf>,
    /// `-o ro`.
    pub read_only: bool,
    /// Name and email for commits, from git's configuration; `None`: those of the account.
    pub author: Option<(String, String)>,
}
