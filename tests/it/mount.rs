//! The operations of a filesystem, through the kernel: the same bodies against the simulator and a real OpenSSH server.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use pantheonfs::sim::SimConfig;
use rustix::fs::{Access, AtFlags, CWD, FallocateFlags, Mode, RenameFlags};

use crate::common::mounted::Mounted;
use crate::common::{eventually, has_program};

/// The body on each server.
fn on_each(body: impl Fn(&Mounted)) {
    on_each_with("", body);
}

fn on_each_with(options: &str, body: impl Fn(&Mounted)) {
    if let Some(mounted) = Mounted::sim_with(&SimConfig::default(), "dev", options) {
        body(&mounted);
    }
    if let Some(mounted) = Mounted::openssh(options) {
        body(&mounted);
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

#[test]
fn with_sync_what_is_written_is_on_the_server_when_close_returns() {
    on_each_with("sync", |m| {
        fs::create_dir(m.path("made")).expect("made");
        assert!(m.there("made").is_dir());
        fs::rename(m.path("made"), m.path("moved")).expect("moved");
        assert!(m.there("moved").is_dir());
        fs::write(m.path("moved/gone"), "x").expect("created");
        fs::remove_file(m.path("moved/gone")).expect("removed");
        assert!(!m.there("moved/gone").exists());
        fs::write(m.path("a.txt"), "one\n").expect("created");
        assert_eq!(fs::read(m.there("a.txt")).expect("there"), b"one\n");
        let mut file = OpenOptions::new().append(true).open(m.path("a.txt")).expect("opened");
        file.write_all(b"two\n").expect("appended");
        drop(file);
        assert_eq!(fs::read(m.there("a.txt")).expect("there"), b"one\ntwo\n");
        assert_eq!(fs::read(m.path("a.txt")).expect("read"), b"one\ntwo\n");
        let file = OpenOptions::new().read(true).write(true).open(m.path("a.txt")).expect("opened");
        file.write_all_at(b"THREE", 5).expect("written");
        let mut back = [0; 10];
        file.read_exact_at(&mut back, 0).expect("read back before close");
        assert_eq!(&back, b"one\ntTHREE");
        file.sync_all().expect("synced");
        assert_eq!(fs::read(m.there("a.txt")).expect("there"), b"one\ntTHREE");
    });
}

#[test]
fn a_truncation_does_not_reach_the_server_ahead_of_the_bytes() {
    on_each(|m| {
        fs::write(m.path("live.php"), "old content").expect("created");
        let mut file = OpenOptions::new().write(true).truncate(true).open(m.path("live.php")).expect("opened");
        assert_eq!(fs::metadata(m.path("live.php")).expect("stat").len(), 0);
        file.write_all(b"new").expect("written");
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"old content", "not before close");
        drop(file);
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"new");
        let file = OpenOptions::new().write(true).open(m.path("live.php")).expect("opened");
        file.set_len(1).expect("cut");
        drop(file);
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"n");
        let path = CString::new(m.path("live.php").as_os_str().as_bytes()).expect("no zero");
        let grown = rustix::fs::open(path.as_c_str(), rustix::fs::OFlags::WRONLY, Mode::empty());
        rustix::fs::ftruncate(grown.expect("opened"), 5).expect("grown");
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"n\0\0\0\0");
    });
}

/// A child inherits the descriptors of its parent and closes them before it runs its program.
#[test]
fn a_program_that_starts_another_while_it_saves_sends_no_half_file() {
    on_each(|m| {
        fs::write(m.path("live.php"), "old content").expect("created");
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"old content");
        let mut file = OpenOptions::new().write(true).truncate(true).open(m.path("live.php")).expect("opened");
        file.write_all(b"half").expect("written");
        assert!(Command::new("true").status().expect("run").success());
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"old content");
        file.write_all(b" and half").expect("written");
        drop(file);
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"half and half");
        // A child that writes through what it inherited, while its parent waits.
        let script = r#"{ printf one; sh -c 'printf two'; } > "$1""#;
        assert!(Command::new("sh").args(["-c", script, "sh"]).arg(m.path("live.php")).status().expect("run").success());
        assert_eq!(fs::read(m.on_server("live.php")).expect("there"), b"onetwo");
    });
}

#[test]
fn directories_are_made_listed_and_removed() {
    on_each(|m| {
        fs::create_dir_all(m.path("a/b/c/d/e/f/g/h")).expect("made");
        assert!(m.on_server("a/b/c/d/e/f/g/h").is_dir());
        for n in 0..300 {
            fs::write(m.path(&format!("a/f{n}")), n.to_string()).expect("written");
        }
        assert_eq!(fs::read_dir(m.path("a")).expect("listed").count(), 301);
        let error = fs::remove_dir(m.path("a/b")).expect_err("not empty");
        assert_eq!(errno(&error), libc::ENOTEMPTY);
        let error = fs::create_dir(m.path("a/b")).expect_err("exists");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let error = fs::read(m.path("a/none/x")).expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = fs::read_dir(m.path("a/f1")).expect_err("a file");
        assert_eq!(errno(&error), libc::ENOTDIR);
        fs::remove_dir_all(m.path("a")).expect("removed");
        assert!(!m.on_server("a").exists());
        assert!(!m.path("a").exists());
    });
}

#[test]
fn rename_replaces_moves_directories_and_keeps_numbers() {
    on_each(|m| {
        fs::create_dir_all(m.path("d/sub")).expect("made");
        fs::write(m.path("d/sub/x"), "x").expect("written");
        fs::write(m.path("old"), "old").expect("written");
        fs::write(m.path("new"), "new").expect("written");
        let ino = fs::metadata(m.path("new")).expect("stat").ino();
        fs::rename(m.path("new"), m.path("old")).expect("replaced");
        assert_eq!(fs::read(m.on_server("old")).expect("there"), b"new");
        assert_eq!(fs::metadata(m.path("old")).expect("stat").ino(), ino);
        assert!(!m.path("new").exists() && !m.on_server("new").exists());
        fs::rename(m.path("d"), m.path("e")).expect("moved");
        assert_eq!(fs::read(m.path("e/sub/x")).expect("read below the moved directory"), b"x");
        assert!(m.on_server("e/sub/x").exists() && !m.on_server("d").exists());
        let error = rustix::fs::renameat_with(CWD, m.path("e/sub/x"), CWD, m.path("old"), RenameFlags::NOREPLACE);
        assert_eq!(error.expect_err("exists"), rustix::io::Errno::EXIST);
        rustix::fs::renameat_with(CWD, m.path("e/sub/x"), CWD, m.path("free"), RenameFlags::NOREPLACE).expect("moved");
        assert_eq!(fs::read(m.on_server("free")).expect("there"), b"x");
        fs::create_dir(m.path("empty")).expect("made");
        fs::rename(m.path("e"), m.path("empty")).expect("an empty directory is replaced");
        assert!(m.on_server("empty/sub").is_dir());
        assert_eq!(errno(&fs::rename(m.path("free"), m.path("empty")).expect_err("a directory")), libc::EISDIR);
        assert_eq!(errno(&fs::rename(m.path("empty"), m.path("free")).expect_err("a file")), libc::ENOTDIR);
    });
}

#[test]
fn open_files_survive_unlink_and_rename() {
    on_each(|m| {
        fs::write(m.path("f"), "content").expect("written");
        let mut reader = File::open(m.path("f")).expect("opened");
        fs::remove_file(m.path("f")).expect("removed");
        assert!(!m.on_server("f").exists());
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("still readable");
        assert_eq!(text, "content");
        let mut writer = File::create(m.path("g")).expect("created");
        writer.write_all(b"before ").expect("written");
        fs::rename(m.path("g"), m.path("h")).expect("moved while open");
        writer.write_all(b"after").expect("written");
        drop(writer);
        assert_eq!(fs::read(m.on_server("h")).expect("there"), b"before after");
        assert!(!m.on_server("g").exists());
        // The way editors save: a new file over an open one.
        let reader = File::open(m.path("h")).expect("opened");
        fs::write(m.path("h.tmp"), "saved").expect("written");
        fs::rename(m.path("h.tmp"), m.path("h")).expect("replaced");
        assert_eq!(io::read_to_string(reader).expect("the old content"), "before after");
        assert_eq!(fs::read(m.path("h")).expect("the new content"), b"saved");
        let gone = File::create(m.path("never")).expect("created");
        fs::remove_file(m.path("never")).expect("removed");
        (&gone).write_all(b"x").expect("written to nowhere");
        drop(gone);
        assert!(!m.on_server("never").exists());
    });
}

#[test]
fn links_lead_inside_only() {
    on_each_with("fresh=1", |m| {
        fs::create_dir(m.path("d")).expect("made");
        fs::write(m.path("d/target"), "t").expect("written");
        symlink("d/target", m.path("link")).expect("linked");
        symlink("../d/target", m.path("d/back")).expect("linked");
        assert_eq!(fs::read_link(m.path("link")).expect("read"), OsStr::new("d/target"));
        assert_eq!(fs::read(m.path("d/back")).expect("followed"), b"t");
        assert_eq!(fs::read_link(m.on_server("link")).expect("there"), OsStr::new("d/target"));
        symlink("/etc/passwd", m.on_server("planted")).expect("planted by another writer on the server");
        eventually("the planted link is seen", || m.path("planted").symlink_metadata().is_ok());
        assert_eq!(fs::read(m.path("planted")).expect("followed"), b"/etc/passwd", "a file with the text");
    });
}

#[test]
fn attributes_are_set_and_shown() {
    on_each(|m| {
        fs::write(m.path("f"), "x").expect("written");
        fs::set_permissions(m.path("f"), fs::Permissions::from_mode(0o750)).expect("chmod");
        assert_eq!(fs::metadata(m.path("f")).expect("stat").mode() & 0o7777, 0o750);
        assert_eq!(fs::metadata(m.on_server("f")).expect("stat").mode() & 0o7777, 0o750);
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 1_100_000_000, tv_nsec: 0 },
        };
        rustix::fs::utimensat(CWD, m.path("f"), &times, AtFlags::empty()).expect("utimens");
        assert_eq!(fs::metadata(m.path("f")).expect("stat").mtime(), 1_100_000_000);
        assert_eq!(fs::metadata(m.on_server("f")).expect("stat").mtime(), 1_100_000_000);
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let meta = fs::metadata(m.path("f")).expect("stat");
        assert_eq!((meta.uid(), meta.gid()), me);
        // A chown that a save tries must not fail it.
        std::os::unix::fs::chown(m.path("f"), Some(me.0), Some(me.1)).expect("chown to oneself");
        rustix::fs::access(m.path("f"), Access::WRITE_OK).expect("writable");
        let space = rustix::fs::statvfs(m.path("f")).expect("statfs");
        assert!(space.f_blocks > 0 && space.f_namemax == 255);
    });
}

#[test]
fn numbers_are_stable_and_unique() {
    on_each(|m| {
        fs::create_dir(m.path("d")).expect("made");
        for n in 0..50 {
            fs::write(m.path(&format!("d/{n}")), "").expect("written");
        }
        let numbers = || -> Vec<u64> {
            let mut names: Vec<_> =
                fs::read_dir(m.path("d")).expect("listed").map(|e| e.expect("entry").path()).collect();
            names.sort();
            names.iter().map(|path| fs::metadata(path).expect("stat").ino()).collect()
        };
        let first = numbers();
        assert_eq!(first, numbers());
        let mut unique = first.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 50);
    });
}

#[test]
fn odd_names_are_names() {
    let long = "x".repeat(255);
    let names = [
        "with space",
        "-dash",
        "ü ñ 漢字 🎉",
        "quote'\"",
        "back\\slash",
        "new\nline",
        "*?[x]",
        long.as_str(),
        ".hidden",
    ];
    on_each(|m| {
        for name in names {
            fs::write(m.path(name), name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
            assert_eq!(fs::read(m.on_server(name)).expect("there"), name.as_bytes(), "{name:?}");
            fs::rename(m.path(name), m.path("moved")).expect("moved");
            fs::rename(m.path("moved"), m.path(name)).expect("moved back");
        }
        let listed: Vec<_> = fs::read_dir(m.dir()).expect("listed").map(|e| e.expect("entry").file_name()).collect();
        assert!(names.iter().all(|name| listed.iter().any(|l| l == name)), "{listed:?}");
        let error = fs::write(m.path(&"y".repeat(256)), "").expect_err("too long");
        assert_eq!(errno(&error), libc::ENAMETOOLONG);
    });
    // The simulator's library speaks UTF-8 only; a real server takes any bytes.
    if let Some(m) = Mounted::openssh("") {
        let name = OsStr::from_bytes(b"caf\xe9 \xff");
        fs::write(m.dir().join(name), "latin").expect("written");
        m.barrier().expect("sent");
        assert_eq!(fs::read(m.server.join(name)).expect("there"), b"latin");
        assert!(fs::read_dir(m.dir()).expect("listed").any(|e| e.expect("entry").file_name() == name));
    }
}

#[test]
fn shared_mappings_reach_the_server() {
    on_each(|m| {
        fs::write(m.path("mapped"), vec![b'.'; 10_000]).expect("written");
        let file = OpenOptions::new().read(true).write(true).open(m.path("mapped")).expect("opened");
        let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nassert m[:2]==b'..'\n\
                      m[5000:5005]=b'HELLO'\nm.flush()\nm.close()\nf.close()\n";
        drop(file);
        if !has_program("python3") {
            return;
        }
        let done = std::process::Command::new("python3").args(["-c", script]).arg(m.path("mapped")).status();
        assert!(done.expect("python runs").success());
        eventually("the mapped pages are on the server", || {
            fs::read(m.on_server("mapped")).is_ok_and(|bytes| bytes.len() == 10_000 && &bytes[5000..5005] == b"HELLO")
        });
    });
}

#[test]
fn space_is_reserved_and_zeroed() {
    on_each(|m| {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(m.path("f")).expect("created");
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1000).expect("reserved");
        file.write_all_at(&[7; 1000], 0).expect("written");
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 10, 20).expect("punched");
        drop(file);
        let bytes = fs::read(m.on_server("f")).expect("there");
        assert_eq!((bytes.len(), bytes[9], bytes[10], bytes[29], bytes[30]), (1000, 7, 0, 0, 7));
    });
}

#[test]
fn what_sftp_cannot_do_is_an_error() {
    on_each(|m| {
        fs::write(m.path("f"), "").expect("written");
        assert_eq!(errno(&fs::hard_link(m.path("f"), m.path("hard")).expect_err("no hard links")), libc::EPERM);
        let device = rustix::fs::mknodat(CWD, m.path("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0);
        assert_eq!(device.expect_err("no device nodes"), rustix::io::Errno::PERM);
        let file = OpenOptions::new().custom_flags(libc::O_EXCL).create_new(true).write(true).open(m.path("f"));
        assert_eq!(file.expect_err("exists").kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn offsets_beyond_two_and_four_gigabytes_are_read_correctly() {
    let Some(m) = Mounted::openssh("") else { return };
    let size = 5 * 1024 * 1024 * 1024_u64;
    let file = File::create(m.on_server("big")).expect("created");
    file.set_len(size).expect("sparse");
    for at in [2 * 1024 * 1024 * 1024_u64 + 5, 4 * 1024 * 1024 * 1024 + 7, size - 3] {
        file.write_all_at(b"end", at).expect("written");
    }
    drop(file);
    let mut mounted = File::open(m.path("big")).expect("opened");
    assert_eq!(mounted.metadata().expect("stat").len(), size);
    for at in [2 * 1024 * 1024 * 1024_u64 + 5, 4 * 1024 * 1024 * 1024 + 7, size - 3] {
        let mut bytes = [0; 3];
        mounted.seek(SeekFrom::Start(at)).expect("sought");
        mounted.read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"end", "at {at}");
    }
}

#[test]
fn a_file_that_another_writer_changed_is_not_overwritten() {
    for options in ["", "sync"] {
        on_each_with(options, |m| conflict(m, options));
    }
}

fn conflict(m: &Mounted, options: &str) {
    {
        fs::write(m.path("page.php"), "base").expect("written");
        m.barrier().expect("sent");
        let mut editor = OpenOptions::new().write(true).truncate(true).open(m.path("page.php")).expect("opened");
        editor.write_all(b"mine").expect("written");
        fs::write(m.there("page.php"), "by a teammate").expect("changed behind our back");
        let saved = editor.sync_all();
        if options == "sync" {
            assert_eq!(errno(&saved.expect_err("a conflict")), libc::ESTALE);
        } else {
            saved.expect("saved here");
        }
        drop(editor);
        assert_eq!(fs::read(m.on_server("page.php")).expect("there"), b"by a teammate");
        let status = m.status();
        assert_eq!(status["conflicts"].as_array().map(Vec::len), Some(1), "{status}");
        let kept = status["conflicts"][0].as_str().expect("a path").to_owned();
        assert_eq!(fs::read(m.path(&format!(".pantheon/conflicts/{kept}"))).expect("kept"), b"mine");
        eventually("the teammate's version is shown", || {
            fs::read(m.path("page.php")).is_ok_and(|bytes| bytes == b"by a teammate")
        });
    }
}

#[test]
fn a_reader_never_sees_two_versions_in_one_file() {
    let Some(m) = Mounted::openssh("fresh=0,cache=1M") else { return };
    let version = |c: u8| vec![c; 3_000_000];
    fs::write(m.on_server("f"), version(b'a')).expect("written");
    let mut reader = File::open(m.path("f")).expect("opened");
    let mut first = vec![0; 100_000];
    reader.read_exact(&mut first).expect("read");
    fs::write(m.on_server("f"), vec![b'b'; 2_900_000]).expect("changed");
    let mut rest = Vec::new();
    match reader.read_to_end(&mut rest) {
        Err(error) => assert_eq!(errno(&error), libc::ESTALE),
        Ok(_) => assert!(rest.iter().all(|byte| *byte == b'a'), "all of the old one, from memory"),
    }
}

#[test]
fn a_directorys_time_follows_its_names() {
    let Some(m) = Mounted::sim() else { return };
    let time = || fs::metadata(m.path("wp-content")).expect("there").modified().expect("known");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
    let age = fs::FileTimes::new().set_modified(old);
    for work in ["create", "rename", "remove"] {
        fs::File::open(m.there("wp-content")).and_then(|dir| dir.set_times(age)).expect("aged");
        let before = time();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        match work {
            "create" => fs::write(m.path("wp-content/new.php"), "x").expect("made"),
            "rename" => fs::rename(m.path("wp-content/new.php"), m.path("wp-content/newer.php")).expect("moved"),
            _ => fs::remove_file(m.path("wp-content/newer.php")).expect("removed"),
        }
        assert!(time() > before, "{work}");
    }
}

#[test]
fn the_first_df_is_the_servers() {
    let Some(m) = Mounted::openssh("") else { return };
    let shown = rustix::fs::statvfs(m.dir()).expect("df");
    let there = rustix::fs::statvfs(m.there("")).expect("df");
    assert_eq!((shown.f_blocks, shown.f_frsize), (there.f_blocks, there.f_frsize));
}

#[test]
fn no_link_leads_to_a_removed_file_that_is_open() {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let Some(m) = Mounted::openssh("") else { return };
    let links = |file: &fs::File| {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        statx(file, "", flags, StatxFlags::NLINK).expect("stat").stx_nlink
    };
    fs::write(m.path("f"), "x").expect("written");
    let file = fs::File::open(m.path("f")).expect("opened");
    assert_eq!(links(&file), 1);
    fs::remove_file(m.path("f")).expect("removed");
    assert_eq!(links(&file), 0);
}

#[test]
fn a_log_that_only_grew_is_followed() {
    let Some(m) = Mounted::openssh("fresh=1") else { return };
    fs::write(m.there("app.log"), "line 0\n").expect("written");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mut file = File::open(m.path("app.log")).expect("opened");
    let mut seen = String::new();
    file.read_to_string(&mut seen).expect("read");
    for at in 1..4 {
        let mut log = OpenOptions::new().append(true).open(m.there("app.log")).expect("opened");
        writeln!(log, "line {at}").expect("written");
        eventually("the new line is read", || {
            // As tail(1) does: the size first, then what is new.
            file.metadata().expect("stat");
            file.read_to_string(&mut seen).expect("no ESTALE");
            seen.ends_with(&format!("line {at}\n"))
        });
    }
    assert_eq!(seen, "line 0\nline 1\nline 2\nline 3\n");
    // Longer, and not what it was: bytes of both are never mixed.
    fs::write(m.there("app.log"), "other content that is longer than all of the lines\n").expect("written");
    let mut error = None;
    eventually("the reader is told", || {
        file.metadata().expect("stat");
        error = file.read_to_string(&mut seen).err();
        error.is_some()
    });
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::ESTALE));
}

/// The new content has the same size, and another program reads all of it before the first one goes on.
#[test]
fn a_reader_of_a_replaced_file_gets_no_byte_of_the_new_one() {
    let Some(m) = Mounted::openssh("fresh=1") else { return };
    fs::write(m.there("f"), vec![b'1'; 400_000]).expect("written");
    let mut first = File::open(m.path("f")).expect("opened");
    let mut some = [0; 650];
    first.read_exact(&mut some).expect("read");
    let next = m.there("next");
    fs::write(&next, vec![b'2'; 400_000]).expect("written");
    let later = SystemTime::now() + Duration::from_secs(60);
    File::options().write(true).open(&next).and_then(|file| file.set_modified(later)).expect("set");
    fs::rename(next, m.there("f")).expect("replaced");
    let seen = || fs::metadata(m.path("f")).and_then(|meta| meta.modified()).expect("there");
    eventually("it is noticed", || seen() > SystemTime::now());
    assert!(fs::read(m.path("f")).expect("read") == vec![b'2'; 400_000], "another program reads the new one");
    let mut rest = Vec::new();
    let ended = first.read_to_end(&mut rest);
    assert!(rest.iter().all(|byte| *byte == b'1'), "bytes of both");
    if let Err(error) = ended {
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    }
    drop(first);
    assert!(fs::read(m.path("f")).expect("read") == vec![b'2'; 400_000]);
}

#[test]
fn a_directory_that_cannot_be_listed_can_be_entered() {
    let server = crate::common::server::sftp_server().map(|path| path.display().to_string()).unwrap_or_default();
    if !crate::common::needs_root("a server that runs as another user") || !has_program("setpriv") {
        return;
    }
    let nobody = format!("Subsystem sftp /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups {server}");
    let Some(m) = Mounted::openssh_with(&[&nobody], "fresh=1") else { return };
    fs::create_dir_all(m.there("home/site")).expect("made");
    fs::write(m.there("home/site/index.php"), "hello").expect("written");
    fs::set_permissions(m.there("home/site"), fs::Permissions::from_mode(0o777)).expect("set");
    fs::set_permissions(m.there("home"), fs::Permissions::from_mode(0o711)).expect("set");
    eventually("it is there", || m.path("home/site/index.php").exists());
    assert_eq!(fs::read_to_string(m.path("home/site/index.php")).expect("read"), "hello");
    assert_eq!(fs::read_dir(m.path("home")).err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
    assert_eq!(fs::metadata(m.path("home/none")).err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    fs::write(m.path("home/site/new"), "x").expect("written");
    assert_eq!(fs::read_to_string(m.on_server("home/site/new")).expect("there"), "x");
    fs::rename(m.there("home/site"), m.there("home/moved")).expect("moved");
    eventually("it is gone here, too", || !m.path("home/site").exists());
    assert!(m.path("home/moved/index.php").exists());
}

/// Another mount namespace (a container, a service) got a copy of the mount. The kernel does not tell the driver of the unmount
/// as long as that copy exists.
#[test]
fn a_mount_that_another_namespace_holds_ends_and_can_be_made_again() {
    if !crate::common::needs_root("a mount namespace") {
        return;
    }
    let Some(m) = Mounted::openssh("") else { return };
    fs::write(m.path("a"), "saved").expect("saved");
    let script = "echo ready; exec sleep 60";
    let mut command = std::process::Command::new("unshare");
    let child =
        command.args(["-m", "--propagation", "private", "sh", "-c", script]).stdout(std::process::Stdio::piped());
    let mut holder = child.spawn().expect("a namespace");
    let mut ready = [0; 6];
    std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut ready).expect("it runs");
    m.umount().ok();
    let sshd = m.sshd.as_ref().expect("a server");
    m.mount(&sshd.url(&sshd.tree()), &sshd.options()).ok();
    assert_eq!(fs::read(m.path("a")).expect("there"), b"saved");
    holder.kill().and_then(|()| holder.wait()).expect("ended");
}

/// The platform keeps uploads as objects with names of at most 1,024 bytes.
#[test]
fn an_upload_whose_path_is_too_long_for_the_platform_is_refused() {
    let Some(m) = Mounted::sim() else { return };
    let part = "x".repeat(250);
    let deep = format!("{part}/{part}/{part}/{part}");
    let uploads = m.path(".pantheon/files");
    fs::create_dir_all(uploads.join(&deep)).expect("1,009 bytes with the name of the area");
    let long = fs::write(uploads.join(&deep).join("a-name-of-25-bytes-or-so"), "x").expect_err("too long");
    assert_eq!(errno(&long), libc::ENAMETOOLONG);
    fs::write(uploads.join(&deep).join("short"), "x").expect("it fits");
    fs::create_dir_all(m.path(&format!("{deep}/{part}"))).expect("code is no object");
    m.barrier().expect("sent");
}
