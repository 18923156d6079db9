//! What the simulator is told at its start.

use std::path::PathBuf;
use std::time::Duration;

/// Names of the environments of the simulated site.
pub const ENVIRONMENTS: [&str; 4] = ["dev", "test", "live", "feature-x"];

/// What to simulate.
#[derive(Debug, Clone, Default)]
pub struct SimConfig {
    /// The directory whose files become the site's code; copied, never changed. `None`: a small WordPress-like site.
    pub code: Option<PathBuf>,
    /// Round trip of the link.
    pub rtt: Duration,
    /// Bandwidth of SSH per direction, Mbit/s; 0: unlimited.
    pub mbit: u64,
    /// Quirks to start with, as pairs of name and value.
    pub quirks: Vec<(String, String)>,
    /// Port of the SSH server; 0: any free one.
    pub port: u16,
}
