//! Connections that are replaced before the platform ends them, with readers and writers at work; and those of a machine that
//! slept or moved.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use pantheonfs::remote::{Link, Machine, Remote, RemoteConfig, SessionAge, WakeDetect};
use pantheonfs::sim::SimConfig;
use pantheonfs::transport::{Transport, TransportInfo};

use crate::common::sim_remote::SimRemote;
use crate::common::{eventually, has_fuse, has_program, skip, watch};

/// An hour, for those who have no time.
const SESSION_AGE: SessionAge =
    SessionAge { renew_after: Duration::from_millis(1200), max: Duration::from_millis(1800) };
/// How long the work goes on.
const WORK: Duration = Duration::from_secs(8);
/// A pause, and no failure: 2 s for what is under way, and a new connection on a machine that has other things to do.
const PAUSE: Duration = Duration::from_secs(5);

fn with(second: &str, session_age: SessionAge) -> SimRemote {
    let quirks = vec![("second-connection".to_owned(), second.to_owned())];
    let config = SimConfig { quirks, rtt: Duration::from_millis(2), ..SimConfig::default() };
    SimRemote::with(&config, |config| RemoteConfig { session_age, ..config })
}

fn pattern(seed: u32, len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(seed) >> 7) as u8).collect()
}

/// The longest that a piece of work took.
fn repeat(stop: &AtomicBool, mut work: impl FnMut(u32)) -> Duration {
    let (mut longest, mut n) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        work(n);
        longest = longest.max(began.elapsed());
        n += 1;
    }
    longest
}

/// Two readers (one of a file that stays open, far larger than the cache) and a writer.
fn work_goes_on(m: &SimRemote) -> Duration {
    let bytes = pattern(7919, 6_000_000);
    fs::write(m.there("big.bin"), &bytes).expect("written");
    let open = File::open(m.path("big.bin")).expect("opened before the first connection ends");
    let (mount, server) = (m.path(""), m.there(""));
    let (path, there) = (|name: &str| mount.join(name), |name: &str| server.join(name));
    let stop = AtomicBool::new(false);
    let longest = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            repeat(&stop, |n| {
                let (mut piece, at) = ([0; 20_000], u64::from(n) * 655_360 % 5_900_000);
                let began = Instant::now();
                if let Err(error) = open.read_exact_at(&mut piece, at) {
                    let status = fs::read_to_string(path(".pantheon/status")).unwrap_or_default();
                    panic!("read in the middle of it: {error} after {:?}: {status}", began.elapsed());
                }
                assert!(piece == bytes[at as usize..at as usize + 20_000]);
            })
        });
        let writing = scope.spawn(|| {
            repeat(&stop, |n| {
                let content = pattern(n + 3, 40_000 + n);
                let name = format!("saved-{}.php", n % 5);
                fs::write(path(&name), &content).expect("saved in the middle of it");
                fs::write(path(".pantheon/sync"), "now\n").expect("and sent");
                let now = fs::read(there(&name)).expect("there");
                let status = || fs::read_to_string(path(".pantheon/status")).unwrap_or_default();
                assert!(now == content, "save {n}: {} bytes are there, not {}: {}", now.len(), content.len(), status());
            })
        });
        let listing = scope.spawn(|| {
            repeat(&stop, |n| {
                let dir = path(&format!("made-{n}"));
                fs::create_dir(&dir).expect("made in the middle of it");
                assert_eq!(fs::read_dir(&dir).expect("listed").count(), 0);
                // Local work is fast: thousands of directories a second are another test's business.
                thread::sleep(Duration::from_millis(10));
            })
        });
        thread::sleep(WORK);
        stop.store(true, Ordering::Relaxed);
        [reading, writing, listing].map(|worker| worker.join().expect("nobody noticed more than a pause"))
    });
    longest.into_iter().max().unwrap_or_default()
}

#[test]
fn a_connection_is_replaced_beside_the_old_one_where_the_server_allows_it() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let m = with("allow", SESSION_AGE);
    let longest = work_goes_on(&m);
    assert!(longest < PAUSE, "a pause: {longest:?}");
    assert!(m.connections() > 3, "{} connections", m.connections());
    assert_eq!(m.sessions().1, 2, "never more than two at once");
    eventually("the old ones are gone", || m.sessions().0 == 1);
}

/// What is under way on the old one fails with it, and goes to the new one.
#[test]
fn a_server_may_end_the_old_connection_when_the_new_one_begins() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let m = with("replace", SESSION_AGE);
    let longest = work_goes_on(&m);
    assert!(longest < PAUSE, "a pause: {longest:?}");
    assert!(m.connections() > 3, "{} connections", m.connections());
    eventually("one is left", || m.sessions().0 == 1);
}

#[test]
fn where_the_server_takes_one_connection_the_old_one_ends_first() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let m = with("refuse", SESSION_AGE);
    let longest = work_goes_on(&m);
    assert!(longest < PAUSE, "a pause: {longest:?}");
    assert!(m.connections() > 3, "{} connections", m.connections());
    assert_eq!(m.sessions().1, 1, "never two at once");
    assert_eq!(m.sessions().0, 1);
}

/// The same through the ssh program, which says late and in words of its own that it is refused.
#[test]
fn the_ssh_program_is_replaced_as_well() {
    if !has_fuse() || !has_program("ssh") {
        return;
    }
    let _watch = watch();
    for (second, most) in [("allow", 2), ("refuse", 1)] {
        let quirks = [("second-connection", second), ("host-key", "rsa-sha1")];
        let quirks = quirks.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let session_age = SessionAge { renew_after: Duration::from_millis(1200), max: Duration::from_millis(1800) };
        let config = SimConfig { quirks, ..SimConfig::default() };
        let m = SimRemote::with(&config, |config| RemoteConfig { session_age, ..config });
        let longest = work_goes_on(&m);
        assert!(longest < PAUSE, "{second}: a pause: {longest:?}");
        assert!(m.connections() > 3, "{second}: {} connections", m.connections());
        assert_eq!(m.sessions().1, most, "{second}");
    }
}

/// A server that takes one connection says so once in the life of a mount.
#[test]
fn a_refusal_is_remembered() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let (remote, asked): (Arc<OnceLock<Remote>>, Arc<AtomicU64>) = Default::default();
    let (seen, counted) = (remote.clone(), asked.clone());
    let quirks = vec![("second-connection".to_owned(), "refuse".to_owned())];
    let m = SimRemote::with(&SimConfig { quirks, ..SimConfig::default() }, |config| {
        let dial = config.dial;
        let counting = move |deadline| {
            let beside = seen.get().is_some_and(|remote| matches!(remote.link(), Link::Up { .. }));
            counted.fetch_add(u64::from(beside), Ordering::Relaxed);
            dial(deadline)
        };
        RemoteConfig { session_age: SESSION_AGE, dial: Box::new(counting), ..config }
    });
    assert!(remote.set(m.remote.clone()).is_ok());
    eventually("it was replaced several times", || m.connections() >= 8);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "connections that were tried beside another");
    m.remote.close();
}

/// One save that takes longer than a connection may live: it is not interrupted for ever.
#[test]
fn a_transfer_that_is_longer_than_a_connection_arrives() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let session_age = SessionAge { renew_after: Duration::from_millis(300), max: Duration::from_millis(800) };
    for second in ["allow", "refuse"] {
        let m = with(second, session_age);
        m.control("rtt", r#"{"ms": 40}"#);
        let content = pattern(31, 24_000_000);
        fs::write(m.path("large.bin"), &content).expect("saved here");
        let began = Instant::now();
        eventually("it arrives", || {
            let _ = fs::write(m.path(".pantheon/sync"), "now\n");
            fs::read(m.there("large.bin")).is_ok_and(|there| there == content)
        });
        assert!(m.connections() > 1, "{second}: it took {:?}, which is no long transfer", began.elapsed());
    }
}

/// A connection that finds itself slower than another would be, if it is the first.
struct Outdone(Box<dyn Transport>, bool);

impl Transport for Outdone {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        self.0.wait(want_write, wake, timeout)
    }

    fn info(&self) -> TransportInfo {
        self.0.info()
    }

    fn report_rate(&mut self, _rate: u64) -> bool {
        self.1
    }
}

/// Where the server takes a second one for a moment; elsewhere it would cost a pause, and it may be no faster.
#[test]
fn a_slower_connection_is_replaced_in_the_middle_of_a_transfer() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    for second in ["allow", "refuse"] {
        let quirks = vec![("second-connection".to_owned(), second.to_owned())];
        let dialled = Arc::<AtomicU64>::default();
        let count = dialled.clone();
        // 4 MB/s: a second is enough for any machine.
        let config = SimConfig { quirks, mbit: 32, ..SimConfig::default() };
        let m = SimRemote::with(&config, |config| {
            let dial = config.dial;
            let outdone = move |deadline| {
                let first = count.fetch_add(1, Ordering::Relaxed) == 0;
                let transport = dial(deadline)?;
                Ok(Box::new(Outdone(transport, first)) as Box<dyn Transport>)
            };
            RemoteConfig { dial: Box::new(outdone), ..config }
        });
        let content = pattern(31, 12_000_000);
        eventually("it measured itself, and another was tried", || {
            fs::write(m.path("large.bin"), &content).expect("saved");
            fs::write(m.path(".pantheon/sync"), "now\n").expect("and sent");
            assert!(fs::read(m.there("large.bin")).expect("there") == content);
            dialled.load(Ordering::Relaxed) == 2
        });
        let made = if second == "allow" { 2 } else { 1 };
        eventually("one is left", || m.sessions().0 == 1);
        assert_eq!((m.connections(), m.sessions().1), (made, made), "{second}");
        fs::write(m.path("large.bin"), &content).expect("saved");
        fs::write(m.path(".pantheon/sync"), "now\n").expect("and sent");
        assert_eq!(dialled.load(Ordering::Relaxed), 2, "{second}: nothing more is tried");
    }
}

/// A machine that wakes up when the test says so.
#[derive(Default)]
struct Sleeper(Arc<AtomicBool>);

impl WakeDetect for Sleeper {
    fn disturbance(&self, _: Option<std::net::SocketAddr>) -> Option<String> {
        self.0.swap(false, Ordering::Relaxed).then(|| "the machine slept for 3600 s".to_owned())
    }
}

/// A laptop that was asleep has a connection that looks well and carries nothing: it is looked at, and not believed.
#[test]
fn a_machine_that_slept_or_moved_is_connected_again_at_once() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let woken = Arc::new(AtomicBool::new(false));
    let wake_detect = Box::new(Sleeper(woken.clone()));
    let m = SimRemote::with(&SimConfig::default(), |config| {
        // Nothing else would notice for a long time.
        RemoteConfig { wake_detect, timeout: Duration::from_secs(100), ..config }
    });
    assert!(fs::read(m.path("index.php")).is_ok());
    let before = m.connections();
    woken.store(true, Ordering::Relaxed);
    eventually("it was looked at", || !woken.load(Ordering::Relaxed));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(m.connections(), before, "a connection that answers stays");
    // The old connection is dead without a word; what is made from now on works.
    m.control("abandon", "{}");
    let file = m.path("wp-includes/js/dist/part-06.php");
    let began = Instant::now();
    let waiting = thread::spawn(move || fs::read(file).map(|bytes| bytes.len()));
    thread::sleep(Duration::from_millis(300));
    woken.store(true, Ordering::Relaxed);
    eventually("there is another connection", || m.connections() > before);
    assert!(waiting.join().expect("no panic").expect("read over the next connection") > 100);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Without a network the next try is far away; with one it is made at once.
#[test]
fn a_network_that_is_back_ends_the_waiting() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let woken = Arc::new(AtomicBool::new(false));
    let wake_detect = Box::new(Sleeper(woken.clone()));
    let m = SimRemote::with(&SimConfig::default(), |config| RemoteConfig { wake_detect, ..config });
    m.control("habit", r#"{"name": "sleep", "value": "closed"}"#);
    m.control("cut", "{}");
    // 0.1, 0.5, 1, 2, 5 s: the next pause has ten.
    thread::sleep(Duration::from_secs(9));
    assert!(matches!(m.remote.link(), Link::Down { .. }));
    m.control("habit", r#"{"name": "sleep", "value": "off"}"#);
    woken.store(true, Ordering::Relaxed);
    let began = Instant::now();
    eventually("it is connected", || matches!(m.remote.link(), Link::Up { .. }));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// The kernel's own routes, in a network of its own: a test program started anew, which runs the test below.
#[test]
fn a_move_to_another_network_is_seen_in_the_kernels_routes() {
    if !has_program("unshare") || !has_program("ip") {
        return;
    }
    let allowed = Command::new("unshare").args(["-rn", "true"]).status().is_ok_and(|status| status.success());
    if !allowed {
        return skip("a network of one's own may not be made here");
    }
    let mut inside = Command::new("unshare");
    inside.arg("-rn").arg(std::env::current_exe().expect("this program"));
    inside.args(["--exact", "sessions::inside_a_network_of_its_own", "--ignored", "--nocapture"]);
    let output = inside.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "changes routes: only inside a network of its own"]
fn inside_a_network_of_its_own() {
    let ip = |line: &str| {
        let done = Command::new("ip").args(line.split(' ')).status().expect("ip runs");
        assert!(done.success(), "ip {line}");
    };
    // Not by mistake in the network of everybody, which has more than what a kernel puts into every new one.
    let links = fs::read_to_string("/proc/self/net/dev").expect("listed");
    let outward = |line: &&str| ["eth", "en", "wl"].iter().any(|kind| line.trim_start().starts_with(kind));
    assert_eq!(links.lines().skip(2).filter(outward).count(), 0, "{links}");
    for line in ["link set lo up", "addr add 10.9.9.1/24 dev lo", "addr add 10.9.9.2/24 dev lo"] {
        ip(line);
    }
    let machine = Machine::default();
    let peer = Some(std::net::SocketAddr::from(([192, 0, 2, 77], 2222)));
    ip("route add 192.0.2.0/24 dev lo src 10.9.9.1");
    assert_eq!((machine.disturbance(peer), machine.disturbance(peer)), (None, None));
    // Another address: a VPN, another Wi-Fi.
    ip("route change 192.0.2.0/24 dev lo src 10.9.9.2");
    assert_eq!(machine.disturbance(peer).as_deref(), Some("the network changed"));
    assert_eq!(machine.disturbance(peer), None);
    // No way out, and one again.
    ip("route del 192.0.2.0/24 dev lo");
    assert_eq!(machine.disturbance(peer), None);
    ip("route add 192.0.2.0/24 dev lo src 10.9.9.2");
    assert_eq!(machine.disturbance(peer).as_deref(), Some("the network is back"));
}
