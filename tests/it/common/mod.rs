//! What the tests share: servers to talk to, mounts that go away, waits that end.

#[allow(dead_code)] // tests/model.rs
pub mod full_disk;
pub mod inner;
pub mod kernel;
pub mod meddler;
pub mod mounted;
#[allow(dead_code)] // tests/model.rs
pub mod mute;
pub mod program;
#[allow(dead_code)] // tests/model.rs
pub mod scripted;
pub mod server;
pub mod sim_remote;
pub mod sshd;
#[allow(dead_code)] // tests/model.rs
pub mod turns;

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);
/// Longest life of a test that mounts.
const WATCHDOG: Duration = Duration::from_secs(240);

/// Waits until `what` holds; a test that waits in vain says for what.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(SOON, what, holds);
}

/// The same with another limit.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the whole run if the test that holds it does not end: a hanging mount would hang everything, `kill` included.
pub struct Watch(#[allow(dead_code)] mpsc::Sender<()>);

pub fn watch() -> Watch {
    let (sender, receiver) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not by a macro: what a macro prints is kept for the end of the test.
            let _ = writeln!(std::io::stderr(), "watchdog: {name} did not end within {WATCHDOG:?}");
            std::process::exit(101);
        }
    });
    Watch(sender)
}

/// Says loudly what is not being tested, and why.
pub fn skip(what: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED: {name}: {what}");
}

/// Whether the test that calls this may go on, because root runs it. Otherwise it says so by name, and `scripts/as-user` runs it
/// again as root.
#[allow(dead_code)] // tests/model.rs
pub fn needs_root(why: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let Some(list) = std::env::var_os("PANTHEONFS_NEEDS_ROOT") else {
        skip(&format!("needs root: {why} (sudo scripts/test)"));
        return false;
    };
    let mut list = std::fs::File::options().append(true).open(list).expect("the list of scripts/as-user");
    list.write_all(format!("{name}\n").as_bytes()).expect("noted");
    eprintln!("AS ROOT, LATER: {name}: {why}");
    false
}

/// Whether mounting can be tested here.
pub fn has_fuse() -> bool {
    if !std::path::Path::new("/dev/fuse").exists() {
        skip("/dev/fuse is missing: the kernel tests do not run here");
        return false;
    }
    true
}

/// Whether a program is in the path.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if !found {
        skip(&format!("{name} is not installed (scripts/setup installs it)"));
    }
    found
}
