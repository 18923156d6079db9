//! Programs that watch files are told what others change on the server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::mounted::Mounted;
use crate::common::{eventually, skip};

/// A program that prints a line for each event.
struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    fn start(mut command: Command, ready: &str) -> Option<Self> {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = spawned else {
            skip(&format!("{} is not installed", command.get_program().display()));
            return None;
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = child.stdout.take().map(|out| Box::new(out) as Box<dyn std::io::Read + Send>);
        let err = child.stderr.take().map(|err| Box::new(err) as Box<dyn std::io::Read + Send>);
        for pipe in [out, err].into_iter().flatten() {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().expect("no panic").push(line);
                }
            });
        }
        let watcher = Self { child, lines };
        eventually("it watches", || watcher.has(ready));
        Some(watcher)
    }

    fn inotify(dir: &Path) -> Option<Self> {
        let mut command = Command::new("inotifywait");
        command.args(["-m", "-r", "--format", "%e %w%f"]).arg(dir);
        Self::start(command, "Watches established.")
    }

    fn has(&self, line: &str) -> bool {
        self.lines.lock().expect("no panic").iter().any(|found| found == line)
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

#[test]
fn inotify_tells_what_others_change() {
    let Some(m) = Mounted::openssh("") else { return };
    for dir in ["sub", "old", "old/deep"] {
        fs::create_dir(m.there(dir)).expect("made");
    }
    for file in ["a.php", "sub/b.php", "gone.php", "old/deep/c.php", "kind"] {
        fs::write(m.there(file), "one\n").expect("written");
    }
    let Some(watcher) = Watcher::inotify(m.dir()) else { return };
    fs::write(m.there("a.php"), "one, changed\n").expect("written");
    fs::write(m.there("sub/new.php"), "two\n").expect("written");
    fs::write(m.there("sub/tmp"), "two, renamed\n").expect("written");
    fs::rename(m.there("sub/tmp"), m.there("sub/b.php")).expect("renamed");
    fs::create_dir(m.there("sub/newdir")).expect("made");
    symlink("b.php", m.there("sub/link")).expect("made");
    fs::remove_file(m.there("gone.php")).expect("removed");
    fs::remove_dir_all(m.there("old")).expect("removed");
    fs::remove_file(m.there("kind")).expect("removed");
    fs::create_dir(m.there("kind")).expect("made");
    let line = |event: &str, name: &str| format!("{event} {}", m.path(name).display());
    let expected = [
        line("MODIFY", "a.php"),
        line("CREATE", "sub/new.php"),
        line("MODIFY", "sub/b.php"),
        line("CREATE,ISDIR", "sub/newdir"),
        line("CREATE", "sub/link"),
        line("DELETE", "gone.php"),
        line("DELETE", "old/deep/c.php"),
        line("DELETE,ISDIR", "old/deep"),
        line("DELETE,ISDIR", "old"),
        line("DELETE", "kind"),
        line("CREATE,ISDIR", "kind"),
    ];
    let missing = || expected.iter().filter(|line| !watcher.has(line)).cloned().collect::<Vec<_>>();
    let until = Instant::now() + Duration::from_secs(60);
    while !missing().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(missing(), Vec::<String>::new(), "{:#?}", watcher.all());
    assert_eq!(fs::read_to_string(m.path("a.php")).expect("read"), "one, changed\n");
    assert_eq!(fs::read_to_string(m.path("sub/new.php")).expect("read"), "two\n");
    assert_eq!(fs::read_link(m.path("sub/link")).expect("a link").as_os_str(), "b.php");
    assert!(!m.path("old").exists() && m.path("kind").is_dir());
    assert_eq!(m.status()["waiting"], 0, "nothing is sent");
    assert_eq!(fs::read_to_string(m.there("sub/new.php")).expect("read"), "two\n");
}

/// Where `scripts/setup` installs the libraries.
const LIBRARIES: &str = "target/watchers/node_modules";

/// A script for node that watches the directory in its argument.
fn node(library: &str, script: &str, dir: &Path) -> Option<Watcher> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIBRARIES);
    if !libraries.join(library).exists() {
        skip(&format!("{library} is not in {LIBRARIES} (scripts/setup installs it)"));
        return None;
    }
    let mut command = Command::new("node");
    command.args(["-e", script]).arg(dir).env("NODE_PATH", &libraries).current_dir("/");
    Watcher::start(command, "ready")
}

/// Edits by another client, and what a library calls them: it is told of all of them, and of nothing when there is none.
fn is_told_of_edits(m: &Mounted, watcher: &Watcher, [made, changed, removed]: [&str; 3]) {
    let quiet = watcher.all();
    assert_eq!(quiet, ["ready"], "nothing has happened");
    fs::write(m.there("sub/new.php"), "two\n").expect("written");
    fs::write(m.there("a.php"), "one, changed\n").expect("written");
    fs::remove_file(m.there("sub/gone.php")).expect("removed");
    let line = |event: &str, name: &str| format!("{event} {}", m.path(name).display());
    for line in [line(made, "sub/new.php"), line(changed, "a.php"), line(removed, "sub/gone.php")] {
        patiently(&format!("{line} is told"), || watcher.has(&line));
    }
    fs::write(m.there("sub/new.php"), "three, longer\n").expect("written");
    let again = line(changed, "sub/new.php");
    patiently(&format!("{again} is told"), || watcher.has(&again));
}

/// Waits as long as a mount may need to find out, and longer.
#[track_caller]
fn patiently(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(90);
    while !is() {
        assert!(Instant::now() < until, "{what}: not within 90 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn site() -> Option<Mounted> {
    let m = Mounted::openssh("")?;
    fs::create_dir(m.there("sub")).expect("made");
    for file in ["a.php", "sub/gone.php"] {
        fs::write(m.there(file), "one\n").expect("written");
    }
    Some(m)
}

#[test]
fn chokidar_tells_what_others_change() {
    let Some(m) = site() else { return };
    let script = "const w = require('chokidar').watch(process.argv[1], {ignoreInitial: true, ignored: /\\.pantheon/});
        w.on('all', (event, path) => console.log(event + ' ' + path));
        w.on('ready', () => console.log('ready'));";
    let Some(watcher) = node("chokidar", script, m.dir()) else { return };
    is_told_of_edits(&m, &watcher, ["add", "change", "unlink"]);
}

#[test]
fn the_watcher_of_vs_code_tells_what_others_change() {
    let Some(m) = site() else { return };
    let script = "const w = require('@parcel/watcher');
        w.subscribe(process.argv[1], (error, events) => {
            for (const e of events ?? []) console.log(e.type + ' ' + e.path);
        }).then(() => console.log('ready'));";
    let Some(watcher) = node("@parcel/watcher", script, m.dir()) else { return };
    is_told_of_edits(&m, &watcher, ["create", "update", "delete"]);
}

#[test]
fn a_dead_driver_leaves_no_process_and_no_hanging_mount() {
    let Some(m) = site() else { return };
    assert_eq!(fs::read_dir(m.path("sub")).expect("listed").count(), 1);
    let process = || {
        let mut all = fs::read_dir("/proc").expect("listed").flatten();
        let is_it = |line: Vec<u8>| {
            let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            words.contains(&&b"replay"[..]) && words.contains(&m.dir().as_os_str().as_bytes())
        };
        all.find(|of| fs::read(of.path().join("cmdline")).is_ok_and(is_it)).map(|of| of.path())
    };
    fs::write(m.there("new.php"), "two\n").expect("written");
    patiently("there is a process", || process().is_some());
    let process = process().expect("it runs");
    for entry in fs::read_dir(process.join("fd")).expect("listed") {
        let target = fs::read_link(entry.expect("listed").path()).unwrap_or_default();
        assert_ne!(target, Path::new("/dev/fuse"), "the mount would live as long as the process");
    }
    // In the midst of many changes.
    for n in 0..2000 {
        fs::write(m.there(&format!("sub/{n}")), "x").expect("written");
    }
    patiently("they are seen", || m.path("sub/1999").exists());
    crate::crash::kill(&m);
    patiently("the process ends", || !process.exists());
    let error = fs::metadata(m.path("a.php")).expect_err("the driver is dead");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
}

#[test]
fn an_idle_look_costs_little_and_is_in_the_status() {
    let Some(m) = site() else { return };
    assert_eq!(fs::read_dir(m.path("sub")).expect("listed").count(), 1);
    std::thread::sleep(Duration::from_secs(15));
    let received = m.status()["received_in_a_minute"].as_u64().expect("a number");
    assert!((1..100_000).contains(&received), "{received} bytes");
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("\nreceived: ") && status.contains(" within the last minute\n"), "{status}");
}
