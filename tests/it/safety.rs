//! The safety net: what is kept can be had again, whole, by its owner only, and what others call their files harms nobody.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pantheonfs::clock::Clock;
use pantheonfs::sim::{Sim, SimConfig};

use crate::common::inner::{Inner, Setup};
use crate::common::meddler::Fate;
use crate::common::mounted::Mounted;
use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::{eventually, has_fuse, watch};

fn mounted(options: &str) -> Option<Mounted> {
    Mounted::sim_with(&SimConfig::default(), "dev", options)
}

fn run(m: &Mounted, command: &str, path: &str, more: &[&str]) -> Ran {
    m.environ().run(&[&[command, &m.path(path).to_string_lossy()], more].concat())
}

fn rescue(m: &Mounted, args: &[&str]) -> Ran {
    m.environ().run(&[&["rescue"], args, &["--at", &m.dir().to_string_lossy()]].concat())
}

/// Read here, changed by another writer, then saved here: the server has theirs afterwards.
fn conflict(m: &Mounted, name: &str, theirs: &str, mine: &str) {
    fs::read(m.path(name)).expect("read");
    fs::write(m.there(name), theirs).expect("changed");
    fs::write(m.path(name), mine).expect("saved");
    assert_eq!(fs::read_to_string(m.on_server(name)).expect("there"), theirs);
}

fn conflicts(m: &Mounted) -> Vec<String> {
    serde_json::from_value(m.status()["conflicts"].clone()).expect("a list")
}

/// An old file, as the server has them.
fn old_file(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(then)).expect("old");
}

#[test]
fn a_damaged_backup_is_reported_and_never_restored() {
    let Some(m) = mounted("fresh=1") else { return };
    for name in ["good.php", "empty.php", "changed.php"] {
        fs::write(m.path(name), format!("precious {name}")).expect("written");
    }
    m.barrier().expect("sent");
    let blobs = m.environ().state().join("sim-wordpress.dev/kept/blobs");
    for blob in fs::read_dir(blobs).expect("listed").flatten() {
        match fs::read_to_string(blob.path()).expect("read").as_str() {
            "precious empty.php" => fs::write(blob.path(), "").expect("damaged"),
            "precious changed.php" => fs::write(blob.path(), "preciouS changed.php").expect("damaged"),
            _ => {}
        }
    }
    let listed = rescue(&m, &["list"]);
    listed.fails(1, &["empty.php: the backup is damaged", "changed.php: the backup is damaged"]);
    assert_eq!(listed.out().matches("\tdamaged\t").count(), 2, "{}", listed.out());
    fs::write(m.there("good.php"), "lost").expect("changed");
    eventually("the loss is seen", || fs::read_to_string(m.path("good.php")).is_ok_and(|text| text == "lost"));
    let restored = rescue(&m, &["restore", "good.php", "empty.php", "changed.php"]);
    restored.fails(1, &["nothing was made of it"]);
    for name in ["good.php", "empty.php", "changed.php"] {
        let there = fs::read_to_string(m.on_server(name)).expect("there");
        assert_eq!(there, format!("precious {name}"));
    }
    let tar = m.environ().path("all.tar");
    rescue(&m, &["export", "--format", "tar", "-o", &tar.to_string_lossy()]).fails(1, &["empty.php"]);
    let tar = fs::read(tar).expect("written");
    let has = |name: &str| tar.windows(name.len()).any(|part| part == name.as_bytes());
    assert!(has("good.php") && !has("empty.php") && !has("changed.php"));
    rescue(&m, &["diff", "empty.php"]).fails(1, &["damaged"]);
}

#[test]
fn conflicts_below_and_beside_conflicts_are_kept_and_found() {
    let Some(m) = mounted("fresh=3") else { return };
    let long = "ä".repeat(125) + ".php";
    let names = ["x", "a", "a.1", &long];
    for name in names {
        old_file(&m.there(name), "one");
    }
    for name in names {
        conflict(&m, name, "theirs", &format!("mine {name}"));
    }
    conflict(&m, "a", "theirs again", "mine a again");
    conflict(&m, &long, "theirs again", "mine again");
    fs::remove_file(m.there("x")).expect("removed");
    fs::create_dir(m.there("x")).expect("made");
    old_file(&m.there("x/y"), "one");
    eventually("the directory is seen", || m.path("x/y").exists());
    conflict(&m, "x/y", "theirs", "mine below");
    fs::write(m.path("later"), "later").expect("saved");
    assert_eq!(fs::read_to_string(m.on_server("later")).expect("there"), "later");
    let listed = conflicts(&m);
    assert_eq!(listed.len(), 7, "{listed:?}");
    for file in &listed {
        assert!(fs::read_to_string(m.path(".pantheon/conflicts").join(file)).expect("readable").starts_with("mine"));
    }
    for (name, mine) in [("x/y", "mine below"), ("a", "mine a again"), ("a.1", "mine a.1"), (&long, "mine again")] {
        run(&m, "resolve", name, &["--ours"]).ok();
        assert_eq!(fs::read_to_string(m.on_server(name)).expect("there"), mine);
    }
    // What is taken away by an answer is kept the same way.
    for name in ["x/y", &long] {
        conflict(&m, name, "theirs once more", "mine once more");
        run(&m, "resolve", name, &["--ours"]).ok();
        assert_eq!(fs::read_to_string(m.on_server(name)).expect("there"), "mine once more");
    }
    run(&m, "resolve", "a.1", &["--ours"]).fails(2, &["there is no conflict"]);
    run(&m, "resolve", "a", &["--ours"]).ok();
    assert_eq!(fs::read_to_string(m.on_server("a")).expect("there"), "mine a");
}

#[test]
fn a_save_by_rename_that_is_a_conflict_leaves_no_temporary_file() {
    for theirs in ["theirs", "theirs, and of another length"] {
        let Some(m) = mounted("") else { return };
        old_file(&m.there("a.php"), "one");
        fs::read(m.path("a.php")).expect("read");
        fs::write(m.there("a.php"), theirs).expect("changed");
        fs::write(m.path("a.php.tmp1"), "mine, first").expect("saved");
        m.barrier().expect("sent");
        fs::write(m.path("a.php.tmp1"), "mine, secrets").expect("saved");
        m.barrier().expect("sent");
        assert!(m.there("a.php.tmp1").exists());
        fs::rename(m.path("a.php.tmp1"), m.path("a.php")).expect("renamed");
        assert_eq!(fs::read_to_string(m.on_server("a.php")).expect("there"), theirs);
        assert!(!m.there("a.php.tmp1").exists());
        assert_eq!(conflicts(&m), ["code/a.php"]);
        eventually("theirs is shown", || fs::read_to_string(m.path("a.php")).is_ok_and(|text| text == theirs));
        assert!(!m.path("a.php.tmp1").exists());
        run(&m, "resolve", "a.php", &["--ours"]).ok();
        assert_eq!(fs::read_to_string(m.on_server("a.php")).expect("there"), "mine, secrets");
    }
}

/// What was there before is moved, not saved: it stays where it was.
#[test]
fn a_move_that_is_a_conflict_leaves_both_files() {
    let Some(m) = mounted("") else { return };
    old_file(&m.there("a.php"), "one");
    fs::read(m.path("a.php")).expect("read");
    assert!(!m.path("b.php").exists());
    m.control("stall", r#"{"stalled": true}"#);
    fs::rename(m.path("a.php"), m.path("b.php")).expect("renamed");
    fs::write(m.there("b.php"), "theirs").expect("made");
    m.control("stall", r#"{"stalled": false}"#);
    assert_eq!(fs::read_to_string(m.on_server("b.php")).expect("there"), "theirs");
    assert_eq!(fs::read_to_string(m.there("a.php")).expect("there"), "one");
}

#[test]
fn file_names_from_the_server_are_escaped_on_the_terminal() {
    let Some(m) = mounted("") else { return };
    let names =
        ["z\u{1b}]0;owned\u{7}\ncode: read-only\nmode: git\n.php", "\u{9b}31m\u{202e}php.exe", "tab\tname\r.php"];
    for bad in names {
        old_file(&m.there(bad), "one");
    }
    for bad in names {
        conflict(&m, bad, "theirs", "mine");
        fs::write(m.path(&format!("new {bad}")), "new").expect("saved");
    }
    m.barrier().expect("sent");
    let read = |name: &str| fs::read_to_string(m.path(".pantheon").join(name)).expect("readable");
    let json: serde_json::Value = serde_json::from_str(&read("status.json")).expect("JSON");
    assert_eq!(json["conflicts"].as_array().map(Vec::len), Some(3), "{json}");
    assert!(json["conflicts"].to_string().contains("mode: git"), "JSON has the name itself: {json}");
    let log = fs::read_to_string(m.environ().state().join("sim-wordpress.dev/log")).expect("a log");
    let said = [
        ("status", read("status")),
        ("status.json", read("status.json")),
        ("pending", read("pending")),
        ("log", log),
        ("rescue list", rescue(&m, &["list"]).out()),
        ("rescue list --json", rescue(&m, &["list", "--json"]).out()),
        ("resolve", run(&m, "resolve", "\u{1b}[2J", &["--ours"]).err()),
        (
            "diff",
            read("diff").lines().filter(|line| !line.starts_with(['+', '-', ' '])).map(|l| format!("{l}\n")).collect(),
        ),
    ];
    for (what, text) in said {
        let hidden = |c: char| (c.is_control() && !"\n\t".contains(c)) || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(hidden), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line == "mode: git" || line == "code: read-only"), "{what}: {text}");
    }
    assert!(read("pending").contains("\\033]0;owned\\007\\ncode"), "{}", read("pending"));
}

/// The simulator's API behind a proxy that holds the first answer to a request with this word until it is told to go on.
struct Held {
    port: u16,
    armed: Arc<AtomicBool>,
    asked: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Held {
    fn before(upstream: String, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let armed = Arc::new(AtomicBool::new(false));
        let ((says, asked), (go, goes)) = (mpsc::channel(), mpsc::channel::<()>());
        let (hold, goes) = (armed.clone(), Arc::new(parking_lot::Mutex::new(goes)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&upstream).expect("the API");
                let (hold, says, goes) = (hold.clone(), says.clone(), goes.clone());
                let held = Arc::new(AtomicBool::new(false));
                let (up, down) = ((client.try_clone(), server.try_clone()), (server, client));
                let (Ok(from), Ok(to)) = up else { return };
                let seen = held.clone();
                std::thread::spawn(move || {
                    pump(from, to, |bytes| {
                        if bytes.windows(word.len()).any(|part| part == word.as_bytes()) {
                            seen.store(hold.swap(false, Ordering::SeqCst), Ordering::SeqCst);
                        }
                    });
                });
                std::thread::spawn(move || {
                    pump(down.0, down.1, |_| {
                        if held.swap(false, Ordering::SeqCst) {
                            let _ = says.send(());
                            let _ = goes.lock().recv_timeout(Duration::from_secs(30));
                        }
                    });
                });
            }
        });
        Self { port, armed, asked, go }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        look(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// A mount whose API answers through a proxy.
struct Desk {
    sim: Sim,
    around: Environ,
    held: Held,
    mnt: PathBuf,
}

impl Desk {
    fn new(word: &'static str) -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let env = sim.env();
        let held = Held::before(format!("{}:{}", env["TERMINUS_HOST"], env["TERMINUS_PORT"]), word);
        let around = Environ::new().with(env).with([("TERMINUS_PORT".to_owned(), held.port.to_string())]);
        let mnt = around.path("mnt");
        fs::create_dir(&mnt).expect("made");
        let desk = Self { sim, around, held, mnt };
        desk.mount(&format!("{}.dev", desk.sim.site()), &desk.mnt).ok();
        Some(desk)
    }

    fn mount(&self, source: &str, place: &Path) -> Ran {
        self.around.run(&[
            "mount",
            source,
            &place.to_string_lossy(),
            "-o",
            &format!("{},timeout=4", self.sim.options()),
        ])
    }

    fn there(&self, name: &str) -> String {
        fs::read_to_string(self.sim.home("dev").join("code").join(name)).expect("there")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if is_mounted(&self.mnt) {
            self.around.run(&["umount", "--force", &self.mnt.to_string_lossy()]);
        }
    }
}

#[test]
fn a_save_just_before_the_switch_is_not_deleted() {
    let Some(desk) = Desk::new("diffstat") else { return };
    let _watch = watch();
    let file = desk.mnt.join("index.php");
    fs::read(&file).expect("read");
    desk.held.armed.store(true, Ordering::SeqCst);
    let mut switch = desk.around.command();
    let switch = switch.args(["mode", "git", "--at"]).arg(&desk.mnt).stderr(std::process::Stdio::piped());
    let switch = switch.spawn().expect("the program runs");
    desk.held.asked.recv_timeout(Duration::from_secs(20)).expect("it asks what is uncommitted");
    fs::write(&file, "an hour of work").expect("saved");
    eventually("it is sent", || desk.there("index.php") == "an hour of work");
    desk.held.go.send(()).expect("the proxy waits");
    Ran(switch.wait_with_output().expect("ends")).fails(13, &["deleted for good (index.php)"]);
    assert_eq!(desk.there("index.php"), "an hour of work");
    // Nothing is held afterwards.
    fs::write(&file, "and another").expect("saved");
    eventually("it is sent", || desk.there("index.php") == "and another");
}

#[test]
fn while_the_mode_is_switched_writers_wait_and_are_told() {
    let Some(desk) = Desk::new("/environments/dev/workflows ") else { return };
    let _watch = watch();
    let file = desk.mnt.join("index.php");
    let committed = fs::read_to_string(&file).expect("read");
    fs::write(&file, "to be discarded").expect("saved");
    desk.held.armed.store(true, Ordering::SeqCst);
    let mut switch = desk.around.command();
    let switch = switch.args(["mode", "git", "--discard", "--at"]).arg(&desk.mnt).spawn().expect("the program runs");
    desk.held.asked.recv_timeout(Duration::from_secs(20)).expect("it starts the switch");
    let writer = std::thread::spawn(move || fs::write(&file, "too late"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!writer.is_finished(), "what is saved now would be deleted unseen");
    desk.held.go.send(()).expect("the proxy waits");
    Ran(switch.wait_with_output().expect("ends")).ok();
    let refused = writer.join().expect("ends").expect_err("in Git mode");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");
    assert_eq!(desk.there("index.php"), committed);
    let kept = desk.around.run(&["rescue", "list", "--at", &desk.mnt.to_string_lossy()]).ok().out();
    assert!(kept.contains("index.php\tkept\t15 B"), "{kept}");
}

#[test]
fn an_environment_has_one_state_under_all_its_names() {
    let Some(desk) = Desk::new("nothing") else { return };
    let _watch = watch();
    let (name, id) = (format!("{}.dev", desk.sim.site()), format!("{}.dev", desk.sim.site_id()));
    let second = desk.around.path("second");
    fs::create_dir(&second).expect("made");
    desk.mount(&id, &second).fails(11, &["is mounted already"]);
    assert!(!is_mounted(&second));
    let state = desk.around.state();
    assert_eq!(fs::read_link(state.join(&name)).expect("the readable name"), Path::new(&id));
    fs::write(desk.mnt.join("index.php"), "<?php // mine\n").expect("saved");
    let umount = || desk.around.run(&["umount", &desk.mnt.to_string_lossy()]).ok();
    umount();
    for at in [&name, &id] {
        let kept = desk.around.run(&["rescue", "list", "--at", at]).ok().out();
        assert!(kept.contains("index.php\tkept"), "{at}: {kept}");
    }
    // As an older version left it: by name, and the names are not remembered.
    eventually("the lock is free", || fs::remove_file(state.join(&name)).is_ok() || !state.join(&name).exists());
    std::thread::sleep(Duration::from_secs(1));
    fs::rename(state.join(&id), state.join(&name)).expect("moved");
    fs::remove_file(state.join("sites.json")).expect("removed");
    let kept = desk.around.run(&["rescue", "list", "--at", &name]).ok().out();
    assert!(kept.contains("index.php\tkept"), "{kept}");
    desk.mount(&id, &desk.mnt).ok();
    assert!(fs::symlink_metadata(state.join(&id)).expect("there").is_dir());
    assert_eq!(fs::read_link(state.join(&name)).expect("the readable name"), Path::new(&id));
    let kept = desk.around.run(&["rescue", "list", "--at", &desk.mnt.to_string_lossy()]).ok().out();
    assert!(kept.contains("index.php\tkept"), "{kept}");
}

/// What replaces or removes a file, and of which files copies are kept when that is a conflict.
type Guarded = (&'static str, fn(&Inner), &'static [&'static str]);

/// Another writer comes between the last look and the request that replaces or removes, whose answer is lost: what it took
/// has a second name, which must not be taken for a temporary file that can go.
#[test]
fn an_unseen_replaced_version_survives_a_lost_answer() {
    let save = |inner: &Inner| inner.write("a", b"ours").expect("recorded");
    let unlink = |inner: &Inner| inner.unlink("a").expect("recorded");
    let rename = |inner: &Inner| inner.rename("b", "a").expect("recorded");
    let works: [Guarded; 3] = [("save", save, &["code/a"]), ("unlink", unlink, &[]), ("rename", rename, &["code/a"])];
    // With the answer to the hard link, and with that to the request behind it.
    for ((name, work, conflicts), lost) in works.into_iter().flat_map(|work| [(work, 0), (work, 1)]) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["code", "tmp"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        let there = dir.path().join("code/a");
        fs::write(&there, "the first version").expect("written");
        fs::write(dir.path().join("code/b"), "moved").expect("written");
        let setup = Setup::environment(Duration::from_secs(3600), Clock::system(), "0".into());
        let Some(inner) = Inner::at(dir.path(), setup) else { return };
        assert_eq!(inner.read("a").expect("read"), b"the first version");
        let (plan, at, done) = (inner.faults.plan.clone(), there.clone(), AtomicBool::new(false));
        inner.faults.plan.on_request(move |_, kind| {
            // The first extended request is the hard link.
            if kind == 200 && !done.swap(true, Ordering::Relaxed) {
                fs::write(&at, "of another writer, at the last moment").expect("written");
                plan.lose_answer(lost);
            }
            Fate::Pass
        });
        work(&inner);
        inner.barrier();
        inner.write("c", b"whatever comes next").expect("recorded");
        inner.barrier();
        let (found, status) = (fs::read_to_string(&there).unwrap_or_default(), inner.fs.status());
        assert_eq!(found, "of another writer, at the last moment", "{name}, {lost}: {:?}", status.last_error);
        assert_eq!(status.local.conflicts, conflicts, "{name}, {lost}: {:?}", status.last_error);
        let left = fs::read_dir(dir.path().join("tmp")).expect("listed").count();
        assert_eq!(left, 0, "{name}, {lost}");
    }
}

/// Opens and reads the file again and again until `stop`; returns the number of reads, or what was wrong. An open that
/// meets the replacement may fail with ENOENT, and is repeated.
fn read_until(path: &Path, stop: &AtomicBool, size: usize) -> Result<usize, String> {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let whole = bytes.len() == size && bytes.iter().all(|byte| *byte == bytes[0]);
        if !whole {
            return Err(format!("{} bytes, from {:?} to {:?}", bytes.len(), bytes.first(), bytes.last()));
        }
        reads += 1;
    }
    Ok(reads)
}

#[test]
fn a_reader_of_a_file_that_is_replaced_sees_the_old_or_the_new_content() {
    const SIZE: usize = 5000;
    let Some(m) = mounted("") else { return };
    let (file, new) = (m.path("replaced.txt"), m.path("new.txt"));
    fs::write(&file, [b'0'; SIZE]).expect("written");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&file, &stop, SIZE));
        for round in 0..400_u32 {
            fs::write(&new, [b'0' + (round % 70) as u8; SIZE]).expect("written");
            fs::rename(&new, &file).expect("replaced");
        }
        stop.store(true, Ordering::Relaxed);
        let reads = reader.join().expect("no panic").expect("old or new content");
        assert!(reads > 20, "{reads} reads");
    });
    assert!(conflicts(&m).is_empty());
}

#[test]
fn a_second_save_within_a_second_that_is_moved_while_it_is_sent_is_what_is_shown() {
    const SIZE: usize = 3_000_000;
    let Some(m) = mounted("") else { return };
    for wait in [155, 165, 175, 185] {
        let (file, new) = (format!("f{wait}"), m.path("t"));
        std::thread::sleep(Duration::from_millis(1020) - Duration::from_millis(sub_second()));
        for content in *b"12" {
            fs::write(&new, vec![content; SIZE]).expect("written");
            std::thread::sleep(Duration::from_millis(wait));
            fs::rename(&new, m.path(&file)).expect("moved");
            std::thread::sleep(Duration::from_millis(200));
        }
        let there = fs::read(m.on_server(&file)).expect("there");
        assert!(there == vec![b'2'; SIZE], "{wait} ms: the server has the second save");
        assert!(fs::read(m.path(&file)).expect("read") == there, "{wait} ms: the mount shows what the server has");
    }
    assert!(conflicts(&m).is_empty());
}

/// Milliseconds since the last full second.
fn sub_second() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_millis())
}
