//! `pantheonfs local`: the patterns of names that stay on this machine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde_json::json;

use super::args::{LocalCommand, Patterns};
use super::exit::{CliResult, Exit, Failure};
use super::{mountpoint, report};

/// The file of `.pantheon` with the patterns.
const FILE: &str = "local";
/// Number of names of the server that are listed.
const MAX_NAMED: usize = 5;

pub(super) fn run(what: &LocalCommand) -> CliResult<()> {
    match what {
        LocalCommand::List(at) if at.output.json => print_json(&at.path),
        LocalCommand::List(at) => report::print(&report::read(&at.path, FILE)?),
        LocalCommand::Add(wanted) => {
            if wanted.patterns.iter().any(|pattern| pattern.trim().is_empty()) {
                return Err(Failure::new(Exit::Usage, "a pattern is empty"));
            }
            let known = lines(&wanted.at)?;
            let new: Vec<&String> = wanted.patterns.iter().filter(|pattern| !known.contains(pattern)).collect();
            if !wanted.leave {
                refuse_taken(wanted)?;
            }
            let text: String = new.iter().map(|pattern| format!("{pattern}\n")).collect();
            write(&wanted.at, text.as_bytes(), false)?;
            done(wanted)
        }
        LocalCommand::Remove(wanted) => {
            let known = lines(&wanted.at)?;
            if let Some(missing) = wanted.patterns.iter().find(|pattern| !known.contains(pattern)) {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("'{missing}' is no pattern here; see pantheonfs local list"),
                ));
            }
            let left = known.iter().filter(|line| !wanted.patterns.contains(line));
            // Without a line the file would not be written at all.
            let text: String = left.map(|line| format!("{line}\n")).collect();
            write(&wanted.at, if text.is_empty() { b"\n" } else { text.as_bytes() }, true)?;
            done(wanted)
        }
    }
}

fn lines(at: &Path) -> CliResult<Vec<String>> {
    Ok(String::from_utf8_lossy(&report::read(at, FILE)?).lines().map(str::to_owned).collect())
}

fn print_json(at: &Path) -> CliResult<()> {
    let patterns = lines(at)?.into_iter().filter(|line| !line.is_empty() && !line.starts_with('#'));
    report::print(crate::text::json(&json!(patterns.collect::<Vec<_>>())).as_bytes())
}

fn done(wanted: &Patterns) -> CliResult<()> {
    if wanted.output.json { print_json(&wanted.at) } else { Ok(()) }
}

/// In one write, so that all of it is taken or nothing.
fn write(at: &Path, text: &[u8], replace: bool) -> CliResult<()> {
    if text.is_empty() {
        return Ok(());
    }
    let file = mountpoint::around(at)?.mountpoint.join(".pantheon").join(FILE);
    let opened = fs::OpenOptions::new().write(true).truncate(replace).append(!replace).open(&file);
    opened.and_then(|mut file| file.write_all(text)).map_err(|error| {
        let why = report::status_json(at).ok().and_then(|s| Some(s["last_error"]["message"].as_str()?.to_owned()));
        Failure::new(Exit::Usage, why.unwrap_or_else(|| format!("{}: {error}", file.display())))
    })
}

/// What the server has under a name is shown from there, whatever the patterns say: the user decides what becomes of it.
fn refuse_taken(wanted: &Patterns) -> CliResult<()> {
    let root = mountpoint::around(&wanted.at)?.mountpoint;
    let mut builder = GitignoreBuilder::new("/");
    for pattern in &wanted.patterns {
        let bad = |e: ignore::Error| Failure::caused(Exit::Usage, format!("'{pattern}' is no pattern of gitignore"), e);
        builder.add_line(None, pattern).map_err(bad)?;
    }
    let failed = |e: ignore::Error| Failure::caused(Exit::Usage, "the patterns cannot be used", e);
    let taken = taken(&root, &builder.build().map_err(failed)?);
    if taken.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = taken.iter().map(|path| crate::text::visible(path.display().to_string())).collect();
    Err(Failure::new(
        Exit::Busy,
        format!(
            "there is already: {}. Remove it first (rm -r), or leave it where it is and as it is with --leave",
            names.join(", ")
        ),
    ))
}

/// Names below the root that match, at most a few.
fn taken(root: &Path, rules: &Gitignore) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).into_iter().flatten().flatten() {
            let path = dir.join(entry.file_name());
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if dir.as_os_str().is_empty() && [".pantheon", ".git"].iter().any(|own| entry.file_name() == *own) {
                continue;
            }
            if rules.matched(Path::new("/").join(&path), is_dir).is_ignore() {
                found.push(path);
                if found.len() == MAX_NAMED {
                    return found;
                }
            } else if is_dir {
                dirs.push(path);
            }
        }
    }
    found
}
