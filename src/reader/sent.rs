//! What was sent, moved or renamed goes into the caches, under the name and version that it has now.

use crate::attr::Version;
use crate::content::Content;
use crate::path::RemotePath;
use crate::upload::{Applied, AppliedChange, Listener};

/// Keeps the caches up to date with what `upload` does.
pub(super) struct CacheFollower(pub(super) Content);

impl Listener for CacheFollower {
    fn applied(&self, applied: &Applied<'_>) {
        match &applied.change {
            AppliedChange::Content { source, attr, newest, .. } => {
                self.0.stored(applied.path, attr.version(), source, *newest);
            }
            AppliedChange::MovedFrom(from) => self.0.moved(from, applied.path),
            AppliedChange::Link(_) | AppliedChange::Deleted => self.0.replaced(applied.path),
        }
    }

    fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Option<Version>) {
        match version {
            Some(version) => self.0.renamed(from, to, version),
            // A directory: what is below has other names now, and those that it had may come again.
            None => [from, to].into_iter().for_each(|path| self.0.replaced(path)),
        }
    }
}
