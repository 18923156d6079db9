//! Looking at what is uncommitted: a fresh picture of the whole code directory, compared with the repository by `pending`.
//! And the committed versions, under `.pantheon/head`.

use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{FROZEN_FRESH, Fs, Layout, ListResult, Wait};
use crate::attr::{Attr, FileKind};
use crate::cache::Waiter;
use crate::inode::{Ino, ROOT};
use crate::mirror::{Committed, Ignored, Tree};
use crate::path::RemotePath;
use crate::pending::{Found, Known, LARGE_BYTES, Pending, compute};
use crate::remote::Class;

/// Files fetched ahead of the comparison.
const FETCH_AHEAD: usize = 200;
/// How long a look is good for the next name of a path.
const LOOK_FRESH: Duration = Duration::from_secs(1);
/// Content of more bytes than this is not read as a whole.
const MAX_READ_BYTES: u64 = 1024 * 1024 * 1024;
/// How long one file may take.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// When was looked last, and what came of it.
type LastLook = Option<(SystemTime, Result<Arc<Pending>, String>)>;

/// What was seen.
#[derive(Default)]
pub(super) struct Looks {
    last: Mutex<LastLook>,
    /// The ignore rules of a commit, once they are known.
    rules: Mutex<Option<Arc<Ignored>>>,
}

impl Looks {
    pub(super) fn rules(&self) -> Option<Arc<Ignored>> {
        self.rules.lock().clone()
    }
}

impl Fs {
    pub(super) fn last_look(&self) -> LastLook {
        self.0.looks.last.lock().clone()
    }

    /// Looks, unless somebody just did: a path is walked name by name.
    pub(super) fn look_if_old(&self, wait: Wait) {
        let recent = |at: SystemTime| self.0.clock.wall().duration_since(at).is_ok_and(|age| age < LOOK_FRESH);
        if !self.last_look().is_some_and(|(at, _)| recent(at)) {
            self.look(wait);
        }
    }

    /// Looks now. May take as long as reading what has changed takes.
    pub(super) fn look(&self, wait: Wait) {
        if self.0.config.mirror.is_none() {
            return;
        }
        // Which commit runs, and what the platform's own list says: both of now.
        self.0.env.refresh();
        let result = self.look_at_files(wait).map(Arc::new);
        if let Err(why) = &result {
            log::info!("what is uncommitted could not be compared: {why}");
        }
        *self.0.looks.last.lock() = Some((self.0.clock.wall(), result));
        self.review_kept(false);
    }

    fn look_at_files(&self, wait: Wait) -> Result<Pending, String> {
        let mirror = self.0.config.mirror.clone().ok_or("there is no repository")?;
        let commit = self.0.env.belief().target_commit.ok_or("the API has not said which commit runs")?;
        // What waits here is not on the server, and the comparison is with the server.
        if let Err(error) = self.sync(wait) {
            log::info!("before looking: {error}");
        }
        let found = self.picture()?;
        let next = Cell::new(0);
        let read = |object: &Found| self.read_whole(object, &found, &next);
        let known = Known {
            blob: &|object| self.0.content.proved(&self.on_server(&object.path), object.attr.version()),
            note: &|object, blob| self.0.content.verified(&self.on_server(&object.path), object.attr.version(), blob),
        };
        compute(&mirror, &commit, &found, &known, &read).map_err(|e| e.to_string())
    }

    /// Everything below the code directory but directories, listed just now, level by level.
    pub(super) fn picture(&self) -> Result<Vec<Found>, String> {
        let (mut level, mut found) = (vec![ROOT], Vec::new());
        while !level.is_empty() {
            self.list_level(&level)?;
            let mut below = Vec::new();
            for dir in level {
                for (_, view) in self.0.table.children(dir) {
                    if view.attr.is_dir() {
                        below.push(view.ino);
                    } else if let Some(path) = self.below_code(view.ino) {
                        // What the server has: times that it refused go on being shown as they were set here.
                        let there = view.server.filter(|_| view.attr.is_file()).unwrap_or(view.attr.version());
                        found.push(Found { path, attr: Attr { size: there.size, mtime: there.mtime, ..view.attr } });
                    }
                }
            }
            level = below;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Lists anew, every directory of the level at once. A listing that somebody else began earlier does not count: it may
    /// have missed what happened since.
    fn list_level(&self, level: &[Ino]) -> Result<(), String> {
        let wait = |waiter: Waiter<ListResult>| match waiter.wait(self.deadline().0) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the server did not answer in time".to_owned()),
        };
        let mut waiters = Vec::new();
        for dir in level {
            // What nobody can change need not be asked for again.
            if self.freshness(*dir) == FROZEN_FRESH && self.is_recent(self.0.table.listed(*dir), FROZEN_FRESH) {
                continue;
            }
            if let Some(earlier) = self.listing_under_way(*dir) {
                wait(earlier)?;
            }
            waiters.push(self.start_listing(*dir, Class::Interactive));
        }
        waiters.into_iter().try_for_each(wait)
    }

    fn below_code(&self, ino: Ino) -> Option<RemotePath> {
        let path = self.0.table.path(ino)?;
        let root = self.0.table.roots().iter().find(|root| root.ino == ROOT)?;
        path.strip_prefix(&root.path)
    }

    fn on_server(&self, path: &RemotePath) -> RemotePath {
        let root = self.0.table.roots().iter().find(|root| root.ino == ROOT);
        root.map_or_else(|| path.clone(), |root| root.path.join_path(path))
    }

    /// The content of one path below the code directory.
    pub(super) fn read_path(&self, path: &RemotePath, attr: Attr) -> Result<Vec<u8>, String> {
        if attr.size > MAX_READ_BYTES {
            return Err(format!("{path}: {} bytes are more than can be held in memory", attr.size));
        }
        self.read_whole(&Found { path: path.clone(), attr }, &[], &Cell::new(0))
    }

    /// The content, with the files that follow in the picture on their way.
    fn read_whole(&self, object: &Found, all: &[Found], next: &Cell<usize>) -> Result<Vec<u8>, String> {
        let path = self.on_server(&object.path);
        if object.attr.kind == FileKind::Symlink {
            return self.0.remote.readlink(&path).map_err(|e| e.to_string());
        }
        let deadline = crate::clock::Deadline::after(READ_LIMIT);
        let failed = |error| super::FsError::new("read", &path, error).to_string();
        if object.attr.version().is_racy(self.0.clock.wall()) {
            return self.0.content.read_anew(&path, object.attr.version(), deadline).map_err(failed);
        }
        let here = all.partition_point(|other| other.path < object.path);
        let mut at = next.get().max(here);
        while at < all.len().min(here + FETCH_AHEAD) {
            let other = &all[at];
            if other.attr.is_file() && other.attr.size <= LARGE_BYTES {
                self.0.content.prefetch(&self.on_server(&other.path), other.attr.version(), 0..other.attr.size);
            }
            at += 1;
        }
        next.set(at);
        let content = self.0.content.read(&path, object.attr.version(), 0..object.attr.size, deadline);
        content.map_err(failed)
    }

    /// The committed files, for `.pantheon/head`.
    pub(super) fn head_tree(&self) -> Option<Arc<Tree>> {
        let mirror = self.0.config.mirror.clone()?;
        let commit = self.0.env.belief().target_commit?;
        if !mirror.has_tree(&commit) {
            let fetched = mirror.ensure(&commit).and_then(|()| mirror.ignored(&commit));
            match fetched {
                Ok(rules) => *self.0.looks.rules.lock() = Some(Arc::new(rules)),
                Err(error) => {
                    log::info!("{error}");
                    return None;
                }
            }
        }
        mirror.tree(&commit).ok()
    }

    /// Whether the committed files can be shown without waiting.
    pub(super) fn head_is_known(&self) -> bool {
        let (mirror, commit) = (&self.0.config.mirror, self.0.env.belief().target_commit);
        mirror.as_ref().zip(commit).is_some_and(|(mirror, commit)| mirror.has_tree(&commit))
    }

    pub(super) fn head_blob(&self, file: &Committed) -> Result<Vec<u8>, String> {
        let mirror = self.0.config.mirror.clone().ok_or("there is no repository")?;
        mirror.blob(file.blob).map_err(|e| e.to_string())
    }

    /// Names directly below a committed directory, each with its file or `None` for a directory.
    pub(super) fn head_children(&self, dir: &RemotePath) -> Vec<(RemotePath, Option<Committed>)> {
        let Some(tree) = self.head_tree() else { return Vec::new() };
        let (mut out, mut dirs) = (Vec::new(), BTreeSet::new());
        for (path, file) in tree.iter() {
            let Some(rest) = path.strip_prefix(dir) else { continue };
            let mut names = rest.names();
            let (Some(first), more) = (names.next(), names.next().is_some()) else { continue };
            let child = dir.join(&first);
            if more {
                if dirs.insert(child.clone()) {
                    out.push((child, None));
                }
            } else {
                out.push((child, Some(*file)));
            }
        }
        out
    }

    /// A committed path: `Some(None)` is a directory.
    pub(super) fn head_object(&self, path: &RemotePath) -> Option<Option<Committed>> {
        let tree = self.head_tree()?;
        if let Some(file) = tree.get(path) {
            return Some(Some(*file));
        }
        let below = tree.keys().any(|other| other != path && other.starts_with(path));
        (path.is_root() || below).then_some(None)
    }

    pub(super) fn has_head(&self) -> bool {
        self.0.config.mirror.is_some() && self.0.config.layout == Layout::Pantheon
    }
}
