//! What survives which death, and who waits for what.

use super::state::*;
use crate::attr::{Area, Version};
use crate::path::RemotePath;
use crate::write::Action;
use crate::write::op::{Expected, Op, Put};
use crate::write::queue::Queue;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn put(journal: &Journal, at: &str, content: &[u8], base: Expected) -> Op {
    let spool = journal.new_spool().expect("made");
    spool.write_at(0, content).expect("written");
    let sealed = spool.seal();
    let put = Put { spool: sealed.id, len: sealed.len, sum: sealed.sum, perm: 0o644, keep_perm: false, mtime: 1, base };
    let path = RemotePath::parse(at).expect("valid");
    Op { area: Area::Code, path, action: Action::Put(put), ino: 0, at: 0 }
}

/// Spool files with something in them.
fn full(state_dir: &Path) -> usize {
    let files = fs::read_dir(state_dir.join("spool")).expect("listed").flatten();
    files.filter(|file| file.metadata().is_ok_and(|meta| meta.len() > 0)).count()
}

#[test]
fn what_was_recorded_is_there_after_a_crash_and_what_was_not_is_gone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    for (at, content) in [("a", &b"one"[..]), ("b", b"two"), ("a", b"three")] {
        journal.add(put(&journal, at, content, Expected::Absent)).expect("recorded");
    }
    let unfinished = journal.new_spool().expect("made");
    unfinished.write_at(0, b"never closed").expect("written");
    let left = std::mem::ManuallyDrop::new(unfinished);
    assert_eq!(full(dir.path()), 4, "the first content of a stays until the second is on the disk");
    journal.let_go_replaced();
    assert_eq!(full(dir.path()), 3, "and goes then");
    // A crash: nothing is told goodbye.
    let journal = Journal::open(dir.path()).expect("opened again");
    let found: Vec<(String, Vec<u8>)> = journal.queue(|queue| {
        let content = |op: &Op| fs::read(journal.spool_path(op.spool().expect("content"))).expect("there");
        queue.ops().map(|(_, op)| (op.path.to_string(), content(op))).collect()
    });
    assert_eq!(found, [("a".into(), b"three".to_vec()), ("b".into(), b"two".to_vec())]);
    assert_eq!(full(dir.path()), 2);
    drop(std::mem::ManuallyDrop::into_inner(left));
}

#[test]
fn a_second_save_knows_after_a_crash_what_the_first_left() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
    let Next::Run(first, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
    journal.add(put(&journal, "a", b"two", Expected::Absent)).expect("recorded");
    let left = Version { size: 3, mtime: 7 };
    drop(journal.finish(first, Expected::Version(left)));
    let journal = Journal::open(dir.path()).expect("opened again");
    let ops: Vec<Op> = journal.queue(|queue| queue.ops().map(|(_, op)| op.clone()).collect());
    assert!(matches!(&ops[..], [Op { action: Action::Put(Put { base, .. }), .. }] if *base == Expected::Version(left)));
}

#[test]
fn checksums_of_what_was_shown_are_recorded_with_a_change() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (shown, left) = (Version { size: 3, mtime: 5 }, Version { size: 3, mtime: 7 });
    let open = || {
        let journal = Journal::open(dir.path()).expect("opened");
        journal.ask_what_was_shown(move |_, version| match version {
            _ if version == shown => vec![(0, 55)],
            _ if version == left => vec![(0, 77)],
            _ => Vec::new(),
        });
        journal
    };
    let path = RemotePath::parse("a").expect("valid");
    let journal = open();
    journal.add(put(&journal, "a", b"one", Expected::Version(shown))).expect("recorded");
    journal.add(put(&journal, "b", b"two", Expected::Version(Version { size: 9, mtime: 9 }))).expect("recorded");
    drop(journal);
    let journal = open();
    assert_eq!(journal.take_shown(), [(path.clone(), shown, vec![(0, 55)])]);
    assert!(journal.take_shown().is_empty());
    // The next save of the file is based on what the first one left.
    let Next::Run(first, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
    journal.add(put(&journal, "a", b"new", Expected::Absent)).expect("recorded");
    drop(journal.finish(first, Expected::Version(left)));
    {
        let state = journal.lock();
        journal.log.rewrite(|| journal.records(&state)).expect("rewritten");
    }
    drop(journal);
    assert_eq!(open().take_shown(), [(path, left, vec![(0, 77)])]);
}

#[test]
fn a_barrier_waits_until_an_ended_operation_is_tidied_up_after() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
    let Next::Run(first, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
    let ending = journal.finish(first, Expected::Unknown);
    assert!(journal.wait_until(Duration::ZERO, Queue::is_empty) && !journal.barrier(Duration::from_millis(20)));
    drop(ending);
    journal.add(put(&journal, "b", b"two", Expected::Absent)).expect("recorded");
    assert!(!journal.barrier(Duration::ZERO), "no worker applies it");
    let Next::Run(second, ..) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
    drop(journal.finish(second, Expected::Unknown));
    assert!(journal.barrier(Duration::ZERO));
}

#[test]
fn waiting_hurries_and_ends_without_progress() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    assert!(journal.wait_until(Duration::from_secs(1), Queue::is_empty));
    journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
    assert!(!journal.wait_until(Duration::from_millis(20), Queue::is_empty), "no worker applies it");
}

/// What an empty journal becomes by the same additions.
fn described(journal: &Journal) -> Vec<String> {
    journal.queue(|queue| queue.ops().map(|(id, op)| format!("{id:?} {op:?}")).collect())
}

#[test]
fn what_cannot_be_recorded_is_neither_here_nor_on_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a.tmp", b"one", Expected::Absent)).expect("recorded");
    journal.add(put(&journal, "b", b"two", Expected::Absent)).expect("recorded");
    let before = described(&journal);
    journal.log.fail(true);
    let to = RemotePath::parse("b").expect("valid");
    let from = RemotePath::parse("a.tmp").expect("valid");
    let rename = Action::Rename { to, base: Expected::Absent, replaced: Expected::Absent, dir: false };
    let rename = Op { area: Area::Code, path: from, action: rename, ino: 0, at: 0 };
    assert!(journal.add(rename.clone()).is_err());
    assert!(journal.add(put(&journal, "b", b"three", Expected::Absent)).is_err());
    assert_eq!(described(&journal), before);
    journal.log.fail(false);
    let again = Journal::open(dir.path()).expect("opened again");
    assert_eq!(described(&again), before);
    drop(again);
    // And the disk is well again.
    journal.add(rename).expect("recorded");
    let now = described(&journal);
    assert_eq!(now.len(), 1, "folded: {now:?}");
    assert_eq!(described(&Journal::open(dir.path()).expect("opened again")), now);
}

#[test]
fn a_content_goes_when_what_took_its_place_is_on_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    let first = put(&journal, "a", b"one", Expected::Absent);
    journal.add(first).expect("recorded");
    journal.sync(None).expect("synced");
    let second = put(&journal, "a", b"two", Expected::Absent);
    let spool = second.spool();
    journal.add(second).expect("recorded");
    journal.sync(None).expect("synced");
    assert_eq!(full(dir.path()), 2, "of the second only the record is on the disk");
    journal.sync(spool).expect("synced");
    assert_eq!(full(dir.path()), 1);
    // What is removed goes with the next sync, and what is sent at once.
    let path = RemotePath::parse("a").expect("valid");
    let action = Action::Unlink { base: Expected::Absent, file: true };
    journal.add(Op { area: Area::Code, path, action, ino: 0, at: 0 }).expect("recorded");
    assert_eq!(full(dir.path()), 1);
    journal.sync(None).expect("synced");
    assert_eq!(full(dir.path()), 0);
    journal.add(put(&journal, "b", b"one", Expected::Absent)).expect("recorded");
    journal.add(put(&journal, "b", b"two", Expected::Absent)).expect("recorded");
    let Next::Run(id, op, _) = journal.next(Instant::now() + Duration::from_secs(5)) else { panic!("due") };
    drop(journal.finish(id, Expected::Unknown));
    journal.drop_spool(op.spool().expect("content"));
    assert_eq!(full(dir.path()), 0);
}

#[test]
fn a_journal_that_is_written_anew_knows_earlier_contents() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
    let second = put(&journal, "a", b"two", Expected::Absent);
    let spool = second.spool().expect("content");
    journal.add(second).expect("recorded");
    {
        let state = journal.lock();
        journal.log.rewrite(|| journal.records(&state)).expect("rewritten");
    }
    fs::write(journal.spool_path(spool), b"\0\0\0").expect("lost");
    let journal = Journal::open(dir.path()).expect("opened again");
    let op = journal.queue(|queue| queue.ops().next().map(|(_, op)| op.clone())).expect("an operation");
    assert_eq!(fs::read(journal.spool_path(op.spool().expect("content"))).expect("there"), b"one");
}

#[test]
fn a_barrier_waits_for_what_an_operation_was_folded_into() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a.tmp", b"one", Expected::Absent)).expect("recorded");
    std::thread::scope(|scope| {
        let barrier = scope.spawn(|| journal.barrier(Duration::from_millis(300)));
        while journal.lock().barriers.is_empty() {
            std::thread::yield_now();
        }
        let (from, to) = (RemotePath::parse("a.tmp").expect("valid"), RemotePath::parse("a").expect("valid"));
        let action = Action::Rename { to, base: Expected::Absent, replaced: Expected::Absent, dir: false };
        journal.add(Op { area: Area::Code, path: from, action, ino: 0, at: 0 }).expect("recorded");
        assert_eq!(journal.queue(Queue::len), 1, "folded");
        assert!(!barrier.join().expect("no panic"), "it is not sent");
    });
    assert!(journal.lock().barriers.is_empty());
}

#[test]
fn a_journal_that_is_gone_leaves_the_contents() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.add(put(&journal, "a", b"one", Expected::Absent)).expect("recorded");
    drop(journal);
    fs::remove_file(dir.path().join("journal")).expect("gone");
    let journal = Journal::open(dir.path()).expect("opened again");
    assert!(journal.queue(Queue::is_empty));
    assert_eq!(fs::read(dir.path().join("stranded/damaged-journal/1")).expect("kept"), b"one");
}
