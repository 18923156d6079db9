//! What `.pantheon` says, from anywhere inside the mount.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::args::Look;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;

/// `pantheonfs status`.
pub(super) fn status(path: Option<&Path>, json: bool) -> CliResult<()> {
    let name = if json { "status.json" } else { "status" };
    print(&read(path.unwrap_or(Path::new(".")), name)?)
}

/// One of the other files, or its part of `status.json`.
pub(super) fn look(look: &Look, file: &str, key: &str) -> CliResult<()> {
    if look.json {
        let value = status_json(&look.path)?[key].take();
        return print(format!("{value:#}\n").as_bytes());
    }
    print(&read(&look.path, file)?)
}

/// A file of `.pantheon` of the mount around `path`.
pub(super) fn read(path: &Path, name: &str) -> CliResult<Vec<u8>> {
    let file = mountpoint::around(path)?.mountpoint.join(".pantheon").join(name);
    fs::read(&file).map_err(|e| Failure::new(Exit::Failed, format!("{}: {e}", file.display())))
}

pub(super) fn status_json(path: &Path) -> CliResult<serde_json::Value> {
    let failed = |e: serde_json::Error| Failure::new(Exit::Failed, format!("status.json makes no sense: {e}"));
    serde_json::from_slice(&read(path, "status.json")?).map_err(failed)
}

pub(super) fn print(text: &[u8]) -> CliResult<()> {
    match io::stdout().write_all(text) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::new(Exit::Failed, format!("standard output: {e}"))),
    }
}
