//! What is read of a file that was cut off or damaged.

use super::*;
use proptest::prelude::*;

fn write(path: &Path, records: &[String]) -> Records<String> {
    let (log, found) = Records::open(path, b'K').expect("opened");
    assert!(found.is_empty());
    log.append(records).expect("appended");
    log
}

/// The layout of version 1, as it was first released.
#[test]
fn the_golden_sample_reads_as_ever() {
    let golden = b"PFSLOGK\x01\x05\0\0\0\x10\x95\xf2\x24\"one\"\x05\0\0\0";
    let crc = crc32fast::hash(b"\"one\"").to_le_bytes();
    let golden = [&golden[..12], &crc, &golden[16..]].concat();
    let found = parse::<String>(&golden, b'K').expect("read");
    assert_eq!((found.records, found.damage), (vec!["one".to_owned()], None));
    assert!(parse::<String>(&golden, b'J').is_err());
    assert!(parse::<String>(b"PFSLOGK\x02", b'K').is_err());
}

#[test]
fn damage_is_told_from_an_unfinished_end_and_kept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    drop(write(&path, &["one".into(), "two".into()]));
    let mut bytes = std::fs::read(&path).expect("read");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).expect("damaged");
    let (log, found) = Records::<String>::open(&path, b'K').expect("opened");
    assert_eq!(found, ["one"]);
    log.append(&["three".into()]).expect("appended");
    assert_eq!(read::<String>(&path, b'K').expect("read").records, ["one", "three"]);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2, "the damaged file is kept");
    log.rewrite(|| vec!["four".into()]).expect("rewritten");
    log.append(&["five".into()]).expect("appended");
    assert_eq!(read::<String>(&path, b'K').expect("read").records, ["four", "five"]);
}

/// Reads what a file with these records has after it was changed.
fn after(records: &[&str], change: impl FnOnce(&mut Vec<u8>)) -> (Vec<String>, bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let owned: Vec<String> = records.iter().map(|text| (*text).to_owned()).collect();
    drop(write(&path, &owned));
    let mut bytes = std::fs::read(&path).expect("read");
    change(&mut bytes);
    std::fs::write(&path, &bytes).expect("changed");
    let Opened { log, records, incomplete } = Records::<String>::open_telling(&path, b'K').expect("opened");
    log.append(&["next".into()]).expect("appended");
    let again = read::<String>(&path, b'K').expect("read");
    assert_eq!((again.damage, again.torn), (None, false), "it is whole again");
    assert_eq!(again.records.len(), records.len() + 1, "what was read is kept");
    (records, incomplete)
}

#[test]
fn what_is_behind_damage_is_read() {
    let records = ["first", "second", "third"];
    let second = HEADER_BYTES as usize + frame(&"first").expect("framed").len();
    let without_second = (vec!["first".to_owned(), "third".to_owned()], true);
    // Its payload, its checksum, its length (too long and too short), and all of it.
    for (at, mask) in [(second + 9, 1), (second + 5, 0x40), (second, 1), (second, 0x10), (second + 2, 0x7f)] {
        assert_eq!(after(&records, |bytes| bytes[at] ^= mask), without_second, "byte {at}");
    }
    let dropped = |bytes: &mut Vec<u8>| bytes[second..second + 16].fill(0);
    assert_eq!(after(&records, dropped), without_second, "a page that was never written");
    let newer = |bytes: &mut Vec<u8>| {
        let record = frame(&serde_json::json!({"future": 1})).expect("framed");
        bytes.splice(second..second, record);
    };
    let all: Vec<String> = records.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(after(&records, newer), (all.clone(), true), "a record of a newer version");
    for at in 0..7 {
        assert_eq!(after(&records, |bytes| bytes[at] ^= 0x80), (all.clone(), true), "byte {at} of the header");
    }
    assert_eq!(after(&records, |bytes| bytes[..8].fill(0)), (all.clone(), true), "no header any more");
    assert_eq!(after(&records, |bytes| bytes.clear()), (Vec::new(), true), "nothing any more");
    assert_eq!(after(&records, |_| {}), (all, false));
}

#[test]
fn half_a_record_is_in_front_of_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = write(&path, &["one".into()]);
    {
        // An append that failed, and could not be cut away.
        let mut state = log.lock();
        let len = state.len;
        state.file.write_all_at(b"half of a rec", len).expect("written");
        state.torn = true;
    }
    log.append(&["2".into()]).expect("appended");
    let found = read::<String>(&path, b'K').expect("read");
    assert_eq!((found.records, found.damage, found.torn), (vec!["one".into(), "2".into()], None, false));
}

#[test]
fn a_rewrite_that_fails_changes_nothing_and_what_follows_is_appended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = write(&path, &["one".into()]);
    let before = log.len();
    // No directory, no temporary file in it.
    let away = dir.path().with_extension("away");
    std::fs::rename(dir.path(), &away).expect("moved away");
    assert!(log.rewrite(|| vec!["lost".into()]).is_err());
    std::fs::rename(&away, dir.path()).expect("moved back");
    assert_eq!(log.len(), before);
    log.append(&["two".into()]).expect("appended");
    assert_eq!(read::<String>(&path, b'K').expect("read").records, ["one", "two"]);
}

proptest! {
    /// However much of the end is missing, what is read is a beginning of what was written.
    #[test]
    fn a_torn_end_loses_only_the_end(records in proptest::collection::vec(".{0,20}", 0..8), cut in 0..200_usize) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        drop(write(&path, &records));
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len().saturating_sub(cut)]).expect("torn");
        let (log, found) = Records::<String>::open(&path, b'K').expect("opened");
        prop_assert!(records.starts_with(&found));
        prop_assert!(cut > 0 || found == records);
        log.append(&["next".into()]).expect("appended");
        prop_assert_eq!(read::<String>(&path, b'K').expect("read").records.len(), found.len() + 1);
    }

    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::<String>(&bytes, b'K');
        let _ = parse::<String>(&[&header(b'K')[..], &bytes].concat(), b'K');
    }
}
