//! Nothing lost: the driver dies, the link goes, both sides write; what was accepted is on the server in the end.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::SimConfig;

use crate::common::eventually;
use crate::common::mounted::Mounted;

/// Ends the driver as the out-of-memory killer does.
pub fn kill(m: &Mounted) {
    // Not by a program: a child that closes what it inherited is a `close` for the kernel.
    rustix::process::kill_process(m.driver(), rustix::process::Signal::KILL).expect("killed");
    eventually("it is dead", || fs::metadata(m.dir()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN)));
}

pub fn mount_again(m: &Mounted) -> String {
    m.mount(&format!("{}.dev", m.sim_ref().site()), &format!("{},timeout=5", m.sim_ref().options())).ok().err()
}

fn site() -> Option<Mounted> {
    Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5")
}

#[test]
fn accepted_writes_survive_the_drivers_death() {
    let Some(m) = site() else { return };
    fs::read_dir(m.path("wp-content")).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("index.php"), "saved").expect("saved");
    fs::create_dir(m.path("wp-content/new")).expect("made");
    fs::write(m.path("wp-content/new/a.php"), "first").expect("saved");
    fs::write(m.path("wp-content/new/a.php"), "second").expect("saved");
    fs::rename(m.path("wp-load.php"), m.path("wp-loaded.php")).expect("moved");
    fs::remove_file(m.path("wp-blog-header.php")).expect("removed");
    // In a process of its own: a child of this one that is just being started would close what it inherited, and that is a
    // `close` for the kernel.
    let writes = "import os, time; f = os.open('unfinished.php', os.O_CREAT | os.O_WRONLY); os.write(f, b'half a fi'); \
                  print('ready', flush=True); time.sleep(60)";
    let mut unfinished = Command::new("python3")
        .args(["-c", writes])
        .current_dir(m.dir())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut ready = [0; 6];
    unfinished.stdout.take().expect("piped").read_exact(&mut ready).expect("written");
    kill(&m);
    unfinished.kill().expect("killed");
    unfinished.wait().expect("ended");
    m.control("stall", r#"{"stalled": false}"#);
    assert!(mount_again(&m).contains("that the last mount could not send are on the server now"));
    assert_eq!(fs::read(m.there("index.php")).expect("there"), b"saved");
    assert_eq!(fs::read(m.there("wp-content/new/a.php")).expect("there"), b"second");
    assert!(m.there("wp-loaded.php").exists() && !m.there("wp-load.php").exists());
    assert!(!m.there("wp-blog-header.php").exists());
    assert!(!m.there("unfinished.php").exists(), "nobody said that it was finished");
    let status = m.status();
    assert_eq!((&status["conflicts"], &status["stranded"]), (&serde_json::json!([]), &serde_json::json!([])));
    let spool = m.environ().state().join(format!("{}.dev/spool", m.sim_ref().site()));
    let full = |file: &fs::DirEntry| file.metadata().is_ok_and(|meta| meta.len() > 0);
    assert_eq!(fs::read_dir(spool).expect("listed").flatten().filter(full).count(), 0, "nothing is left behind");
}

#[test]
fn a_barrier_means_that_the_server_has_everything() {
    let Some(m) = site() else { return };
    for n in 0..200 {
        fs::write(m.path(&format!("wp-content/{n}.php")), n.to_string()).expect("saved");
    }
    let place = m.dir().to_string_lossy().into_owned();
    m.environ().run(&["sync", &place]).ok();
    for n in 0..200 {
        assert_eq!(fs::read(m.there(&format!("wp-content/{n}.php"))).expect("there"), n.to_string().as_bytes());
    }
    assert_eq!(m.environ().run(&["sync", &place]).ok().out(), "nothing to send\n");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("wp-content/0.php"), "later").expect("saved");
    m.environ().run(&["sync", &place]).fails(13, &["1 change(s) are not on the server yet", "0.php"]);
    m.control("stall", r#"{"stalled": false}"#);
    eventually("it gets through", || m.environ().run(&["sync", &place]).code() == 0);
    assert_eq!(fs::read(m.there("wp-content/0.php")).expect("there"), b"later");
}

#[test]
fn changes_on_both_sides_are_both_kept() {
    let Some(m) = site() else { return };
    for name in ["edited-deleted", "deleted-edited", "moved-taken"] {
        fs::write(m.path(name), "base").expect("written");
    }
    m.barrier().expect("sent");
    // The link is away; both sides work.
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("edited-deleted"), "mine").expect("saved");
    fs::remove_file(m.path("deleted-edited")).expect("removed");
    fs::write(m.path("both-created"), "mine").expect("saved");
    fs::rename(m.path("moved-taken"), m.path("target")).expect("moved");
    fs::remove_file(m.there("edited-deleted")).expect("removed there");
    fs::write(m.there("deleted-edited"), "theirs, and longer").expect("edited there");
    fs::write(m.there("both-created"), "theirs").expect("created there");
    fs::write(m.there("target"), "theirs, too").expect("created there");
    m.control("stall", r#"{"stalled": false}"#);
    eventually("everything was decided", || m.status()["waiting"] == 0);
    assert!(!m.there("edited-deleted").exists());
    assert_eq!(fs::read(m.there("deleted-edited")).expect("there"), b"theirs, and longer");
    assert_eq!(fs::read(m.there("both-created")).expect("there"), b"theirs");
    assert_eq!(fs::read(m.there("target")).expect("there"), b"theirs, too");
    assert_eq!(fs::read(m.there("moved-taken")).expect("it never moved"), b"base");
    assert_eq!(fs::read(m.path(".pantheon/conflicts/code/edited-deleted")).expect("kept"), b"mine");
    assert_eq!(fs::read(m.path(".pantheon/conflicts/code/both-created")).expect("kept"), b"mine");
    // And what is there is shown here.
    for (name, content) in
        [("deleted-edited", "theirs, and longer"), ("both-created", "theirs"), ("target", "theirs, too")]
    {
        eventually(name, || fs::read(m.path(name)).is_ok_and(|bytes| bytes == content.as_bytes()));
    }
    eventually("moved-taken", || fs::read(m.path("moved-taken")).is_ok_and(|bytes| bytes == b"base"));
}

#[test]
fn conflicts_are_resolved_as_the_user_says() {
    let Some(m) = site() else { return };
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n6\n{last}\n");
    let conflict_from = |name: &str, opened: &str, mine: &str, theirs: &str| {
        fs::write(m.path(name), lines("1", "7")).expect("written");
        m.barrier().expect("sent");
        fs::write(m.path(".pantheon/commit"), "base\n").expect("committed");
        fs::write(m.path(name), opened).expect("written");
        m.barrier().expect("sent");
        fs::read(m.path(name)).expect("known");
        m.control("stall", r#"{"stalled": true}"#);
        fs::write(m.path(name), mine).expect("saved");
        fs::write(m.there(name), theirs).expect("changed there");
        m.control("stall", r#"{"stalled": false}"#);
        eventually("it is a conflict", || m.status()["conflicts"] == serde_json::json!([format!("code/{name}")]));
        eventually("theirs is shown", || fs::read_to_string(m.path(name)).is_ok_and(|text| text == theirs));
    };
    let conflict = |name: &str, mine: &str, theirs: &str| conflict_from(name, &lines("1", "7"), mine, theirs);
    let resolve = |name: &str, whose: &str| m.environ().run(&["resolve", &m.path(name).to_string_lossy(), whose]);
    conflict("merged", &lines("mine", "7"), &lines("1", "theirs"));
    resolve("merged", "--merge").ok();
    assert_eq!(fs::read_to_string(m.on_server("merged")).expect("there"), lines("mine", "theirs"));
    // From the committed version both have changed the first line: from the one that was opened, only one has.
    conflict_from("again", &lines("opened", "7"), &lines("mine", "7"), &lines("opened", "theirs"));
    resolve("again", "--merge").ok();
    assert_eq!(fs::read_to_string(m.on_server("again")).expect("there"), lines("mine", "theirs"));
    conflict("ours", "mine", "theirs");
    resolve("ours", "--merge").fails(1, &["both sides changed the same lines"]);
    resolve("ours", "--ours").ok();
    assert_eq!(fs::read(m.on_server("ours")).expect("there"), b"mine");
    conflict("theirs", "mine", "theirs");
    resolve("theirs", "--theirs").ok();
    assert_eq!(fs::read(m.on_server("theirs")).expect("there"), b"theirs");
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    resolve("theirs", "--ours").fails(2, &["there is no conflict"]);
}

#[test]
fn a_change_within_the_same_second_is_not_overwritten() {
    let Some(m) = site() else { return };
    for name in ["saved", "removed", "moved-over"] {
        fs::write(m.path(name), "first").expect("saved");
    }
    fs::write(m.path("source"), "moved").expect("saved");
    m.barrier().expect("sent");
    for name in ["saved", "removed", "moved-over"] {
        let there = fs::File::options().write(true).truncate(true).open(m.there(name));
        let mut there = there.expect("the server's file");
        let second = there.metadata().and_then(|meta| meta.modified()).expect("a time");
        there.write_all(b"other").expect("changed there");
        there.set_modified(second).expect("within the same second");
    }
    fs::write(m.path("saved"), "again").expect("saved here");
    fs::remove_file(m.path("removed")).expect("removed here");
    fs::rename(m.path("source"), m.path("moved-over")).expect("moved here");
    let error = m.barrier().expect_err("a removal was given up");
    assert_eq!(error.raw_os_error(), Some(libc::EREMOTEIO));
    for name in ["saved", "removed", "moved-over"] {
        assert_eq!(fs::read(m.there(name)).expect("theirs stays"), b"other", "{name}");
    }
    let kept = m.status()["conflicts"].to_string();
    assert_eq!(fs::read(m.path(".pantheon/conflicts/code/saved")).expect("kept"), b"again", "{kept}");
    assert_eq!(fs::read(m.path(".pantheon/conflicts/code/moved-over")).expect("kept"), b"moved", "{kept}");
    assert!(!m.there("source").exists(), "a temporary file does not stay where it would be served");
}

/// Callers read a file, another writer changes it within the same second, and no caller reads it again. Later, when the
/// server's clock has passed that second, a change is still based on the content that was read.
#[test]
fn other_content_of_the_same_version_is_not_the_base_of_a_change() {
    let Some(m) = site() else { return };
    let names = ["saved", "renamed-over", "held", "dir/saved"];
    fs::create_dir(m.there("dir")).expect("made");
    for name in names {
        fs::write(m.there(name), "first").expect("written");
    }
    let mut held = fs::File::options().read(true).write(true).open(m.path("held")).expect("opened");
    let mut read = String::new();
    held.read_to_string(&mut read).expect("read");
    for name in names {
        assert_eq!(fs::read(m.path(name)).expect("read"), b"first");
        let second = fs::metadata(m.there(name)).and_then(|meta| meta.modified()).expect("a time");
        fs::write(m.there(name), "other").expect("changed there");
        let there = fs::File::options().write(true).open(m.there(name)).expect("opened");
        there.set_modified(second).expect("within the same second");
    }
    std::thread::sleep(Duration::from_secs(5));
    fs::write(m.path("saved"), "again").expect("saved here");
    fs::write(m.path("new"), "again").expect("saved here");
    fs::rename(m.path("new"), m.path("renamed-over")).expect("renamed here");
    fs::rename(m.path("dir"), m.path("dir2")).expect("renamed here");
    fs::write(m.path("dir2/saved"), "again").expect("saved here");
    let error = held.write_at(b"again", 0).expect_err("the handle is of other content");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::STALE.raw_os_error()));
    m.barrier().expect("sent, or a conflict");
    for name in ["saved", "renamed-over", "held", "dir2/saved"] {
        assert_eq!(fs::read(m.there(name)).expect("there"), b"other", "{name}: {}", m.status()["conflicts"]);
    }
    assert_eq!(fs::read(m.path("held")).expect("read"), b"other");
    fs::write(m.path("held"), "based on other").expect("saved here");
    m.barrier().expect("sent");
    assert_eq!(fs::read(m.there("held")).expect("there"), b"based on other");
}

/// Everything below a directory: path to content.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut out, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            if name == ".pantheon" || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                out.insert(format!("{name}/"), Vec::new());
                dirs.push(path);
            } else {
                out.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    out
}

/// A tree is written, changed, moved and removed while the driver dies again and again and the link is cut: in the end the
/// server has exactly what a local directory has after the same work.
#[test]
fn a_tree_survives_killed_drivers_and_cut_links() {
    let Some(m) = site() else { return };
    let local = m.environ().path("local");
    fs::create_dir(&local).expect("made");
    fs::create_dir(m.path("work")).expect("made");
    let both = |work: &dyn Fn(&Path)| {
        work(&local);
        work(&m.path("work"));
    };
    for round in 0..6_u32 {
        both(&|root| {
            let dir = root.join(format!("d{}", round % 3));
            if dir.exists() && round % 2 == 1 {
                fs::remove_dir_all(&dir).expect("removed");
            }
            fs::create_dir_all(&dir).expect("made");
            for n in 0..20 {
                let size = (n * 977 + round * 13) % 5000;
                fs::write(dir.join(format!("f{n}")), vec![b'a' + (round % 26) as u8; size as usize]).expect("saved");
            }
            fs::rename(dir.join("f1"), dir.join("moved")).expect("moved");
            fs::remove_file(dir.join("f2")).expect("removed");
            let mut append = OpenOptions::new().append(true).open(dir.join("f3")).expect("opened");
            append.write_all(b" and more").expect("appended");
        });
        m.control("cut", "{}");
        std::thread::sleep(Duration::from_millis(u64::from(round) * 60));
        kill(&m);
        mount_again(&m);
    }
    m.barrier().expect("sent");
    assert_eq!(tree(&m.there("work")), tree(&local), "the server");
    assert_eq!(tree(&m.path("work")), tree(&local), "the mount");
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
}

#[test]
fn a_damaged_journal_is_said_and_the_rest_is_kept() {
    let Some(m) = site() else { return };
    fs::read(m.path("index.php")).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("index.php"), "saved").expect("saved");
    fs::write(m.path("second.php"), "saved, too").expect("saved");
    kill(&m);
    let journal = m.environ().state().join(format!("{}.dev/journal", m.sim_ref().site()));
    let mut bytes = fs::read(&journal).expect("there");
    let last = bytes.iter().rposition(|b| *b != 0).expect("something");
    bytes[last] ^= 0x20;
    fs::write(&journal, &bytes).expect("damaged");
    m.control("stall", r#"{"stalled": false}"#);
    let said = mount_again(&m);
    assert!(said.contains("damaged after byte"), "{said}");
    assert_eq!(fs::read(m.there("index.php")).expect("there"), b"saved", "what is in front of the damage is sent");
    let kept = fs::read_dir(journal.parent().expect("a directory")).expect("listed").flatten();
    assert!(kept.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("journal.damaged")));
}
