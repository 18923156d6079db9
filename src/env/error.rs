//! Why a switch of the mode or a commit did not happen.

use crate::control::{ControlError, Diffstat};
use crate::gate::ReadOnlyReason;

/// Why a switch of the mode did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SwitchError {
    #[error("there is no API for this mount: the mode can only be changed in the dashboard")]
    NoApi,
    #[error("the mode of '{0}' cannot be switched: its code is always read-only")]
    NotSwitchable(String),
    #[error("{} uncommitted change(s) on the server would be deleted for good ({}); commit them first, or write 'git --discard'", .0.len(), names(.0))]
    WouldDiscard(Diffstat),
    #[error(transparent)]
    Api(#[from] ControlError),
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    #[error("there is no API for this mount: commit in the dashboard, or with git")]
    NoApi,
    #[error("the message is empty")]
    EmptyMessage,
    #[error("the platform lists no uncommitted change; there is nothing to commit")]
    Nothing,
    #[error("{0}")]
    ReadOnly(ReadOnlyReason),
    #[error(
        "the platform reports a commit, but {seconds} s later neither the environment, which runs {runs}, nor its history shows it; \
         check the dashboard before you commit again"
    )]
    NotThere { runs: String, seconds: u64 },
    #[error(transparent)]
    Api(#[from] ControlError),
}

fn names(diffstat: &Diffstat) -> String {
    let first: Vec<&str> = diffstat.0.iter().take(5).map(|file| file.path.as_str()).collect();
    let more = if diffstat.len() > first.len() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}
