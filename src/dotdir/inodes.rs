//! Numbers of virtual objects. All have [`VIRTUAL_BIT`]. Objects without a fixed number get one that is derived from
//! their identity, so that an object has the same number at each lookup.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::attr::FileKind;
use crate::inode::{Ino, ROOT, VIRTUAL_BIT};
use crate::mirror::{Revision, TreeEntry};
use crate::path::{Name, RemotePath};
use crate::vfiles;
use crate::view::{DOT_DIR, GIT_FILE};
use crate::write::RejectKind;

const DIR: Ino = Ino(VIRTUAL_BIT | 1);
const CONFLICTS: Ino = Ino(VIRTUAL_BIT | 2);
const STRANDED: Ino = Ino(VIRTUAL_BIT | 3);
const HEAD: Ino = Ino(VIRTUAL_BIT | 4);
const DIFFS: Ino = Ino(VIRTUAL_BIT | 5);
const GIT_LINK: Ino = Ino(VIRTUAL_BIT | 6);
const AT: Ino = Ino(VIRTUAL_BIT | 7);
const FIRST_FILE: u64 = 16;
/// Set in derived numbers only.
const DERIVED_BIT: u64 = 1 << 62;
/// Number of remembered derived numbers. Beyond it the least recently used are forgotten, and derived again at the
/// next lookup.
const MAX_DERIVED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The object of a virtual number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Object {
    /// `.pantheon` itself.
    Dir,
    File(vfiles::File),
    /// `conflicts` or `stranded`, or a path below one of them.
    Rejected(RejectKind, PathBuf),
    /// `head`, or a committed object: the path below the code directory.
    Head(RemotePath),
    /// `outside`, or a name that stands for the text of a symlink: the path below it.
    Outside(RemotePath),
    /// `diffs`, or a difference: the path below the code directory.
    Diff(RemotePath),
    /// `.git` in the root: the file that leads git to the git directory.
    GitLink,
    /// `since`, which is not listed, or the changes since a token.
    Since(Vec<u8>),
    /// `at`, or the beginning of a name of commits that has slashes.
    At(RemotePath),
    /// An object of the tree of a commit, in `at`.
    Version(Version),
    /// The difference to the commit of this name; the root: the directory of these, which is not listed.
    DiffAt(RemotePath),
}

/// An object of the tree of a commit. The same object below another name is another one: the kernel has a directory in
/// one place only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) shown: Arc<Shown>,
    /// Below the root of the tree.
    path: RemotePath,
    pub(super) entry: TreeEntry,
}

/// The commit of a version, and its name as the caller wrote it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    name: RemotePath,
    commit: String,
    /// Seconds since the epoch.
    pub(super) time: u32,
}

impl Version {
    pub(super) fn root(name: RemotePath, revision: Revision) -> Self {
        let Revision { commit, root, time } = revision;
        let shown = Arc::new(Shown { name, commit, time });
        Self { shown, path: RemotePath::root(), entry: TreeEntry::Directory(root) }
    }

    pub(super) fn child(&self, name: &Name, entry: TreeEntry) -> Self {
        Self { shown: self.shown.clone(), path: self.path.join(name), entry }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".pantheon/at/{}", self.shown.name.join_path(&self.path))
    }
}

/// The bounded maps from numbers to objects: directories of versions, and all others. A program that walks a large tree
/// holds its directories open while it comes past many files.
pub(super) struct Inodes {
    dirs: Mutex<LruCache<Ino, Object>>,
    others: Mutex<LruCache<Ino, Object>>,
}

impl Default for Inodes {
    fn default() -> Self {
        let map = || Mutex::new(LruCache::new(MAX_DERIVED));
        Self { dirs: map(), others: map() }
    }
}

/// Whether the number may be that of an object that was forgotten. The kernel looks such an object up again.
pub(super) fn may_be_forgotten(ino: Ino) -> bool {
    ino.is_virtual() && ino.0 & DERIVED_BIT != 0
}

impl Inodes {
    /// The number of an object, which is remembered.
    pub(super) fn number(&self, object: Object) -> Ino {
        if let Some(fixed) = fixed(&object) {
            return fixed;
        }
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        let ino = Ino(VIRTUAL_BIT | DERIVED_BIT | (hasher.finish() >> 2));
        let is_dir = matches!(&object, Object::Version(version) if version.entry.kind() == FileKind::Directory);
        let map = if is_dir { &self.dirs } else { &self.others };
        map.lock().put(ino, object);
        ino
    }

    pub(super) fn object(&self, ino: Ino) -> Option<Object> {
        match ino {
            DIR => Some(Object::Dir),
            CONFLICTS => Some(Object::Rejected(RejectKind::Conflict, PathBuf::new())),
            STRANDED => Some(Object::Rejected(RejectKind::Stranded, PathBuf::new())),
            HEAD => Some(Object::Head(RemotePath::root())),
            DIFFS => Some(Object::Diff(RemotePath::root())),
            GIT_LINK => Some(Object::GitLink),
            AT => Some(Object::At(RemotePath::root())),
            _ if ino.0 & DERIVED_BIT != 0 => {
                let of = |map: &Mutex<LruCache<Ino, Object>>| map.lock().get(&ino).cloned();
                of(&self.others).or_else(|| of(&self.dirs))
            }
            _ => {
                let index = (ino.0 & !VIRTUAL_BIT).checked_sub(FIRST_FILE)?;
                vfiles::FILES.get(usize::try_from(index).ok()?).copied().map(Object::File)
            }
        }
    }
}

fn fixed(object: &Object) -> Option<Ino> {
    match object {
        Object::Dir => Some(DIR),
        Object::File(file) => {
            let index = vfiles::FILES.iter().position(|other| other == file)?;
            Some(Ino(VIRTUAL_BIT | (FIRST_FILE + index as u64)))
        }
        Object::Rejected(kind, below) if below.as_os_str().is_empty() => Some(match kind {
            RejectKind::Conflict => CONFLICTS,
            RejectKind::Stranded => STRANDED,
        }),
        Object::Head(path) if path.is_root() => Some(HEAD),
        Object::Diff(path) if path.is_root() => Some(DIFFS),
        Object::GitLink => Some(GIT_LINK),
        Object::At(path) if path.is_root() => Some(AT),
        Object::Rejected(..) | Object::Head(_) | Object::Diff(_) | Object::Outside(_) | Object::Since(_) => None,
        Object::At(_) | Object::Version(_) | Object::DiffAt(_) => None,
    }
}

/// The object of a name in the root of the mount.
pub(super) fn in_root(name: &[u8]) -> Option<Object> {
    match name {
        DOT_DIR => Some(Object::Dir),
        GIT_FILE => Some(Object::GitLink),
        _ => None,
    }
}

/// The parent of an object, for `..` in listings.
pub fn parent(ino: Ino) -> Ino {
    if [DIR, GIT_LINK].contains(&ino) { ROOT } else { DIR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    #[test]
    fn an_object_is_found_by_its_number_and_keeps_it() {
        let inodes = Inodes::default();
        let objects = [
            Object::Dir,
            Object::File(vfiles::File::Status),
            Object::Rejected(RejectKind::Stranded, PathBuf::new()),
            Object::Rejected(RejectKind::Conflict, PathBuf::from("a/b.php")),
            Object::Head(path("a")),
            Object::Diff(path("a")),
            Object::GitLink,
            Object::Since(b"1-2".to_vec()),
            Object::At(RemotePath::root()),
            Object::At(path("feature")),
        ];
        for object in objects {
            let ino = inodes.number(object.clone());
            assert!(ino.is_virtual());
            assert_eq!(inodes.object(ino), Some(object.clone()));
            assert_eq!(inodes.number(object), ino);
        }
    }

    #[test]
    fn the_map_is_bounded_and_an_evicted_object_gets_its_number_back() {
        let inodes = Inodes::default();
        let first = inodes.number(Object::Head(path("first")));
        for n in 0..MAX_DERIVED.get() {
            inodes.number(Object::Head(path(&n.to_string())));
        }
        assert_eq!(inodes.others.lock().len(), MAX_DERIVED.get());
        assert_eq!(inodes.object(first), None, "evicted");
        assert_eq!(inodes.number(Object::Head(path("first"))), first);
    }

    #[test]
    fn unknown_inode_numbers_are_not_found() {
        let inodes = Inodes::default();
        for number in [0, 8, 15, 16 + vfiles::FILES.len() as u64, DERIVED_BIT | 7] {
            assert_eq!(inodes.object(Ino(VIRTUAL_BIT | number)), None, "{number}");
        }
    }
}
