//! The binding directory of a session: the part of the disk that its paths can reach.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use russh_sftp::protocol::StatusCode;
use rustix::fs::{Mode, OFlags};

use super::sftp_reply::{Reply, code};

/// Where a path leads. The kernel finds it at once; `fs::canonicalize` asks it about each directory on the way, and every
/// OPENDIR needs it.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let object = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))
}

/// The part of the disk that one session reaches.
pub(super) struct Binding {
    /// The directory on disk.
    home: PathBuf,
    /// What the session calls it.
    name: String,
}

impl Binding {
    pub(super) fn new(home: PathBuf, name: String) -> Self {
        Self { home, name }
    }

    /// The path on disk. Absolute paths exist below the binding only, except `/code`, which the platform has, too.
    fn place(&self, path: &str) -> Reply<PathBuf> {
        let relative = match path.strip_prefix(&self.name) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ if path == "/code" || path.starts_with("/code/") => &path[1..],
            _ if path.starts_with('/') => return Err(code(StatusCode::NoSuchFile)),
            _ => path,
        };
        let mut out = self.home.clone();
        let mut depth = 0_usize;
        for part in Path::new(relative).components() {
            match part {
                Component::Normal(name) => {
                    out.push(name);
                    depth += 1;
                }
                Component::ParentDir => {
                    depth = depth.checked_sub(1).ok_or_else(|| code(StatusCode::PermissionDenied))?;
                    out.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Ok(out)
    }

    /// The path on disk, for requests that follow a link at the end of the path.
    pub(super) fn followed(&self, path: &str) -> Reply<PathBuf> {
        let path = self.place(path)?;
        self.contained(&path)?;
        Ok(path)
    }

    /// The path on disk, for requests about the object itself, even if it is a link that leads out of the binding.
    pub(super) fn path(&self, path: &str) -> Reply<PathBuf> {
        let path = self.place(path)?;
        if path != self.home {
            path.parent().map_or(Ok(()), |parent| self.contained(parent))?;
        }
        Ok(path)
    }

    /// Refuses a path whose links lead out of the binding.
    fn contained(&self, path: &Path) -> Reply<()> {
        let mut at = path;
        loop {
            match real_path(at) {
                Ok(real) if real.starts_with(&self.home) => return Ok(()),
                Ok(_) => return Err(code(StatusCode::PermissionDenied)),
                Err(_) => at = at.parent().ok_or_else(|| code(StatusCode::NoSuchFile))?,
            }
        }
    }

    /// The path of an object on disk, as the session sees it.
    pub(super) fn shown(&self, real: &Path) -> Reply<String> {
        let below = real.strip_prefix(&self.home).map_err(|_| code(StatusCode::NoSuchFile))?;
        let shown = Path::new(&self.name).join(below);
        Ok(shown.to_string_lossy().trim_end_matches('/').to_owned())
    }

    /// Whether a path on disk is below one of the binding's directories.
    pub(super) fn is_below(&self, dir: &str, path: &Path) -> bool {
        path.starts_with(self.home.join(dir))
    }
}
