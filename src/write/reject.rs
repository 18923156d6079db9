//! Rejected copies: content that could not be sent, as plain files in the state directory. `conflicts` has those that
//! another writer's change prevented, `stranded` those that the environment does not accept any more. They are shown
//! under `.pantheon`, never in the code tree, where a web server would serve them.
//!
//! A copy has its own path below the directory of its kind. If that name is taken, or too long for the local disk, it
//! gets another one near it. The file `rejects` tells which copy belongs to which path: records (see `records`) of
//! kind `R`, oldest first. A record without a copy is ignored; a copy without a record, as older versions left them,
//! belongs to the path at which it is.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::records::{Records, read};
use crate::durable;
use crate::path::{MAX_NAME_BYTES, RemotePath};

pub(super) const KIND: u8 = b'R';
/// Number of copies per path. Beyond it the last one is replaced: an editor that retries a save for hours must not
/// fill the disk.
const MAX_COPIES_PER_PATH: usize = 100;
/// Number of names that are tried in one directory.
const MAX_NUMBER: u32 = 10_000;
/// Longest path of a copy (bytes): with the directories above it, and seen through a mount, it is shorter than
/// `PATH_MAX`.
const MAX_BELOW_BYTES: usize = 2048;

/// Why a copy was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectKind {
    Conflict,
    Stranded,
}

impl RejectKind {
    pub const ALL: [RejectKind; 2] = [RejectKind::Conflict, RejectKind::Stranded];

    pub fn dir_name(self) -> &'static str {
        match self {
            RejectKind::Conflict => "conflicts",
            RejectKind::Stranded => "stranded",
        }
    }
}

/// One rejected copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub kind: RejectKind,
    /// The path on the server of the rejected file.
    pub path: RemotePath,
    /// Relative to the state directory.
    pub file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) kind: RejectKind,
    pub(super) path: RemotePath,
    /// Relative to the directory of its kind.
    pub(super) file: RemotePath,
}

/// The rejected copies of one environment. Cheap to clone.
#[derive(Clone)]
pub struct Rejects(Arc<Inner>);

struct Inner {
    state_dir: PathBuf,
    /// Opened when the first copy is stored.
    index: Mutex<Option<Records<Record>>>,
}

impl Rejects {
    pub fn new(state_dir: &Path) -> Self {
        Self(Arc::new(Inner { state_dir: state_dir.to_owned(), index: Mutex::default() }))
    }

    /// The directory for state that must survive the mount.
    pub fn state_dir(&self) -> &Path {
        &self.0.state_dir
    }

    pub fn dir(&self, kind: RejectKind) -> PathBuf {
        self.0.state_dir.join(kind.dir_name())
    }

    /// Copies `source` and returns the path of the copy, which is synced to the disk.
    ///
    /// # Errors
    ///
    /// An error of the local disk; then no part of the copy is left.
    pub fn keep(&self, kind: RejectKind, path: &RemotePath, source: &File) -> io::Result<PathBuf> {
        self.put(kind, path, |dir| {
            let mut copy = tempfile::NamedTempFile::new_in(dir)?;
            copy_all(source, copy.as_file_mut())?;
            copy.as_file().sync_all()?;
            Ok(copy.into_temp_path())
        })
    }

    /// Like [`Rejects::keep`], for a file of the state directory that is not written to any more. It needs no space
    /// on a full disk.
    ///
    /// # Errors
    ///
    /// See [`Rejects::keep`].
    pub fn keep_linked(&self, kind: RejectKind, path: &RemotePath, source: &Path) -> io::Result<PathBuf> {
        self.put(kind, path, |dir| {
            let link = tempfile::Builder::new().make_in(dir, |name| fs::hard_link(source, name))?;
            File::open(link.path())?.sync_all()?;
            Ok(link.into_temp_path())
        })
    }

    fn put(
        &self,
        kind: RejectKind,
        path: &RemotePath,
        make: impl FnOnce(&Path) -> io::Result<tempfile::TempPath>,
    ) -> io::Result<PathBuf> {
        // One at a time, because a free name is looked up first and taken later.
        let mut index = self.0.index.lock();
        let new = make(&self.0.state_dir)?;
        let shelf = self.dir(kind);
        make_dir(&shelf)?;
        let superfluous = self.last_of_many(kind, path);
        let file = place(&self.0.state_dir, &shelf, path, new, |file| {
            let below = file.strip_prefix(&shelf).ok();
            let below = below.and_then(|below| RemotePath::parse(below.as_os_str().as_bytes()).ok());
            let noted = below.map_or(Ok(()), |file| self.note(&mut index, Record { kind, path: path.clone(), file }));
            if let Err(error) = noted {
                log::warn!("{}: it is a rejected copy of {path}, which could not be recorded: {error}", file.display());
            }
        })?;
        if let Some(Err(error)) = superfluous.map(fs::remove_file) {
            log::info!("{path}: {error}");
        }
        Ok(file)
    }

    fn note(&self, index: &mut Option<Records<Record>>, record: Record) -> io::Result<()> {
        let index = match index {
            Some(index) => index,
            None => index.insert(self.open_index()?),
        };
        index.append(&[record])?;
        index.sync()
    }

    /// Opens the index. A damaged one is renamed: the names of the copies still tell most of it.
    fn open_index(&self) -> io::Result<Records<Record>> {
        let path = index_of(&self.0.state_dir);
        match Records::open(&path, KIND) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = path.with_extension(format!("damaged-{}", std::process::id()));
                fs::rename(&path, &aside)?;
                log::error!("{}: {error}; the file is renamed to {}", path.display(), aside.display());
                Ok(Records::open(&path, KIND)?.0)
            }
            opened => Ok(opened?.0),
        }
    }

    /// The newest copy of a path that has reached the limit.
    fn last_of_many(&self, kind: RejectKind, path: &RemotePath) -> Option<PathBuf> {
        let all = rejects_in(&self.0.state_dir).into_iter();
        let copies: Vec<Reject> = all.filter(|copy| copy.kind == kind && copy.path == *path).collect();
        let last = copies.last().filter(|_| copies.len() > MAX_COPIES_PER_PATH)?;
        Some(self.0.state_dir.join(&last.file))
    }

    /// Stores the base of a conflicting copy, for a merge. It is not listed among the copies, because the user need
    /// not resolve it.
    pub fn keep_base(&self, copy: &Path, base: &[u8]) -> io::Result<()> {
        let Some(target) = base_of(&self.0.state_dir, copy) else { return Ok(()) };
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        durable::replace(&target, |file| file.write_all(base)).map(drop)
    }

    /// The copies of this kind, as paths relative to their directory, in order.
    pub fn list(&self, kind: RejectKind) -> Vec<PathBuf> {
        files_of(&self.0.state_dir, kind)
    }
}

/// Stores content that the user reverts, in `reverted` of the state directory, and returns its path.
///
/// # Errors
///
/// An error of the local disk.
pub fn keep_reverted(state_dir: &Path, path: &RemotePath, content: &[u8]) -> io::Result<PathBuf> {
    let mut copy = tempfile::NamedTempFile::new_in(state_dir)?;
    copy.write_all(content)?;
    copy.as_file().sync_all()?;
    let shelf = state_dir.join("reverted");
    make_dir(&shelf)?;
    place(state_dir, &shelf, path, copy.into_temp_path(), |_| {})
}

/// Syncs the directories of a file, up to the state directory, since some of them may be new.
fn sync_dirs(file: &Path, state_dir: &Path) -> io::Result<()> {
    file.ancestors().skip(1).take_while(|dir| dir.starts_with(state_dir)).try_for_each(durable::sync_dir)
}

fn index_of(state_dir: &Path) -> PathBuf {
    state_dir.join("rejects")
}

/// The rejected copies of an environment, whether it is mounted or not; those of one path from the oldest to the
/// newest.
pub fn rejects_in(state_dir: &Path) -> Vec<Reject> {
    let records = match read::<Record>(&index_of(state_dir), KIND) {
        Ok(found) => found.records,
        Err(error) => {
            log::warn!(
                "{}: {error}; the paths of rejected copies are derived from their names",
                index_of(state_dir).display()
            );
            Vec::new()
        }
    };
    // A name that was freed and used again belongs to the last copy.
    let mut known: BTreeMap<(RejectKind, PathBuf), (usize, RemotePath)> = BTreeMap::new();
    for (number, record) in records.into_iter().enumerate() {
        known.insert((record.kind, record.file.to_os_string().into()), (number + 1, record.path));
    }
    let mut out = Vec::new();
    for kind in RejectKind::ALL {
        for below in files_of(state_dir, kind) {
            let named = || Some((0, RemotePath::parse(below.as_os_str().as_bytes()).ok()?));
            let Some((age, path)) = known.remove(&(kind, below.clone())).or_else(named) else { continue };
            out.push((age, Reject { kind, path, file: Path::new(kind.dir_name()).join(below) }));
        }
    }
    out.sort_by_key(|(age, _)| *age);
    out.into_iter().map(|(_, reject)| reject).collect()
}

fn files_of(state_dir: &Path, kind: RejectKind) -> Vec<PathBuf> {
    let (root, mut out) = (state_dir.join(kind.dir_name()), Vec::new());
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(_) => out.extend(entry.path().strip_prefix(&root).map(Path::to_owned)),
                Err(_) => {}
            }
        }
    }
    out.sort();
    out
}

/// The path of the base of a conflicting copy, if it was stored.
pub fn base_of(state_dir: &Path, copy: &Path) -> Option<PathBuf> {
    let inside = copy.strip_prefix(state_dir.join(RejectKind::Conflict.dir_name())).ok()?;
    Some(state_dir.join("bases").join(inside))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Gives the copy its final name: its path, or a free name near it. `note` is called with the name before the copy is
/// there.
fn place(
    state_dir: &Path,
    shelf: &Path,
    path: &RemotePath,
    mut new: tempfile::TempPath,
    mut note: impl FnMut(&Path),
) -> io::Result<PathBuf> {
    let names = shortened(path);
    let Some((last, dirs)) = names.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let dir = place_dir(shelf, dirs)?;
    sync_dirs(&dir, state_dir)?;
    for n in 0..MAX_NUMBER {
        let candidate = dir.join(numbered(last, n));
        if candidate.symlink_metadata().is_ok() {
            continue;
        }
        note(&candidate);
        match new.persist_noclobber(&candidate) {
            Ok(()) => {
                durable::sync_dir(&dir)?;
                return Ok(candidate);
            }
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => new = failed.path,
            Err(failed) => return Err(failed.error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Makes the directories of a copy.
fn place_dir(shelf: &Path, names: &[OsString]) -> io::Result<PathBuf> {
    let mut dir = shelf.to_owned();
    for name in names {
        dir = free(|n| {
            let candidate = dir.join(numbered(name, n));
            match make_dir(&candidate) {
                // The copy of a file has the name of the directory.
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                made => made.map(|()| Some(candidate)),
            }
        })?;
    }
    Ok(dir)
}

fn free(mut attempt: impl FnMut(u32) -> io::Result<Option<PathBuf>>) -> io::Result<PathBuf> {
    for n in 0..MAX_NUMBER {
        if let Some(found) = attempt(n)? {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The names of a path; for a path that is too deep, the first ones and the last.
fn shortened(path: &RemotePath) -> Vec<OsString> {
    let names: Vec<OsString> = path.names().map(|name| name.as_os_str().to_owned()).collect();
    if path.as_bytes().len() <= MAX_BELOW_BYTES {
        return names;
    }
    let mut room = MAX_BELOW_BYTES - 2 * MAX_NAME_BYTES;
    let fits = |name: &&OsString| {
        room = room.saturating_sub(name.len() + 1);
        room > 0
    };
    let first: Vec<OsString> = names.iter().take_while(fits).cloned().collect();
    let left_out = format!("({} more)", names.len().saturating_sub(first.len() + 1)).into();
    first.into_iter().chain([left_out]).chain(names.last().cloned()).collect()
}

/// The name with a number appended, cut if it would become too long.
fn numbered(name: &OsStr, n: u32) -> OsString {
    let suffix = if n == 0 { String::new() } else { format!(".{n}") };
    let bytes = name.as_bytes();
    let mut keep = bytes.len().min(MAX_NAME_BYTES - suffix.len());
    // Never cut within a UTF-8 character.
    while keep < bytes.len() && keep > 1 && bytes[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    OsString::from_vec([&bytes[..keep], suffix.as_bytes()].concat())
}

/// Positioned reads, because writers share the file descriptor and its position.
fn copy_all(source: &File, target: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        match source.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            n => {
                target.write_all(&buffer[..n])?;
                at += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shelf {
        dir: tempfile::TempDir,
        rejects: Rejects,
    }

    impl Shelf {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let rejects = Rejects::new(dir.path());
            Self { dir, rejects }
        }

        fn keep(&self, path: &str, text: &str) -> PathBuf {
            let mut source = tempfile::tempfile().expect("a file");
            source.write_all(text.as_bytes()).expect("written");
            let path = RemotePath::parse(path).expect("valid");
            let file = self.rejects.keep(RejectKind::Conflict, &path, &source).expect("kept");
            assert_eq!(fs::read_to_string(&file).expect("read"), text);
            file
        }

        /// The contents that are kept of a path, oldest first.
        fn of(&self, path: &str) -> Vec<String> {
            let all = rejects_in(self.dir.path()).into_iter();
            let copies = all.filter(|copy| copy.path.as_bytes() == path.as_bytes());
            copies.map(|copy| fs::read_to_string(self.dir.path().join(copy.file)).expect("read")).collect()
        }
    }

    #[test]
    fn copies_keep_their_path_and_never_replace_each_other() {
        let shelf = Shelf::new();
        for text in ["one", "two"] {
            shelf.keep("code/wp-content/a.php", text);
        }
        let list = shelf.rejects.list(RejectKind::Conflict);
        assert_eq!(list, [Path::new("code/wp-content/a.php"), Path::new("code/wp-content/a.php.1")]);
        assert_eq!(shelf.of("code/wp-content/a.php"), ["one", "two"]);
        assert!(shelf.rejects.list(RejectKind::Stranded).is_empty());
    }

    #[test]
    fn a_copy_is_of_the_path_that_was_said_whatever_it_is_called() {
        let shelf = Shelf::new();
        for (path, text) in [("code/a", "1"), ("code/a", "2"), ("code/a.1", "other"), ("code/a", "3")] {
            shelf.keep(path, text);
        }
        assert_eq!(shelf.of("code/a"), ["1", "2", "3"]);
        assert_eq!(shelf.of("code/a.1"), ["other"]);
        // A name that was freed goes to the next copy of whatever path.
        fs::remove_file(shelf.dir.path().join("conflicts/code/a.1")).expect("resolved");
        shelf.keep("code/a.1", "other again");
        assert_eq!(shelf.of("code/a"), ["1", "3"]);
        assert_eq!(shelf.of("code/a.1"), ["other", "other again"]);
    }

    #[test]
    fn files_and_directories_of_one_name_lie_side_by_side() {
        let shelf = Shelf::new();
        shelf.keep("code/x", "file");
        shelf.keep("code/x/y", "below");
        shelf.keep("code/x/y/z", "deeper");
        shelf.keep("code/d/e", "first a directory");
        shelf.keep("code/d", "then a file");
        let kept: Vec<Vec<String>> = ["x", "x/y", "x/y/z", "d/e", "d"].map(|p| shelf.of(&format!("code/{p}"))).into();
        assert_eq!(kept.concat(), ["file", "below", "deeper", "first a directory", "then a file"]);
    }

    #[test]
    fn the_longest_names_and_paths_are_kept() {
        let shelf = Shelf::new();
        let long = "ä".repeat(127) + "x";
        for n in 0..12 {
            shelf.keep(&format!("code/{long}"), &n.to_string());
        }
        assert_eq!(shelf.of(&format!("code/{long}")).len(), 12);
        shelf.keep(&format!("code/{long}/y"), "below");
        let listed = shelf.rejects.list(RejectKind::Conflict);
        assert!(listed.iter().all(|file| file.to_str().is_some()), "{listed:?}");
        let deep = format!("code/{}x.php", "directory/".repeat(400));
        shelf.keep(&deep, "one");
        shelf.keep(&deep, "two");
        shelf.keep(&format!("code/{}/y", "e".repeat(250) + &"/f".repeat(1800)), "three");
        assert_eq!(shelf.of(&deep), ["one", "two"]);
    }

    #[test]
    fn the_last_of_too_many_copies_is_replaced() {
        let shelf = Shelf::new();
        shelf.keep(&format!("code/a.{MAX_COPIES_PER_PATH}"), "another path");
        for n in 0..MAX_COPIES_PER_PATH + 5 {
            shelf.keep("code/a", &n.to_string());
        }
        let kept = shelf.of("code/a");
        assert_eq!((kept.len(), kept.last()), (MAX_COPIES_PER_PATH + 1, Some(&"104".to_owned())));
        assert_eq!(shelf.of(&format!("code/a.{MAX_COPIES_PER_PATH}")), ["another path"]);
    }

    #[test]
    fn a_file_of_the_state_directory_is_kept_without_a_copy() {
        let shelf = Shelf::new();
        let spool = shelf.dir.path().join("7");
        fs::write(&spool, "mine").expect("written");
        let path = RemotePath::parse("code/a").expect("valid");
        let kept = shelf.rejects.keep_linked(RejectKind::Stranded, &path, &spool).expect("kept");
        fs::remove_file(&spool).expect("let go");
        assert_eq!(fs::read_to_string(kept).expect("read"), "mine");
        assert_eq!(shelf.of("code/a"), ["mine"]);
    }

    #[test]
    fn without_records_names_say_what_copies_are_of() {
        let shelf = Shelf::new();
        shelf.keep("code/a", "1");
        fs::write(index_of(shelf.dir.path()), "nonsense, and not of ours").expect("damaged");
        assert_eq!(shelf.of("code/a"), ["1"]);
        // Another mount goes on with a list of its own.
        let shelf = Shelf { rejects: Rejects::new(shelf.dir.path()), ..shelf };
        shelf.keep("code/a", "2");
        assert_eq!(shelf.of("code/a"), ["1", "2"]);
    }
}
