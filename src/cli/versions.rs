//! `pantheonfs diff` and `pantheonfs show`: the difference to a commit, and objects of other commits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::report::{self, print};
use crate::pending::split_diff;
use crate::text;

/// `pantheonfs diff`: the parts of the difference at or below the given paths.
pub(super) fn diff(args: &args::Diff) -> CliResult<()> {
    let first = args.paths.first().map_or(Path::new("."), PathBuf::as_path);
    let root = mountpoint::around(first)?.mountpoint;
    let mut wanted = Vec::new();
    for path in &args.paths {
        let place =
            mountpoint::settle(path).map_err(|e| Failure::caused(Exit::Usage, path.display().to_string(), e))?;
        let inside = place.strip_prefix(&root).map_err(|_| {
            Failure::new(Exit::MountPoint, format!("{}: not in the mount {}", path.display(), root.display()))
        })?;
        wanted.push(inside.to_owned());
    }
    let text = match &args.at {
        None => report::read(first, "diff")?,
        Some(revision) => {
            // One name for the mount, whatever the name of the branch is.
            let name = revision.replace('%', "%25").replace('/', "%2F");
            let file = root.join(".pantheon/diff-at").join(name);
            fs::read(&file).map_err(|error| of_revision(&root, OsStr::new(revision), &file, error))?
        }
    };
    let files = split_diff(&text);
    let covered =
        |name: &[u8]| wanted.is_empty() || wanted.iter().any(|w| Path::new(OsStr::from_bytes(name)).starts_with(w));
    let files: Vec<_> = files.into_iter().filter(|(name, _)| name.is_empty() || covered(name)).collect();
    if args.output.json {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let list: Vec<_> = files.iter().map(|(name, part)| json!({ "path": text(name), "diff": text(part) })).collect();
        return print(text::json(&list.into()).as_bytes());
    }
    files.iter().try_for_each(|(_, part)| print(part))
}

/// `pantheonfs show`: prints an object of another commit.
pub(super) fn show(args: &args::Show) -> CliResult<()> {
    let words = args.object.as_bytes();
    let colon = words.iter().position(|&b| b == b':').ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{}: write REV:PATH, as in live:index.php", args.object.display()))
    })?;
    let (revision, path) = (OsStr::from_bytes(&words[..colon]), Path::new(OsStr::from_bytes(&words[colon + 1..])));
    let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if revision.is_empty() || !inside {
        let text = format!("{}: PATH is a path from the root of the mount, without '..'", args.object.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    let root = mountpoint::around(&args.at)?.mountpoint;
    let tree = root.join(".pantheon/at").join(revision);
    if tree.symlink_metadata().is_err() {
        return Err(of_revision(&root, revision, &tree, io::ErrorKind::NotFound.into()));
    }
    let place = tree.join(path);
    let printed = place.symlink_metadata().and_then(|meta| match meta.file_type() {
        kind if kind.is_dir() => names(&place).map(|names| json!({ "names": names })),
        kind if kind.is_symlink() => fs::read_link(&place).map(|target| json!({ "content": target.to_string_lossy() })),
        _ if args.output.json => fs::read(&place).map(|bytes| json!({ "content": String::from_utf8_lossy(&bytes) })),
        _ => copy(&place).map(|()| json!(null)),
    });
    let found = printed.map_err(|e| Failure::caused(Exit::Failed, args.object.display().to_string(), e))?;
    if args.output.json {
        return print(text::json(&found).as_bytes());
    }
    let lines = found["names"].as_array().into_iter().flatten().chain(found.get("content"));
    lines.filter_map(|line| line.as_str()).try_for_each(|line| print(format!("{}\n", text::visible(line)).as_bytes()))
}

/// The names in a directory, in order; a slash follows those of directories.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let named = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let mark = if entry.file_type()?.is_dir() { "/" } else { "" };
        Ok(format!("{}{mark}", entry.file_name().to_string_lossy()))
    };
    let mut names = fs::read_dir(dir)?.map(named).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Prints a file, which may be larger than memory.
fn copy(file: &Path) -> io::Result<()> {
    match io::copy(&mut File::open(file)?, &mut io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The failure of a command about a commit.
fn of_revision(root: &Path, revision: &OsStr, file: &Path, error: io::Error) -> Failure {
    if error.kind() != io::ErrorKind::NotFound {
        return Failure::caused(Exit::Failed, file.display().to_string(), error);
    }
    let text = match root.join(".pantheon/at").exists() {
        true => format!("{}: no commit, tag or branch of the repository has this name", revision.display()),
        false => "the mount has no repository: it is not one of a Pantheon environment, or git is missing".into(),
    };
    Failure::new(Exit::Failed, text)
}
