//! The hooks of a mount's git directory, which run this program by links with their names: each runs the user's own hook,
//! and those that concern the platform do their part.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::exit::{CliResult, Exit, Failure};
use super::git_commit::{self, git};
use super::mountpoint;
use crate::mirror::HOOKS;

/// The directory and name of the hook that the program was called as.
pub(super) fn called_as(program: &OsStr) -> Option<(PathBuf, OsString)> {
    let path = Path::new(program);
    let dir = path.parent().filter(|dir| dir.file_name().is_some_and(|name| name == HOOKS))?;
    Some((dir.parent()?.to_owned(), path.file_name()?.to_owned()))
}

/// Runs a hook. `git_dir` is the git directory that it belongs to.
pub(super) fn run(git_dir: &Path, name: &OsStr, args: &[OsString]) -> CliResult<()> {
    let users = users_hook(git_dir, name)?;
    let first = args.first().map(|arg| arg.as_bytes()).unwrap_or_default();
    match name.as_bytes() {
        b"pre-commit" => {
            run_users(users.as_deref(), args, None)?;
            git_commit::check_index()
        }
        b"reference-transaction" => {
            let lines = input()?;
            run_users(users.as_deref(), args, Some(&lines))?;
            if first == b"prepared" { git_commit::commit_moved(&lines) } else { Ok(()) }
        }
        b"post-commit" => {
            git_commit::take_over()?;
            run_users(users.as_deref(), args, None)
        }
        b"pre-push" => Err(no_push()),
        _ => run_users(users.as_deref(), args, None),
    }
}

fn input() -> CliResult<Vec<u8>> {
    let mut lines = Vec::new();
    let read = std::io::stdin().read_to_end(&mut lines);
    read.map(|_| lines).map_err(|e| Failure::caused(Exit::Failed, "git's references cannot be read", e))
}

/// The hook that would run without this program. Settings of this work tree alone, and of the command line here, are ours.
fn users_hook(git_dir: &Path, name: &OsStr) -> CliResult<Option<PathBuf>> {
    let told = git(&["config", "--show-scope", "--type=path", "--get-all", "core.hooksPath"]).unwrap_or_default();
    let mut users = told.split(|&b| b == b'\n').filter_map(|line| {
        let at = line.iter().position(|&b| b == b'\t')?;
        (![&b"worktree"[..], b"command"].contains(&&line[..at]))
            .then(|| PathBuf::from(OsString::from_vec(line[at + 1..].to_vec())))
    });
    let dir = users.next_back().unwrap_or_else(|| git_dir.join("hooks"));
    let hook = dir.join(name);
    let runs = hook.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    Ok(runs.then_some(hook))
}

fn run_users(hook: Option<&Path>, args: &[OsString], lines: Option<&[u8]>) -> CliResult<()> {
    let Some(hook) = hook else { return Ok(()) };
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, hook.display().to_string(), e);
    let stdin = if lines.is_some() { Stdio::piped() } else { Stdio::inherit() };
    let mut child = Command::new(hook).args(args).stdin(stdin).spawn().map_err(failed)?;
    if let (Some(lines), Some(mut to)) = (lines, child.stdin.take()) {
        // A hook need not read.
        let _ = to.write_all(lines);
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{}: ended with {status}", hook.display())))
}

fn no_push() -> Failure {
    let mount = mountpoint::around(Path::new(".")).map(|mount| mount.mountpoint);
    let mode = mount.ok().and_then(|at| super::report::status_json(&at).ok()).map(|status| status["mode"].clone());
    let text = match mode.as_ref().and_then(|mode| mode.as_str()) {
        Some("sftp") => {
            "nothing was pushed: the environment is in SFTP mode, in which the platform refuses pushes. 'git commit' in \
             the mount commits on the platform, where there is nothing left to push"
        }
        _ => {
            "nothing was pushed: commits are made on the platform ('git commit' in the mount, in SFTP mode). To push, use \
             a clone of the repository; 'pantheonfs connection' prints its address"
        }
    };
    Failure::new(Exit::Failed, text)
}

/// `pantheonfs fsmonitor`: answers git's question which paths changed since it asked last.
pub(super) fn fsmonitor(version: u32, token: &OsStr) -> CliResult<()> {
    if version != 2 {
        return Err(Failure::new(Exit::Usage, "fsmonitor: only version 2 of git's protocol is known"));
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    let known = (1..=64).contains(&token.len()) && token.as_bytes().iter().all(plain);
    let token = if known { token } else { OsStr::new("none") };
    let name = Path::new("since").join(token);
    super::report::print(&super::report::read(Path::new("."), &name.to_string_lossy())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_in_the_directory_of_hooks_are_hooks() {
        let name = |program: &str| called_as(OsStr::new(program));
        let found = Some((PathBuf::from("/s/git"), OsString::from("pre-commit")));
        assert_eq!(name(&format!("/s/git/{HOOKS}/pre-commit")), found);
        assert_eq!(name("/usr/bin/pantheonfs"), None);
        assert_eq!(name("pre-commit"), None);
    }
}
