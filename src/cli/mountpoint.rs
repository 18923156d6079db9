//! Mount points: which mounts are of pantheonfs, whether a directory can be mounted on, and unmounting.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use super::exit::{CliResult, Exit, Failure};

/// The type under which the kernel lists mounts of pantheonfs.
const TYPE: &[u8] = b"fuse.pantheonfs";
/// A mount of pantheonfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OurMount {
    pub(super) mountpoint: PathBuf,
    pub(super) source: OsString,
    /// The user who mounted it, as the kernel knows.
    pub(super) owner: Option<u32>,
}

/// All mounts of pantheonfs in this mount namespace.
pub(super) fn ours() -> Vec<OurMount> {
    parse_mountinfo(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// The number of a mount's device, as mountinfo writes it.
pub(super) fn device(mountpoint: &Path) -> Option<String> {
    let device = rustix::fs::stat(mountpoint).ok()?.st_dev;
    Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Whether a device is mounted anywhere in this mount namespace.
pub(super) fn is_attached(device: &str) -> bool {
    let Ok(text) = fs::read("/proc/self/mountinfo") else { return true };
    text.split(|&b| b == b'\n').any(|line| line.split(|&b| b == b' ').nth(2) == Some(device.as_bytes()))
}

fn parse_mountinfo(text: &[u8]) -> Vec<OurMount> {
    let mut out = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == b"-") else { continue };
        let (Some(place), Some(kind), Some(source)) = (fields.get(4), fields.get(dash + 1), fields.get(dash + 2))
        else {
            continue;
        };
        if *kind == TYPE {
            out.push(OurMount {
                mountpoint: OsString::from_vec(unescape(place)).into(),
                source: OsString::from_vec(unescape(source)),
                owner: fields.get(dash + 3).and_then(|options| user_id(options)),
            });
        }
    }
    out
}

fn user_id(options: &[u8]) -> Option<u32> {
    std::str::from_utf8(options).ok()?.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// The absolute path without symlinks. If it cannot be resolved, the last name stays as it is: a mount whose process is
/// gone cannot be examined.
pub(super) fn settle(path: &Path) -> io::Result<PathBuf> {
    if let Ok(path) = fs::canonicalize(path) {
        return Ok(path);
    }
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Ok(path),
    }
}

/// A failure about a mount point.
pub(super) fn failure(path: &Path, text: &str) -> Failure {
    Failure::new(Exit::MountPoint, format!("{}: {text}", path.display()))
}

/// Checks that the directory can be mounted on, and unmounts a mount on it whose process is gone.
pub(super) fn prepare(path: &Path, nonempty: bool) -> CliResult<PathBuf> {
    let mut found = fs::metadata(path);
    if matches!(&found, Err(error) if error.raw_os_error() == Some(libc::ENOTCONN)) {
        log::warn!("{}: unmounting a mount whose process is gone", path.display());
        let place = settle(path).map_err(|e| Failure::caused(Exit::MountPoint, path.display().to_string(), e))?;
        detach(&place, true).map_err(|e| {
            let text = format!("{}: the mount of a process that is gone cannot be unmounted", path.display());
            Failure::caused(Exit::MountPoint, text, e)
        })?;
        found = fs::metadata(path);
    }
    is_directory(path, found)?;
    let place = settle(path).map_err(|e| Failure::caused(Exit::MountPoint, path.display().to_string(), e))?;
    if let Some(mount) = ours().iter().find(|mount| mount.mountpoint == place) {
        let text = format!("{} is mounted here already; unmount it first", mount.source.to_string_lossy());
        return Err(failure(path, &text));
    }
    let empty = fs::read_dir(&place).map(|mut entries| entries.next().is_none());
    match empty {
        Ok(true) => Ok(place),
        Ok(false) if nonempty => Ok(place),
        Ok(false) => Err(failure(path, "not empty; use another directory, or -o nonempty to hide its content")),
        Err(error) => Err(Failure::caused(Exit::MountPoint, path.display().to_string(), error)),
    }
}

fn is_directory(path: &Path, found: io::Result<fs::Metadata>) -> CliResult<()> {
    match found {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(failure(path, "not a directory; mount on an empty directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(failure(path, &format!("no such directory; create it: mkdir -p '{}'", path.display())))
        }
        Err(error) => Err(Failure::caused(Exit::MountPoint, path.display().to_string(), error)),
    }
}

/// Unmounts: by umount2(2) as root, by fusermount3 otherwise. `lazy`: even if the mount is in use.
pub(super) fn detach(place: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(place, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => fusermount(place, lazy),
        Err(error) => Err(error.into()),
    }
}

fn fusermount(place: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(place).current_dir("/");
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { Err(io::Error::other(said)) }
}

/// The mount that contains `path`.
pub(super) fn around(path: &Path) -> CliResult<OurMount> {
    let place = settle(path).map_err(|e| Failure::caused(Exit::MountPoint, path.display().to_string(), e))?;
    let holding = ours().into_iter().filter(|mount| place.starts_with(&mount.mountpoint));
    holding
        .max_by_key(|mount| mount.mountpoint.as_os_str().as_bytes().len())
        .ok_or_else(|| failure(path, "not in a mount of pantheonfs; name a path in one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_found_with_odd_names() {
        let text = b"36 35 0:48 / /mnt/my\\040site rw,nosuid shared:1 - fuse.pantheonfs mysite.dev rw,user_id=0\n\
                     37 35 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].mountpoint, Path::new("/mnt/my site"));
        assert_eq!(mounts[0].owner, Some(0));
        assert_eq!(unescape(b"a\\134b\\9"), b"a\\b\\9");
    }

    #[test]
    fn a_place_that_cannot_be_mounted_on_says_why() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let message = |path: &Path| prepare(path, false).expect_err("unfit").explain();
        assert!(message(&dir.path().join("none")).contains("mkdir"));
        fs::write(dir.path().join("file"), "x").expect("written");
        assert!(message(&dir.path().join("file")).contains("not a directory"));
        assert!(message(dir.path()).contains("not empty"));
        assert!(prepare(dir.path(), true).is_ok());
    }
}
