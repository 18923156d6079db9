//! How many round trips things cost. They do not depend on the machine: the simulator counts, over a link with a latency,
//! how often somebody had to wait for an answer before asking the next thing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::{Mounted, get};
use crate::common::program::Environ;
use crate::common::turns::Turns;
use crate::common::{eventually, has_fuse};

/// Long enough that a busy machine does not make one round look like two.
const RTT: Duration = Duration::from_millis(200);

fn far_away(quirks: &[(&str, &str)]) -> Option<Mounted> {
    let quirks = quirks.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = SimConfig { rtt: RTT, quirks, ..SimConfig::default() };
    let mounted = Mounted::sim_with(&config, "dev", "");
    // What was written this second may change again without a trace, and is not remembered; the site has just been made.
    std::thread::sleep(Duration::from_secs(4));
    mounted
}

/// Rounds and requests that `work` takes.
fn cost(m: &Mounted, work: impl FnOnce()) -> (u64, u64) {
    // What was started before is over.
    std::thread::sleep(RTT * 4);
    m.control("reset", "{}");
    work();
    let counters = get(&format!("{}/counters", m.sim_ref().control()));
    let number = |name: &str| counters[name].as_u64().expect("a number");
    (number("rounds"), number("requests"))
}

/// From the command to the first byte of a file, with nothing in any cache, TCP and SSH included: one round trip for TCP, one
/// for the versions of SSH, one for the key exchange, one for the service of logins, two for a key (libssh2 asks whether the
/// server would accept it before it signs), one for the channel, one for the subsystem (OpenSSH takes no data before it has
/// answered that), one for the SFTP session with a look at the directory, two for its names, and two for the file.
#[test]
fn the_first_byte_comes_within_fourteen_rounds() {
    let mut turns = None;
    let mounted = Mounted::openssh_through(|sshd| {
        fs::write(sshd.tree().join("index.php"), "hello").expect("written");
        turns.insert(Turns::before(sshd.port(), RTT)).port()
    });
    let (Some(m), Some(turns)) = (mounted, turns) else { return };
    let ready = turns.rounds();
    assert_eq!(fs::read_to_string(m.path("index.php")).expect("read"), "hello");
    let (rounds, connections) = (turns.rounds(), turns.connections());
    assert!(ready <= 10, "until the mount is ready: {ready}");
    assert!(rounds <= 14, "until the first byte: {rounds}");
    assert_eq!(connections, 1);
}

/// The API does not answer before the connection of SFTP has logged in.
#[test]
fn the_connection_is_made_while_the_api_is_asked() {
    if !has_fuse() {
        return;
    }
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let port = |value: &serde_json::Value| value.as_str().and_then(|port| port.parse().ok()).expect("a port");
    let turns = Arc::new(Turns::before(sim.describe()["ssh"]["port"].as_u64().expect("a port") as u16, RTT / 4));
    let (api, given_up) = held(port(&sim.describe()["env"]["TERMINUS_PORT"]), &turns);
    let environ = Environ::new().with(sim.env()).with([("TERMINUS_PORT".to_owned(), api.to_string())]);
    let (dir, hosts) = (environ.path("mnt"), environ.path("hosts"));
    fs::create_dir(&dir).expect("made");
    let options = format!(
        "Port={},IdentityFile={},UserKnownHostsFile={},StrictHostKeyChecking=accept-new",
        turns.port(),
        sim.describe()["ssh"]["identity"].as_str().expect("a path"),
        hosts.display()
    );
    let place = dir.to_string_lossy();
    environ.run(&["mount", &format!("{}.dev", sim.site_id()), &place, "-o", &options]).ok();
    environ.run(&["umount", "--force", &place]).ok();
    assert!(!given_up.load(Ordering::SeqCst), "the API was asked before the connection was begun");
}

/// A port that leads to the API as soon as the connection has made its first seven rounds, in which it logs in; and whether that
/// was waited for in vain.
fn held(api: u16, turns: &Arc<Turns>) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let given_up = Arc::new(AtomicBool::new(false));
    let (turns, noted) = (turns.clone(), given_up.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (turns, noted) = (turns.clone(), noted.clone());
            std::thread::spawn(move || {
                let until = Instant::now() + Duration::from_secs(10);
                while turns.rounds() < 7 && Instant::now() < until {
                    std::thread::sleep(RTT / 10);
                }
                noted.fetch_or(turns.rounds() < 7, Ordering::SeqCst);
                let Ok(api) = TcpStream::connect(("127.0.0.1", api)) else { return };
                let (from, to) = (client.try_clone().expect("cloned"), api.try_clone().expect("cloned"));
                std::thread::spawn(move || drop(std::io::copy(&mut &from, &mut &to)));
                drop(std::io::copy(&mut &api, &mut &client));
            });
        }
    });
    (port, given_up)
}

#[test]
fn a_walk_costs_two_rounds_per_directory_once() {
    let Some(m) = far_away(&[]) else { return };
    let (rounds, _) = cost(&m, || assert!(fs::read_dir(m.dir()).expect("listed").count() > 5));
    assert!(rounds <= 2, "a directory: {rounds}");
    let (_, requests) = cost(&m, || {
        for name in ["index.php", "wp-load.php", "wp-config.php"] {
            fs::metadata(m.path(name)).expect("stat");
        }
        for n in 0..100 {
            assert!(!m.path(&format!("missing{n}")).exists());
        }
    });
    assert_eq!(requests, 0, "names that were listed, and names that were not, are known");
}

#[test]
fn a_walk_costs_rounds_per_level_and_not_per_directory() {
    let Some(m) = far_away(&[]) else { return };
    for n in 0..40 {
        fs::create_dir_all(m.on_server(&format!("wide/dir{n}/sub"))).expect("made");
    }
    let (rounds, _) = cost(&m, || {
        let count = walk(m.dir());
        assert!(count > 150, "{count}");
    });
    // Five levels (code, wp-includes, js, dist; code, wide, dir, sub), each open and read.
    assert!(rounds <= 10, "{rounds}");
}

/// After a pause the first touch renews the whole tree, not a directory at a time.
#[test]
fn a_walk_after_a_pause_is_one_sweep() {
    let config = SimConfig { rtt: RTT, ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "fresh=3") else { return };
    for n in 0..40 {
        fs::create_dir_all(m.there(&format!("wide/dir{n}/sub"))).expect("made");
    }
    let first = walk(m.dir());
    std::thread::sleep(Duration::from_secs(4));
    let (rounds, _) = cost(&m, || assert_eq!(walk(m.dir()), first));
    assert!(rounds <= 10, "{rounds}");
}

#[test]
fn a_comparison_costs_the_same_for_any_depth() {
    let Some(m) = far_away(&[]) else { return };
    fs::create_dir_all(m.on_server("1/2/3/4/5/6/7/8/9/10/11/12")).expect("made");
    walk(m.dir());
    let pending = || drop(fs::read(m.path(".pantheon/pending")).expect("compared"));
    // The first one fetches the commit, and reads what is not proved.
    pending();
    let (rounds, requests) = cost(&m, pending);
    assert!(rounds <= 5, "{rounds} rounds, {requests} requests");
}

/// What was just written may change again without a trace, and is read once more; so is the text of a symlink.
#[test]
fn a_comparison_right_after_a_big_job_costs_bursts() {
    let Some(m) = far_away(&[]) else { return };
    let pending = || fs::read_to_string(m.path(".pantheon/pending")).expect("compared");
    pending();
    fs::create_dir(m.path("new")).expect("made");
    for n in 0..60 {
        fs::write(m.path(&format!("new/f{n:02}")), format!("{n}\n")).expect("written");
        std::os::unix::fs::symlink(format!("f{n:02}"), m.path(&format!("new/l{n:02}"))).expect("linked");
    }
    fs::write(m.path(".pantheon/sync"), "now").expect("sent");
    for most in [16, 5] {
        let (rounds, requests) = cost(&m, || assert_eq!(pending().matches("\nA new/").count(), 120));
        assert!(rounds <= most, "{rounds} rounds, {requests} requests");
        // From here on it is known.
        std::thread::sleep(Duration::from_secs(4));
        pending();
    }
}

/// Code that nobody can change is known by the next mount without asking, as long as the commit is the same.
#[test]
fn frozen_code_is_known_after_a_remount() {
    let Some(m) = far_away(&[]) else { return };
    fs::write(m.path(".pantheon/mode"), "git").expect("switched");
    let first = walk(m.dir());
    // The platform has confirmed the commit since.
    std::thread::sleep(Duration::from_secs(8));
    m.umount().ok();
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    let (rounds, requests) = cost(&m, || assert_eq!(walk(m.dir()), first));
    assert!(rounds <= 1 && requests <= 10, "{rounds} rounds, {requests} requests");
}

fn walk(dir: &std::path::Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("an entry");
        if entry.file_name() == ".git" {
            // Of the mount, and not there from the start.
            continue;
        }
        count += 1;
        if entry.file_type().expect("a kind").is_dir() && entry.file_name() != ".pantheon" {
            count += walk(&entry.path());
        }
    }
    count
}

#[test]
fn a_file_costs_two_rounds_and_then_nothing() {
    let Some(m) = far_away(&[]) else { return };
    fs::write(m.on_server("large.bin"), vec![7; 300_000]).expect("written");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(m.on_server("large.bin")).expect("opened");
    file.set_modified(long_ago).expect("set");
    fs::read_dir(m.dir()).expect("listed").count();
    let (rounds, _) = cost(&m, || drop(fs::read(m.path("wp-load.php")).expect("read")));
    assert!(rounds <= 2, "a small file: {rounds}");
    let (rounds, _) = cost(&m, || {
        let mut bytes = Vec::new();
        fs::File::open(m.path("large.bin")).expect("opened").read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes.len(), 300_000);
    });
    assert!(rounds <= 2, "300 kB: {rounds}");
    let (_, requests) = cost(&m, || drop(fs::read(m.path("large.bin")).expect("read again")));
    assert_eq!(requests, 0, "again: from memory");
}

#[test]
fn a_save_costs_three_rounds_at_most() {
    let Some(m) = far_away(&[]) else { return };
    fs::read_dir(m.dir()).expect("listed").count();
    let (rounds, _) = cost(&m, || fs::write(m.path("new.php"), "new").expect("created"));
    assert!(rounds <= 2, "a new file: {rounds}");
    let (rounds, _) = cost(&m, || fs::write(m.path("new.php"), "changed").expect("saved"));
    assert!(rounds <= 3, "content by a temporary file and posix-rename: {rounds}");
    let Some(m) = far_away(&[("extensions", "off")]) else { return };
    fs::read_dir(m.dir()).expect("listed").count();
    let (rounds, _) = cost(&m, || fs::write(m.path("index.php"), "changed").expect("saved"));
    assert!(rounds <= 2, "content in place: {rounds}");
}

/// 600 directories, where the server allows 200 handles: each is open for one round trip.
#[test]
fn a_tree_that_is_known_is_listed_again_in_few_rounds() {
    let Some(m) = with_tree((0..600).map(|n| format!("d{n:03}/f.php"))) else { return };
    assert_eq!(walk(&m.path("tree")), 1200);
    // Older than names may be shown.
    std::thread::sleep(Duration::from_secs(31));
    let (rounds, _) = cost(&m, || assert_eq!(walk(&m.path("tree")), 1200));
    assert!(rounds <= 7, "{rounds}");
}

#[test]
fn callers_do_not_wait_for_each_other() {
    let Some(m) = far_away(&[]) else { return };
    fs::read_dir(m.path("wp-includes/blocks")).expect("listed").count();
    let (rounds, _) = cost(&m, || {
        std::thread::scope(|scope| {
            for n in 0..20 {
                let path = m.path(&format!("wp-includes/blocks/part-{n:02}.php"));
                scope.spawn(move || drop(fs::read(path).expect("read")));
            }
        });
    });
    assert!(rounds <= 4, "twenty readers at once: {rounds}");
}

#[test]
fn status_needs_no_request() {
    let Some(m) = far_away(&[]) else { return };
    let (_, requests) = cost(&m, || {
        for name in ["status", "status.json", "mode", "log", "connection", "README"] {
            fs::read(m.path(".pantheon").join(name)).expect("read");
        }
    });
    assert_eq!(requests, 0);
}

#[test]
fn one_connection_serves_everything() {
    let Some(m) = far_away(&[("second-connection", "refuse")]) else { return };
    assert_eq!(walk(m.dir()), walk(m.dir()));
    fs::write(m.path("x.php"), "x").expect("written");
    let counters = get(&format!("{}/counters", m.sim_ref().control()));
    assert_eq!(counters["connections"], 1);
}

/// 100 files, in tree order.
fn many_files() -> impl Iterator<Item = String> {
    let parts = ["blocks", "css/dist", "fonts", "js/dist", "rest-api"];
    parts.into_iter().flat_map(|part| (0..20).map(move |n| format!("wp-includes/{part}/part-{n:02}.php")))
}

fn read_many_files(m: &Mounted) {
    for path in many_files() {
        assert!(fs::read(m.path(&path)).expect("read").starts_with(b"<?php"));
    }
}

#[test]
fn a_reader_of_many_files_pays_for_bursts_and_not_per_file() {
    let Some(m) = far_away(&[]) else { return };
    walk(m.dir());
    let (rounds, _) = cost(&m, || read_many_files(&m));
    // Two files to recognise the scan (two rounds each), then bursts; one by one it would be 200.
    assert!(rounds <= 24, "{rounds}");
}

/// Files whose content may still change without a change of size and time: here their time is in the future.
#[test]
fn files_that_were_just_changed_are_fetched_ahead_for_one_read() {
    let Some(m) = far_away(&[]) else { return };
    let time = SystemTime::now() + Duration::from_secs(3600);
    let write = |path: &str, content: &[u8]| {
        fs::write(m.on_server(path), content).expect("written");
        fs::File::open(m.on_server(path)).and_then(|file| file.set_modified(time)).expect("set");
    };
    for path in many_files() {
        write(&path, b"<?php // old");
    }
    walk(m.dir());
    let (rounds, _) = cost(&m, || read_many_files(&m));
    assert!(rounds <= 24, "{rounds}");
    for path in many_files() {
        write(&path, b"<?php // new");
    }
    for path in many_files().take(3) {
        assert_eq!(fs::read(m.path(&path)).expect("read"), b"<?php // new", "what was fetched ahead serves one read");
    }
    // The files after these three are fetched ahead now, and are changed before they are read.
    std::thread::sleep(RTT * 4);
    for path in many_files() {
        write(&path, b"<?php // 3rd");
    }
    std::thread::sleep(Duration::from_secs(5));
    for path in many_files().skip(3).take(9) {
        assert_eq!(fs::read(m.path(&path)).expect("read"), b"<?php // 3rd", "it is at most 5 s old");
    }
}

/// From the first moment of the mount, and slowly: what lies ahead is listed when it becomes known, and again when it grew
/// old before the reader came. Counted is who had to wait for the server.
#[test]
fn a_slow_reader_of_a_tree_not_known_yet_does_not_wait_for_directories() {
    let Some(m) = Mounted::sim_with(&SimConfig { rtt: RTT, ..SimConfig::default() }, "dev", "") else { return };
    let dirs: Vec<String> = (0..60).map(|n| format!("aa/dir{n:02}/sub")).collect();
    for dir in &dirs {
        fs::create_dir_all(m.on_server(dir)).expect("made");
        for name in ["a.php", "b.php"] {
            fs::write(m.on_server(dir).join(name), "<?php").expect("written");
        }
    }
    std::thread::sleep(Duration::from_secs(4));
    let waited = |dir: &String| {
        let began = Instant::now();
        for name in ["a.php", "b.php"] {
            assert_eq!(fs::read(m.path(dir).join(name)).expect("read"), b"<?php");
        }
        let waited = began.elapsed() >= RTT;
        std::thread::sleep(RTT);
        waited
    };
    let waits = dirs.iter().filter(|dir| waited(dir)).count();
    // Each of them, after the first five seconds, if nothing were renewed.
    assert!(waits <= 8, "{waits}");
}

/// Puts a tree of old files on the server, all at once: the mount may look at any time.
fn with_tree(files: impl Iterator<Item = String>) -> Option<Mounted> {
    let m = far_away(&[])?;
    let made = m.sim_ref().home("dev").join("tree");
    let time = SystemTime::now() - Duration::from_secs(3600);
    for path in files.map(|path| made.join(path)) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, format!("<?php // {}", path.display())).expect("written");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("set");
    }
    fs::rename(made, m.on_server("tree")).expect("moved");
    eventually("the mount sees it", || m.path("tree").exists());
    Some(m)
}

/// 168 files in 36 directories, the files beside the directories.
fn small_dirs() -> impl Iterator<Item = String> {
    (0..168).map(|n| {
        let dir = match n % 14 {
            0..4 => format!("d{:02}", n / 14),
            rest => format!("d{:02}/sub{}", n / 14, rest % 2),
        };
        format!("{dir}/{}{n}.php", ["a", "t", "z"][n % 3])
    })
}

/// 168 files in 4 directories.
fn large_dirs() -> impl Iterator<Item = String> {
    (0..168).map(|n| format!("d{}/f{n:03}.php", n % 4))
}

/// What a program does with a directory: the place of each name, the smallest first.
type Place = fn(&fs::DirEntry) -> (u64, Vec<u8>);

fn by_name(entry: &fs::DirEntry) -> (u64, Vec<u8>) {
    (0, entry.file_name().into_encoded_bytes())
}

/// `cp -r`.
fn by_number(entry: &fs::DirEntry) -> (u64, Vec<u8>) {
    (entry.ino(), Vec::new())
}

/// `rsync`.
fn files_first(entry: &fs::DirEntry) -> (u64, Vec<u8>) {
    (u64::from(is_dir(entry)), entry.file_name().into_encoded_bytes())
}

/// Files in no order, then the directories by name.
fn shuffled(entry: &fs::DirEntry) -> (u64, Vec<u8>) {
    let name = entry.file_name().into_encoded_bytes();
    let shuffle = |byte: &u8| byte.wrapping_mul(151).rotate_left(3);
    if is_dir(entry) { (1, name) } else { (0, name.iter().rev().skip(4).map(shuffle).collect()) }
}

fn is_dir(entry: &fs::DirEntry) -> bool {
    entry.file_type().expect("a kind").is_dir()
}

/// Reads a tree depth first, and does something after each file. Returns the number of files.
fn read_tree(dir: &Path, place: Place, after: &mut dyn FnMut(&Path)) -> usize {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry"));
    let sorted: BTreeMap<_, _> = entries.map(|entry| (place(&entry), entry)).collect();
    let mut count = 0;
    for entry in sorted.values() {
        if is_dir(entry) {
            count += read_tree(&entry.path(), place, after);
        } else {
            assert!(fs::read(entry.path()).expect("read").starts_with(b"<?php"));
            after(&entry.path());
            count += 1;
        }
    }
    count
}

/// Rounds for 168 files, with the listings. One file after the other would take 336.
const ROUNDS_OF_TREE: u64 = 40;

fn costs_bursts(files: impl Iterator<Item = String>, place: Place) {
    let Some(m) = with_tree(files) else { return };
    let (rounds, _) = cost(&m, || assert_eq!(read_tree(&m.path("tree"), place, &mut |_| ()), 168));
    eprintln!("{rounds} rounds");
    assert!(rounds <= ROUNDS_OF_TREE, "{rounds}");
}

#[test]
fn a_tree_read_by_name_costs_bursts() {
    costs_bursts(small_dirs(), by_name);
}

#[test]
fn a_tree_read_by_inode_number_costs_bursts() {
    costs_bursts(small_dirs(), by_number);
}

#[test]
fn a_tree_whose_files_are_read_before_directories_costs_bursts() {
    costs_bursts(small_dirs(), files_first);
}

#[test]
fn a_tree_whose_files_are_read_in_no_order_costs_bursts() {
    costs_bursts(small_dirs(), shuffled);
    costs_bursts(large_dirs(), shuffled);
}

#[test]
fn a_tree_read_by_two_threads_costs_bursts() {
    let Some(m) = with_tree(small_dirs()) else { return };
    let (mut paths, mut dirs) = (Vec::new(), vec![m.path("tree")]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry")) {
            if is_dir(&entry) { &mut dirs } else { &mut paths }.push(entry.path());
        }
    }
    paths.sort();
    let paths = Mutex::new(paths.into_iter());
    let (rounds, _) = cost(&m, || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(path) = { paths.lock().expect("unharmed").next() } {
                        assert!(fs::read(path).expect("read").starts_with(b"<?php"));
                    }
                });
            }
        });
    });
    eprintln!("{rounds} rounds");
    assert!(rounds <= ROUNDS_OF_TREE, "{rounds}");
}

/// The paths of a tree in an order that nobody knows, and with a pause of the reader's own.
#[test]
fn a_tree_that_is_read_at_random_costs_bursts() {
    for files in [small_dirs().collect::<Vec<_>>(), large_dirs().collect()] {
        let Some(m) = with_tree(files.iter().cloned()) else { return };
        let count = files.len();
        assert_eq!(read_names(&m.path("tree")), count);
        // Each once: the number of files and the step have no common divisor.
        let (rounds, _) = cost(&m, || {
            for n in 0..count {
                let path = m.path("tree").join(&files[n * 97 % count]);
                assert!(fs::read(path).expect("read").starts_with(b"<?php"));
            }
        });
        eprintln!("{rounds} rounds");
        assert!(rounds <= 2 * ROUNDS_OF_TREE, "{rounds}");
    }
}

/// A few files here and there are no reading of a tree.
#[test]
fn a_reader_of_a_few_files_of_a_tree_does_not_fetch_the_tree() {
    let files: Vec<String> = (0..3000).map(|n| format!("d{:03}/f{n:04}.php", n % 150)).collect();
    let Some(m) = with_tree(files.iter().cloned()) else { return };
    assert_eq!(read_names(&m.path("tree")), files.len());
    let (_, requests) = cost(&m, || {
        for n in 0..10 {
            fs::read(m.path("tree").join(&files[n * 1607 % files.len()])).expect("read");
        }
        std::thread::sleep(RTT * 6);
    });
    eprintln!("{requests} requests");
    // Three for each file that is fetched.
    assert!(requests <= 10 * 3 * 8, "{requests}");
}

/// Number of files, found by names alone.
fn read_names(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry"));
    entries.map(|entry| if is_dir(&entry) { read_names(&entry.path()) } else { 1 }).sum()
}

/// `cp -r` within the mount.
#[test]
fn a_tree_that_is_copied_file_by_file_costs_bursts() {
    let Some(m) = with_tree(small_dirs()) else { return };
    fs::create_dir(m.path("copy")).expect("made");
    let mut number = 0;
    let mut write = |path: &Path| {
        number += 1;
        fs::write(m.path(&format!("copy/{number}.php")), fs::read(path).expect("read again")).expect("written");
    };
    let (rounds, _) = cost(&m, || assert_eq!(read_tree(&m.path("tree"), by_number, &mut write), 168));
    eprintln!("{rounds} rounds");
    assert!(rounds <= ROUNDS_OF_TREE, "{rounds}");
}

/// What is fetched for a reader who wants a few files of a large directory, each another one, is bounded.
#[test]
fn a_reader_of_a_few_files_does_not_fetch_the_directory() {
    let Some(m) = with_tree((0..1500).map(|n| format!("f{n:04}.php"))) else { return };
    fs::read_dir(m.path("tree")).expect("listed").count();
    let (_, requests) = cost(&m, || {
        for n in 0..24 {
            fs::read(m.path(&format!("tree/f{:04}.php", n * 929 % 1500))).expect("read");
        }
        std::thread::sleep(RTT * 6);
    });
    eprintln!("{requests} requests");
    // Four for each file: a quarter of the directory.
    assert!(requests <= 1500, "{requests}");
}
