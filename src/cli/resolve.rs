//! `pantheonfs resolve`: chooses a version of a file that was changed on both sides. Our version is in the directory of
//! conflicts, theirs is in the mount; the chosen one is written through the mount.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::mountpoint;
use super::report::{self, Outcomes};
use crate::write::base_of;

/// See the module header.
pub(super) fn run(args: &args::Resolve) -> CliResult<()> {
    let mount = mountpoint::around(&args.path)?;
    let failed = failed(&args.path.display());
    let place = mountpoint::settle(&args.path).map_err(&failed)?;
    let inside = place.strip_prefix(&mount.mountpoint).unwrap_or(&place).to_owned();
    let (state_dir, ours_at) = newest_copy(&mount.mountpoint, &inside)?;
    let base_at = base_of(&state_dir, &ours_at).filter(|base| base.is_file());
    let ours = fs::read(&ours_at).map_err(&failed)?;
    let theirs = match fs::read(&place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (what, new) = if args.ours {
        ("ours", Some(ours))
    } else if args.merge {
        let committed = || mount.mountpoint.join(".pantheon/head").join(&inside);
        let base = fs::read(base_at.clone().unwrap_or_else(committed)).unwrap_or_default();
        ("both, merged", Some(merge(&args.path, &ours, &base, theirs.as_deref().unwrap_or_default())?))
    } else {
        ("theirs", None)
    };
    let mut outcomes = Outcomes::new(args.output.json);
    let name = args.path.display().to_string();
    if let Some(new) = new.filter(|new| theirs.as_ref() != Some(new)) {
        if let Some(theirs) = &theirs {
            let kept = Environ::look()?.keep_reverted(&mount.source, &inside, theirs)?;
            outcomes.add(&name, &format!("a copy of theirs is kept in {}", kept.display()))?;
        }
        let mut file = fs::File::create(&place).map_err(&failed)?;
        file.write_all(&new).and_then(|()| file.sync_all()).map_err(&failed)?;
    }
    fs::remove_file(&ours_at).map_err(&failed)?;
    if let Some(base) = base_at {
        fs::remove_file(base).map_err(&failed)?;
    }
    outcomes.add(&name, &format!("resolved: {what}"))?;
    outcomes.end()
}

/// The state directory, and our newest version of a path in its directory of conflicts, where versions are numbered.
fn newest_copy(root: &Path, inside: &Path) -> CliResult<(PathBuf, PathBuf)> {
    let status = report::status_json(root)?;
    let state_dir = PathBuf::from(status["state_dir"].as_str().unwrap_or_default());
    let conflicts = state_dir.join("conflicts");
    let below = inside.strip_prefix(".pantheon").map_or_else(|_| Path::new("code").join(inside), Path::to_owned);
    // A plain server has no `code` in front of its paths.
    let places = [conflicts.join(&below), conflicts.join(inside)];
    let copies = places.iter().flat_map(|place| {
        let numbered = (1..=100).map(|n| format!("{}.{n}", place.display()).into());
        std::iter::once(place.clone()).chain(numbered)
    });
    let newest = copies.rev().find(|copy: &PathBuf| copy.is_file()).ok_or_else(|| {
        let text = format!(
            "{}: there is no conflict about this file; `.pantheon/conflicts` lists the conflicts",
            inside.display()
        );
        Failure::new(Exit::Usage, text)
    })?;
    Ok((state_dir, newest))
}

/// A three-way merge by git. The base is the version that was opened, or the committed one if that is gone. A merge with
/// conflicts is an error.
fn merge(path: &Path, ours: &[u8], base: &[u8], theirs: &[u8]) -> CliResult<Vec<u8>> {
    let failed = failed(&"git merge-file");
    let dir = tempfile::tempdir().map_err(&failed)?;
    let mut command = Command::new("git");
    command.args(["merge-file", "--stdout", "--quiet"]);
    for (name, bytes) in [("ours", ours), ("base", base), ("theirs", theirs)] {
        fs::write(dir.path().join(name), bytes).map_err(&failed)?;
        command.arg(dir.path().join(name));
    }
    let output = command.current_dir("/").output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = format!(
        "{}: both sides changed the same lines; nothing was changed; edit the file by hand, then resolve with --theirs",
        path.display()
    );
    Err(Failure::new(Exit::Failed, text))
}
