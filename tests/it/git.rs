//! Git in a mount: the local `.git`, `git status` without a walk, and commits that the platform makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pantheonfs::sim::SimConfig;

use crate::common::eventually;
use crate::common::mounted::Mounted;
use crate::common::program::Ran;

fn git(m: &Mounted, args: &[&str]) -> Ran {
    let mut command = Command::new("git");
    m.environ().dress(&mut command);
    command.current_dir(m.dir()).args(args);
    for (name, value) in [("NAME", "Ann"), ("EMAIL", "ann@example.org")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    Ran(command.output().expect("git runs"))
}

fn out(m: &Mounted, args: &[&str]) -> String {
    git(m, args).ok().out().trim().to_owned()
}

/// The newest commit of the site's repository.
fn platform(m: &Mounted, format: &str) -> String {
    let log = Command::new("git")
        .arg("--git-dir")
        .arg(m.sim_ref().repository())
        .args(["log", "-1", &format!("--format={format}"), "master"])
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&log.stdout).trim().to_owned()
}

fn with_git(m: Mounted) -> Mounted {
    eventually(".git is shown", || m.path(".git").exists());
    m
}

fn sim() -> Option<Mounted> {
    Mounted::sim().map(with_git)
}

#[test]
fn the_mount_is_a_work_tree_at_the_commit_that_runs() {
    let Some(m) = sim() else { return };
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), platform(&m, "%H"));
    assert_eq!(out(&m, &["symbolic-ref", "HEAD"]), "refs/heads/master");
    assert_eq!(out(&m, &["rev-parse", "--show-toplevel"]), fs::canonicalize(m.dir()).expect("there").to_string_lossy());
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    fs::write(m.path("new.php"), "<?php\n").expect("written");
    fs::write(m.path(".new.php.swp"), "local").expect("written");
    assert_eq!(out(&m, &["status", "--porcelain"]), "M index.php\n?? new.php");
    assert!(out(&m, &["diff"]).contains("+<?php // changed"));
    assert_eq!(out(&m, &["log", "--format=%H", "-1"]), platform(&m, "%H"));
    assert!(out(&m, &["blame", "-s", "index.php"]).contains("changed"));
    assert!(out(&m, &["grep", "-l", "changed"]).contains("index.php"));
    out(&m, &["stash", "-u"]);
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    assert!(
        !m.there("new.php").exists() || {
            m.barrier().expect("sent");
            !m.there("new.php").exists()
        }
    );
    out(&m, &["stash", "pop"]);
    assert_eq!(out(&m, &["status", "--porcelain"]), "M index.php\n?? new.php");
    fs::write(m.path("index.php"), "<?php // changed again\n").expect("written");
    out(&m, &["checkout", "--", "index.php"]);
    assert_eq!(out(&m, &["status", "--porcelain"]), "?? new.php");
}

#[test]
fn the_first_status_reads_no_file_that_is_proved() {
    let Some(m) = sim() else { return };
    let dir = m.status()["git"]["dir"].as_str().expect("a path").to_owned();
    m.umount().ok();
    fs::remove_dir_all(dir).expect("removed");
    // Files of a site are older than those of a test.
    let old = Command::new("find")
        .arg(&m.server)
        .args(["-type", "f", "-exec", "touch", "-d", "2 days ago", "{}", "+"])
        .status();
    assert!(old.expect("find runs").success());
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    let m = with_git(m);
    let repository = &m.status()["repository"];
    if repository["not_attested"] != serde_json::Value::Null {
        println!("SKIPPED: the server gives no checksums: {repository}");
        return;
    }
    assert_eq!(repository["proved"], repository["files"], "{repository}");
    let entries = out(&m, &["ls-files", "--debug"]);
    let times: Vec<&str> = entries.lines().filter(|line| line.trim().starts_with("mtime:")).collect();
    assert!(times.len() > 50 && !times.iter().any(|time| time.ends_with(" 0:0")), "{entries}");
    let read = |m: &Mounted| m.status()["repository"]["read_files"].as_u64().expect("a number");
    let before = read(&m);
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    // Git reads the rules for ignored files, and no other.
    assert!(read(&m) - before <= 3, "{} files", read(&m) - before);
}

#[test]
fn the_local_git_directory_never_reaches_the_server() {
    let Some(m) = sim() else { return };
    out(&m, &["stash", "list"]);
    assert!(!m.on_server(".git").exists() || m.there(".git").is_dir(), "the server's own, if any");
    let names: Vec<String> = fs::read_dir(m.dir())
        .expect("listed")
        .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
        .filter(|name| name == ".git")
        .collect();
    assert_eq!(names, [".git"], "once");
    let link = fs::read_to_string(m.path(".git")).expect("a file");
    assert!(link.starts_with("gitdir: /") && link.contains("/pantheonfs/"), "{link}");
    for failed in [
        fs::write(m.path(".git"), "gitdir: elsewhere\n"),
        fs::remove_file(m.path(".git")),
        fs::rename(m.path(".git"), m.path("git")),
        fs::rename(m.path("index.php"), m.path(".git")),
    ] {
        let error = failed.expect_err("it belongs to the mount");
        assert!([Some(libc::EPERM), Some(libc::EACCES)].contains(&error.raw_os_error()), "{error}");
    }
    let pending = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(!pending.contains(".git"), "{pending}");
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("\ngit: on master; "), "{status}");
}

#[test]
fn the_servers_git_directory_is_hidden_and_named() {
    let Some(m) = sim() else { return };
    if !m.there(".git").exists() {
        fs::create_dir(m.there(".git")).expect("made");
    }
    m.umount().ok();
    let source = format!("{}.dev", m.sim_ref().site());
    m.mount(&source, &m.sim_ref().options()).ok();
    let m = with_git(m);
    assert!(m.path(".git").is_file(), "ours");
    eventually("status says so", || m.status()["git"]["hides"] == true);
}

#[test]
fn with_git_no_there_is_no_git_directory() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "git=no") else { return };
    assert_eq!(m.status()["git"], serde_json::Value::Null);
    assert!(!m.path(".git").is_file());
}

#[test]
fn git_commit_is_the_platforms_commit() {
    let Some(m) = sim() else { return };
    let before = platform(&m, "%H");
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    fs::write(m.path("new.php"), "<?php\n").expect("written");
    let half = git(&m, &["commit", "-am", "Half of it"]);
    assert_ne!(half.code(), 0);
    assert!(half.err().contains("not staged: new.php") && half.err().contains("git add -A"), "{}", half.err());
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), before, "nothing happened");
    out(&m, &["add", "-A"]);
    let done = git(&m, &["commit", "-m", "Change the front page\n\nBecause."]).ok();
    let after = platform(&m, "%H");
    assert_ne!(before, after);
    assert!(done.err().contains(&after[..12]), "{}", done.err());
    assert_eq!(platform(&m, "%B"), "Change the front page\n\nBecause.");
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), after);
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    assert_eq!(out(&m, &["log", "--format=%s", "-1"]), "Change the front page");
    assert!(out(&m, &["show", "--stat", "HEAD"]).contains("new.php"));
    fs::remove_file(m.path("new.php")).expect("removed");
    git(&m, &["commit", "-am", "Take it back", "--no-verify"]).ok();
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), platform(&m, "%H"));
    assert_eq!(platform(&m, "%s"), "Take it back");
}

#[test]
fn a_commit_that_the_platform_cannot_make_is_refused() {
    let Some(m) = sim() else { return };
    let before = platform(&m, "%H");
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    out(&m, &["add", "-A"]);
    let refused = |args: &[&str], why: &str| {
        let ran = git(&m, args);
        assert_ne!(ran.code(), 0, "{args:?}");
        assert!(ran.err().contains(why), "{args:?}: {}", ran.err());
        assert_eq!(platform(&m, "%H"), before);
        assert_eq!(out(&m, &["rev-parse", "master"]), before);
        assert_eq!(out(&m, &["status", "--porcelain"]), "M  index.php", "still staged");
    };
    refused(&["commit", "--amend", "--no-verify", "-m", "Better"], "no amend");
    refused(&["push"], "git commit");
    m.control("habit", r#"{"name": "workflow", "value": "fail"}"#);
    refused(&["commit", "-m", "Try"], "build_status is building");
    m.control("habit", r#"{"name": "workflow", "value": "succeed"}"#);
    out(&m, &["switch", "-q", "-c", "idea"]);
    refused(&["commit", "-m", "Elsewhere"], "git switch master");
    out(&m, &["switch", "-q", "master"]);
    // Staged content that the mount does not show any more.
    fs::write(m.path("index.php"), "<?php // newer\n").expect("written");
    let ran = git(&m, &["commit", "-m", "Old"]);
    assert!(ran.code() != 0 && ran.err().contains("other content: index.php"), "{}", ran.err());
    git(&m, &["commit", "-am", "Now"]).ok();
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), platform(&m, "%H"));
}

#[test]
fn in_git_mode_and_on_live_git_reads_and_does_not_write() {
    let Some(m) = sim() else { return };
    m.control("mode", r#"{"environment": "dev", "mode": "git"}"#);
    eventually("the mode is followed", || m.status()["mode"] == "git");
    assert!(!out(&m, &["log", "--format=%h"]).is_empty());
    let ran = git(&m, &["commit", "--allow-empty", "-m", "No"]);
    assert!(ran.code() != 0 && ran.err().contains("read-only"), "{}", ran.err());
    let Some(live) = Mounted::sim_with(&SimConfig::default(), "live", "").map(with_git) else { return };
    assert_eq!(out(&live, &["status", "--porcelain"]), "");
    assert!(!out(&live, &["show", "--stat", "HEAD"]).is_empty());
    assert_ne!(git(&live, &["symbolic-ref", "-q", "HEAD"]).code(), 0, "a tag runs: HEAD is detached");
}

#[test]
fn head_and_index_follow_commits_of_others() {
    let Some(m) = sim() else { return };
    fs::write(m.path("mine.php"), "<?php\n").expect("written");
    out(&m, &["add", "mine.php"]);
    // As in the dashboard: not through git.
    fs::write(m.path(".pantheon/commit"), "From the dashboard\n").expect("committed");
    eventually("HEAD follows", || out(&m, &["rev-parse", "HEAD"]) == platform(&m, "%H"));
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    assert_eq!(out(&m, &["log", "--format=%s", "-1"]), "From the dashboard");
}

#[test]
fn changes_on_the_server_are_in_git_status() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "fresh=1").map(with_git) else { return };
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    fs::write(m.there("index.php"), "<?php // by a teammate\n").expect("written");
    fs::write(m.there("theirs.php"), "<?php\n").expect("written");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(out(&m, &["status", "--porcelain"]), "M index.php\n?? theirs.php");
    fs::remove_file(m.there("theirs.php")).expect("removed");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(out(&m, &["status", "--porcelain"]), "M index.php");
}

#[test]
fn a_remount_keeps_branches_stash_and_index() {
    let Some(m) = sim() else { return };
    fs::write(m.path("index.php"), "<?php // later\n").expect("written");
    out(&m, &["stash"]);
    out(&m, &["branch", "idea"]);
    fs::write(m.path("new.php"), "<?php\n").expect("written");
    out(&m, &["add", "new.php"]);
    m.umount().ok();
    let source = format!("{}.dev", m.sim_ref().site());
    m.mount(&source, &m.sim_ref().options()).ok();
    assert_eq!(out(&m, &["status", "--porcelain"]), "A  new.php", "at once");
    assert!(out(&m, &["stash", "list"]).contains("stash@{0}"));
    assert!(out(&m, &["branch"]).contains("idea"));
}

fn hook(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn the_users_own_hooks_are_run_and_those_of_the_repository_are_not() {
    let Some(m) = sim() else { return };
    let dir = m.status()["git"]["dir"].as_str().expect("a path").to_owned();
    let note = m.environ().path("note");
    hook(&Path::new(&dir).join("hooks/pre-commit"), &format!("#!/bin/sh\necho own >>{}\n", note.display()));
    hook(&Path::new(&dir).join("hooks/commit-msg"), "#!/bin/sh\necho 'Checked: yes' >>\"$1\"\n");
    fs::create_dir(m.path("hooks")).expect("made");
    hook(&m.path("hooks/pre-commit"), &format!("#!/bin/sh\necho theirs >>{}\n", note.display()));
    out(&m, &["add", "-A"]);
    git(&m, &["commit", "-m", "With hooks"]).ok();
    assert_eq!(fs::read_to_string(&note).expect("run"), "own\n");
    assert!(platform(&m, "%B").contains("Checked: yes"));
    // A program such as husky sets the directory of hooks: they run as well, and the commit stays the platform's.
    let husky = m.environ().path("husky");
    fs::create_dir(&husky).expect("made");
    hook(&husky.join("pre-commit"), "#!/bin/sh\necho 'no today' >&2\nexit 1\n");
    out(&m, &["config", "core.hooksPath", &husky.to_string_lossy()]);
    fs::write(m.path("index.php"), "<?php // more\n").expect("written");
    let ran = git(&m, &["commit", "-am", "Refused by a hook"]);
    assert!(ran.code() != 0 && ran.err().contains("no today"), "{}", ran.err());
    hook(&husky.join("pre-commit"), "#!/bin/sh\nexit 0\n");
    git(&m, &["commit", "-am", "Taken"]).ok();
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), platform(&m, "%H"));
}

/// The next token, and what git is told to have changed since the token.
fn ask(m: &Mounted, token: &str) -> (String, Vec<String>) {
    let mut command = m.environ().command();
    let ran = command.current_dir(m.dir()).args(["fsmonitor", "2", token]).output().expect("runs");
    let mut parts: Vec<String> = Ran(ran).ok().out().split('\0').map(str::to_owned).collect();
    assert_eq!(parts.pop().as_deref(), Some(""), "every part ends with a zero byte");
    let token = parts.remove(0);
    (token, parts)
}

fn remount(m: &Mounted) {
    m.umount().ok();
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    eventually(".git is shown", || m.path(".git").exists());
}

#[test]
fn after_a_remount_git_is_told_only_what_changed() {
    let Some(m) = sim() else { return };
    fs::create_dir_all(m.path("d/empty")).expect("made");
    m.barrier().expect("sent");
    let compared = || out(&m, &["-c", "core.fsmonitor=false", "status", "--porcelain"]);
    assert_eq!(out(&m, &["status", "--porcelain"]), "");
    let (token, _) = ask(&m, "none");
    remount(&m);
    // What may differ from the saved tree is told once more: what was changed here.
    let (token, told) = ask(&m, &token);
    assert!(told.iter().all(|path| path.starts_with('d')), "{told:?}");
    remount(&m);
    let (token, told) = ask(&m, &token);
    assert_eq!(told, [""; 0], "nothing changed");
    // Changed here, and set back on the server while nothing is mounted: git has seen the first of these.
    let there = m.there("index.php");
    let before = (fs::read(&there).expect("read"), fs::metadata(&there).expect("there").modified().expect("a time"));
    fs::write(m.path("index.php"), "changed here").expect("written");
    m.barrier().expect("sent");
    assert_eq!(out(&m, &["status", "--porcelain"]), "M index.php");
    m.umount().ok();
    fs::write(&there, before.0).expect("written");
    fs::File::options().write(true).open(&there).and_then(|file| file.set_modified(before.1)).expect("set");
    fs::write(m.there("d/empty/theirs"), "new").expect("written");
    fs::remove_file(m.there("wp-load.php")).expect("removed");
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    let (_, told) = ask(&m, &token);
    for path in ["index.php", "d/empty/theirs", "wp-load.php"] {
        assert!(told.iter().any(|told| told == path), "{path}: {told:?}");
    }
    assert_eq!(out(&m, &["status", "--porcelain", "-uall"]), "D wp-load.php\n?? d/empty/theirs");
    assert_eq!(compared(), "D wp-load.php\n?? d/");
}

#[test]
fn after_a_driver_that_died_git_compares_everything() {
    let Some(m) = sim() else { return };
    let (token, _) = ask(&m, "none");
    crate::crash::kill(&m);
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    assert_eq!(ask(&m, &token).1, ["/"]);
}

#[test]
fn fsmonitor_answers_what_changed() {
    let Some(m) = sim() else { return };
    let ask = |token: &str| ask(&m, token);
    let (first, all) = ask("1700000000");
    assert_eq!(all, ["/"]);
    let (same, none) = ask(&first);
    assert_eq!((same.as_str(), none.len()), (first.as_str(), 0));
    fs::write(m.path("index.php"), "changed").expect("written");
    fs::create_dir(m.path("dir")).expect("made");
    fs::write(m.path("dir/a b"), "x").expect("written");
    fs::rename(m.path("dir/a b"), m.path("dir/c")).expect("renamed");
    let (second, mut paths) = ask(&first);
    paths.retain(|path| !path.ends_with('/'));
    paths.sort();
    assert_eq!(paths, ["dir", "dir/a b", "dir/c", "index.php"]);
    assert_eq!(ask(&second).1.len(), 0);
}

/// What the git extension of VS Code and the git plugin of PhpStorm run, in their order.
#[test]
fn the_commands_of_editors_work() {
    let Some(m) = sim() else { return };
    let top = out(&m, &["rev-parse", "--show-toplevel"]);
    assert!(
        Path::new(&out(&m, &["rev-parse", "--git-dir", "--git-common-dir"]).lines().next().expect("a line")).is_dir()
    );
    assert_eq!(out(&m, &["-C", &top, "rev-parse", "--is-inside-work-tree"]), "true");
    fs::write(m.path("index.php"), "<?php // in an editor\n").expect("written");
    fs::write(m.path("new.php"), "<?php\n").expect("written");
    assert_eq!(out(&m, &["status", "-z", "-uall"]), "M index.php\0?? new.php\0");
    assert!(out(&m, &["status", "--porcelain=v2", "-z", "--branch", "-uall"]).contains("# branch.head master"));
    assert!(out(&m, &["for-each-ref", "--format=%(refname)", "refs/heads/master"]).ends_with("master"));
    let committed = platform(&m, "%T");
    assert_eq!(out(&m, &["log", "-n1", "--format=%T", "HEAD"]), committed);
    assert!(out(&m, &["ls-files", "--stage", "--", "index.php"]).starts_with("100644"));
    assert!(!out(&m, &["show", "--textconv", ":index.php"]).contains("in an editor"));
    assert!(out(&m, &["diff", "--name-status", "-z", "--diff-filter=ADMR"]).contains("index.php"));
    assert!(out(&m, &["blame", "--root", "--incremental", "HEAD", "--", "index.php"]).contains("summary"));
    out(&m, &["add", "-A", "--", "index.php", "new.php"]);
    out(&m, &["reset", "-q", "HEAD", "--", "new.php"]);
    assert_eq!(out(&m, &["diff", "--cached", "--name-only"]), "index.php");
    out(&m, &["add", "--ignore-errors", "-A", "-f", "--", "new.php"]);
    let message = m.environ().path("message");
    fs::write(&message, "From an editor\n").expect("written");
    git(&m, &["-c", "core.quotepath=false", "commit", "--quiet", "-F", &message.to_string_lossy(), "--"]).ok();
    assert_eq!(platform(&m, "%s"), "From an editor");
    assert_eq!(out(&m, &["rev-parse", "HEAD"]), platform(&m, "%H"));
    assert_eq!(out(&m, &["status", "-z", "-uall"]), "");
}
