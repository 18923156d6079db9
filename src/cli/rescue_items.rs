//! The copies of uncommitted work on this machine: kept, stranded, and rejected by a conflict. Read from the state directory,
//! so that nothing needs to be mounted; if the environment is mounted, the copies are compared with the server.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::object::{Object, object_at};
use super::private_dir::{open_own, read_own};
use super::source::{Source, is_uuid};
use super::{mountpoint, report};
use crate::mirror::Mirror;
use crate::path::RemotePath;
use crate::write::{RejectKind, What, backups_in, read_backup, rejects_in};

/// Where the copies of one environment are.
pub(super) struct Place {
    pub(super) source: String,
    state_dir: PathBuf,
    /// Where the environment is mounted, if it is.
    pub(super) mountpoint: Option<PathBuf>,
    /// The local copy of the repository, if there is one.
    mirror: Option<Mirror>,
}

/// One copy.
pub(super) struct Item {
    /// Path below the root of the mount.
    pub(super) path: RemotePath,
    /// `kept`, `stranded` or `conflict`.
    pub(super) kind: &'static str,
    /// `None`: the user deleted it.
    pub(super) now: Option<Object>,
    /// When the copy was made.
    pub(super) at: SystemTime,
    /// The commit that it is based on.
    commit: Option<String>,
}

/// A copy that is not what it was when it was kept.
pub(super) struct Damaged {
    pub(super) path: RemotePath,
    pub(super) kind: &'static str,
    pub(super) at: SystemTime,
    pub(super) why: String,
}

/// What is kept.
#[derive(Default)]
pub(super) struct Found {
    /// Of one path and kind, the oldest first.
    pub(super) items: Vec<Item>,
    pub(super) damaged: Vec<Damaged>,
    /// The list of copies is damaged: some may be missing.
    incomplete: bool,
}

impl Found {
    /// Of several copies on a kind the newest counts.
    pub(super) fn newest(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.items.reverse();
        self.items.retain(|item| seen.insert((item.path.clone(), item.kind)));
        self.items.reverse();
        self
    }

    /// At the end of a command that has done what it could.
    pub(super) fn tell_damage(&self) -> CliResult<()> {
        let mut texts: Vec<String> =
            self.damaged.iter().map(|copy| format!("{}: {}; nothing was made of it", copy.path, copy.why)).collect();
        if self.incomplete {
            texts.push("the list of kept copies is damaged: some may be missing here".into());
        }
        if texts.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, texts.join("; "))) }
    }
}

/// How a copy compares with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    OnServer,
    Differs,
    Gone,
    NotCompared,
}

impl Fate {
    pub(super) fn text(self) -> &'static str {
        match self {
            Fate::OnServer => "on the server",
            Fate::Differs => "differs on the server",
            Fate::Gone => "not on the server",
            Fate::NotCompared => "not compared: not mounted",
        }
    }
}

impl Place {
    /// Finds the copies for a path in a mount, or for SITE.ENV.
    pub(super) fn find(at: &Path) -> CliResult<Self> {
        let around = Environ::look()?;
        let (source, inside) = match mountpoint::around(at) {
            Ok(mount) => (Source::parse(&mount.source)?, Some(mount)),
            Err(outside) if at.exists() => {
                let text = format!("{}; or name the environment: --at SITE.ENV", outside.explain());
                return Err(Failure::new(outside.exit, text));
            }
            Err(_) => (Source::parse(at.as_os_str())?, None),
        };
        // The mount tells its state directory, because its process may have another home directory.
        let told = inside.as_ref().map(report::own_state_dir).transpose()?;
        let state_dir = told.or_else(|| around.known_state_dir(&source)).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("{source}: it was never mounted on this machine, so there are no copies"),
            )
        })?;
        open_own(&state_dir).map_err(|e| {
            let text = format!("{}: {e}; copies are shown to their owner only", state_dir.display());
            Failure::caused(Exit::Failed, text, e)
        })?;
        // Another user may have mounted the same environment with another state directory.
        let is_this = |mount: &mountpoint::OurMount| {
            let status = report::status_json(&mount.mountpoint);
            status.is_ok_and(|status| status["state_dir"].as_str().map(Path::new) == Some(&state_dir))
        };
        let mounted = || mountpoint::ours().into_iter().find(is_this).map(|mount| mount.mountpoint);
        let mountpoint = inside.map(|mount| mount.mountpoint).or_else(mounted);
        let id = match &source {
            Source::Pantheon { site, .. } if is_uuid(site) => Some(site.clone()),
            Source::Pantheon { site, .. } => around.sites.id_of(site),
            Source::Url(_) => None,
        };
        let mirror = id.and_then(|id| around.mirror_dir(&id).ok()).map(Mirror::local);
        Ok(Self { source: source.to_string(), state_dir, mountpoint, mirror })
    }

    /// The copies in path order, all of them or those at and below the given paths.
    pub(super) fn items(&self, only: &[PathBuf]) -> CliResult<Found> {
        let mut found = self.kept()?;
        self.shelved(&mut found);
        found.items.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        if only.is_empty() {
            return Ok(found);
        }
        let wanted = only.iter().map(|path| self.inside(path)).collect::<CliResult<Vec<_>>>()?;
        let covered = |path: &RemotePath| wanted.iter().any(|wanted| path.starts_with(wanted));
        found.items.retain(|item| covered(&item.path));
        found.damaged.retain(|copy| covered(&copy.path));
        let all = || found.items.iter().map(|item| &item.path).chain(found.damaged.iter().map(|copy| &copy.path));
        if let Some(missing) = wanted.iter().find(|wanted| !all().any(|path| path.starts_with(wanted))) {
            let text = format!("{missing}: there is no copy of it; `pantheonfs rescue list` shows all copies");
            return Err(Failure::new(Exit::Failed, text));
        }
        Ok(found)
    }

    /// The path below the root of the mount, from a path as the user gave it.
    fn inside(&self, path: &Path) -> CliResult<RemotePath> {
        let settled = mountpoint::settle(path).ok();
        let below =
            settled.as_ref().zip(self.mountpoint.as_ref()).and_then(|(path, root)| path.strip_prefix(root).ok());
        let text = below.unwrap_or(path).as_os_str().as_bytes();
        RemotePath::parse(text).map_err(|e| Failure::caused(Exit::Usage, path.display().to_string(), e))
    }

    fn kept(&self) -> CliResult<Found> {
        let (copies, incomplete) = backups_in(&self.state_dir).map_err(failed(&self.state_dir.display()))?;
        let (mut items, mut damaged) = (Vec::new(), Vec::new());
        for copy in copies {
            let at = UNIX_EPOCH + Duration::from_secs(copy.at);
            let item = |path: RemotePath, now| Item { path, kind: "kept", now, at, commit: copy.commit.clone() };
            match &copy.what {
                What::Content { blob, mode, .. } => match read_backup(&self.state_dir, *blob) {
                    Ok(bytes) => items.push(item(copy.path.clone(), Some((bytes, *mode)))),
                    Err(error) => {
                        damaged.push(Damaged { path: copy.path.clone(), kind: "kept", at, why: error.to_string() });
                    }
                },
                What::Deleted => items.push(item(copy.path.clone(), None)),
                What::Moved { from } => {
                    for (path, content) in self.committed_below(from, copy.commit.as_deref()) {
                        let rest = path.strip_prefix(from).unwrap_or_else(RemotePath::root);
                        let to = if rest.is_root() { copy.path.clone() } else { copy.path.join_path(&rest) };
                        items.push(item(to, Some(content)));
                    }
                }
            }
        }
        // What was changed after a move has a copy of its own, be it damaged.
        let mut seen: BTreeSet<RemotePath> = damaged.iter().map(|copy| copy.path.clone()).collect();
        items.reverse();
        items.retain(|item| seen.insert(item.path.clone()));
        Ok(Found { items, damaged, incomplete })
    }

    /// Committed files at a path and below it, with content and mode.
    fn committed_below(&self, path: &RemotePath, commit: Option<&str>) -> Vec<(RemotePath, Object)> {
        let (Some(mirror), Some(commit)) = (&self.mirror, commit) else { return Vec::new() };
        let Ok(tree) = mirror.tree(commit) else { return Vec::new() };
        let below = tree.iter().filter(|(other, _)| other.starts_with(path));
        below.filter_map(|(path, file)| Some((path.clone(), (mirror.blob(file.blob).ok()?, file.mode)))).collect()
    }

    /// What is on the shelves. The server's `code` is the root of the mount.
    fn shelved(&self, found: &mut Found) {
        for copy in rejects_in(&self.state_dir) {
            let kind = match copy.kind {
                RejectKind::Conflict => "conflict",
                RejectKind::Stranded => "stranded",
            };
            let Some(path) = self.shown(&copy.path) else { continue };
            match read_own(&self.state_dir, &copy.file) {
                Ok((bytes, at)) => {
                    found.items.push(Item { path, kind, now: Some((bytes, 0o100_644)), at, commit: None });
                }
                Err(error) => {
                    let why = format!("the copy cannot be read: {error}");
                    found.damaged.push(Damaged { path, kind, at: UNIX_EPOCH, why });
                }
            }
        }
    }

    /// Where the mount shows what the server has at a path.
    fn shown(&self, path: &RemotePath) -> Option<RemotePath> {
        let bytes = path.as_bytes();
        match bytes.strip_prefix(b"code/") {
            _ if self.is_plain() => Some(path.clone()),
            Some(below) => RemotePath::parse(below).ok(),
            None if bytes.starts_with(b"files/") => RemotePath::parse([b".pantheon/", bytes].concat()).ok(),
            None => Some(path.clone()),
        }
    }

    /// Any SFTP server.
    fn is_plain(&self) -> bool {
        self.source.starts_with("sftp://")
    }

    fn on_server(&self, path: &RemotePath) -> Option<PathBuf> {
        Some(self.mountpoint.as_ref()?.join(path.to_os_string()))
    }

    /// Compares a copy with the server.
    pub(super) fn fate(&self, item: &Item) -> Fate {
        let Some(file) = self.on_server(&item.path) else { return Fate::NotCompared };
        match (&item.now, object_at(&file)) {
            (None, None) => Fate::OnServer,
            (Some((bytes, _)), Some((there, _))) if *bytes == there => Fate::OnServer,
            (Some(_), None) => Fate::Gone,
            (_, Some(_)) => Fate::Differs,
        }
    }

    /// What a copy would replace: the object on the server, or the committed one.
    pub(super) fn base(&self, item: &Item, server: bool) -> Option<Object> {
        if server && let Some(file) = self.on_server(&item.path) {
            return object_at(&file);
        }
        let commit = item.commit.as_deref();
        self.committed_below(&item.path, commit).into_iter().find(|(path, _)| *path == item.path).map(|(_, file)| file)
    }
}
