//! The driver dies, or the link goes, at every single step of some pieces of work: after each record of the journal, and
//! after each few bytes that were sent or received. Whatever the step: nothing that was accepted is lost, and no file of
//! the server is torn in the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pantheonfs::fs::{OpenMode, SetAttr};

use crate::common::inner::{Inner, wait};

pub type Work = fn(&Inner);

/// What people do: a save over the old content, a save by a temporary file, unpacking, moving a tree, removing a tree.
pub const WORK: [(&str, Work); 5] = [
    ("save", |inner| {
        inner.write("w/a", &[b'n'; 5000]).expect("saved");
    }),
    ("atomic save", |inner| {
        inner.write("w/a.tmp", &[b'n'; 5000]).expect("saved");
        inner.rename("w/a.tmp", "w/a").expect("moved");
    }),
    ("unpack", |inner| {
        inner.mkdir("w/new").expect("made");
        for n in 0..6 {
            let path = format!("w/new/f{n}");
            inner.write(&path, &vec![b'0' + n; 700 * usize::from(n)]).expect("saved");
            inner.setattr(&path, SetAttr { perm: Some(0o755), ..SetAttr::default() }).expect("chmod");
        }
        inner.symlink("w/new/link", "f1").expect("linked");
    }),
    ("move a tree", |inner| {
        inner.rename("w/tree", "w/moved").expect("moved");
        inner.write("w/moved/x", b"changed after the move").expect("saved");
        inner.rename("w/moved/sub", "w/sub").expect("moved");
    }),
    ("remove a tree", |inner| {
        for path in ["w/tree/sub/y", "w/tree/x"] {
            inner.unlink(path).expect("removed");
        }
        inner.rmdir("w/tree/sub").expect("removed");
        inner.rmdir("w/tree").expect("removed");
    }),
];

pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

pub fn look(root: &Path, below: &str) -> Tree {
    let mut out = Tree::new();
    for entry in fs::read_dir(root.join(below)).expect("listed").flatten() {
        let path = format!("{below}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_symlink() {
            let text = fs::read_link(entry.path()).expect("a link");
            out.insert(path, Some(text.into_os_string().into_encoded_bytes()));
        } else if entry.path().is_dir() {
            out.insert(path.clone(), None);
            out.extend(look(root, &path));
        } else {
            out.insert(path, Some(fs::read(entry.path()).expect("readable")));
        }
    }
    out
}

/// Paths whose content is not the same.
pub fn differences<'a>(one: &'a Tree, other: &'a Tree) -> Vec<&'a String> {
    one.keys().chain(other.keys()).filter(|path| one.get(*path) != other.get(*path)).collect()
}

/// A server with something on it.
pub fn furnished(args: &[&'static str]) -> Option<Inner> {
    let inner = Inner::with(args, std::time::Duration::from_secs(3600))?;
    // Files of the site, older than this mount: their times must not change when they are moved.
    let old = SystemTime::now() - Duration::from_secs(86_400);
    let made = inner.home.join("being-made");
    fs::create_dir_all(made.join("tree/sub")).expect("made");
    for path in ["tree/x", "tree/sub/y"] {
        let mut file = fs::File::create(made.join(path)).expect("made");
        file.write_all(&path.as_bytes()[path.len() - 1..]).and_then(|()| file.set_modified(old)).expect("written");
    }
    // All at once: the mount may look at any time.
    fs::rename(made, inner.home.join("w")).expect("moved");
    inner.write("w/a", &[b'o'; 3000]).expect("saved");
    inner.barrier();
    // So that everything is known before the link goes.
    for dir in ["w", "w/tree", "w/tree/sub"] {
        inner.names(dir).expect("listed");
    }
    Some(inner)
}

/// Where each record of a journal ends.
pub fn ends(journal: &[u8]) -> Vec<usize> {
    let (mut at, mut out) = (8, vec![8]);
    while let Some(head) = journal.get(at..at + 4) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len == 0 || at + 8 + len > journal.len() {
            break;
        }
        at += 8 + len;
        out.push(at);
    }
    out
}

/// The journal is cut off after each record, and in the middle of the next one: the server ends where the work up to that
/// record leads, and nowhere in between. What was recorded and folded into a later record may be missing together with it.
#[test]
fn the_driver_dies_at_every_record_of_the_journal() {
    let mut died = 0;
    for (name, work) in WORK {
        let Some(inner) = furnished(&[]) else { return };
        inner.stall(true);
        work(&inner);
        let records = ends(&fs::read(inner.state().join("journal")).expect("there")).len() - 1;
        let before = look(&inner.home, "w");
        inner.stall(false);
        inner.barrier();
        let after = look(&inner.home, "w");
        assert_ne!(before, after, "{name}");
        for (kept, torn) in (0..=records).flat_map(|kept| [(kept, 0), (kept, 5)]) {
            let Some(mut inner) = furnished(&[]) else { return };
            inner.stall(true);
            work(&inner);
            inner.crash_into(|state| {
                let journal = state.join("journal");
                let bytes = fs::read(&journal).expect("there");
                let end = (ends(&bytes)[kept] + torn).min(bytes.len());
                fs::write(&journal, &bytes[..end]).expect("cut off");
            });
            inner.barrier();
            died += 1;
            let now = look(&inner.home, "w");
            if kept == records {
                let (different, status) = (differences(&now, &after), inner.fs.status());
                let why = (status.local.conflicts, status.last_error);
                assert!(different.is_empty(), "{name}: everything was recorded: {different:?}, {why:?}");
            }
            for (path, content) in &now {
                let known = [&before, &after].iter().any(|tree| tree.get(path) == Some(content));
                let on_the_way = path.contains(".tmp") || path.starts_with("w/moved") || path.starts_with("w/new/");
                assert!(known || on_the_way, "{name}, record {kept}: {path} is neither old nor new: {content:?}");
            }
            let view: Vec<String> = inner.names("w").expect("listed");
            assert_eq!(view.len(), now.keys().filter(|path| path.matches('/').count() == 1).count(), "{name}");
        }
    }
    eprintln!("survived: {died} deaths of the driver after whole and torn journal records");
}

/// The link is lost after every few bytes, on servers that rename atomically and on those that do not.
#[test]
fn the_link_goes_after_every_few_bytes() {
    let mut cuts = 0;
    for args in [&[][..], &["-P", "posix-rename,rename"][..]] {
        for (name, work) in WORK {
            let Some(whole) = furnished(args) else { return };
            work(&whole);
            whole.barrier();
            let wanted = look(&whole.home, "w");
            for step in 0..24_u64 {
                let Some(inner) = furnished(args) else { return };
                let at = 30 + step * step * 13;
                if step % 2 == 0 {
                    inner.faults.cut_after(at, u64::MAX);
                } else {
                    inner.faults.cut_after(u64::MAX, at / 2);
                }
                work(&inner);
                inner.barrier();
                cuts += inner.faults.cuts.load(std::sync::atomic::Ordering::Relaxed);
                let status = inner.fs.status();
                assert!(
                    status.local.conflicts.is_empty(),
                    "{name}, {args:?}, cut after {at}: our own work is no conflict: {:?}",
                    status.last_error
                );
                let found = look(&inner.home, "w");
                let different = differences(&found, &wanted);
                assert!(
                    different.is_empty(),
                    "{name}, {args:?}, cut after {at}: {different:?}, {:?}",
                    status.last_error
                );
            }
        }
    }
    assert!(cuts > 50, "the cuts happened: {cuts}");
    eprintln!("survived: {cuts} broken links, one after every few bytes in both directions");
}

/// The process dies while requests are under way, again and again, in the middle of a save over old content.
#[test]
fn the_driver_dies_in_the_middle_of_requests() {
    for args in [&[][..], &["-P", "posix-rename,rename"][..]] {
        for at in [40_u64, 120, 300, 900, 2000, 4000, 6000] {
            let Some(mut inner) = furnished(args) else { return };
            let mode = OpenMode { read: false, write: true, truncate: true };
            inner.read("w/a").expect("known");
            let handle = inner.open("w/a", mode, false).expect("opened");
            inner.fs.write(handle, 0, &[b'n'; 6000], wait()).expect("written");
            inner.faults.die_after(at);
            inner.close(handle).expect("saved");
            inner.crash();
            inner.barrier();
            assert_eq!(fs::read(inner.home.join("w/a")).expect("there"), [b'n'; 6000], "{args:?}, died after {at}");
            assert!(inner.fs.status().local.conflicts.is_empty(), "{args:?}, died after {at}");
        }
    }
}

/// The machine stops without warning: what was not synced may be on the disk or not, in any order. Names and lengths of the
/// spool files survive, their bytes do not: zeros, or nothing.
#[test]
fn the_power_fails_and_nothing_torn_is_sent() {
    let mut lost = 0;
    for (what, damage) in [("zeros", true), ("nothing", false)] {
        let Some(mut inner) = furnished(&[]) else { return };
        inner.stall(true);
        let mode = OpenMode { read: false, write: true, truncate: true };
        let synced = inner.open("w/synced", mode, true).expect("made");
        inner.write_at(synced, 0, b"on the disk").expect("written");
        inner.fs.fsync(synced, wait()).expect("synced");
        inner.close(synced).expect("closed");
        let spools = |state: &Path| -> Vec<std::path::PathBuf> {
            fs::read_dir(state.join("spool")).expect("listed").flatten().map(|entry| entry.path()).collect()
        };
        let safe = spools(inner.state());
        inner.write("w/a", &[b'n'; 5000]).expect("saved");
        inner.write("w/new", b"never synced").expect("saved");
        inner.crash_into(|state| {
            for spool in spools(state).into_iter().filter(|spool| !safe.contains(spool)) {
                let len = fs::metadata(&spool).expect("there").len();
                let bytes = if damage { vec![0; len as usize] } else { Vec::new() };
                fs::write(&spool, bytes).expect("damaged");
                lost += 1;
            }
        });
        inner.barrier();
        let there = |name: &str| fs::read(inner.home.join(name));
        assert_eq!(there("w/synced").expect("fsync had returned"), b"on the disk", "{what}");
        assert_eq!(there("w/a").expect("there"), [b'o'; 3000], "{what}: the version before");
        assert!(there("w/new").is_err(), "{what}");
        let status = inner.fs.status();
        assert_eq!(
            status.local.stranded.len(),
            2,
            "{what}: said, and what is left is kept: {:?}",
            status.local.stranded
        );
        assert_eq!(inner.read("w/a").expect("read"), [b'o'; 3000], "{what}: and that is shown");
    }
    eprintln!("survived: {lost} contents lost to a power loss before `fsync`");
}
