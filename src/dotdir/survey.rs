//! The survey: lists all objects below the code directory, except directories.

use super::state::Dot;
use crate::attr::Attr;
use crate::cache::Waiter;
use crate::inode::{Ino, ROOT};
use crate::mirror::{has_rules, is_git};
use crate::pending::Found;
use crate::remote::Class;
use crate::view::{FROZEN_FRESH, ListResult};

impl Dot {
    /// All objects on the server, level by level, in path order.
    ///
    /// # Errors
    ///
    /// A text for the log: the error of the server, or that it did not answer in time.
    pub(super) fn survey(&self) -> Result<Vec<Found>, String> {
        let view = &self.0.view;
        let (mut level, mut found) = (vec![ROOT], Vec::new());
        while !level.is_empty() {
            self.list_level(&level)?;
            let mut below = Vec::new();
            for dir in level {
                for (_, node) in view.children(dir).into_iter().filter(|(_, node)| !node.only_here) {
                    if node.attr.is_dir() {
                        below.extend(Some(node.ino).filter(|_| self.is_surveyed(node.ino)));
                    } else if let Some(path) = view.below_code(node.ino).filter(|path| !is_git(path) || has_rules(path))
                    {
                        // The server's version, because times that the server refused to set stay shown locally.
                        let there = node.server.filter(|_| node.attr.is_file()).unwrap_or(node.attr.version());
                        found.push(Found { path, attr: Attr { size: there.size, mtime: there.mtime, ..node.attr } });
                    }
                }
            }
            level = below;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Whether the directory is listed. In a git directory only files with rules matter, and only in the top-level one.
    fn is_surveyed(&self, dir: Ino) -> bool {
        let Some(path) = self.0.view.below_code(dir) else { return false };
        !is_git(&path) || [&b".git"[..], b".git/info"].contains(&path.as_bytes())
    }

    /// Renews the listings of all directories of a level at once. A listing that began earlier does not count,
    /// because it may have missed later changes.
    fn list_level(&self, level: &[Ino]) -> Result<(), String> {
        let view = &self.0.view;
        let wait = |waiter: Waiter<ListResult>| match waiter.wait(view.deadline().0) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the server did not answer in time".to_owned()),
        };
        let mut waiters = Vec::new();
        for dir in level {
            // Frozen directories need not be listed again.
            if view.freshness(*dir) == FROZEN_FRESH && view.is_listed_within(*dir, FROZEN_FRESH) {
                continue;
            }
            if let Some(earlier) = view.listing_under_way(*dir) {
                wait(earlier)?;
            }
            waiters.push(view.start_listing(*dir, Class::Interactive));
        }
        waiters.into_iter().try_for_each(wait)
    }
}
