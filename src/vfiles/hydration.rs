//! The progress of a hydration, which `.pantheon/hydrate` shows.

use std::time::Duration;

/// The running hydration, or the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hydration {
    pub running: bool,
    pub files: u64,
    pub files_in_all: u64,
    pub bytes: u64,
    pub bytes_in_all: u64,
    /// Files that changed or were removed before they were fetched.
    pub missed: u64,
    /// Duration of a finished hydration.
    pub took: Duration,
}

pub(super) fn json(now: &Hydration) -> serde_json::Value {
    serde_json::json!({
        "running": now.running,
        "files": now.files,
        "files_in_all": now.files_in_all,
        "bytes": now.bytes,
        "bytes_in_all": now.bytes_in_all,
        "missed": now.missed,
        "seconds": now.took.as_secs_f64(),
    })
}

pub(super) fn render(now: &Hydration) -> String {
    let Hydration { files, files_in_all, bytes, bytes_in_all, missed, took, .. } = now;
    let state = match now {
        Hydration { running: true, .. } => "running".to_owned(),
        Hydration { files_in_all: 0, .. } => "nothing was asked for yet".to_owned(),
        _ => format!("done in {:.1} s", took.as_secs_f64()),
    };
    format!(
        "# write a path below the mount, or '.', to have everything there brought to this machine\n\
         state: {state}\nfiles: {files} of {files_in_all}\nbytes: {bytes} of {bytes_in_all}\nmissed: {missed}\n"
    )
}
