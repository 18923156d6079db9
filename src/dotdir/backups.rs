//! Backups of the code that was changed through this mount, and their review: a backup is dropped when the deployed
//! commit has the change, and reported when the change is gone from the server after a migration or a switch.

use std::collections::HashMap;
use std::sync::Arc;

use super::state::Dot;
use crate::attr::{Area, Attr, BlobId, FileKind, secs_from_time};
use crate::mirror::{Tree, hash};
use crate::path::RemotePath;
use crate::upload::{Applied, AppliedChange};
use crate::write::{Backup, Backups, What};

/// Git's mode of symlinks.
const LINK_MODE: u32 = 0o120_000;

/// Git's mode of an object.
pub(super) fn git_mode(attr: &Attr) -> u32 {
    match attr.kind {
        FileKind::Symlink => LINK_MODE,
        _ if attr.perm & 0o100 != 0 => 0o100_755,
        _ => 0o100_644,
    }
}

impl Dot {
    pub(super) fn backups(&self) -> Option<&Arc<Backups>> {
        self.0.config.backups.as_ref().filter(|_| self.0.view.is_pantheon())
    }

    /// Backs up a change of code that reached the server, until it is committed.
    pub(super) fn back_up(&self, applied: &Applied<'_>) {
        let Some(backups) = self.backups().filter(|_| applied.area == Area::Code) else { return };
        let shown = self.0.view.shown_path(applied.path);
        let at = u64::from(secs_from_time(self.0.view.clock().wall()));
        let commit = self.0.env.belief().target_commit;
        let done = match &applied.change {
            AppliedChange::Content { source, attr, .. } => {
                backups.content(&shown, source, (attr.size, git_mode(attr)), at, commit)
            }
            AppliedChange::Link(text) => backups.bytes(&shown, text, LINK_MODE, at, commit),
            AppliedChange::Deleted => backups.deleted(&shown, at, commit),
            AppliedChange::RenamedFrom(from) => backups.renamed(&self.0.view.shown_path(from), &shown, at, commit),
        };
        if let Err(error) = done {
            log::error!("{shown}: it is on the server, but could not be backed up: {error}");
        }
    }

    /// Drops the backups that the deployed commit has, and compares the others with the server if `compare`.
    pub(super) fn review_backups(&self, compare: bool) {
        let Some(backups) = self.backups() else { return };
        if let Some(tree) = self.0.reader.repository().tree() {
            let committed = |path: &RemotePath| committed(&tree, path);
            if let Err(error) = backups.drop_committed(committed) {
                log::error!("the backups could not be reviewed: {error}");
            }
        }
        if compare && backups.summary().0 > 0 {
            match self.lost_backups(backups) {
                Ok(lost) => {
                    for path in &lost {
                        log::warn!(
                            "{path}: the change that was made through this mount is not on the server any more; see pantheonfs rescue list"
                        );
                    }
                    self.0.notes.lost(lost);
                }
                Err(error) => log::warn!("the backups could not be compared with the server: {error}"),
            }
        }
    }

    /// Reviews the backups in the background, after a change of the environment: changes may have been committed, or
    /// lost.
    pub(super) fn review_backups_soon(&self, compare: bool) {
        if self.backups().is_none_or(|backups| backups.summary().0 == 0) {
            return;
        }
        let dot = self.clone();
        let run = move || dot.review_backups(compare);
        if let Err(error) = std::thread::Builder::new().name("backups".into()).spawn(run) {
            log::error!("the backups are not reviewed: {error}");
        }
    }

    /// The paths whose backups differ from the server.
    fn lost_backups(&self, backups: &Backups) -> Result<Vec<RemotePath>, String> {
        let found: HashMap<RemotePath, Attr> = self.survey()?.into_iter().map(|f| (f.path, f.attr)).collect();
        let mut lost = Vec::new();
        for copy in backups.copies() {
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
                    hash(&self.0.reader.read_path(&copy.path, *attr)?).map_err(|e| e.to_string())? == *blob
                }
                _ => false,
            },
        })
    }

    /// How many backups there are, and the time of the oldest (seconds since the epoch).
    pub(super) fn backups_summary(&self) -> (usize, Option<u64>) {
        self.backups().map_or((0, None), |backups| backups.summary())
    }
}

/// The blob and git mode that the commit has at a path; for a directory with committed files, a zero blob and git's
/// mode of directories.
fn committed(tree: &Tree, path: &RemotePath) -> Option<(BlobId, u32)> {
    let file = tree.get(path).map(|file| (file.blob, file.mode));
    let below = || tree.range(path.clone()..).take(2).any(|(other, _)| other != path && other.starts_with(path));
    file.or_else(|| below().then_some((BlobId([0; 20]), 0o040_000)))
}
