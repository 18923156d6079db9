//! Kept copies of what is changed in code through this mount, and what became of them on the server: seen committed, they
//! go; gone after a migration or a switch, they are named.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::{Cause, Fs, Layout, Wait};
use crate::attr::{Area, Attr, BlobId, FileKind, secs_from_time};
use crate::mirror::{Tree, hash};
use crate::path::RemotePath;
use crate::write::{Backup, Backups, What};

/// What was done to a path of code, on the server, by us.
pub(super) enum AppliedChange<'a> {
    Content(&'a File, Attr),
    Link(&'a [u8]),
    Deleted,
    MovedFrom(&'a RemotePath),
}

/// What git calls the mode of an object.
fn git_mode(attr: &Attr) -> u32 {
    match attr.kind {
        FileKind::Symlink => 0o120_000,
        _ if attr.perm & 0o100 != 0 => 0o100_755,
        _ => 0o100_644,
    }
}

impl Fs {
    fn kept_in(&self, area: Area) -> Option<&Arc<Backups>> {
        let has_commits = area == Area::Code && self.0.config.layout == Layout::Pantheon;
        self.0.config.kept.as_ref().filter(|_| has_commits)
    }

    /// A change reached the server: it is remembered, and kept until it is committed.
    pub(super) fn note_done(&self, area: Area, path: &RemotePath, change: AppliedChange<'_>) {
        if area != Area::Code {
            return;
        }
        let shown = self.shown_path(path);
        self.0.notes.written(&shown);
        if let AppliedChange::MovedFrom(from) = change {
            self.0.notes.written(&self.shown_path(from));
        }
        self.warn_if_ignored(&shown);
        let Some(kept) = self.kept_in(area) else { return };
        let at = u64::from(secs_from_time(self.0.clock.wall()));
        let commit = self.0.env.belief().target_commit;
        let done = match change {
            AppliedChange::Content(file, attr) => kept.content(&shown, file, (attr.size, git_mode(&attr)), at, commit),
            AppliedChange::Link(text) => kept.bytes(&shown, text, 0o120_000, at, commit),
            AppliedChange::Deleted => kept.deleted(&shown, at, commit),
            AppliedChange::MovedFrom(from) => kept.moved(&self.shown_path(from), &shown, at, commit),
        };
        if let Err(error) = done {
            log::error!("{shown}: is on the server, but no copy could be kept here: {error}");
        }
    }

    /// Says once per path that what was written there can never be committed.
    fn warn_if_ignored(&self, path: &RemotePath) {
        let Some(rules) = self.0.looks.rules() else { return };
        if rules.covers(path) && self.0.notes.ignored(path) {
            log::warn!("{path}: is matched by .gitignore: it is on the server, but no commit will ever have it");
        }
    }

    /// Forgets the copies that the running commit has, and compares the others with the server if `compare`.
    pub(super) fn review_kept(&self, compare: bool) {
        let Some(kept) = self.kept_in(Area::Code) else { return };
        if let Some(tree) = self.head_tree() {
            let committed = |path: &RemotePath| committed(&tree, path);
            if let Err(error) = kept.settle(committed) {
                log::error!("the kept copies could not be looked through: {error}");
            }
        }
        if compare && kept.summary().0 > 0 {
            match self.lost_copies(kept) {
                Ok(lost) => {
                    for path in &lost {
                        log::warn!(
                            "{path}: what was written here is not on the server any more; pantheonfs rescue list"
                        );
                    }
                    self.0.notes.lost(lost);
                }
                Err(error) => log::warn!("the kept copies could not be compared with the server: {error}"),
            }
        }
    }

    /// In the background: what turned may have made copies superfluous, or precious.
    pub(super) fn review_kept_soon(&self, compare: bool) {
        if self.kept_in(Area::Code).is_none_or(|kept| kept.summary().0 == 0) {
            return;
        }
        let fs = self.clone();
        let run = move || fs.review_kept(compare);
        if let Err(error) = std::thread::Builder::new().name("kept".into()).spawn(run) {
            log::error!("the kept copies are not looked through: {error}");
        }
    }

    /// Copies that the server does not have as they were written.
    fn lost_copies(&self, kept: &Backups) -> Result<Vec<RemotePath>, String> {
        let found: HashMap<RemotePath, Attr> = self.picture()?.into_iter().map(|f| (f.path, f.attr)).collect();
        let mut lost = Vec::new();
        for copy in kept.copies() {
            if !self.is_there(&copy, &found)? {
                lost.push(copy.path);
            }
        }
        Ok(lost)
    }

    fn is_there(&self, copy: &Backup, found: &HashMap<RemotePath, Attr>) -> Result<bool, String> {
        Ok(match &copy.what {
            What::Deleted => !found.contains_key(&copy.path),
            What::Moved { .. } => found.keys().any(|path| path.starts_with(&copy.path)),
            What::Content { blob, size, .. } => match found.get(&copy.path) {
                Some(attr) if attr.size == *size => {
                    hash(&self.read_path(&copy.path, *attr)?).map_err(|e| e.to_string())? == *blob
                }
                _ => false,
            },
        })
    }

    /// Before uncommitted work is deleted on purpose: everything of it is kept here, on the disk.
    pub(super) fn keep_pending(&self, wait: Wait) -> Result<usize, Cause> {
        let Some(kept) = self.kept_in(Area::Code) else { return Ok(0) };
        let failed =
            |what: String| Cause::Busy(format!("nothing was discarded, because it could not be saved: {what}"));
        let at = u64::from(secs_from_time(self.0.clock.wall()));
        let commit = self.0.env.belief().target_commit;
        self.look(wait);
        let mut paths: Vec<RemotePath> = match self.last_look() {
            Some((_, Ok(pending))) => pending.files.iter().map(|file| file.path.clone()).collect(),
            // Without the repository: what the platform lists, and what was written here.
            _ => {
                let told = self.0.env.belief().diffstat.unwrap_or_default();
                let told = told.0.iter().filter_map(|file| RemotePath::parse(&file.path).ok());
                told.chain(self.0.notes.all_written()).collect()
            }
        };
        paths.sort();
        paths.dedup();
        let found: HashMap<RemotePath, Attr> =
            self.picture().map_err(failed)?.into_iter().map(|f| (f.path, f.attr)).collect();
        for path in &paths {
            let kept_now = match found.get(path) {
                Some(attr) => {
                    let bytes = self.read_path(path, *attr).map_err(failed)?;
                    kept.bytes(path, &bytes, git_mode(attr), at, commit.clone())
                }
                None => kept.deleted(path, at, commit.clone()),
            };
            kept_now.map_err(|error| failed(format!("{path}: {error}")))?;
        }
        kept.sync().map_err(|error| failed(error.to_string()))?;
        Ok(paths.len())
    }

    /// How many copies are kept, and since when the oldest.
    pub(super) fn kept_summary(&self) -> (usize, Option<u64>) {
        self.kept_in(Area::Code).map_or((0, None), |kept| kept.summary())
    }

    /// The connection leads elsewhere than it did: what was uncommitted may not have moved along.
    pub(super) fn on_migration(&self, what: &str) {
        log::warn!("the environment has moved ({what}): everything is looked at anew");
        self.renew_everything();
        self.0.content.forget_proofs();
        self.review_kept_soon(true);
    }
}

/// What the commit has at a path: a file with its mode, or something below it.
fn committed(tree: &Tree, path: &RemotePath) -> Option<(BlobId, u32)> {
    let file = tree.get(path).map(|file| (file.blob, file.mode));
    let below = || tree.range(path.clone()..).take(2).any(|(other, _)| other != path && other.starts_with(path));
    file.or_else(|| below().then_some((BlobId([0; 20]), 0o040_000)))
}
