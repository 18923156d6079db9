//! What is known of a tree stays known when the tree is moved, before the server has moved it and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pantheonfs::fs::{OpenMode, SetAttr, Time};

use crate::common::inner::Inner;
use crate::common::meddler::Fate;
use crate::steps::furnished;

const SSH_FXP_READ: u8 = 5;
const WRITE: OpenMode = OpenMode { read: false, write: true, truncate: false };

/// Counts the reads from here on.
fn count_reads(inner: &Inner) -> Arc<AtomicU64> {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    inner.faults.plan.on_request(move |_, kind| {
        counted.fetch_add(u64::from(kind == SSH_FXP_READ), Ordering::Relaxed);
        Fate::Pass
    });
    reads
}

fn expect(inner: &Inner, files: &[(&str, &[u8])]) {
    for (path, bytes) in files {
        assert_eq!(inner.read(path).expect("read"), *bytes, "{path}");
    }
}

#[test]
fn a_moved_directory_is_not_read_again() {
    let Some(inner) = furnished(&[]) else { return };
    expect(&inner, &[("w/tree/x", b"x"), ("w/tree/sub/y", b"y")]);
    let reads = count_reads(&inner);
    let moved: [(&str, &[u8]); 2] = [("w/moved/x", b"x"), ("w/moved/sub/y", b"y")];
    inner.rename("w/tree", "w/moved").expect("moved");
    expect(&inner, &moved);
    inner.barrier();
    expect(&inner, &moved);
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    // What comes to the old place is another file.
    std::fs::create_dir(inner.home.join("w/tree")).expect("made");
    std::fs::write(inner.home.join("w/tree/x"), "z").expect("written");
    inner.look_anew();
    expect(&inner, &[("w/tree/x", b"z"), moved[0]]);
}

#[test]
fn files_whose_directory_moves_before_they_are_sent_are_not_read_again() {
    let Some(inner) = furnished(&[]) else { return };
    // Whoever reads many files has the others fetched ahead.
    expect(&inner, &[("w/tree/x", b"x"), ("w/tree/sub/y", b"y")]);
    let reads = count_reads(&inner);
    inner.stall(true);
    inner.mkdir("w/new").expect("made");
    let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for n in 0..20_u8 {
        let path = format!("w/new/f{n}");
        let handle = inner.open(&path, WRITE, true).expect("opened");
        inner.write_at(handle, 0, &[n; 700]).expect("written");
        inner.setattr(&path, SetAttr { mtime: Some(Time::At(old)), ..SetAttr::default() }).expect("touched");
        inner.close(handle).expect("saved");
    }
    inner.rename("w/new", "w/newer").expect("moved");
    inner.stall(false);
    inner.barrier();
    for n in 0..20_u8 {
        expect(&inner, &[(&*format!("w/newer/f{n}"), &[n; 700])]);
    }
    assert_eq!(reads.load(Ordering::Relaxed), 0);
}
