//! What is uncommitted, by looking: the server's files against the commit that the environment runs, as git itself would say
//! on the server's work tree.
//!
//! A file whose size differs has changed, unless its bytes are converted on their way into a commit. One whose size is the
//! same is read and hashed, unless it is proved to be what was committed. Reading and proofs are asked of the caller, who
//! knows where bytes come from. Large contents are never held as a whole.

mod compare;
mod diff_file;

use std::sync::Arc;

pub use compare::compute;
pub use diff_file::DiffFile;

use crate::attr::{Attr, BlobId};
use crate::mirror::MirrorError;
use crate::path::RemotePath;

/// Why there is no list.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PendingError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The server could not be looked at.
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
    /// Lines; `None` for binary content, and where both sides are not held in the memory.
    pub lines: Option<(usize, usize)>,
}

/// The uncommitted paths, and the diff that makes them where it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub commit: String,
    pub files: Vec<PendingFile>,
    pub diff: Option<Arc<DiffFile>>,
    /// Written on the server, and no commit will ever have them.
    pub ignored: Vec<RemotePath>,
}

/// Each file's part with its name; what comes before the first (a remark) has no name.
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
        // `a/NAME b/NAME`: both halves are as long.
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

/// What reading a version in full has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    pub blob: BlobId,
    /// Lines, as git counts them.
    pub lines: usize,
    pub binary: bool,
}

/// Where contents come from, and what need not be read again.
pub trait Source {
    /// The committed content that this version is proved to be.
    fn proved(&self, object: &Found) -> Option<BlobId>;

    /// What an earlier look measured of this very version.
    fn measured(&self, object: &Found) -> Option<Measured>;

    /// It was read in full.
    fn note(&self, object: &Found, measured: Measured);

    /// The bytes of a file, in order, or the text of a link.
    ///
    /// # Errors
    ///
    /// A text for people: what the server said, or what `sink` did.
    fn read(&self, object: &Found, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), String>;
}

/// Files larger than this (bytes) that are new, or have another size than the committed one, are named and not read.
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
