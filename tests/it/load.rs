//! Much at once: many processes, many open files, a directory that is too large for anybody, moves of trees in use. Nothing
//! is starved, and nothing is left behind: no descriptor, no handle on the server.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::{SOON, eventually};

/// Descriptors of the process behind the mount.
fn descriptors(m: &Mounted) -> usize {
    let wanted = m.dir().to_string_lossy().into_owned();
    for process in fs::read_dir("/proc").expect("listed").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
        if words.contains(&&b"--report"[..]) && words.contains(&wanted.as_bytes()) {
            return fs::read_dir(process.path().join("fd")).expect("listed").count();
        }
    }
    panic!("there is no process behind the mount");
}

#[test]
fn many_processes_read_and_write_and_leave_nothing_open() {
    let Some(m) = Mounted::openssh("") else { return };
    fs::create_dir(m.path("work")).expect("made");
    fs::write(m.path("work/large"), vec![7; 8 << 20]).expect("written");
    m.barrier().expect("sent");
    let before = descriptors(&m);
    let script = "for i in 1 2 3 4 5 6; do mkdir d$0-$i && echo $0 $i > d$0-$i/f && cat d$0-$i/f && mv d$0-$i/f d$0-$i/g \
                  && cksum large > d$0-$i/sum && ls -l d$0-$i && rm d$0-$i/g || exit 1; done";
    let mut children: Vec<_> = (0..64)
        .map(|n| {
            let mut shell = Command::new("sh");
            shell.current_dir(m.path("work")).args(["-c", script, &n.to_string()]).stdout(Stdio::null());
            shell.spawn().expect("a shell")
        })
        .collect();
    // Somebody who only looks is not held up by all of that.
    let mut longest = Duration::ZERO;
    while children.iter_mut().any(|child| child.try_wait().expect("it can be asked").is_none()) {
        let began = Instant::now();
        fs::metadata(m.path("work")).expect("there");
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(children.iter_mut().all(|child| child.wait().expect("ended").success()));
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    for n in 0..64 {
        for i in 1..=6 {
            let names = fs::read_dir(m.on_server(&format!("work/d{n}-{i}"))).expect("there");
            assert_eq!(names.flatten().map(|e| e.file_name()).collect::<Vec<_>>(), ["sum"]);
        }
    }
    eventually("descriptors are given back", || descriptors(&m) <= before + 16);
}

#[test]
fn thousands_of_files_are_open_at_once() {
    let Some(m) = Mounted::openssh("") else { return };
    let count = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(10_000);
    let count = count.saturating_sub(200).min(10_000);
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
    eventually("descriptors are given back", || descriptors(&m) <= before + 16);
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
    eventually("descriptors are given back", || descriptors(&m) <= before + 16);
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
    let began = Instant::now();
    for n in 0..50 {
        file.seek(SeekFrom::Start(n * (size / 51))).and_then(|_| file.read_exact(&mut piece)).expect("read");
        assert!(piece.iter().all(|byte| *byte == 0));
    }
    file.seek(SeekFrom::Start(size - 7)).and_then(|_| file.read_exact(&mut piece[..7])).expect("read");
    assert_eq!(&piece[..7], b"the end");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
