//! A full local disk for a single file that this process has open.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// While it lives, whatever is written to the file fails with ENOSPC; and with EINVAL where the file would have to grow
/// first, because a device has no length.
pub struct FullDisk {
    descriptor: RawFd,
    file: OwnedFd,
}

/// The descriptor of this process that leads to a file.
fn descriptor_of(path: &Path) -> Option<RawFd> {
    let open = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let leads_there = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|to| to == path);
    open.into_iter().find(leads_there).and_then(|entry| entry.file_name().to_str()?.parse().ok())
}

fn duplicate(from: RawFd, to: RawFd) {
    // SAFETY: both numbers are open descriptors of this process.
    assert_eq!(unsafe { libc::dup2(from, to) }, to, "duplicated");
}

impl FullDisk {
    pub fn fill(path: &Path) -> Self {
        let path = path.canonicalize().expect("there");
        let descriptor = descriptor_of(&path).expect("it is open");
        // SAFETY: the number is an open descriptor of this process.
        let copy = unsafe { libc::dup(descriptor) };
        assert!(copy >= 0, "duplicated");
        // SAFETY: nobody else knows the number.
        let file = unsafe { OwnedFd::from_raw_fd(copy) };
        let full = File::options().write(true).open("/dev/full").expect("opened");
        duplicate(full.as_raw_fd(), descriptor);
        Self { descriptor, file }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        duplicate(self.file.as_raw_fd(), self.descriptor);
    }
}
