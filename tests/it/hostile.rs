//! A server that is broken or means harm: names that are none, attributes that lie, directories and trees without an end,
//! links that lead out, greetings of nonsense. An error or what is left of the truth; never a panic, a hang, memory without
//! bounds, or a way out of the mount. (Single answers that are nonsense: `requests`.)

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pantheonfs::clock::Deadline;
use pantheonfs::fs::OpenMode;
use pantheonfs::remote::{Remote, RemoteConfig};
use pantheonfs::sftp::{Class, Config, Engine, Request, SftpError};

use crate::common::inner::{Inner, wait};
use crate::common::mounted::Mounted;
use crate::common::scripted::{
    Asked, DIR, FILE, FSTAT, LINK, OPEN, OPENDIR, READ, READDIR, READLINK, REALPATH, Scripted, attributes, data, dial,
    names, packet, text,
};
use crate::common::{SOON, eventually};
use crate::memory::peak_of;

/// What listings, the table and the answers may take, whatever the server says (bytes). Other tests run meanwhile.
const MEMORY: usize = 900 << 20;

/// The file system on a server that says this, asked anew every time.
fn on(script: impl Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync + 'static) -> (Inner, Arc<AtomicU64>) {
    let dials = Arc::new(AtomicU64::new(0));
    (Inner::on(dial(&dials, script), Duration::ZERO), dials)
}

/// A server that has these in its root, and nothing else.
fn with_root(entries: Vec<(Vec<u8>, Vec<u8>)>) -> impl Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync {
    move |asked| match (asked.kind, asked.path.as_str(), asked.times) {
        (READDIR, ".", 0) => Some(vec![names(asked.id, &entries)]),
        _ => None,
    }
}

#[test]
fn entries_with_invalid_names_are_left_out() {
    let bad: [&[u8]; 9] =
        [b"../etc", b"/etc/passwd", b"a/b", b"nul\0", b"..", b".", b"", &[b'x'; 65_000], &[b'y'; 256]];
    let good: [&[u8]; 4] = [b"good", b"twice", b"twice", b"\xff\n odd"];
    let all = bad.into_iter().chain(good).map(|name| (name.to_vec(), attributes(1, FILE, 7))).collect();
    let (inner, _) = on(with_root(all));
    assert_eq!(inner.names("").expect("listed"), ["good", "twice", "\u{fffd}\n odd"]);
    for name in bad {
        let found = inner.fs.lookup(pantheonfs::inode::ROOT, name, wait());
        assert!(!matches!(found, Ok((Some(_), _))), "{name:?}");
    }
    eprintln!("survived: {} invalid names", bad.len());
}

#[test]
fn false_attributes_cause_errors_at_most() {
    let sizes = [0, 1, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX];
    let kinds = [FILE, DIR, LINK, 0o010_000, 0o140_000, 0o170_777, 0o100_000 | 0o7777, u32::MAX, 0];
    let mut entries = Vec::new();
    for size in sizes {
        for kind in kinds {
            for mtime in [0, i32::MAX as u32, 1 << 31, u32::MAX] {
                entries.push((format!("{size}-{kind}-{mtime}").into_bytes(), attributes(size, kind, mtime)));
            }
        }
    }
    let count = entries.len();
    let (inner, _) = on(with_root(entries.clone()));
    assert_eq!(inner.names("").expect("listed").len(), count);
    for (name, _) in &entries {
        let name = String::from_utf8_lossy(name);
        let ino = inner.find(&name).expect("there");
        let attr = inner.fs.getattr(ino, wait()).expect("attributes").attr;
        assert!(attr.size <= i64::MAX as u64, "{name}: the kernel cannot say {}", attr.size);
        let reading = OpenMode { read: true, write: false, truncate: false };
        let Ok(handle) = inner.fs.open(ino, reading, wait()) else { continue };
        for offset in [0, 1 << 33, i64::MAX as u64 - 10, u64::MAX - 10] {
            drop(inner.fs.read(handle.handle, offset, 131_072, wait()));
        }
        inner.fs.release(handle.handle, wait()).expect("closed");
    }
    eprintln!("survived: {count} invalid sets of attributes");
}

#[test]
fn a_file_may_turn_into_a_directory_and_back() {
    let turns = Arc::new(AtomicU64::new(0));
    let now = turns.clone();
    let (inner, _) = on(move |asked| {
        let kind = if now.load(Ordering::SeqCst).is_multiple_of(2) { FILE } else { DIR };
        match (asked.kind, asked.path.as_str(), asked.times) {
            (READDIR, ".", 0) => Some(vec![names(asked.id, &[("x", attributes(3, kind, 7))])]),
            (READ, ..) => Some(vec![data(asked.id, b"abc")]),
            (FSTAT, ..) => Some(vec![packet(105, asked.id, &attributes(3, FILE, 7))]),
            _ => None,
        }
    });
    for turn in 0..20 {
        turns.store(turn, Ordering::SeqCst);
        inner.fs.renew_everything();
        let is_dir = inner.fs.getattr(inner.find("x").expect("there"), wait()).expect("attributes").attr.is_dir();
        assert_eq!(is_dir, turn % 2 == 1);
        assert_eq!(inner.read("x").is_ok(), !is_dir);
        // Nobody but the kernel opens directories, and it knows which are.
        assert!(!is_dir || inner.names("x").is_ok());
    }
}

/// What a READDIR is answered with.
type Page = Box<dyn Fn(&Asked) -> Vec<u8> + Send + Sync>;

#[test]
fn an_endless_directory_is_an_error() {
    let page = |asked: &Asked, from: u64| {
        let entries: Vec<_> = (from..from + 1000).map(|n| (format!("{n:0200}"), attributes(1, FILE, 7))).collect();
        names(asked.id, &entries)
    };
    let nothing: &[(&str, Vec<u8>)] = &[];
    let pages: [(&str, Page); 5] = [
        ("new names", Box::new(move |asked| page(asked, asked.times * 1000))),
        ("the same page", Box::new(move |asked| page(asked, 0))),
        ("empty pages", Box::new(move |asked| names(asked.id, nothing))),
        ("dots", Box::new(|asked| names(asked.id, &[(".", attributes(1, DIR, 7)), ("..", attributes(1, DIR, 7))]))),
        ("what is no name", Box::new(|asked| names(asked.id, &[([b'x'; 60_000], attributes(1, FILE, 7))]))),
    ];
    for (what, page) in pages {
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let script = move |asked: &Asked| {
            (asked.kind == READDIR).then(|| {
                count.fetch_add(1, Ordering::SeqCst);
                vec![page(asked)]
            })
        };
        let ((inner, dials), peak) = peak_of(|| {
            let (inner, dials) = on(script);
            let began = Instant::now();
            let listed = inner.names("");
            assert!(listed.is_err() && began.elapsed() < SOON, "{what}: {:?}", listed.map(|names| names.len()));
            let mut before = u64::MAX;
            eventually("nobody asks any more", || {
                std::thread::sleep(Duration::from_millis(200));
                std::mem::replace(&mut before, asked.load(Ordering::SeqCst)) == asked.load(Ordering::SeqCst)
            });
            (inner, dials)
        });
        assert!(peak < MEMORY, "{what}: {peak} bytes");
        assert_eq!(dials.load(Ordering::SeqCst), 1, "{what}: the connection is not at fault");
        drop(inner);
    }
    eprintln!("survived: 5 kinds of endless directories");
}

/// A directory that contains itself, and a tree that branches for ever: nobody walks there but a caller who wants to.
#[test]
fn an_endless_tree_is_not_walked_ahead_for_ever() {
    // A real tree may have a million names.
    for (what, wide, expected) in [("its own parent", 1, 2..=200), ("branches", 1000, 1001..=3000)] {
        let opened = Arc::new(AtomicU64::new(0));
        let count = opened.clone();
        let (inner, peak) = peak_of(|| {
            let (inner, _) = on(move |asked| match (asked.kind, asked.times) {
                (OPENDIR, _) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    None
                }
                (READDIR, 0) => {
                    let entries: Vec<_> = (0..wide).map(|n| (format!("d{n}"), attributes(1, DIR, 7))).collect();
                    Some(vec![names(asked.id, &entries)])
                }
                _ => None,
            });
            assert_eq!(inner.names("").expect("listed").len(), wide);
            let mut before = u64::MAX;
            eventually("nobody asks any more", || {
                std::thread::sleep(Duration::from_millis(500));
                std::mem::replace(&mut before, opened.load(Ordering::SeqCst)) == opened.load(Ordering::SeqCst)
            });
            inner
        });
        let opened = opened.load(Ordering::SeqCst);
        assert!(expected.contains(&opened) && peak < MEMORY, "{what}: {opened} directories, {peak} bytes");
        if wide == 1 {
            let deep = vec!["d0"; 150].join("/");
            assert_eq!(inner.names(&deep).expect("listed").len(), 1, "who wants to go there may");
        }
    }
    eprintln!("survived: 2 kinds of endless trees");
}

#[test]
fn data_of_wrong_length_is_an_error() {
    const BYTES: &[u8] = b"the bytes of the server";
    type Says = fn(&Asked) -> Vec<u8>;
    let cases: [(&str, bool, Says); 5] = [
        ("more than asked for", false, |asked| data(asked.id, &vec![b'x'; asked.len as usize + 1])),
        ("a little at a time", true, |asked| data(asked.id, &BYTES[asked.offset as usize..][..1])),
        ("nothing and no end", false, |asked| data(asked.id, b"")),
        ("an early end", false, |asked| crate::common::meddler::status(asked.id, 1, "")),
        ("a megabyte", false, |asked| data(asked.id, &vec![b'x'; 1_040_000])),
    ];
    for (what, well, says) in cases {
        let (inner, _) = on(move |asked| match (asked.kind, asked.path.as_str(), asked.times) {
            (READDIR, ".", 0) => Some(vec![names(asked.id, &[("f", attributes(BYTES.len() as u64, FILE, 7))])]),
            (FSTAT, ..) => Some(vec![packet(105, asked.id, &attributes(BYTES.len() as u64, FILE, 7))]),
            (READ, ..) => Some(vec![says(asked)]),
            _ => None,
        });
        let began = Instant::now();
        let read = inner.read("f");
        assert!(began.elapsed() < SOON, "{what}");
        assert_eq!(read.as_deref().ok(), well.then_some(BYTES), "{what}");
    }
    eprintln!("survived: {} ways to send other data than was requested", cases.len());
}

#[test]
fn texts_of_links_stay_inside_whatever_they_are() {
    let long = vec![b'a'; 70_000];
    let out: [&[u8]; 7] =
        [b"/etc/passwd", b"..", b"../../etc/passwd", b"a/../../x", b"..\0/x", b"a\0b", &[b"../", &long[..]].concat()];
    for target in out {
        let target = target.to_vec();
        let (inner, _) = on(move |asked| match (asked.kind, asked.path.as_str(), asked.times) {
            (READDIR, ".", 0) => Some(vec![names(asked.id, &[("l", attributes(1, LINK, 7))])]),
            (READLINK, ..) => Some(vec![names(asked.id, &[(&target, vec![0; 4])])]),
            _ => None,
        });
        if let Ok(shown) = inner.fs.readlink(inner.find("l").expect("there"), wait()) {
            assert!(shown.starts_with(b".pantheon/outside/") || shown == b"x", "{}", shown.escape_ascii());
            assert!(!shown.contains(&0) && shown.len() < 4096);
        }
    }
    // No names, and too many.
    for count in [0, 2] {
        let (inner, _) = on(move |asked| match (asked.kind, asked.path.as_str(), asked.times) {
            (READDIR, ".", 0) => Some(vec![names(asked.id, &[("l", attributes(1, LINK, 7))])]),
            (READLINK, ..) => Some(vec![names(asked.id, &vec![("../x", vec![0; 4]); count])]),
            _ => None,
        });
        let read = inner.fs.readlink(inner.find("l").expect("there"), wait());
        assert!(read.as_ref().map_or(true, |shown| shown.starts_with(b".pantheon/outside/")), "{read:?}");
    }
}

/// The kernel follows what text alone cannot judge: a `..` behind another link climbs from where that one leads.
#[test]
fn links_behind_links_do_not_lead_out() {
    let Some(m) = Mounted::openssh("") else { return };
    let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, m.there(name)).expect("made");
    fs::create_dir_all(m.there("a/b/c")).expect("made");
    fs::write(m.dir().parent().expect("a parent").join("secret"), "of this machine").expect("written");
    link("a/b/c/up", "../../..");
    link("evil", "a/b/c/up/../secret");
    link("evil-too", "a/b/c/up/../../../../../../../../etc/passwd");
    link("a/evil-below", "b/c/up/../secret");
    link("honest", "a/../a/b");
    link("loop", "pool");
    link("pool", "loop");
    for name in ["evil", "evil-too", "a/evil-below", "a/b/c/up/evil"] {
        let read = fs::read_to_string(m.path(name)).unwrap_or_default();
        assert!(!read.contains("of this machine") && !read.contains("root:"), "{name}: {read:?}");
        let place = fs::canonicalize(m.path(name));
        assert!(place.as_ref().map_or(true, |place| place.starts_with(m.dir())), "{name}: {place:?}");
    }
    assert_eq!(fs::canonicalize(m.path("honest")).expect("inside"), m.path("a/b"));
    assert_eq!(fs::metadata(m.path("loop")).expect_err("a loop").raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn invalid_greetings_are_errors_within_the_time_limit() {
    let version = |number: u32, more: &[u8]| {
        let body = [&[2][..], &number.to_be_bytes(), more].concat();
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    };
    let greetings: [(&str, Vec<u8>); 8] = [
        ("an old version", version(2, b"")),
        ("an extension whose length lies", version(3, &[0xff, 0xff, 0xff, 0xff, b'x'])),
        ("half an extension", version(3, &text("posix-rename@openssh.com"))),
        ("another packet", packet(101, [0, 0, 0, 0], &[0; 12])),
        ("an empty packet", vec![0, 0, 0, 0]),
        ("4 GiB", vec![0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 3]),
        ("a web page", b"HTTP/1.1 400 Bad Request\r\n\r\n<html>".to_vec()),
        ("a greeting of a shell", b"This account is currently not available.\n".to_vec()),
    ];
    for (what, greeting) in greetings {
        let dial = Box::new(|_| unreachable!("it never began"));
        let config = RemoteConfig::new(dial, Vec::new(), Duration::from_secs(2));
        let began = Instant::now();
        let started = Remote::start(config, Box::new(Scripted::new(Arc::new(|_: &Asked| None), greeting)));
        assert!(started.is_err() && began.elapsed() < SOON, "{what}");
    }
    eprintln!("survived: 8 invalid greetings");
}

/// Where the login directory is, as a server says it, is only ever compared with the texts of links.
#[test]
fn an_invalid_home_directory_is_an_error() {
    let homes: [&[u8]; 7] = [b"", b"/", b"..", b"relative", b"/etc", b"nul\0/x", &[b'x'; 65_000]];
    for home in homes {
        let home = home.to_vec();
        let (inner, _) = on(move |asked| match (asked.kind, asked.path.as_str(), asked.times) {
            (REALPATH, ..) => Some(vec![names(asked.id, &[(&home, vec![0; 4])])]),
            (READDIR, ".", 0) => Some(vec![names(asked.id, &[("l", attributes(1, LINK, 7))])]),
            (READLINK, ..) => Some(vec![names(asked.id, &[("/etc/../../passwd", vec![0; 4])])]),
            _ => None,
        });
        if let Ok(text) = inner.fs.readlink(inner.find("l").expect("there"), wait()) {
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.starts_with('/') && !Path::new(&text).components().any(|part| part.as_os_str() == ".."));
        }
    }
    eprintln!("survived: {} invalid login directories", homes.len());
}

/// A stream that never pauses must not keep one caller waiting whose answer never comes.
#[test]
fn one_answer_that_never_comes_is_given_up_beside_a_stream_of_others() {
    let script = |asked: &Asked| match asked.kind {
        READ => Some(vec![data(asked.id, b"x")]),
        7 => Some(Vec::new()),
        _ => None,
    };
    let server = Scripted::new(Arc::new(script), vec![0, 0, 0, 5, 2, 0, 0, 0, 3]);
    let config = Config { timeout: Duration::from_millis(300) };
    let started = Engine::start(Box::new(server), config, Vec::new(), Deadline::after(SOON), |_| {});
    let (engine, _) = started.expect("it greets");
    let (engine, ended) = (Arc::new(engine), Arc::new(AtomicU64::new(0)));
    for _ in 0..50 {
        stream(&engine, &ended);
    }
    let (answered, waiting) = mpsc::channel();
    engine.submit(Request::Lstat { path: b"x".to_vec() }, Class::Interactive, move |reply| drop(answered.send(reply)));
    let answer = waiting.recv_timeout(Duration::from_secs(10));
    ended.store(1, Ordering::SeqCst);
    assert_eq!(answer, Ok(Err(SftpError::Timeout)));
}

fn stream(engine: &Arc<Engine>, ended: &Arc<AtomicU64>) {
    let (again, until) = (engine.clone(), ended.clone());
    let request = Request::Read { handle: b"f".to_vec(), offset: 0, len: 1 };
    engine.submit(request, Class::Background, move |_| {
        if until.load(Ordering::SeqCst) == 0 {
            stream(&again, &until);
        }
    });
}

/// Panics of threads that are no tests: nobody waits for those.
fn panics() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let (seen, before) = (count.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        let test = std::thread::current().name().is_some_and(|name| name.contains("::"));
        seen.fetch_add(u64::from(!test), Ordering::SeqCst);
        before(info);
    }));
    count
}

/// Numbers that are the same for the same seed.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, limit: u64) -> u64 {
        let step = |x: u64| {
            let x = x ^ (x << 13);
            let x = x ^ (x >> 7);
            x ^ (x << 17)
        };
        step(self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(step(x))).expect("always")) % limit
    }

    fn attributes(&self) -> Vec<u8> {
        let size = [0, 1, 23, 200_000, 1 << 40, u64::MAX][self.below(6) as usize];
        let kind = [FILE, FILE, DIR, LINK, 0o010_000, 0][self.below(6) as usize];
        attributes(size, kind, [0, 7, u32::MAX][self.below(3) as usize])
    }

    /// An answer of a type that fits, and that nobody can rely on.
    fn answer(&self, asked: &Asked) -> Vec<u8> {
        if self.below(16) == 0 {
            return crate::common::meddler::status(asked.id, self.below(12) as u32, "so");
        }
        match asked.kind {
            READDIR if asked.times > 0 => crate::common::meddler::status(asked.id, 1, "end"),
            READDIR => {
                let all = ["a", "b", "c", "d", "..", "", "x/y", "a", ".pantheon"];
                let some: Vec<_> = all.iter().filter(|_| self.below(2) == 0).map(|n| (n, self.attributes())).collect();
                names(asked.id, &some)
            }
            READLINK => names(asked.id, &[(["a", "..", "/etc", ""][self.below(4) as usize], vec![0; 4])]),
            READ => data(asked.id, &vec![b'x'; self.below(u64::from(asked.len.min(200_000)) + 1) as usize]),
            7 | FSTAT | 17 => packet(105, asked.id, &self.attributes()),
            OPEN | OPENDIR => packet(102, asked.id, &text(&asked.path)),
            _ => crate::common::meddler::status(asked.id, self.below(2) as u32 * 4, ""),
        }
    }
}

/// Whatever it answers, and however that contradicts itself: every call ends, and nobody panics.
#[test]
fn random_answers_are_survived() {
    let panics = panics();
    let (mut calls, mut went_well) = (0, 0);
    for seed in 1..=500 {
        let dice = Arc::new(Dice(AtomicU64::new(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15))));
        let of_server = Dice(AtomicU64::new(seed));
        let (inner, _) = on(move |asked| (asked.kind != REALPATH).then(|| vec![of_server.answer(asked)]));
        let path = |dice: &Dice| {
            let depth = 1 + dice.below(3) as usize;
            vec![["a", "b", "c", "d"][dice.below(4) as usize]; depth].join("/")
        };
        for _ in 0..40 {
            let (at, began) = (path(&dice), Instant::now());
            let what = dice.below(9);
            let well = match what {
                0 => inner.names(&at).is_ok(),
                1 => inner.read(&at).is_ok(),
                2 => inner.write(&at, b"content").is_ok(),
                3 => inner.mkdir(&at).is_ok(),
                4 => inner.unlink(&at).is_ok(),
                5 => inner.rename(&at, &path(&dice)).is_ok(),
                6 => inner.find(&at).and_then(|ino| inner.fs.readlink(ino, wait())).is_ok(),
                7 => inner.find(&at).and_then(|ino| inner.fs.getattr(ino, wait())).is_ok(),
                _ => inner.rmdir(&at).is_ok(),
            };
            went_well += u64::from(well);
            assert!(began.elapsed() < SOON, "seed {seed}, call {what} of {at}: {:?}", began.elapsed());
            calls += 1;
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0, "threads have panicked");
    assert!(went_well > calls / 20, "{went_well} of {calls}");
    eprintln!("survived: {calls} calls to servers that reply at random, {went_well} of them without an error");
}
