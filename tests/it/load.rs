//! Much at once: many processes, many open files, a directory that is too large for anybody, moves of trees in use. Nothing
//! is starved, and nothing is left behind: no descriptor, no handle on the server.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::{SOON, eventually, needs_root};

/// Files of which a part was read stay open on the server, up to this many, since the next part is asked for soon.
const READERS: usize = 32;

/// Why tests that count the server's handles need root: sftp-server forbids core dumps, and with them a look at its descriptors.
const HANDLES: &str = "what a server of OpenSSH has open is shown to root only";

/// The process behind the mount.
fn driver(m: &Mounted) -> PathBuf {
    Path::new("/proc").join(m.driver().as_raw_nonzero().to_string())
}

/// Its descriptors.
fn descriptors(m: &Mounted) -> usize {
    fs::read_dir(driver(m).join("fd")).expect("listed").count()
}

/// Its memory (bytes).
fn memory(m: &Mounted) -> u64 {
    let status = fs::read_to_string(driver(m).join("status")).expect("there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("said");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Nothing is left behind, here or on the server.
fn nothing_is_left_open(m: &Mounted, before: usize) {
    eventually("descriptors are given back", || descriptors(m) <= before + 16);
    if let Some(sshd) = &m.sshd {
        m.barrier().expect("sent");
        eventually("handles are closed on the server", || sshd.handles() <= READERS);
    }
}

#[test]
fn many_processes_read_and_write_and_leave_nothing_open() {
    if !needs_root(HANDLES) {
        return;
    }
    let Some(m) = Mounted::openssh("") else { return };
    fs::create_dir(m.path("work")).expect("made");
    fs::write(m.path("work/large"), vec![7; 8 << 20]).expect("written");
    m.barrier().expect("sent");
    let before = descriptors(&m);
    let rounds = std::env::var_os("PANTHEONFS_FULL_LOAD").map_or(6, |_| 300);
    let script = "for i in $(seq $1); do mkdir d$0-$i && echo $0 $i > d$0-$i/f && cat d$0-$i/f && mv d$0-$i/f d$0-$i/g \
                  && cksum large > d$0-$i/sum && ls -l d$0-$i && rm d$0-$i/g || exit 1; done";
    let mut children: Vec<_> = (0..64)
        .map(|n| {
            let mut shell = Command::new("sh");
            shell
                .current_dir(m.path("work"))
                .args(["-c", script, &n.to_string(), &rounds.to_string()])
                .stdout(Stdio::null());
            shell.spawn().expect("a shell")
        })
        .collect();
    // Somebody who only looks is not held up by all of that.
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while children.iter_mut().any(|child| child.try_wait().expect("it can be asked").is_none()) {
        let asked = Instant::now();
        fs::metadata(m.path("work")).expect("there");
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(children.iter_mut().all(|child| child.wait().expect("ended").success()));
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    let took = began.elapsed();
    m.barrier().expect("sent");
    for n in 0..64 {
        for i in 1..=rounds {
            let names = fs::read_dir(m.there(&format!("work/d{n}-{i}"))).expect("there");
            assert_eq!(names.flatten().map(|e| e.file_name()).collect::<Vec<_>>(), ["sum"]);
        }
    }
    nothing_is_left_open(&m, before);
    eprintln!("survived: 64 processes, {} operations in {took:?}, longest stat {longest:?}", 64 * rounds * 7);
}

#[test]
fn thousands_of_files_are_open_at_once() {
    if !needs_root(HANDLES) {
        return;
    }
    let Some(m) = Mounted::openssh("") else { return };
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("up to the maximum");
    let count = limit.current.unwrap_or(1 << 20).saturating_sub(200).min(10_000);
    fs::create_dir(m.there("many")).expect("made");
    for n in 0..count {
        fs::write(m.there(&format!("many/{n}")), n.to_string()).expect("written");
    }
    let before = descriptors(&m);
    let mut open: Vec<File> = (0..count).map(|n| File::open(m.path(&format!("many/{n}"))).expect("opened")).collect();
    for (n, file) in open.iter_mut().enumerate().step_by(97) {
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, n.to_string());
    }
    drop(open);
    nothing_is_left_open(&m, before);
}

#[test]
fn a_directory_of_a_hundred_thousand_entries_can_be_listed() {
    let Some(m) = Mounted::openssh("timeout=60") else { return };
    fs::create_dir(m.there("huge")).expect("made");
    for n in 0..100_000 {
        File::create(m.there(&format!("huge/entry-with-a-name-{n}"))).expect("made");
    }
    assert_eq!(fs::read_dir(m.path("huge")).expect("listed").count(), 100_000);
    assert!(m.path("huge/entry-with-a-name-99999").exists() && !m.path("huge/entry").exists());
    fs::write(m.path("huge/new"), "x").expect("written");
    assert_eq!(fs::read(m.on_server("huge/new")).expect("there"), b"x");
}

#[test]
fn directories_are_moved_a_thousand_times_with_files_open_below() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "") else { return };
    fs::create_dir_all(m.path("tree-0/sub")).expect("made");
    fs::write(m.path("tree-0/sub/f"), "some content").expect("written");
    let before = descriptors(&m);
    let mut file = File::options().read(true).write(true).open(m.path("tree-0/sub/f")).expect("opened");
    for n in 0..1000 {
        fs::rename(m.path(&format!("tree-{n}")), m.path(&format!("tree-{}", n + 1))).expect("moved");
        if n % 100 == 0 {
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"!")).expect("written");
        }
    }
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text).map(drop)).expect("read");
    assert_eq!(text, "some content!!!!!!!!!!");
    drop(file);
    assert_eq!(fs::read_to_string(m.on_server("tree-1000/sub/f")).expect("there"), text);
    assert!(!m.there("tree-999").exists());
    nothing_is_left_open(&m, before);
}

/// A file of 10 GiB that is all hole: read here and there, and in a row, without the memory for it.
#[test]
fn a_file_larger_than_memory_is_read_in_pieces() {
    let Some(m) = Mounted::openssh("cache=16M") else { return };
    let size = 10_u64 << 30;
    let file = File::create(m.there("sparse")).expect("made");
    file.set_len(size).expect("grown");
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end", size - 7).expect("written");
    let mut file = File::open(m.path("sparse")).expect("opened");
    let mut piece = vec![1; 100_000];
    let before = memory(&m);
    let began = Instant::now();
    for n in 0..50 {
        file.seek(SeekFrom::Start(n * (size / 51))).and_then(|_| file.read_exact(&mut piece)).expect("read");
        assert!(piece.iter().all(|byte| *byte == 0));
    }
    file.seek(SeekFrom::Start(size - 7)).and_then(|_| file.read_exact(&mut piece[..7])).expect("read");
    assert_eq!(&piece[..7], b"the end");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // All of it where there is time for it.
    let whole = std::env::var_os("PANTHEONFS_FULL_LOAD").map_or(512 << 20, |_| size);
    file.rewind().expect("back");
    let mut done = 0;
    while done < whole {
        done += file.read(&mut piece).expect("read") as u64;
    }
    let more = memory(&m).saturating_sub(before);
    assert!(more < 200 << 20, "{more} bytes of memory for {done} bytes read");
    eprintln!("survived: {} MiB of one file read sequentially, {} MiB of memory", done >> 20, more >> 20);
}

/// The same work over and over does not make the driver larger.
#[test]
fn work_leaves_no_memory_and_no_handles_behind() {
    if !needs_root(HANDLES) {
        return;
    }
    let Some(m) = Mounted::openssh("cache=8M") else { return };
    fs::create_dir(m.path("w")).expect("made");
    let work = |round: usize| {
        for n in 0..60 {
            let at = |name: &str| m.path(&format!("w/{name}-{n}"));
            fs::write(at("a"), format!("{round} {n}").repeat(2000)).expect("written");
            fs::rename(at("a"), at("b")).expect("moved");
            fs::read(at("b")).expect("read");
            fs::create_dir(at("d")).expect("made");
            std::os::unix::fs::symlink("b", at("l")).expect("made");
            assert!(fs::read_dir(m.path("w")).expect("listed").count() >= 3 && !at("none").exists());
            fs::remove_file(at("b")).and_then(|()| fs::remove_file(at("l"))).expect("removed");
            fs::remove_dir(at("d")).expect("removed");
        }
        m.barrier().expect("sent");
    };
    (0..5).for_each(work);
    let (before, open) = (memory(&m), descriptors(&m));
    (5..25).for_each(work);
    nothing_is_left_open(&m, open);
    let more = memory(&m).saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes more after {} operations", 20 * 60 * 9);
    // A directory may be open for a listing in the background.
    let sshd = m.sshd.as_ref().expect("a server");
    eventually("all files are gone", || sshd.handles() == 0);
    eprintln!("survived: {} operations, {} KiB more memory, no open handle left", 20 * 60 * 9, more >> 10);
}

/// Who asks for one small thing does not wait behind what others move: the windows keep the queue on the link short.
#[test]
fn a_stat_beside_a_bulk_copy_takes_a_few_round_trips() {
    const RTT: Duration = Duration::from_millis(100);
    let config = SimConfig { rtt: RTT, ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "cache=32M") else { return };
    let uploads = m.sim_ref().home("dev").join("files");
    // Nobody walks uploads ahead: each of these is unknown until somebody asks, and then costs one listing, two rounds.
    for n in 0..24 {
        fs::create_dir(uploads.join(format!("probe-{n}"))).expect("made");
        fs::write(uploads.join(format!("probe-{n}/x")), "x").expect("written");
    }
    for n in 0..40 {
        File::create(m.there(&format!("big-{n}"))).and_then(|file| file.set_len(24 << 20)).expect("made");
    }
    fs::read_dir(m.path(".pantheon/files")).expect("listed").count();
    fs::read_dir(m.dir()).expect("listed").count();
    let probe = |n: usize| {
        let began = Instant::now();
        fs::metadata(m.path(&format!(".pantheon/files/probe-{n}/x"))).expect("there");
        began.elapsed()
    };
    let median = |mut took: Vec<Duration>| {
        took.sort();
        took[took.len() / 2]
    };
    let idle = median((0..4).map(probe).collect());
    let ended = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..40).take_while(|_| !ended.load(Ordering::Relaxed)) {
                std::io::copy(&mut File::open(m.path(&format!("big-{n}"))).expect("opened"), &mut std::io::sink())
                    .expect("read");
            }
        });
        scope.spawn(|| {
            for n in (0..40).take_while(|_| !ended.load(Ordering::Relaxed)) {
                fs::write(m.path(&format!("copy-{n}")), vec![n as u8; 8 << 20]).expect("written");
                std::thread::sleep(RTT * 4);
            }
        });
        std::thread::sleep(RTT * 10);
        let took: Vec<Duration> = (4..24).map(probe).collect();
        ended.store(true, Ordering::Relaxed);
        median(took)
    });
    eprintln!("survived: a stat in {beside:?} beside a bulk copy, {idle:?} without, round trip {RTT:?}");
    // Two rounds each; the rest is the machine, which the simulator shares with the copy.
    assert!(beside < idle * 3 + RTT * 2, "{beside:?} beside a copy, {idle:?} without");
}

/// The server refuses to open more than 20 handles and does not tell. That is no verdict on any file.
#[test]
fn a_server_with_few_handles_takes_and_gives_everything() {
    const FILES: usize = 400;
    let rtt = Duration::from_millis(50);
    let config = SimConfig { rtt, quirks: vec![("handles".into(), "few".into())], ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
    let name = |n: usize| format!("many/d{}/f{n}", n % 40);
    (0..40).for_each(|n| fs::create_dir_all(m.path(&format!("many/d{n}"))).expect("made"));
    m.barrier().expect("sent");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..FILES {
                fs::write(m.path(&name(n)), n.to_string()).expect("saved");
            }
        });
        for _ in 0..8 {
            scope.spawn(|| {
                let grep =
                    Command::new("grep").args(["-rc", "--exclude-dir=many", "no such word"]).arg(m.dir()).output();
                let grep = grep.expect("it runs");
                assert_eq!(grep.status.code(), Some(1), "{}", String::from_utf8_lossy(&grep.stderr));
            });
        }
    });
    m.barrier().expect("sent");
    for n in 0..FILES {
        assert_eq!(fs::read_to_string(m.there(&name(n))).expect("there"), n.to_string());
    }
    let status = m.status();
    assert_eq!((&status["conflicts"], &status["stranded"]), (&serde_json::json!([]), &serde_json::json!([])));
}
