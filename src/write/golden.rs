//! Samples of what is on the disks of users, one per version of a format, in `tests/data/golden`: they are read as ever, and
//! today's records have the bytes of the newest. A change of the format raises its version and adds a sample; none goes.

use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::op::{Action, Expected, Op, OpId, Put, SpoolId};
use super::records::{self, VERSION};
use super::{Backup, RejectKind, What, backup, fold, journal, reject};
use crate::attr::{Area, BlobId, Version};
use crate::path::RemotePath;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).expect("valid")
}

/// Every record of the sample, one by one.
fn reads_as<T: DeserializeOwned + PartialEq + Debug>(name: &str, kind: u8, wanted: &[T]) {
    let found = records::read::<T>(&sample(name), kind).expect("the sample can be read");
    assert!(found.damage.is_none() && !found.torn, "{name} is damaged after {} records", found.records.len());
    for (number, (found, wanted)) in found.records.iter().zip(wanted).enumerate() {
        assert_eq!(found, wanted, "record {number} of {name}");
    }
    assert_eq!(found.records.len(), wanted.len(), "records of {name}");
}

/// The newest sample is, byte for byte, what is written today.
fn is_written_as<T: Serialize + DeserializeOwned>(name: &str, kind: u8, today: &[T]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("log");
    records::Records::open(&file, kind).and_then(|(log, _)| log.append(today)).expect("written");
    let (mut bytes, wanted) = (fs::read(&file).expect("read"), fs::read(sample(name)).unwrap_or_default());
    // The length that the file was given ahead: how far the zeros go is no part of the format.
    let records = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(records.max(wanted.len()));
    if bytes != wanted {
        let mut kept = tempfile::NamedTempFile::new().expect("made");
        kept.write_all(&bytes).expect("written");
        let (_, kept) = kept.keep().expect("kept");
        panic!(
            "what is written is not tests/data/golden/{name} any more, but {}: older files must stay readable; \
             if the format has to change, raise its version and add this as a sample",
            kept.display()
        );
    }
}

fn op(area: Area, at: &str, action: Action) -> Op {
    Op { area, path: path(at), action, ino: 0, at: 1_700_000_002 }
}

/// Every action and every expectation.
fn ops() -> Vec<Op> {
    let there = Expected::Version(Version { size: 4_294_967_297, mtime: 1_700_000_000 });
    let put = |spool, sum, base| {
        let (len, keep_perm) = (4_294_967_298, spool == 8);
        Action::Put(Put { spool: SpoolId(spool), len, sum, perm: 0o640, keep_perm, mtime: 1_700_000_001, base })
    };
    let rename = |base, replaced, dir| Action::Rename { to: path("code/new/name"), base, replaced, dir };
    vec![
        op(Area::Code, "code/a b.php", put(7, Some(3_735_928_559), there)),
        op(Area::Uploads, "files/ä", put(8, None, Expected::After(OpId(3)))),
        op(Area::Code, "code/ours", put(9, Some(0), Expected::Ours)),
        op(Area::Code, "code/dir", Action::MakeDir { perm: 0o755 }),
        op(Area::Code, "code/link", Action::Symlink { text: b"../\xff".to_vec() }),
        op(Area::Code, "code/gone", Action::Unlink { base: Expected::Unknown, file: true }),
        op(Area::Code, "code/gone-link", Action::Unlink { base: there, file: false }),
        op(Area::Code, "code/empty", Action::RemoveDir),
        op(Area::Code, "code/old", rename(there, Expected::Absent, false)),
        op(Area::Code, "code/old-dir", rename(Expected::Unknown, Expected::Unknown, true)),
        op(Area::Uploads, "files/c", Action::SetAttr { perm: Some(0o600), times: Some((1, 2)), link: false }),
        op(Area::Code, "code/link", Action::SetAttr { perm: None, times: None, link: true }),
    ]
}

fn journal_records() -> Vec<fold::Record> {
    use fold::Record;
    let ops = (1..).zip(ops()).map(|(id, op)| Record::Op(OpId(id), op));
    let rest = [
        Record::Gone(OpId(5)),
        Record::Done(OpId(6), Expected::Absent),
        Record::LocalOnly(SpoolId(10), path("code/.a.swp"), 0o600),
        Record::Swept(SpoolId(10)),
        Record::All(vec![Record::Gone(OpId(7)), Record::Done(OpId(8), Expected::Unknown)]),
    ];
    ops.chain(rest).collect()
}

fn backup_records() -> Vec<backup::Record> {
    use backup::Record;
    let keep = |at: &str, what, commit: Option<&str>| {
        Record::Keep(Backup { path: path(at), what, at: 1_700_000_003, commit: commit.map(str::to_owned) })
    };
    let content = What::Content { blob: BlobId([0xa5; 20]), size: 4_294_967_297, mode: 0o100_755 };
    vec![
        keep("code/a b.php", content, Some("c0ffee")),
        keep("code/gone", What::Deleted, None),
        keep("code/new", What::Moved { from: path("code/old") }, Some("c0ffee")),
        Record::Forget(path("code/gone")),
    ]
}

#[test]
fn the_journal_of_every_version_is_read_and_of_this_one_written() {
    assert_eq!(VERSION, 1, "add the sample of the new version here");
    is_written_as("journal-1", journal::KIND, &journal_records());
    reads_as("journal-1", journal::KIND, &journal_records());
}

fn shown_records() -> Vec<fold::Record> {
    let version = Version { size: 4_294_967_297, mtime: 1_700_000_000 };
    vec![fold::Record::Shown(path("code/a b.php"), version, vec![(0, 3_735_928_559), (32_767, 0)])]
}

/// A record that came later than the first journals, within version 1.
#[test]
fn recorded_checksums_are_read_and_written() {
    is_written_as("journal-1-shown", journal::KIND, &shown_records());
    reads_as("journal-1-shown", journal::KIND, &shown_records());
}

/// Fields that came later than the first journals, within version 1, have defaults: `sum` and `keep_perm`.
#[test]
fn a_journal_without_later_fields_is_read() {
    let (spool, mtime, base) = (SpoolId(1), 1_700_000_001, Expected::Absent);
    let put = Put { spool, len: 6, sum: None, perm: 0o644, keep_perm: false, mtime, base };
    let record = fold::Record::Op(OpId(0), op(Area::Code, "code/a.php", Action::Put(put)));
    reads_as("journal-1-first", journal::KIND, &[record]);
}

#[test]
fn the_backups_of_every_version_are_read_and_of_this_one_written() {
    assert_eq!(VERSION, 1, "add the sample of the new version here");
    is_written_as("backups-1", backup::KIND, &backup_records());
    reads_as("backups-1", backup::KIND, &backup_records());
}

fn reject_records() -> Vec<reject::Record> {
    let record = |kind, at: &str, file: &str| reject::Record { kind, path: path(at), file: path(file) };
    vec![
        record(RejectKind::Conflict, "code/x/y", "code/x.1/y"),
        record(RejectKind::Stranded, "code/a b.php", "code/a b.php"),
    ]
}

#[test]
fn the_rejects_of_every_version_are_read_and_of_this_one_written() {
    assert_eq!(VERSION, 1, "add the sample of the new version here");
    is_written_as("rejects-1", reject::KIND, &reject_records());
    reads_as("rejects-1", reject::KIND, &reject_records());
}

/// What is new in a type does not compile here, and is then to be put into the samples.
#[test]
fn the_samples_leave_nothing_out() {
    let action = |action: &Action| match action {
        Action::Put(_) => 0,
        Action::MakeDir { .. } => 1,
        Action::Symlink { .. } => 2,
        Action::Unlink { .. } => 3,
        Action::RemoveDir => 4,
        Action::Rename { .. } => 5,
        Action::SetAttr { .. } => 6,
    };
    let expected = |expected: &Expected| match expected {
        Expected::Absent => 0,
        Expected::Version(_) => 1,
        Expected::After(_) => 2,
        Expected::Unknown => 3,
        Expected::Ours => 4,
    };
    let journal = |record: &fold::Record| match record {
        fold::Record::Op(..) => 0,
        fold::Record::Gone(_) => 1,
        fold::Record::Done(..) => 2,
        fold::Record::LocalOnly(..) => 3,
        fold::Record::Swept(_) => 4,
        fold::Record::All(_) => 5,
        fold::Record::Shown(..) => 6,
    };
    let backup = |record: &backup::Record| match record {
        backup::Record::Keep(Backup { what: What::Content { .. }, .. }) => 0,
        backup::Record::Keep(Backup { what: What::Deleted, .. }) => 1,
        backup::Record::Keep(Backup { what: What::Moved { .. }, .. }) => 2,
        backup::Record::Forget(_) => 3,
    };
    let kinds = |found: Vec<usize>| found.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    let mut ops = ops();
    let expectations = ops.iter_mut().flat_map(Op::expectations).map(|(_, base)| expected(base)).collect();
    assert_eq!((kinds(ops.iter().map(|op| action(&op.action)).collect()), kinds(expectations)), (7, 5));
    assert_eq!(kinds(journal_records().iter().chain(&shown_records()).map(journal).collect()), 7);
    assert_eq!(kinds(backup_records().iter().map(backup).collect()), 4);
}
