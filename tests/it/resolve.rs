//! Conflicts, resolved by the merge tool that the user has configured git with.

use std::fs;
use std::process::Command;

use crate::common::eventually;
use crate::common::mounted::Mounted;
use crate::common::program::Ran;

/// Sets a value of the user's git configuration.
fn configure(m: &Mounted, name: &str, value: &str) {
    let mut git = Command::new("git");
    m.environ().dress(&mut git);
    assert!(git.args(["config", "--global", name, value]).status().expect("git runs").success());
}

/// A tool that git runs as this shell command.
fn tool(m: &Mounted, name: &str, command: &str) {
    configure(m, &format!("mergetool.{name}.cmd"), command);
    configure(m, &format!("mergetool.{name}.trustExitCode"), "true");
}

/// Known here as `base`, changed by another writer to `theirs`, then saved here as `ours`.
pub fn conflict(m: &Mounted, name: &str) {
    fs::write(m.path(name), "base\n").expect("written");
    m.barrier().expect("sent");
    fs::read(m.path(name)).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path(name), "ours\n").expect("saved");
    fs::write(m.there(name), "theirs\n").expect("changed there");
    m.control("stall", r#"{"stalled": false}"#);
    let code = format!("code/{name}");
    eventually("it is a conflict", || {
        m.status()["conflicts"].as_array().is_some_and(|all| all.contains(&code.clone().into()))
    });
    eventually("theirs is shown", || fs::read(m.path(name)).is_ok_and(|text| text == b"theirs\n"));
}

fn resolve(m: &Mounted, words: &[&str]) -> Ran {
    let mut command = m.environ().command();
    Ran(command.arg("resolve").args(words).current_dir(m.dir()).output().expect("runs"))
}

#[test]
fn the_configured_tool_gets_all_versions_and_its_result_is_saved() {
    let Some(m) = Mounted::sim() else { return };
    tool(&m, "joiner", r#"cat "$LOCAL" "$BASE" "$REMOTE" > "$MERGED""#);
    configure(&m, "merge.tool", "joiner");
    // Settings that would change line ends on their way through git.
    configure(&m, "core.autocrlf", "true");
    conflict(&m, "joined file.php");
    resolve(&m, &["joined file.php", "--tool"]).ok();
    assert_eq!(fs::read(m.on_server("joined file.php")).expect("there"), b"ours\nbase\ntheirs\n");
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    let site = m.sim_ref().site();
    let kept = m.environ().state().join(format!("{site}.dev/reverted"));
    let mut copies = fs::read_dir(kept).expect("a copy of theirs").flatten();
    assert!(copies.next().is_some(), "theirs is kept");
}

#[test]
fn a_tool_that_fails_changes_nothing() {
    let Some(m) = Mounted::sim() else { return };
    tool(&m, "failing", "exit 1");
    conflict(&m, "a.php");
    let ran = resolve(&m, &["a.php", "--tool", "failing"]);
    assert_eq!(ran.code(), 1, "{}", ran.err());
    assert!(ran.err().contains("ended without a result"), "{}", ran.err());
    let ran = resolve(&m, &["a.php", "--tool", "nonsense"]);
    assert_eq!(ran.code(), 1, "{}", ran.err());
    assert_eq!(fs::read(m.on_server("a.php")).expect("there"), b"theirs\n");
    assert_eq!(m.status()["conflicts"], serde_json::json!(["code/a.php"]));
}

#[test]
fn without_a_path_all_conflicts_are_gone_through() {
    let Some(m) = Mounted::sim() else { return };
    // It does not resolve `second.php`.
    tool(&m, "some", r#"case "$MERGED" in *second*) exit 1;; esac; echo merged > "$MERGED""#);
    for name in ["first.php", "second.php", "wp-content/third.php"] {
        conflict(&m, name);
    }
    resolve(&m, &["--ours"]).fails_with_usage();
    let ran = resolve(&m, &["--json", "--tool", "some"]);
    assert_eq!(ran.code(), 1, "{}", ran.err());
    let outcomes: serde_json::Value = serde_json::from_str(&ran.out()).expect("only JSON on standard output");
    let texts: Vec<String> =
        outcomes.as_array().expect("a list").iter().map(|one| one["outcome"].to_string()).collect();
    assert_eq!(texts.iter().filter(|text| text.contains("resolved: both")).count(), 2, "{texts:?}");
    assert_eq!(texts.iter().filter(|text| text.contains("FAILED")).count(), 1, "{texts:?}");
    for name in ["first.php", "wp-content/third.php"] {
        assert_eq!(fs::read(m.on_server(name)).expect("there"), b"merged\n", "{name}");
    }
    assert_eq!(m.status()["conflicts"], serde_json::json!(["code/second.php"]));
}

#[test]
fn what_another_writer_stores_while_the_tool_runs_is_not_overwritten() {
    let Some(m) = Mounted::sim() else { return };
    conflict(&m, "slow.php");
    // The tool shows a version that the mount then sees replaced.
    let there = m.there("slow.php").display().to_string();
    let here = m.path("slow.php").display().to_string();
    let wait = format!("until grep -q newer '{here}'; do sleep 0.1; done");
    tool(&m, "slow", &format!(r#"echo newer and longer > '{there}'; {wait}; echo merged > "$MERGED""#));
    let site = format!("{}.dev", m.sim_ref().site());
    m.umount().ok();
    m.mount(&site, &format!("{},fresh=0", m.sim_ref().options())).ok();
    let ran = resolve(&m, &["slow.php", "--tool", "slow"]);
    assert_eq!(ran.code(), 13, "{}{}", ran.out(), ran.err());
    assert!(ran.err().contains("your result is kept in"), "{}", ran.err());
    assert_eq!(fs::read(m.on_server("slow.php")).expect("there"), b"newer and longer\n");
    assert_eq!(m.status()["conflicts"], serde_json::json!(["code/slow.php"]));
}

impl Ran {
    #[track_caller]
    fn fails_with_usage(&self) {
        assert_eq!(self.code(), 2, "{}", self.err());
    }
}
