//! Content from the repository: what is proved to be as committed costs no SFTP traffic, and what is not is read from the
//! server, always.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pantheonfs::sim::SimConfig;

use crate::common::mounted::{Mounted, get};
use crate::common::{SOON, eventually, skip};

/// Files of the site, committed long ago.
fn aged(root: &Path) {
    aged_by(root, 86_400);
}

fn aged_by(root: &Path, secs: u64) {
    for entry in fs::read_dir(root).expect("listed").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() && entry.file_name() != ".git" {
            aged_by(&entry.path(), secs);
        } else if kind.is_file() {
            let long_ago = SystemTime::now() - Duration::from_secs(secs);
            let file = File::options().write(true).open(entry.path()).expect("opened");
            file.set_times(FileTimes::new().set_modified(long_ago)).expect("set");
        }
    }
}

/// A mount of a site whose files are a day old, in this mode.
fn site(mode: &str, quirks: &[(&str, &str)]) -> Option<Mounted> {
    let quirks = quirks.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = SimConfig { quirks, ..SimConfig::default() };
    let m = Mounted::sim_with(&config, "dev", "")?;
    // Its repository is fetched once, and not while the next mount waits for it.
    eventually("the commit is here", || number(&m, "files") > 5);
    m.umount().ok();
    m.control("mode", &format!(r#"{{"environment": "dev", "mode": "{mode}"}}"#));
    aged(&m.server);
    again(&m);
    Some(m)
}

fn again(m: &Mounted) {
    let source = format!("{}.dev", m.sim_ref().site());
    m.mount(&source, &m.sim_ref().options()).ok();
}

fn number(m: &Mounted, name: &str) -> u64 {
    m.status()["repository"][name].as_u64().expect("a number")
}

#[track_caller]
fn proved(m: &Mounted, least: u64) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while number(m, "proved") < least {
        assert!(std::time::Instant::now() < until, "the files are not proved: {}", m.status());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the server's checksums prove every file, the empty ones perhaps not.
#[track_caller]
fn attested(m: &Mounted) {
    let until = std::time::Instant::now() + SOON;
    loop {
        let status = m.status();
        let repository = &status["repository"];
        let (files, attested) = (repository["files"].as_u64(), repository["proofs"]["attested"].as_u64());
        if files.zip(attested).is_some_and(|(files, attested)| files > 5 && attested + 1 >= files) {
            return;
        }
        assert!(std::time::Instant::now() < until, "the server's checksums do not prove the files: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every regular file below, as the mount shows it, compared with the server's disk. Returns how many.
fn compare(shown: &Path, there: &Path) -> u64 {
    let mut files = 0;
    for entry in fs::read_dir(there).expect("listed").flatten() {
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a kind"));
        if kind.is_dir() && name != ".git" {
            files += compare(&shown.join(&name), &entry.path());
        } else if kind.is_file() {
            let shown = fs::read(shown.join(&name)).expect("readable");
            assert!(shown == fs::read(entry.path()).expect("there"), "{}", entry.path().display());
            files += 1;
        }
    }
    files
}

/// Has every directory of the code listed.
fn list(dir: &Path) {
    for entry in fs::read_dir(dir).expect("listed").flatten() {
        if entry.file_type().expect("a kind").is_dir() && entry.file_name() != ".pantheon" {
            list(&entry.path());
        }
    }
}

#[test]
fn frozen_code_comes_from_the_repository() {
    let Some(m) = site("git", &[]) else { return };
    eventually("the commit is here", || number(&m, "files") > 5);
    let files = compare(m.dir(), &m.server);
    let status = m.status();
    assert_eq!(status["fetched_files"], 0, "{status}");
    assert!(number(&m, "read_files") >= files - 1, "empty files are read from nowhere: {status}");
    assert!(number(&m, "proved") >= files - 1 && status["repository"]["off"].is_null(), "{status}");
    let text = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(text.contains("in frozen code"), "{text}");
}

#[test]
fn the_servers_checksums_prove_what_can_be_changed() {
    if std::process::Command::new("rsync").arg("--version").output().is_err() {
        return skip("rsync is not installed (scripts/setup installs it)");
    }
    let Some(m) = site("sftp", &[]) else { return };
    attested(&m);
    // What an earlier mount has proved and seen says nothing about the versions that the server has now.
    list(m.dir());
    m.umount().ok();
    aged_by(&m.server, 2 * 86_400);
    again(&m);
    attested(&m);
    compare(m.dir(), &m.server);
    assert_eq!(m.status()["fetched_files"], 0);
    // What is changed is read from the server, whoever changed it, and whatever its size.
    let old = fs::read(m.path("wp-load.php")).expect("readable");
    let theirs: Vec<u8> = old.iter().rev().copied().collect();
    fs::write(m.there("wp-load.php"), &theirs).expect("written");
    eventually("their change is seen", || fs::read(m.path("wp-load.php")).is_ok_and(|now| now == theirs));
    fs::write(m.path("index.php"), "<?php // ours").expect("saved");
    assert_eq!(fs::read(m.path("index.php")).expect("readable"), b"<?php // ours");
    m.barrier().expect("sent");
    compare(m.dir(), &m.server);
}

#[test]
fn without_checksums_reading_proves_and_the_next_mount_carries_it() {
    let Some(m) = site("sftp", &[("rsync", "refuse")]) else { return };
    eventually("the server refuses", || !m.status()["repository"]["not_attested"].is_null());
    assert_eq!(number(&m, "proved"), 0);
    let files = compare(m.dir(), &m.server);
    assert!(m.status()["repository"]["proofs"]["verified"].as_u64().expect("a number") >= files - 1, "{}", m.status());
    m.umount().ok();
    again(&m);
    proved(&m, files - 1);
    compare(m.dir(), &m.server);
    let status = m.status();
    assert_eq!(status["fetched_files"], 0, "{status}");
    assert!(status["repository"]["proofs"]["carried"].as_u64().expect("a number") >= files - 1, "{status}");
}

/// Somebody switches to SFTP mode: what nobody could change until then stays proved.
#[test]
fn a_switch_to_sftp_mode_carries_what_was_frozen() {
    let Some(m) = site("git", &[("rsync", "refuse")]) else { return };
    eventually("the commit is here", || number(&m, "files") > 5);
    fs::read_dir(m.path("wp-content/themes")).expect("listed").count();
    fs::metadata(m.path("index.php")).expect("known");
    m.control("mode", r#"{"environment": "dev", "mode": "sftp"}"#);
    eventually("the switch is noticed", || m.status()["mode"] == "sftp");
    eventually("it is carried", || number(&m, "proved") > 3);
    fs::read(m.path("index.php")).expect("readable");
    assert_eq!(m.status()["fetched_files"], 0, "from the repository: {}", m.status());
}

/// A server whose files are not what its commit says, although nobody can have changed them: found out, and ended.
#[test]
fn a_wrong_proof_is_found_and_dropped() {
    let Some(m) = site("git", &[]) else { return };
    m.umount().ok();
    let path = m.there("index.php");
    let right = fs::read(&path).expect("there");
    let wrong: Vec<u8> = right.iter().rev().copied().collect();
    fs::write(&path, &wrong).expect("changed behind everybody's back");
    aged(&m.server);
    again(&m);
    eventually("the commit is here", || number(&m, "files") > 5);
    fs::read(m.path("index.php")).expect("readable");
    eventually("it is found out", || !m.status()["repository"]["off"].is_null());
    eventually("and the server's bytes are shown", || fs::read(m.path("index.php")).is_ok_and(|now| now == wrong));
    compare(m.dir(), &m.server);
    let text = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(text.contains("repository: not used") && text.contains("index.php"), "{text}");
    let counters = get(&format!("{}/counters", m.sim_ref().control()));
    assert!(counters["requests"].as_u64().expect("a number") > 0);
}
