//! What can come of carrying out one operation.

use std::time::Duration;

use super::sender::Sender;
use crate::gate::ReadOnlyReason;
use crate::remote::RemoteError;
use crate::write::{Expected, Op};

/// Pause before an operation is tried again that the link, or a read beside it, kept from being tried.
pub(super) const LINK_PAUSE: Duration = Duration::from_millis(100);
/// What is said of a change that neither size nor time tells.
pub(super) const SAME_SECOND: &str = "another writer changed it on the server within the same second";

/// What came of an operation.
pub(super) enum Outcome {
    /// This is at its path now.
    Done(Expected),
    /// It could not be tried, or not now.
    Later(Duration, String),
    /// Another writer changed what it builds upon.
    Conflict(String),
    /// The environment takes no changes any more.
    Closed(ReadOnlyReason),
    /// The server will not do it.
    Refused(RemoteError),
}

impl Sender {
    /// What becomes of an operation whose object is missing: nothing yet, if the whole environment is.
    pub(super) fn unless_away(&self, op: &Op, outcome: Outcome) -> Outcome {
        match self.root.on_missing(&self.local, &self.remote, op.area) {
            Ok(()) => outcome,
            Err(why) => Outcome::Later(LINK_PAUSE, why),
        }
    }
}
