//! What is known of the deployed commit, for `provenance`.

use std::sync::mpsc;
use std::time::SystemTime;

use parking_lot::Mutex;

/// The state of the thread that follows the deployed commit.
#[derive(Default)]
pub(super) struct Following {
    pub(super) wake: Mutex<Option<mpsc::Sender<()>>>,
    pub(super) learned: Mutex<Option<Learned>>,
    /// Why nothing can be proved now, or the result of asking the server.
    pub(super) trouble: Mutex<Option<String>>,
    pub(super) attested: Mutex<Option<Result<u64, String>>>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Learned {
    pub(super) commit: String,
    /// Since when the code is known to be frozen.
    pub(super) frozen: Option<SystemTime>,
}
