//! The files on the server that this mount created. Only such a file may be removed after its content was stored
//! elsewhere.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::attr::Version;
use crate::path::RemotePath;
use crate::write::{Action, Expected, Op, Put};

/// Number of remembered paths. When it is exceeded, all are forgotten, and the files stay on the server.
const MAX_MADE: usize = 10_000;

/// Files on the server that this mount created, with the version that it left; `None` while the first save is being
/// sent.
#[derive(Default)]
pub(super) struct Made(Mutex<HashMap<RemotePath, Option<Version>>>);

impl Made {
    pub(super) fn begins(&self, op: &Op) {
        if let Action::Put(Put { base: Expected::Absent, .. }) = op.action {
            let mut made = self.0.lock();
            if made.len() >= MAX_MADE {
                made.clear();
            }
            made.insert(op.path.clone(), None);
        }
    }

    pub(super) fn done(&self, op: &Op, left: Expected) {
        let mut made = self.0.lock();
        match (&op.action, left) {
            (Action::Put(_), Expected::Version(version)) => {
                made.entry(op.path.clone()).and_modify(|known| *known = Some(version));
            }
            (Action::Rename { to, replaced, .. }, _) => {
                let moved = made.remove(&op.path);
                made.remove(to);
                if let (Some(version), Expected::Absent) = (moved, replaced) {
                    made.insert(to.clone(), version);
                }
            }
            (Action::SetAttr { .. } | Action::MakeDir { .. }, _) => {}
            _ => drop(made.remove(&op.path)),
        }
    }

    /// Whether this mount created the file and left it at this version.
    pub(super) fn is(&self, path: &RemotePath, version: Version) -> bool {
        self.0.lock().get(path) == Some(&Some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Area;
    use crate::write::SpoolId;

    const VERSION: Version = Version { size: 1, mtime: 2 };

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    fn op(at: &str, action: Action) -> Op {
        Op { area: Area::Code, path: path(at), action, ino: 0, at: 0 }
    }

    fn put(at: &str, base: Expected) -> Op {
        let (spool, mtime) = (SpoolId(1), 2);
        op(
            at,
            Action::Put(Put { spool, len: 1, sum: None, perm: 0o644, keep_perm: false, own_perm: false, mtime, base }),
        )
    }

    #[test]
    fn only_what_was_not_there_before_counts_and_a_move_takes_it_along() {
        let made = Made::default();
        for (at, base) in [("new", Expected::Absent), ("old", Expected::Version(VERSION))] {
            let op = put(at, base);
            made.begins(&op);
            assert!(!made.is(&path(at), VERSION), "it is not there yet");
            made.done(&op, Expected::Version(VERSION));
        }
        assert!(made.is(&path("new"), VERSION) && !made.is(&path("old"), VERSION));
        let rename = |from: &str, to: &str, replaced| {
            let action = Action::Rename { to: path(to), base: Expected::Version(VERSION), replaced, dir: false };
            made.done(&op(from, action), Expected::Version(VERSION));
        };
        rename("new", "newer", Expected::Absent);
        assert!(made.is(&path("newer"), VERSION) && !made.is(&path("new"), VERSION));
        rename("newer", "old", Expected::Version(VERSION));
        assert!(!made.is(&path("old"), VERSION), "it took the place of what was there before");
    }
}
