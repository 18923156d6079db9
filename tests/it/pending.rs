//! What is uncommitted, compared with what git itself says on the server's work tree.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use pantheonfs::sim::SimConfig;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::mounted::Mounted;

fn git(m: &Mounted, args: &[&str]) -> String {
    let sim = m.sim_ref();
    let mut command = Command::new("git");
    command.arg("--git-dir").arg(sim.root().join("git/dev")).arg("--work-tree").arg(sim.home("dev").join("code"));
    let output = command.args(["-c", "core.quotePath=false"]).args(args).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `M path`, `A path`, `D path` as git has them.
fn git_status(m: &Mounted) -> BTreeSet<String> {
    let text = git(m, &["status", "--porcelain", "--untracked-files=all", "--no-renames"]);
    let letter = |code: &str| match code.trim() {
        "??" => "A".to_owned(),
        // A link in the place of a file, or the other way round.
        "T" => "M".to_owned(),
        code => code.to_owned(),
    };
    text.lines().map(|line| format!("{} {}", letter(&line[..2]), line[3..].trim_matches('"'))).collect()
}

fn pending(m: &Mounted) -> BTreeSet<String> {
    let text = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(text.contains("# the server's files compared with commit"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

/// The diff must make the work tree out of the commit.
fn assert_diff_applies(m: &Mounted) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let clone = scratch.path().join("clone");
    let run = |command: &mut Command| {
        let output = command.output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("git").args(["clone", "-q"]).arg(m.sim_ref().repository()).arg(&clone));
    let diff = fs::read(m.path(".pantheon/diff")).expect("readable");
    if !diff.is_empty() {
        fs::write(scratch.path().join("diff"), &diff).expect("written");
        run(Command::new("git")
            .arg("-C")
            .arg(&clone)
            .args(["apply", "--whitespace=nowarn"])
            .arg(scratch.path().join("diff")));
    }
    let mut compare = Command::new("diff");
    compare.args(["-r", "--no-dereference", "-x", ".git", "-x", "uploads", "-x", "*.log", "-x", "*.zip"]);
    let output = compare.arg(&clone).arg(m.sim_ref().home("dev").join("code")).output().expect("diff runs");
    // Empty directories are nothing to git.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let other: Vec<&str> = said.lines().filter(|line| !line.starts_with("Only in ") || !is_empty_dir(line)).collect();
    assert!(other.is_empty(), "{other:#?}\n{}", String::from_utf8_lossy(&diff));
}

fn is_empty_dir(line: &str) -> bool {
    let Some((dir, name)) = line.trim_start_matches("Only in ").split_once(": ") else { return false };
    fn empty(path: &Path) -> bool {
        path.is_dir() && fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| empty(&entry.path())))
    }
    empty(&Path::new(dir).join(name))
}

/// One edit, by somebody.
#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Append(usize, Vec<u8>),
    SameSize(usize, u8),
    Remove(usize),
    Rename(usize, usize),
    Executable(usize, bool),
    Link(usize),
}

const NAMES: [&str; 9] = [
    "index.php",
    "wp-load.php",
    "new file.php",
    "wp-content/themes/sunrise/style.css",
    "wp-content/plugins/more/added.php",
    "wp-includes/blocks/part-03.php",
    "debug.log",
    "wp-content/backup.zip",
    "ünïcode.txt",
];

fn edit() -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    let text = proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0_u8), b'a'..=b'z'], 0..60);
    prop_oneof![
        (name.clone(), text.clone()).prop_map(|(n, t)| Edit::Write(n, t)),
        (name.clone(), text).prop_map(|(n, t)| Edit::Append(n, t)),
        (name.clone(), any::<u8>()).prop_map(|(n, b)| Edit::SameSize(n, b)),
        name.clone().prop_map(Edit::Remove),
        (name.clone(), name.clone()).prop_map(|(a, b)| Edit::Rename(a, b)),
        (name.clone(), any::<bool>()).prop_map(|(n, x)| Edit::Executable(n, x)),
        name.prop_map(Edit::Link),
    ]
}

/// Carries out an edit below `root`: the mount, or the server's disk. What cannot be done is not done.
fn apply(root: &Path, edit: &Edit) {
    let path = |n: &usize| root.join(NAMES[*n]);
    let make_room = |path: &Path| drop(fs::create_dir_all(path.parent().expect("a parent")));
    match edit {
        Edit::Write(n, text) => {
            make_room(&path(n));
            let _ = fs::remove_file(path(n));
            let _ = fs::write(path(n), text);
        }
        Edit::Append(n, text) => {
            if let Ok(mut old) = fs::read(path(n)) {
                old.extend_from_slice(text);
                let _ = fs::write(path(n), old);
            }
        }
        Edit::SameSize(n, byte) => {
            if let Ok(mut old) = fs::read(path(n))
                && !old.is_empty()
            {
                let at = usize::from(*byte) % old.len();
                old[at] = *byte;
                let _ = fs::write(path(n), old);
            }
        }
        Edit::Remove(n) => drop(fs::remove_file(path(n))),
        Edit::Rename(a, b) => {
            make_room(&path(b));
            let _ = fs::rename(path(a), path(b));
        }
        Edit::Executable(n, on) => {
            let _ = fs::set_permissions(path(n), fs::Permissions::from_mode(if *on { 0o755 } else { 0o644 }));
        }
        Edit::Link(n) => {
            make_room(&path(n));
            let _ = fs::remove_file(path(n));
            let _ = symlink("index.php", path(n));
        }
    }
}

#[test]
fn pending_after_random_edits_is_what_git_says() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "fresh=0") else { return };
    let mut runner =
        TestRunner::new(Config { cases: 40, failure_persistence: None, max_shrink_iters: 0, ..Config::default() });
    let edits = proptest::collection::vec((any::<bool>(), edit()), 1..8);
    let result = runner.run(&edits, |edits| {
        for (here, edit) in &edits {
            apply(if *here { m.dir() } else { &m.server }, edit);
        }
        prop_assert_eq!(pending(&m), git_status(&m));
        Ok(())
    });
    result.expect("the same as git");
    assert_diff_applies(&m);
}

#[test]
fn ignored_files_are_never_pending_and_are_listed() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("debug.log"), "x").expect("written");
    fs::write(m.path("wp-content/uploads/a.jpg"), "x").expect("written");
    assert_eq!(pending(&m), BTreeSet::new());
    let ignored = fs::read_to_string(m.path(".pantheon/ignored")).expect("readable");
    assert!(ignored.contains("\ndebug.log\n"), "{ignored}");
    assert_eq!(fs::read(m.path(".pantheon/diff")).expect("readable"), b"");
}

#[test]
fn the_platforms_list_is_named_where_it_disagrees() {
    let Some(m) = Mounted::sim() else { return };
    m.control("habit", r#"{"name": "diffstat", "value": "stale"}"#);
    fs::write(m.path("index.php"), "changed\n").expect("written");
    let text = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(text.contains("M index.php\t+1 -3\n"), "{text}");
    assert!(text.contains("API disagrees") && text.contains("# not there: index.php"), "{text}");
    m.control("habit", r#"{"name": "diffstat", "value": "fresh"}"#);
    let text = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(text.contains("API says the same"), "{text}");
}

#[test]
fn without_the_repository_the_platforms_list_is_shown_and_why() {
    let Some(m) = Mounted::sim() else { return };
    fs::rename(m.sim_ref().repository(), m.sim_ref().root().join("away")).expect("moved");
    fs::write(m.path("index.php"), "changed\n").expect("written");
    let text = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(text.contains("# not compared with the repository: "), "{text}");
    assert!(text.contains("? index.php") || text.contains("M index.php"), "{text}");
    assert!(fs::read_to_string(m.path(".pantheon/diff")).expect("readable").starts_with("# there is no diff: "));
    assert!(fs::read(m.path(".pantheon/head/index.php")).is_err());
}

#[test]
fn committed_versions_can_be_read_and_put_back() {
    let Some(m) = Mounted::sim() else { return };
    let committed = fs::read(m.path("index.php")).expect("read");
    fs::write(m.path("index.php"), "broken").expect("written");
    fs::write(m.path("added.php"), "added").expect("written");
    fs::remove_file(m.path("wp-load.php")).expect("removed");
    assert_eq!(fs::read(m.path(".pantheon/head/index.php")).expect("committed"), committed);
    assert!(fs::read_dir(m.path(".pantheon/head/wp-content/themes")).expect("listed").count() > 0);
    assert!(fs::write(m.path(".pantheon/head/index.php"), "x").is_err());
    assert!(fs::read(m.path(".pantheon/head/added.php")).is_err());
    let path = |name: &str| m.path(name).to_string_lossy().into_owned();
    let ran = m.environ().run(&["revert", &path("index.php"), &path("added.php"), &path("wp-load.php")]).ok();
    assert!(
        ran.out().contains("back to the committed version") && ran.out().contains("not in the commit"),
        "{}",
        ran.out()
    );
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), committed);
    assert!(!m.on_server("added.php").exists() && m.on_server("wp-load.php").exists());
    let kept = m.environ().state().join(format!("{}.dev/reverted/index.php", m.sim_ref().site()));
    assert_eq!(fs::read(kept).expect("kept"), b"broken");
    assert_eq!(pending(&m), BTreeSet::new());
}

#[test]
fn pushes_wait_for_git_mode() {
    let Some(m) = Mounted::sim() else { return };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let clone = scratch.path().join("clone");
    let json = m.sim_ref().describe();
    let ssh = format!(
        "ssh -p {} -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o BatchMode=yes",
        json["ssh"]["port"],
        json["ssh"]["identity"].as_str().expect("text"),
        json["ssh"]["known_hosts"].as_str().expect("text")
    );
    let url =
        format!("ssh://codeserver.dev.{}@127.0.0.1:{}/~/repository.git", m.sim_ref().site_id(), json["ssh"]["port"]);
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        m.environ().dress(&mut command);
        command.env("GIT_SSH_COMMAND", &ssh).args(["-c", "user.name=T", "-c", "user.email=t@x"]).args(args);
        command.stdin(Stdio::null()).output().expect("git runs")
    };
    let at = clone.to_string_lossy().into_owned();
    assert!(git(&["clone", "-q", &url, &at]).status.success());
    fs::write(clone.join("pushed.php"), "pushed").expect("written");
    assert!(git(&["-C", &at, "add", "."]).status.success());
    assert!(git(&["-C", &at, "commit", "-q", "-m", "By git"]).status.success());
    let refused = git(&["-C", &at, "push", "-q", "origin", "master"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SFTP mode"), "{refused:?}");
    fs::write(m.path(".pantheon/mode"), "git\n").expect("switched");
    let pushed = git(&["-C", &at, "push", "-q", "origin", "master"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    crate::common::eventually("the push is seen in the mount", || {
        fs::read(m.path("pushed.php")).is_ok_and(|b| b == b"pushed")
    });
}

#[test]
fn the_difference_of_one_file_is_there_by_name() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    fs::write(m.path("wp-content/new.php"), "<?php // new\n").expect("written");
    let one = fs::read_to_string(m.path(".pantheon/diffs/wp-content/new.php")).expect("readable");
    assert!(one.starts_with("diff --git a/wp-content/new.php") && one.contains("+<?php // new"), "{one}");
    assert!(!one.contains("index.php"));
    let all = fs::read_to_string(m.path(".pantheon/diff")).expect("readable");
    assert!(all.contains(&one));
    let place = m.path("wp-content/new.php").to_string_lossy().into_owned();
    assert_eq!(m.environ().run(&["diff", &place]).ok().out(), one);
    assert!(fs::read(m.path(".pantheon/diffs/wp-load.php")).is_err(), "it does not differ");
    let names: Vec<_> =
        fs::read_dir(m.path(".pantheon/diffs")).expect("listed").map(|e| e.expect("one").file_name()).collect();
    assert_eq!(names, ["index.php", "wp-content"]);
}

/// Somebody's dump in the code directory is named, and not read.
#[test]
fn a_file_too_large_to_be_shown_is_pending_and_is_not_read() {
    let Some(m) = Mounted::sim() else { return };
    let file = fs::File::create_new(m.there("backup.tar")).expect("made");
    // Sparse: 3 GB that nobody has.
    file.set_len(3_000_000_000).expect("set");
    let seen = pending(&m);
    assert!(seen.contains("A backup.tar"), "{seen:?}");
    let diff = fs::read_to_string(m.path(".pantheon/diff")).expect("readable");
    assert_eq!(diff, "# backup.tar: 3000000000 bytes, too large to be shown\n");
    let fetched = m.status()["fetched_bytes"].as_u64().expect("a number");
    assert!(fetched < 100_000_000, "{fetched}");
}

/// Uncommitted rules are applied like committed ones, in subdirectories, too.
#[test]
fn rules_on_the_server_say_what_is_pending() {
    let Some(m) = Mounted::sim() else { return };
    let there = |name: &str, text: &str| {
        let path = m.on_server(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    };
    there(".gitattributes", "*.txt text eol=crlf\n*.id ident\n*.u16 working-tree-encoding=UTF-16LE\n");
    there("one.txt", "one\r\ntwo\r\n");
    there("two.id", "$Id: 0123456789 $\n");
    there("three.u16", "t\0h\0\n\0");
    there(".gitignore", "*.log\n/gone/\n*.tmp\n!keep.tmp\n");
    there("sub/.gitignore", "*.txt\n!two.txt\n");
    for name in ["a.tmp", "keep.tmp", "gone/.gitignore", "gone/x.php", "sub/one.txt", "sub/two.txt", "sub/deep/one.txt"]
    {
        there(name, "!*\n");
    }
    assert_eq!(pending(&m), git_status(&m));
    let diff = fs::read_to_string(m.path(".pantheon/diffs/one.txt")).expect("readable");
    assert!(diff.contains("+one\n+two\n"), "as in a commit: {diff}");
}

/// A large file is read in pieces, and only once.
#[test]
fn a_large_file_is_measured_once_and_its_difference_applies() {
    let Some(m) = Mounted::sim() else { return };
    let noise: Vec<u8> = (0..9_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(m.on_server("large.bin"), &noise).expect("written");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(pending(&m), git_status(&m));
    let fetched = |m: &Mounted| m.status()["fetched_bytes"].as_u64().expect("a number");
    let before = fetched(&m);
    assert_eq!(pending(&m), git_status(&m));
    assert!(fetched(&m) - before < 1 << 20, "the version is unchanged");
    assert_diff_applies(&m);
}
