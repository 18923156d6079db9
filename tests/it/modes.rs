//! What the environment allows: modes, Test and Live, uploads, switches by others and by us.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};

use pantheonfs::sim::SimConfig;
use rustix::fs::Access;

use crate::common::eventually;
use crate::common::mounted::Mounted;

fn is_read_only(result: io::Result<()>) -> bool {
    result.expect_err("refused").raw_os_error() == Some(libc::EROFS)
}

/// Every way to change code, and that none of them changes it.
fn assert_code_is_read_only(m: &Mounted) {
    let file = m.path("index.php");
    let before = fs::read(m.on_server("index.php")).expect("there");
    assert!(is_read_only(OpenOptions::new().write(true).open(&file).map(drop)), "open for writing");
    assert!(is_read_only(OpenOptions::new().append(true).open(&file).map(drop)), "open for appending");
    assert!(is_read_only(fs::write(m.path("new.php"), "x")), "create");
    assert!(is_read_only(fs::create_dir(m.path("new"))), "mkdir");
    assert!(is_read_only(fs::remove_file(&file)), "unlink");
    assert!(is_read_only(fs::remove_dir(m.path("wp-content/themes"))), "rmdir");
    assert!(is_read_only(fs::rename(&file, m.path("moved.php"))), "rename");
    assert!(is_read_only(fs::set_permissions(&file, fs::Permissions::from_mode(0o777))), "chmod");
    assert!(is_read_only(symlink("index.php", m.path("link"))), "symlink");
    let now = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    let set = rustix::fs::utimensat(rustix::fs::CWD, &file, &now, rustix::fs::AtFlags::empty());
    assert!(is_read_only(set.map_err(io::Error::from)), "utimens");
    assert!(is_read_only(rustix::fs::access(&file, Access::WRITE_OK).map_err(io::Error::from)), "access");
    rustix::fs::access(&file, Access::READ_OK).expect("reading goes on");
    assert_eq!(fs::read(&file).expect("readable"), before);
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), before);
}

fn assert_uploads_are_writable(m: &Mounted, environment: &str) {
    let uploads = m.sim_ref().home(environment).join("files");
    fs::write(m.path("wp-content/uploads/a.jpg"), "a").expect("through the uploads link");
    fs::write(m.path(".pantheon/files/b.jpg"), "b").expect("through .pantheon/files");
    m.barrier().expect("sent");
    assert_eq!(fs::read(uploads.join("a.jpg")).expect("there"), b"a");
    assert_eq!(fs::read(uploads.join("b.jpg")).expect("there"), b"b");
    fs::create_dir(m.path("wp-content/uploads/2026")).expect("mkdir");
    fs::rename(m.path("wp-content/uploads/a.jpg"), m.path("wp-content/uploads/2026/a.jpg")).expect("rename");
    fs::remove_file(m.path("wp-content/uploads/b.jpg")).expect("unlink");
    m.barrier().expect("sent");
    assert!(uploads.join("2026/a.jpg").exists() && !uploads.join("b.jpg").exists());
}

#[test]
fn test_and_live_take_uploads_and_no_code() {
    for environment in ["test", "live"] {
        let Some(m) = Mounted::sim_with(&SimConfig::default(), environment, "") else { return };
        assert_code_is_read_only(&m);
        assert_uploads_are_writable(&m, environment);
        let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
        assert!(status.contains("code: read-only\n"), "{status}");
        assert!(status.contains(&format!("code-reason: code on '{environment}' is read-only")), "{status}");
        assert!(status.contains("uploads: writable\n"), "{status}");
        let error = fs::write(m.path(".pantheon/mode"), "sftp\n").expect_err("cannot be switched");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}

#[test]
fn a_switch_by_a_teammate_is_followed_both_ways() {
    let Some(m) = Mounted::sim() else { return };
    assert_eq!(fs::read_to_string(m.path(".pantheon/mode")).expect("readable"), "sftp\n");
    fs::write(m.path("index.php"), "edited here").expect("writable");
    m.control("mode", r#"{"environment": "dev", "mode": "git"}"#);
    eventually("the switch is noticed", || fs::read_to_string(m.path(".pantheon/mode")).is_ok_and(|t| t == "git\n"));
    // What was uncommitted is gone on the server, and so it is here.
    eventually("the committed version is shown", || {
        fs::read_to_string(m.path("index.php")).is_ok_and(|text| text.contains("Front controller"))
    });
    assert_code_is_read_only(&m);
    assert_uploads_are_writable(&m, "dev");
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("code-reason: the environment is in Git mode"), "{status}");
    m.control("mode", r#"{"environment": "dev", "mode": "sftp"}"#);
    eventually("the switch back is noticed", || fs::write(m.path("index.php"), "again").is_ok());
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"again");
}

#[test]
fn a_write_that_the_server_refuses_is_erofs_and_the_mode_is_asked_again() {
    let Some(m) = Mounted::sim() else { return };
    let mut file = OpenOptions::new().append(true).open(m.path("index.php")).expect("opened in SFTP mode");
    io::Write::write_all(&mut file, b"late").expect("written here");
    m.control("mode", r#"{"environment": "dev", "mode": "git"}"#);
    // Before the mount has heard of it: the server says no when it is sent, and what was saved is kept.
    let saved = file.sync_all();
    assert!(saved.is_ok() || is_read_only(saved));
    drop(file);
    eventually("what could not be sent is kept", || {
        let status = m.status();
        let kept = |shelf: &str| status[shelf].as_array().map_or(0, Vec::len);
        kept("stranded") + kept("conflicts") == 1 && status["waiting"] == 0
    });
    eventually("the mode is known", || fs::read_to_string(m.path(".pantheon/mode")).is_ok_and(|t| t == "git\n"));
}

#[test]
fn the_first_write_after_a_pause_learns_of_a_switch_before_it_returns() {
    let Some(m) = Mounted::sim() else { return };
    fs::read(m.path("index.php")).expect("known");
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(2100));
        m.control("mode", r#"{"environment": "dev", "mode": "git"}"#);
        assert!(is_read_only(fs::write(m.path("index.php"), "too late")), "at once, and not found out later");
        m.control("mode", r#"{"environment": "dev", "mode": "sftp"}"#);
        eventually("the switch back is noticed", || m.status()["mode"] == "sftp");
    }
    assert_eq!(m.status()["stranded"], serde_json::json!([]));
}

#[test]
fn the_mode_is_switched_by_writing_it() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path(".pantheon/mode"), "sftp\n").expect("the same mode is fine");
    fs::write(m.path(".pantheon/mode"), "git\n").expect("nothing is uncommitted");
    assert_eq!(fs::read_to_string(m.path(".pantheon/mode")).expect("readable"), "git\n");
    assert_code_is_read_only(&m);
    fs::write(m.path(".pantheon/mode"), "sftp").expect("without a newline too");
    fs::write(m.path("index.php"), "precious").expect("writable");
    let error = fs::write(m.path(".pantheon/mode"), "git\n").expect_err("would delete work");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("index.php") && status.contains("--discard"), "{status}");
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"precious");
    let error = fs::write(m.path(".pantheon/mode"), "nonsense\n").expect_err("nonsense");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    fs::write(m.path(".pantheon/mode"), "git --discard\n").expect("spelled out");
    assert!(fs::read_to_string(m.path("index.php")).expect("readable").contains("Front controller"));
}

#[test]
fn a_switch_that_the_platform_refuses_is_an_error_in_its_own_words() {
    let Some(m) = Mounted::sim() else { return };
    m.control("habit", r#"{"name": "workflow", "value": "fail"}"#);
    let error = fs::write(m.path(".pantheon/mode"), "git\n").expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("build_status is building"), "{status}");
    fs::write(m.path("index.php"), "goes on").expect("still in SFTP mode");
}

#[test]
fn pending_lists_what_the_platform_says_and_what_we_wrote() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "changed\n").expect("written");
    fs::write(m.path("added.php"), "a\nb\n").expect("written");
    fs::write(m.path("wp-content/uploads/x.jpg"), "x").expect("written");
    let pending = || fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    eventually("the platform's list", || {
        pending().contains("M index.php\t+1 -3") && pending().contains("A added.php\t+2 -0")
    });
    assert!(!pending().contains("x.jpg"), "uploads are never pending: {}", pending());
    m.control("habit", r#"{"name": "diffstat", "value": "stale"}"#);
    fs::write(
        m.path("added.php"),
        "a
b
c
",
    )
    .expect("written");
    assert!(pending().contains("A added.php	+3 -0"), "looking is better than a stale list: {}", pending());
}

#[test]
fn status_can_be_read_with_the_link_down() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=2") else { return };
    let theme = m.path("wp-content/themes/sunrise/style.css");
    // A file of this very second would not be remembered: it may change and keep its version.
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let on_server = fs::File::options().write(true).open(m.on_server("wp-content/themes/sunrise/style.css"));
    on_server.and_then(|file| file.set_modified(hour_ago)).expect("dated back");
    let before = fs::read(&theme).expect("read while the link is up");
    m.control("stall", r#"{"stalled": true}"#);
    assert_eq!(fs::read(&theme).expect("what is cached goes on being served"), before);
    eventually("the link is found dead", || {
        // Something that must ask, so that the silence is noticed.
        let _ = fs::read(m.path("wp-includes/version.php"));
        m.status()["link"]["up"] == false
    });
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("link: down for "), "{status}");
    m.control("stall", r#"{"stalled": false}"#);
    eventually("the link comes back", || fs::read(m.path("wp-includes/version.php")).is_ok());
}

#[test]
fn the_virtual_directory_is_what_the_readme_says() {
    let Some(m) = Mounted::sim() else { return };
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(m.path(dir)).expect("listed");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    let listed = [
        "README",
        "activity",
        "commit",
        "conflicts",
        "connection",
        "diff",
        "hydrate",
        "ignored",
        "local",
        "log",
        "mode",
        "pending",
        "status",
        "status.json",
        "stranded",
        "sync",
    ];
    assert_eq!(names(".pantheon"), listed);
    assert!(names("").contains(&".pantheon".to_owned()));
    assert!(m.path(".pantheon/files").is_dir() && m.path(".pantheon/logs/php").is_dir(), "there by name");
    assert!(fs::write(m.path(".pantheon/status"), "x").is_err());
    assert!(fs::write(m.path(".pantheon/new"), "x").is_err());
    assert!(fs::remove_file(m.path(".pantheon/mode")).is_err());
    assert!(is_read_only(fs::write(m.path(".pantheon/logs/php/x.log"), "x")), "logs are never written");
    assert_eq!(
        fs::read_link(m.path("wp-content/uploads")).expect("a link"),
        std::path::Path::new("../.pantheon/files")
    );
    let connection = fs::read_to_string(m.path(".pantheon/connection")).expect("readable");
    assert!(connection.contains(&format!("user: appserver.dev.{}\n", m.sim_ref().site_id())), "{connection}");
}
