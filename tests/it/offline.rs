//! Without the server: a mount that was there before starts all the same, shows what it knew, takes changes, and sends them
//! when the server is back.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pantheonfs::sim::{LinkConfig, SimConfig, run_link};

use crate::common::eventually;
use crate::common::mounted::Mounted;
use crate::common::program::Ran;

/// A port at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// The options of the site, as if the server were at `port`.
fn options_at(m: &Mounted, port: u16) -> String {
    let options = m.sim_ref().options();
    let real = options.split(',').find(|option| option.starts_with("Port=")).expect("a port");
    format!("{},timeout=5,StrictHostKeyChecking=accept-new", options.replace(real, &format!("Port={port}")))
}

fn source(m: &Mounted) -> String {
    format!("{}.dev", m.sim_ref().site())
}

/// Mounts as if the server were at `port`.
fn mount_at(m: &Mounted, port: u16) -> String {
    let ran = m.mount(&source(m), &options_at(m, port)).ok();
    ran.out() + &ran.err()
}

fn server_port(m: &Mounted) -> u16 {
    let options = m.sim_ref().options();
    let port = options.split(',').find_map(|option| option.strip_prefix("Port=")).expect("a port");
    port.parse().expect("a number")
}

/// Names below a directory of the mount, as `find` prints them.
fn find(m: &Mounted, below: &str) -> Vec<String> {
    let output = Command::new("find").current_dir(m.dir()).args([below, "-printf", "%p %y %s\n"]).output();
    let output = output.expect("find runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The first mount of this environment, and nothing has been saved of its tree but what the first change needs.
#[test]
fn a_change_of_a_mount_that_died_at_once_is_shown_without_the_server() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    assert!(m.path("index.php").exists());
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("index.php"), "mine").expect("accepted");
    super::crash::kill(&m);
    mount_at(&m, free_port());
    assert_eq!(fs::read_to_string(m.path("index.php")).expect("read"), "mine");
}

#[test]
fn a_mount_starts_offline_and_sends_what_was_changed_when_the_server_is_back() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    let online = find(&m, "wp-content");
    assert!(online.len() > 5, "{online:?}");
    assert!(!fs::read(m.path("index.php")).expect("read").is_empty());
    m.umount().ok();

    let port = free_port();
    let said = mount_at(&m, port);
    assert!(said.contains("offline: ") && said.contains("cannot be reached"), "{said}");
    assert_eq!(find(&m, "wp-content"), online);
    assert_eq!(fs::metadata(m.path("no-such-name")).expect_err("known").kind(), std::io::ErrorKind::NotFound);
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("status");
    assert!(status.contains("down"), "{status}");

    fs::write(m.path("index.php"), "written on a train").expect("accepted");
    fs::create_dir_all(m.path("wp-content/new/deep")).expect("accepted");
    fs::write(m.path("wp-content/new/deep/a.php"), "a").expect("accepted");
    fs::rename(m.path("wp-load.php"), m.path("wp-content/new/loaded.php")).expect("accepted");
    fs::remove_file(m.path("wp-blog-header.php")).expect("accepted");
    std::os::unix::fs::symlink("a.php", m.path("wp-content/new/deep/link")).expect("accepted");
    let changed = find(&m, "wp-content");
    assert_ne!(changed, online);

    // The driver dies, and the server is still away: everything is there again.
    super::crash::kill(&m);
    mount_at(&m, port);
    assert_eq!(find(&m, "wp-content"), changed);
    assert_eq!(fs::read(m.path("index.php")).expect("read"), b"written on a train");
    assert_eq!(fs::read(m.path("wp-content/new/deep/a.php")).expect("read"), b"a");
    assert_eq!(fs::read_link(m.path("wp-content/new/deep/link")).expect("read"), Path::new("a.php"));
    assert!(!m.path("wp-blog-header.php").exists() && !m.path("wp-load.php").exists());
    assert!(m.there("wp-load.php").exists(), "the server knows nothing yet");
    fs::write(m.path("wp-content/new/deep/a.php"), "once more").expect("accepted");

    // The server is back.
    let link = LinkConfig::new(Duration::ZERO, 0);
    let target = format!("127.0.0.1:{}", server_port(&m));
    std::thread::spawn(move || run_link(&target, port, &link, |_| {}));
    eventually("everything is sent", || m.status()["waiting"] == 0);
    assert_eq!(fs::read(m.there("index.php")).expect("there"), b"written on a train");
    assert_eq!(fs::read(m.there("wp-content/new/deep/a.php")).expect("there"), b"once more");
    assert!(m.there("wp-content/new/loaded.php").exists() && !m.there("wp-load.php").exists());
    assert!(!m.there("wp-blog-header.php").exists());
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    eventually("nothing is shown otherwise", || find(&m, "wp-content") == changed_after(&changed));
}

/// The last save made one file longer.
fn changed_after(changed: &[String]) -> Vec<String> {
    changed.iter().map(|line| line.replace("deep/a.php f 1", "deep/a.php f 9")).collect()
}

#[test]
fn a_first_mount_of_an_unreachable_server_is_an_error() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    m.umount().ok();
    fs::remove_dir_all(m.environ().path("cache")).expect("a cache may be deleted at any time");
    m.mount(&source(&m), &options_at(&m, free_port())).fails(6, &["cannot be reached"]);
}

/// The mode that the platform named last is what counts while nobody can be asked.
#[test]
fn the_mode_is_remembered() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    find(&m, ".");
    fs::write(m.path(".pantheon/mode"), "git").expect("switched");
    m.umount().ok();
    let mut mount = m.environ().command();
    mount.env("TERMINUS_PORT", free_port().to_string());
    mount.args(["mount", &source(&m), &m.dir().to_string_lossy(), "-o", &options_at(&m, free_port())]);
    let said = Ran(mount.output().expect("it runs")).ok().out();
    assert!(said.contains("read-only"), "{said}");
    let error = fs::write(m.path("index.php"), "x").expect_err("Git mode");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(m.status()["mode_source"], "remembered");
}

/// What was fetched stays on the local disk: it is read without the server, by the next mount, too.
#[test]
fn hydrated_files_can_be_read_offline() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    // What was written this very second is not remembered.
    std::thread::sleep(Duration::from_secs(4));
    let place = m.dir().to_string_lossy().into_owned();
    let said = m.environ().run(&["hydrate", &place]).ok().out();
    assert!(said.contains("files, ") && said.contains("are on this machine"), "{said}");
    let missing = format!("{place}/no-such-directory");
    m.environ().run(&["hydrate", &missing]).fails(2, &["no-such-directory", "No such file"]);
    assert_eq!(m.status()["hydration"]["missed"], 0);
    let again = m.environ().run(&["hydrate", &format!("{place}/wp-content")]).ok().out();
    assert!(again.contains("(0 B were downloaded"), "{again}");
    let text = fs::read_to_string(m.path(".pantheon/hydrate")).expect("read");
    assert!(text.contains("state: done in "), "{text}");
    let all = content(m.dir());
    assert!(all.len() > 20, "{}", all.len());
    m.umount().ok();
    mount_at(&m, free_port());
    assert_eq!(content(m.dir()), all);
    let status = m.status();
    assert_eq!(status["fetched_bytes"], 0, "nobody was there to be asked");
    let here = [&status["on_disk_hits"], &status["repository"]["read_files"]].map(|n| n.as_u64().expect("a number"));
    assert!(here.iter().sum::<u64>() > 20, "{status}");
}

/// Path and bytes of every file of the code. `.git` is made on this machine, when the repository is there.
fn content(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let (mut out, mut dirs) = (std::collections::BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("listed").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("known"));
            if entry.file_name() == ".git" {
                continue;
            }
            if kind.is_dir() && entry.file_name() != ".pantheon" {
                dirs.push(path);
            } else if kind.is_file() {
                out.insert(path.to_string_lossy().into_owned(), fs::read(&path).expect("read"));
            }
        }
    }
    out
}

#[test]
fn hydrate_names_what_the_server_does_not_let_it_read() {
    let server = crate::common::server::sftp_server().map(|path| path.display().to_string()).unwrap_or_default();
    if !crate::common::needs_root("a server that runs as another user") || !crate::common::has_program("setpriv") {
        return;
    }
    let nobody = format!("Subsystem sftp /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups {server}");
    let Some(m) = Mounted::openssh_with(&[&nobody], "fresh=1") else { return };
    for dir in ["a", "closed"] {
        fs::create_dir(m.there(dir)).expect("made");
    }
    for file in ["a/1", "a/2", "top", "closed/x"] {
        fs::write(m.there(file), file).expect("written");
    }
    fs::set_permissions(m.there("closed"), fs::Permissions::from_mode(0o700)).expect("set");
    std::thread::sleep(Duration::from_millis(1100));
    let hydrate = || m.environ().run(&["hydrate", &m.dir().to_string_lossy()]);
    let ran = hydrate();
    assert_ne!(ran.code(), 0, "{}", ran.out());
    assert!(ran.out().starts_with("3 files"), "the rest is here: {}", ran.out());
    assert!(ran.err().contains("closed: permission denied"), "{}", ran.err());
    fs::remove_dir_all(m.there("closed")).expect("removed");
    fs::write(m.there("a/secret"), "s").expect("written");
    fs::set_permissions(m.there("a/secret"), fs::Permissions::from_mode(0o600)).expect("set");
    std::thread::sleep(Duration::from_millis(1100));
    let ran = hydrate();
    assert_ne!(ran.code(), 0, "{}", ran.out());
    assert!(ran.out().starts_with("3 files"), "{}", ran.out());
    assert!(ran.err().contains("a/secret: permission denied"), "{}", ran.err());
    fs::remove_file(m.there("a/secret")).expect("removed");
    std::thread::sleep(Duration::from_millis(1100));
    hydrate().ok();
}
