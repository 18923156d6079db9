//! A local bare copy of the site's repository, to read committed files without asking the mounted server.
//!
//! It is fetched by the `git` program, which uses the user's SSH settings and can talk to old servers, and read with
//! libgit2. The room knows commits, trees and blobs; `env` knows which commit is deployed.

mod boundary;
mod diff;
mod fetch;
mod git_dir;
mod index;
mod versions;
mod worktree;

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sha1::{Digest, Sha1};

pub(crate) use diff::SNIFFED_BYTES;
pub use diff::{Body, Change, Pieces, Side, count_lines, patch, write_diff};
pub use git_dir::{GitDir, GitDirConfig, HOOKS};
pub use versions::{Revision, TreeEntry, TreeId, is_whole_hash};
pub use worktree::{Conversion, WorkTree, has_rules, is_git};

use crate::attr::BlobId;
use crate::path::RemotePath;

/// The local directory and the URL of the repository.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    pub dir: PathBuf,
    pub url: String,
    /// The SSH command for git, quoted by the caller.
    pub ssh_command: String,
}

/// Why the repository cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MirrorError {
    #[error("the repository {url} cannot be fetched: {detail}")]
    Fetch { url: String, detail: String },
    #[error("commit {0} is not in the repository (yet)")]
    NoCommit(String),
    #[error("the local copy of the repository: {0}")]
    Git(String),
}

impl From<git2::Error> for MirrorError {
    fn from(error: git2::Error) -> Self {
        Self::Git(error.message().to_owned())
    }
}

impl From<io::Error> for MirrorError {
    fn from(error: io::Error) -> Self {
        Self::Git(error.to_string())
    }
}

/// A committed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub blob: BlobId,
    /// Git's mode: 0o100644, 0o100755 or 0o120000 (a symlink).
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

/// All files of a commit.
pub type Tree = BTreeMap<RemotePath, Committed>;

/// Number of cached trees: the deployed commit, the previous one, and another one that is compared.
const TREES: usize = 3;

/// See the module documentation.
pub struct Mirror {
    config: MirrorConfig,
    /// One fetch at a time: git would only wait for its own locks.
    fetching: Mutex<()>,
    /// Set by [`Mirror::close`].
    closing: AtomicBool,
    /// When branches and tags were last asked for.
    asked: Mutex<Option<Instant>>,
    /// Opening a repository costs more than reading a small blob.
    open: Mutex<Vec<Repository>>,
    trees: Mutex<Vec<(String, Arc<Tree>)>>,
    /// Results of [`Mirror::has_carriage_returns`].
    returns: Mutex<HashMap<BlobId, bool>>,
}

impl Mirror {
    pub fn new(config: MirrorConfig) -> Self {
        let (fetching, closing, asked, open, trees, returns) = Default::default();
        Self { config, fetching, closing, asked, open, trees, returns }
    }

    /// A copy that was fetched earlier, without the ability to fetch.
    pub fn local(dir: PathBuf) -> Self {
        Self::new(MirrorConfig { dir, url: String::new(), ssh_command: String::new() })
    }

    fn repo(&self) -> Result<Repository, MirrorError> {
        let open = || Repository::open_bare(&self.config.dir);
        if let Ok(repo) = open() {
            return Ok(repo);
        }
        // Two threads that make it at once would disturb each other.
        let _one = self.open.lock();
        Ok(open().or_else(|_| Repository::init_bare(&self.config.dir))?)
    }

    /// Whether the commit is in the local copy.
    pub fn has(&self, commit: &str) -> bool {
        let found = || Some(self.repo().ok()?.find_commit(Oid::from_str(commit).ok()?).is_ok());
        found().unwrap_or(false)
    }

    /// Every file of the commit.
    pub fn tree(&self, commit: &str) -> Result<Arc<Tree>, MirrorError> {
        let known = |trees: &[(String, Arc<Tree>)]| trees.iter().find(|(of, _)| of == commit).map(|(_, t)| t.clone());
        let trees = || self.trees.lock();
        if let Some(tree) = known(&trees()) {
            return Ok(tree);
        }
        let tree = Arc::new(self.read_tree(commit)?);
        let mut trees = trees();
        trees.truncate(TREES - 1);
        trees.insert(0, (commit.to_owned(), tree.clone()));
        Ok(tree)
    }

    /// Whether the tree of the commit is cached.
    pub fn has_tree(&self, commit: &str) -> bool {
        self.trees.lock().iter().any(|(of, _)| of == commit)
    }

    fn read_tree(&self, commit: &str) -> Result<Tree, MirrorError> {
        let repo = self.repo()?;
        let tree = find(&repo, commit)?;
        let odb = repo.odb()?;
        let (mut out, mut missing) = (Tree::new(), None);
        let walked = tree.walk(TreeWalkMode::PreOrder, |dir, entry| {
            if entry.kind() != Some(ObjectType::Blob) {
                return TreeWalkResult::Ok;
            }
            let name = [dir.as_bytes(), entry.name_bytes()].concat();
            let Ok(path) = RemotePath::parse(name) else { return TreeWalkResult::Ok };
            match odb.read_header(entry.id()) {
                Ok((size, _)) => {
                    let mode = u32::try_from(entry.filemode()).unwrap_or(0o100_644);
                    out.insert(path, Committed { blob: blob_id(entry.id()), mode, size: size as u64 });
                    TreeWalkResult::Ok
                }
                Err(error) => {
                    missing = Some(format!("{path} of commit {commit}: {}", error.message()));
                    TreeWalkResult::Abort
                }
            }
        });
        // A tree that lacks a file would show it as added.
        missing.map_or(Ok(()), |what| Err(MirrorError::Git(what)))?;
        walked?;
        Ok(out)
    }

    pub fn blob(&self, blob: BlobId) -> Result<Vec<u8>, MirrorError> {
        self.with_repo(|repo| Ok(repo.find_blob(Oid::from_bytes(&blob.0)?)?.content().to_vec()))
    }

    /// Calls with an open repository, which is kept if the call succeeds.
    fn with_repo<T>(&self, call: impl FnOnce(&Repository) -> Result<T, MirrorError>) -> Result<T, MirrorError> {
        let pool = || self.open.lock();
        let pooled = pool().pop();
        let repo = pooled.map_or_else(|| self.repo(), Ok)?;
        let result = call(&repo)?;
        pool().push(repo);
        Ok(result)
    }

    /// Whether the object has carriage returns, so that a conversion of line endings can change it.
    pub fn has_carriage_returns(&self, blob: BlobId) -> Result<bool, MirrorError> {
        if let Some(known) = self.returns.lock().get(&blob) {
            return Ok(*known);
        }
        let has = self.blob(blob)?.contains(&b'\r');
        self.returns.lock().insert(blob, has);
        Ok(has)
    }

    /// A temporary file without a name, on the file system of the repository, for data that is too large for memory.
    pub fn unnamed_file(&self) -> io::Result<std::fs::File> {
        tempfile::tempfile_in(&self.config.dir)
    }

    /// The ignore rules of the commit.
    pub fn ignored(&self, commit: &str) -> Result<Ignored, MirrorError> {
        let mut rules = Vec::new();
        for (path, file) in self.tree(commit)?.iter() {
            if path.file_name().is_some_and(|name| name.as_bytes() == b".gitignore") {
                let dir = Path::new("/").join(path.parent().unwrap_or_else(RemotePath::root).to_os_string());
                let mut builder = GitignoreBuilder::new(&dir);
                for line in String::from_utf8_lossy(&self.blob(file.blob)?).lines() {
                    if let Err(error) = builder.add_line(None, line) {
                        log::debug!("{path}: an ignore rule is skipped: {error}");
                    }
                }
                rules.push(builder.build().map_err(|e| MirrorError::Git(e.to_string()))?);
            }
        }
        Ok(Ignored(rules))
    }
}

/// Which paths can never be committed.
pub struct Ignored(Vec<Gitignore>);

impl Ignored {
    /// The deepest `.gitignore` with a matching rule decides, as in git.
    pub fn covers(&self, path: &RemotePath) -> bool {
        let mut at = RemotePath::root();
        let depth = path.depth();
        // Everything in an ignored directory is ignored, independent of rules in that directory.
        path.names().any(|name| {
            at = at.join(&name);
            self.is_matched(&at, at.depth() < depth)
        })
    }

    /// Whether the rules of the parent directories match the path itself.
    fn is_matched(&self, path: &RemotePath, is_dir: bool) -> bool {
        let path = Path::new("/").join(path.to_os_string());
        let near = |rules: &&Gitignore| path.parent().is_some_and(|dir| dir.starts_with(rules.path()));
        let mut rules: Vec<&Gitignore> = self.0.iter().filter(near).collect();
        rules.sort_by_key(|rules| std::cmp::Reverse(rules.path().components().count()));
        let verdict = rules.iter().find_map(|rules| match rules.matched(&path, is_dir) {
            ignore::Match::None => None,
            found => Some(found.is_ignore()),
        });
        verdict.unwrap_or(false)
    }
}

fn find<'a>(repo: &'a Repository, commit: &str) -> Result<git2::Tree<'a>, MirrorError> {
    let oid = Oid::from_str(commit).map_err(|_| MirrorError::NoCommit(commit.to_owned()))?;
    let commit = repo.find_commit(oid).map_err(|_| MirrorError::NoCommit(commit.to_owned()))?;
    Ok(commit.tree()?)
}

fn blob_id(oid: Oid) -> BlobId {
    let mut id = [0; 20];
    id.copy_from_slice(&oid.as_bytes()[..20]);
    BlobId(id)
}

/// Computes git's blob name of content that arrives in pieces.
pub struct BlobHasher(Sha1);

impl BlobHasher {
    /// `size`: the total number of bytes.
    pub fn new(size: u64) -> Self {
        Self(Sha1::new_with_prefix(format!("blob {size}\0")))
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub fn finish(self) -> BlobId {
        BlobId(self.0.finalize().into())
    }
}

/// Git's blob name of this content.
pub fn hash(content: &[u8]) -> Result<BlobId, MirrorError> {
    Ok(blob_id(Oid::hash_object(ObjectType::Blob, content)?))
}

/// A repository with one file, `a.php`, and its commit.
#[cfg(test)]
pub(crate) fn sample(content: &[u8]) -> (tempfile::TempDir, Mirror, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let repo = Repository::init_bare(dir.path()).expect("made");
    let mut tree = repo.treebuilder(None).expect("begun");
    tree.insert("a.php", repo.blob(content).expect("written"), 0o100_644).expect("added");
    let tree = repo.find_tree(tree.write().expect("written")).expect("there");
    let who = git2::Signature::now("x", "x@x").expect("valid");
    let commit = repo.commit(None, &who, &who, "all", &tree, &[]).expect("committed").to_string();
    let mirror = Mirror::local(dir.path().to_owned());
    (dir, mirror, commit)
}
