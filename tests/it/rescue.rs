//! Uncommitted work that is kept on this machine: what a switch or a migration takes away can be put back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::{SOON, eventually, within};

fn rescue(m: &Mounted, args: &[&str]) -> crate::common::program::Ran {
    let place = m.dir().to_string_lossy().into_owned();
    m.environ().run(&[&["rescue"], args, &["--at", &place]].concat())
}

/// Path and what the server has, of every line.
fn list(m: &Mounted) -> Vec<(String, String)> {
    m.barrier().ok();
    let out = rescue(m, &["list"]).ok().out();
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    out.lines().map(fields).filter(|f| f.len() == 5).map(|f| (f[0].clone(), f[4].clone())).collect()
}

fn pair(path: &str, server: &str) -> (String, String) {
    (path.into(), server.into())
}

#[test]
fn backups_are_kept_until_the_commit() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "<?php // mine\n").expect("written");
    fs::create_dir(m.path("wp-content/plugins/mine")).expect("made");
    fs::write(m.path("wp-content/plugins/mine/mine.php"), "<?php\n").expect("written");
    fs::remove_file(m.path("wp-includes/version.php")).expect("removed");
    let there = "on the server";
    assert_eq!(
        list(&m),
        [
            pair("index.php", there),
            pair("wp-content/plugins/mine/mine.php", there),
            pair("wp-includes/version.php", there)
        ]
    );
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("reminder: in SFTP mode git pushes"), "{status}");
    eventually("uncommitted work is reminded of", || {
        let status = fs::read_to_string(m.path(".pantheon/status")).unwrap_or_default();
        status.contains("uncommitted change(s), the oldest of this machine") && status.contains("in no backup")
    });
    fs::write(m.path(".pantheon/commit"), "Everything\n").expect("committed");
    let said = fs::read_to_string(m.path(".pantheon/commit")).expect("readable");
    assert!(said.contains("repository: has it"), "{said}");
    eventually("nothing is kept any more", || list(&m).is_empty());
    let blobs = m.environ().state().join("sim-wordpress.dev/kept/blobs");
    eventually("their contents go", || fs::read_dir(&blobs).expect("listed").count() == 0);
    assert_eq!(fs::metadata(blobs).expect("there").mode() & 0o77, 0, "nobody else may look");
}

#[test]
fn discarding_keeps_everything_that_was_pending_first() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "<?php // mine\n").expect("written");
    // A teammate's work, which goes through somebody else's client.
    fs::write(m.on_server("wp-content/theirs.php"), "<?php // theirs\n").expect("written");
    fs::remove_file(m.on_server("wp-includes/version.php")).expect("removed");
    let committed = fs::read(m.path(".pantheon/head/index.php")).expect("the committed version");
    let place = m.dir().to_string_lossy().into_owned();
    m.environ().run(&["mode", "git", "--at", &place]).fails(13, &["deleted for good"]);
    m.environ().run(&["mode", "git", "--discard", "--at", &place]).ok();
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), committed);
    assert!(!m.on_server("wp-content/theirs.php").exists());
    eventually("what is gone is said", || m.status()["reminders"].to_string().contains("not on the server any more"));
    let gone = list(&m);
    assert!(gone.contains(&pair("index.php", "differs on the server")), "{gone:?}");
    assert!(gone.contains(&pair("wp-content/theirs.php", "not on the server")), "{gone:?}");
    assert!(gone.contains(&pair("wp-includes/version.php", "differs on the server")), "{gone:?}");
    let diff = rescue(&m, &["diff"]).ok().out();
    assert!(diff.contains("+<?php // theirs") && diff.contains("deleted file mode"), "{diff}");
    // In Git mode it cannot be put back; afterwards it can.
    assert_ne!(rescue(&m, &["restore", "index.php"]).code(), 0);
    m.environ().run(&["mode", "sftp", "--at", &place]).ok();
    rescue(&m, &["restore", "index.php", "wp-content/theirs.php", "wp-includes/version.php"]).ok();
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"<?php // mine\n");
    assert_eq!(fs::read(m.on_server("wp-content/theirs.php")).expect("there"), b"<?php // theirs\n");
    assert!(!m.on_server("wp-includes/version.php").exists());
}

#[test]
fn a_migration_that_loses_changes_is_noticed_and_nothing_is_replayed() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fs::write(m.path("index.php"), "<?php // mine\n").expect("written");
    // The watcher must have seen the first home, or there is nothing to compare with.
    let memory = m.environ().state().join("sim-wordpress.dev/connection.json");
    eventually("the first home is known", || memory.exists());
    m.control("migrate", r#"{"environment": "dev", "lose": true}"#);
    eventually("the loss is said", || m.status()["lost"][0] == "index.php");
    let connection = fs::read_to_string(m.path(".pantheon/connection")).expect("readable");
    assert!(connection.contains("changed: ") && connection.contains(" home was "), "{connection}");
    assert!(!fs::read_to_string(m.on_server("index.php")).expect("there").contains("mine"), "nothing by itself");
    rescue(&m, &["restore", "index.php"]).ok();
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"<?php // mine\n");
}

#[test]
fn a_changed_host_key_is_refused_and_after_acceptance_the_copies_are_compared() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fs::write(m.path("index.php"), "<?php // mine\n").expect("written");
    let memory = m.environ().state().join("sim-wordpress.dev/connection.json");
    eventually("the first host key is known", || memory.exists());
    let moved = m.control("migrate", r#"{"environment": "dev", "lose": true, "host_key": true}"#);
    eventually("the new key is refused", || {
        let status = m.status();
        status["link"]["up"] == false && status["link"]["why"].to_string().contains("THE HOST KEY CHANGED")
    });
    // The person checks, and accepts.
    let known_hosts = m.sim_ref().root().join("known_hosts");
    fs::write(known_hosts, moved["known_hosts"].as_str().expect("a line")).expect("written");
    // The pauses between attempts to connect grow to 20 s.
    within(2 * SOON, "it is connected again, and the loss is said", || m.status()["lost"][0] == "index.php");
}

#[test]
fn backups_can_be_exported_without_a_mount() {
    let Some(m) = Mounted::sim() else { return };
    let site = format!("{}.dev", m.sim_ref().site());
    fs::write(m.path("index.php"), "<?php // mine\n").expect("written");
    fs::write(m.path("new.php"), "<?php // new\n").expect("written");
    fs::remove_file(m.path("wp-includes/version.php")).expect("removed");
    // So that the repository is here.
    fs::read(m.path(".pantheon/diff")).expect("readable");
    let said = m.umount();
    assert!(said.err().contains("uncommitted change(s)"), "{}", said.err());
    said.ok();
    let run = |args: &[&str]| m.environ().run(&[&["rescue"], args, &["--at", &site]].concat());
    let listed = run(&["list", "--json"]).ok().out();
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    assert_eq!(listed[0]["server"], "not compared: not mounted");
    run(&["restore", "index.php"]).fails(11, &["not mounted", "--to DIR"]);
    let out = m.environ().path("out");
    run(&["restore", "index.php", "--to", &out.to_string_lossy()]).ok();
    assert_eq!(fs::read(out.join("index.php")).expect("there"), b"<?php // mine\n");
    run(&["restore", "nonsense.php", "--to", &out.to_string_lossy()]).fails(1, &["there is no copy of it"]);
    // The patch makes a checkout what the server was; the archive holds the files.
    let (patch, tar) = (m.environ().path("all.patch"), m.environ().path("all.tar"));
    run(&["export", "-o", &patch.to_string_lossy()]).ok();
    run(&["export", "--format", "tar", "-o", &tar.to_string_lossy()]).ok();
    let clone = m.environ().path("clone");
    let git = |args: &[&str], dir: &Path| {
        let output = Command::new("git").args(args).current_dir(dir).output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let repository = m.sim_ref().repository();
    git(&["clone", "-q", &repository.to_string_lossy(), &clone.to_string_lossy()], Path::new("/"));
    git(&["apply", &patch.to_string_lossy()], &clone);
    assert_eq!(fs::read(clone.join("index.php")).expect("there"), b"<?php // mine\n");
    assert_eq!(fs::read(clone.join("new.php")).expect("there"), b"<?php // new\n");
    assert!(!clone.join("wp-includes/version.php").exists());
    let names = Command::new("tar").arg("-tf").arg(&tar).output().expect("tar runs");
    assert_eq!(String::from_utf8_lossy(&names.stdout), "index.php\nnew.php\n");
    m.environ().run(&["rescue", "list", "--at", "nosuch.dev"]).fails(1, &["never mounted on this machine"]);
}

#[test]
fn ignored_files_are_reported_once_and_listed() {
    let Some(m) = Mounted::sim() else { return };
    let rules = "*.log\nwp-content/uploads\n";
    fs::write(m.path(".gitignore"), rules).expect("written");
    fs::write(m.path(".pantheon/commit"), "Ignore logs\n").expect("committed");
    fs::read(m.path(".pantheon/head/.gitignore")).expect("the rules are known");
    for text in ["one", "two"] {
        fs::write(m.path("debug.log"), text).expect("written");
        m.barrier().expect("sent");
    }
    m.barrier().expect("sent");
    assert_eq!(m.status()["ignored_written"][0], "debug.log");
    let ignored = fs::read_to_string(m.path(".pantheon/ignored")).expect("readable");
    assert!(ignored.contains("\ndebug.log\n"), "{ignored}");
    assert!(!fs::read_to_string(m.path(".pantheon/pending")).expect("readable").contains("debug.log"));
    let log = fs::read_to_string(m.environ().state().join("sim-wordpress.dev/log")).expect("a log");
    assert_eq!(log.matches("debug.log: is matched by .gitignore").count(), 1, "{log}");
}

/// Saved on a train while a teammate switched to Git mode: it cannot be sent, it can be read, and it can be put back.
#[test]
fn what_was_stranded_by_a_switch_is_put_back_when_the_mode_allows() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fs::read_dir(m.path("wp-content")).expect("known").count();
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("wp-content/mine.php"), "<?php // mine").expect("saved here");
    m.control("mode", r#"{"environment": "dev", "mode": "git"}"#);
    m.control("stall", r#"{"stalled": false}"#);
    eventually("it is stranded", || m.status()["stranded"] == serde_json::json!(["code/wp-content/mine.php"]));
    let shown = fs::read(m.path(".pantheon/stranded/code/wp-content/mine.php")).expect("readable as a file");
    assert_eq!(shown, b"<?php // mine");
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("wp-content/mine.php") && status.contains("Git mode"), "{status}");
    eventually("the view is the server's", || !m.path("wp-content/mine.php").exists());
    let refused = rescue(&m, &["restore", "wp-content/mine.php"]);
    assert_ne!(refused.code(), 0, "not in Git mode");
    assert!(m.path(".pantheon/stranded/code/wp-content/mine.php").exists(), "and still kept");
    m.control("mode", r#"{"environment": "dev", "mode": "sftp"}"#);
    eventually("the switch back is noticed", || m.status()["mode"] == "sftp");
    rescue(&m, &["restore", "wp-content/mine.php"]).ok();
    assert_eq!(fs::read(m.on_server("wp-content/mine.php")).expect("there"), b"<?php // mine");
}
