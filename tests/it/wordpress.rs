//! Debian's `wordpress` package, about 3,000 files of a real site: mounted from a real OpenSSH server and from the
//! simulator, read back, and compared byte by byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::{has_fuse, skip};

/// Where `scripts/setup` unpacks it.
fn wordpress() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/wordpress/usr/share/wordpress");
    if !dir.join("index.php").exists() {
        skip("Debian's wordpress package is not unpacked in target/wordpress (scripts/setup does it)");
        return None;
    }
    Some(dir)
}

/// `diff -r` without what the mount adds and what the platform links.
fn assert_same(mounted: &Path, server: &Path) {
    let done = Command::new("diff")
        .args(["-r", "--no-dereference", "-x", ".pantheon", "-x", "uploads"])
        .args([mounted, server])
        .output()
        .expect("diff runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let others: Vec<&str> = said.lines().collect();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(others.is_empty() && errors.is_empty(), "{others:#?} {errors:#?}");
}

fn count(dir: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        files += if kind.is_dir() { count(&entry.path()) } else { 1 };
    }
    files
}

#[test]
fn a_real_site_reads_the_same_from_openssh() {
    let Some(wordpress) = wordpress() else { return };
    let Some(m) = Mounted::openssh("links=as-is") else { return };
    let site = m.on_server("site");
    let copied = Command::new("cp").arg("-r").arg(&wordpress).arg(&site).status().expect("cp runs");
    assert!(copied.success());
    assert!(count(&m.path("site")) > 1500, "a real site is large");
    assert_same(&m.path("site"), &site);
    // And the other way: a part of it is copied in through the mount.
    let part = wordpress.join("wp-includes/blocks");
    let copied = Command::new("cp").arg("-r").arg(&part).arg(m.path("copied")).status().expect("cp runs");
    assert!(copied.success());
    assert_same(&part, &m.on_server("copied"));
    fs::rename(m.path("copied"), m.path("renamed")).expect("moved");
    assert_same(&m.path("renamed"), &part);
    fs::remove_dir_all(m.path("renamed")).expect("removed");
    assert!(!m.on_server("renamed").exists());
}

#[test]
fn a_real_site_reads_the_same_from_the_simulator() {
    if !has_fuse() {
        return;
    }
    let Some(wordpress) = wordpress() else { return };
    let config = SimConfig { code: Some(wordpress), ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "links=as-is") else { return };
    assert_same(m.dir(), &m.server);
}
