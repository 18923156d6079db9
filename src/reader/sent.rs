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
            AppliedChange::Content { source, attr, shown_at, .. } => {
                self.0.stored(applied.path, attr.version(), source, shown_at.as_ref());
            }
            AppliedChange::RenamedFrom(from) => self.0.renamed_on_server(from, applied.path),
            AppliedChange::Link(_) | AppliedChange::Deleted => self.0.replaced(applied.path),
        }
    }

    fn renamed(&self, from: &RemotePath, to: &RemotePath, files: &[(RemotePath, Version)]) {
        self.0.renamed(from, to, files);
    }
}
