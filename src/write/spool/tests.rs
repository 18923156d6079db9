//! What a spool holds, and what is said of it.

use super::*;
use proptest::prelude::*;

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let free = FreeFiles::default();
    let spool = Spool::create(SpoolId(1), dir.path().join("1"), &free, Hold::default()).expect("created");
    (dir, spool)
}

#[test]
fn a_new_spool_is_dirty_and_a_filled_one_is_not() {
    let (_dir, spool) = spool();
    assert!(spool.is_dirty(), "an empty file must reach the server too");
    spool.fill(0, b"base").expect("filled");
    assert!(!spool.is_dirty());
    spool.write_at(2, b"!!!").expect("written");
    assert!(spool.is_dirty());
    assert_eq!(spool.read_at(0, 100).expect("read"), b"ba!!!");
}

#[test]
fn what_is_sealed_never_changes_and_outlives_its_owner() {
    let (dir, spool) = spool();
    spool.write_at(0, b"one").expect("written");
    assert_eq!(spool.seal(), Sealed { id: SpoolId(1), len: 3, sum: Some(crc32fast::hash(b"one")) });
    assert_eq!(spool.write_at(0, b"two").expect("no error"), None);
    assert_eq!(spool.set_len(0).expect("no error"), None);
    spool.park();
    let free = FreeFiles::default();
    let copy = Spool::create(SpoolId(2), dir.path().join("2"), &free, Hold::default()).expect("created");
    copy.copy_from(&spool, 2).expect("copied");
    assert!(!copy.is_dirty());
    copy.write_at(2, b"!").expect("written");
    assert_eq!(copy.read_at(0, 9).expect("read"), b"on!");
    drop((spool, copy));
    assert_eq!(std::fs::read(dir.path().join("1")).expect("there"), b"one");
    assert!(!dir.path().join("2").exists());
}

#[test]
fn length_changes_and_holes() {
    let (_dir, spool) = spool();
    spool.write_at(10, b"x").expect("written");
    assert_eq!(spool.read_at(0, 11).expect("read"), b"\0\0\0\0\0\0\0\0\0\0x");
    spool.set_len(4).expect("cut");
    assert_eq!((spool.len(), spool.read_at(2, 10).expect("read").len()), (4, 2));
    assert_eq!(spool.write_at(9, b"").expect("written"), Some(4), "nothing behind the end");
    spool.set_len(6).expect("grown");
    assert_eq!(spool.read_at(0, 10).expect("read"), [0; 6]);
    spool.allocate(0, 100, true).expect("allocated");
    assert_eq!(spool.len(), 6);
    spool.allocate(0, 100, false).expect("allocated");
    assert_eq!(spool.len(), 100);
    spool.write_at(0, &[7; 100]).expect("written");
    spool.zero(10, 20).expect("zeroed");
    let bytes = spool.read_at(0, 100).expect("read");
    assert!(bytes[10..30].iter().all(|b| *b == 0) && bytes[30..].iter().all(|b| *b == 7));
}

proptest! {
    /// However it is written: the checksum is that of what is in the file, whether it was taken ahead or not.
    #[test]
    fn the_checksum_is_that_of_the_content(
        steps in proptest::collection::vec((0..6_u8, 0..40_u64, 0..40_usize), 0..12),
        ahead in any::<bool>(),
    ) {
        let (dir, spool) = spool();
        for (n, (what, at, len)) in steps.into_iter().enumerate() {
            let bytes = vec![b'a' + n as u8; len];
            match what {
                0 => drop(spool.set_len(at).expect("cut")),
                1 => drop(spool.zero(at, len as u64).expect("zeroed")),
                2 => spool.fill(spool.len(), &bytes).expect("filled"),
                3 => drop(spool.write_at(at, &bytes).expect("written")),
                _ => drop(spool.write_at(spool.len(), &bytes).expect("appended")),
            }
            if ahead {
                spool.take_sum();
            }
        }
        let sealed = spool.seal();
        let content = std::fs::read(dir.path().join("1")).expect("there");
        prop_assert_eq!(sealed.len, content.len() as u64);
        prop_assert_eq!(sealed.sum, Some(crc32fast::hash(&content)));
    }
}

#[test]
fn a_large_content_needs_no_second_look_when_it_is_sealed() {
    let (_dir, spool) = spool();
    let piece = vec![7; 1 << 20];
    for n in 0..3 {
        spool.write_at(n << 20, &piece).expect("written");
    }
    assert!(!spool.needs_sum(), "written in order");
    spool.write_at(5, b"again").expect("written");
    assert!(spool.needs_sum());
    spool.take_sum();
    assert!(!spool.needs_sum());
    spool.write_at(5, b"after").expect("written");
    assert!(spool.needs_sum(), "what was taken is of an older content");
}
