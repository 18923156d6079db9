//! What is mounted where: each driver leaves a record in its state directory (`mount.json`), so that the mounts of a user
//! are found although some of them do not answer, and directories that were made for a mount are removed after it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environ::Environ;
use super::exit::{CliResult, failed};
use super::private_dir::read_own;
use super::{lock, mountpoint};
use crate::durable;

const NAME: &str = "mount.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) source: String,
    pub(super) mountpoint: PathBuf,
    pub(super) pid: u32,
    /// Directories that were made for the mount, the outermost first.
    pub(super) made: Vec<PathBuf>,
}

/// A mount of this user.
#[derive(Debug, Clone)]
pub(super) struct UserMount {
    pub(super) record: Record,
    /// Whether its driver runs.
    pub(super) alive: bool,
}

/// Leaves the record of a mount.
pub(super) fn write(state_dir: &Path, record: &Record) {
    let written = durable::replace(&state_dir.join(NAME), |file| Ok(serde_json::to_writer_pretty(file, record)?));
    if let Err(error) = written {
        log::warn!("{}: {error}; `pantheonfs list` does not show this mount", state_dir.display());
    }
}

/// Removes the record of a mount that has ended.
pub(super) fn remove(state_dir: &Path) {
    if let Err(error) = fs::remove_file(state_dir.join(NAME)) {
        log::info!("{}: {error}", state_dir.join(NAME).display());
    }
}

/// All records with their state directories.
fn all(around: &Environ) -> CliResult<Vec<(PathBuf, Record)>> {
    let entries = fs::read_dir(around.state_root()?).into_iter().flatten().flatten();
    let read = |dir: PathBuf| {
        let (bytes, _) = read_own(&dir, Path::new(NAME)).ok()?;
        Some((dir, serde_json::from_slice(&bytes).ok()?))
    };
    // The readable names of the directories are symbolic links, which `read_own` refuses.
    Ok(entries.filter_map(|entry| read(entry.path())).collect())
}

/// The mounts of this user in this mount namespace, by mount point.
pub(super) fn mounts(around: &Environ) -> CliResult<Vec<UserMount>> {
    let mounted = mountpoint::ours();
    let is_mounted = |record: &Record| mounted.iter().any(|mount| mount.mountpoint == record.mountpoint);
    let mut out: Vec<UserMount> = all(around)?
        .into_iter()
        .filter(|(_, record)| is_mounted(record))
        .map(|(dir, record)| UserMount { record, alive: lock::is_held(&dir) })
        .collect();
    out.sort_by(|a, b| a.record.mountpoint.cmp(&b.record.mountpoint));
    Ok(out)
}

/// The directories that an earlier mount at this place made and has not removed.
pub(super) fn made_before(around: &Environ, mountpoint: &Path) -> CliResult<Vec<PathBuf>> {
    let records = all(around)?.into_iter().map(|(_, record)| record);
    Ok(records.filter(|record| record.mountpoint == mountpoint).flat_map(|record| record.made).collect())
}

/// Unmounts a mount at this place whose driver was killed. The kernel may still answer for it, so that it looks alive.
pub(super) fn unmount_dead(around: &Environ, path: &Path) -> CliResult<()> {
    let Ok(place) = mountpoint::settle(path) else { return Ok(()) };
    if mounts(around)?.iter().any(|mount| mount.record.mountpoint == place && !mount.alive) {
        log::warn!("{}: unmounting a mount whose process is gone", place.display());
        mountpoint::detach(&place, true).map_err(failed(&place.display()))?;
    }
    Ok(())
}

/// Removes what a driver left that was killed, after its mount has been removed.
pub(super) fn clear_after_dead(around: &Environ, mountpoint: &Path) -> CliResult<()> {
    for (dir, record) in all(around)? {
        if record.mountpoint == mountpoint && !lock::is_held(&dir) {
            remove(&dir);
            remove_made(&record.made);
        }
    }
    Ok(())
}

/// Removes directories that were made for a mount, as far as they are empty.
pub(super) fn remove_made(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        if let Err(error) = fs::remove_dir(dir) {
            log::info!("{}: {error}", dir.display());
        }
    }
}
