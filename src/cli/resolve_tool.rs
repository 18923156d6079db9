//! Merging by the tool that git is configured with. The three versions are put into the index of a repository of its own as
//! an unfinished merge, so that `git mergetool` starts any tool that it knows, with the user's settings.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::exit::{CliResult, Exit, Failure, failed};

/// The versions that are merged.
pub(super) struct Versions<'a> {
    pub(super) ours: &'a [u8],
    /// `None`: the file was made on both sides.
    pub(super) base: Option<&'a [u8]>,
    pub(super) theirs: &'a [u8],
}

/// How the tool is started.
pub(super) struct Tool<'a> {
    /// As git calls it; `None`: the one that git is configured with.
    pub(super) name: Option<&'a str>,
    /// Whether standard output is kept for JSON.
    pub(super) json: bool,
}

/// Settings of the user that would change contents on their way, or slow down a repository of one file.
const SETTINGS: [[&str; 2]; 5] = [
    ["core.autocrlf", "false"],
    ["core.safecrlf", "false"],
    ["core.attributesFile", "/dev/null"],
    ["core.fsmonitor", "false"],
    ["mergetool.keepBackup", "false"],
];

/// The result of the tool.
///
/// # Errors
///
/// Git or the tool failed, or the user ended it without a result.
pub(super) fn merge(inside: &Path, versions: &Versions<'_>, tool: &Tool<'_>) -> CliResult<Vec<u8>> {
    let failed = failed(&"git mergetool");
    // The tool shows the name, whose ending tells it the language.
    let name = inside.file_name().unwrap_or(OsStr::new("file"));
    let dir = tempfile::tempdir().map_err(&failed)?;
    let dir = dir.path();
    git(dir, &["init", "-q", "--template="], &[])?;
    for [key, value] in SETTINGS {
        git(dir, &["config", key, value], &[])?;
    }
    let mut index = Vec::new();
    for (stage, content) in [(1, versions.base), (2, Some(versions.ours)), (3, Some(versions.theirs))] {
        let Some(content) = content else { continue };
        let hash = git(dir, &["hash-object", "-w", "--no-filters", "--stdin"], content)?;
        let hash = String::from_utf8_lossy(&hash);
        index.extend_from_slice(format!("100644 {} {stage}\t", hash.trim()).as_bytes());
        index.extend_from_slice(name.as_bytes());
        index.push(0);
    }
    git(dir, &["update-index", "-z", "--index-info"], &index)?;
    git_on(dir, &["checkout", "-q", "--merge", "--"], name)?;
    run(dir, name, tool).map_err(&failed)?;
    if !git(dir, &["ls-files", "-u"], &[])?.is_empty() {
        let text = format!("{}: the tool ended without a result; nothing was changed", inside.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    fs::read(dir.join(name)).map_err(&failed)
}

/// Starts the tool and waits for its end. Whether it has merged is seen in the index afterwards.
fn run(dir: &Path, name: &OsStr, tool: &Tool<'_>) -> io::Result<()> {
    let mut command = in_repository(dir);
    command.args(["mergetool", "--no-prompt"]);
    command.args(tool.name.map(|name| format!("--tool={name}")));
    if tool.json {
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    }
    command.arg("--").arg(name).status().map(drop)
}

/// Git in the repository, whatever repository the caller is in.
fn in_repository(dir: &Path) -> Command {
    let mut command = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"] {
        command.env_remove(variable);
    }
    command.current_dir(dir);
    command
}

fn git(dir: &Path, args: &[&str], input: &[u8]) -> CliResult<Vec<u8>> {
    let mut command = in_repository(dir);
    command.args(args);
    output(command, args[0], input)
}

fn git_on(dir: &Path, args: &[&str], name: &OsStr) -> CliResult<Vec<u8>> {
    let mut command = in_repository(dir);
    command.args(args).arg(name);
    output(command, args[0], &[])
}

fn output(mut command: Command, what: &str, input: &[u8]) -> CliResult<Vec<u8>> {
    let failed = failed(&format!("git {what}"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(&failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        // Git reads all of it before it writes, so that neither waits for the other.
        pipe.write_all(input).map_err(&failed)?;
    }
    let output = child.wait_with_output().map_err(&failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(Exit::Failed, format!("git {what}: {said}")))
}
