//! What the tests share: servers to talk to, mounts that go away, waits that end.

pub mod server;

use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `what` holds; a test that waits in vain says for what.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
