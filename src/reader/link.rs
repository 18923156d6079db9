//! readlink, and where symlinks may lead: inside the mount, by a relative path. The platform's symlink to the uploads
//! leads out of the code directory; it is shown as a symlink to `.pantheon/files`.

use super::state::Reader;
use crate::attr::FileKind;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::Ino;
use crate::path::{LinkTarget, RemotePath, resolve_link};
use crate::remote::Link;
use crate::view::UPLOADS_PATH;

/// The directory of the binding that holds the uploads.
const UPLOADS_DIR: &[u8] = b"files";

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
                self.0.remote.readlink(&path).map_err(|e| self.noted(FsError::new("readlink", &path, e)))?
            }
        };
        self.shown_link(&path, &text)
            .ok_or_else(|| FsError::new("readlink", path, Cause::NotPermitted("the symlink leads out of the mount")))
    }

    /// The text to show for a symlink of the server; `None` if it leads out of the mount.
    fn shown_link(&self, link: &RemotePath, text: &[u8]) -> Option<Vec<u8>> {
        let root = self.0.view.root_above(link)?;
        let inside = link.strip_prefix(&root.path)?;
        if let LinkTarget::Inside(target) = resolve_link(&inside, text) {
            if !turns_back(text) {
                return Some(text.to_vec());
            }
            let there = self.0.view.shown_path(&root.path.join_path(&target));
            return Some(relative(&self.0.view.shown_path(link), &there));
        }
        let target = self.server_target(link, text)?;
        let here = self.0.view.shown_path(link);
        let there = if let Some(rest) = target.strip_prefix(&root.path) {
            self.0.view.shown_path(&root.path.join_path(&rest))
        } else if self.0.view.is_pantheon() {
            let uploads = RemotePath::parse(UPLOADS_DIR).ok()?;
            let rest = target.strip_prefix(&uploads)?;
            RemotePath::parse(UPLOADS_PATH).ok()?.join_path(&rest)
        } else {
            return None;
        };
        Some(relative(&here, &there))
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

/// A relative text for a symlink `from` that leads to `to`, both relative to the same root.
fn relative(from: &RemotePath, to: &RemotePath) -> Vec<u8> {
    let up = from.depth().saturating_sub(1);
    let mut text = b"../".repeat(up);
    text.extend_from_slice(to.as_bytes());
    if text.is_empty() { b".".to_vec() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_texts_climb_to_the_root_of_the_mount() {
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        assert_eq!(relative(&path("wp-content/uploads"), &path(".pantheon/files")), b"../.pantheon/files");
        assert_eq!(relative(&path("link"), &path("a/b")), b"a/b");
    }

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
