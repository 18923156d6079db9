//! `git commit` in a mount: the platform commits everything that is uncommitted on the server, so that is compared with what
//! git is about to commit. The commit on the platform is made while git still holds its locks, and takes the place of git's
//! own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::exit::{CliResult, Exit, Failure};
use super::{commands, mountpoint, report};
use crate::mirror;
use crate::text::visible;

/// The mode of a link, and the name of no object, as git prints them.
const LINK: &[u8] = b"120000";
const NO_OBJECT: &str = "0000000000000000000000000000000000000000";

/// Runs git without hooks, and returns what it prints.
pub(super) fn git(args: &[&str]) -> CliResult<Vec<u8>> {
    git_with(args, b"")
}

fn git_with(args: &[&str], input: &[u8]) -> CliResult<Vec<u8>> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "git cannot be run", e);
    let mut command = Command::new("git");
    command.args(["-c", "core.hooksPath=/dev/null"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let to = child.stdin.take();
    let input = input.to_vec();
    // From another thread: git prints while it reads.
    let writer = std::thread::spawn(move || to.map_or(Ok(()), |mut to| to.write_all(&input)));
    let output = child.wait_with_output().map_err(failed)?;
    let written = writer.join().map_err(|_| Failure::new(Exit::Failed, "git cannot be fed"))?;
    if output.status.success() {
        return written.map(|()| output.stdout).map_err(failed);
    }
    Err(Failure::new(Exit::Failed, format!("git {} failed", args.first().copied().unwrap_or_default())))
}

fn line(args: &[&str]) -> CliResult<String> {
    Ok(String::from_utf8_lossy(&git(args)?).trim().to_owned())
}

/// A path that git is about to commit.
struct Change {
    path: Vec<u8>,
    /// The new mode and object; `None`: removed.
    now: Option<(Vec<u8>, String)>,
}

/// Parses the output of `git diff-index` or `diff-tree` with `-z`.
fn changes(raw: &[u8]) -> Vec<Change> {
    let mut parts = raw.split(|&b| b == 0).filter(|part| !part.is_empty());
    let mut out = Vec::new();
    while let (Some(head), Some(path)) = (parts.next(), parts.next()) {
        // `:OLDMODE NEWMODE OLD NEW LETTER`
        let words: Vec<&[u8]> = head.split(|&b| b == b' ').collect();
        let [_, mode, _, object, letter] = words.as_slice() else { continue };
        let now = (*letter != b"D").then(|| (mode.to_vec(), String::from_utf8_lossy(object).into_owned()));
        out.push(Change { path: path.to_vec(), now });
    }
    out
}

/// The status of the mount, after what is uncommitted on the server was found out.
fn status(at: &Path) -> CliResult<Value> {
    report::read(at, "pending")?;
    report::status_json(at)
}

fn here() -> CliResult<PathBuf> {
    Ok(mountpoint::around(Path::new("."))?.mountpoint)
}

/// The hook `pre-commit`: whether the commit would be the platform's, before the user writes a message.
pub(super) fn check_index() -> CliResult<()> {
    let (at, index) = (here()?, ["diff-index", "--cached", "--no-renames", "--abbrev=40", "-r", "-z", "HEAD"]);
    let status = may_commit(&at)?;
    let head = line(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    on_branch(&status, head.strip_prefix("refs/heads/"))?;
    at_target(&status)?;
    compare(&at, &status, &changes(&git(&index)?))
}

/// The hook `reference-transaction`: git is about to move references. A branch or HEAD may only go to commits that the
/// platform has, or to the one that the platform makes now.
pub(super) fn commit_moved(lines: &[u8]) -> CliResult<()> {
    let text = String::from_utf8_lossy(lines);
    let mut moves: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for words in text.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>()) {
        let [_, new, name] = words[..] else { continue };
        if (name == "HEAD" || name.starts_with("refs/heads/")) && new != NO_OBJECT && !new.starts_with("ref:") {
            moves.entry(new).or_default().push(name);
        }
    }
    for (new, names) in moves {
        let contains = format!("--contains={new}");
        let known = line(&["for-each-ref", "--count=1", &contains, "refs/remotes", "refs/tags"])?;
        if known.is_empty() {
            commit(new, names.iter().find_map(|name| name.strip_prefix("refs/heads/")))?;
        }
    }
    Ok(())
}

/// Has the platform make the commit that git has prepared.
fn commit(new: &str, branch: Option<&str>) -> CliResult<()> {
    let at = here()?;
    let status = may_commit(&at)?;
    on_branch(&status, branch)?;
    let object = git(&["cat-file", "commit", new])?;
    let text = String::from_utf8_lossy(&object);
    let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
    let parents: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("parent ")).collect();
    let target = status["target_commit"].as_str().unwrap_or_default();
    at_target(&status)?;
    if parents != [target] {
        let short: String = target.chars().take(12).collect();
        return refuse(format!(
            "the platform can only add one commit to {short}, which the environment runs: no amend, no merge and no rebase \
             (git merge --squash, then git commit, works)"
        ));
    }
    compare(&at, &status, &changes(&git(&["diff-tree", "--no-renames", "--abbrev=40", "-r", "-z", target, new])?))?;
    commands::write(&at, "commit", message, "committing on the platform")
}

/// The hook `post-commit`: the commit that the platform has made takes the place of git's.
pub(super) fn take_over() -> CliResult<()> {
    let status = report::status_json(&here()?)?;
    let made = &status["committed"];
    let (Some(hash), Some(true)) = (made["commit"].as_str(), made["in_repository"].as_bool()) else {
        eprintln!("pantheonfs: committed on the platform; git shows that commit once it could be fetched");
        return Ok(());
    };
    let now = line(&["rev-parse", "HEAD"])?;
    if now != hash {
        git(&["update-ref", "-m", "commit: as the platform made it", "HEAD", hash, &now])?;
    }
    eprintln!("pantheonfs: committed on the platform as {}", hash.get(..12).unwrap_or(hash));
    Ok(())
}

/// The status, if the environment takes commits.
fn may_commit(at: &Path) -> CliResult<Value> {
    let status = status(at)?;
    match status["code"]["reason"].as_str() {
        Some(reason) => refuse(format!("code is read-only here: {}", visible(reason))),
        None => Ok(status),
    }
}

/// Git holds its locks by now: HEAD cannot follow before this commit is given up.
fn at_target(status: &Value) -> CliResult<()> {
    let target = status["target_commit"].as_str().unwrap_or_default();
    if line(&["rev-parse", "HEAD"])? == target {
        return Ok(());
    }
    let short: String = target.chars().take(12).collect();
    refuse(format!("the environment runs {short}, and HEAD is another commit; it follows in a moment: try again then"))
}

fn on_branch(status: &Value, branch: Option<&str>) -> CliResult<()> {
    let theirs = status["git"]["branch"].as_str().unwrap_or_default();
    if branch == Some(theirs) {
        return Ok(());
    }
    refuse(format!("the platform commits to {theirs} only, and HEAD is elsewhere; git switch {theirs} first"))
}

/// Whether the changes are all that is uncommitted on the server, with the content that the mount shows.
fn compare(at: &Path, status: &Value, staged: &[Change]) -> CliResult<()> {
    let Some(uncommitted) = status["uncommitted"].as_array() else {
        return refuse("what is uncommitted on the server is not known ('pantheonfs pending' says why)".into());
    };
    let there: BTreeSet<String> =
        uncommitted.iter().filter_map(|file| file["path"].as_str().map(str::to_owned)).collect();
    let name = |change: &Change| String::from_utf8_lossy(&change.path).into_owned();
    let here: BTreeSet<String> = staged.iter().map(name).collect();
    let other = other_content(at, staged)?;
    let list = |paths: &mut dyn Iterator<Item = String>, what: &str| {
        paths.map(|path| eprintln!("  {what}: {}", visible(path))).count()
    };
    let wrong = list(&mut there.difference(&here).cloned(), "uncommitted on the server, not staged")
        + list(&mut here.difference(&there).cloned(), "staged, not uncommitted on the server")
        + list(&mut other.into_iter().filter(|path| there.contains(path)), "staged with other content");
    if wrong == 0 {
        return Ok(());
    }
    refuse(
        "the platform commits everything that is uncommitted on the server, as it is there. 'git add -A' stages it; \
         'pantheonfs revert PATH' takes back what should not be in the commit"
            .into(),
    )
}

/// The paths whose content in the mount is not the one that git is about to commit.
fn other_content(at: &Path, staged: &[Change]) -> CliResult<Vec<String>> {
    let (mut files, mut other) = (Vec::new(), Vec::new());
    for change in staged {
        let Some((mode, object)) = &change.now else { continue };
        let path = String::from_utf8_lossy(&change.path).into_owned();
        if mode == LINK {
            let text = std::fs::read_link(at.join(std::ffi::OsStr::from_bytes(&change.path))).unwrap_or_default();
            let same = mirror::hash(text.as_os_str().as_bytes()).is_ok_and(|blob| blob.to_string() == *object);
            other.extend((!same).then_some(path));
        } else if at.join(std::ffi::OsStr::from_bytes(&change.path)).is_file() {
            files.push((path, change, object));
        } else {
            other.push(path);
        }
    }
    let names: Vec<u8> = files.iter().flat_map(|(_, change, _)| [&change.path[..], b"\n"].concat()).collect();
    let hashes = git_with(&["hash-object", "--stdin-paths"], &names)?;
    let hashes = String::from_utf8_lossy(&hashes).into_owned();
    let differs = files.into_iter().zip(hashes.lines()).filter(|((_, _, object), hash)| *hash != object.as_str());
    other.extend(differs.map(|((path, ..), _)| path));
    Ok(other)
}

fn refuse<T>(why: String) -> CliResult<T> {
    Err(Failure::new(Exit::Failed, format!("nothing was committed: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_git_is_understood() {
        let one = "1".repeat(40);
        let raw = format!(":100644 100644 {one} {one} M\0a b\0:100644 000000 {one} {NO_OBJECT} D\0c\nd\0");
        let found = changes(raw.as_bytes());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].path, b"a b");
        assert_eq!(found[0].now, Some((b"100644".to_vec(), one)));
        assert_eq!((found[1].path.as_slice(), &found[1].now), (&b"c\nd"[..], &None));
        assert!(changes(b"").is_empty() && changes(b"nonsense\0").is_empty());
    }
}
