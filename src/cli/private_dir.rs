//! Directories for state and caches, which only the user may read.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::exit::{CliResult, Exit, Failure};

/// Makes a directory below `root`, and `root` itself; only their owner may read them.
pub(super) fn private_dir(root: &Path, below: &[&str]) -> CliResult<PathBuf> {
    let failed = |dir: &Path, e: std::io::Error| {
        let text =
            format!("{}: cannot be used: {e}; move it away, or set XDG_STATE_HOME and XDG_CACHE_HOME", dir.display());
        Failure::caused(Exit::Failed, text, e)
    };
    let mut dir = root.to_owned();
    make_private(&dir).map_err(|e| failed(&dir, e))?;
    for name in below {
        dir.push(name);
        make_private(&dir).map_err(|e| failed(&dir, e))?;
    }
    Ok(dir)
}

/// Makes one directory private. A directory of another user, or a symlink, is refused, because what is read from it is
/// sent to the server. Checked through a descriptor, so that another process cannot exchange it in between.
pub(super) fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    Ok(rustix::fs::fchmod(open_own(dir)?, rustix::fs::Mode::RWXU)?)
}

/// Opens a directory that belongs to the user and is no symlink.
pub(super) fn open_own(dir: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => std::io::Error::other("it is a symlink"),
        other => other.into(),
    })?;
    if rustix::fs::fstat(&opened)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it belongs to another user"));
    }
    Ok(opened)
}
