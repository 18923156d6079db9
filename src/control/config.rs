//! The configuration of a client of the API.

use std::path::PathBuf;

use zeroize::Zeroizing;

/// Where the API is and how to log in. Not `Debug`, because it holds the token.
#[derive(Clone, Default)]
pub struct ControlConfig {
    /// `https`, or `http` for a simulator on this machine.
    pub protocol: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// A token given for this run.
    pub token: Option<Zeroizing<String>>,
    /// Terminus' directory with `session`.
    pub cache_dir: Option<PathBuf>,
    /// Terminus' directory with saved tokens; `None`: `tokens` in `cache_dir`.
    pub tokens_dir: Option<PathBuf>,
    /// A directory for what the processes of one user tell each other about the API.
    pub shared_dir: Option<PathBuf>,
    /// The certificates (PEM) of those who may vouch for the API; `None`: those that Mozilla trusts.
    pub certificates: Option<PathBuf>,
    /// Email of the account whose saved token to use where there are several.
    pub user: Option<String>,
    /// `terminus` (the default) or `v0`: which of the platform's two APIs.
    pub api: Option<String>,
}
