//! Backs up uncommitted changes before a switch to Git mode deletes them on request.

use std::collections::HashMap;

use super::backups::git_mode;
use super::state::Dot;
use crate::attr::{Attr, secs_from_time};
use crate::error::{Cause, Wait};
use crate::path::RemotePath;

impl Dot {
    /// Backs up everything that is uncommitted, and flushes it to the disk. Returns the number of paths.
    pub(super) fn keep_pending(&self, wait: Wait) -> Result<usize, Cause> {
        let Some(backups) = self.backups() else { return Ok(0) };
        let failed =
            |what: String| Cause::Busy(format!("nothing was discarded, because it could not be saved: {what}"));
        let at = u64::from(secs_from_time(self.0.view.clock().wall()));
        let commit = self.0.env.belief().target_commit;
        self.compare(wait, false);
        let mut paths: Vec<RemotePath> = match self.0.comparisons.last() {
            Some((_, Ok(pending))) => pending.files.iter().map(|file| file.path.clone()).collect(),
            // Without the repository: the paths that the platform lists, and those written through this mount.
            _ => {
                let told = self.0.env.belief().diffstat.unwrap_or_default();
                let told = told.0.iter().filter_map(|file| RemotePath::parse(&file.path).ok());
                told.chain(self.0.notes.all_written()).collect()
            }
        };
        paths.sort();
        paths.dedup();
        let found: HashMap<RemotePath, Attr> =
            self.survey().map_err(failed)?.into_iter().map(|f| (f.path, f.attr)).collect();
        for path in &paths {
            let kept_now = match found.get(path) {
                Some(attr) => {
                    let bytes = self.0.reader.read_path(path, *attr).map_err(failed)?;
                    backups.bytes(path, &bytes, git_mode(attr), at, commit.clone())
                }
                None => backups.deleted(path, at, commit.clone()),
            };
            kept_now.map_err(|error| failed(format!("{path}: {error}")))?;
        }
        backups.sync().map_err(|error| failed(error.to_string()))?;
        Ok(paths.len())
    }
}
