//! Making the mount: by mount(2) where we may, through fusermount3 otherwise.
//!
//! fuser could do both, but as root it mounts under the bare type `fuse`, which does not tell our mounts from others
//! (`umount -t`, `findmnt`, `pantheonfs status`).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use fuser::{BackgroundSession, Config, Filesystem, Session};
use rustix::mount::{MountFlags, mount};

use super::config::MountConfig;

const TYPE: &str = "fuse.pantheonfs";

/// Mounts and starts to serve.
pub(super) fn attach(
    filesystem: impl Filesystem,
    mountpoint: &Path,
    config: &MountConfig,
    options: Config,
) -> io::Result<BackgroundSession> {
    match by_mount(mountpoint, config)? {
        Some(fd) => Session::from_fd(filesystem, fd, options.acl, options)?.spawn(),
        None => fuser::spawn_mount(filesystem, mountpoint, &options),
    }
}

/// `None`: only a helper with more rights may mount.
fn by_mount(mountpoint: &Path, config: &MountConfig) -> io::Result<Option<OwnedFd>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!("fd={},rootmode=40000,user_id={},group_id={}", device.as_raw_fd(), me.0, me.1);
    for (wanted, word) in [(config.allow_other, ",allow_other"), (config.default_permissions, ",default_permissions")] {
        data.push_str(if wanted { word } else { "" });
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, config.read_only);
    flags.set(MountFlags::NOEXEC, config.noexec);
    flags.set(MountFlags::NOATIME, config.noatime);
    let data = CString::new(data)?;
    match mount(config.fs_name.as_str(), mountpoint, TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(Some(device.into())),
        // Root without the right to mount (a container): fusermount3 says why.
        Err(rustix::io::Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
