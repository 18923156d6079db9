//! One mount per environment and user.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::exit::{CliResult, Exit, Failure};

/// How long a previous mount of the same environment is given to end.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often a lock is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a mount holds the lock of the state directory.
pub(super) fn is_held(state_dir: &Path) -> bool {
    let Ok(file) = File::open(state_dir.join("lock")) else { return false };
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
    locked == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Locks the state directory: two mounts of one environment would not know of each other's unsent changes.
pub(super) fn lock(state_dir: &Path, source: &str) -> CliResult<File> {
    let path = state_dir.join("lock");
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, path.display().to_string(), e);
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = format!(
                    "{source} is mounted already; use that mount, or unmount it first (`pantheonfs list` names it)"
                );
                return Err(Failure::new(Exit::MountPoint, text));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}
