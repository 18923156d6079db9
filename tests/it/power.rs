//! The power fails: the journal is what its last sync left, contents that were never synced are gone. What `fsync`
//! promised, of a file or of a directory, is there; and of a file that was saved twice there is one of the two.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use pantheonfs::fs::{OpenMode, SetAttr};

use crate::common::inner::{Inner, wait};
use crate::steps::{Tree, differences, furnished, look};

const WRITE: OpenMode = OpenMode { read: false, write: true, truncate: true };

fn sync_dir(inner: &Inner, dir: &str) {
    let (handle, _) = inner.fs.opendir(inner.find(dir).expect("there"), wait()).expect("opened");
    inner.fs.fsync(handle, wait()).expect("synced");
    inner.fs.releasedir(handle);
}

/// Saved, and on the local disk when this returns.
fn save_synced(inner: &Inner, path: &str, bytes: &[u8]) {
    let handle = inner.open(path, WRITE, true).expect("opened");
    inner.write_at(handle, 0, bytes).expect("written");
    inner.fs.fsync(handle, wait()).expect("synced");
    inner.close(handle).expect("closed");
}

/// What is behind the last sync of the journal was never written: zeros.
fn cut(state: &Path, synced: u64) {
    let path = state.join("journal");
    let mut bytes = fs::read(&path).expect("there");
    bytes[usize::try_from(synced).expect("short")..].fill(0);
    fs::write(path, bytes).expect("cut");
}

fn spools(state: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(state.join("spool")).expect("listed").flatten();
    files.map(|file| file.path()).filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0)).collect()
}

/// Changes of names, and what is fsynced after them.
type Step = (&'static str, fn(&Inner), &'static [&'static str]);

const STEPS: [Step; 8] = [
    ("rename", |inner| inner.rename("w/a", "w/b").expect("moved"), &["w"]),
    ("rename over", |inner| inner.rename("w/tree/x", "w/a").expect("moved"), &["w", "w/tree"]),
    (
        "atomic save",
        |inner| {
            save_synced(inner, "w/a.tmp", b"new");
            inner.rename("w/a.tmp", "w/a").expect("moved");
        },
        &["w"],
    ),
    ("move a tree", |inner| inner.rename("w/tree", "w/moved").expect("moved"), &["w"]),
    (
        "mkdir",
        |inner| {
            inner.mkdir("w/new").expect("made");
            inner.mkdir("w/new/below").expect("made");
        },
        &["w", "w/new"],
    ),
    ("unlink", |inner| inner.unlink("w/a").expect("removed"), &["w"]),
    ("symlink", |inner| inner.symlink("w/link", "a").expect("made"), &["w"]),
    (
        "chmod and create",
        |inner| {
            inner.setattr("w/a", SetAttr { perm: Some(0o600), ..SetAttr::default() }).expect("chmod");
            save_synced(inner, "w/tree/new", b"new");
        },
        &["w/tree"],
    ),
];

#[test]
fn a_synced_directory_survives_power_loss() {
    for (name, work, dirs) in STEPS {
        let Some(whole) = furnished(&[]) else { return };
        work(&whole);
        whole.barrier();
        let wanted = look(&whole.home, "w");
        let Some(mut inner) = furnished(&[]) else { return };
        inner.stall(true);
        let before = inner.journal.synced_bytes();
        work(&inner);
        dirs.iter().for_each(|dir| sync_dir(&inner, dir));
        let synced = inner.journal.synced_bytes();
        assert!(synced > before, "{name}: the directory was synced, and the journal was not");
        // And what comes later, and is lost.
        inner.write("w/later", b"never synced").expect("saved");
        inner.crash_into(|state| cut(state, synced));
        inner.barrier();
        let found = look(&inner.home, "w");
        assert!(differences(&found, &wanted).is_empty(), "{name}: {found:?}");
        assert!(inner.fs.status().local.conflicts.is_empty(), "{name}: {:?}", inner.fs.status().last_error);
    }
}

#[test]
fn fsync_of_a_directory_reaches_the_journal_through_the_kernel() {
    let Some(inner) = furnished(&[]) else { return };
    let inner = inner.through_the_kernel();
    inner.stall(true);
    inner.mkdir("w/new").expect("made");
    let (before, dir) = (inner.journal.synced_bytes(), inner.mounted_at().expect("mounted").join("w"));
    File::open(dir).and_then(|dir| dir.sync_all()).expect("synced");
    assert!(inner.journal.synced_bytes() > before);
    inner.stall(false);
}

const ONE: &[u8] = b"version one";
const TWO: &[u8] = b"version two, and longer";

/// Ways to save the second version, and where the file is then.
type Save = (&'static str, fn(&Inner), &'static str);

const SECOND: [Save; 4] = [
    ("over it", |inner| inner.write("w/a", TWO).expect("saved"), "w/a"),
    (
        "by a temporary file",
        |inner| {
            inner.write("w/a.tmp", TWO).expect("saved");
            inner.rename("w/a.tmp", "w/a").expect("moved");
        },
        "w/a",
    ),
    (
        "three times",
        |inner| {
            inner.write("w/a", b"in between").expect("saved");
            inner.write("w/a", b"in between, too").expect("saved");
            inner.write("w/a", TWO).expect("saved");
        },
        "w/a",
    ),
    (
        "and moved it",
        |inner| {
            inner.write("w/new", TWO).expect("saved");
            inner.rename("w/new", "w/newer").expect("moved");
        },
        "w/newer",
    ),
];

/// What a loss of power does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Of the journal, what was not synced.
    Journal,
    /// Of contents, what was not synced: zeros in their place, or nothing.
    Contents {
        zeros: bool,
    },
    Both,
}

#[test]
fn after_power_loss_in_a_second_save_one_of_the_two_is_there() {
    let losses = [Loss::Journal, Loss::Contents { zeros: true }, Loss::Contents { zeros: false }, Loss::Both];
    for ((name, second, at), loss) in SECOND.into_iter().flat_map(|save| losses.map(|loss| (save, loss))) {
        let Some(mut inner) = furnished(&[]) else { return };
        inner.read("w/a").expect("known");
        inner.stall(true);
        save_synced(&inner, if at == "w/a" { "w/a" } else { "w/new" }, ONE);
        let (synced, safe) = (inner.journal.synced_bytes(), spools(inner.state()));
        second(&inner);
        inner.crash_into(|state| {
            if loss != Loss::Journal {
                for spool in spools(state).into_iter().filter(|spool| !safe.contains(spool)) {
                    let len = fs::metadata(&spool).expect("there").len();
                    let zeros = vec![0; if loss == (Loss::Contents { zeros: true }) { len as usize } else { 0 }];
                    fs::write(&spool, zeros).expect("lost");
                }
            }
            if !matches!(loss, Loss::Contents { .. }) {
                cut(state, synced);
            }
        });
        inner.barrier();
        let there = |path: &str| fs::read(inner.home.join(path)).unwrap_or_default();
        let found = if at == "w/a" { there(at) } else { [there("w/new"), there(at)].concat() };
        assert!(found == ONE || found == TWO, "{name}, {loss:?}: {:?}", String::from_utf8_lossy(&found));
        assert!(inner.fs.status().local.conflicts.is_empty(), "{name}, {loss:?}: {:?}", inner.fs.status().last_error);
        assert_eq!(spools(inner.state()).len(), 0, "{name}, {loss:?}: nothing is left behind");
    }
}

#[test]
fn replaced_content_is_durable_before_the_old_goes() {
    let Some(inner) = furnished(&[]) else { return };
    inner.stall(true);
    save_synced(&inner, "w/a", ONE);
    inner.write("w/a", TWO).expect("saved");
    assert_eq!(spools(inner.state()).len(), 2, "both are there");
    let synced = inner.journal.synced_bytes();
    crate::common::eventually("the first is let go", || spools(inner.state()).len() == 1);
    assert!(inner.journal.synced_bytes() > synced, "and what let it go is on the disk");
    inner.stall(false);
    inner.barrier();
    assert_eq!(fs::read(inner.home.join("w/a")).expect("there"), TWO);
}

/// The contents that were saved are somewhere: on the server, or with what could not be sent.
fn is_somewhere(inner: &Inner, tree: &Tree, content: &[u8]) -> bool {
    let mut dirs = vec![inner.state().join("stranded"), inner.state().join("conflicts")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if fs::read(entry.path()).is_ok_and(|bytes| bytes == content) {
                return true;
            }
        }
    }
    tree.values().any(|found| found.as_deref() == Some(content))
}

#[test]
fn no_damage_of_the_journal_destroys_a_content() {
    let Some(inner) = furnished(&[]) else { return };
    let contents: Vec<Vec<u8>> = (0..4).map(|n| format!("precious {n}").into_bytes()).collect();
    let work = |inner: &Inner| {
        inner.stall(true);
        for (n, content) in contents.iter().enumerate() {
            inner.write(&format!("w/f{n}"), content).expect("saved");
        }
        inner.rename("w/f3", "w/moved").expect("moved");
    };
    work(&inner);
    let journal = fs::read(inner.state().join("journal")).expect("there");
    let end = *crate::steps::ends(&journal).last().expect("records");
    drop(inner);
    // The header is looked at before anything else: there the mount is refused, and nothing is touched.
    for at in (8..end).step_by(97).chain([8, 9, 11, 12, end - 1]) {
        let Some(mut inner) = furnished(&[]) else { return };
        work(&inner);
        inner.crash_into(|state| {
            let file = OpenOptions::new().write(true).open(state.join("journal")).expect("opened");
            let flipped = fs::read(state.join("journal")).expect("there")[at] ^ 0x15;
            std::os::unix::fs::FileExt::write_all_at(&file, &[flipped], at as u64).expect("damaged");
        });
        inner.barrier();
        let tree = look(&inner.home, "w");
        for content in &contents {
            let text = String::from_utf8_lossy(content);
            assert!(is_somewhere(&inner, &tree, content), "byte {at}: {text} is nowhere: {tree:?}");
        }
        assert!(fs::read(inner.home.join("w/a")).is_ok_and(|bytes| bytes == [b'o'; 3000]), "byte {at}");
    }
}
