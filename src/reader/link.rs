//! readlink, and where symlinks may lead: by default inside the mount, unless they were made through it or are committed.
//! The platform's symlink to the uploads leads out of the code directory; it is shown as a symlink to `.pantheon/files`.

use std::time::Duration;

use super::state::{Links, Reader};
use crate::attr::FileKind;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::mirror::{Committed, hash};
use crate::path::{LinkTarget, RemotePath, resolve_link};
use crate::remote::{Link, RemoteError};
use crate::view::{UPLOADS_DIR, UPLOADS_PATH, outside_path};

/// Git's mode of a symlink.
const SYMLINK_MODE: u32 = 0o120_000;

impl Reader {
    pub fn readlink(&self, ino: Ino, wait: Wait) -> FsResult<Vec<u8>> {
        let view = &self.0.view;
        let path = view.object(ino);
        let node = view.fresh_node("readlink", ino, view.freshness(ino), wait)?;
        if node.attr.kind != FileKind::Symlink {
            return Err(FsError::new("readlink", path, Cause::Invalid("not a symlink".into())));
        }
        let Wait::Until(deadline) = wait else { return Err(FsError::new("readlink", path, Cause::WouldBlock)) };
        let text = match self.0.upload.link_text(ino, &path) {
            Some(text) => text,
            None => {
                view.wait_until_there(&path, deadline).map_err(|cause| FsError::new("readlink", &path, cause))?;
                self.0.remote.readlink(&path).map_err(|error| self.unread(ino, &path, error, wait))?
            }
        };
        Ok(self.shown_link(ino, &path, text))
    }

    /// READLINK failed. If that is because another writer has put something else there, the caller is to look it up again.
    fn unread(&self, ino: Ino, path: &RemotePath, error: RemoteError, wait: Wait) -> FsError {
        if !error.kind.is_unanswered()
            && let Some(node) = self.0.view.node(ino)
        {
            self.0.view.expire(node.parent);
            let now = self.0.view.fresh_node("readlink", ino, Duration::ZERO, wait);
            let is_another = match &now {
                Ok(now) => now.unlinked || now.attr.kind != FileKind::Symlink,
                Err(error) => matches!(error.cause, Cause::NotFound),
            };
            if is_another {
                return FsError::new("readlink", path, Cause::Stale);
            }
        }
        self.noted(FsError::new("readlink", path, error))
    }

    /// The text to show for a symlink.
    fn shown_link(&self, ino: Ino, link: &RemotePath, text: Vec<u8>) -> Vec<u8> {
        let shown = self.0.view.shown_path(link);
        if let Some(uploads) = self.uploads_text(link, &text) {
            return uploads;
        }
        let trusted = || self.0.upload.made_link(&shown, &text) || self.is_committed(ino, &text);
        if self.0.config.links == Links::AsIs || trusted() {
            return text;
        }
        self.inside_text(link, &text).unwrap_or_else(|| outside_path(&text).relative_from(&shown))
    }

    /// Whether the repository has this symlink with this text at the commit of the environment. Sends no request.
    fn is_committed(&self, ino: Ino, text: &[u8]) -> bool {
        let repository = &self.0.repository;
        let committed = || repository.object(&self.0.view.below_code(ino)?).flatten();
        let is_same = |file: Committed| file.mode == SYMLINK_MODE && hash(text).is_ok_and(|blob| blob == file.blob);
        repository.is_known() && committed().is_some_and(is_same)
    }

    /// The text to show for a symlink from the code to the uploads.
    fn uploads_text(&self, link: &RemotePath, text: &[u8]) -> Option<Vec<u8>> {
        let target = self.server_target(link, text).filter(|_| self.0.view.is_pantheon())?;
        let uploads = RemotePath::parse(UPLOADS_DIR).ok().filter(|uploads| !link.starts_with(uploads))?;
        let there = RemotePath::parse(UPLOADS_PATH).ok()?.join_path(&target.strip_prefix(&uploads)?);
        Some(there.relative_from(&self.0.view.shown_path(link)))
    }

    /// The text to show for a symlink of the server that stays inside; `None` if it leads out of the mount.
    fn inside_text(&self, link: &RemotePath, text: &[u8]) -> Option<Vec<u8>> {
        let root = self.0.view.root_above(link)?;
        let inside = link.strip_prefix(&root.path)?;
        if let LinkTarget::Inside(target) = resolve_link(&inside, text) {
            if !turns_back(text) {
                return Some(text.to_vec());
            }
            let there = self.0.view.shown_path(&root.path.join_path(&target));
            return Some(there.relative_from(&self.0.view.shown_path(link)));
        }
        let target = self.server_target(link, text)?;
        let rest = target.strip_prefix(&root.path)?;
        Some(self.0.view.shown_path(&root.path.join_path(&rest)).relative_from(&self.0.view.shown_path(link)))
    }

    /// The path on the server, below the login directory, that the text names.
    fn server_target(&self, link: &RemotePath, text: &[u8]) -> Option<RemotePath> {
        match resolve_link(link, text) {
            LinkTarget::Inside(path) => Some(path),
            LinkTarget::Escapes => None,
            LinkTarget::Absolute => {
                let Link::Up { home, .. } = self.0.remote.link() else { return None };
                let rest = text.strip_prefix(home.as_slice())?;
                rest.starts_with(b"/").then(|| RemotePath::parse(rest).ok()).flatten()
            }
        }
    }
}

/// Whether the text contains `..` after a name. If a name on the way is a symlink itself, the kernel applies `..` to
/// the directory that it leads to, which may be the root of the mount. The text alone would seem to stay inside.
fn turns_back(text: &[u8]) -> bool {
    let mut parts = text.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.by_ref().any(|part| part != b"..") && parts.any(|part| part == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_climb_after_going_down_are_told() {
        for text in ["a/../b", "../a/..", "a/b/./../c"] {
            assert!(turns_back(text.as_bytes()), "{text}");
        }
        for text in ["a/b", "../../a/b", "..", "./../x", "a/..b"] {
            assert!(!turns_back(text.as_bytes()), "{text}");
        }
    }
}
