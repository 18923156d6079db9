//! A server that fails at any single request, whose disk is full for a moment, that answers out of order, or answers
//! nonsense: the work ends as if nothing had been, or is an error that says so.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use pantheonfs::fs::{FsResult, OpenMode, SetAttr};

use crate::common::eventually;
use crate::common::inner::{Inner, wait};
use crate::common::meddler::Fate;
use crate::steps::{WORK, Work, differences, furnished, look};

/// Statuses of SFTP v3.
const FAILURE: u32 = 4;

/// Cases that run at a time: most of them wait.
const SIDE_BY_SIDE: usize = 24;

/// Runs each piece of work once for each request that it takes, with that request refused.
fn refuse_each(code: u32, message: &'static str, every: usize) -> u64 {
    let refused = AtomicU64::new(0);
    let mut cases: Vec<(&[&'static str], &str, Work, u64)> = Vec::new();
    for args in [&[][..], &["-P", "posix-rename,rename"][..]] {
        for (name, work) in WORK {
            let Some(inner) = furnished(args) else { return 1000 };
            inner.faults.plan.on_request(|_, _| Fate::Pass);
            work(&inner);
            inner.barrier();
            let taken = inner.faults.plan.requests.load(Ordering::Relaxed);
            cases.extend((0..taken).map(|n| (args, name, work, n)));
        }
    }
    let cases: Vec<_> = cases.into_iter().step_by(every).collect();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((args, name, work, n)) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    refused.fetch_add(refuse_one(args, name, *work, *n, (code, message)), Ordering::Relaxed);
                }
            });
        }
    });
    refused.into_inner()
}

fn refuse_one(args: &[&'static str], name: &str, work: Work, n: u64, status: (u32, &'static str)) -> u64 {
    let wanted = {
        let whole = furnished(args).expect("there is a server");
        work(&whole);
        whole.barrier();
        look(&whole.home, "w")
    };
    let inner = furnished(args).expect("there is a server");
    inner.faults.plan.on_request(move |at, _| if at == n { Fate::Refuse(status.0, status.1) } else { Fate::Pass });
    work(&inner);
    inner.barrier();
    let (found, now) = (look(&inner.home, "w"), inner.fs.status());
    let different = differences(&found, &wanted);
    let refused = inner.faults.plan.refused.load(Ordering::Relaxed);
    assert_eq!(inner.faults.plan.misused.load(Ordering::Relaxed), 0, "{name}, {args:?}, request {n}: handles");
    assert!(
        different.is_empty() && now.local.conflicts.is_empty() && now.local.stranded.is_empty(),
        "{name}, {args:?}, request {n}: {different:?}, {:?}, {:?}, {:?}",
        now.local.conflicts,
        now.local.stranded,
        now.last_error
    );
    refused
}

#[test]
fn a_server_may_fail_at_any_single_request() {
    let refused = refuse_each(FAILURE, "Failure", 1);
    assert!(refused > 50, "{refused}");
    eprintln!("survived: {refused} requests answered with FAILURE: each request of five kinds of work once");
}

#[test]
fn the_servers_disk_may_be_full_at_any_request() {
    let refused = refuse_each(FAILURE, "No space left on device", 6);
    assert!(refused > 10, "{refused}");
    eprintln!("survived: {refused} requests answered with \"no space left\"");
}

/// Answers come in any order: each request has a number.
#[test]
fn answers_may_come_in_any_order() {
    for args in [&[][..], &["-P", "posix-rename,rename"][..]] {
        for (name, work) in WORK {
            let Some(whole) = furnished(args) else { return };
            work(&whole);
            whole.barrier();
            let wanted = look(&whole.home, "w");
            for at_a_time in [2, 5, 50] {
                let Some(inner) = furnished(args) else { return };
                inner.faults.plan.shuffle(at_a_time);
                work(&inner);
                inner.barrier();
                let found = look(&inner.home, "w");
                let different = differences(&found, &wanted);
                assert!(different.is_empty(), "{name}, {args:?}, {at_a_time} at a time: {different:?}");
                assert!(inner.fs.status().local.conflicts.is_empty());
                assert_eq!(inner.faults.plan.misused.load(Ordering::Relaxed), 0, "{name}, {args:?}: handles");
            }
        }
    }
}

/// One reply is not what it should be: an error or another try, never a panic, never wrong bytes.
#[test]
fn an_answer_may_be_nonsense() {
    type Change = fn(Vec<u8>) -> Vec<Vec<u8>>;
    let changes: [(&str, Change); 8] = [
        ("twice", |packet| vec![packet.clone(), packet]),
        ("never asked", |packet| {
            let mut other = packet.clone();
            other[5..9].copy_from_slice(&u32::MAX.to_be_bytes());
            vec![other, packet]
        }),
        ("of another kind", |mut packet| {
            packet[4] = if packet[4] == 104 { 103 } else { 104 };
            vec![packet]
        }),
        ("of no kind", |mut packet| {
            packet[4] = 250;
            vec![packet]
        }),
        ("4 GiB long", |mut packet| {
            packet[..4].copy_from_slice(&u32::MAX.to_be_bytes());
            vec![packet]
        }),
        ("cut off inside", |mut packet| {
            let half = packet.len().min(4 + 6);
            packet.truncate(half);
            packet[..4].copy_from_slice(&(half as u32 - 4).to_be_bytes());
            vec![packet]
        }),
        ("of lengths that lie", |mut packet| {
            if let Some(part) = packet.get_mut(9..13) {
                part.copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
            }
            vec![packet]
        }),
        ("empty", |_| vec![vec![0, 0, 0, 0]]),
    ];
    let mut survived = 0;
    for (what, change) in changes {
        for n in 0..24 {
            let Some(inner) = furnished(&[]) else { return };
            fs::write(inner.home.join("w/there"), b"the bytes of the server").expect("written");
            inner.fs.renew_everything();
            inner.faults.plan.on_reply(move |at, packet| if at == n { change(packet) } else { vec![packet] });
            let read = inner.read("w/there");
            check(&read, what, n);
            // The directory may have been asked for in that very moment: then the caller got the error.
            let errors: Vec<_> = (0..3).map_while(|_| inner.write("w/a", b"new content").err()).collect();
            assert!(errors.len() < 3, "{what}, reply {n}: {errors:?}");
            inner.barrier();
            assert_eq!(fs::read(inner.home.join("w/a")).expect("there"), b"new content", "{what}, reply {n}");
            survived += 1;
        }
    }
    eprintln!("survived: {survived} invalid replies: eight kinds, in place of each of the first 24 replies");
}

fn check(read: &FsResult<Vec<u8>>, what: &str, n: u64) {
    if let Ok(bytes) = read {
        assert_eq!(bytes, b"the bytes of the server", "{what}, reply {n}");
    }
}

/// The driver dies while a tree is moved on a server that cannot rename: copied, checked and removed, entry by entry.
#[test]
fn the_driver_dies_while_a_tree_is_moved_entry_by_entry() {
    let args = &["-P", "posix-rename,rename"];
    let (name, work) = WORK[3];
    for at in (0..24_u64).map(|step| 40 + step * step * 11) {
        let Some(whole) = furnished(args) else { return };
        work(&whole);
        whole.barrier();
        let wanted = look(&whole.home, "w");
        let mut inner: Inner = furnished(args).expect("there is a server");
        inner.faults.die_after(at);
        work(&inner);
        inner.crash();
        inner.barrier();
        let (found, now) = (look(&inner.home, "w"), inner.fs.status());
        let different = differences(&found, &wanted);
        assert!(
            different.is_empty() && now.local.conflicts.is_empty(),
            "{name}, died after {at}: {different:?}, {:?}, {:?}",
            now.local.conflicts,
            now.last_error
        );
    }
}

/// A server that renames, but not over something: the old file steps aside and is never left behind.
#[test]
fn a_file_moved_aside_is_removed_in_the_end() {
    let sides = |inner: &Inner| {
        inner.write("w/old", b"the old content").expect("saved");
        inner.write("w/new", b"the new content").expect("saved");
        inner.barrier();
    };
    let swap = |inner: &Inner| inner.rename("w/new", "w/old").expect("moved here");
    let mut moved = 0;
    for at in 0..60_u64 {
        let Some(mut inner) = furnished(&["-P", "posix-rename"]) else { return };
        sides(&inner);
        let (dies, after) = (at % 2 == 0, 20 + at * 9);
        if dies {
            inner.faults.die_after(after);
        } else {
            inner.faults.cut_after(after, u64::MAX);
        }
        swap(&inner);
        if dies {
            inner.crash();
        }
        inner.barrier();
        let (names, now) = (look(&inner.home, "w").into_keys().collect::<Vec<_>>(), inner.fs.status());
        let why = format!("after {after} bytes: {names:?}, {:?}, {:?}", now.local.conflicts, now.last_error);
        assert_eq!(fs::read(inner.home.join("w/old")).ok().as_deref(), Some(&b"the new content"[..]), "{why}");
        let wanted = |name: &String| !name.contains(".pantheonfs") && name != "w/new";
        assert!(names.iter().all(wanted) && now.local.conflicts.is_empty(), "{why}");
        moved += 1;
    }
    eprintln!("survived: {moved} deaths and broken links while a file was moved aside for its replacement");
}

/// What is asked for of a large file together is read by one handle, in this order.
#[test]
fn a_file_is_opened_once_for_everything_that_is_read_of_it() {
    let Some(inner) = Inner::with(&[], Duration::from_secs(3600)) else { return };
    let content: Vec<u8> = (0..4_000_000_u32).map(|n| (n / 7) as u8).collect();
    let file = fs::File::create_new(inner.home.join("large")).expect("made");
    file.write_all_at(&content, 0).expect("written");
    // A file whose content may still change under its version is opened for each read.
    old(&file);
    let opened = Arc::new(AtomicU64::new(0));
    let counted = opened.clone();
    inner.faults.plan.on_request(move |_, kind| {
        counted.fetch_add(u64::from(kind == 3), Ordering::Relaxed);
        Fate::Pass
    });
    let change = SetAttr { size: Some(3_900_000), ..SetAttr::default() };
    inner.setattr("large", change).expect("truncated here");
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    inner.barrier();
    assert!(fs::read(inner.home.join("large")).expect("there") == content[..3_900_000]);
}

fn old(file: &fs::File) {
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)).expect("set");
}

/// Files of one archive often have one time, and some one size.
#[test]
fn a_file_that_takes_the_place_of_one_like_it_is_read_as_it_is() {
    let Some(inner) = Inner::with(&[], Duration::from_secs(3600)) else { return };
    for (name, content) in [("a", "new"), ("b", "old")] {
        fs::write(inner.home.join(name), content).expect("written");
        old(&fs::File::options().write(true).open(inner.home.join(name)).expect("opened"));
    }
    assert_eq!(inner.read("b").expect("read"), b"old");
    inner.rename("a", "b").expect("moved");
    inner.barrier();
    assert_eq!(inner.read("b").expect("read"), b"new");
}

/// What is being written is kept, whatever becomes of the directory on the server.
#[test]
fn writes_into_a_removed_directory_are_kept_as_stranded() {
    for replaced in [false, true] {
        let Some(inner) = Inner::with(&[], Duration::from_secs(3600)) else { return };
        inner.mkdir("d").expect("made");
        inner.write("d/f", b"before").expect("saved");
        inner.barrier();
        let mode = OpenMode { read: true, write: true, truncate: false };
        let handle = inner.open("d/f", mode, false).expect("opened");
        inner.write_at(handle, 0, b"mine").expect("written");
        fs::remove_dir_all(inner.home.join("d")).expect("removed");
        if replaced {
            std::os::unix::fs::symlink("nowhere", inner.home.join("d")).expect("linked");
        }
        inner.look_anew();
        inner.names("").expect("listed");
        inner.close(handle).expect("closed");
        eventually("it is on the shelf", || inner.fs.status().local.conflicts.len() == 1);
    }
}

/// With the link away: what is done here in `ours`, meanwhile `theirs` happens on the server. Returns what is in `f` then, there
/// and on the shelf.
fn meanwhile(ours: impl Fn(&Inner), theirs: impl Fn(&Path)) -> Option<(Option<Vec<u8>>, usize)> {
    let inner = Inner::with(&[], Duration::from_secs(3600))?;
    let there = inner.home.join("f");
    inner.write("f", b"before").expect("saved");
    inner.barrier();
    inner.names("").expect("listed");
    inner.stall(true);
    ours(&inner);
    theirs(&there);
    inner.stall(false);
    eventually("everything was tried", || inner.fs.status().local.waiting.is_empty());
    Some((fs::read(&there).ok(), inner.fs.status().local.conflicts.len()))
}

#[test]
fn another_writers_change_is_neither_removed_nor_overwritten() {
    let theirs = |at: &Path| fs::write(at, "theirs, which is longer").expect("written");
    let chmod = |inner: &Inner| {
        let change = SetAttr { perm: Some(0o755), ..SetAttr::default() };
        inner.setattr("f", change).expect("changed here");
    };
    let pause = || thread::sleep(Duration::from_millis(400));
    // A save that was tried, then removed here.
    let Some((found, _)) = meanwhile(
        |inner| {
            inner.write("f", b"mine").expect("saved here");
            pause();
            inner.unlink("f").expect("removed here");
        },
        theirs,
    ) else {
        return;
    };
    assert_eq!(found.as_deref(), Some(&b"theirs, which is longer"[..]), "removed");
    // A chmod, then a save.
    let saved = meanwhile(
        |inner| {
            chmod(inner);
            pause();
            inner.write("f", b"mine").expect("saved here");
        },
        theirs,
    );
    assert_eq!(saved.expect("a server"), (Some(b"theirs, which is longer".to_vec()), 1), "saved");
    let removed = meanwhile(
        |inner| {
            chmod(inner);
            pause();
            inner.unlink("f").expect("removed here");
        },
        theirs,
    );
    assert_eq!(removed.expect("a server").0.as_deref(), Some(&b"theirs, which is longer"[..]), "chmod and rm");
}

/// A save that ends while a chmod waits does not undo it for the save that follows.
#[test]
fn a_chmod_between_saves_stays() {
    let Some(inner) = Inner::with(&[], Duration::from_secs(3600)) else { return };
    for n in 0..20 {
        let name = format!("f{n}");
        inner.write(&name, b"one").expect("saved");
        thread::sleep(Duration::from_millis(150 + n));
        let change = SetAttr { perm: Some(0o755), ..SetAttr::default() };
        inner.setattr(&name, change).expect("changed");
        thread::sleep(Duration::from_millis(n));
        inner.write(&name, b"two").expect("saved");
    }
    inner.barrier();
    for n in 0..20 {
        let meta = fs::metadata(inner.home.join(format!("f{n}"))).expect("there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o755, "f{n}");
    }
}

/// The file is emptied and written anew by one program while a write of another still waits for the old content.
#[test]
fn late_content_does_not_replace_a_newer_write() {
    let Some(inner) = furnished(&[]) else { return };
    fs::write(inner.home.join("w/theirs"), [b'o'; 3000]).expect("written");
    inner.look_anew();
    inner.names("w").expect("listed");
    let slow = inner.open("w/theirs", OpenMode { read: false, write: true, truncate: false }, false).expect("opened");
    inner.stall(true);
    thread::scope(|scope| {
        let fs = inner.fs.clone();
        let writing = scope.spawn(move || fs.write(slow, 0, b"X", wait()));
        thread::sleep(Duration::from_millis(300));
        let quick =
            inner.open("w/theirs", OpenMode { read: true, write: true, truncate: true }, false).expect("opened");
        inner.write_at(quick, 0, b"new").expect("written");
        inner.stall(false);
        writing.join().expect("no panic").expect("written");
        assert_eq!(inner.read_at(quick).expect("read"), b"Xew");
        inner.close(quick).expect("closed");
    });
    inner.close(slow).expect("closed");
    inner.barrier();
    assert_eq!(fs::read(inner.home.join("w/theirs")).expect("there"), b"Xew");
}

/// Its handle is free a round trip earlier, which counts where the server allows few. After a sign that this was too early, files
/// are closed when they were read.
#[test]
fn a_small_file_is_closed_right_behind_its_read() {
    const CLOSE: u8 = 4;
    const READ: u8 = 5;
    let Some(inner) = furnished(&[]) else { return };
    let answered_at_close = |path: &str, content: &[u8], refuse: bool| {
        let (answers, at_close) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let (counted, seen, reads) = (answers.clone(), at_close.clone(), AtomicU64::new(0));
        inner.faults.plan.on_reply(move |_, packet| {
            counted.fetch_add(1, Ordering::SeqCst);
            vec![packet]
        });
        let answers = answers.clone();
        inner.faults.plan.on_request(move |_, kind| {
            if kind == READ && refuse && reads.fetch_add(1, Ordering::SeqCst) == 0 {
                return Fate::Refuse(FAILURE, "Failure");
            }
            if kind == CLOSE {
                seen.fetch_min(answers.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            Fate::Pass
        });
        assert_eq!(inner.read(path).expect("read"), content);
        thread::sleep(Duration::from_millis(50));
        at_close.load(Ordering::SeqCst)
    };
    assert_eq!(answered_at_close("w/tree/x", b"x", false), 1, "that of the OPEN");
    assert!(answered_at_close("w/tree/sub/y", b"y", true) >= 1);
    inner.write("w/b", b"b").expect("saved");
    inner.barrier();
    inner.look_anew();
    fs::write(inner.home.join("w/b"), "of another").expect("written");
    inner.look_anew();
    assert!(answered_at_close("w/b", b"of another", false) > 1);
}
