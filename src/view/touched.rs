//! Which paths changed lately, for programs that ask again and again what changed since they asked last (`git status`).
//!
//! Such a program is given a token: a number made by chance for each mount, and the number of changes so far. A mount that
//! ends in good order saves its log beside the tree, and the next one continues it: it can tell what changed since a token of
//! an earlier mount, once it has compared the tree with the server's. Git keeps an old token while nothing changes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::inode::{Change, ChangeLog, Ino, ROOT, Table};
use crate::path::{Name, RemotePath};

/// Number of remembered paths; beyond it the log begins anew.
const MAX_PATHS: usize = 200_000;
/// Largest number of paths that are saved for the next mount. With more it is as fast to compare everything.
const MAX_SAVED: usize = 20_000;
/// Mounts whose tokens are known.
const MAX_MOUNTS: usize = 1_000;

/// What changed since a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// To be given with the next question.
    pub token: String,
    /// Paths below the code directory that may have changed; `None`: any may have. The root stands for everything in it.
    pub paths: Option<BTreeSet<RemotePath>>,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Touched {
    table: Arc<Table>,
    /// See [`ChangeLog::shown_as`].
    shown_as: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    number: u64,
    count: u64,
    /// The paths of all changes after this one are known.
    from: u64,
    paths: HashMap<RemotePath, Noted>,
    /// See [`ChangeLog::mounts`].
    before: Vec<(u64, u64)>,
}

/// A path of the log.
struct Noted {
    /// The number of its last change.
    at: u64,
    /// Whether it may differ from the tree that is saved.
    differs: bool,
}

impl State {
    fn new(before: ChangeLog) -> Self {
        let ChangeLog { from, mounts, paths, .. } = before;
        // What may differ from the saved tree changes now.
        let count = mounts.last().map_or(0, |(_, end)| end + 1);
        let noted = |at: Option<u64>| Noted { at: at.unwrap_or(count), differs: false };
        let paths = paths.into_iter().map(|(path, at)| (path, noted(at))).collect();
        Self { number: RandomState::new().hash_one(0), count, from, paths, before: mounts }
    }

    /// The paths that changed after the token was given; `None` if that is not known.
    fn later(&self, (number, count): (u64, u64)) -> Option<BTreeSet<RemotePath>> {
        let mut mounts = self.before.iter().copied().chain([(self.number, self.count)]);
        let known = count >= self.from && mounts.any(|(of, end)| of == number && count <= end);
        let later = self.paths.iter().filter(|(_, noted)| noted.at > count);
        known.then(|| later.map(|(path, _)| path.clone()).collect())
    }
}

impl Touched {
    pub(super) fn new(table: Arc<Table>, shown_as: u16, before: Option<ChangeLog>) -> Self {
        let before = before.filter(|log| log.shown_as == shown_as).unwrap_or_default();
        Self { table, shown_as, state: Arc::new(Mutex::new(State::new(before))) }
    }

    /// The object changed.
    pub(super) fn object(&self, ino: Ino) {
        self.path(self.table.path(ino));
    }

    /// The name in the directory leads to another object.
    pub(super) fn name(&self, parent: Ino, name: &Name) {
        self.path(self.table.path(parent).map(|dir| dir.join(name)));
    }

    pub(super) fn change(&self, change: &Change) {
        match change {
            Change::Entry { parent, name } | Change::Made { parent, name, .. } => self.name(*parent, name),
            Change::Removed(objects) => self.path(objects.last().map(|top| top.path.clone())),
            Change::Content(ino) | Change::Attr(ino) => self.object(*ino),
            // Only known to be old: who asks for changes has it listed again first.
            Change::Outdated(_) => {}
        }
    }

    /// The names of a directory are known for the first time. They are saved with the tree as they are.
    pub(super) fn first_listed(&self, dir: Ino) {
        self.note(self.table.path(dir), false);
    }

    fn path(&self, path: Option<RemotePath>) {
        self.note(path.filter(|path| self.table.path(ROOT).as_ref() != Some(path)), true);
    }

    fn note(&self, path: Option<RemotePath>, differs: bool) {
        let Some(code) = self.table.path(ROOT) else { return };
        let Some(path) = path.and_then(|path| path.strip_prefix(&code)) else { return };
        let mut state = self.state.lock();
        state.count += 1;
        let at = state.count;
        let noted = state.paths.entry(path).or_insert(Noted { at, differs });
        (noted.at, noted.differs) = (at, noted.differs || differs);
        if state.paths.len() > MAX_PATHS {
            *state = State::new(ChangeLog::default());
        }
    }

    pub(super) fn since(&self, token: &[u8]) -> Since {
        let state = self.state.lock();
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parsed = std::str::from_utf8(token).ok().and_then(|text| text.split_once('-'));
        let asked = parsed.and_then(|(log, count)| Some((number(log)?, number(count)?)));
        let paths = asked.and_then(|asked| state.later(asked));
        Since { token: format!("{:x}-{:x}", state.number, state.count), paths }
    }

    /// The log for the next mount, unless too much was changed. What was changed counts as changed again then, because the
    /// saved tree need not be what was shown.
    pub(super) fn to_be_saved(&self) -> Option<ChangeLog> {
        let state = self.state.lock();
        let at = |noted: &Noted| (!noted.differs).then_some(noted.at);
        let mut paths: Vec<_> = state.paths.iter().map(|(path, noted)| (path.clone(), at(noted))).collect();
        let mut from = state.from;
        if paths.len() > MAX_SAVED {
            paths.sort_by_key(|(_, at)| Reverse(at.unwrap_or(u64::MAX)));
            from = paths[MAX_SAVED].1?;
            paths.truncate(MAX_SAVED);
        }
        let earlier = state.before.len().saturating_sub(MAX_MOUNTS - 1);
        let mounts = state.before[earlier..].iter().copied().chain([(state.number, state.count)]).collect();
        Some(ChangeLog { shown_as: self.shown_as, from, mounts, paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Area, Attr, FileKind};
    use crate::inode::Root;

    #[test]
    fn a_token_tells_what_changed_after_it_and_a_foreign_one_tells_nothing() {
        let code = RemotePath::parse("code").expect("valid");
        let table = Arc::new(Table::new(vec![Root { ino: ROOT, path: code, area: Area::Code }]));
        let touched = Touched::new(table.clone(), 0, None);
        let name = |text: &str| Name::new(text.as_bytes()).expect("valid");
        let attr = Attr { kind: FileKind::File, size: 1, perm: 0o644, mtime: 1, atime: 1 };
        let first = touched.since(b"");
        assert_eq!(first.paths, None);
        let ino = table.insert(ROOT, &name("a"), attr, None).expect("made");
        touched.name(ROOT, &name("a"));
        let second = touched.since(first.token.as_bytes());
        assert_eq!(second.paths, Some(BTreeSet::from([RemotePath::parse("a").expect("valid")])));
        assert_eq!(touched.since(second.token.as_bytes()).paths, Some(BTreeSet::new()));
        touched.change(&Change::Content(ino));
        assert_eq!(touched.since(second.token.as_bytes()).paths.map(|paths| paths.len()), Some(1));
        for foreign in [&b"1-0"[..], b"x", b"1700000000", b"\xff-1", b"-"] {
            assert_eq!(touched.since(foreign).paths, None);
        }
        let other = Touched::new(table, 0, None);
        assert_eq!(other.since(second.token.as_bytes()).paths, None, "of another mount");
    }

    fn root() -> Touched {
        as_shown(0, None)
    }

    fn as_shown(shown_as: u16, before: Option<&ChangeLog>) -> Touched {
        let code = RemotePath::parse("code").expect("valid");
        Touched::new(
            Arc::new(Table::new(vec![Root { ino: ROOT, path: code, area: Area::Code }])),
            shown_as,
            before.cloned(),
        )
    }

    fn change(log: &Touched, name: &str) {
        log.name(ROOT, &Name::new(name.as_bytes()).expect("valid"));
    }

    fn told(log: &Touched, token: &Since) -> Option<Vec<String>> {
        Some(log.since(token.token.as_bytes()).paths?.iter().map(ToString::to_string).collect())
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_next_mounts_know_the_tokens_of_this_one() {
        let first = root();
        first.first_listed(ROOT);
        let begin = first.since(b"");
        change(&first, "a");
        let end = first.since(b"");
        let log = first.to_be_saved().expect("short");

        let second = as_shown(0, Some(&log));
        assert_eq!(told(&second, &end), names(&["a"]), "the saved tree may be older");
        change(&second, "b");
        assert_eq!(told(&second, &begin), names(&["a", "b"]));
        let later = second.since(b"");
        assert_eq!(told(&second, &later), names(&[]));
        let log = second.to_be_saved().expect("short");

        let third = as_shown(0, Some(&log));
        change(&third, "c");
        assert_eq!(told(&third, &later), names(&["b", "c"]));
        assert_eq!(told(&third, &end), names(&["a", "b", "c"]), "git did not ask in between");
        let other = as_shown(0o111, Some(&log));
        assert_eq!(told(&other, &later), None, "the attributes are shown in another way");
        let older = as_shown(0, Some(&first.to_be_saved().expect("short")));
        (0..9).for_each(|_| change(&older, "d"));
        assert_eq!(told(&older, &later), None, "a log that was put back from a copy");
    }

    #[test]
    fn a_long_log_loses_what_is_oldest() {
        let first = root();
        let begin = first.since(b"");
        (0..MAX_SAVED).for_each(|n| change(&first, &format!("{n}")));
        let end = first.since(b"");
        let second = as_shown(0, first.to_be_saved().as_ref());
        change(&second, "one more");
        let third = as_shown(0, second.to_be_saved().as_ref());
        assert_eq!(told(&third, &begin), None);
        assert_eq!(told(&third, &end), None, "what changed in the first mount changed again in the second");
        let later = second.since(b"");
        assert_eq!(told(&third, &later), names(&["one more"]));
        change(&first, "too many to tell");
        assert_eq!(first.to_be_saved(), None);
    }
}
