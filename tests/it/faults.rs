//! Links that break, at the worst moments.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pantheonfs::sim::SimConfig;

use crate::common::eventually;
use crate::common::mounted::Mounted;

/// Time limits of the mounts here are short, and nothing may take much longer.
const LIMIT: Duration = Duration::from_secs(2);
const MUCH_LONGER: Duration = Duration::from_secs(15);

fn site(options: &str) -> Option<Mounted> {
    Mounted::sim_with(&SimConfig::default(), "dev", &format!("timeout={},{options}", LIMIT.as_secs()))
}

#[test]
fn a_reader_notices_at_most_a_pause() {
    let Some(m) = site("") else { return };
    let bytes: Vec<u8> = (0..6_000_000_u32).map(|n| (n / 3) as u8).collect();
    fs::write(m.on_server("big.bin"), &bytes).expect("written");
    let mut file = File::open(m.path("big.bin")).expect("opened");
    let (mut read, mut piece) = (Vec::new(), vec![0; 500_000]);
    loop {
        let n = file.read(&mut piece).expect("read across the cuts");
        if n == 0 {
            break;
        }
        read.extend_from_slice(&piece[..n]);
        m.control("cut", "{}");
    }
    assert!(read == bytes);
    for n in 0..5 {
        m.control("cut", "{}");
        fs::create_dir(m.path(&format!("dir{n}"))).expect("made on the next connection");
        fs::write(m.path(&format!("dir{n}/f")), "x").expect("written on the next connection");
        assert_eq!(fs::read(m.on_server(&format!("dir{n}/f"))).expect("there"), b"x");
    }
}

#[test]
fn the_new_home_path_after_a_migration_is_found() {
    let Some(m) = site("") else { return };
    for n in 0..3 {
        m.control("migrate", r#"{"environment": "dev"}"#);
        fs::write(m.path("index.php"), n.to_string()).expect("written");
        assert_eq!(fs::read(m.on_server("index.php")).expect("there"), n.to_string().as_bytes());
    }
}

#[test]
fn nothing_waits_longer_than_the_time_limit() {
    let Some(m) = site("") else { return };
    m.control("stall", r#"{"stalled": true}"#);
    let began = Instant::now();
    let error = fs::read_dir(m.path("wp-content/themes")).expect_err("not known, and nobody answers");
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{error}");
    assert!(began.elapsed() < MUCH_LONGER, "{:?}", began.elapsed());
    let began = Instant::now();
    rustix::fs::statvfs(m.dir()).expect("df does not ask anybody");
    assert!(began.elapsed() < LIMIT);
    m.control("stall", r#"{"stalled": false}"#);
    eventually("the link is back", || fs::read_dir(m.path("wp-content/themes")).is_ok());
}

#[test]
fn a_waiting_program_can_be_killed() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=60") else { return };
    m.control("stall", r#"{"stalled": true}"#);
    for signal in ["-INT", "-TERM", "-KILL"] {
        let mut ls = Command::new("ls")
            .arg(m.path("wp-includes"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ls");
        std::thread::sleep(Duration::from_millis(400));
        assert!(ls.try_wait().expect("waits").is_none(), "it waits for the link");
        let sent = Instant::now();
        assert!(Command::new("kill").args([signal, &ls.id().to_string()]).status().expect("kill runs").success());
        ls.wait().expect("it ends");
        assert!(sent.elapsed() < Duration::from_secs(5), "{signal}: {:?}", sent.elapsed());
    }
    m.control("stall", r#"{"stalled": false}"#);
}

#[test]
fn a_save_while_the_link_is_down_arrives_when_it_is_back() {
    let Some(m) = site("") else { return };
    fs::read(m.path("index.php")).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    let began = Instant::now();
    let mut file = File::options().write(true).truncate(true).open(m.path("index.php")).expect("known, so it opens");
    file.write_all(b"written on a train").expect("written here");
    file.sync_all().expect("it is on the local disk");
    drop(file);
    assert!(began.elapsed() < Duration::from_secs(10), "saving does not wait for the link: {:?}", began.elapsed());
    assert_eq!(m.status()["dirty"], serde_json::json!(["index.php"]));
    assert_eq!(fs::read(m.path("index.php")).expect("shown here"), b"written on a train");
    m.control("stall", r#"{"stalled": false}"#);
    eventually("it arrives by itself", || {
        fs::read(m.there("index.php")).is_ok_and(|bytes| bytes == b"written on a train")
    });
    eventually("nothing waits any more", || m.status()["dirty"] == serde_json::json!([]));
}

#[test]
fn a_cut_in_the_middle_of_a_save_leaves_old_or_new_content() {
    for extensions in ["on", "off"] {
        let quirks = vec![("extensions".into(), extensions.into())];
        let config = SimConfig { quirks, rtt: Duration::from_millis(10), ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "timeout=5") else { return };
        let content = |n: u8| vec![b'a' + n; 400_000 + usize::from(n)];
        fs::write(m.path("live.php"), content(0)).expect("written");
        let url = format!("{}/cut", m.sim_ref().control());
        for n in 1..12_u8 {
            let cutter = {
                let url = url.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(u64::from(n) * 7));
                    crate::common::mounted::post(&url, "{}");
                })
            };
            let saved = fs::write(m.path("live.php"), content(n));
            cutter.join().expect("cut");
            if saved.is_err() {
                eventually("it arrives by itself", || fs::read(m.on_server("live.php")).is_ok_and(|b| b == content(n)));
            }
            let there = fs::read(m.on_server("live.php")).expect("there");
            assert!(
                there == content(n),
                "extensions {extensions}, save {n}: {} bytes of {:?}",
                there.len(),
                there.first()
            );
        }
        assert_eq!(m.status()["conflicts"], serde_json::json!([]), "our own half-done save is no conflict");
        let left: Vec<_> = fs::read_dir(m.sim_ref().home("dev").join("tmp")).expect("listed").collect();
        assert!(left.len() <= 12, "at most one temporary file per cut: {left:?}");
    }
}

#[test]
fn what_others_change_is_seen_within_the_freshness() {
    let Some(m) = site("fresh=1") else { return };
    assert!(fs::read(m.path("index.php")).expect("read").starts_with(b"<?php"));
    fs::write(m.on_server("index.php"), "by a teammate").expect("changed");
    fs::write(m.on_server("appeared.php"), "new").expect("made");
    fs::remove_file(m.on_server("wp-load.php")).expect("removed");
    eventually("the change is seen", || fs::read(m.path("index.php")).is_ok_and(|b| b == b"by a teammate"));
    eventually("the new file is seen", || fs::read(m.path("appeared.php")).is_ok_and(|b| b == b"new"));
    eventually("the removed file is gone", || !m.path("wp-load.php").exists());
}

/// The bounds themselves: one look right after `fresh=` shows what others did to names, and with the default of 30 s an
/// `open` after 5 s shows their content.
#[test]
fn names_are_as_old_as_fresh_permits_and_content_five_seconds() {
    let Some(m) = site("fresh=3") else { return };
    assert!(m.path("wp-load.php").exists() && !m.path("appeared.php").exists());
    fs::write(m.on_server("appeared.php"), "new").expect("made");
    fs::remove_file(m.on_server("wp-load.php")).expect("removed");
    std::thread::sleep(Duration::from_millis(3100));
    assert!(m.path("appeared.php").exists() && !m.path("wp-load.php").exists());

    let Some(m) = site("") else { return };
    assert!(fs::read(m.path("index.php")).expect("read").starts_with(b"<?php"));
    fs::write(m.on_server("index.php"), "by a teammate").expect("changed");
    std::thread::sleep(Duration::from_millis(5100));
    assert_eq!(fs::read(m.path("index.php")).expect("read"), b"by a teammate");
}

#[test]
fn what_could_not_be_sent_before_the_end_is_sent_by_the_next_mount() {
    let Some(m) = site("") else { return };
    fs::read(m.path("index.php")).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("index.php"), "last words").expect("saved here");
    let ran = m.umount();
    assert_eq!(ran.code(), 0, "{}", ran.err());
    assert!(ran.err().contains("1 change(s) are not on the server yet"), "{}", ran.err());
    let lock = m.environ().state().join(format!("{}.dev/lock", m.sim_ref().site()));
    eventually("the process has ended", || {
        let lock = File::open(&lock).expect("there");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    m.control("stall", r#"{"stalled": false}"#);
    let again = m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    let said = "1 change(s) that the last mount could not send are on the server now";
    assert!(again.err().contains(said), "{}", again.err());
    assert_eq!(fs::read(m.there("index.php")).expect("there"), b"last words");
    assert_eq!(m.status()["waiting"], 0);
}

/// With a link on which nothing passes, and nobody told: what is known is answered, however old it is.
#[test]
fn a_stalled_link_does_not_hold_up_what_is_known() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=15,fresh=1") else { return };
    // What was written this very second is not remembered.
    std::thread::sleep(Duration::from_secs(4));
    let names = || fs::read_dir(m.path("wp-content")).expect("listed").count();
    let before = (names(), fs::read(m.path("index.php")).expect("read"));
    m.barrier().expect("nothing waits");
    m.control("stall", r#"{"stalled": true}"#);
    // Older than anybody may be shown while the link is up.
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    assert_eq!((names(), fs::read(m.path("index.php")).expect("read")), before);
    let first = began.elapsed();
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!((names(), fs::read(m.path("index.php")).expect("read")), before);
        assert!(fs::metadata(m.path("wp-content/themes")).is_ok());
        assert!(fs::metadata(m.path("no-such-name")).is_err());
        let space = Command::new("df").arg(m.dir()).stdout(Stdio::null()).status().expect("df runs");
        assert!(space.success());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(first < Duration::from_secs(6), "the first who notices: {first:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "those who come after him: {:?}", began.elapsed());
    m.control("stall", r#"{"stalled": false}"#);
    fs::write(m.there("wp-content/new.php"), "x").expect("made there");
    eventually("it goes on", || names() == before.0 + 1);
}

/// A server of the plainest kind: no extensions, one entry in an answer, 4 KiB in another.
#[test]
fn a_server_without_optional_features_is_enough() {
    let quirks = [("extensions", "off"), ("pages", "single"), ("reads", "short"), ("rename", "refuse")];
    let quirks = quirks.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let Some(m) = Mounted::sim_with(&SimConfig { quirks, ..SimConfig::default() }, "dev", "") else { return };
    let bytes: Vec<u8> = (0..300_001_u32).map(|n| (n / 7) as u8).collect();
    fs::write(m.there("large.bin"), &bytes).expect("written");
    for n in 0..150 {
        fs::write(m.there(&format!("wp-content/{n}.php")), n.to_string()).expect("written");
    }
    assert!(fs::read(m.path("large.bin")).expect("read") == bytes);
    let names = |root: std::path::PathBuf| {
        let mut names: Vec<_> = fs::read_dir(root).expect("listed").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(m.path("wp-content")), names(m.there("wp-content")));
    fs::write(m.path("large.bin"), &bytes[..200_000]).expect("saved");
    fs::rename(m.path("large.bin"), m.path("wp-content/moved.bin")).expect("moved");
    assert!(fs::read(m.on_server("wp-content/moved.bin")).expect("there") == bytes[..200_000]);
    assert!(!m.there("large.bin").exists());
}

/// As long as pieces of a file arrive, whoever waits for the server goes on waiting.
#[test]
fn a_save_that_takes_longer_than_the_time_limit_is_waited_for() {
    let config = SimConfig { mbit: 8, ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "timeout=3") else { return };
    // Nothing that can be compressed: 6 s at 1 MB/s.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let content: Vec<u8> = noise.take(6_000_000).collect();
    fs::write(m.path("large.bin"), &content).expect("saved here");
    let began = Instant::now();
    if let Err(error) = m.barrier() {
        panic!("{error}: {}", fs::read_to_string(m.path(".pantheon/status")).unwrap_or_default());
    }
    assert!(began.elapsed() > Duration::from_secs(3), "it was sent too fast to say anything");
    assert!(fs::read(m.there("large.bin")).expect("there") == content);
}
