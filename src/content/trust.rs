//! What is held of a version, and whether it may be believed.

use std::sync::Arc;

use super::state::{Content, Inner};
use crate::attr::{ContentId, Version};
use crate::cache::BlockKey;
use crate::path::RemotePath;

/// Marks generations of what was sent from here, or read too early, and not compared since.
const UNPROVED_BIT: u64 = 1 << 63;

impl Content {
    /// Whether the content of this version cannot become another one without the version moving, and what is held of it is
    /// that content.
    pub fn is_settled(&self, path: &RemotePath, version: Version) -> bool {
        self.0.is_settled(path, version)
    }
}

/// What a content is called that was sent from here and has not been compared since.
pub(super) fn unproved(id: &ContentId) -> ContentId {
    match id {
        ContentId::Remote(path, version, generation) => {
            ContentId::Remote(path.clone(), *version, generation | UNPROVED_BIT)
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

    /// What is called by path and version, since nothing better is known.
    pub(super) fn remote_id(&self, path: &RemotePath, version: Version) -> ContentId {
        ContentId::Remote(path.clone(), version, self.generations.of(path))
    }

    /// A block that was sent from here, for when the server cannot be asked whether it still is what is there.
    pub(super) fn unproved(&self, path: &RemotePath, version: Version, index: u64) -> Option<Arc<[u8]>> {
        let key = BlockKey { content: unproved(&self.remote_id(path, version)), index };
        self.memory.get(&key).or_else(|| self.disk.as_ref()?.get(&key))
    }
}
