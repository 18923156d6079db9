//! Which paths changed lately, for programs that ask again and again what changed since they asked last (`git status`).
//!
//! Such a program is given a token: the number of this log, made by chance for each mount, and the number of changes so
//! far.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::inode::{Change, Ino, ROOT, Table};
use crate::path::{Name, RemotePath};

/// Number of remembered paths; beyond it the log begins anew.
const MAX_PATHS: usize = 200_000;

/// What changed since a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// To be given with the next question.
    pub token: String,
    /// Paths below the code directory that may have changed; `None`: any may have.
    pub paths: Option<Vec<RemotePath>>,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Touched {
    table: Arc<Table>,
    state: Arc<Mutex<State>>,
}

struct State {
    number: u64,
    count: u64,
    paths: HashMap<RemotePath, u64>,
}

impl Touched {
    pub(super) fn new(table: Arc<Table>) -> Self {
        let state = State { number: by_chance(), count: 0, paths: HashMap::new() };
        Self { table, state: Arc::new(Mutex::new(state)) }
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
            Change::Content(ino) | Change::Attr(ino) | Change::Outdated(ino) => self.object(*ino),
        }
    }

    fn path(&self, path: Option<RemotePath>) {
        let Some(code) = self.table.path(ROOT) else { return };
        let Some(path) = path.and_then(|path| path.strip_prefix(&code)) else { return };
        let mut state = self.state.lock();
        state.count += 1;
        let count = state.count;
        state.paths.insert(path, count);
        if state.paths.len() > MAX_PATHS {
            *state = State { number: by_chance(), count: 0, paths: HashMap::new() };
        }
    }

    pub(super) fn since(&self, token: &[u8]) -> Since {
        let state = self.state.lock();
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parsed = std::str::from_utf8(token).ok().and_then(|text| text.split_once('-'));
        let asked = parsed.and_then(|(log, count)| Some((number(log)?, number(count)?)));
        let known = asked.filter(|(log, count)| *log == state.number && *count <= state.count);
        let later = |(_, since): (u64, u64)| {
            state.paths.iter().filter(|(_, at)| **at > since).map(|(path, _)| path.clone()).collect()
        };
        Since { token: format!("{:x}-{:x}", state.number, state.count), paths: known.map(later) }
    }
}

fn by_chance() -> u64 {
    RandomState::new().hash_one(0)
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
        let touched = Touched::new(table.clone());
        let name = |text: &str| Name::new(text.as_bytes()).expect("valid");
        let attr = Attr { kind: FileKind::File, size: 1, perm: 0o644, mtime: 1, atime: 1 };
        let first = touched.since(b"");
        assert_eq!(first.paths, None);
        let ino = table.insert(ROOT, &name("a"), attr, None).expect("made");
        touched.name(ROOT, &name("a"));
        let second = touched.since(first.token.as_bytes());
        assert_eq!(second.paths, Some(vec![RemotePath::parse("a").expect("valid")]));
        assert_eq!(touched.since(second.token.as_bytes()).paths, Some(Vec::new()));
        touched.change(&Change::Content(ino));
        assert_eq!(touched.since(second.token.as_bytes()).paths.map(|paths| paths.len()), Some(1));
        for foreign in [&b"1-0"[..], b"x", b"1700000000", b"\xff-1", b"-"] {
            assert_eq!(touched.since(foreign).paths, None);
        }
        let other = Touched::new(table);
        assert_eq!(other.since(second.token.as_bytes()).paths, None, "of another mount");
    }
}
