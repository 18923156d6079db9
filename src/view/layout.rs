//! Which directories of the server the mount shows, and where.

use crate::attr::Area;
use crate::inode::{Ino, LOGS, ROOT, Root, UPLOADS};
use crate::path::RemotePath;

/// The directory of virtual files in the root of the mount.
pub const DOT_DIR: &[u8] = b".pantheon";
/// The directory of the binding that holds the uploads.
pub const UPLOADS_DIR: &str = "files";
/// The file in the root that leads git to the git directory of this machine.
pub const GIT_FILE: &[u8] = b".git";
/// Where the uploads are shown, from the root of the mount.
pub const UPLOADS_PATH: &str = ".pantheon/files";
/// Where the logs are shown.
pub const LOGS_PATH: &str = ".pantheon/logs";

/// Which directories of the server the mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A Pantheon binding: `code` is the root; `files` and `logs` are under `.pantheon`.
    Pantheon,
    /// Any SFTP server: the path of the source is the root, and nothing else is shown.
    Plain,
}

impl Layout {
    /// The directory of the server that is shown as the root of the mount.
    pub fn root(self) -> RemotePath {
        match self {
            Layout::Pantheon => constant("code"),
            Layout::Plain => RemotePath::root(),
        }
    }

    pub(super) fn roots(self) -> Vec<Root> {
        let root = |ino, path, area| Root { ino, path, area };
        let code = root(ROOT, self.root(), Area::Code);
        match self {
            Layout::Pantheon => vec![
                code,
                root(UPLOADS, constant(UPLOADS_DIR), Area::Uploads),
                root(LOGS, constant("logs"), Area::Logs),
            ],
            Layout::Plain => vec![code],
        }
    }
}

/// A path that is written in the code.
fn constant(path: &str) -> RemotePath {
    RemotePath::parse(path).unwrap_or_else(|_| RemotePath::root())
}

/// What the root of the mount has beside the names of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) layout: Layout,
    /// Whether there is a `.git` of this machine.
    pub(super) git: bool,
}

impl Own {
    /// Whether this name in the root is the mount's own, whatever the server has.
    pub(super) fn has(self, name: &[u8]) -> bool {
        name == DOT_DIR || (self.git && name == GIT_FILE)
    }
}

/// The root of the server that a path is in: the deepest one above it.
pub(super) fn root_above<'a>(roots: &'a [Root], path: &RemotePath) -> Option<&'a Root> {
    roots.iter().filter(|root| path.starts_with(&root.path)).max_by_key(|root| root.path.depth())
}

/// Where the mount shows a root of the server, from the root of the mount.
pub(super) fn shown_at(root: Ino) -> RemotePath {
    let path = match root {
        UPLOADS => UPLOADS_PATH,
        LOGS => LOGS_PATH,
        _ => "",
    };
    constant(path)
}
