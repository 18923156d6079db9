//! The copies of uncommitted work on this machine: kept, stranded, and rejected by a conflict. Read from the state directory,
//! so that nothing needs to be mounted; if the environment is mounted, the copies are compared with the server.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::object::{Object, object_at};
use super::private_dir::open_own;
use super::source::{Source, is_uuid};
use super::{mountpoint, report};
use crate::mirror::Mirror;
use crate::path::RemotePath;
use crate::write::{What, backup_blob_path, backups_in};

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
            Ok(mount) => (Source::parse(&mount.source)?, Some(mount.mountpoint)),
            Err(outside) if at.exists() => {
                let text = format!("{}; or name the environment: --at SITE.ENV", outside.explain());
                return Err(Failure::new(outside.exit, text));
            }
            Err(_) => (Source::parse(at.as_os_str())?, None),
        };
        let key = around.sites.key(&source);
        // The mount tells its state directory, because its process may have another home directory.
        let told = inside.as_ref().and_then(|root| report::status_json(root).ok());
        let told = told.and_then(|status| Some(PathBuf::from(status["state_dir"].as_str()?)));
        let state_dir = told.or_else(|| around.known_state_dir(&key)).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("{source}: it was never mounted on this machine, so there are no copies"),
            )
        })?;
        // The mount of another user could name any directory.
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
        let mountpoint = inside.or_else(mounted);
        let id = match &source {
            Source::Pantheon { site, .. } if is_uuid(site) => Some(site.clone()),
            Source::Pantheon { site, .. } => around.sites.id_of(site),
            Source::Url(_) => None,
        };
        let mirror = id.and_then(|id| around.mirror_dir(&id).ok()).map(Mirror::local);
        Ok(Self { source: source.to_string(), state_dir, mountpoint, mirror })
    }

    /// The copies in path order, all of them or those at and below the given paths.
    pub(super) fn items(&self, only: &[PathBuf]) -> CliResult<Vec<Item>> {
        let mut items = self.kept()?;
        for (kind, dir) in [("stranded", "stranded"), ("conflict", "conflicts")] {
            items.extend(self.rejected(kind, &self.state_dir.join(dir))?);
        }
        items.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        if only.is_empty() {
            return Ok(items);
        }
        let wanted = only.iter().map(|path| self.inside(path)).collect::<CliResult<Vec<_>>>()?;
        let covers = |item: &Item| wanted.iter().any(|path| item.path.starts_with(path));
        if let Some(missing) = wanted.iter().find(|path| !items.iter().any(|item| item.path.starts_with(path))) {
            let text = format!("{missing}: there is no copy of it; `pantheonfs rescue list` shows all copies");
            return Err(Failure::new(Exit::Failed, text));
        }
        items.retain(covers);
        Ok(items)
    }

    /// The path below the root of the mount, from a path as the user gave it.
    fn inside(&self, path: &Path) -> CliResult<RemotePath> {
        let settled = mountpoint::settle(path).ok();
        let below =
            settled.as_ref().zip(self.mountpoint.as_ref()).and_then(|(path, root)| path.strip_prefix(root).ok());
        let text = below.unwrap_or(path).as_os_str().as_bytes();
        RemotePath::parse(text).map_err(|e| Failure::caused(Exit::Usage, path.display().to_string(), e))
    }

    fn kept(&self) -> CliResult<Vec<Item>> {
        let copies = backups_in(&self.state_dir).map_err(failed(&self.state_dir.display()))?;
        let mut items = Vec::new();
        for copy in copies {
            let at = UNIX_EPOCH + Duration::from_secs(copy.at);
            let item = |path: RemotePath, now| Item { path, kind: "kept", now, at, commit: copy.commit.clone() };
            match &copy.what {
                What::Content { blob, mode, .. } => {
                    let file = backup_blob_path(&self.state_dir, *blob);
                    let bytes = fs::read(&file).map_err(failed(&file.display()))?;
                    items.push(item(copy.path.clone(), Some((bytes, *mode))));
                }
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
        // A file that was changed after its move has a copy of its own, which is newer.
        let mut seen = BTreeSet::new();
        items.reverse();
        items.retain(|item| seen.insert(item.path.clone()));
        Ok(items)
    }

    /// Committed files at a path and below it, with content and mode.
    fn committed_below(&self, path: &RemotePath, commit: Option<&str>) -> Vec<(RemotePath, Object)> {
        let (Some(mirror), Some(commit)) = (&self.mirror, commit) else { return Vec::new() };
        let Ok(tree) = mirror.tree(commit) else { return Vec::new() };
        let below = tree.iter().filter(|(other, _)| other.starts_with(path));
        below.filter_map(|(path, file)| Some((path.clone(), (mirror.blob(file.blob).ok()?, file.mode)))).collect()
    }

    /// Rejected changes. They are named by their path on the server; `code` is the root of the mount.
    fn rejected(&self, kind: &'static str, dir: &Path) -> CliResult<Vec<Item>> {
        let (mut items, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
                let path = entry.path();
                let meta = entry.metadata().map_err(failed(&path.display()))?;
                if meta.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let inside = path.strip_prefix(dir).unwrap_or(&path).as_os_str().as_bytes();
                let shown = match inside.strip_prefix(b"code/") {
                    Some(below) => below.to_vec(),
                    None if inside.starts_with(b"files/") => [b".pantheon/", inside].concat(),
                    None => inside.to_vec(),
                };
                let Ok(shown) = RemotePath::parse(shown) else { continue };
                let now = Some((fs::read(&path).map_err(failed(&path.display()))?, 0o100_644));
                let at = meta.modified().unwrap_or(UNIX_EPOCH);
                items.push(Item { path: shown, kind, now, at, commit: None });
            }
        }
        Ok(items)
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
