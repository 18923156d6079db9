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
    /// A machine token given for this run.
    pub token: Option<Zeroizing<String>>,
    /// Terminus' directory with `session` and `tokens/`.
    pub cache_dir: Option<PathBuf>,
    /// Email of the account whose saved token to use where there are several.
    pub user: Option<String>,
    /// `terminus` (the default) or `v0`: which of the platform's two APIs.
    pub api: Option<String>,
}
