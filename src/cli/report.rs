//! Prints files of `.pantheon` for any path in a mount, and the outcomes of commands.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::args::InMount;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint::{self, OurMount};
use super::private_dir::open_own;
use crate::text::{self, visible};

/// `pantheonfs status`.
pub(super) fn status(path: Option<&Path>, json: bool) -> CliResult<()> {
    let name = if json { "status.json" } else { "status" };
    print(&read(path.unwrap_or(Path::new(".")), name)?)
}

/// Prints a file of `.pantheon`, or as JSON the part of `status.json` with the same content.
pub(super) fn file(at: &InMount, file: &str, key: &str) -> CliResult<()> {
    if at.output.json {
        let value = status_json(&at.path)?[key].take();
        return print(text::json(&value).as_bytes());
    }
    print(&read(&at.path, file)?)
}

/// Reads a file of `.pantheon` in the mount around `path`.
pub(super) fn read(path: &Path, name: &str) -> CliResult<Vec<u8>> {
    let file = mountpoint::around(path)?.mountpoint.join(".pantheon").join(name);
    fs::read(&file).map_err(|e| Failure::caused(Exit::Failed, file.display().to_string(), e))
}

/// Reads `status.json` in the mount around `path`.
pub(super) fn status_json(path: &Path) -> CliResult<serde_json::Value> {
    let failed = |e: serde_json::Error| Failure::caused(Exit::Failed, "status.json cannot be understood", e);
    serde_json::from_slice(&read(path, "status.json")?).map_err(failed)
}

/// The state directory that a mount tells, if both belong to the user: any other mount could name any directory.
pub(super) fn own_state_dir(mount: &OurMount) -> CliResult<PathBuf> {
    let told = status_json(&mount.mountpoint)?;
    let state_dir = PathBuf::from(told["state_dir"].as_str().unwrap_or_default());
    let refused = |why: &str| {
        let text = format!("{}: {why}; copies are shown to their owner only", state_dir.display());
        Failure::new(Exit::Failed, text)
    };
    if mount.owner != Some(rustix::process::geteuid().as_raw()) {
        return Err(refused("its mount belongs to another user"));
    }
    if !state_dir.is_absolute() {
        return Err(refused("not the state directory of a mount"));
    }
    open_own(&state_dir).map_err(|error| refused(&error.to_string()))?;
    Ok(state_dir)
}

/// The outcomes of a command, one for each object: printed as lines, or as one JSON array at the end.
pub(super) struct Outcomes {
    json: bool,
    all: Vec<serde_json::Value>,
}

impl Outcomes {
    pub(super) fn new(json: bool) -> Self {
        Self { json, all: Vec::new() }
    }

    /// Adds the outcome for one object.
    pub(super) fn add(&mut self, object: &str, outcome: &str) -> CliResult<()> {
        self.all.push(serde_json::json!({ "object": object, "outcome": outcome }));
        if self.json { Ok(()) } else { print(format!("{}: {}\n", visible(object), visible(outcome)).as_bytes()) }
    }

    /// Prints the JSON array, if that is wanted.
    pub(super) fn end(self) -> CliResult<()> {
        if self.json { print(text::json(&self.all.into()).as_bytes()) } else { Ok(()) }
    }
}

/// Prints on standard output.
pub(super) fn print(text: &[u8]) -> CliResult<()> {
    match io::stdout().write_all(text) {
        // The reader of a pipe, such as `head`, has ended.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::caused(Exit::Failed, "standard output", e)),
    }
}
