//! Any commit of the repository by name, and its tree, read one directory at a time.
//!
//! Names are full names of references, names of branches and tags, and hashes (at least [`SHORTEST_HASH`] digits). The
//! other expressions of git (`HEAD~2`, `master@{yesterday}`) are not: a name is a path, and must mean one commit.

use std::fs::File;
use std::io::Seek;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use git2::{ErrorCode, ObjectType, Oid, Repository};

use super::worktree::REMOVED_VARIABLES;
use super::{Mirror, MirrorError, blob_id};
use crate::attr::{BlobId, FileKind};
use crate::path::{Name, RemotePath};

/// Digits of an abbreviated hash at least.
const SHORTEST_HASH: usize = 7;
/// Digits of a whole hash.
const WHOLE_HASH: usize = 40;
/// Where names are looked for, in git's order.
const PREFIXES: [&str; 3] = ["", "refs/tags/", "refs/heads/"];
/// Git's mode of a file that can be run.
const EXECUTABLE: i32 = 0o100_755;

/// The name of a tree in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeId(Oid);

/// A commit that was asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    pub commit: String,
    pub root: TreeId,
    /// When it was committed, in seconds since the epoch.
    pub time: u32,
}

/// An object of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TreeEntry {
    Directory(TreeId),
    /// `size` in bytes.
    File {
        blob: BlobId,
        executable: bool,
        size: u64,
    },
    /// `size` of the text in bytes.
    Link {
        blob: BlobId,
        size: u64,
    },
    /// A commit of another repository, whose files are not in this one.
    Submodule,
}

impl TreeEntry {
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Directory(_) | Self::Submodule => FileKind::Directory,
            Self::File { .. } => FileKind::File,
            Self::Link { .. } => FileKind::Symlink,
        }
    }
}

impl Mirror {
    /// The commit of a name; `None` if the local copy has no such name. Several commits with the beginning of a hash are
    /// none.
    ///
    /// # Errors
    ///
    /// The local copy cannot be read.
    pub fn revision(&self, name: &RemotePath) -> Result<Option<Revision>, MirrorError> {
        let Ok(text) = std::str::from_utf8(name.as_bytes()) else { return Ok(None) };
        self.with_repo(|repo| {
            let named = PREFIXES.iter().find_map(|prefix| {
                let full = format!("{prefix}{text}");
                let found = full.starts_with("refs/").then(|| repo.find_reference(&full).ok()).flatten()?;
                found.peel(ObjectType::Commit).ok()
            });
            let by_hash = || match is_hash(text) {
                true => repo.find_object_by_prefix(text, None).ok()?.peel(ObjectType::Commit).ok(),
                false => None,
            };
            let Some(object) = named.or_else(by_hash) else { return Ok(None) };
            let commit = object.peel_to_commit()?;
            let time = u32::try_from(commit.time().seconds().max(0)).unwrap_or(u32::MAX);
            Ok(Some(Revision { commit: commit.id().to_string(), root: TreeId(commit.tree_id()), time }))
        })
    }

    /// Whether names of commits go on after this path and a slash.
    pub fn has_names_below(&self, path: &RemotePath) -> bool {
        let Ok(text) = std::str::from_utf8(path.as_bytes()) else { return false };
        let below = |repo: &Repository| {
            let names = repo.references()?.flatten();
            let names: Vec<String> = names.filter_map(|found| Some(found.name().ok()?.to_owned())).collect();
            let below = |name: &String| {
                let goes_on = |prefix| name.strip_prefix(prefix)?.strip_prefix(text)?.strip_prefix('/');
                PREFIXES.into_iter().any(|prefix| goes_on(prefix).is_some())
            };
            Ok(names.iter().any(below))
        };
        self.with_repo(below).unwrap_or_default()
    }

    /// The newest tag that the platform made when it deployed to this environment: `pantheon_live_12`.
    pub fn newest_deploy(&self, environment: &str) -> Option<RemotePath> {
        let beginning = format!("refs/tags/pantheon_{environment}_");
        let number = |name: &str| name.strip_prefix(&beginning)?.parse::<u64>().ok();
        let newest = |repo: &Repository| {
            let references = repo.references_glob(&format!("{beginning}*"))?.flatten();
            Ok(references.filter_map(|found| number(found.name().ok()?)).max())
        };
        let newest = self.with_repo(newest).ok()??;
        RemotePath::parse(format!("{beginning}{newest}")).ok()
    }

    /// The names of a directory with their objects.
    ///
    /// # Errors
    ///
    /// The local copy does not have the tree.
    pub fn entries(&self, tree: TreeId) -> Result<Vec<(Name, TreeEntry)>, MirrorError> {
        self.with_repo(|repo| {
            let tree = repo.find_tree(tree.0)?;
            let named = |entry: git2::TreeEntry<'_>| Some((Name::new(entry.name_bytes()).ok()?, object(repo, &entry)?));
            Ok(tree.iter().filter_map(named).collect())
        })
    }

    /// The object of a name in a directory.
    ///
    /// # Errors
    ///
    /// The local copy does not have the tree.
    pub fn entry(&self, tree: TreeId, name: &Name) -> Result<Option<TreeEntry>, MirrorError> {
        self.with_repo(|repo| {
            let tree = repo.find_tree(tree.0)?;
            let entry = tree.iter().find(|entry| entry.name_bytes() == name.as_bytes());
            Ok(entry.and_then(|entry| object(repo, &entry)))
        })
    }

    /// The content of a blob in a file without a name, for blobs that are too large for memory.
    ///
    /// # Errors
    ///
    /// The local copy does not have the blob, or the local disk fails.
    pub fn blob_file(&self, blob: BlobId) -> Result<File, MirrorError> {
        let mut file = self.unnamed_file()?;
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.config.dir).args(["cat-file", "blob", &blob.to_string()]).current_dir("/");
        for name in REMOVED_VARIABLES.into_iter().chain(["GIT_DIR", "GIT_WORK_TREE"]) {
            command.env_remove(name);
        }
        let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(Stdio::null()).status()?;
        if !status.success() {
            return Err(MirrorError::Git(format!("{blob} cannot be read")));
        }
        file.rewind()?;
        Ok(file)
    }

    /// Fetches branches and tags, unless that was tried within `max_age`.
    ///
    /// # Errors
    ///
    /// The repository cannot be fetched.
    pub fn renew_names(&self, max_age: Duration) -> Result<(), MirrorError> {
        let is_young = || self.asked.lock().is_some_and(|at| at.elapsed() < max_age);
        if is_young() {
            return Ok(());
        }
        let _one = self.fetching.lock();
        if is_young() {
            return Ok(());
        }
        // Noted first: a platform that cannot be reached is not asked again at each name.
        *self.asked.lock() = Some(Instant::now());
        self.fetch_names()
    }

    /// When branches and tags were last asked for.
    pub fn names_age(&self) -> Option<Duration> {
        self.asked.lock().map(|at| at.elapsed())
    }
}

/// Whether the name can be a hash or its beginning.
fn is_hash(name: &str) -> bool {
    (SHORTEST_HASH..=WHOLE_HASH).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether the name is a whole hash, which says nothing about references.
pub fn is_whole_hash(name: &RemotePath) -> bool {
    name.as_bytes().len() == WHOLE_HASH && name.as_bytes().iter().all(u8::is_ascii_hexdigit)
}

fn object(repo: &Repository, entry: &git2::TreeEntry<'_>) -> Option<TreeEntry> {
    let (id, mode) = (entry.id(), entry.filemode());
    let size = || match repo.odb().and_then(|odb| odb.read_header(id)) {
        Ok((size, _)) => Some(size as u64),
        Err(error) if error.code() == ErrorCode::NotFound => None,
        Err(error) => {
            log::info!("{id}: {error}");
            None
        }
    };
    match entry.kind()? {
        ObjectType::Tree => Some(TreeEntry::Directory(TreeId(id))),
        ObjectType::Commit => Some(TreeEntry::Submodule),
        ObjectType::Blob if mode & 0o170_000 == 0o120_000 => Some(TreeEntry::Link { blob: blob_id(id), size: size()? }),
        ObjectType::Blob => Some(TreeEntry::File { blob: blob_id(id), executable: mode == EXECUTABLE, size: size()? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    #[test]
    fn a_name_means_one_commit() {
        let (_dir, mirror, commit) = super::super::sample(b"one\n");
        let repo = mirror.repo().expect("there");
        let id = Oid::from_str(&commit).expect("a hash");
        for name in
            ["refs/heads/feature/x", "refs/heads/master", "refs/tags/pantheon_live_9", "refs/tags/pantheon_live_10"]
        {
            repo.reference(name, id, false, "made").expect("made");
        }
        let names = [
            "feature/x",
            "master",
            "refs/heads/master",
            "refs/tags/pantheon_live_9",
            "pantheon_live_10",
            &commit,
            &commit[..7],
        ];
        for name in names {
            let found = mirror.revision(&path(name)).expect("readable").expect("there");
            assert_eq!(found.commit, commit, "{name}");
        }
        for name in ["feature", "HEAD", "HEAD~1", "master@{0}", ":/all", &commit[..6], &"0".repeat(40), "objects"] {
            assert_eq!(mirror.revision(&path(name)).expect("readable"), None, "{name}");
        }
        assert!(mirror.has_names_below(&path("feature")) && mirror.has_names_below(&path("refs/heads")));
        assert!(!mirror.has_names_below(&path("feat")) && !mirror.has_names_below(&path("feature/x")));
        assert_eq!(mirror.newest_deploy("live"), Some(path("refs/tags/pantheon_live_10")), "by number");
        assert_eq!(mirror.newest_deploy("test"), None);
    }

    #[test]
    fn trees_have_all_kinds_of_objects() {
        let (_dir, mirror, commit) = super::super::sample(b"one\n");
        let repo = mirror.repo().expect("there");
        let blob = repo.blob(b"target").expect("written");
        let mut tree = repo.treebuilder(None).expect("begun");
        tree.insert("link", blob, 0o120_000).expect("added");
        tree.insert("run", blob, 0o100_755).expect("added");
        tree.insert("module", Oid::from_str(&commit).expect("a hash"), 0o160_000).expect("added");
        let id = TreeId(tree.write().expect("written"));
        let blob = blob_id(blob);
        let run = TreeEntry::File { blob, executable: true, size: 6 };
        let expected = [("link", TreeEntry::Link { blob, size: 6 }), ("module", TreeEntry::Submodule), ("run", run)];
        let expected = expected.map(|(name, entry)| (Name::new(name).expect("valid"), entry));
        assert_eq!(mirror.entries(id).expect("there"), expected);
        for (name, entry) in expected {
            assert_eq!(mirror.entry(id, &name).expect("there"), Some(entry));
        }
        assert_eq!(mirror.entry(id, &Name::new("none").expect("valid")).expect("there"), None);
        let mut content = String::new();
        std::io::Read::read_to_string(&mut mirror.blob_file(blob).expect("there"), &mut content).expect("read");
        assert_eq!(content, "target");
        assert!(mirror.blob_file(BlobId([1; 20])).is_err());
    }
}
