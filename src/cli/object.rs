//! Files and links with their git mode, as copies of uncommitted work have them.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Content and git mode of a file; target and git mode of a link.
pub(super) type Object = (Vec<u8>, u32);

/// Git mode of a link.
pub(super) const LINK_MODE: u32 = 0o120_000;

/// The file or link at a path; `None` if there is none, or it cannot be read.
pub(super) fn object_at(path: &Path) -> Option<Object> {
    let meta = path.symlink_metadata().ok()?;
    if meta.is_symlink() {
        return Some((fs::read_link(path).ok()?.as_os_str().as_bytes().to_vec(), LINK_MODE));
    }
    let mode = if meta.permissions().mode() & 0o100 != 0 { 0o100_755 } else { 0o100_644 };
    Some((fs::read(path).ok()?, mode))
}

/// Writes a file or link over what is at the path.
pub(super) fn write_object(target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if mode == LINK_MODE {
        if target.symlink_metadata().is_ok() {
            fs::remove_file(target)?;
        }
        return symlink(OsStr::from_bytes(content), target);
    }
    let mut file = File::create(target)?;
    file.write_all(content)?;
    if mode & 0o111 != 0 {
        file.set_permissions(Permissions::from_mode(0o755))?;
    }
    file.sync_all()
}
