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
use crate::write::{What, backup_blob_path, backups_in};

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
            Ok(mount) => (Source::parse(&mount.source)?, Some(mount.mountpoint)),
            Err(outside) if at.exists() => {
                let text = format!("{}; or name the environment: --at SITE.ENV", outside.message);
                return Err(Failure::new(outside.exit, text));
            }
            Err(_) => (Source::parse(at.as_os_str())?, None),
        };
        let key = around.sites.key(&source);
        // A mount says where its state is; its process may have had another home.
        let told = inside.as_ref().and_then(|root| report::status_json(root).ok());
        let told = told.and_then(|status| Some(PathBuf::from(status["state_dir"].as_str()?)));
        let state_dir = told.or_else(|| around.known_state_dir(&key)).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("{source}: nothing is kept; it was never mounted here"))
        })?;
        // A mount of somebody else could send us anywhere.
        environ::open_own(&state_dir).map_err(|e| {
            let text = format!("{}: {e}; what is kept is shown to whom it belongs", state_dir.display());
            Failure::new(Exit::Failed, text)
        })?;
        // Somebody else may have the same environment mounted: theirs is not this one.
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

    /// What is kept, in path order; only these paths (or what is below them) if there are any.
    fn items(&self, only: &[PathBuf]) -> CliResult<Vec<Item>> {
        let mut items = self.kept()?;
        for (shelf, dir) in [("stranded", "stranded"), ("conflict", "conflicts")] {
            items.extend(self.shelved(shelf, &self.state_dir.join(dir))?);
        }
        items.sort_by(|a, b| (&a.path, a.shelf).cmp(&(&b.path, b.shelf)));
        if only.is_empty() {
            return Ok(items);
        }
        let wanted = only.iter().map(|path| self.inside(path)).collect::<CliResult<Vec<_>>>()?;
        let covers = |item: &Item| wanted.iter().any(|path| item.path.starts_with(path));
        if let Some(missing) = wanted.iter().find(|path| !items.iter().any(|item| item.path.starts_with(path))) {
            let text = format!("{missing}: nothing is kept of it; `pantheonfs rescue list` shows what is");
            return Err(Failure::new(Exit::Failed, text));
        }
        items.retain(covers);
        Ok(items)
    }

    /// A path as the user gave it, below the root of the mount.
    fn inside(&self, path: &Path) -> CliResult<RemotePath> {
        let settled = mountpoint::settle(path).ok();
        let below =
            settled.as_ref().zip(self.mountpoint.as_ref()).and_then(|(path, root)| path.strip_prefix(root).ok());
        let text = below.unwrap_or(path).as_os_str().as_bytes();
        RemotePath::parse(text).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", path.display())))
    }

    fn kept(&self) -> CliResult<Vec<Item>> {
        let copies = backups_in(&self.state_dir).map_err(failed(&self.state_dir.display()))?;
        let mut items = Vec::new();
        for copy in copies {
            let at = UNIX_EPOCH + Duration::from_secs(copy.at);
            let item = |path: RemotePath, now| Item { path, shelf: "kept", now, at, commit: copy.commit.clone() };
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
        // What was changed after a move has a copy of its own.
        let mut seen = BTreeSet::new();
        items.reverse();
        items.retain(|item| seen.insert(item.path.clone()));
        Ok(items)
    }

    /// Committed files at a path and below it, with content and mode.
    fn committed_below(&self, path: &RemotePath, commit: Option<&str>) -> Vec<(RemotePath, (Vec<u8>, u32))> {
        let (Some(mirror), Some(commit)) = (&self.mirror, commit) else { return Vec::new() };
        let Ok(tree) = mirror.tree(commit) else { return Vec::new() };
        let below = tree.iter().filter(|(other, _)| other.starts_with(path));
        below.filter_map(|(path, file)| Some((path.clone(), (mirror.blob(file.blob).ok()?, file.mode)))).collect()
    }

    /// Files of a shelf. They are named by their path on the server; `code` is the root of the mount.
    fn shelved(&self, shelf: &'static str, dir: &Path) -> CliResult<Vec<Item>> {
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
                items.push(Item { path: shown, shelf, now, at, commit: None });
            }
        }
        Ok(items)
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
        let items = self.items(&[])?;
        if as_json {
            let list: Vec<_> = items
                .iter()
                .map(|item| {
                    json!({
                        "path": item.path.to_string(), "shelf": item.shelf, "deleted": item.now.is_none(),
                        "bytes": item.now.as_ref().map(|(bytes, _)| bytes.len()),
                        "time": humantime::format_rfc3339_seconds(item.at).to_string(),
                        "server": self.fate(item).text(),
                    })
                })
                .collect();
            return report::print(format!("{:#}\n", serde_json::Value::from(list)).as_bytes());
        }
        let mut out = String::new();
        if items.is_empty() {
            out = format!("{}: nothing is kept; everything written here was seen in a commit\n", self.source);
        }
        for item in &items {
            let size = item.now.as_ref().map_or("deleted".to_owned(), |(bytes, _)| format!("{} B", bytes.len()));
            let age = humantime::format_rfc3339_seconds(item.at);
            out.push_str(&format!("{}\t{}\t{size}\t{age}\t{}\n", item.path, item.shelf, self.fate(item).text()));
        }
        report::print(out.as_bytes())
    }

    /// What each item would replace: the server's object, or the committed one.
    fn base(&self, item: &Item, server: bool) -> Option<(Vec<u8>, u32)> {
        if server && let Some(file) = self.on_server(&item.path) {
            return object_at(&file);
        }
        let commit = item.commit.as_deref();
        self.committed_below(&item.path, commit).into_iter().find(|(path, _)| *path == item.path).map(|(_, file)| file)
    }

    fn patch(&self, paths: &[PathBuf], server: bool) -> CliResult<Vec<u8>> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for item in self.items(paths)? {
            if let Some(base) = self.base(&item, server) {
                before.push(Change { path: item.path.clone(), now: Some(base) });
            }
            after.push(Change { path: item.path, now: item.now });
        }
        let scratch = tempfile::tempdir().map_err(failed(&"a temporary directory"))?;
        mirror::patch(scratch.path(), &before, &after).map_err(|e| Failure::new(Exit::Failed, e.to_string()))
    }

    fn diff(&self, paths: &[PathBuf]) -> CliResult<()> {
        report::print(&self.patch(paths, true)?)
    }

    fn restore(&self, paths: &[PathBuf], to: Option<&Path>, json: bool) -> CliResult<()> {
        let mut said = Said::new(json);
        let root = to.or(self.mountpoint.as_deref()).ok_or_else(|| {
            let text = format!("{} is not mounted; mount it, or write elsewhere with --to DIR", self.source);
            Failure::new(Exit::MountPoint, text)
        })?;
        for item in self.items(paths)? {
            if item.shelf != "kept" && to.is_none() && self.fate(&item) == Fate::OnServer {
                continue;
            }
            self.put_back(&item, &root.join(item.path.to_os_string()), to.is_none(), &mut said)?;
        }
        said.end()
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
        let bytes = match form {
            ExportForm::Patch => self.patch(paths, false)?,
            ExportForm::Tar => archive(&self.items(paths)?).map_err(failed(&"the archive"))?,
        };
        match output {
            None => report::print(&bytes),
            Some(file) => fs::write(file, bytes).map_err(failed(&file.display())),
        }
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
