//! What may be folded together, what must wait for what, and that the server ends where the steps lead.

use super::*;
use crate::attr::{Area, Version};
use proptest::prelude::*;

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).expect("valid")
}

fn op(at: &str, action: Action) -> Op {
    Op { area: Area::Code, path: path(at), action, ino: 0, at: 0 }
}

fn put(at: &str, spool: u64, base: Expected) -> Op {
    op(at, Action::Put(Put { spool: SpoolId(spool), len: 1, sum: None, perm: 0o644, mtime: 1, base }))
}

fn rename(from: &str, to: &str, replaced: Expected) -> Op {
    op(from, Action::Rename { to: path(to), base: Expected::Version(V), replaced, dir: false })
}

const V: Version = Version { size: 1, mtime: 1 };

fn all(queue: &Queue) -> Vec<String> {
    queue.ops().map(|(_, op)| op.describe()).collect()
}

#[test]
fn a_content_is_carried_until_its_operation_ends() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a", 1, Expected::Absent), now);
    queue.add(put("b", 2, Expected::Absent), now);
    assert!(queue.carries(SpoolId(1)) && queue.carries(SpoolId(2)));
    // A later save takes the place of the one before, whose content nobody needs any more.
    queue.add(put("a", 3, Expected::Absent), now);
    assert!(!queue.carries(SpoolId(1)) && queue.carries(SpoolId(3)));
    let (id, _) = queue.ops().find(|(_, op)| op.spool() == Some(SpoolId(2))).expect("it waits");
    queue.finish(id, Expected::Version(V));
    assert!(!queue.carries(SpoolId(2)));
}

#[test]
fn a_temporary_file_that_is_renamed_is_one_save() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a.tmp", 1, Expected::Absent), now);
    queue.add(rename("a.tmp", "a", Expected::Version(V)), now);
    let ops: Vec<&Op> = queue.ops().map(|(_, op)| op).collect();
    assert_eq!(ops, [&put("a", 1, Expected::Version(V))]);
    // vim's way: the old one aside, the new one under the old name, the old one away.
    let mut queue = Queue::default();
    queue.add(op("a", Action::Unlink { base: Expected::Version(V), file: true }), now);
    queue.add(put("a", 2, Expected::Absent), now);
    assert_eq!(queue.ops().map(|(_, op)| op).collect::<Vec<_>>(), [&put("a", 2, Expected::Version(V))]);
}

#[test]
fn a_backup_that_is_made_and_removed_is_one_save() {
    let now = Instant::now();
    for taken in [Expected::Absent, Expected::Version(Version { size: 9, mtime: 9 })] {
        let mut queue = Queue::default();
        queue.add(put("tmp", 1, Expected::Absent), now);
        queue.add(rename("a", "a.old", taken), now);
        queue.add(rename("tmp", "a", Expected::Absent), now);
        queue.add(op("a.old", Action::Unlink { base: Expected::Version(V), file: true }), now);
        let mut ops = vec![put("a", 1, Expected::Version(V))];
        if taken != Expected::Absent {
            ops.push(op("a.old", Action::Unlink { base: taken, file: true }));
        }
        assert_eq!(queue.ops().map(|(_, op)| op.clone()).collect::<Vec<_>>(), ops);
        assert!(queue.take(now, true).is_some_and(|(_, op, _)| op == ops[0]), "it waits for nobody");
    }
    // The server has begun to move the old one: the rest follows.
    let mut queue = Queue::default();
    queue.add(rename("a", "a.old", Expected::Absent), now);
    queue.add(put("a", 1, Expected::Absent), now);
    queue.take(now, true).expect("the rename");
    queue.add(op("a.old", Action::Unlink { base: Expected::Version(V), file: true }), now);
    assert_eq!(queue.len(), 3);
    // It was a symlink that was moved aside: content must not be written through it.
    let mut queue = Queue::default();
    queue.add(rename("a", "a.old", Expected::Absent), now);
    queue.add(put("a", 1, Expected::Absent), now);
    queue.add(op("a.old", Action::Unlink { base: Expected::Version(V), file: false }), now);
    assert_eq!(queue.len(), 3);
}

#[test]
fn what_comes_and_goes_never_reaches_the_server() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(op("d", Action::MakeDir { perm: 0o755 }), now);
    queue.add(put("d/a", 1, Expected::Absent), now);
    queue.add(put("d/a", 2, Expected::Absent), now);
    let gone = queue.add(op("d/a", Action::Unlink { base: Expected::Absent, file: true }), now);
    assert_eq!(gone.dropped, [(OpId(1), Some(SpoolId(2)))]);
    queue.add(op("d", Action::RemoveDir), now);
    assert!(queue.is_empty() && queue.bytes() == 0 && queue.next_due().is_none(), "{:?}", all(&queue));
}

#[test]
fn what_runs_is_not_changed_any_more_and_its_result_is_the_next_base() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a", 1, Expected::Absent), now);
    let (first, ..) = queue.take(now + SETTLE, false).expect("due");
    queue.add(put("a", 2, Expected::Absent), now);
    queue.add(rename("a", "b", Expected::Absent), now);
    queue.add(put("b", 3, Expected::Version(V)), now);
    assert_eq!(queue.len(), 4);
    assert!(queue.take(now + MAX_SETTLE, false).is_none(), "all wait for the first");
    let next = Version { size: 9, mtime: 9 };
    queue.finish(first, Expected::Version(next));
    let (second, op, _) = queue.take(now + MAX_SETTLE, false).expect("due");
    assert_eq!(op, put("a", 2, Expected::Version(next)));
    queue.finish(second, Expected::Version(V));
    let (third, op, _) = queue.take(now + MAX_SETTLE, false).expect("due");
    assert_eq!(op, rename("a", "b", Expected::Absent));
    queue.finish(third, Expected::Version(V));
    let (_, op, _) = queue.take(now + MAX_SETTLE, false).expect("due");
    assert_eq!(op, put("b", 3, Expected::Version(V)));
}

#[test]
fn independent_operations_go_together_and_dependent_ones_in_order() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(op("d", Action::MakeDir { perm: 0o755 }), now);
    for name in ["d/a", "d/b"] {
        queue.add(put(name, 1, Expected::Absent), now);
    }
    queue.add(put("d-other", 1, Expected::Absent), now);
    queue.add(op("d", Action::SetAttr { perm: None, times: Some((1, 1)), link: false }), now);
    let later = now + SETTLE;
    let (dir, first, _) = queue.take(later, false).expect("due");
    assert_eq!(first.path, path("d"));
    assert_eq!(queue.take(later, false).expect("due").1.path, path("d-other"));
    assert!(queue.take(later, false).is_none());
    queue.finish(dir, Expected::Absent);
    let (a, ..) = queue.take(later, false).expect("due");
    let (b, ..) = queue.take(later, false).expect("due");
    assert!(queue.take(later, false).is_none(), "the directory's times come after its files");
    queue.finish(a, Expected::Version(V));
    queue.finish(b, Expected::Version(V));
    assert!(matches!(queue.take(later, false), Some((_, Op { action: Action::SetAttr { .. }, .. }, _))));
}

#[test]
fn attributes_travel_with_the_content_and_failures_are_waited_for() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a", 1, Expected::Absent), now);
    queue.add(op("a", Action::SetAttr { perm: Some(0o755), times: Some((7, 8)), link: false }), now);
    let (id, op, _) = queue.take(now, true).expect("in a hurry");
    assert!(matches!(op.action, Action::Put(Put { perm: 0o755, mtime: 8, .. })), "{op:?}");
    queue.put_back(id, now + Duration::from_secs(5));
    assert!(queue.take(now + SETTLE, true).is_none(), "a failure is not hurried");
    assert!(queue.take(now + Duration::from_secs(6), false).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Unlink(u8),
    Rename(u8, u8),
    Take,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..4_u8;
    prop_oneof![
        name.clone().prop_map(Step::Put),
        name.clone().prop_map(Step::Unlink),
        (name.clone(), name).prop_map(|(a, b)| Step::Rename(a, b)),
        Just(Step::Take),
        Just(Step::Finish),
    ]
}

proptest! {
    /// Whatever is collapsed and in whatever order things are taken: the server ends as if every step had been sent.
    #[test]
    fn the_server_ends_where_the_steps_lead(steps in proptest::collection::vec(step(), 0..60)) {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (mut local, mut server) = (BTreeMap::<u8, u64>::new(), BTreeMap::<u8, u64>::new());
        let mut running: Vec<(OpId, Op)> = Vec::new();
        let name = |n: u8| format!("f{n}");
        let known = |server: &BTreeMap<u8, u64>, n: u8| {
            server.get(&n).map_or(Expected::Absent, |v| Expected::Version(Version { size: *v, mtime: 0 }))
        };
        let number = |path: &RemotePath| path.as_bytes()[1] - b'0';
        let mut spool = 0;
        let carry_out = |server: &mut BTreeMap<u8, u64>, op: &Op| -> Expected {
            let at = number(&op.path);
            match &op.action {
                Action::Put(put) => {
                    assert_eq!(put.base, known(server, at), "{op:?}");
                    server.insert(at, put.spool.0);
                    Expected::Version(Version { size: put.spool.0, mtime: 0 })
                }
                Action::Unlink { base, .. } => {
                    assert_eq!(*base, known(server, at), "{op:?}");
                    server.remove(&at);
                    Expected::Absent
                }
                Action::Rename { to, base, replaced, .. } => {
                    assert_eq!(*base, known(server, at), "{op:?}");
                    assert_eq!(*replaced, known(server, number(to)), "{op:?}");
                    let content = server.remove(&at).expect("something to move");
                    server.insert(number(to), content);
                    Expected::Version(Version { size: content, mtime: 0 })
                }
                _ => unreachable!("not generated"),
            }
        };
        for step in steps {
            match step {
                Step::Put(n) => {
                    spool += 1;
                    local.insert(n, spool);
                    queue.add(put(&name(n), spool, known(&server, n)), now);
                }
                Step::Unlink(n) if local.remove(&n).is_some() => {
                    queue.add(op(&name(n), Action::Unlink { base: known(&server, n), file: true }), now);
                }
                Step::Rename(a, b) if a != b && local.contains_key(&a) => {
                    let content = local.remove(&a).expect("there");
                    local.insert(b, content);
                    let action = Action::Rename { to: path(&name(b)), base: known(&server, a), replaced: known(&server, b), dir: false };
                    queue.add(op(&name(a), action), now);
                }
                Step::Take => running.extend(queue.take(now, true).map(|(id, op, _)| (id, op))),
                Step::Finish if !running.is_empty() => {
                    let (id, op) = running.remove(0);
                    let left = carry_out(&mut server, &op);
                    queue.finish(id, left);
                }
                _ => {}
            }
        }
        loop {
            running.extend(queue.take(now, true).map(|(id, op, _)| (id, op)));
            if running.is_empty() { break }
            let (id, op) = running.remove(0);
            let left = carry_out(&mut server, &op);
            queue.finish(id, left);
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(server, local);
    }
}

#[test]
fn what_was_tried_is_not_folded_into_what_comes_later() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a.tmp", 1, Expected::Absent), now);
    let (id, ..) = queue.take(now, true).expect("in a hurry");
    // The answer was lost: the server may have it, or some of it.
    queue.put_back(id, now);
    queue.add(rename("a.tmp", "a", Expected::Absent), now);
    queue.add(put("a.tmp", 2, Expected::Absent), now);
    assert_eq!(all(&queue), ["save a.tmp (1 bytes)", "rename a.tmp to a", "save a.tmp (1 bytes)"]);
    assert!(queue.add(op("a.tmp", Action::Unlink { base: Expected::Absent, file: true }), now).dropped.len() == 1);
    let mut queue = Queue::default();
    queue.restore(OpId(7), put("b", 1, Expected::Absent), now);
    queue.add(put("b", 2, Expected::Absent), now);
    assert_eq!(queue.len(), 2, "nor what an earlier process may have tried");
}
