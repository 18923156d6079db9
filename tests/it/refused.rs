//! What a server refuses: every barrier says what was given up, and no file is left torn.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pantheonfs::fs::Cause;
use pantheonfs::sim::SimConfig;
use parking_lot::Mutex;

use crate::common::eventually;
use crate::common::inner::{Inner, wait};
use crate::common::meddler::Fate;
use crate::common::mounted::Mounted;
use crate::common::program::is_mounted;
use crate::common::server::sftp_server;

const WRITE: u8 = 6;
const FSETSTAT: u8 = 10;
const CLOSE: u8 = 4;
const PERMISSION_DENIED: u32 = 3;

/// A server that refuses these requests to everybody, root included.
fn refusing(requests: &str, options: &str) -> Option<Mounted> {
    let program = sftp_server()?.display();
    Mounted::openssh_with(&[&format!("Subsystem sftp {program} -P {requests}")], options)
}

fn stranded(m: &Mounted) -> Vec<String> {
    serde_json::from_value(m.status()["stranded"].clone()).expect("a list")
}

#[test]
fn refused_changes_of_names_are_said_by_the_next_barrier() {
    let Some(m) = refusing("mkdir,rmdir,remove,rename,posix-rename", "") else { return };
    fs::write(m.there("old"), "old").expect("written");
    fs::create_dir(m.there("dir")).expect("made");
    let at = m.dir().to_string_lossy().into_owned();
    for (change, said) in [("mkdir new", "mkdir new"), ("rm old", "remove old"), ("rmdir dir", "rmdir dir")] {
        let ran = Command::new("sh").args(["-c", change]).current_dir(m.dir()).status().expect("a shell");
        assert!(ran.success(), "{change}");
        m.environ().run(&["sync", &at]).fails(14, &[said, "permission denied"]);
        m.environ().run(&["sync", &at]).ok();
        let lines = stranded(&m);
        assert!(lines.iter().any(|line| line.starts_with(said)), "{said} is not among {lines:?}");
    }
    assert!(m.there("old").exists() && m.there("dir").exists() && !m.there("new").exists());
    fs::create_dir_all(m.path("tree/below")).expect("made here");
    fs::write(m.path("tree/below/file"), "precious").expect("saved here");
    let error = m.barrier().expect_err("nothing of it is on the server");
    assert_eq!(error.raw_os_error(), Some(libc::EREMOTEIO));
    let status = m.status();
    assert_eq!(status["conflicts"], serde_json::json!([]), "nobody removed anything");
    let lines = stranded(&m);
    for line in ["mkdir tree: ", "mkdir tree/below: ", "tree/below/file"] {
        assert!(lines.iter().any(|known| known.starts_with(line)), "{line} is not among {lines:?}");
    }
    let kept = fs::read_to_string(m.path(".pantheon/stranded/tree/below/file")).expect("kept");
    assert_eq!(kept, "precious");
    fs::create_dir(m.path("another")).expect("made here");
    m.umount().fails(14, &["mkdir another"]);
    assert!(!is_mounted(m.dir()), "what was given up does not keep the mount");
}

#[test]
fn a_refused_chmod_is_said_by_the_next_barrier() {
    let Some(m) = refusing("setstat,fsetstat", "") else { return };
    fs::write(m.there("f"), "old").expect("written");
    fs::set_permissions(m.there("f"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let mode = || fs::metadata(m.path("f")).expect("there").permissions().mode() & 0o777;
    let chmod = |perm: u32| fs::set_permissions(m.path("f"), fs::Permissions::from_mode(perm)).expect("set here");
    assert_eq!(mode(), 0o644);
    chmod(0o600);
    let at = m.dir().to_string_lossy().into_owned();
    m.environ().run(&["sync", &at]).fails(14, &["attributes of f", "permission denied"]);
    eventually("what the server has is shown", || mode() == 0o644);
    assert!(stranded(&m).iter().any(|line| line.starts_with("attributes of f")), "{:?}", stranded(&m));
    // What it has already is not refused, and times are set where they can be.
    chmod(0o644);
    let file = File::options().write(true).open(m.path("f")).expect("opened");
    file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).expect("set here");
    drop(file);
    m.barrier().expect("nothing was given up");
}

/// The content of the save arrives; the barrier says that its permissions do not.
#[test]
fn a_refused_chmod_is_said_when_it_comes_with_a_save() {
    let Some(m) = refusing("setstat,fsetstat", "") else { return };
    fs::write(m.there("f"), "old").expect("written");
    fs::set_permissions(m.there("f"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let at = m.dir().to_string_lossy().into_owned();
    let mut file = File::create(m.path("f")).expect("opened");
    file.write_all(b"secret").expect("written");
    file.set_permissions(fs::Permissions::from_mode(0o600)).expect("set here");
    drop(file);
    m.environ().run(&["sync", &at]).fails(14, &["attributes of f", "permission denied"]);
    m.environ().run(&["sync", &at]).ok();
    assert_eq!(fs::read_to_string(m.there("f")).expect("there"), "secret");
    let mode = || fs::metadata(m.path("f")).expect("there").permissions().mode() & 0o777;
    eventually("what the server has is shown", || mode() == 0o644);
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
}

/// The server lists it again, although nobody else has made it.
#[test]
fn a_file_whose_removal_was_refused_is_saved_as_before() {
    let Some(m) = refusing("remove", "fresh=1") else { return };
    ["one", "another"].into_iter().for_each(|name| fs::write(m.there(name), "old").expect("written"));
    for name in ["one", "another"] {
        assert_eq!(fs::read_to_string(m.path(name)).expect("read"), "old");
        fs::remove_file(m.path(name)).expect("removed here");
    }
    m.barrier().expect_err("refused");
    for name in ["one", "another"] {
        fs::write(m.path(name), "new").expect("saved");
    }
    m.barrier().expect("sent");
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    for name in ["one", "another"] {
        assert_eq!(fs::read_to_string(m.there(name)).expect("there"), "new");
    }
}

#[test]
fn with_sync_a_refused_rename_fails() {
    let Some(m) = refusing("rename,posix-rename,open", "sync") else { return };
    fs::write(m.there("a"), "a").expect("written");
    let error = fs::rename(m.path("a"), m.path("b")).expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(m.path("a").exists() && m.there("a").exists());
}

#[test]
fn a_commit_and_a_switch_name_what_they_lack() {
    let config = SimConfig::default();
    let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
    let settings = m.path("sites/default/settings.php");
    fs::create_dir_all(m.path("sites/default")).expect("made");
    fs::write(&settings, "conf\n").expect("saved");
    m.barrier().expect("sent");
    m.control("habit", r#"{"name": "sites-default", "value": "read-only"}"#);
    let commit = || m.environ().run(&["commit", "-m", "both edits", "--at", &m.dir().to_string_lossy()]);
    fs::write(m.path("index.php"), "mine\n").expect("saved");
    fs::write(&settings, "edited\n").expect("saved");
    let ran = commit();
    assert_eq!(ran.code(), 14, "{}{}", ran.out(), ran.err());
    assert!(ran.err().contains("save sites/default/settings.php"), "{}", ran.err());
    assert_eq!(
        fs::read_to_string(m.path(".pantheon/stranded/code/sites/default/settings.php")).expect("kept"),
        "edited\n"
    );
    commit().ok();
    fs::write(&settings, "again\n").expect("saved");
    let mode = m.environ().run(&["mode", "git", "--at", &m.dir().to_string_lossy()]);
    mode.fails(14, &["save sites/default/settings.php", "the mode was not switched"]);
    assert_eq!(m.status()["mode"], "sftp");
}

#[test]
fn a_conflict_fails_a_commit_and_not_a_sync() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "") else { return };
    fs::read(m.path("index.php")).expect("read");
    fs::write(m.there("index.php"), "theirs, and longer than before\n").expect("written");
    fs::write(m.path("index.php"), "mine\n").expect("saved");
    let run = |args: &[&str]| m.environ().run(args);
    let at = m.dir().to_string_lossy().into_owned();
    let sync = run(&["sync", &at]).ok();
    assert!(sync.err().contains("another writer changed 1 of the files"), "{}", sync.err());
    let commit = run(&["commit", "-m", "all", "--at", &at]);
    assert_eq!(commit.code(), 14, "{}", commit.err());
    assert!(commit.err().contains("nothing was committed: 1 change(s) were given up"), "{}", commit.err());
    run(&["commit", "-m", "all", "--at", &at]).ok();
    assert_eq!(fs::read(m.path(".pantheon/conflicts/code/index.php")).expect("kept"), b"mine\n");
}

fn old_file(inner: &Inner, name: &str, bytes: &[u8]) {
    fs::write(inner.home.join(name), bytes).expect("written");
    let file = File::options().write(true).open(inner.home.join(name)).expect("opened");
    file.set_modified(SystemTime::now() - Duration::from_secs(86400)).expect("old");
}

#[test]
fn a_shorter_save_is_whole_where_sizes_cannot_be_set() {
    let Some(inner) = Inner::with(&["-P", "fsetstat,setstat"], Duration::from_secs(1)) else { return };
    old_file(&inner, "f", b"0123456789 the old and longer content");
    inner.write("f", b"short").expect("saved");
    inner.barrier();
    assert_eq!(fs::read(inner.home.join("f")).expect("there"), b"short");
    inner.write("f", b"").expect("saved");
    inner.barrier();
    assert_eq!(fs::read(inner.home.join("f")).expect("there"), b"");
    assert!(inner.fs.status().local.stranded.is_empty());
}

/// The first piece arrives, and then every WRITE is refused until the save is given up.
#[test]
fn a_save_that_is_given_up_half_way_leaves_the_old_content() {
    let Some(inner) = Inner::with(&[], Duration::from_secs(1)) else { return };
    let (old, new) = (vec![b'o'; 700_000], vec![b'n'; 600_000]);
    old_file(&inner, "f", &old);
    assert_eq!(inner.read("f").expect("read"), old);
    // Attempts, the last request, and whether a WRITE has passed.
    let seen = Mutex::new((0, 0, false));
    inner.faults.plan.on_request(move |_, kind| {
        let mut seen = seen.lock();
        if kind == FSETSTAT && seen.1 == WRITE {
            seen.0 += 1;
        }
        seen.1 = kind;
        if kind != WRITE || seen.0 >= 6 || !std::mem::replace(&mut seen.2, true) {
            return Fate::Pass;
        }
        Fate::Refuse(PERMISSION_DENIED, "no")
    });
    inner.write("f", &new).expect("saved here");
    let error = inner.fs.sync(wait()).expect_err("refused");
    assert!(matches!(&error.cause, Cause::Rejected(text) if text.contains("save f")), "{error}");
    assert!(fs::read(inner.home.join("f")).expect("there") == old, "the old content is there again");
    assert_eq!(inner.fs.status().local.stranded, ["f"]);
}

/// Another writer replaces the file while the save is interrupted.
#[test]
fn a_save_in_place_that_is_resumed_does_not_follow_a_symlink() {
    let Some(inner) = Inner::with(&["-P", "posix-rename,rename"], Duration::from_secs(1)) else { return };
    old_file(&inner, "f", b"the old content");
    old_file(&inner, "target", b"of another writer");
    assert_eq!(inner.read("f").expect("read"), b"the old content");
    let (path, replaced) = (inner.home.join("f"), Mutex::new(false));
    inner.faults.plan.on_request(move |_, kind| {
        if kind != WRITE || std::mem::replace(&mut replaced.lock(), true) {
            return Fate::Pass;
        }
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("target", &path).expect("made");
        Fate::Refuse(PERMISSION_DENIED, "no")
    });
    inner.write("f", b"mine").expect("saved here");
    inner.barrier();
    assert_eq!(fs::read_link(inner.home.join("f")).expect("their link"), Path::new("target"));
    assert_eq!(fs::read(inner.home.join("target")).expect("there"), b"of another writer");
    assert_eq!(inner.fs.status().local.conflicts, ["f"]);
}

/// The size of the new content can be set, and nothing can be written for a while.
#[test]
fn a_shorter_save_that_cannot_be_written_for_a_while_is_no_conflict() {
    let Some(inner) = Inner::with(&["-P", "posix-rename,rename"], Duration::from_secs(1)) else { return };
    let old = vec![b'o'; 4800];
    old_file(&inner, "f", &old);
    assert_eq!(inner.read("f").expect("read"), old);
    let refused = Mutex::new(0);
    inner.faults.plan.on_request(move |_, kind| {
        let mut refused = refused.lock();
        if kind != WRITE || *refused >= 12 {
            return Fate::Pass;
        }
        *refused += 1;
        Fate::Refuse(PERMISSION_DENIED, "no")
    });
    inner.write("f", b"new").expect("saved here");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while inner.fs.sync(wait()).is_err() && std::time::Instant::now() < until {}
    let there = fs::read(inner.home.join("f")).expect("there");
    assert!(there == b"new" || there == old, "{} bytes", there.len());
    assert!(inner.fs.status().local.conflicts.is_empty(), "nobody else wrote");
}

/// The server sets the time of a file while it carries out CLOSE, after requests behind it were answered.
#[test]
fn a_time_that_is_set_at_close_is_no_other_writer() {
    let Some(inner) = Inner::with(&[], Duration::from_secs(1)) else { return };
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let (asked, path) = (kinds.clone(), inner.home.join("f"));
    let written = Mutex::new(false);
    inner.faults.plan.on_request(move |_, kind| {
        asked.lock().push(kind);
        Fate::Pass
    });
    inner.faults.plan.on_reply(move |number, packet| {
        let kind = kinds.lock().get(number as usize).copied();
        if kind == Some(WRITE) {
            *written.lock() = true;
        }
        if kind == Some(CLOSE) && std::mem::take(&mut *written.lock()) {
            std::thread::sleep(Duration::from_millis(50));
            let file = File::options().write(true).open(&path).expect("opened");
            let now = file.metadata().and_then(|meta| meta.modified()).expect("a time");
            file.set_modified(now + Duration::from_secs(3)).expect("set");
        }
        vec![packet]
    });
    for text in ["first\n", "first\nsecond\n", "first\nsecond\nthird\n"] {
        inner.write("f", text.as_bytes()).expect("saved");
        inner.fs.sync(wait()).expect("sent");
        assert_eq!(fs::read_to_string(inner.home.join("f")).expect("there"), text);
    }
    let file = File::options().write(true).open(inner.home.join("f")).expect("opened");
    file.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("set");
    inner.write("f", b"fourth\n").expect("saved");
    inner.fs.sync(wait()).expect("the same content is nobody's change");
    assert_eq!(fs::read(inner.home.join("f")).expect("there"), b"fourth\n");
    assert!(inner.fs.status().local.conflicts.is_empty());
}

/// Files without a read bit: their content cannot be compared, and that is no reason to wait or to call it a conflict.
#[test]
fn unreadable_files_can_be_removed_and_replaced() {
    const READ: u8 = 5;
    const DENIED: u32 = 3;
    let Some(inner) = Inner::with(&[], Duration::from_secs(3600)) else { return };
    for name in ["removed", "replaced", "new"] {
        inner.write(name, name.as_bytes()).expect("saved");
    }
    inner.barrier();
    let refuse = |_, kind| if kind == READ { Fate::Refuse(DENIED, "Permission denied") } else { Fate::Pass };
    inner.faults.plan.on_request(refuse);
    inner.unlink("removed").expect("removed");
    inner.rename("new", "replaced").expect("replaced");
    inner.barrier();
    assert!(!inner.home.join("removed").exists());
    assert_eq!(fs::read(inner.home.join("replaced")).expect("there"), b"new");
    assert!(inner.fs.status().local.conflicts.is_empty());
}

/// A refusal for permissions makes the mount ask the platform for the mode. What is changed meanwhile waits for the answer.
#[test]
fn a_refused_change_does_not_make_others_fail() {
    if rustix::process::geteuid().is_root() {
        return crate::common::skip("a simulator that runs as root refuses nothing for permissions");
    }
    let Some(m) = Mounted::sim() else { return };
    for n in 0..3 {
        let dir = format!("d{n}");
        fs::create_dir(m.path(&dir)).expect("made");
        fs::write(m.path(&dir).join("f"), "x").expect("written");
        m.barrier().expect("sent");
        let set = |bits| fs::set_permissions(m.there(&dir), fs::Permissions::from_mode(bits)).expect("set");
        set(0o555);
        fs::rename(m.path(&dir).join("f"), m.path(&dir).join("g")).expect("not known here");
        m.barrier().expect_err("refused by the server");
        fs::write(m.path(&format!("at-once-{n}")), "x").expect("the mode is the same");
        m.barrier().expect("sent");
        set(0o755);
    }
}

/// Where nothing can be renamed, a tree is moved entry by entry. What a listing finds in between is no state that a later
/// change is based on.
#[test]
fn a_tree_that_is_listed_while_it_is_moved_can_be_removed() {
    let quirks = vec![("rename".to_owned(), "refuse".to_owned()), ("extensions".into(), "off".into())];
    let config = SimConfig { rtt: Duration::from_millis(10), quirks, ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "fresh=1,git=no") else { return };
    for dir in 0..8 {
        fs::create_dir_all(m.there(&format!("tree/{dir}"))).expect("made");
        for file in 0..8 {
            fs::write(m.there(&format!("tree/{dir}/{file}")), format!("{dir} {file}")).expect("written");
        }
    }
    assert_eq!(files_below(&m.path("tree")), 64);
    fs::rename(m.path("tree"), m.path("moved")).expect("moved here");
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| m.barrier());
        while !sent.is_finished() {
            assert_eq!(files_below(&m.path("moved")), 64);
        }
        sent.join().expect("no panic").expect("moved");
    });
    fs::remove_dir_all(m.path("moved")).expect("removed here");
    m.barrier().expect("removed there");
    assert!(!m.there("moved").exists() && !m.there("tree").exists());
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
}

/// Where nothing can be renamed and a file may not be removed, a move leaves everything as it was.
#[test]
fn a_move_whose_source_cannot_be_removed_leaves_no_copy() {
    if rustix::process::geteuid().is_root() {
        return crate::common::skip("a server that runs as root refuses nothing for permissions");
    }
    let Some(inner) = Inner::with(&["-P", "rename,posix-rename"], Duration::from_secs(3600)) else { return };
    inner.mkdir("dir").expect("made");
    inner.write("dir/file", b"precious").expect("saved");
    inner.barrier();
    let set = |bits| fs::set_permissions(inner.home.join("dir"), fs::Permissions::from_mode(bits)).expect("set");
    set(0o555);
    inner.rename("dir/file", "moved").expect("not known here");
    let error = inner.fs.sync(wait()).expect_err("refused");
    assert!(matches!(&error.cause, Cause::Rejected(text) if text.contains("rename dir/file to moved")), "{error}");
    assert_eq!(fs::read(inner.home.join("dir/file")).expect("there"), b"precious");
    assert!(!inner.home.join("moved").exists());
    set(0o755);
}

/// Number of files below a directory, each looked at.
fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry"));
    let count = |entry: fs::DirEntry| match entry.metadata().expect("known").is_dir() {
        true => files_below(&entry.path()),
        false => 1,
    };
    entries.map(count).sum()
}
