//! What `.pantheon` says, from anywhere inside the mount.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::args::Look;
use super::environ;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint::{self, OurMount};
use crate::pending::split_diff;
use crate::text::{self, visible};

/// `pantheonfs status`.
pub(super) fn status(path: Option<&Path>, json: bool) -> CliResult<()> {
    let name = if json { "status.json" } else { "status" };
    print(&read(path.unwrap_or(Path::new(".")), name)?)
}

/// One of the other files, or its part of `status.json`.
pub(super) fn look(look: &Look, file: &str, key: &str) -> CliResult<()> {
    if look.json {
        let value = status_json(&look.path)?[key].take();
        return print(text::json(&value).as_bytes());
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

/// Where a mount says that its state is, if both are of the user who asks: any other mount could send us anywhere.
pub(super) fn own_state_dir(mount: &OurMount) -> CliResult<PathBuf> {
    let told = status_json(&mount.mountpoint)?;
    let state_dir = PathBuf::from(told["state_dir"].as_str().unwrap_or_default());
    let refused = |why: &str| {
        let text = format!("{}: {why}; what is kept is shown to whom it belongs", state_dir.display());
        Failure::new(Exit::Failed, text)
    };
    if mount.owner != Some(rustix::process::geteuid().as_raw()) {
        return Err(refused("its mount belongs to somebody else"));
    }
    if !state_dir.is_absolute() {
        return Err(refused("no directory of a mount"));
    }
    environ::open_own(&state_dir).map_err(|error| refused(&error.to_string()))?;
    Ok(state_dir)
}

/// What a command did, object by object: a line each, or one JSON array at the end.
pub(super) struct Said {
    json: bool,
    all: Vec<serde_json::Value>,
}

impl Said {
    pub(super) fn new(json: bool) -> Self {
        Self { json, all: Vec::new() }
    }

    pub(super) fn say(&mut self, object: &str, outcome: &str) -> CliResult<()> {
        self.all.push(serde_json::json!({ "object": object, "outcome": outcome }));
        if self.json { Ok(()) } else { print(format!("{}: {}\n", visible(object), visible(outcome)).as_bytes()) }
    }

    pub(super) fn end(self) -> CliResult<()> {
        if self.json { print(text::json(&self.all.into()).as_bytes()) } else { Ok(()) }
    }
}

/// The parts of a diff that are about a path or what is below it.
pub(super) fn diff(paths: &[PathBuf], json: bool) -> CliResult<()> {
    let first = paths.first().map_or(Path::new("."), PathBuf::as_path);
    let root = mountpoint::around(first)?.mountpoint;
    let mut wanted = Vec::new();
    for path in paths {
        let place =
            mountpoint::settle(path).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", path.display())))?;
        let inside = place.strip_prefix(&root).map_err(|_| {
            Failure::new(Exit::MountPoint, format!("{}: not in the mount {}", path.display(), root.display()))
        })?;
        wanted.push(inside.to_owned());
    }
    let text = read(first, "diff")?;
    let files = split_diff(&text);
    let covered =
        |name: &[u8]| wanted.is_empty() || wanted.iter().any(|w| Path::new(OsStr::from_bytes(name)).starts_with(w));
    let files: Vec<_> = files.into_iter().filter(|(name, _)| name.is_empty() || covered(name)).collect();
    if json {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let list: Vec<_> =
            files.iter().map(|(name, part)| serde_json::json!({ "path": text(name), "diff": text(part) })).collect();
        return print(text::json(&list.into()).as_bytes());
    }
    files.iter().try_for_each(|(_, part)| print(part))
}

pub(super) fn print(text: &[u8]) -> CliResult<()> {
    match io::stdout().write_all(text) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::new(Exit::Failed, format!("standard output: {e}"))),
    }
}
