//! What is uncommitted: compares the server's files with the deployed commit, as git would on the server's work tree.
//!
//! A file with another size has changed, unless git converts its bytes for a commit. A file with the same size is read
//! and hashed, unless its version is proved to have the committed content. Reading and proofs are provided by the
//! caller. Large contents are never held in memory as a whole.

mod compare;
mod diff_file;

use std::sync::Arc;

pub use compare::compute;
pub use diff_file::DiffFile;

use crate::attr::{Attr, BlobId};
use crate::mirror::MirrorError;
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

impl From<std::io::Error> for PendingError {
    fn from(error: std::io::Error) -> Self {
        Self::Mirror(error.into())
    }
}

/// One uncommitted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingFile {
    /// Relative to the code directory.
    pub path: RemotePath,
    /// A, M or D.
    pub letter: char,
    /// Lines; `None` for binary content, and if a side is too large for memory.
    pub lines: Option<(usize, usize)>,
}

/// The uncommitted paths, and the diff of them if it was requested.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub commit: String,
    pub files: Vec<PendingFile>,
    pub diff: Option<Arc<DiffFile>>,
    /// Files on the server that are ignored by git's rules, so that they are never committed.
    pub ignored: Vec<RemotePath>,
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

/// The result of reading a version in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    pub blob: BlobId,
    /// Number of lines, as git counts them.
    pub lines: usize,
    pub binary: bool,
}

/// Reads contents, and knows results that save reading files.
pub trait Source {
    /// The committed blob that this version is proved to be equal to.
    fn proved(&self, object: &Found) -> Option<BlobId>;

    /// The result of an earlier comparison that read this version.
    fn measured(&self, object: &Found) -> Option<Measured>;

    /// Called with the result of a version that was read in full.
    fn note(&self, object: &Found, measured: Measured);

    /// Passes the bytes of a file in order, or the text of a symlink, to `sink`.
    ///
    /// # Errors
    ///
    /// The error of the server or of `sink`, as text for the user.
    fn read(&self, object: &Found, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), String>;
}

/// Larger files (bytes) that are new, or whose size differs from the committed one, are listed and not read.
pub const LARGE_BYTES: u64 = 64 * 1024 * 1024;

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
