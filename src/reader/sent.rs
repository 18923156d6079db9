//! Updates the caches with what was sent or renamed, under its present name and version.

use crate::attr::Version;
use crate::content::Content;
use crate::path::RemotePath;
use crate::upload::{Applied, AppliedChange, Listener};

/// Updates the caches with the events of `upload`.
pub(super) struct CacheFollower(pub(super) Content);

impl Listener for CacheFollower {
    fn applied(&self, applied: &Applied<'_>) {
        match &applied.change {
            AppliedChange::Content { source, attr, newest, .. } => {
                self.0.stored(applied.path, attr.version(), source, *newest);
            }
            AppliedChange::RenamedFrom(from) => self.0.renamed_on_server(from, applied.path),
            AppliedChange::Link(_) | AppliedChange::Deleted => self.0.replaced(applied.path),
        }
    }

    fn renamed(&self, from: &RemotePath, to: &RemotePath, version: Option<Version>) {
        match version {
            Some(version) => self.0.renamed(from, to, version),
            // A directory, or a file that the server does not have: cached content of both paths is outdated.
            None => [from, to].into_iter().for_each(|path| self.0.replaced_locally(path)),
        }
    }
}
