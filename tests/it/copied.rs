//! Large files of which little is changed: the server copies the rest, and the result is right whatever happens meanwhile.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pantheonfs::clock::Clock;
use pantheonfs::fs::OpenMode;
use pantheonfs::sim::SimConfig;

use crate::common::inner::{Inner, Setup};
use crate::common::meddler::Fate;
use crate::common::mounted::Mounted;

const LEN: usize = 4_500_000;
/// The place of the byte that is changed.
const AT: usize = 3_000_000;
const WRITE: u8 = 6;

fn content() -> Vec<u8> {
    (0..LEN as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn changed() -> Vec<u8> {
    let mut bytes = content();
    bytes[AT] ^= 0xff;
    bytes
}

/// A large file that has not been changed for so long that its version tells its content.
fn place(file: &Path) {
    fs::write(file, content()).expect("written");
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    fs::File::options().write(true).open(file).and_then(|file| file.set_modified(long_ago)).expect("set");
}

/// An environment with such a file.
fn environment(home: &Path) -> Option<Inner> {
    for dir in ["code", "tmp"] {
        fs::create_dir_all(home.join(dir)).expect("made");
    }
    place(&home.join("code/big"));
    let setup = Setup::environment(Duration::from_secs(3600), Clock::system(), "one".into());
    Inner::at(home, setup)
}

/// Before it is changed, all of it is fetched. `then` runs when the change is only here.
fn change_and(inner: &Inner, then: impl FnOnce()) {
    let mode = OpenMode { read: true, write: true, truncate: false };
    let handle = inner.open("big", mode, false).expect("opened");
    inner.write_at(handle, AT as u64, &changed()[AT..=AT]).expect("written");
    then();
    inner.close(handle).expect("closed");
    inner.barrier();
}

#[test]
fn what_did_not_change_is_not_sent() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let Some(inner) = environment(home.path()) else { return };
    let writes = Arc::new(AtomicU64::new(0));
    let counted = writes.clone();
    let count = move |_, kind| {
        counted.fetch_add(u64::from(kind == WRITE), Ordering::SeqCst);
        Fate::Pass
    };
    change_and(&inner, || inner.faults.plan.on_request(count));
    assert!(fs::read(home.path().join("code/big")).expect("there") == changed());
    // A block of 256 KiB.
    let writes = writes.load(Ordering::SeqCst);
    assert!((1..=8).contains(&writes), "{writes} WRITEs");
    assert_eq!(fs::read_dir(home.path().join("tmp")).expect("listed").count(), 0, "nothing is left");
}

#[test]
fn another_writer_during_a_copy_is_not_mixed_in() {
    let theirs = vec![b't'; LEN];
    let mut acted = 0;
    for after in (0..20).step_by(3) {
        for in_place in [true, false] {
            let home = tempfile::tempdir().expect("a temporary directory");
            let Some(inner) = environment(home.path()) else { return };
            let (file, bytes, ran) = (home.path().join("code/big"), theirs.clone(), Arc::new(AtomicBool::new(false)));
            let (target, beside, done) = (file.clone(), home.path().join("code/beside"), ran.clone());
            let act = move || {
                let to = if in_place { &target } else { &beside };
                fs::write(to, &bytes).expect("written");
                if !in_place {
                    fs::rename(&beside, &target).expect("renamed");
                }
                done.store(true, Ordering::SeqCst);
            };
            change_and(&inner, || inner.faults.plan.between(after, act));
            inner.faults.plan.calm();
            let ran = ran.load(Ordering::SeqCst);
            acted += u32::from(ran);
            let there = fs::read(&file).expect("there");
            let expected = if ran { &theirs } else { &changed() };
            assert!(&there == expected, "after {after}, in place: {in_place}, acted: {ran}");
        }
    }
    assert!(acted >= 6, "{acted}");
}

#[test]
fn a_cut_during_a_copy_loses_nothing() {
    for sent in [20, 100, 200, 300, 500, 700, 900, 1500, 50_000, 150_000, 262_000, 263_000, 263_500] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let Some(inner) = environment(home.path()) else { return };
        change_and(&inner, || inner.faults.cut_after(sent, u64::MAX));
        assert!(fs::read(home.path().join("code/big")).expect("there") == changed(), "cut after {sent} bytes");
        let local = inner.fs.status().local;
        assert!(local.conflicts.is_empty() && local.stranded.is_empty(), "cut after {sent} bytes");
    }
}

/// A server that copies other bytes is found out, and a server that cannot copy gets everything.
#[test]
fn a_copy_is_checked_and_can_be_done_without() {
    for habit in ["on", "off", "wrong"] {
        let config = SimConfig { quirks: vec![("copy-data".into(), habit.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
        place(&m.there("big"));
        assert!(fs::read(m.path("big")).expect("read") == content());
        let file = fs::File::options().read(true).write(true).open(m.path("big")).expect("opened");
        std::os::unix::fs::FileExt::write_all_at(&file, &changed()[AT..=AT], AT as u64).expect("written");
        drop(file);
        assert!(fs::read(m.on_server("big")).expect("there") == changed(), "copy-data: {habit}");
    }
}
