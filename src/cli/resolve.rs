//! `pantheonfs resolve`: chooses a version of a file that was changed on both sides. Our version is in the directory of
//! conflicts, theirs is in the mount; the chosen one is written through the mount.

use std::ffi::OsStr;
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
use super::resolve_tool::{self, Tool, Versions};
use super::source::Source;
use crate::path::RemotePath;
use crate::write::{RejectKind, base_of, rejects_in};

/// See the module header.
pub(super) fn run(args: &args::Resolve) -> CliResult<()> {
    let mut outcomes = Outcomes::new(args.output.json);
    match &args.path {
        Some(path) => {
            one(path, args, &mut outcomes)?;
            outcomes.end()
        }
        None => {
            let left = all(args, &mut outcomes)?;
            outcomes.end()?;
            left.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
        }
    }
}

/// Resolves every conflict of the mount around the current directory. One that cannot be resolved does not keep the
/// others; the exit code is that of the first.
fn all(args: &args::Resolve, outcomes: &mut Outcomes) -> CliResult<Option<Exit>> {
    let mount = mountpoint::around(Path::new("."))?;
    let state_dir = report::own_state_dir(&mount)?;
    let copies = rejects_in(&state_dir).into_iter().rev().filter(|copy| copy.kind == RejectKind::Conflict);
    let mut left = Vec::new();
    let mut exit = None;
    for copy in copies {
        let Some(inside) = in_mount(&mount, &copy.path).filter(|_| !left.contains(&copy.path)) else { continue };
        let path = mount.mountpoint.join(inside);
        if let Err(failure) = one(&path, args, outcomes) {
            outcomes.add(&path.display().to_string(), &format!("FAILED: {}", failure.explain()))?;
            exit = exit.or(Some(failure.exit));
            left.push(copy.path);
        }
    }
    Ok(exit)
}

/// A conflict: a path of the mount, and the copies of ours and of the version that was opened, below the state directory.
struct Conflict {
    mount: OurMount,
    inside: PathBuf,
    place: PathBuf,
    state_dir: PathBuf,
    ours_at: PathBuf,
    base_at: Option<PathBuf>,
}

impl Conflict {
    fn at(path: &Path) -> CliResult<Self> {
        let mount = mountpoint::around(path)?;
        let place = mountpoint::settle(path).map_err(failed(&path.display()))?;
        let outside = |_| Failure::new(Exit::Usage, format!("{}: leads out of the mount", path.display()));
        let inside = place.strip_prefix(&mount.mountpoint).map_err(outside)?.to_owned();
        let state_dir = report::own_state_dir(&mount)?;
        let ours_at = newest_copy(&state_dir, &mount, &inside)?;
        let base_at = base_of(&state_dir, &state_dir.join(&ours_at)).filter(|base| base.is_file());
        Ok(Self { mount, inside, place, state_dir, ours_at, base_at })
    }

    fn ours(&self) -> io::Result<Vec<u8>> {
        read_own(&self.state_dir, &self.ours_at).map(|(bytes, _)| bytes)
    }

    /// What the server has; `None`: nothing.
    fn theirs(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.place) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The version that was opened, or the committed one if that is gone.
    fn base(&self) -> Option<Vec<u8>> {
        let opened = self.base_at.as_ref().and_then(|base| {
            read_own(&self.state_dir, base.strip_prefix(&self.state_dir).ok()?).ok().map(|(bytes, _)| bytes)
        });
        opened.or_else(|| fs::read(self.mount.mountpoint.join(".pantheon/head").join(&self.inside)).ok())
    }

    /// Keeps a copy of content that is replaced or not used.
    fn keep(&self, content: &[u8]) -> CliResult<PathBuf> {
        Environ::look()?.keep_reverted(&self.mount.source, &self.inside, content)
    }

    fn remove_copies(&self) -> io::Result<()> {
        fs::remove_file(self.state_dir.join(&self.ours_at))?;
        self.base_at.as_ref().map_or(Ok(()), fs::remove_file)
    }
}

/// Resolves one conflict.
fn one(path: &Path, args: &args::Resolve, outcomes: &mut Outcomes) -> CliResult<()> {
    let conflict = Conflict::at(path)?;
    let failed = failed(&path.display());
    let ours = conflict.ours().map_err(&failed)?;
    let theirs = conflict.theirs().map_err(&failed)?;
    let (what, new) = if args.ours {
        ("ours", Some(ours))
    } else if args.merge {
        let base = conflict.base().unwrap_or_default();
        ("both, merged", Some(merge(path, &ours, &base, theirs.as_deref().unwrap_or_default())?))
    } else if let Some(name) = &args.tool {
        let tool = Tool { name: name.as_deref(), json: args.output.json };
        ("both, merged by the tool", Some(by_tool(&conflict, &ours, theirs.as_deref(), &tool)?))
    } else {
        ("theirs", None)
    };
    let name = path.display().to_string();
    if let Some(new) = new.filter(|new| theirs.as_ref() != Some(new)) {
        if let Some(theirs) = &theirs {
            let kept = conflict.keep(theirs)?;
            outcomes.add(&name, &format!("a copy of theirs is kept in {}", kept.display()))?;
        }
        let mut file = fs::File::create(&conflict.place).map_err(&failed)?;
        file.write_all(&new).and_then(|()| file.sync_all()).map_err(&failed)?;
    }
    conflict.remove_copies().map_err(&failed)?;
    outcomes.add(&name, &format!("resolved: {what}"))
}

/// The result of the user's tool. It may take long: what another writer stores meanwhile is not overwritten.
fn by_tool(conflict: &Conflict, ours: &[u8], theirs: Option<&[u8]>, tool: &Tool<'_>) -> CliResult<Vec<u8>> {
    let path = conflict.inside.display();
    let Some(theirs) = theirs else {
        let text = format!("{path}: another writer removed it, so there is nothing to merge; use --ours or --theirs");
        return Err(Failure::new(Exit::Usage, text));
    };
    let base = conflict.base();
    let versions = Versions { ours, base: base.as_deref(), theirs };
    let merged = resolve_tool::merge(&conflict.inside, &versions, tool)?;
    if conflict.theirs().map_err(failed(&path))?.as_deref() == Some(theirs) {
        return Ok(merged);
    }
    let kept = conflict.keep(&merged)?;
    let text = format!(
        "{path}: another writer changed it while the tool ran, so nothing was changed; your result is kept in {}; run the \
         command again",
        kept.display()
    );
    Err(Failure::new(Exit::Busy, text))
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

/// Where the mount shows a path of the server.
fn in_mount(mount: &OurMount, path: &RemotePath) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    Some(match Source::parse(&mount.source).ok()? {
        Source::Url(_) => path.to_owned(),
        Source::Pantheon { .. } => {
            path.strip_prefix("code").map_or_else(|_| Path::new(".pantheon").join(path), Path::to_owned)
        }
    })
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
        "{}: both sides changed the same lines; nothing was changed; merge with your tool (--tool), or edit the file by hand and then resolve with --theirs",
        path.display()
    );
    Err(Failure::new(Exit::Failed, text))
}
