//! Permission bits at the call: what the mount shows binds the owner, as on a local disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::mounted::Mounted;

/// A user without privileges.
const NOBODY: u32 = 65_534;

/// The exit code of a shell command that an ordinary user runs, whom the mount shows as the owner.
fn as_owner(dir: &Path, line: &str) -> i32 {
    let user = NOBODY.to_string();
    let become_user = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let words = if rustix::process::getuid().is_root() { &become_user[..] } else { &["env"] };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["sh", "-c", line]).current_dir(dir);
    command.stderr(std::process::Stdio::null()).status().expect("it runs").code().expect("it ends")
}

/// A mount that shows an ordinary user as the owner and lets that user in: whoever runs the tests, or nobody if that is root.
fn shown_to_an_ordinary_user() -> Option<Mounted> {
    if !rustix::process::getuid().is_root() {
        return Mounted::openssh("");
    }
    let m = Mounted::openssh(&format!("allow_other,uid={NOBODY},gid={NOBODY}"))?;
    let above = m.dir().ancestors().skip(1).take_while(|dir| dir.starts_with("/tmp") && *dir != Path::new("/tmp"));
    for dir in above {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("opened for others");
    }
    Some(m)
}

fn chmod(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("chmod");
}

#[test]
fn the_owner_is_bound_by_the_write_bits_that_are_shown() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let sites = m.path("sites");
    fs::create_dir(&sites).expect("made");
    for name in ["settings.php", "other"] {
        fs::write(sites.join(name), "conf").expect("written");
    }
    fs::create_dir(sites.join("empty")).expect("made");
    chmod(&sites.join("settings.php"), 0o444);
    chmod(&sites, 0o555);
    m.barrier().expect("sent");
    let refused = [
        "echo x >> settings.php",
        "echo x > settings.php",
        "truncate -s 1 settings.php",
        "echo x > new",
        "mkdir d",
        "rm -f other",
        "rmdir empty",
        "ln -s x link",
        "mv other second",
        "test -w settings.php",
        "test -w .",
    ];
    for line in refused {
        assert_ne!(as_owner(&sites, line), 0, "{line}: accepted");
    }
    assert_eq!(
        as_owner(&sites, "echo more >> other && test -w other"),
        0,
        "a writable file in a directory that is not"
    );
    m.barrier().expect("nothing was refused by the server");
    assert_eq!(fs::read(m.there("sites/other")).expect("there"), b"confmore\n");
    assert_eq!(fs::read(m.there("sites/settings.php")).expect("there"), b"conf");
    chmod(&sites, 0o755);
    assert_eq!(as_owner(&sites, "echo x > new && rm other && chmod u+w settings.php && echo x > settings.php"), 0);
    m.barrier().expect("sent");
    assert_eq!(m.status()["stranded"], serde_json::json!([]));
}

#[test]
fn replacing_a_read_only_file_reaches_the_server() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let dir = m.path("d");
    fs::create_dir(&dir).expect("made");
    assert_eq!(as_owner(&dir, "echo a > f && chmod 444 f"), 0);
    m.barrier().expect("sent");
    assert_eq!(as_owner(&dir, "echo b > t && chmod 444 t && mv -f t f"), 0);
    m.barrier().expect("sent");
    assert_eq!(fs::read(m.there("d/f")).expect("there"), b"b\n");
    assert_eq!(fs::metadata(m.there("d/f")).expect("there").permissions().mode() & 0o777, 0o444);
}

/// `sed -i` writes a temporary file beside the file and renames it over that: together this is a save, which the
/// server takes where the file may be written.
#[test]
fn a_save_by_a_temporary_file_in_a_read_only_directory() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let sites = m.path("sites");
    fs::create_dir(&sites).expect("made");
    for name in ["services.yml", "settings.php"] {
        fs::write(sites.join(name), "old\n").expect("written");
    }
    assert_eq!(as_owner(&sites, "chmod 644 services.yml; chmod 444 settings.php; chmod 555 ."), 0);
    m.barrier().expect("sent");
    assert_eq!(as_owner(&sites, "sed -i s/old/new/ services.yml"), 0);
    assert_eq!(as_owner(&sites, "sed -i s/new/newer/ services.yml && cat services.yml"), 0);
    let temporary = "t=$(mktemp ./tXXXXXX) && echo x > $t";
    let refused = [
        "sed -i s/old/new/ settings.php".to_owned(),
        "sed -i~ s/newer/newest/ services.yml".to_owned(),
        format!("{temporary} && mv $t vacant"),
        format!("{temporary} && mv $t ../elsewhere"),
        "set -C; echo x > new".to_owned(),
    ];
    for line in refused {
        assert_ne!(as_owner(&sites, &line), 0, "{line}: accepted");
    }
    assert_eq!(as_owner(&sites, "rm -f ./t??????"), 0, "what is only here is removed here");
    m.barrier().expect("nothing was refused by the server");
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("read").file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    for dir in [&sites, &m.there("sites")] {
        assert_eq!(names(dir), ["services.yml", "settings.php"].map(Into::into).into());
        assert_eq!(fs::read_to_string(dir.join("services.yml")).expect("there"), "newer\n");
        assert_eq!(fs::metadata(dir.join("services.yml")).expect("there").permissions().mode() & 0o777, 0o644);
    }
    assert_eq!(m.status()["stranded"], serde_json::json!([]));
    chmod(&m.there("sites"), 0o755);
}

/// What a server gives to nobody without the read bit, where it runs as the same ordinary user.
#[test]
fn a_file_that_may_be_written_and_not_read_is_appended_to() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let dir = m.path("d");
    fs::create_dir(&dir).expect("made");
    assert_eq!(as_owner(&dir, "echo old > f; echo old > hidden; chmod 200 f; chmod 0 hidden"), 0);
    m.barrier().expect("sent");
    // What was saved here a moment ago is in the caches.
    for line in ["cat f", "cat hidden", "true <> f", "echo x >> hidden", "test -r f"] {
        assert_ne!(as_owner(&dir, line), 0, "{line}: accepted");
    }
    let there = |name: &str| m.there("d").join(name);
    let mode = |name: &str| fs::metadata(there(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!(as_owner(&dir, "echo more >> f"), 0);
    m.barrier().expect("sent");
    assert_eq!((mode("f"), mode("hidden")), (0o200, 0));
    // Written by another program: nothing of it is here.
    fs::write(there("theirs"), "theirs\n").expect("written");
    chmod(&there("theirs"), 0o200);
    crate::common::eventually("it is shown", || dir.join("theirs").symlink_metadata().is_ok());
    assert_eq!(as_owner(&dir, "echo ours >> theirs"), 0);
    m.barrier().expect("sent");
    assert_eq!(mode("theirs"), 0o200, "as before");
    for (name, text) in [("f", "old\nmore\n"), ("theirs", "theirs\nours\n")] {
        chmod(&there(name), 0o600);
        assert_eq!(fs::read_to_string(there(name)).expect("there"), text);
    }
    assert_eq!(m.status()["stranded"], serde_json::json!([]));
}

#[test]
fn a_replacement_brings_its_own_permissions() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let dir = m.path("d");
    fs::create_dir(&dir).expect("made");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    for (name, bits) in [("none", 0), ("unreadable", 0o200), ("read-only", 0o444)] {
        let line = format!("echo old > {name}; chmod {bits:o} {name}");
        assert_eq!(as_owner(&dir, &line), 0);
        m.barrier().expect("sent");
        assert_eq!(mode(&m.there("d").join(name)), bits, "{name}: sent");
        assert_eq!(as_owner(&dir, &format!("umask 022; echo new > t; mv -f t {name}")), 0);
        m.barrier().expect("sent");
        assert_eq!(mode(&m.there("d").join(name)), 0o644, "{name}: on the server");
        assert_eq!(mode(&dir.join(name)), 0o644, "{name}: shown");
        assert_eq!(fs::read_to_string(m.there("d").join(name)).expect("there"), "new\n");
    }
}

/// Drupal leaves `sites/default` without write permission: what is in it can be written, and names in it cannot be changed.
#[test]
fn a_file_in_a_read_only_directory_is_saved_after_other_saves() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "a save by a temporary file").expect("saved");
    let dir = m.path("sites");
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("services.yml"), "old\n").expect("written");
    chmod(&dir, 0o555);
    m.barrier().expect("sent");
    for text in ["longer than before\n", "short\n"] {
        fs::write(dir.join("services.yml"), text).expect("saved");
        m.barrier().expect("nothing is given up");
        assert_eq!(fs::read_to_string(m.there("sites/services.yml")).expect("there"), text);
    }
    fs::write(m.path("index.php"), "by a temporary file, as before").expect("saved");
    m.barrier().expect("sent");
    chmod(&m.there("sites"), 0o755);
}

#[test]
fn directories_are_entered_listed_and_moved_as_their_bits_say() {
    let Some(m) = shown_to_an_ordinary_user() else { return };
    let dir = m.path("d");
    fs::create_dir(&dir).expect("made");
    let make = "mkdir no-search no-list fixed other; echo x > no-search/f; echo x > no-list/f; echo x > fixed/f";
    assert_eq!(as_owner(&dir, make), 0);
    m.barrier().expect("sent");
    assert_eq!(as_owner(&dir, "chmod 666 no-search; chmod 311 no-list; chmod 555 fixed"), 0);
    m.barrier().expect("sent");
    let refused =
        ["echo x > no-search/new", "rm -f no-search/f", "mv no-search/f f", "ls no-list", "mv fixed other/fixed"];
    for line in refused {
        assert_ne!(as_owner(&dir, line), 0, "{line}: accepted");
    }
    for line in ["ls no-search", "cat no-list/f", "echo y > no-list/f", "mv fixed renamed", "ls renamed"] {
        assert_eq!(as_owner(&dir, line), 0, "{line}");
    }
    m.barrier().expect("nothing was refused by the server");
    assert!(m.there("d/renamed/f").exists());
    assert_eq!(as_owner(&dir, "chmod 755 *"), 0);
    m.barrier().expect("sent");
}
