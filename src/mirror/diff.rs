//! Unified diffs that `git apply` accepts: made by libgit2, between a commit and the same commit with changes.

use std::path::Path;

use git2::build::TreeUpdateBuilder;
use git2::{DiffFormat, DiffOptions, FileMode, Repository, Tree};

use super::{Mirror, MirrorError, find};
use crate::path::RemotePath;

/// The new state of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the code directory.
    pub path: RemotePath,
    /// Content and git mode; `None`: deleted.
    pub now: Option<(Vec<u8>, u32)>,
}

impl Mirror {
    /// The difference between the commit and the commit with these changes.
    pub fn diff(&self, commit: &str, changes: &[Change]) -> Result<Vec<u8>, MirrorError> {
        let repo = self.repo()?;
        let base = find(&repo, commit)?;
        let now = with_changes(&repo, &base, changes)?;
        print(&repo, &base, &now)
    }
}

/// A patch between contents in memory, made in a temporary repository below `scratch`. `before` has only the paths
/// that existed.
pub fn patch(scratch: &Path, before: &[Change], after: &[Change]) -> Result<Vec<u8>, MirrorError> {
    let repo = Repository::init_bare(scratch)?;
    let empty = repo.find_tree(repo.treebuilder(None)?.write()?)?;
    let old = with_changes(&repo, &empty, before)?;
    let new = with_changes(&repo, &old, after)?;
    print(&repo, &old, &new)
}

fn with_changes<'a>(repo: &'a Repository, base: &Tree<'_>, changes: &[Change]) -> Result<Tree<'a>, MirrorError> {
    let mut builder = TreeUpdateBuilder::new();
    for change in changes {
        let path = change.path.to_os_string();
        match &change.now {
            Some((content, mode)) => {
                builder.upsert(path.as_encoded_bytes(), repo.blob(content)?, file_mode(*mode));
            }
            // Removing a missing path is an error in libgit2.
            None if base.get_path(Path::new(&path)).is_err() => {}
            None => {
                builder.remove(path.as_encoded_bytes());
            }
        }
    }
    Ok(repo.find_tree(builder.create_updated(repo, base)?)?)
}

fn print(repo: &Repository, old: &Tree<'_>, new: &Tree<'_>) -> Result<Vec<u8>, MirrorError> {
    let mut options = DiffOptions::new();
    options.show_binary(true);
    let diff = repo.diff_tree_to_tree(Some(old), Some(new), Some(&mut options))?;
    let mut out = Vec::new();
    diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            out.push(line.origin() as u8);
        }
        out.extend_from_slice(line.content());
        true
    })?;
    Ok(out)
}

fn file_mode(mode: u32) -> FileMode {
    match mode {
        0o120_000 => FileMode::Link,
        mode if mode & 0o111 != 0 => FileMode::BlobExecutable,
        _ => FileMode::Blob,
    }
}

/// Lines added and removed between two contents; `None` if one is binary.
pub fn count_lines(old: &[u8], new: &[u8]) -> Option<(usize, usize)> {
    if [old, new].iter().any(|bytes| bytes.iter().take(8000).any(|b| *b == 0)) {
        return None;
    }
    let patch = git2::Patch::from_buffers(old, None, new, None, None).ok()?;
    let (_, added, removed) = patch.line_stats().ok()?;
    Some((added, removed))
}
