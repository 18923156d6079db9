//! Numbers, listings that race with local changes, and pins.

use super::*;
use crate::inode::{Applied, Change, ROOT};

fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

fn attr(kind: FileKind, size: u64, mtime: u32) -> Attr {
    Attr { kind, size, perm: 0o644, mtime, atime: mtime }
}

fn table() -> Table {
    let path = RemotePath::parse("code").expect("valid");
    Table::new(vec![Root { ino: ROOT, path, area: Area::Code }])
}

fn list(table: &Table, dir: Ino, entries: &[(&str, Attr)]) -> Applied {
    let changes = table.changes(dir).expect("a directory");
    let entries = entries.iter().map(|(n, a)| (name(n), *a)).collect();
    table.apply_listing(dir, changes, entries, Instant::now(), |_| false)
}

#[test]
fn a_complete_listing_answers_for_missing_names() {
    let table = table();
    assert!(matches!(table.child(ROOT, &name("a")), Child::Unknown));
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    assert!(matches!(table.child(ROOT, &name("a")), Child::Positive(_)));
    assert!(matches!(table.child(ROOT, &name("b")), Child::Negative));
}

#[test]
fn numbers_survive_rename_and_are_stable_by_path() {
    let (one, two) = (table(), table());
    for t in [&one, &two] {
        list(t, ROOT, &[("a", attr(FileKind::File, 1, 1)), ("d", attr(FileKind::Directory, 0, 1))]);
    }
    let (Child::Positive(a), Child::Positive(again)) = (one.child(ROOT, &name("a")), two.child(ROOT, &name("a")))
    else {
        panic!("listed")
    };
    assert_eq!(a.ino, again.ino);
    let Child::Positive(d) = one.child(ROOT, &name("d")) else { panic!("listed") };
    list(&one, d.ino, &[]);
    assert_eq!(one.rename((ROOT, &name("a")), (d.ino, &name("b"))), Some(a.ino));
    assert_eq!(one.path(a.ino).expect("known").as_bytes(), b"code/d/b");
    let fresh = one.insert(ROOT, &name("a"), attr(FileKind::File, 0, 2), None).expect("inserted");
    assert_ne!(fresh, a.ino);
}

#[test]
fn a_listing_asked_for_before_a_local_change_is_not_taken_over() {
    let table = table();
    list(&table, ROOT, &[]);
    let before = table.changes(ROOT).expect("a directory");
    table.insert(ROOT, &name("new"), attr(FileKind::File, 0, 1), None);
    let applied = table.apply_listing(ROOT, before, Vec::new(), Instant::now(), |_| false);
    assert!(matches!(applied, Applied::Raced));
    assert!(matches!(table.child(ROOT, &name("new")), Child::Positive(_)));
}

#[test]
fn a_name_that_was_taken_away_here_does_not_come_back_from_the_server() {
    let table = table();
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    table.remove(ROOT, &name("a"));
    let changes = table.changes(ROOT).expect("a directory");
    let entries = vec![(name("a"), attr(FileKind::File, 1, 1)), (name("b"), attr(FileKind::File, 1, 1))];
    table.apply_listing(ROOT, changes, entries, Instant::now(), |hidden| *hidden == name("a"));
    assert!(matches!(table.child(ROOT, &name("a")), Child::Negative));
    assert!(matches!(table.child(ROOT, &name("b")), Child::Positive(_)));
}

#[test]
fn foreign_changes_are_reported_and_pinned_nodes_left_alone() {
    let table = table();
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1)), ("b", attr(FileKind::File, 1, 1))]);
    let Child::Positive(b) = table.child(ROOT, &name("b")) else { panic!("listed") };
    table.pin(b.ino);
    table.add_lookup(b.ino);
    let Applied::Changed(changes) =
        list(&table, ROOT, &[("a", attr(FileKind::File, 2, 9)), ("b", attr(FileKind::File, 7, 9))])
    else {
        panic!("not raced")
    };
    assert!(matches!(changes.as_slice(), [Change::Content(_)]), "{changes:?}");
    let view = table.view(b.ino).expect("alive");
    assert_eq!((view.attr.size, view.server), (1, Some(Version { size: 1, mtime: 1 })));
}

#[test]
fn what_was_created_here_survives_a_listing_asked_for_before_the_change_is_recorded() {
    let table = table();
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    let new = table.insert(ROOT, &name("new"), attr(FileKind::File, 0, 2), None).expect("inserted");
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    assert!(table.view(new).is_some_and(|node| !node.unlinked));
    assert!(matches!(table.child(ROOT, &name("new")), Child::Positive(node) if node.ino == new));
}

#[test]
fn a_change_made_while_the_one_before_it_ends_stays_pinned() {
    let table = table();
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    let Child::Positive(a) = table.child(ROOT, &name("a")) else { panic!("listed") };
    table.pin(a.ino);
    std::thread::scope(|scope| {
        table.unpin_unless(a.ino, || {
            // The next change comes after the question whether there is one, and before the answer takes effect.
            let (began, begins) = std::sync::mpsc::channel();
            let table = &table;
            scope.spawn(move || {
                began.send(()).expect("asked");
                table.pin(a.ino);
            });
            begins.recv().expect("a thread");
            std::thread::sleep(std::time::Duration::from_millis(20));
            false
        });
    });
    list(&table, ROOT, &[]);
    assert!(matches!(table.child(ROOT, &name("a")), Child::Positive(_)), "a listing has removed it");
}

#[test]
fn an_unlinked_number_lives_while_it_is_referenced() {
    let table = table();
    list(&table, ROOT, &[("a", attr(FileKind::File, 1, 1))]);
    let Child::Positive(a) = table.child(ROOT, &name("a")) else { panic!("listed") };
    table.add_lookup(a.ino);
    table.opened(a.ino);
    table.remove(ROOT, &name("a"));
    table.forget(a.ino, 1);
    assert!(table.view(a.ino).is_some_and(|v| v.unlinked));
    table.closed(a.ino);
    assert!(table.view(a.ino).is_none());
}

#[test]
fn a_number_is_that_of_the_path_whoever_asks() {
    let table = table();
    let state = table.lock();
    for (dir, text) in [("", "a"), ("a", "b"), ("a/b", "c")] {
        let dir = RemotePath::parse(dir).expect("valid");
        let number = state.free_number(&dir.join(&name(text)));
        assert_eq!(state.free_number_below(&Below::new(&dir), &name(text)), number);
    }
}

#[test]
fn what_takes_the_name_of_a_directory_gets_no_place_that_is_searched() {
    let table = table();
    let dir = attr(FileKind::Directory, 0, 1);
    list(&table, ROOT, &[("a", dir), ("b", attr(FileKind::File, 1, 1)), ("c", dir), ("d", attr(FileKind::File, 1, 1))]);
    let below: Vec<_> = (0..50).map(|n| (name(&format!("{n:02}")), attr(FileKind::File, n, 1))).collect();
    for parent in ["a", "c"] {
        let Child::Positive(node) = table.child(ROOT, &name(parent)) else { panic!("listed") };
        let changes = table.changes(node.ino).expect("a directory");
        table.apply_listing(node.ino, changes, below.clone(), Instant::now(), |_| false);
    }
    assert_eq!(table.len(), 105);
    let Child::Positive(d) = table.child(ROOT, &name("d")) else { panic!("listed") };
    let file = attr(FileKind::File, 1, 1);
    list(&table, ROOT, &[("d", file), ("a", file), ("aa", file), ("c", file)]);
    let names: Vec<_> = table.names(ROOT).into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!((names, table.len()), (["a", "aa", "c", "d"].map(String::from).to_vec(), 5));
    assert!(matches!(table.child(ROOT, &name("d")), Child::Positive(again) if again.ino == d.ino));
}
