//! Opening the journal of the last mount: its records, and the spools that they name or do not name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::state::{Journal, KIND, State};
use crate::write::fold::{Folded, fold};
use crate::write::op::{Action, Op, Put, SpoolId};
use crate::write::records::{Records, read};
use crate::write::reject::RejectKind;
use crate::write::spool::{FreeFiles, checksum};

/// Directory among the stranded copies for contents that a damaged journal does not name.
const UNKNOWN_DIR: &str = "damaged-journal";

/// Whether the journal of an environment that is not mounted has changes or files that are only on this machine.
///
/// # Errors
///
/// The journal is damaged, or of another version.
pub fn has_unsent(state_dir: &Path) -> io::Result<bool> {
    let found = read(&state_dir.join("journal"), KIND)?;
    if found.damage.is_some() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged"));
    }
    let folded = fold(found.records);
    Ok(!folded.ops.is_empty() || !folded.local_only.is_empty())
}

impl Journal {
    /// Opens the journal of the last mount. Spools that no operation names were never saved and are removed; if
    /// records may be missing, they become stranded copies.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("spool");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let opened = Records::open_telling(&state_dir.join("journal"), KIND)?;
        let mut folded = fold(opened.records);
        // Spools are released below because of records that may not be on the disk yet.
        opened.log.sync()?;
        let (mut state, now) = (State::default(), Instant::now());
        let aside = take_whole(&dir, &mut folded);
        let unknown = state_dir.join(RejectKind::Stranded.dir_name()).join(UNKNOWN_DIR);
        if opened.incomplete {
            folded.cut_loose();
        }
        let used = names_of(&folded);
        let free = FreeFiles::default();
        let mut next_spool = 1;
        // Collected first, because names change in the loop.
        for entry in fs::read_dir(&dir)?.collect::<io::Result<Vec<_>>>()? {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(SpoolId) else {
                fs::remove_file(entry.path())?;
                continue;
            };
            next_spool = next_spool.max(id.0 + 1);
            if used.contains(&id) {
                continue;
            }
            let kept = (opened.incomplete || aside.contains(&id)) && entry.metadata()?.len() > 0;
            if kept { put_aside(&entry.path(), &unknown)? } else { free.give(entry.path())? }
        }
        for (id, op) in folded.ops {
            let earlier = folded.earlier.remove(&id).unwrap_or_default().into_iter();
            earlier.for_each(|put| state.replaced.note_earlier(id, put, now));
            state.queue.restore(id, op, now);
        }
        state.local_only = folded.local_only;
        state.shown = folded.shown;
        Ok(Self {
            dir,
            log: opened.log,
            state: Mutex::new(state),
            changed: Condvar::new(),
            next_spool: AtomicU64::new(next_spool),
            next_barrier: AtomicU64::new(0),
            free,
            holds: Mutex::default(),
            shown: OnceLock::new(),
        })
    }

    /// Whether the content of an operation of an earlier mount is what was recorded. `None`: the spool is gone,
    /// because the operation was applied and only the record of that is missing.
    pub fn is_whole(&self, put: &Put) -> Option<bool> {
        is_whole(&self.dir, put)
    }
}

fn is_whole(dir: &Path, put: &Put) -> Option<bool> {
    match fs::File::open(dir.join(put.spool.0.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => {
            let found = file.and_then(|file| checksum(&file, put.len));
            Some(found.is_ok_and(|found| put.sum.is_none_or(|sum| sum == found)))
        }
    }
}

/// If the newest content of an operation did not reach the disk before a power loss and the one before it did, that
/// one is sent. Returns the incomplete newest contents.
fn take_whole(dir: &Path, folded: &mut Folded) -> Vec<SpoolId> {
    let mut torn = Vec::new();
    for (id, earlier) in &mut folded.earlier {
        earlier.retain(|put| dir.join(put.spool.0.to_string()).exists());
        let Some(Op { path, action: Action::Put(newest), .. }) = folded.ops.get_mut(id) else { continue };
        if earlier.is_empty() || is_whole(dir, newest) == Some(true) {
            continue;
        }
        if let Some(at) = earlier.iter().rposition(|put| is_whole(dir, put) == Some(true)) {
            let whole = earlier.swap_remove(at);
            log::error!(
                "{path}: its last save was not on the local disk when the machine stopped; the previous one will be sent"
            );
            torn.push(newest.spool);
            *newest = Put { base: newest.base, ..whole };
        }
    }
    torn
}

/// The spools that are still needed.
fn names_of(folded: &Folded) -> BTreeSet<SpoolId> {
    let earlier = folded.earlier.values().flatten().map(|put| put.spool);
    folded.ops.values().filter_map(Op::spool).chain(folded.local_only.keys().copied()).chain(earlier).collect()
}

/// Stores a spool that no record names among the stranded copies.
fn put_aside(spool: &Path, dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let number = spool.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(number.clone()).chain((1..).map(|n| format!("{number}.{n}")));
    let target = names.map(|name| dir.join(name)).find(|target| !target.exists()).unwrap_or_else(|| dir.join("0"));
    fs::rename(spool, &target)?;
    log::error!("{}: this content was not sent, and the damaged journal does not tell its path", target.display());
    Ok(())
}
