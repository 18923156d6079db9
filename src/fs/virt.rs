//! `.pantheon`: virtual files, rendered when they are opened, and the read-only view of kept copies.
//!
//! The number of a virtual object carries [`VIRTUAL_BIT`]. `files` and `logs` under `.pantheon` are real directories of
//! the server: reachable by name, never listed, so that no walk strays into 100,000 uploads.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::handle::Handle;
use super::{Cause, Entry, Fs, FsError, FsResult, Layout, OpenMode, Opened, Wait};
use crate::attr::{Attr, FileKind, secs_from_time};
use crate::control::ConnectionMode;
use crate::env::{CommitError, SwitchError};
use crate::inode::{Ino, LOGS, ROOT, UPLOADS, VIRTUAL_BIT};
use crate::path::{Name, RemotePath};
use crate::vfiles::{self, Command, MAX_COMMAND_BYTES};
use crate::write::RejectKind;

pub(super) const DIR_NAME: &[u8] = b".pantheon";
pub(super) const UPLOADS_PATH: &str = ".pantheon/files";
const LOGS_PATH: &str = ".pantheon/logs";

const DIR: Ino = Ino(VIRTUAL_BIT | 1);
const HEAD: Ino = Ino(VIRTUAL_BIT | 4);
const DIFFS: Ino = Ino(VIRTUAL_BIT | 5);
const FIRST_FILE: u64 = 16;
const SHELVES: [(Ino, RejectKind); 2] =
    [(Ino(VIRTUAL_BIT | 2), RejectKind::Conflict), (Ino(VIRTUAL_BIT | 3), RejectKind::Stranded)];
/// Numbers of kept copies have this bit too.
const KEPT_BIT: u64 = 1 << 62;
/// And those of committed objects this one.
const HEAD_BIT: u64 = 1 << 61;
/// And those of differences of single files this one.
const DIFF_BIT: u64 = 1 << 60;

/// How long the kernel may believe that `.pantheon` exists.
const DIR_VALID: Duration = Duration::from_secs(60);

/// What a virtual number stands for.
enum Object {
    Dir,
    File(vfiles::File),
    /// A shelf, or something on it: the path on the local disk.
    Kept(PathBuf),
    /// `head`, or something committed: the path below the code directory.
    Head(RemotePath),
    /// `diffs`, or what differs at a path below the code directory.
    Diff(RemotePath),
}

/// An open virtual file.
pub(super) enum VirtualHandle {
    Rendered { file: vfiles::File, text: Vec<u8>, input: Mutex<Vec<u8>> },
    Kept(File),
    Committed(Vec<u8>),
}

pub(super) fn root_entry() -> Option<(Name, Ino)> {
    Some((Name::new(DIR_NAME).ok()?, DIR))
}

/// For `..` in listings.
pub(super) fn parent(ino: Ino) -> Ino {
    if ino == DIR { ROOT } else { DIR }
}

/// Where the mount shows a root of the server.
pub(super) fn mount_path(root: Ino) -> RemotePath {
    let path = match root {
        UPLOADS => UPLOADS_PATH,
        LOGS => LOGS_PATH,
        _ => "",
    };
    RemotePath::parse(path).unwrap_or_else(|_| RemotePath::root())
}

fn file_ino(file: vfiles::File) -> Ino {
    let index = vfiles::FILES.iter().position(|f| *f == file).unwrap_or_default();
    Ino(VIRTUAL_BIT | (FIRST_FILE + index as u64))
}

/// A number with one of the two bits, derived from what it stands for.
fn hashed_ino(bit: u64, of: impl Hash) -> Ino {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    Ino(VIRTUAL_BIT | bit | (hasher.finish() >> 4))
}

fn gone(op: &'static str) -> FsError {
    FsError::new(op, ".pantheon", Cause::NotFound)
}

impl Fs {
    fn object_of(&self, ino: Ino) -> Option<Object> {
        if ino == DIR {
            return Some(Object::Dir);
        }
        if let Some((_, shelf)) = SHELVES.iter().find(|(number, _)| *number == ino) {
            return Some(Object::Kept(self.0.rescue.dir(*shelf)));
        }
        if ino == HEAD {
            return self.has_head().then(|| Object::Head(RemotePath::root()));
        }
        if ino == DIFFS {
            return self.has_head().then(|| Object::Diff(RemotePath::root()));
        }
        if ino.0 & (KEPT_BIT | HEAD_BIT | DIFF_BIT) == DIFF_BIT {
            return self.0.diffs.lock().get(&ino).cloned().map(Object::Diff);
        }
        if ino.0 & HEAD_BIT != 0 {
            return self.0.heads.lock().get(&ino).cloned().map(Object::Head);
        }
        if ino.0 & KEPT_BIT != 0 {
            return self.0.kept.lock().get(&ino).cloned().map(Object::Kept);
        }
        vfiles::FILES.into_iter().find(|file| file_ino(*file) == ino).map(Object::File)
    }

    pub(super) fn virt_lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        if parent == ROOT {
            let entry = self.virt_getattr(DIR)?;
            return Ok((Some(entry), entry.valid));
        }
        let ino = match self.object_of(parent) {
            Some(Object::Dir) => match self.named_in_dir(name) {
                Some(ino) if !ino.is_virtual() => {
                    let entry = self.getattr(ino, wait)?;
                    self.0.table.add_lookup(ino);
                    return Ok((Some(entry), entry.valid));
                }
                other => other,
            },
            Some(Object::Kept(dir)) => self.kept_child(&dir, name),
            Some(Object::Head(dir)) => {
                self.may_fetch(wait)?;
                let path = Name::new(name).ok().map(|name| dir.join(&name));
                path.filter(|path| self.head_object(path).is_some()).map(|path| self.remember_head(path))
            }
            Some(Object::Diff(dir)) => {
                let Wait::Until(_) = wait else {
                    return Err(FsError::new("lookup", ".pantheon/diffs", Cause::WouldBlock));
                };
                self.look_if_old(wait);
                let path = Name::new(name).ok().map(|name| dir.join(&name));
                path.filter(|path| self.differs(path).is_some()).map(|path| self.remember_diff(path))
            }
            Some(Object::File(_)) | None => None,
        };
        let entry = ino.and_then(|ino| self.virt_getattr(ino).ok());
        Ok((entry, entry.map_or(Duration::ZERO, |entry| entry.valid)))
    }

    fn named_in_dir(&self, name: &[u8]) -> Option<Ino> {
        let shelf = SHELVES.iter().find(|(_, shelf)| shelf.dir_name().as_bytes() == name);
        if name == b"head" && self.has_head() {
            return Some(HEAD);
        }
        if name == b"diffs" && self.has_head() {
            return Some(DIFFS);
        }
        let real = match name {
            b"files" => Some(UPLOADS),
            b"logs" => Some(LOGS),
            _ => None,
        };
        let real = real.filter(|_| self.0.config.layout == Layout::Pantheon);
        real.or(shelf.map(|(ino, _)| *ino)).or_else(|| vfiles::File::named(name).map(file_ino))
    }

    fn kept_child(&self, dir: &Path, name: &[u8]) -> Option<Ino> {
        let name = Name::new(name).ok()?;
        let path = dir.join(name.as_os_str());
        path.symlink_metadata().is_ok().then(|| self.remember_kept(path))
    }

    fn remember_kept(&self, path: PathBuf) -> Ino {
        let ino = hashed_ino(KEPT_BIT, &path);
        self.0.kept.lock().insert(ino, path);
        ino
    }

    fn remember_head(&self, path: RemotePath) -> Ino {
        let ino = hashed_ino(HEAD_BIT, &path);
        self.0.heads.lock().insert(ino, path);
        ino
    }

    fn remember_diff(&self, path: RemotePath) -> Ino {
        let ino = hashed_ino(DIFF_BIT, &path);
        self.0.diffs.lock().insert(ino, path);
        ino
    }

    /// Whether a path below the code directory differs from the commit: `Some(None)` is a directory in which something does.
    fn differs(&self, path: &RemotePath) -> Option<Option<Vec<u8>>> {
        let Some((_, Ok(pending))) = self.last_look() else { return None };
        if let Some(part) = pending.diff_of(path) {
            return Some(Some(part.to_vec()));
        }
        pending.files.iter().any(|file| file.path.starts_with(path)).then_some(None)
    }

    pub(super) fn virt_getattr(&self, ino: Ino) -> FsResult<Entry> {
        let now = secs_from_time(self.0.clock.wall());
        let attr = |kind, size, perm, mtime| Attr { kind, size, perm, mtime, atime: mtime };
        let (attr, valid) = match self.object_of(ino).ok_or_else(|| gone("getattr"))? {
            Object::Dir => (attr(FileKind::Directory, 0, 0o755, now), DIR_VALID),
            Object::File(file) => {
                let size = vfiles::render(file, &self.status()).len() as u64;
                let perm = if file.takes_commands() { 0o644 } else { 0o444 };
                (attr(FileKind::File, size, perm, now), Duration::ZERO)
            }
            Object::Head(path) => match self.head_object(&path) {
                Some(Some(file)) => (
                    attr(FileKind::File, file.size, if file.mode & 0o111 != 0 { 0o555 } else { 0o444 }, now),
                    DIR_VALID,
                ),
                Some(None) => (attr(FileKind::Directory, 0, 0o555, now), DIR_VALID),
                None if path.is_root() => (attr(FileKind::Directory, 0, 0o555, now), Duration::ZERO),
                None => return Err(gone("getattr")),
            },
            Object::Diff(path) => match self.differs(&path) {
                Some(Some(text)) => (attr(FileKind::File, text.len() as u64, 0o444, now), Duration::ZERO),
                Some(None) => (attr(FileKind::Directory, 0, 0o555, now), Duration::ZERO),
                None if path.is_root() => (attr(FileKind::Directory, 0, 0o555, now), Duration::ZERO),
                None => return Err(gone("getattr")),
            },
            Object::Kept(path) => match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => (attr(FileKind::Directory, 0, 0o555, now), Duration::ZERO),
                Ok(meta) => {
                    let mtime = u32::try_from(meta.mtime()).unwrap_or(now);
                    (attr(FileKind::File, meta.len(), 0o444, mtime), Duration::ZERO)
                }
                // A shelf that nothing was ever put on.
                Err(_) if SHELVES.iter().any(|(number, _)| *number == ino) => {
                    (attr(FileKind::Directory, 0, 0o555, now), Duration::ZERO)
                }
                Err(_) => return Err(gone("getattr")),
            },
        };
        Ok(Entry { ino, attr, valid })
    }

    pub(super) fn virt_children(&self, ino: Ino) -> Vec<(Name, Ino)> {
        match self.object_of(ino) {
            Some(Object::Dir) => {
                let files = vfiles::FILES.iter().map(|file| (file.name(), file_ino(*file)));
                let shelves = SHELVES.iter().map(|(ino, shelf)| (shelf.dir_name(), *ino));
                files.chain(shelves).filter_map(|(name, ino)| Some((Name::new(name).ok()?, ino))).collect()
            }
            Some(Object::Kept(dir)) => {
                let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
                let named = entries.filter_map(|e| Some((Name::new(e.file_name().as_bytes()).ok()?, e.path())));
                named.map(|(name, path)| (name, self.remember_kept(path))).collect()
            }
            Some(Object::Head(dir)) => {
                let children = self.head_children(&dir).into_iter();
                children.filter_map(|(path, _)| Some((path.file_name()?, self.remember_head(path)))).collect()
            }
            Some(Object::Diff(dir)) => {
                let pending = match self.last_look() {
                    Some((_, Ok(pending))) => pending,
                    _ => return Vec::new(),
                };
                let below = pending.files.iter().filter_map(|file| file.path.strip_prefix(&dir)?.names().next());
                let names: BTreeSet<Name> = below.collect();
                names.into_iter().map(|name| (name.clone(), self.remember_diff(dir.join(&name)))).collect()
            }
            Some(Object::File(_)) | None => Vec::new(),
        }
    }

    /// The repository may have to be fetched first.
    pub(super) fn may_fetch(&self, wait: Wait) -> FsResult<()> {
        match wait {
            Wait::No if !self.head_is_known() => Err(FsError::new("lookup", ".pantheon/head", Cause::WouldBlock)),
            _ => Ok(()),
        }
    }

    pub(super) fn virt_opendir(&self, ino: Ino, wait: Wait) -> FsResult<()> {
        match self.object_of(ino) {
            Some(Object::Head(_)) => {
                self.may_fetch(wait)?;
                self.head_tree().map(drop).ok_or_else(|| gone("opendir"))
            }
            Some(Object::Diff(_)) => {
                let Wait::Until(_) = wait else {
                    return Err(FsError::new("opendir", ".pantheon/diffs", Cause::WouldBlock));
                };
                self.look_if_old(wait);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn virt_open(&self, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Opened> {
        let writes = mode.write || mode.truncate;
        let handle = match self.object_of(ino).ok_or_else(|| gone("open"))? {
            Object::Dir => return Err(FsError::new("open", ".pantheon", Cause::IsADirectory)),
            Object::File(file) if writes && !file.takes_commands() => {
                return Err(FsError::new("open", format!(".pantheon/{}", file.name()), Cause::AccessDenied));
            }
            Object::File(file) => {
                if file.needs_a_look() && self.has_head() {
                    let Wait::Until(_) = wait else { return Err(FsError::new("open", file.name(), Cause::WouldBlock)) };
                    self.look(wait);
                }
                let text = vfiles::render(file, &self.status());
                VirtualHandle::Rendered { file, text, input: Mutex::default() }
            }
            Object::Head(path) => match self.head_object(&path) {
                Some(Some(_)) if writes => return Err(FsError::new("open", path, Cause::AccessDenied)),
                Some(Some(file)) => {
                    let content = self.head_blob(&file);
                    VirtualHandle::Committed(content.map_err(|e| FsError::new("open", &path, Cause::Platform(e)))?)
                }
                Some(None) => return Err(FsError::new("open", path, Cause::IsADirectory)),
                None => return Err(gone("open")),
            },
            Object::Diff(path) if writes => return Err(FsError::new("open", path, Cause::AccessDenied)),
            Object::Diff(path) => {
                let Wait::Until(_) = wait else { return Err(FsError::new("open", path, Cause::WouldBlock)) };
                self.look_if_old(wait);
                match self.differs(&path) {
                    Some(Some(text)) => VirtualHandle::Committed(text),
                    Some(None) => return Err(FsError::new("open", path, Cause::IsADirectory)),
                    None => return Err(gone("open")),
                }
            }
            Object::Kept(path) if writes => {
                return Err(FsError::new("open", path.display(), Cause::AccessDenied));
            }
            Object::Kept(path) => match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => return Err(FsError::new("open", path.display(), Cause::IsADirectory)),
                _ => VirtualHandle::Kept(File::open(&path).map_err(|e| FsError::new("open", path.display(), e))?),
            },
        };
        let handle = self.add_handle(Handle::Virtual(handle));
        Ok(Opened { handle, keep_pages: false, no_flush: !writes, direct: true })
    }

    pub(super) fn virt_read(&self, handle: &VirtualHandle, offset: u64, size: u32, _: Wait) -> FsResult<Vec<u8>> {
        match handle {
            VirtualHandle::Rendered { text, .. } | VirtualHandle::Committed(text) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let end = start.saturating_add(size as usize).min(text.len());
                Ok(text[start..end].to_vec())
            }
            VirtualHandle::Kept(file) => {
                let mut bytes = vec![0; size as usize];
                let n = file.read_at(&mut bytes, offset).map_err(|e| FsError::new("read", ".pantheon", e))?;
                bytes.truncate(n);
                Ok(bytes)
            }
        }
    }

    /// A command that ends with a newline is carried out at once, so that the writer gets the outcome from `write`:
    /// shells do not look at what `close` says.
    pub(super) fn virt_write(&self, handle: &VirtualHandle, _: u64, bytes: &[u8], wait: Wait) -> FsResult<u32> {
        let VirtualHandle::Rendered { file, input, .. } = handle else {
            return Err(FsError::new("write", ".pantheon", Cause::BadHandle));
        };
        let complete = bytes.ends_with(b"\n");
        if complete && matches!(wait, Wait::No) {
            return Err(FsError::new("write", file.name(), Cause::WouldBlock));
        }
        {
            let mut input = input.lock();
            if input.len() + bytes.len() > MAX_COMMAND_BYTES {
                return Err(FsError::new("write", file.name(), Cause::Invalid("the command is too long".into())));
            }
            input.extend_from_slice(bytes);
        }
        if complete {
            self.command(*file, input, wait)?;
        }
        Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn virt_flush(&self, handle: &VirtualHandle, wait: Wait) -> FsResult<()> {
        match handle {
            VirtualHandle::Rendered { file, input, .. } if !input.lock().is_empty() => match wait {
                Wait::No => Err(FsError::new("close", file.name(), Cause::WouldBlock)),
                Wait::Until(_) => self.command(*file, input, wait),
            },
            _ => Ok(()),
        }
    }

    fn command(&self, file: vfiles::File, input: &Mutex<Vec<u8>>, wait: Wait) -> FsResult<()> {
        let bytes = std::mem::take(&mut *input.lock());
        let object = format!(".pantheon/{}", file.name());
        let result = match vfiles::parse(file, &bytes) {
            Err(what) => Err(Cause::Invalid(what)),
            Ok(Command::Switch { mode, discard }) => self.switch_mode(mode, discard, wait),
            Ok(Command::Commit(message)) => self.commit(&message, wait),
            Ok(Command::Sync) => self.sync(wait).map_err(|error| error.cause),
            Ok(Command::Hydrate(below)) => self.hydrate(&below, wait).map_err(|error| error.cause),
        };
        result.map_err(|cause| self.noted(FsError::new("write", object, cause)))
    }

    /// Everything to the server first: what is not there would not be in the commit.
    fn commit(&self, message: &str, wait: Wait) -> Result<(), Cause> {
        self.sync(wait).map_err(|error| Cause::Busy(format!("not everything is on the server: {error}")))?;
        let mut done = self.0.env.commit(message).map_err(|error| match error {
            CommitError::NoApi => {
                Cause::Unsupported("there is no API for this mount; commit in the dashboard or with git")
            }
            CommitError::ReadOnly(reason) => Cause::ReadOnly(reason),
            error @ (CommitError::EmptyMessage | CommitError::Nothing) => Cause::Invalid(error.to_string()),
            error @ (CommitError::NotThere(_) | CommitError::Api(_)) => Cause::Platform(error.to_string()),
        })?;
        if let Some(mirror) = &self.0.config.mirror {
            let found = mirror.ensure(&done.hash);
            if let Err(error) = &found {
                log::warn!("the commit could not be looked up in the repository: {error}");
            }
            done.in_repository = Some(found.is_ok());
        }
        self.0.notes.committed(done);
        self.review_kept_soon(false);
        Ok(())
    }

    fn switch_mode(&self, mode: ConnectionMode, discard: bool, wait: Wait) -> Result<(), Cause> {
        if mode == ConnectionMode::Git {
            // What is not on the server yet would be stranded by the switch.
            if let Err(error) = self.sync(wait) {
                log::warn!("before the switch: {error}");
            }
            let dirty = self.dirty_files();
            if !dirty.is_empty() && !discard {
                return Err(Cause::Busy(format!("{} change(s) are not on the server yet", dirty.len())));
            }
            if discard {
                let saved = self.keep_pending(wait)?;
                log::warn!(
                    "{saved} uncommitted change(s) are kept here before they are deleted: pantheonfs rescue list"
                );
            }
        }
        self.0.env.switch(mode, discard).map(drop).map_err(|error| match error {
            SwitchError::NoApi => Cause::Unsupported("there is no API for this mount; the mode cannot be changed here"),
            SwitchError::NotSwitchable(name) => Cause::ReadOnly(crate::gate::ReadOnlyReason::Environment(name)),
            error @ SwitchError::WouldDiscard(_) => Cause::Busy(error.to_string()),
            SwitchError::Api(error) => Cause::Platform(error.to_string()),
        })
    }
}
