//! `pantheonfs resolve`: what to do about a file that was changed on both sides. Ours lies on the shelf of conflicts, theirs
//! is in the mount; the answer is written as anybody would write it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::report::{self, Said};
use crate::write::base_of;

pub(super) fn run(args: &args::Resolve) -> CliResult<()> {
    let mount = mountpoint::around(&args.path)?;
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("{}: {e}", args.path.display()));
    let place = mountpoint::settle(&args.path).map_err(failed)?;
    let inside = place.strip_prefix(&mount.mountpoint).unwrap_or(&place).to_owned();
    let (state_dir, ours_at) = newest_copy(&mount.mountpoint, &inside)?;
    let base_at = base_of(&state_dir, &ours_at).filter(|base| base.is_file());
    let ours = fs::read(&ours_at).map_err(failed)?;
    let theirs = match fs::read(&place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let mut said = Said::new(args.json);
    let name = args.path.display().to_string();
    let new = if args.ours {
        Some(ours)
    } else if args.merge {
        let committed = || mount.mountpoint.join(".pantheon/head").join(&inside);
        let base = fs::read(base_at.clone().unwrap_or_else(committed)).unwrap_or_default();
        Some(merge(&args.path, &ours, &base, theirs.as_deref().unwrap_or_default())?)
    } else {
        None
    };
    if let Some(new) = new.filter(|new| theirs.as_ref() != Some(new)) {
        if let Some(theirs) = &theirs {
            let kept = Environ::look()?.keep_reverted(&mount.source, &inside, theirs)?;
            said.say(&name, &format!("theirs is kept in {}", kept.display()))?;
        }
        let mut file = fs::File::create(&place).map_err(failed)?;
        file.write_all(&new).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    fs::remove_file(&ours_at).map_err(failed)?;
    if let Some(base) = base_at {
        fs::remove_file(base).map_err(failed)?;
    }
    let what = if args.ours {
        "ours"
    } else if args.merge {
        "both, merged"
    } else {
        "theirs"
    };
    said.say(&name, &format!("resolved: {what}"))?;
    said.end()
}

/// The state directory, and the last copy of a path on its shelf; copies are numbered.
fn newest_copy(root: &Path, inside: &Path) -> CliResult<(PathBuf, PathBuf)> {
    let status = report::status_json(root)?;
    let state_dir = PathBuf::from(status["state_dir"].as_str().unwrap_or_default());
    let shelf = state_dir.join("conflicts");
    let below = inside.strip_prefix(".pantheon").map_or_else(|_| Path::new("code").join(inside), Path::to_owned);
    // A plain server has no `code` in front of its paths.
    let places = [shelf.join(&below), shelf.join(inside)];
    let copies = places.iter().flat_map(|place| {
        let numbered = (1..=100).map(|n| format!("{}.{n}", place.display()).into());
        std::iter::once(place.clone()).chain(numbered)
    });
    let newest = copies.rev().find(|copy: &PathBuf| copy.is_file()).ok_or_else(|| {
        let text = format!("{}: there is no conflict about it; `.pantheon/conflicts` lists them", inside.display());
        Failure::new(Exit::Usage, text)
    })?;
    Ok((state_dir, newest))
}

/// A three-way merge by git. The base is the version that was opened, or the committed one where that is gone. Only a clean one is taken.
fn merge(path: &Path, ours: &[u8], base: &[u8], theirs: &[u8]) -> CliResult<Vec<u8>> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("git merge-file: {e}"));
    let dir = tempfile::tempdir().map_err(failed)?;
    let mut command = Command::new("git");
    command.args(["merge-file", "--stdout", "--quiet"]);
    for (name, bytes) in [("ours", ours), ("base", base), ("theirs", theirs)] {
        fs::write(dir.path().join(name), bytes).map_err(failed)?;
        command.arg(dir.path().join(name));
    }
    let output = command.current_dir("/").output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = format!(
        "{}: both sides changed the same lines; nothing was changed. Edit it by hand, then resolve with --theirs",
        path.display()
    );
    Err(Failure::new(Exit::Failed, text))
}
