//! Whether the cached content of a version can be trusted.

use std::sync::Arc;

use super::state::{Content, Inner};
use crate::attr::{ContentId, Version};
use crate::cache::BlockKey;
use crate::path::RemotePath;

/// Marks the generation of content that was sent, or read while its version was racy, and not compared since.
const UNCONFIRMED_BIT: u64 = 1 << 63;

impl Content {
    /// Whether the content of this version cannot change any more without a change of the version, and the cached content
    /// is the server's.
    pub fn is_settled(&self, path: &RemotePath, version: Version) -> bool {
        self.0.is_settled(path, version)
    }

    /// Whether other content was found under this version than callers were shown. A change that is based on the version
    /// is rejected, until [`Content::accept`].
    pub fn has_changed(&self, path: &RemotePath, version: Version) -> bool {
        self.0.racy.has_changed(path, version)
    }

    /// Callers are shown the content that the server has now.
    pub fn accept(&self, path: &RemotePath) {
        self.0.generations.start(path);
        self.0.racy.forget(path);
    }
}

/// The identity of such content: see [`UNCONFIRMED_BIT`].
pub(super) fn unconfirmed(id: &ContentId) -> ContentId {
    match id {
        ContentId::Remote(path, version, generation) => {
            ContentId::Remote(path.clone(), *version, generation | UNCONFIRMED_BIT)
        }
        blob => blob.clone(),
    }
}

impl Inner {
    /// See [`Content::is_settled`].
    pub(super) fn is_settled(&self, path: &RemotePath, version: Version) -> bool {
        !self.is_racy(version) && !self.racy.is_noted(path, version)
    }

    pub(super) fn is_racy(&self, version: Version) -> bool {
        version.is_racy(self.clock.server_floor())
    }

    /// The identity by path and version, if no better one is known.
    pub(super) fn remote_id(&self, path: &RemotePath, version: Version) -> ContentId {
        ContentId::Remote(path.clone(), version, self.generations.of(path))
    }

    /// A cached block that was not compared since, for use while the server cannot be asked.
    pub(super) fn unconfirmed(&self, path: &RemotePath, version: Version, index: u64) -> Option<Arc<[u8]>> {
        let key = BlockKey { content: unconfirmed(&self.remote_id(path, version)), index };
        self.memory.get(&key).or_else(|| self.disk.as_ref()?.get(&key))
    }
}
