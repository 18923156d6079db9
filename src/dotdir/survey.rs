//! The survey: lists all objects below the code directory, except directories.

use super::state::Dot;
use crate::attr::Attr;
use crate::inode::{Ino, ROOT};
use crate::mirror::{has_rules, is_git};
use crate::pending::Found;
use crate::view::{Renew, Unlisted};

impl Dot {
    /// All objects on the server, in path order.
    ///
    /// # Errors
    ///
    /// A text for the log: the error of the server, or that it did not answer in time.
    pub(super) fn survey(&self) -> Result<Vec<Found>, String> {
        let view = &self.0.view;
        let swept = view.sweep(Renew::Everything, |dir| self.is_surveyed(dir), || view.deadline());
        swept.map_err(|why| match why {
            Unlisted::Remote(error) => error.to_string(),
            Unlisted::TimedOut => "the server did not answer in time".to_owned(),
        })?;
        let (mut dirs, mut found) = (vec![ROOT], Vec::new());
        while let Some(dir) = dirs.pop() {
            for (_, node) in view.children(dir).into_iter().filter(|(_, node)| !node.only_here) {
                if node.attr.is_dir() {
                    dirs.extend(Some(node.ino).filter(|_| self.is_surveyed(node.ino)));
                } else if let Some(path) = view.below_code(node.ino).filter(|path| !is_git(path) || has_rules(path)) {
                    // The server's version, because times that the server refused to set stay shown locally.
                    let there = node.server.filter(|_| node.attr.is_file()).unwrap_or(node.attr.version());
                    found.push(Found { path, attr: Attr { size: there.size, mtime: there.mtime, ..node.attr } });
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Whether the directory is listed. In a git directory only files with rules matter, and only in the top-level one.
    pub(super) fn is_surveyed(&self, dir: Ino) -> bool {
        let Some(path) = self.0.view.below_code(dir) else { return false };
        !is_git(&path) || [&b".git"[..], b".git/info"].contains(&path.as_bytes())
    }
}
