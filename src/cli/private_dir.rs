//! Directories for state and caches, which only the user may read.

use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(no_symlink)?;
    is_own(&opened)?;
    Ok(opened)
}

/// The content of a file that belongs to us, below a directory that does, and when it was written. No symlink is followed on
/// the way.
pub(super) fn read_own(dir: &Path, below: &Path) -> std::io::Result<(Vec<u8>, SystemTime)> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut at = open_own(dir)?;
    let mut names = below.components().peekable();
    while let Some(name) = names.next() {
        let std::path::Component::Normal(name) = name else {
            return Err(std::io::Error::other("its path leads out of the directory"));
        };
        let more = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, name, flags | more, Mode::empty()).map_err(no_symlink)?;
    }
    let mut file = File::from(at);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    is_own(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, meta.modified()?))
}

fn no_symlink(error: rustix::io::Errno) -> std::io::Error {
    match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => std::io::Error::other("it is a symlink"),
        other => other.into(),
    }
}

fn is_own(opened: impl std::os::fd::AsFd) -> std::io::Result<()> {
    if rustix::fs::fstat(opened)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it belongs to another user"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn only_own_files_are_read_and_no_symlink_is_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (root, secret) = (dir.path().join("state"), dir.path().join("secret"));
        fs::create_dir_all(root.join("conflicts/code")).expect("made");
        fs::write(root.join("conflicts/code/a"), "mine").expect("written");
        fs::write(&secret, "secret").expect("written");
        let read = |below: &str| read_own(&root, Path::new(below)).map(|(bytes, _)| bytes);
        assert_eq!(read("conflicts/code/a").expect("own"), b"mine");
        symlink(&secret, root.join("conflicts/code/link")).expect("linked");
        symlink(dir.path(), root.join("conflicts/elsewhere")).expect("linked");
        symlink(&root, dir.path().join("state-link")).expect("linked");
        for below in ["conflicts/code/link", "conflicts/elsewhere/secret", "../secret", "conflicts/code"] {
            assert!(read(below).is_err(), "{below}");
        }
        assert!(read_own(&dir.path().join("state-link"), Path::new("conflicts/code/a")).is_err());
        if rustix::process::geteuid().is_root() {
            chown(root.join("conflicts/code/a"), Some(65534), None).expect("given away");
            assert!(read("conflicts/code/a").is_err(), "another user's file");
        }
    }
}
