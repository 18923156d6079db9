//! `pantheonfs rescue`: lists, compares, restores and exports the copies of uncommitted work on this machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::json;

use super::args_rescue::{ExportForm, Rescue};
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::object::{LINK_MODE, object_at, write_object};
use super::report::{self, Outcomes};
use super::rescue_items::{Fate, Item, Place};
use crate::mirror::{self, Change};
use crate::text::{self, visible};

pub(super) fn run(command: &Rescue) -> CliResult<()> {
    match command {
        Rescue::List { at, output } => Place::find(&at.at)?.list(output.json),
        Rescue::Diff { paths, at } => Place::find(&at.at)?.diff(paths),
        Rescue::Restore { paths, to, output, at } => Place::find(&at.at)?.restore(paths, to.as_deref(), output.json),
        Rescue::Export { paths, format, output, at } => Place::find(&at.at)?.export(paths, *format, output.as_deref()),
    }
}

impl Place {
    fn list(&self, as_json: bool) -> CliResult<()> {
        let found = self.items(&[])?;
        let time = |at| humantime::format_rfc3339_seconds(at).to_string();
        if as_json {
            let items = found.items.iter().map(|item| {
                json!({
                    "path": item.path.to_string(), "shelf": item.kind, "deleted": item.now.is_none(),
                    "bytes": item.now.as_ref().map(|(bytes, _)| bytes.len()), "time": time(item.at),
                    "server": self.fate(item).text(),
                })
            });
            let damaged = found.damaged.iter().map(|copy| {
                json!({
                    "path": copy.path.to_string(), "shelf": copy.kind, "deleted": false, "bytes": null,
                    "time": time(copy.at), "server": Fate::NotCompared.text(), "damaged": copy.why,
                })
            });
            report::print(text::json(&items.chain(damaged).collect::<Vec<_>>().into()).as_bytes())?;
            return found.tell_damage();
        }
        let mut out = String::new();
        if found.items.is_empty() && found.damaged.is_empty() {
            let source = visible(&self.source);
            out = format!("{source}: there are no copies; every change that was made here was seen in a commit\n");
        }
        for item in &found.items {
            let size = item.now.as_ref().map_or("deleted".to_owned(), |(bytes, _)| format!("{} B", bytes.len()));
            let (path, fate) = (visible(item.path.as_bytes()), self.fate(item).text());
            out.push_str(&format!("{path}\t{}\t{size}\t{}\t{fate}\n", item.kind, time(item.at)));
        }
        for copy in &found.damaged {
            let (path, why) = (visible(copy.path.as_bytes()), visible(&copy.why));
            out.push_str(&format!("{path}\t{}\tdamaged\t{}\t{why}\n", copy.kind, time(copy.at)));
        }
        report::print(out.as_bytes())?;
        found.tell_damage()
    }

    fn patch(&self, items: Vec<Item>, server: bool) -> CliResult<Vec<u8>> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for item in items {
            if let Some(base) = self.base(&item, server) {
                before.push(Change { path: item.path.clone(), now: Some(base) });
            }
            after.push(Change { path: item.path, now: item.now });
        }
        let scratch = tempfile::tempdir().map_err(failed(&"a temporary directory cannot be made"))?;
        mirror::patch(scratch.path(), &before, &after)
            .map_err(|e| Failure::caused(Exit::Failed, "the patch cannot be made", e))
    }

    fn diff(&self, paths: &[PathBuf]) -> CliResult<()> {
        let mut found = self.items(paths)?.newest();
        report::print(&self.patch(std::mem::take(&mut found.items), true)?)?;
        found.tell_damage()
    }

    fn restore(&self, paths: &[PathBuf], to: Option<&Path>, json: bool) -> CliResult<()> {
        let mut outcomes = Outcomes::new(json);
        let root = to.or(self.mountpoint.as_deref()).ok_or_else(|| {
            let text = format!("{} is not mounted; mount it, or write to another directory with --to DIR", self.source);
            Failure::new(Exit::MountPoint, text)
        })?;
        let found = self.items(paths)?.newest();
        for item in &found.items {
            if item.kind != "kept" && to.is_none() && self.fate(item) == Fate::OnServer {
                continue;
            }
            self.restore_one(item, &root.join(item.path.to_os_string()), to.is_none(), &mut outcomes)?;
        }
        outcomes.end()?;
        found.tell_damage()
    }

    fn restore_one(&self, item: &Item, target: &Path, in_mount: bool, outcomes: &mut Outcomes) -> CliResult<()> {
        let mut say = |outcome: &str| outcomes.add(&item.path.to_string(), outcome);
        let fail = failed(&target.display());
        let there = object_at(target);
        if there == item.now {
            return say("is the same already");
        }
        if let Some((content, _)) = &there {
            if !in_mount {
                let text = format!("{}: a different file exists and was not replaced; move it away", target.display());
                return Err(Failure::new(Exit::Failed, text));
            }
            let source = OsStr::new(&self.source);
            let inside = PathBuf::from(item.path.to_os_string());
            let kept = Environ::look()?.keep_reverted(source, &inside, content)?;
            say(&format!("the previous version is kept in {}", kept.display()))?;
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
        say("restored")
    }

    fn export(&self, paths: &[PathBuf], form: ExportForm, output: Option<&Path>) -> CliResult<()> {
        let mut found = self.items(paths)?.newest();
        let bytes = match form {
            ExportForm::Patch => self.patch(std::mem::take(&mut found.items), false)?,
            ExportForm::Tar => archive(&found.items).map_err(failed(&"the archive cannot be made"))?,
        };
        match output {
            None => report::print(&bytes),
            Some(file) => fs::write(file, bytes).map_err(failed(&file.display())),
        }?;
        found.tell_damage()
    }
}

fn archive(items: &[Item]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        // An archive cannot express a deletion, unlike a patch.
        let Some((content, mode)) = &item.now else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(item.at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
        let path = PathBuf::from(item.path.to_os_string());
        if *mode == LINK_MODE {
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
