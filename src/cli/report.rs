//! `pantheonfs status`: what `.pantheon/status` says, from anywhere inside the mount.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;

pub(super) fn status(path: Option<&Path>, json: bool) -> CliResult<()> {
    let mount = mountpoint::around(path.unwrap_or(Path::new(".")))?;
    let file = mount.mountpoint.join(".pantheon").join(if json { "status.json" } else { "status" });
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("{}: {e}", file.display()));
    let text = fs::read(&file).map_err(failed)?;
    std::io::stdout().write_all(&text).map_err(failed)
}
