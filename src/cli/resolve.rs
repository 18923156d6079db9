//! `pantheonfs resolve`: chooses a version of a file that was changed on both sides. Our version is in the directory of
//! conflicts, theirs is in the mount; the chosen one is written through the mount.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::mountpoint::{self, OurMount};
use super::private_dir::read_own;
use super::report::{self, Outcomes};
use super::source::Source;
use crate::path::RemotePath;
use crate::write::{RejectKind, base_of, rejects_in};

/// See the module header.
pub(super) fn run(args: &args::Resolve) -> CliResult<()> {
    let mount = mountpoint::around(&args.path)?;
    let failed = failed(&args.path.display());
    let place = mountpoint::settle(&args.path).map_err(&failed)?;
    let outside = |_| Failure::new(Exit::Usage, format!("{}: leads out of the mount", args.path.display()));
    let inside = place.strip_prefix(&mount.mountpoint).map_err(outside)?.to_owned();
    let state_dir = report::own_state_dir(&mount)?;
    let ours_at = newest_copy(&state_dir, &mount, &inside)?;
    let (ours, _) = read_own(&state_dir, &ours_at).map_err(&failed)?;
    let base_at = base_of(&state_dir, &state_dir.join(&ours_at)).filter(|base| base.is_file());
    let base = base_at.as_ref().and_then(|base| read_own(&state_dir, base.strip_prefix(&state_dir).ok()?).ok());
    let theirs = match fs::read(&place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (what, new) = if args.ours {
        ("ours", Some(ours))
    } else if args.merge {
        let committed = || fs::read(mount.mountpoint.join(".pantheon/head").join(&inside)).unwrap_or_default();
        let base = base.map_or_else(committed, |(bytes, _)| bytes);
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
    fs::remove_file(state_dir.join(&ours_at)).map_err(&failed)?;
    if let Some(base) = base_at {
        fs::remove_file(base).map_err(&failed)?;
    }
    outcomes.add(&name, &format!("resolved: {what}"))?;
    outcomes.end()
}

/// The newest conflicting copy of exactly this path, below the state directory.
fn newest_copy(state_dir: &Path, mount: &OurMount, inside: &Path) -> CliResult<PathBuf> {
    let none = || {
        let text = format!(
            "{}: there is no conflict about this file; `.pantheon/conflicts` lists the conflicts",
            inside.display()
        );
        Failure::new(Exit::Usage, text)
    };
    let path = on_server(mount, inside).ok_or_else(none)?;
    let mut copies = rejects_in(state_dir).into_iter().rev();
    let newest = copies.find(|copy| copy.kind == RejectKind::Conflict && copy.path == path);
    newest.map(|copy| copy.file).ok_or_else(none)
}

/// What the server calls a path of the mount.
fn on_server(mount: &OurMount, inside: &Path) -> Option<RemotePath> {
    let inside = match Source::parse(&mount.source).ok()? {
        Source::Url(_) => inside.to_owned(),
        Source::Pantheon { .. } => {
            inside.strip_prefix(".pantheon").map_or_else(|_| Path::new("code").join(inside), Path::to_owned)
        }
    };
    RemotePath::parse(inside.as_os_str().as_bytes()).ok()
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
