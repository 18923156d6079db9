//! The session against real servers: the same suite for each of them, and for each set of bad quirks.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, UNIX_EPOCH};

use pantheonfs::attr::{Area, Attr, FileKind};
use pantheonfs::clock::Deadline;
use pantheonfs::gate::{Gate, ReadOnlyReason, Verdict, WritePermit};
use pantheonfs::path::{Name, RemotePath};
use pantheonfs::remote::{Base, Class, ErrorKind, Remote, RemoteConfig, RemoteResult, SetAttr, Store};
use pantheonfs::transport::{self, Transport, TransportError};

use crate::common::meddler::{Fate, Meddler, Plan, status};
use crate::common::scripted::{Asked, FILE, READDIR, Script, attributes, dial, names};
use crate::common::{SOON, server};

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).expect("a valid path")
}

fn permit() -> WritePermit {
    Gate::new().admit(Area::Code).expect("open")
}

fn list(remote: &Remote, dir: &str) -> RemoteResult<Vec<(Name, Attr)>> {
    list_known(remote, dir, None)
}

fn list_known(remote: &Remote, dir: &str, names: Option<usize>) -> RemoteResult<Vec<(Name, Attr)>> {
    let (sender, receiver) = mpsc::channel();
    remote.list_async(path(dir), Class::Interactive, names, move |result| sender.send(result).expect("somebody waits"));
    receiver.recv().expect("an answer")
}

fn fetch(remote: &Remote, file: &str, range: std::ops::Range<u64>) -> RemoteResult<Vec<u8>> {
    let version = remote.lstat(&path(file))?.version();
    let (sender, receiver) = mpsc::channel();
    let done = move |result| sender.send(result).expect("somebody waits");
    remote.fetch_async(path(file), (version, true), range, Class::Interactive, done);
    receiver.recv().expect("an answer")
}

fn content(bytes: &[u8]) -> fs::File {
    let file = tempfile::tempfile().expect("a temporary file");
    file.write_all_at(bytes, 0).expect("written");
    file
}

fn store(remote: &Remote, file: &str, bytes: &[u8], base: Base, temp: Option<&str>) -> RemoteResult<Attr> {
    let how = Store {
        base,
        base_sum: None,
        unchanged: Vec::new(),
        perm: Some(0o640),
        made_with: None,
        own_perm: false,
        mtime: Some(1_000_000_000),
        temp_dir: temp.map(path),
    };
    remote.store(&permit(), &path(file), &content(bytes), bytes.len() as u64, &how, &|_| {})
}

/// Every habit of a server that the client must cope with, as arguments of OpenSSH's own.
const HABITS: [(&str, &[&str]); 4] = [
    ("as it is", &[]),
    ("no posix-rename", &["-P", "posix-rename"]),
    ("no rename at all", &["-P", "posix-rename,rename"]),
    ("no chmod, no times", &["-P", "setstat,fsetstat"]),
];

fn with_each_habit(test: impl Fn(&Path, &Remote, &str)) {
    for (habit, args) in HABITS {
        let home = tempfile::tempdir().expect("a temporary directory");
        for dir in ["code", "tmp"] {
            fs::create_dir(home.path().join(dir)).expect("made");
        }
        test(home.path(), &server::start(home.path(), args), habit);
        let left: Vec<_> = fs::read_dir(home.path().join("tmp")).expect("there").collect();
        assert!(left.is_empty(), "{habit}: temporary files are left: {left:?}");
    }
}

#[test]
fn directories_are_listed_whole_whatever_their_size() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let remote = server::start(home.path(), &[]);
    assert!(list(&remote, "").expect("an empty directory").is_empty());
    for n in 0..1234 {
        fs::write(home.path().join(format!("file {n:04}")), vec![b'x'; n]).expect("written");
    }
    std::os::unix::fs::symlink("file 0001", home.path().join("link")).expect("linked");
    // With 3 known names it is closed too early, and listed again.
    for known in [None, Some(3), Some(1235)] {
        let entries = list_known(&remote, "", known).expect("listed");
        assert_eq!(entries.len(), 1235);
        assert_eq!(entries[7].1.size, 7);
        assert_eq!(entries[1234].1.kind, FileKind::Symlink);
    }
    assert!(matches!(list(&remote, "nowhere").expect_err("missing").kind, ErrorKind::NotFound));
    // OpenSSH has no word for ENOTDIR.
    let kind = list(&remote, "link").expect_err("a file").kind;
    assert!(matches!(kind, ErrorKind::NotADirectory | ErrorKind::NotFound), "{kind}");
}

/// Such servers are not known, but nothing forbids them.
#[test]
fn directories_are_listed_whole_by_servers_that_take_a_close_first_or_send_name_by_name() {
    let file = || attributes(1, FILE, 7);
    let reads = AtomicU64::new(0);
    let closed_first = move |asked: &Asked| match (asked.kind, asked.times) {
        (READDIR, _) if reads.fetch_add(1, Ordering::SeqCst) < 2 => Some(vec![status(asked.id, 4, "no such handle")]),
        (READDIR, 0) => Some(vec![names(asked.id, &[("a", file()), ("b", file())])]),
        _ => None,
    };
    let by_name = move |asked: &Asked| match (asked.kind, asked.times) {
        (READDIR, times @ 0..5) => Some(vec![names(asked.id, &[(format!("f{times}"), file())])]),
        _ => None,
    };
    let start = |script: Box<Script>| {
        let dials = Arc::default();
        let dial = dial(&dials, script);
        let first = dial(Deadline::after(SOON)).expect("dialled");
        Remote::start(RemoteConfig::new(dial, Vec::new(), SOON), first).expect("started")
    };
    let remote = start(Box::new(closed_first));
    for dir in ["known", "next"] {
        assert_eq!(list_known(&remote, dir, Some(2)).expect("listed").len(), 2);
    }
    let remote = start(Box::new(by_name));
    assert_eq!(list_known(&remote, "known", Some(5)).expect("listed").len(), 5);
}

#[test]
fn bytes_come_as_they_are_and_only_of_the_version_asked_for() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    fs::write(home.path().join("big"), &bytes).expect("written");
    fs::write(home.path().join("empty"), b"").expect("written");
    let remote = server::start(home.path(), &[]);
    assert!(fetch(&remote, "big", 0..3_000_000).expect("read") == bytes);
    assert!(fetch(&remote, "big", 1_000_001..2_000_003).expect("read") == bytes[1_000_001..2_000_003]);
    assert_eq!(fetch(&remote, "empty", 0..0).expect("read"), b"");
    let old = remote.lstat(&path("big")).expect("there").version();
    fs::write(home.path().join("big"), b"other").expect("written");
    let (sender, receiver) = mpsc::channel();
    remote.fetch_async(path("big"), (old, true), 0..100, Class::Interactive, move |r| drop(sender.send(r)));
    let error = receiver.recv().expect("an answer").expect_err("another version");
    assert!(matches!(error.kind, ErrorKind::Changed { now } if now.size == 5), "{error}");
}

#[test]
fn content_is_stored_whole_and_checked_against_its_base() {
    with_each_habit(|home, remote, habit| {
        let file = home.join("code/a.php");
        for temp in [Some("tmp"), None] {
            let made = store(remote, "code/a.php", b"one", Base::Absent, temp).expect(habit);
            assert_eq!((made.size, fs::read(&file).expect(habit)), (3, b"one".to_vec()), "{habit}");
            let error = store(remote, "code/a.php", b"xxx", Base::Absent, temp).expect_err("it exists");
            assert!(matches!(error.kind, ErrorKind::Conflict { found: Some(_) }), "{habit}: {error}");
            let base = Base::Version(made.version());
            let now = store(remote, "code/a.php", b"two!", base, temp).expect(habit);
            assert_eq!(fs::read(&file).expect(habit), b"two!", "{habit}");
            if !habit.contains("chmod") {
                assert_eq!((now.perm, now.mtime), (0o640, 1_000_000_000), "{habit}");
            }
            fs::write(&file, b"by a teammate").expect("written");
            let error = store(remote, "code/a.php", b"mine", Base::Version(now.version()), temp).expect_err("changed");
            assert!(matches!(error.kind, ErrorKind::Conflict { found: Some(v) } if v.size == 13), "{habit}: {error}");
            assert_eq!(fs::read(&file).expect(habit), b"by a teammate", "{habit}");
            match store(remote, "code/a.php", b"", Base::Any, temp) {
                Ok(attr) => assert_eq!((attr.size, fs::read(&file).expect(habit)), (0, Vec::new()), "{habit}"),
                // Without FSETSTAT nothing can be cut off in place: an error, not a file with an old tail.
                Err(error) => assert!(habit.contains("chmod") && temp.is_none(), "{habit}: {error}"),
            }
            fs::remove_file(&file).expect("removed");
            let error = store(remote, "code/a.php", b"mine", Base::Version(now.version()), temp).expect_err("gone");
            assert!(matches!(error.kind, ErrorKind::Conflict { found: None }), "{habit}: {error}");
        }
    });
}

#[test]
fn large_content_is_stored_whole() {
    with_each_habit(|home, remote, habit| {
        let bytes: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
        store(remote, "code/big", &bytes, Base::Absent, Some("tmp")).expect(habit);
        assert!(fs::read(home.join("code/big")).expect(habit) == bytes, "{habit}");
    });
}

#[test]
fn things_move_on_servers_that_rename_and_on_servers_that_do_not() {
    with_each_habit(|home, remote, habit| {
        let code = home.join("code");
        let rename =
            |from: &str, to: &str, replace| remote.rename(&permit(), &path(from), &path(to), replace, None, &|_| {});
        fs::write(code.join("a"), b"a").expect("written");
        fs::write(code.join("b"), b"old").expect("written");
        fs::set_permissions(code.join("a"), fs::Permissions::from_mode(0o755)).expect("set");
        rename("code/a", "code/c", false).expect(habit);
        assert_eq!((fs::read(code.join("c")).expect(habit), code.join("a").exists()), (b"a".to_vec(), false));
        assert_eq!(fs::metadata(code.join("c")).expect(habit).mode() & 0o777, 0o755, "{habit}");
        let error = rename("code/c", "code/b", false).expect_err("the target exists");
        assert!(matches!(error.kind, ErrorKind::Exists), "{habit}: {error}");
        rename("code/c", "code/b", true).expect(habit);
        assert_eq!((fs::read(code.join("b")).expect(habit), code.join("c").exists()), (b"a".to_vec(), false));
        fs::create_dir_all(code.join("dir/deep/er")).expect("made");
        fs::write(code.join("dir/deep/file"), vec![7; 100_000]).expect("written");
        std::os::unix::fs::symlink("deep/file", code.join("dir/link")).expect("linked");
        let time = |dir: &str| fs::metadata(code.join(dir)).expect(habit).mtime();
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(code.join("dir/deep")).and_then(|dir| dir.set_modified(then)).expect("a time");
        rename("code/dir", "code/moved", false).expect(habit);
        assert_eq!(time("moved/deep"), 1_000_000_000, "{habit}");
        assert!(!code.join("dir").exists(), "{habit}");
        assert_eq!(fs::read(code.join("moved/link")).expect(habit), vec![7; 100_000], "{habit}");
        assert!(code.join("moved/deep/er").is_dir(), "{habit}");
        assert!(matches!(rename("code/none", "code/x", true).expect_err("missing").kind, ErrorKind::NotFound));
        let names: Vec<_> = fs::read_dir(&code).expect("there").map(|e| e.expect("read").file_name()).collect();
        assert_eq!(names.len(), 2, "{habit}: nothing is left behind: {names:?}");
    });
}

#[test]
fn making_and_removing_names_works_or_says_why_not() {
    with_each_habit(|home, remote, habit| {
        let p = permit();
        assert!(remote.mkdir(&p, &path("code/d"), 0o755).expect(habit).is_dir());
        assert!(matches!(remote.mkdir(&p, &path("code/d"), 0o755).expect_err("exists").kind, ErrorKind::Exists));
        remote.symlink(&p, &path("code/d/l"), b"../x y").expect(habit);
        assert_eq!(remote.readlink(&path("code/d/l")).expect(habit), b"../x y");
        assert!(matches!(remote.rmdir(&p, &path("code/d")).expect_err("not empty").kind, ErrorKind::NotEmpty));
        assert!(matches!(
            remote.unlink(&p, &path("code/d"), None).expect_err("a directory").kind,
            ErrorKind::IsADirectory
        ));
        remote.unlink(&p, &path("code/d/l"), None).expect(habit);
        remote.rmdir(&p, &path("code/d")).expect(habit);
        assert!(matches!(remote.unlink(&p, &path("code/d"), None).expect_err("gone").kind, ErrorKind::NotFound));
        fs::write(home.join("code/f"), b"x").expect("written");
        let change = SetAttr { perm: Some(0o600), times: Some((5, 6)), link: false };
        let set = remote.set_attr(&p, &path("code/f"), change);
        if habit.contains("chmod") {
            assert!(matches!(set.expect_err("refused").kind, ErrorKind::PermissionDenied), "{habit}");
            let times = SetAttr { perm: None, ..change };
            remote.set_attr(&p, &path("code/f"), times).expect("refused times are no error");
        } else {
            let attr = set.expect(habit);
            assert_eq!((attr.perm, attr.mtime, attr.atime), (0o600, 6, 5), "{habit}");
        }
        assert!(remote.statvfs().expect(habit).is_some_and(|s| s.blocks > 0), "{habit}");
    });
}

#[test]
fn a_permit_of_before_the_switch_changes_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let remote = server::start(home.path(), &[]);
    let gate = Gate::new();
    let permit = gate.admit(Area::Code).expect("open");
    gate.set(Area::Code, Verdict::Closed(ReadOnlyReason::GitMode));
    let how = Store {
        base: Base::Absent,
        base_sum: None,
        unchanged: Vec::new(),
        perm: None,
        made_with: None,
        own_perm: false,
        mtime: None,
        temp_dir: None,
    };
    let error = remote.store(&permit, &path("x"), &content(b"x"), 1, &how, &|_| {}).expect_err("closed");
    assert!(matches!(error.kind, ErrorKind::Refused(_)), "{error}");
    assert!(remote.mkdir(&permit, &path("d"), 0o755).is_err());
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0);
}

#[test]
fn a_server_that_dies_is_started_again_and_the_call_repeated() {
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::write(home.path().join("f"), b"content").expect("written");
    let remote = server::start(home.path(), &[]);
    for round in 0..3 {
        assert!(kill_servers(home.path()), "round {round}: there is a server to kill");
        assert_eq!(fetch(&remote, "f", 0..7).expect("read on the next connection"), b"content");
        assert_eq!(list(&remote, "").expect("listed").len(), 1);
    }
}

/// Kills the servers whose login directory is `home`: it is one of their arguments. (The links in `/proc` of a process that
/// forbids core dumps, as sftp-server does, are for root only.)
fn kill_servers(home: &Path) -> bool {
    let is_server_of = |line: &[u8]| {
        let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
        words[0].ends_with(b"sftp-server") && words.contains(&home.as_os_str().as_bytes())
    };
    let is_ours = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_server_of(&line));
    let pids: Vec<String> = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && is_ours(name))
        .collect();
    for pid in &pids {
        let done = std::process::Command::new("kill").args(["-9", pid]).status().expect("kill runs");
        assert!(done.success());
    }
    !pids.is_empty()
}

/// A session with a server whose requests are counted.
fn watched(home: &Path, args: &[&str]) -> (Remote, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let mut words: Vec<std::path::PathBuf> = args.iter().map(Into::into).collect();
    words.extend(["-d".into(), home.to_owned()]);
    let counting = plan.clone();
    let dial = move |_: Deadline| -> Result<Box<dyn Transport>, TransportError> {
        let program = server::sftp_server().expect("OpenSSH's sftp-server");
        let args: Vec<&std::ffi::OsStr> = words.iter().map(|word| word.as_os_str()).collect();
        Ok(Box::new(Meddler::new(transport::exec(program, &args)?, counting.clone())))
    };
    let first = dial(Deadline::after(SOON)).expect("sftp-server starts");
    let remote = Remote::start(RemoteConfig::new(Box::new(dial), Vec::new(), SOON), first).expect("a session");
    plan.on_request(|_, _| Fate::Pass);
    (remote, plan)
}

/// A move of thousands of files takes minutes where the server cannot rename. Whoever waits for it is told that it goes on, in
/// the end, too, when the source is removed.
#[test]
fn a_move_by_copy_tells_of_each_step() {
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(home.path().join("from/sub")).expect("made");
    for n in 0..30 {
        fs::write(home.path().join(format!("from/{n}")), "").expect("written");
        fs::write(home.path().join(format!("from/sub/{n}")), "content").expect("written");
    }
    let (remote, plan) = watched(home.path(), &["-P", "posix-rename,rename"]);
    let (last, longest) = (AtomicU64::new(0), AtomicU64::new(0));
    let step = || {
        let now = plan.requests.load(Ordering::Relaxed);
        longest.fetch_max(now - last.swap(now, Ordering::Relaxed), Ordering::Relaxed);
    };
    remote.rename(&permit(), &path("from"), &path("to"), false, None, &|_| step()).expect("moved");
    step();
    let (all, longest) = (plan.requests.load(Ordering::Relaxed), longest.into_inner());
    assert!(all > 600 && longest < 25, "{longest} of {all} requests without a sign");
}

/// A burst of listings, more than are under way at a time. What a listing still asks when its end is known comes before its
/// CLOSE, whatever else waits: the server gives the handle to another directory, whose names would be taken.
#[test]
fn nothing_is_asked_with_a_handle_that_is_closed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    // Of several pages, so that a listing asks for some behind the last.
    const DIRS: usize = 60;
    const NAMES: usize = 150;
    for n in 0..DIRS {
        let dir = home.path().join(format!("d{n}"));
        fs::create_dir(&dir).expect("made");
        (0..NAMES).for_each(|file| fs::write(dir.join(format!("f{file}")), "").expect("written"));
    }
    let (remote, seen) = watched(home.path(), &[]);
    // As over a long link: what was asked last is answered much later.
    seen.on_reply(|_, packet| {
        std::thread::sleep(Duration::from_micros(100));
        vec![packet]
    });
    let (sender, listed) = mpsc::channel();
    for n in 0..5 * DIRS {
        let sender = sender.clone();
        let done = move |result: RemoteResult<Vec<(Name, Attr)>>| drop(sender.send(result));
        remote.list_async(path(&format!("d{}", n % DIRS)), Class::Bulk, None, done);
    }
    drop(sender);
    for (n, result) in listed.into_iter().enumerate() {
        assert_eq!(result.expect("listed").len(), NAMES);
        // What callers wait for is sent before the rest.
        for _ in 0..if n % 8 == 0 { 100 } else { 0 } {
            remote.list_async(path("d0/none"), Class::Interactive, None, |_| {});
        }
    }
    assert_eq!(seen.misused.load(Ordering::Relaxed), 0);
}
