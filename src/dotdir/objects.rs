//! lookup, getattr and readdir in `.pantheon`.
//!
//! `files` and `logs` are real directories of the server. They are found by name and never listed, so that no
//! recursive program walks into 100,000 uploads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::at::{AT_DIR, NO_NAME_VALID, version_attr};
use super::inodes::{Object, in_root, may_be_forgotten};
use super::state::{Dot, must_wait};
use crate::attr::{Attr, FileKind, secs_from_time};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, LOGS, ROOT, UPLOADS};
use crate::path::{Name, RemotePath};
use crate::pending::DiffFile;
use crate::vfiles;
use crate::view::{DOT_DIR, Entry, GIT_FILE, goes_on, outside_text};
use crate::write::RejectKind;

/// How long the kernel may cache the entry of `.pantheon`, and committed objects.
const STABLE: Duration = Duration::from_secs(60);

const REJECTS: [RejectKind; 2] = [RejectKind::Conflict, RejectKind::Stranded];

pub(super) fn gone(op: &'static str) -> FsError {
    FsError::new(op, ".pantheon", Cause::NotFound)
}

/// The error for a number without an object. If the object was only forgotten, the kernel looks it up again.
pub(super) fn missing(op: &'static str, ino: Ino) -> FsError {
    if may_be_forgotten(ino) { FsError::new(op, ".pantheon", Cause::Stale) } else { gone(op) }
}

/// The kind of difference at a path.
pub(super) enum Difference {
    /// A file differs: its part of the last comparison's diff.
    File(Arc<DiffFile>, Range<u64>),
    /// An object below the path differs.
    Directory,
}

impl Dot {
    /// The object of a number. `head` and `diffs` need a repository.
    pub(super) fn object(&self, ino: Ino) -> Option<Object> {
        let object = self.0.inodes.object(ino)?;
        let there = match object {
            Object::Head(_) | Object::Diff(_) | Object::DiffAt(_) | Object::At(_) | Object::Version(_) => {
                self.has_repository()
            }
            Object::GitLink => self.0.config.git.is_shown(),
            Object::Dir | Object::File(_) | Object::Rejected(..) | Object::Since(_) | Object::Outside(_) => true,
        };
        there.then_some(object)
    }

    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> FsResult<(Option<Entry>, Duration)> {
        if parent == ROOT {
            let entry = in_root(name).and_then(|object| self.getattr(self.0.inodes.number(object)).ok());
            return Ok((entry, entry.map_or(Duration::ZERO, |entry| entry.valid)));
        }
        let object = match self.object(parent) {
            Some(Object::Dir) => match self.real_dir(name) {
                Some(ino) => {
                    let entry = self.0.view.getattr(ino, wait)?;
                    self.0.view.add_lookup(ino);
                    return Ok((Some(entry), entry.valid));
                }
                None => self.named(name),
            },
            Some(Object::Rejected(kind, dir)) => self.rejected_child(kind, &dir, name),
            Some(Object::Head(dir)) => {
                self.may_fetch(wait)?;
                let path = Name::new(name).ok().map(|name| dir.join(&name));
                path.filter(|path| self.0.reader.repository().object(path).is_some()).map(Object::Head)
            }
            Some(Object::Diff(dir)) => {
                must_wait("lookup", ".pantheon/diffs", wait)?;
                self.compare_if_old(wait);
                let path = Name::new(name).ok().map(|name| dir.join(&name));
                path.filter(|path| self.difference(path).is_some()).map(Object::Diff)
            }
            Some(Object::Outside(dir)) if goes_on(&dir) => {
                let path = Name::new(name).ok().map(|name| dir.join(&name));
                path.filter(|path| goes_on(path) || outside_text(path).is_some()).map(Object::Outside)
            }
            Some(Object::Since(token)) if token.is_empty() => Some(Object::Since(name.to_vec())),
            Some(Object::At(above)) => match self.named_version(&above, name, wait)? {
                None => return Ok((None, NO_NAME_VALID)),
                found => found,
            },
            Some(Object::Version(dir)) => self.version_child(&dir, name)?,
            Some(Object::DiffAt(above)) if above.is_root() => unescaped(name).map(Object::DiffAt),
            None if may_be_forgotten(parent) => return Err(FsError::new("lookup", ".pantheon", Cause::Stale)),
            Some(Object::File(_) | Object::GitLink | Object::Since(_) | Object::Outside(_) | Object::DiffAt(_))
            | None => None,
        };
        let entry = object.and_then(|object| self.getattr(self.0.inodes.number(object)).ok());
        Ok((entry, entry.map_or(Duration::ZERO, |entry| entry.valid)))
    }

    /// A directory of the server that is shown under `.pantheon`.
    fn real_dir(&self, name: &[u8]) -> Option<Ino> {
        let ino = match name {
            b"files" => UPLOADS,
            b"logs" => LOGS,
            _ => return None,
        };
        self.0.view.is_pantheon().then_some(ino)
    }

    fn named(&self, name: &[u8]) -> Option<Object> {
        match name {
            b"head" if self.has_repository() => return Some(Object::Head(RemotePath::root())),
            b"outside" => return Some(Object::Outside(RemotePath::root())),
            b"since" => return Some(Object::Since(Vec::new())),
            b"diffs" if self.has_repository() => return Some(Object::Diff(RemotePath::root())),
            b"diff-at" if self.has_repository() => return Some(Object::DiffAt(RemotePath::root())),
            name if name == AT_DIR.as_bytes() && self.has_repository() => return Some(Object::At(RemotePath::root())),
            _ => {}
        }
        let rejects = REJECTS.into_iter().find(|kind| kind.dir_name().as_bytes() == name);
        let rejects = rejects.map(|kind| Object::Rejected(kind, PathBuf::new()));
        rejects.or_else(|| vfiles::File::named(name).map(Object::File))
    }

    fn rejected_child(&self, kind: RejectKind, dir: &Path, name: &[u8]) -> Option<Object> {
        let below = dir.join(Name::new(name).ok()?.as_os_str());
        let there = self.rejected(kind, &below).symlink_metadata().is_ok();
        there.then_some(Object::Rejected(kind, below))
    }

    /// The path of a rejected copy on the local disk.
    pub(super) fn rejected(&self, kind: RejectKind, below: &Path) -> PathBuf {
        self.0.upload.rejects_dir(kind).join(below)
    }

    /// How a path below the code directory differs from the commit, according to the last comparison.
    pub(super) fn difference(&self, path: &RemotePath) -> Option<Difference> {
        let pending = self.0.comparisons.pending()?;
        if let Some(diff) = &pending.diff
            && let Some(part) = diff.part(path)
        {
            return Some(Difference::File(diff.clone(), part));
        }
        pending.files.iter().any(|file| file.path.starts_with(path)).then_some(Difference::Directory)
    }

    pub fn getattr(&self, ino: Ino) -> FsResult<Entry> {
        let now = secs_from_time(self.0.view.clock().wall());
        let attr = |kind, size, perm| Attr { kind, size, perm, mtime: now, atime: now };
        let directory = |perm| attr(FileKind::Directory, 0, perm);
        let (attr, valid) = match self.object(ino).ok_or_else(|| missing("getattr", ino))? {
            Object::Dir => (directory(0o755), STABLE),
            Object::File(file) => {
                let diff = self.0.comparisons.diff().filter(|_| file == vfiles::File::Diff);
                let size = match diff {
                    Some(diff) => diff.len(),
                    None => vfiles::render(file, &self.status()).len() as u64,
                };
                let perm = if file.takes_commands() { 0o644 } else { 0o444 };
                (attr(FileKind::File, size, perm), Duration::ZERO)
            }
            Object::GitLink => (attr(FileKind::File, self.0.config.git.link().len() as u64, 0o444), STABLE),
            Object::Since(token) if token.is_empty() => (directory(0o555), STABLE),
            Object::DiffAt(name) if name.is_root() => (directory(0o555), STABLE),
            Object::DiffAt(_) => (attr(FileKind::File, 0, 0o444), Duration::ZERO),
            Object::At(_) => (directory(0o555), STABLE),
            Object::Version(version) => (version_attr(&version), STABLE),
            Object::Since(_) => (attr(FileKind::File, 0, 0o444), Duration::ZERO),
            Object::Head(path) => match self.0.reader.repository().object(&path) {
                Some(Some(file)) => {
                    let perm = if file.mode & 0o111 != 0 { 0o555 } else { 0o444 };
                    (attr(FileKind::File, file.size, perm), STABLE)
                }
                Some(None) => (directory(0o555), STABLE),
                None if path.is_root() => (directory(0o555), Duration::ZERO),
                None => return Err(gone("getattr")),
            },
            Object::Diff(path) => match self.difference(&path) {
                Some(Difference::File(_, part)) => (attr(FileKind::File, part.end - part.start, 0o444), Duration::ZERO),
                Some(Difference::Directory) => (directory(0o555), Duration::ZERO),
                None if path.is_root() => (directory(0o555), Duration::ZERO),
                None => return Err(gone("getattr")),
            },
            Object::Outside(path) if goes_on(&path) => (directory(0o555), STABLE),
            Object::Outside(path) => {
                let text = outside_text(&path).ok_or_else(|| gone("getattr"))?;
                (attr(FileKind::File, text.len() as u64, 0o444), STABLE)
            }
            Object::Rejected(kind, below) => match self.rejected(kind, &below).symlink_metadata() {
                Ok(meta) if meta.is_dir() => (directory(0o555), Duration::ZERO),
                Ok(meta) => {
                    let mtime = u32::try_from(meta.mtime()).unwrap_or(now);
                    (Attr { mtime, atime: mtime, ..attr(FileKind::File, meta.len(), 0o444) }, Duration::ZERO)
                }
                // No content of this kind was rejected yet.
                Err(_) if below.as_os_str().is_empty() => (directory(0o555), Duration::ZERO),
                Err(_) => return Err(gone("getattr")),
            },
        };
        Ok(Entry { ino, attr, ctime: attr.mtime, valid, ask_attr: false, unlinked: false })
    }

    /// What the root of the mount has beside the names of the server.
    pub fn root_entries(&self) -> Vec<(Name, Ino)> {
        let shown = [DOT_DIR].into_iter().chain(self.0.config.git.is_shown().then_some(GIT_FILE));
        let entry = |name| Some((Name::new(name).ok()?, self.0.inodes.number(in_root(name)?)));
        shown.filter_map(entry).collect()
    }

    pub fn children(&self, ino: Ino) -> Vec<(Name, Ino)> {
        let named: Vec<(Name, Object)> = match self.object(ino) {
            Some(Object::Dir) => {
                let files = vfiles::FILES.iter().map(|file| (file.name(), Object::File(*file)));
                let rejects = REJECTS.iter().map(|kind| (kind.dir_name(), Object::Rejected(*kind, PathBuf::new())));
                files.chain(rejects).filter_map(|(name, object)| Some((Name::new(name).ok()?, object))).collect()
            }
            Some(Object::Rejected(kind, dir)) => {
                let entries = std::fs::read_dir(self.rejected(kind, &dir)).into_iter().flatten().flatten();
                let child = |name: std::ffi::OsString| {
                    let object = Object::Rejected(kind, dir.join(&name));
                    Some((Name::new(name.as_bytes()).ok()?, object))
                };
                entries.filter_map(|entry| child(entry.file_name())).collect()
            }
            Some(Object::Head(dir)) => {
                let children = self.0.reader.repository().children(&dir).into_iter();
                children.filter_map(|(path, _)| Some((path.file_name()?, Object::Head(path)))).collect()
            }
            Some(Object::Diff(dir)) => {
                let Some(pending) = self.0.comparisons.pending() else { return Vec::new() };
                let below = pending.files.iter().filter_map(|file| file.path.strip_prefix(&dir)?.names().next());
                let names: BTreeSet<Name> = below.collect();
                names.into_iter().map(|name| (name.clone(), Object::Diff(dir.join(&name)))).collect()
            }
            Some(Object::At(above)) if above.is_root() => self.listed_versions(),
            Some(Object::Version(dir)) => self.version_children(&dir),
            // `since` and `diff-at` have an entry for every token and name.
            Some(Object::File(_) | Object::GitLink | Object::Since(_) | Object::Outside(_)) | None => Vec::new(),
            Some(Object::At(_) | Object::DiffAt(_)) => Vec::new(),
        };
        named.into_iter().map(|(name, object)| (name, self.0.inodes.number(object))).collect()
    }

    /// Fails if the repository would have to be fetched first and the caller may not wait.
    fn may_fetch(&self, wait: Wait) -> FsResult<()> {
        if self.0.reader.repository().is_known() { Ok(()) } else { must_wait("lookup", ".pantheon/head", wait) }
    }

    /// Whether the object is one of `at`, which can never be changed.
    pub fn is_of_a_version(&self, ino: Ino) -> bool {
        matches!(self.object(ino), Some(Object::At(_) | Object::Version(_)))
    }

    pub fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        match self.object(ino).ok_or_else(|| missing("readlink", ino))? {
            Object::Version(link) => self.version_link(&link),
            _ => Err(FsError::new("readlink", ".pantheon", Cause::Invalid("not a symlink".into()))),
        }
    }

    pub fn opendir(&self, ino: Ino, wait: Wait) -> FsResult<()> {
        match self.object(ino) {
            None if may_be_forgotten(ino) => Err(missing("opendir", ino)),
            Some(Object::Head(_)) => {
                self.may_fetch(wait)?;
                self.0.reader.repository().tree().map(drop).ok_or_else(|| gone("opendir"))
            }
            Some(Object::Diff(_)) => {
                must_wait("opendir", ".pantheon/diffs", wait)?;
                self.compare_if_old(wait);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A path of which `/` and `%` are written as `%2F` and `%25`, so that it is one name.
fn unescaped(name: &[u8]) -> Option<RemotePath> {
    let text = std::str::from_utf8(name).ok()?;
    RemotePath::parse(text.replace("%2F", "/").replace("%25", "%")).ok()
}
