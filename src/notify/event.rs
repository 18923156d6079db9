//! What can happen to a mount that its user may want to know at once.

use std::time::Duration;

use crate::control::ConnectionMode;

/// See the module header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another one switched the connection mode.
    Switched(ConnectionMode),
    /// Another one committed, or deployed: the hash of what runs now.
    Committed(String),
    /// A change became a conflict; a line about it.
    Conflict(String),
    /// A change is not taken by the server; a line about it.
    Stranded(String),
    /// There is no link for so long, and so many files are not sent.
    LinkAway(Duration, usize),
    /// Work of this machine is uncommitted: the number of changes, and the age of the oldest.
    Uncommitted(usize, Duration),
    /// The login ends soon; a sentence about it.
    Login(String),
}

/// A kind of event: events of a kind are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Switched,
    Committed,
    Conflict,
    Stranded,
    LinkAway,
    Uncommitted,
    Login,
}

/// The number of kinds.
pub(super) const KINDS: usize = 7;

impl Event {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Switched(_) => Kind::Switched,
            Self::Committed(_) => Kind::Committed,
            Self::Conflict(_) => Kind::Conflict,
            Self::Stranded(_) => Kind::Stranded,
            Self::LinkAway(..) => Kind::LinkAway,
            Self::Uncommitted(..) => Kind::Uncommitted,
            Self::Login(_) => Kind::Login,
        }
    }
}

/// Who made a commit, and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    pub author: String,
    pub email: String,
    pub message: String,
}
