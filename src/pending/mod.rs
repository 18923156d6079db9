//! What is uncommitted: compares the server's files with the deployed commit.
//!
//! A file with another size has changed. A file with the same size is read and hashed, unless its version is proved
//! to have the committed content. Reading and proofs are provided by the caller.

use crate::attr::{Attr, BlobId, FileKind};
use crate::mirror::{Change, Committed, Mirror, MirrorError, count_lines, hash};
use crate::path::RemotePath;

/// Why there is no comparison.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PendingError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The files on the server could not be listed or read.
    #[error("{0}")]
    Server(String),
}

/// One uncommitted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingFile {
    /// Relative to the code directory.
    pub path: RemotePath,
    /// A, M or D.
    pub letter: char,
    /// Lines; `None` for binary content.
    pub lines: Option<(usize, usize)>,
}

/// The uncommitted paths, and the diff of them.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub commit: String,
    pub files: Vec<PendingFile>,
    pub diff: Vec<u8>,
    /// Files on the server that are matched by .gitignore, so that they are never committed.
    pub ignored: Vec<RemotePath>,
}

impl Pending {
    /// The part of the diff that is about one path.
    pub fn diff_of(&self, path: &RemotePath) -> Option<&[u8]> {
        split_diff(&self.diff).into_iter().find(|(name, _)| name == path.as_bytes()).map(|(_, part)| part)
    }
}

/// The part of each file, with its name; a part before the first file (a comment) has an empty name.
pub fn split_diff(text: &[u8]) -> Vec<(Vec<u8>, &[u8])> {
    const START: &[u8] = b"diff --git ";
    let mut starts: Vec<usize> =
        (0..text.len()).filter(|&at| text[at..].starts_with(START) && (at == 0 || text[at - 1] == b'\n')).collect();
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let part = |(start, end): (usize, usize)| {
        let part = &text[start..end];
        let line = part.split(|&b| b == b'\n').next().unwrap_or_default();
        // `a/NAME b/NAME`: both halves have the same length.
        let names = line.strip_prefix(START).unwrap_or_default();
        let name = names.get(2..names.len() / 2).unwrap_or_default().to_vec();
        (name, part)
    };
    starts.iter().copied().zip(ends).map(part).filter(|(_, part)| !part.is_empty()).collect()
}

/// An object on the server, below the code directory.
#[derive(Debug, Clone)]
pub struct Found {
    pub path: RemotePath,
    pub attr: Attr,
}

/// Knowledge that saves reading files.
pub struct Known<'a> {
    /// The committed blob that this version is proved to be equal to.
    pub blob: &'a dyn Fn(&Found) -> Option<BlobId>,
    /// Called with the blob of a version that was read.
    pub note: &'a dyn Fn(&Found, BlobId),
}

/// Reads the bytes of a file, or the text of a symlink.
pub type Read<'a> = &'a dyn Fn(&Found) -> Result<Vec<u8>, String>;

/// Larger files (bytes) that are new, or whose size differs from the committed one, are listed and not read.
pub const LARGE_BYTES: u64 = 64 * 1024 * 1024;

/// The comment in the diff for content that was not read.
fn unread(object: &Found) -> String {
    format!("# {}: {} bytes, too large to be shown\n", object.path.to_string().escape_debug(), object.attr.size)
}

/// Compares. `found` has all objects below the code directory, except directories.
pub fn compute(
    mirror: &Mirror,
    commit: &str,
    found: &[Found],
    known: &Known<'_>,
    read: Read<'_>,
) -> Result<Pending, PendingError> {
    mirror.ensure(commit)?;
    let mut committed = mirror.tree(commit)?.as_ref().clone();
    let rules = mirror.ignored(commit)?;
    let (mut changes, mut files, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
    let mut diff = String::new();
    for object in found {
        let Some(mode) = mode_of(&object.attr) else { continue };
        let (path, base) = (object.path.clone(), committed.remove(&object.path));
        if base.is_none() && rules.covers(&path) {
            ignored.push(path);
            continue;
        }
        let letter = if base.is_some() { 'M' } else { 'A' };
        if object.attr.size > LARGE_BYTES && base.is_none_or(|base| base.size != object.attr.size) {
            diff += &unread(object);
            files.push(PendingFile { path, letter, lines: None });
            continue;
        }
        let (old, now) = match base {
            None => (Vec::new(), read(object).map_err(PendingError::Server)?),
            Some(base) => match changed(&base, object, mode, known, read)? {
                Some(now) => (mirror.blob(base.blob)?, now),
                None => continue,
            },
        };
        files.push(PendingFile { path: path.clone(), letter, lines: count_lines(&old, &now) });
        changes.push(Change { path, now: Some((now, mode)) });
    }
    for (path, base) in committed {
        files.push(PendingFile { path: path.clone(), letter: 'D', lines: count_lines(&mirror.blob(base.blob)?, &[]) });
        changes.push(Change { path, now: None });
    }
    let mut diff = diff.into_bytes();
    diff.extend(mirror.diff(commit, &changes)?);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Pending { commit: commit.to_owned(), files, diff, ignored })
}

/// Git has three modes for files; other objects are not tracked.
fn mode_of(attr: &Attr) -> Option<u32> {
    match attr.kind {
        FileKind::File if attr.perm & 0o100 != 0 => Some(0o100_755),
        FileKind::File => Some(0o100_644),
        FileKind::Symlink => Some(0o120_000),
        FileKind::Directory | FileKind::Other => None,
    }
}

/// The new content, if it differs.
fn changed(
    base: &Committed,
    object: &Found,
    mode: u32,
    known: &Known<'_>,
    read: Read<'_>,
) -> Result<Option<Vec<u8>>, PendingError> {
    let same_mode = base.mode == mode;
    if same_mode && base.size == object.attr.size && (known.blob)(object) == Some(base.blob) {
        return Ok(None);
    }
    let content = read(object).map_err(PendingError::Server)?;
    let blob = hash(&content)?;
    if blob == base.blob && object.attr.is_file() {
        (known.note)(object, blob);
    }
    Ok((!same_mode || blob != base.blob).then_some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_split_by_files() {
        let text = b"diff --git a/x y b/x y\n+diff --git a/n b/n\ndiff --git a/d/e b/d/e\n-1\n";
        let parts = split_diff(text);
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].0.as_slice(), parts[1].0.as_slice()), (&b"x y"[..], &b"d/e"[..]));
        assert_eq!(parts[1].1, b"diff --git a/d/e b/d/e\n-1\n");
        assert_eq!(split_diff(b"# none\n")[0].0, b"");
        assert!(split_diff(b"").is_empty());
    }
}
