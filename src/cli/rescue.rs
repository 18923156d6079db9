//! `pantheonfs rescue`: what is kept on this machine of uncommitted work. Works on the files of the state directory, so
//! that nothing needs to be mounted; where the environment is mounted, the server is compared.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::args::{ExportForm, Rescue};
use super::environ::{self, Environ};
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::report::{self, Said};
use super::source::{Source, is_uuid};
use crate::mirror::{self, Change, Mirror};
use crate::path::RemotePath;
use crate::text::{self, visible};
use crate::write::{RejectKind, What, backups_in, read_backup, rejects_in};

/// Where the kept work of one environment is.
struct Place {
    source: String,
    state_dir: PathBuf,
    /// Where it is mounted.
    mountpoint: Option<PathBuf>,
    /// The local copy of the repository, if there is one.
    mirror: Option<Mirror>,
}

/// One kept object.
struct Item {
    /// Below the root of the mount.
    path: RemotePath,
    /// `kept`, `stranded` or `conflict`.
    shelf: &'static str,
    /// Content and git mode; `None`: it was deleted.
    now: Option<(Vec<u8>, u32)>,
    at: SystemTime,
    commit: Option<String>,
}

/// A copy that is not what it was when it was kept.
struct Damaged {
    path: RemotePath,
    shelf: &'static str,
    at: SystemTime,
    why: String,
}

/// What is kept.
#[derive(Default)]
struct Found {
    /// Of one path and shelf, the oldest first.
    items: Vec<Item>,
    damaged: Vec<Damaged>,
    /// The list of copies is damaged: some may be missing.
    incomplete: bool,
}

impl Found {
    /// Of several copies on a shelf the newest counts.
    fn newest(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.items.reverse();
        self.items.retain(|item| seen.insert((item.path.clone(), item.shelf)));
        self.items.reverse();
        self
    }

    /// At the end of a command that has done what it could.
    fn tell_damage(&self) -> CliResult<()> {
        let mut texts: Vec<String> =
            self.damaged.iter().map(|copy| format!("{}: {}; nothing was made of it", copy.path, copy.why)).collect();
        if self.incomplete {
            texts.push("the list of kept copies is damaged: some may be missing here".into());
        }
        if texts.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, texts.join("; "))) }
    }
}

/// How an item compares with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    OnServer,
    Differs,
    Gone,
    NotCompared,
}

impl Fate {
    fn text(self) -> &'static str {
        match self {
            Fate::OnServer => "on the server",
            Fate::Differs => "the server has something else",
            Fate::Gone => "not on the server",
            Fate::NotCompared => "not compared: not mounted",
        }
    }
}

pub(super) fn run(command: &Rescue) -> CliResult<()> {
    match command {
        Rescue::List { at, json } => Place::find(&at.at)?.list(*json),
        Rescue::Diff { paths, at } => Place::find(&at.at)?.diff(paths),
        Rescue::Restore { paths, to, json, at } => Place::find(&at.at)?.restore(paths, to.as_deref(), *json),
        Rescue::Export { paths, format, output, at } => Place::find(&at.at)?.export(paths, *format, output.as_deref()),
    }
}

fn failed(what: &dyn std::fmt::Display) -> impl Fn(std::io::Error) -> Failure + use<> {
    let what = what.to_string();
    move |e| Failure::new(Exit::Failed, format!("{what}: {e}"))
}

impl Place {
    fn find(at: &Path) -> CliResult<Self> {
        let around = Environ::look()?;
        let (source, inside) = match mountpoint::around(at) {
            Ok(mount) => (Source::parse(&mount.source)?, Some(mount)),
            Err(outside) if at.exists() => {
                let text = format!("{}; or name the environment: --at SITE.ENV", outside.message);
                return Err(Failure::new(outside.exit, text));
            }
            Err(_) => (Source::parse(at.as_os_str())?, None),
        };
        // A mount says where its state is; its process may have had another home.
        let told = inside.as_ref().map(report::own_state_dir).transpose()?;
        let state_dir = told.or_else(|| around.known_state_dir(&source)).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("{source}: nothing is kept; it was never mounted here"))
        })?;
        environ::open_own(&state_dir).map_err(failed(&state_dir.display()))?;
        // Somebody else may have the same environment mounted: theirs is not this one.
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

    /// What is kept, in path order; only these paths (or what is below them) if there are any.
    fn items(&self, only: &[PathBuf]) -> CliResult<Found> {
        let mut found = self.kept()?;
        self.shelved(&mut found);
        found.items.sort_by(|a, b| (&a.path, a.shelf).cmp(&(&b.path, b.shelf)));
        if only.is_empty() {
            return Ok(found);
        }
        let wanted = only.iter().map(|path| self.inside(path)).collect::<CliResult<Vec<_>>>()?;
        let covered = |path: &RemotePath| wanted.iter().any(|wanted| path.starts_with(wanted));
        found.items.retain(|item| covered(&item.path));
        found.damaged.retain(|copy| covered(&copy.path));
        let all = || found.items.iter().map(|item| &item.path).chain(found.damaged.iter().map(|copy| &copy.path));
        if let Some(missing) = wanted.iter().find(|wanted| !all().any(|path| path.starts_with(wanted))) {
            let text = format!("{missing}: nothing is kept of it; `pantheonfs rescue list` shows what is");
            return Err(Failure::new(Exit::Failed, text));
        }
        Ok(found)
    }

    /// A path as the user gave it, below the root of the mount.
    fn inside(&self, path: &Path) -> CliResult<RemotePath> {
        let settled = mountpoint::settle(path).ok();
        let below =
            settled.as_ref().zip(self.mountpoint.as_ref()).and_then(|(path, root)| path.strip_prefix(root).ok());
        let text = below.unwrap_or(path).as_os_str().as_bytes();
        RemotePath::parse(text).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", path.display())))
    }

    fn kept(&self) -> CliResult<Found> {
        let (copies, incomplete) = backups_in(&self.state_dir).map_err(failed(&self.state_dir.display()))?;
        let (mut items, mut damaged) = (Vec::new(), Vec::new());
        for copy in copies {
            let at = UNIX_EPOCH + Duration::from_secs(copy.at);
            let item = |path: RemotePath, now| Item { path, shelf: "kept", now, at, commit: copy.commit.clone() };
            match &copy.what {
                What::Content { blob, mode, .. } => match read_backup(&self.state_dir, *blob) {
                    Ok(bytes) => items.push(item(copy.path.clone(), Some((bytes, *mode)))),
                    Err(error) => {
                        damaged.push(Damaged { path: copy.path.clone(), shelf: "kept", at, why: error.to_string() });
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
    fn committed_below(&self, path: &RemotePath, commit: Option<&str>) -> Vec<(RemotePath, (Vec<u8>, u32))> {
        let (Some(mirror), Some(commit)) = (&self.mirror, commit) else { return Vec::new() };
        let Ok(tree) = mirror.tree(commit) else { return Vec::new() };
        let below = tree.iter().filter(|(other, _)| other.starts_with(path));
        below.filter_map(|(path, file)| Some((path.clone(), (mirror.blob(file.blob).ok()?, file.mode)))).collect()
    }

    /// What is on the shelves. The server's `code` is the root of the mount.
    fn shelved(&self, found: &mut Found) {
        for copy in rejects_in(&self.state_dir) {
            let shelf = match copy.kind {
                RejectKind::Conflict => "conflict",
                RejectKind::Stranded => "stranded",
            };
            let Some(path) = self.shown(&copy.path) else { continue };
            match environ::read_own(&self.state_dir, &copy.file) {
                Ok((bytes, at)) => {
                    found.items.push(Item { path, shelf, now: Some((bytes, 0o100_644)), at, commit: None });
                }
                Err(error) => {
                    let why = format!("the copy cannot be read: {error}");
                    found.damaged.push(Damaged { path, shelf, at: UNIX_EPOCH, why });
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

    fn fate(&self, item: &Item) -> Fate {
        let Some(file) = self.on_server(&item.path) else { return Fate::NotCompared };
        match (&item.now, object_at(&file)) {
            (None, None) => Fate::OnServer,
            (Some((bytes, _)), Some((there, _))) if *bytes == there => Fate::OnServer,
            (Some(_), None) => Fate::Gone,
            (_, Some(_)) => Fate::Differs,
        }
    }

    fn list(&self, as_json: bool) -> CliResult<()> {
        let found = self.items(&[])?;
        let time = |at| humantime::format_rfc3339_seconds(at).to_string();
        if as_json {
            let items = found.items.iter().map(|item| {
                json!({
                    "path": item.path.to_string(), "shelf": item.shelf, "deleted": item.now.is_none(),
                    "bytes": item.now.as_ref().map(|(bytes, _)| bytes.len()), "time": time(item.at),
                    "server": self.fate(item).text(),
                })
            });
            let damaged = found.damaged.iter().map(|copy| {
                json!({
                    "path": copy.path.to_string(), "shelf": copy.shelf, "deleted": false, "bytes": null,
                    "time": time(copy.at), "server": Fate::NotCompared.text(), "damaged": copy.why,
                })
            });
            report::print(text::json(&items.chain(damaged).collect::<Vec<_>>().into()).as_bytes())?;
            return found.tell_damage();
        }
        let mut out = String::new();
        if found.items.is_empty() && found.damaged.is_empty() {
            let source = visible(&self.source);
            out = format!("{source}: nothing is kept; everything written here was seen in a commit\n");
        }
        for item in &found.items {
            let size = item.now.as_ref().map_or("deleted".to_owned(), |(bytes, _)| format!("{} B", bytes.len()));
            let (path, fate) = (visible(item.path.as_bytes()), self.fate(item).text());
            out.push_str(&format!("{path}\t{}\t{size}\t{}\t{fate}\n", item.shelf, time(item.at)));
        }
        for copy in &found.damaged {
            let (path, why) = (visible(copy.path.as_bytes()), visible(&copy.why));
            out.push_str(&format!("{path}\t{}\tdamaged\t{}\t{why}\n", copy.shelf, time(copy.at)));
        }
        report::print(out.as_bytes())?;
        found.tell_damage()
    }

    /// What each item would replace: the server's object, or the committed one.
    fn base(&self, item: &Item, server: bool) -> Option<(Vec<u8>, u32)> {
        if server && let Some(file) = self.on_server(&item.path) {
            return object_at(&file);
        }
        let commit = item.commit.as_deref();
        self.committed_below(&item.path, commit).into_iter().find(|(path, _)| *path == item.path).map(|(_, file)| file)
    }

    fn patch(&self, found: Vec<Item>, server: bool) -> CliResult<Vec<u8>> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for item in found {
            if let Some(base) = self.base(&item, server) {
                before.push(Change { path: item.path.clone(), now: Some(base) });
            }
            after.push(Change { path: item.path, now: item.now });
        }
        let scratch = tempfile::tempdir().map_err(failed(&"a temporary directory"))?;
        mirror::patch(scratch.path(), &before, &after).map_err(|e| Failure::new(Exit::Failed, e.to_string()))
    }

    fn diff(&self, paths: &[PathBuf]) -> CliResult<()> {
        let mut found = self.items(paths)?.newest();
        report::print(&self.patch(std::mem::take(&mut found.items), true)?)?;
        found.tell_damage()
    }

    fn restore(&self, paths: &[PathBuf], to: Option<&Path>, json: bool) -> CliResult<()> {
        let mut said = Said::new(json);
        let root = to.or(self.mountpoint.as_deref()).ok_or_else(|| {
            let text = format!("{} is not mounted; mount it, or write elsewhere with --to DIR", self.source);
            Failure::new(Exit::MountPoint, text)
        })?;
        let found = self.items(paths)?.newest();
        for item in &found.items {
            if item.shelf != "kept" && to.is_none() && self.fate(item) == Fate::OnServer {
                continue;
            }
            self.put_back(item, &root.join(item.path.to_os_string()), to.is_none(), &mut said)?;
        }
        said.end()?;
        found.tell_damage()
    }

    fn put_back(&self, item: &Item, target: &Path, in_mount: bool, said: &mut Said) -> CliResult<()> {
        let mut say = |outcome: &str| said.say(&item.path.to_string(), outcome);
        let fail = failed(&target.display());
        let there = object_at(target);
        if there == item.now {
            return say("is there as it is kept");
        }
        if let Some((content, _)) = &there {
            if !in_mount {
                let text = format!("{}: there is something else; nothing was written over it", target.display());
                return Err(Failure::new(Exit::Failed, text));
            }
            let source = OsStr::new(&self.source);
            let inside = PathBuf::from(item.path.to_os_string());
            let kept = Environ::look()?.keep_reverted(source, &inside, content)?;
            say(&format!("what was there is kept in {}", kept.display()))?;
        }
        match &item.now {
            None if there.is_some() => fs::remove_file(target).map_err(&fail)?,
            None => {}
            Some((content, mode)) => {
                if let Some(dir) = target.parent() {
                    fs::create_dir_all(dir).map_err(&fail)?;
                }
                write_object(target, content, *mode).map_err(&fail)?;
            }
        }
        say("put back")
    }

    fn export(&self, paths: &[PathBuf], form: ExportForm, output: Option<&Path>) -> CliResult<()> {
        let mut found = self.items(paths)?.newest();
        let bytes = match form {
            ExportForm::Patch => self.patch(std::mem::take(&mut found.items), false)?,
            ExportForm::Tar => archive(&found.items).map_err(failed(&"the archive"))?,
        };
        match output {
            None => report::print(&bytes),
            Some(file) => fs::write(file, bytes).map_err(failed(&file.display())),
        }?;
        found.tell_damage()
    }
}

/// Content and git mode of a file or link.
fn object_at(path: &Path) -> Option<(Vec<u8>, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let meta = path.symlink_metadata().ok()?;
    if meta.is_symlink() {
        return Some((fs::read_link(path).ok()?.as_os_str().as_bytes().to_vec(), 0o120_000));
    }
    let mode = if meta.permissions().mode() & 0o100 != 0 { 0o100_755 } else { 0o100_644 };
    Some((fs::read(path).ok()?, mode))
}

fn write_object(target: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if mode == 0o120_000 {
        if target.symlink_metadata().is_ok() {
            fs::remove_file(target)?;
        }
        return std::os::unix::fs::symlink(OsStr::from_bytes(content), target);
    }
    let mut file = fs::File::create(target)?;
    file.write_all(content)?;
    if mode & 0o111 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
    }
    file.sync_all()
}

fn archive(items: &[Item]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        // An archive cannot say "deleted": the patch can.
        let Some((content, mode)) = &item.now else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(item.at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
        let path = PathBuf::from(item.path.to_os_string());
        if *mode == 0o120_000 {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, path, OsStr::from_bytes(content))?;
        } else {
            header.set_mode(mode & 0o777);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_slice())?;
        }
    }
    tar.into_inner()
}
