//! The filesystem of [`Inner`](super::inner::Inner) seen through the kernel: the same calls by path, as system calls.

// Only `tests/model.rs` needs it.
#![allow(dead_code)]

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pantheonfs::fs::{Fs, FsError, FsResult, HandleId, OpenMode, SetAttr};
use pantheonfs::fuse::{self, MountConfig, Mounted};

/// A mount inside this process.
pub struct Kernel {
    dir: PathBuf,
    mounted: Option<Mounted>,
    files: Mutex<HashMap<u64, File>>,
    next: AtomicU64,
}

impl Kernel {
    pub fn mount(fs: &Fs, dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("made");
        let config = MountConfig {
            fs_name: "model".into(),
            allow_other: false,
            default_permissions: false,
            read_only: false,
            noexec: false,
            noatime: false,
            program: None,
        };
        let mounted = fuse::mount(fs.clone(), dir, &config).expect("mounted");
        let (files, next) = (Mutex::default(), AtomicU64::new(1));
        Self { dir: dir.to_owned(), mounted: Some(mounted), files, next }
    }

    /// Where it is mounted.
    #[allow(dead_code)] // tests/it/power.rs
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn result<T>(op: &'static str, path: &str, result: io::Result<T>) -> FsResult<T> {
        result.map_err(|error| match error.raw_os_error() {
            // The mount says that it is no regular file; the kernel says that it would have to follow it.
            Some(libc::ELOOP) => FsError::new(op, path, io::Error::from_raw_os_error(libc::EPERM)),
            _ => FsError::new(op, path, error),
        })
    }

    pub fn open(&self, path: &str, mode: OpenMode, create: bool) -> FsResult<HandleId> {
        let mut options = OpenOptions::new();
        options.read(mode.read).write(mode.write).truncate(mode.truncate).create(create);
        options.custom_flags(libc::O_NOFOLLOW).mode(0o644);
        let file = Self::result("open", path, options.open(self.at(path)))?;
        if !mode.write && file.metadata().is_ok_and(|meta| meta.is_dir()) {
            return Self::result("open", path, Err(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.files.lock().insert(id, file);
        Ok(HandleId(id))
    }

    pub fn close(&self, handle: HandleId) -> FsResult<()> {
        drop(self.files.lock().remove(&handle.0));
        Ok(())
    }

    pub fn write_at(&self, handle: HandleId, offset: u64, bytes: &[u8]) -> FsResult<()> {
        let files = self.files.lock();
        Self::result("write", "", files[&handle.0].write_all_at(bytes, offset))
    }

    pub fn read_at(&self, handle: HandleId) -> FsResult<Vec<u8>> {
        let files = self.files.lock();
        let file = &files[&handle.0];
        let size = Self::result("stat", "", file.metadata())?.len();
        let mut bytes = vec![0; size as usize];
        Self::result("read", "", file.read_exact_at(&mut bytes, 0)).map(|()| bytes)
    }

    pub fn mkdir(&self, path: &str) -> FsResult<()> {
        Self::result("mkdir", path, fs::create_dir(self.at(path)))
    }

    pub fn rmdir(&self, path: &str) -> FsResult<()> {
        Self::result("rmdir", path, fs::remove_dir(self.at(path)))
    }

    pub fn unlink(&self, path: &str) -> FsResult<()> {
        Self::result("unlink", path, fs::remove_file(self.at(path)))
    }

    pub fn rename(&self, from: &str, to: &str) -> FsResult<()> {
        Self::result("rename", from, fs::rename(self.at(from), self.at(to)))
    }

    pub fn symlink(&self, path: &str, text: &str) -> FsResult<()> {
        Self::result("symlink", path, std::os::unix::fs::symlink(text, self.at(path)))
    }

    pub fn readlink(&self, path: &str) -> FsResult<Vec<u8>> {
        let text = Self::result("readlink", path, fs::read_link(self.at(path)))?;
        Ok(text.into_os_string().into_encoded_bytes())
    }

    pub fn setattr(&self, path: &str, change: SetAttr) -> FsResult<()> {
        if let Some(size) = change.size {
            let mut options = OpenOptions::new();
            let file = Self::result("truncate", path, options.write(true).open(self.at(path)))?;
            Self::result("truncate", path, file.set_len(size))?;
        }
        if let Some(perm) = change.perm {
            let perm = fs::Permissions::from_mode(u32::from(perm));
            Self::result("chmod", path, fs::set_permissions(self.at(path), perm))?;
        }
        Ok(())
    }

    pub fn names(&self, path: &str) -> FsResult<Vec<String>> {
        let entries = Self::result("readdir", path, fs::read_dir(self.at(path)))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != ".pantheon").collect())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.files.lock().clear();
        if let Some(mut mounted) = self.mounted.take()
            && mounted.unmount().is_err()
        {
            // In use by somebody who looks around; it goes when they have seen enough.
            let detached = std::process::Command::new("fusermount3").arg("-uz").arg(&self.dir).status();
            drop(detached);
        }
    }
}
