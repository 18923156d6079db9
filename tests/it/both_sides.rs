//! Another writer changes the same names on the server: whose version stays, what is kept, and what is said.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use pantheonfs::sim::SimConfig;

use crate::common::eventually;
use crate::common::mounted::Mounted;

/// Long enough for a change of another writer to be noticed here, with `fresh=1`.
const NOTICED: Duration = Duration::from_secs(3);

fn mounted() -> Option<Mounted> {
    Mounted::openssh("fresh=1,timeout=5")
}

/// As most editors save.
fn save_by_rename(path: &Path, content: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content).expect("written");
    fs::rename(temporary, path).expect("renamed");
}

fn conflicts(m: &Mounted) -> Vec<String> {
    serde_json::from_value(m.status()["conflicts"].clone()).expect("a list")
}

fn kept(m: &Mounted, name: &str) -> String {
    fs::read_to_string(m.path(&format!(".pantheon/conflicts/{name}"))).expect("kept")
}

#[test]
fn a_second_save_by_rename_is_based_on_the_first() {
    let Some(m) = mounted() else { return };
    fs::write(m.there("f"), "base").expect("written");
    assert_eq!(fs::read_to_string(m.path("f")).expect("read"), "base");
    save_by_rename(&m.path("f"), "my first save");
    m.barrier().expect("sent");
    fs::write(m.there("f"), "the work of another writer").expect("changed");
    sleep(NOTICED);
    // No program has looked at the file since.
    save_by_rename(&m.path("f"), "my second save");
    m.barrier().expect("sent");
    assert_eq!(fs::read_to_string(m.there("f")).expect("there"), "the work of another writer");
    assert_eq!((conflicts(&m), kept(&m, "f")), (vec!["f".into()], "my second save".into()));
    assert!(!m.there("f.new").exists());
}

#[test]
fn a_new_file_by_rename_that_the_server_has_is_kept_as_a_conflict() {
    let Some(m) = Mounted::openssh("timeout=5") else { return };
    assert_eq!(fs::metadata(m.path("f")).expect_err("not there").kind(), ErrorKind::NotFound);
    fs::write(m.there("f"), "theirs").expect("made");
    fs::write(m.path("f.new"), "mine").expect("written");
    eventually("the temporary file is on the server", || m.there("f.new").exists());
    sleep(Duration::from_millis(300));
    fs::rename(m.path("f.new"), m.path("f")).expect("renamed here");
    m.barrier().expect("sent");
    assert_eq!(fs::read_to_string(m.there("f")).expect("there"), "theirs");
    assert_eq!((conflicts(&m), kept(&m, "f")), (vec!["f".into()], "mine".into()));
    // The next save that uses this temporary name takes nothing away.
    save_by_rename(&m.path("f"), "mine, later");
    m.barrier().expect("sent");
    assert_eq!(kept(&m, "f"), "mine");
}

/// Found by the mount long ago, and shown to no program.
#[test]
fn a_file_that_appeared_unseen_is_not_overwritten() {
    let Some(m) = mounted() else { return };
    fs::write(m.there("old"), "old").expect("written");
    assert_eq!(fs::read_dir(m.dir()).expect("listed").filter(|entry| entry.is_ok()).count(), 2, "old and .pantheon");
    for name in ["saved", "renamed", "appended", "looked-at", "listed"] {
        fs::write(m.there(name), "theirs\n").expect("made");
    }
    sleep(NOTICED);
    fs::write(m.path("saved"), "mine\n").expect("saved");
    save_by_rename(&m.path("renamed"), "mine\n");
    let append = |name: &str| File::options().append(true).create(true).open(m.path(name));
    append("appended").and_then(|mut file| file.write_all(b"mine\n")).expect("appended");
    m.barrier().expect("sent");
    assert_eq!(conflicts(&m), ["renamed", "saved"]);
    for name in ["saved", "renamed"] {
        assert_eq!(fs::read_to_string(m.there(name)).expect("there"), "theirs\n");
        assert_eq!(kept(&m, name), "mine\n");
    }
    assert_eq!(fs::read_to_string(m.there("appended")).expect("there"), "theirs\nmine\n");
    // A program that has seen that it is there may replace it.
    fs::metadata(m.path("looked-at")).expect("there");
    fs::write(m.path("looked-at"), "mine\n").expect("saved");
    assert!(fs::read_dir(m.dir()).expect("listed").any(|entry| entry.is_ok_and(|entry| entry.file_name() == "listed")));
    fs::write(m.path("listed"), "mine\n").expect("saved");
    m.barrier().expect("sent");
    for name in ["looked-at", "listed"] {
        assert_eq!(fs::read_to_string(m.there(name)).expect("there"), "mine\n", "{name}");
    }
    assert_eq!(conflicts(&m), ["renamed", "saved"]);
}

#[test]
fn a_symlink_that_took_the_name_of_a_file_is_left_alone() {
    let Some(m) = Mounted::openssh("timeout=5") else { return };
    let at = m.dir().to_string_lossy().into_owned();
    for name in ["removed", "chmod", "target"] {
        fs::write(m.there(name), "theirs\n").expect("written");
        fs::set_permissions(m.there(name), fs::Permissions::from_mode(0o644)).expect("chmod");
    }
    for name in ["removed", "chmod"] {
        assert_eq!(fs::read_to_string(m.path(name)).expect("read"), "theirs\n");
        fs::remove_file(m.there(name)).expect("removed");
        symlink("target", m.there(name)).expect("made");
    }
    // A new name, which is to lead to an existing file there.
    assert_eq!(fs::metadata(m.path("new")).expect_err("not there").kind(), ErrorKind::NotFound);
    symlink("target", m.there("new")).expect("made");
    fs::write(m.path("new"), "mine\n").expect("saved here");
    fs::remove_file(m.path("removed")).expect("removed here");
    fs::set_permissions(m.path("chmod"), fs::Permissions::from_mode(0o600)).expect("set here");
    m.environ().run(&["sync", &at]).fails(14, &["remove removed", "attributes of chmod", "symbolic link"]);
    m.environ().run(&["sync", &at]).ok();
    for name in ["removed", "chmod", "new"] {
        assert_eq!(fs::read_link(m.there(name)).expect("their link"), Path::new("target"), "{name}");
    }
    assert_eq!(fs::read_to_string(m.there("target")).expect("there"), "theirs\n");
    assert_eq!(fs::metadata(m.there("target")).expect("there").permissions().mode() & 0o777, 0o644);
    assert_eq!((conflicts(&m), kept(&m, "new")), (vec!["new".into()], "mine\n".into()));
}

#[test]
fn changes_of_names_that_another_writer_prevents_are_reported() {
    let Some(m) = mounted() else { return };
    let at = m.dir().to_string_lossy().into_owned();
    fs::write(m.there("f"), "one").expect("written");
    assert_eq!(fs::read_to_string(m.path("f")).expect("read"), "one");
    fs::write(m.there("f"), "another").expect("changed");
    fs::remove_file(m.path("f")).expect("removed here");
    m.environ().run(&["sync", &at]).fails(14, &["remove f", "another writer"]);
    m.environ().run(&["sync", &at]).ok();
    assert_eq!(fs::read_to_string(m.there("f")).expect("there"), "another");
    let stranded: Vec<String> = serde_json::from_value(m.status()["stranded"].clone()).expect("a list");
    assert!(stranded.iter().any(|line| line.starts_with("remove f")), "{stranded:?}");
}

/// A directory that was shown, and that another writer replaces by a link to one with the same files.
fn nothing_happens_behind_a_link_that_took_the_name_of_a_directory(m: &Mounted, code: &str) {
    let at = m.dir().to_string_lossy().into_owned();
    let names = ["saved", "removed", "chmod", "moved", "target", "empty/x"];
    for dir in ["d", "other"] {
        fs::create_dir_all(m.there(dir).join("empty")).expect("made");
        for name in names {
            let file = File::create(m.there(dir).join(name)).expect("made");
            (&file).write_all(b"theirs\n").expect("written");
            file.set_permissions(fs::Permissions::from_mode(0o644)).expect("chmod");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
        }
    }
    fs::write(m.there("here"), "here\n").expect("written");
    for name in names {
        assert_eq!(fs::read_to_string(m.path("d").join(name)).expect("read"), "theirs\n");
    }
    let before = seen(&m.there("other"));
    fs::rename(m.there("d"), m.there("old")).expect("moved");
    symlink("other", m.there("d")).expect("made");

    fs::write(m.path("d/saved"), "mine\n").expect("saved here");
    fs::write(m.path("d/new"), "mine\n").expect("made here");
    fs::write(m.path("d/none"), "").expect("made here");
    fs::remove_file(m.path("d/removed")).expect("removed here");
    fs::set_permissions(m.path("d/chmod"), fs::Permissions::from_mode(0o600)).expect("set here");
    fs::rename(m.path("d/moved"), m.path("moved")).expect("moved here");
    fs::rename(m.path("here"), m.path("d/target")).expect("moved here");
    fs::create_dir(m.path("d/dir")).expect("made here");
    symlink("saved", m.path("d/link")).expect("made here");
    fs::remove_file(m.path("d/empty/x")).expect("removed here");
    fs::remove_dir(m.path("d/empty")).expect("removed here");
    m.environ().run(&["sync", &at]).fails(14, &["directory"]);

    assert_eq!(seen(&m.there("other")), before, "what the link leads to");
    assert_eq!(fs::read_link(m.there("d")).expect("their link"), Path::new("other"));
    assert_eq!(fs::read_to_string(m.there("here")).expect("not moved"), "here\n");
    for name in ["d/saved", "d/new"] {
        assert_eq!(kept(m, &format!("{code}{name}")), "mine\n");
    }
    eventually("their link is shown", || fs::read_link(m.path("d")).is_ok_and(|text| text == Path::new("other")));
}

#[test]
fn a_directory_that_takes_the_place_of_a_link_is_entered_at_once() {
    let Some(m) = Mounted::openssh("") else { return };
    symlink("other", m.there("d")).expect("made");
    fs::create_dir(m.there("other")).expect("made");
    assert!(fs::symlink_metadata(m.path("d")).expect("there").is_symlink());
    fs::remove_file(m.there("d")).expect("removed");
    fs::create_dir(m.there("d")).expect("made");
    fs::write(m.there("d/f"), "theirs").expect("written");
    assert_eq!(fs::read_to_string(m.path("d/f")).expect("the error of READLINK is not the caller's"), "theirs");
}

/// The server sets the time when the change arrives. `tar` says that a directory changed as it reads it if the time that it is
/// shown is another afterwards.
#[test]
fn a_directory_that_is_changed_here_has_the_time_of_that_until_others_change_it() {
    let Some(m) = mounted() else { return };
    let times = || {
        let shown = fs::metadata(m.path("d")).expect("there");
        (shown.mtime(), shown.ctime())
    };
    let on_the_server = || fs::metadata(m.there("d")).expect("there").mtime();
    fs::create_dir(m.path("d")).expect("made");
    let made = times();
    sleep(Duration::from_millis(1100));
    fs::write(m.path("d/f"), "mine").expect("written");
    let shown = times();
    assert!(shown.0 > made.0, "a new name changes the time: {made:?}, {shown:?}");
    m.barrier().expect("sent");
    let later = UNIX_EPOCH + Duration::from_secs(shown.0.unsigned_abs() + 7);
    File::open(m.there("d")).and_then(|dir| dir.set_modified(later)).expect("as of a server that is slow");
    sleep(NOTICED);
    assert_eq!(times(), shown);
    fs::write(m.there("d/g"), "theirs").expect("written");
    eventually("their change is shown", || fs::read(m.path("d/g")).is_ok() && times().0 == on_the_server());
}

/// Names, permission bits and content below a directory of the server.
fn seen(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        let mode = fs::symlink_metadata(&path).expect("there").permissions().mode();
        if path.is_dir() {
            found.append(&mut seen(&path));
        }
        let content = if path.is_file() { fs::read(&path).expect("read") } else { Vec::new() };
        found.insert(path, (mode, content));
    }
    found
}

#[test]
fn nothing_happens_behind_a_link_that_took_the_name_of_a_directory_of_openssh() {
    let Some(m) = Mounted::openssh("timeout=5") else { return };
    nothing_happens_behind_a_link_that_took_the_name_of_a_directory(&m, "");
}

#[test]
fn nothing_happens_behind_a_link_that_took_the_name_of_a_directory_of_a_site() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    nothing_happens_behind_a_link_that_took_the_name_of_a_directory(&m, "code/");
}

/// The platform keeps uploads on another disk: `files` is its link, and no other writer's.
#[test]
fn uploads_may_be_behind_a_link_of_the_platform() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    let files = m.there("../files");
    fs::rename(&files, m.there("../valhalla")).expect("moved");
    symlink("valhalla", &files).expect("made");
    let uploads = m.path(".pantheon/files");
    fs::write(uploads.join("new.txt"), "mine\n").expect("written");
    fs::create_dir(uploads.join("2026")).expect("made");
    fs::write(uploads.join("2026/deep.txt"), "mine\n").expect("written");
    m.barrier().expect("sent");
    fs::rename(uploads.join("new.txt"), uploads.join("2026/moved.txt")).expect("renamed");
    fs::remove_file(uploads.join("2026/deep.txt")).expect("removed");
    m.barrier().expect("sent");
    assert_eq!(fs::read_to_string(files.join("2026/moved.txt")).expect("there"), "mine\n");
    assert!(!files.join("2026/deep.txt").exists());
}

/// What has taken the name of a directory on the server may lead out of the mounted tree.
#[test]
fn nothing_is_sent_through_what_took_the_name_of_a_directory() {
    let Some(m) = mounted() else { return };
    let outside = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(fs::metadata(m.path("d")).expect_err("not there").kind(), ErrorKind::NotFound);
    symlink(outside.path(), m.there("d")).expect("made");
    fs::create_dir(m.path("d")).expect("made here");
    // At once, or later: the program does not know.
    if fs::write(m.path("d/f"), "mine").is_ok() {
        let at = m.dir().to_string_lossy().into_owned();
        m.environ().run(&["sync", &at]).fails(14, &["d"]);
        assert_eq!(fs::read_dir(m.path(".pantheon/conflicts/d")).expect("kept").count(), 1);
    }
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0, "nothing was written outside");
}
