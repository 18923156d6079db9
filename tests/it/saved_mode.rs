//! Permission bits after a save, and the time at which attributes were changed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn a_save_keeps_the_mode_where_chmod_is_ignored() {
    let config = SimConfig { quirks: vec![("chmod".into(), "ignore".into())], ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
    for before in [0o644, 0o640, 0o664, 0o666] {
        fs::set_permissions(m.there("index.php"), fs::Permissions::from_mode(before)).expect("set");
        let mut file = fs::OpenOptions::new().append(true).open(m.path("index.php")).expect("opened");
        file.write_all(b"// edit\n").expect("written");
        drop(file);
        let there = m.on_server("index.php");
        assert!(fs::read(&there).expect("read").ends_with(b"// edit\n"));
        assert_eq!(mode(&there), before, "{before:o} is kept");
    }
}

#[test]
fn only_a_mode_that_was_asked_for_is_set() {
    let server = crate::common::server::sftp_server().map(|path| path.display().to_string()).unwrap_or_default();
    let Some(m) = Mounted::openssh_with(&[&format!("Subsystem sftp {server} -u 0027")], "") else { return };
    let shared = m.there("shared");
    fs::create_dir(&shared).expect("made");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2775)).expect("set");
    fs::write(m.path("shared/plain"), "x").expect("written");
    fs::create_dir(m.path("shared/dir")).expect("made");
    fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(m.path("shared/tool")).expect("made");
    fs::write(m.path("shared/asked"), "x").expect("written");
    fs::set_permissions(m.path("shared/asked"), fs::Permissions::from_mode(0o666)).expect("chmod");
    assert_eq!(mode(&m.on_server("shared/plain")), 0o640, "the server's umask");
    assert_eq!(mode(&m.there("shared/dir")), 0o2750, "the group is handed down");
    assert_eq!(mode(&m.there("shared/tool")), 0o700);
    assert_eq!(mode(&m.there("shared/asked")), 0o666, "as asked for");
}

#[test]
fn a_change_of_attributes_or_names_shows_in_the_ctime() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("f"), "x").expect("written");
    let file = fs::File::options().write(true).open(m.path("f")).expect("opened");
    let times = |meta: fs::Metadata| (meta.mtime(), meta.ctime());
    let mut before = 0;
    let mut later = |what: &str, change: &dyn Fn(), wanted: i64| {
        std::thread::sleep(Duration::from_millis(1100));
        change();
        let (mtime, ctime) = times(file.metadata().expect("stat"));
        assert_eq!(mtime, wanted, "{what}: mtime");
        assert!(ctime > before, "{what}: ctime {ctime} after {before}");
        before = ctime;
    };
    let old = 1_000_000_000;
    later("utimens", &|| file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("set"), old);
    let chmod = || fs::set_permissions(m.path("f"), fs::Permissions::from_mode(0o600)).expect("chmod");
    later("chmod", &chmod, old);
    later("rename", &|| fs::rename(m.path("f"), m.path("g")).expect("renamed"), old);
    m.barrier().expect("sent");
    let (_, now) = times(fs::metadata(m.path("g")).expect("stat"));
    assert!(now > old, "as before when it was sent");
    later("unlink", &|| fs::remove_file(m.path("g")).expect("removed"), old);
}
