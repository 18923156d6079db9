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
    op(
        at,
        Action::Put(Put {
            spool: SpoolId(spool),
            len: 1,
            sum: None,
            perm: 0o644,
            keep_perm: false,
            own_perm: false,
            mtime: 1,
            base,
        }),
    )
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
    // A later save takes the place of the earlier one, whose content is not needed any more.
    queue.add(put("a", 3, Expected::Absent), now);
    assert!(!queue.carries(SpoolId(1)) && queue.carries(SpoolId(3)));
    let (id, _) = queue.ops().find(|(_, op)| op.spool() == Some(SpoolId(2))).expect("it waits");
    queue.finish(id, Expected::Version(V));
    assert!(!queue.carries(SpoolId(2)));
}

/// A save of a file that takes the place of another one.
fn with_own_perm(mut op: Op) -> Op {
    if let Action::Put(put) = &mut op.action {
        put.own_perm = true;
    }
    op
}

#[test]
fn a_temporary_file_that_is_renamed_is_one_save() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(put("a.tmp", 1, Expected::Absent), now);
    queue.add(rename("a.tmp", "a", Expected::Version(V)), now);
    let ops: Vec<&Op> = queue.ops().map(|(_, op)| op).collect();
    assert_eq!(ops, [&with_own_perm(put("a", 1, Expected::Version(V)))]);
    // The next save, before the first is sent: the permissions are still those of the new file.
    queue.add(put("a", 3, Expected::Version(V)), now);
    assert_eq!(queue.ops().map(|(_, op)| op).collect::<Vec<_>>(), [&with_own_perm(put("a", 3, Expected::Version(V)))]);
    // vim's way: the old one aside, the new one under the old name, the old one away.
    let mut queue = Queue::default();
    queue.add(op("a", Action::Unlink { base: Expected::Version(V), file: true }), now);
    queue.add(put("a", 2, Expected::Absent), now);
    assert_eq!(queue.ops().map(|(_, op)| op).collect::<Vec<_>>(), [&with_own_perm(put("a", 2, Expected::Version(V)))]);
    let mut queue = Queue::default();
    queue.add(put("a.tmp", 1, Expected::Absent), now);
    queue.add(rename("a.tmp", "a", Expected::Absent), now);
    assert_eq!(queue.ops().map(|(_, op)| op).collect::<Vec<_>>(), [&put("a", 1, Expected::Absent)]);
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
        assert!(queue.take(now, true).is_some_and(|(_, op, _)| op == ops[0]), "it waits for no other operation");
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
fn what_is_in_a_new_directory_has_nothing_before_it() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let dir = |from: &str, to: &str| {
        let action = Action::Rename { to: path(to), base: Expected::Absent, replaced: Expected::Absent, dir: true };
        op(from, action)
    };
    queue.add(put("d/a", 1, Expected::Version(V)), now);
    queue.add(dir("d", "e"), now);
    queue.add(op("e", Action::SetAttr { perm: Some(0o700), times: None, link: false }), now);
    queue.add(op("d", Action::MakeDir { perm: 0o755 }), now);
    queue.add(put("d/a", 2, Expected::Absent), now);
    queue.add(put("e/a", 3, Expected::Version(V)), now);
    let bases: Vec<Expected> = queue
        .ops()
        .filter_map(|(_, op)| if let Action::Put(put) = &op.action { Some(put.base) } else { None })
        .collect();
    // The new one expects nothing; the one that was moved along expects what was saved under its old name.
    assert_eq!(bases, [Expected::Version(V), Expected::Absent, Expected::After(OpId(0))]);
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
    Put(usize),
    MakeDir(usize),
    Remove(usize),
    Rename(usize, usize),
    SetAttr(usize),
    Take,
    Finish(usize),
}

/// Few names, so that they meet; each may be a file or a directory.
const PATHS: [&str; 9] = ["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "a/b/a", "b/a/a"];

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        3 => path.clone().prop_map(Step::Put),
        2 => path.clone().prop_map(Step::MakeDir),
        2 => path.clone().prop_map(Step::Remove),
        3 => (path.clone(), path.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => path.prop_map(Step::SetAttr),
        2 => Just(Step::Take),
        2 => (0..4_usize).prop_map(Step::Finish),
    ]
}

/// A tree, by paths.
type Tree<T> = BTreeMap<String, T>;

fn holds<T>(tree: &Tree<T>, dir: &str) -> bool {
    tree.keys().any(|path| path.starts_with(&format!("{dir}/")))
}

fn parent_is_dir<T>(tree: &Tree<T>, path: &str, is_dir: impl Fn(&T) -> bool) -> bool {
    path.rsplit_once('/').is_none_or(|(dir, _)| tree.get(dir).is_some_and(is_dir))
}

/// An object with everything that is in it.
fn relocate<T>(tree: &mut Tree<T>, from: &str, to: &str) {
    let moving = |path: &String| *path == from || path.starts_with(&format!("{from}/"));
    let moved: Vec<_> = tree.extract_if(.., |path, _| moving(path)).collect();
    tree.extend(moved.into_iter().map(|(path, node)| (format!("{to}{}", &path[from.len()..]), node)));
}

/// What is shown here: a directory, or the number of a file's content.
#[derive(Clone, Copy)]
struct Shown {
    ino: u64,
    content: Option<u64>,
}

/// The caller's side and the server's, with the queue in between.
#[derive(Default)]
struct World {
    queue: Queue,
    local: Tree<Shown>,
    server: Tree<Option<u64>>,
    /// What the server is known to have of an object.
    confirmed: HashMap<u64, Expected>,
    running: Vec<(OpId, Op)>,
    count: u64,
}

impl World {
    fn add(&mut self, ino: u64, at: &str, action: Action) {
        let now = Instant::now();
        self.queue.add(Op { ino, ..op(at, action) }, now);
    }

    fn known(&self, node: Option<&Shown>) -> Expected {
        node.and_then(|node| self.confirmed.get(&node.ino)).copied().unwrap_or(Expected::Absent)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(at) => self.put(PATHS[at]),
            Step::MakeDir(at) => self.make_dir(PATHS[at]),
            Step::Remove(at) => self.remove(PATHS[at]),
            Step::Rename(from, to) => self.rename(PATHS[from], PATHS[to]),
            Step::SetAttr(at) => {
                if let Some(node) = self.local.get(PATHS[at]).copied() {
                    let action = Action::SetAttr { perm: Some(0o755), times: None, link: false };
                    self.add(node.ino, PATHS[at], action);
                }
            }
            Step::Take => self.take(),
            Step::Finish(at) if !self.running.is_empty() => self.finish(at % self.running.len()),
            Step::Finish(_) => {}
        }
    }

    fn put(&mut self, at: &str) {
        let old = self.local.get(at).copied();
        if !parent_is_dir(&self.local, at, |node| node.content.is_none())
            || old.is_some_and(|old| old.content.is_none())
        {
            return;
        }
        self.count += 1;
        let ino = old.map_or(self.count, |old| old.ino);
        let Action::Put(put) = put(at, self.count, self.known(old.as_ref())).action else { unreachable!("a put") };
        self.local.insert(at.into(), Shown { ino, content: Some(self.count) });
        self.add(ino, at, Action::Put(put));
    }

    fn make_dir(&mut self, at: &str) {
        if self.local.contains_key(at) || !parent_is_dir(&self.local, at, |node| node.content.is_none()) {
            return;
        }
        self.count += 1;
        self.local.insert(at.into(), Shown { ino: self.count, content: None });
        self.add(self.count, at, Action::MakeDir { perm: 0o755 });
    }

    fn remove(&mut self, at: &str) {
        if holds(&self.local, at) {
            return;
        }
        let Some(old) = self.local.remove(at) else { return };
        let base = self.known(Some(&old));
        let action = if old.content.is_some() { Action::Unlink { base, file: true } } else { Action::RemoveDir };
        self.add(old.ino, at, action);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(moved) = self.local.get(from).copied() else { return };
        let replaced = self.local.get(to).copied();
        let dir = moved.content.is_none();
        let fits = replaced.is_none_or(|old| !dir && old.content.is_some());
        let inside = to == from || to.starts_with(&format!("{from}/"));
        if !fits || inside || !parent_is_dir(&self.local, to, |node| node.content.is_none()) {
            return;
        }
        let (base, replaced) = (self.known(Some(&moved)), self.known(replaced.as_ref()));
        relocate(&mut self.local, from, to);
        self.add(moved.ino, from, Action::Rename { to: path(to), base, replaced, dir });
    }

    fn take(&mut self) {
        let taken = self.queue.take(Instant::now(), true);
        self.running.extend(taken.map(|(id, op, _)| (id, op)));
    }

    fn finish(&mut self, at: usize) {
        let (id, op) = self.running.remove(at);
        let left = self.carry_out(&op);
        if !matches!(op.action, Action::Rename { .. }) {
            self.confirmed.insert(op.ino, left);
        }
        self.queue.finish(id, left);
    }

    fn there(&self, at: &str) -> Expected {
        match self.server.get(at) {
            Some(Some(content)) => Expected::Version(Version { size: *content, mtime: 0 }),
            _ => Expected::Absent,
        }
    }

    fn carry_out(&mut self, op: &Op) -> Expected {
        let text = |path: &RemotePath| String::from_utf8(path.as_bytes().to_vec()).expect("text");
        let at = text(&op.path);
        let parent = |server: &Tree<Option<u64>>, at: &str| parent_is_dir(server, at, Option::is_none);
        assert!(parent(&self.server, &at), "{op:?}");
        match &op.action {
            Action::Put(put) => {
                assert_eq!(put.base, self.there(&at), "{op:?}");
                self.server.insert(at.clone(), Some(put.spool.0));
            }
            Action::MakeDir { .. } => assert!(self.server.insert(at.clone(), None).is_none(), "{op:?}"),
            Action::Unlink { base, .. } => {
                assert_eq!(*base, self.there(&at), "{op:?}");
                self.server.remove(&at);
            }
            Action::RemoveDir => {
                assert!(!holds(&self.server, &at) && self.server.remove(&at) == Some(None), "{op:?}");
            }
            Action::Rename { to, base, replaced, dir } => {
                let to = text(to);
                assert!(parent(&self.server, &to) && self.server.get(&at).is_some_and(|node| node.is_none() == *dir));
                if !dir {
                    assert_eq!(*base, self.there(&at), "{op:?}");
                }
                assert_eq!(*replaced, self.there(&to), "{op:?}");
                relocate(&mut self.server, &at, &to);
                return self.there(&to);
            }
            Action::SetAttr { .. } => assert!(self.server.contains_key(&at), "{op:?}"),
            Action::Symlink { .. } => unreachable!("not generated"),
        }
        self.there(&at)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is collapsed and in whatever order things are taken: the server ends as if every step had been sent.
    #[test]
    fn the_server_ends_where_the_steps_lead(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::default();
        steps.iter().for_each(|step| world.step(step));
        loop {
            world.take();
            if world.running.is_empty() { break }
            world.finish(0);
        }
        prop_assert!(world.queue.is_empty());
        let shown: Tree<Option<u64>> = world.local.into_iter().map(|(path, node)| (path, node.content)).collect();
        prop_assert_eq!(world.server, shown);
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

/// Everything that decides what is carried out, and when.
fn picture(queue: &Queue) -> String {
    let entries: Vec<String> = queue
        .entries
        .iter()
        .map(|(id, entry)| format!("{id:?} {:?} {} {:?}", entry.op, entry.blockers, entry.due))
        .collect();
    let paths: Vec<_> = queue.by_path.iter().collect();
    let mut inodes: Vec<_> = queue.by_ino.iter().collect();
    inodes.sort();
    format!("{entries:?} {paths:?} {inodes:?} {:?} {}", queue.ready, queue.bytes)
}

proptest! {
    /// An addition that is taken back leaves no trace, whatever it was folded into.
    #[test]
    fn an_addition_that_is_taken_back_never_happened(
        steps in proptest::collection::vec((0..7_u8, 0..4_usize, 0..4_usize, any::<bool>()), 1..40),
    ) {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let names = ["a", "a.tmp", "d", "d/x"];
        for (n, (what, one, other, keep)) in steps.into_iter().enumerate() {
            let (path, to) = (names[one], names[other]);
            let now = start + Duration::from_millis(20 * n as u64);
            let base = if keep { Expected::Absent } else { Expected::Version(Version { size: 1, mtime: 1 }) };
            let action = match what {
                0 => Action::MakeDir { perm: 0o755 },
                1 => Action::Unlink { base, file: true },
                2 => Action::RemoveDir,
                3 if path != to => {
                    let to = RemotePath::parse(to).expect("valid");
                    Action::Rename { to, base, replaced: Expected::Absent, dir: path == "d" }
                }
                4 => Action::SetAttr { perm: Some(0o600), times: None, link: false },
                _ => {
                    let (spool, len) = (SpoolId(n as u64), n as u64);
                    Action::Put(Put { spool, len, sum: None, perm: 0o644, keep_perm: false, own_perm: false, mtime: 1, base })
                }
            };
            let op = Op { ino: one as u64, ..op(path, action) };
            let before = picture(&queue);
            queue.add(op, now);
            if keep {
                if n % 7 == 6 && let Some((id, ..)) = queue.take(now, true) {
                    // Tried, and not folded into from here on.
                    queue.put_back(id, now);
                }
                continue;
            }
            queue.take_back();
            prop_assert_eq!(picture(&queue), before);
        }
    }
}
