//! What was given up: the changes that became rejected, until a barrier has reported them, and the changes of names
//! among them, of which no copy tells.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::path::RemotePath;
use crate::write::{Action, Op, RejectKind};

/// Number of changes of each list that are remembered by name.
const MAX_LINES: usize = 1000;
/// Number of changes that a report names.
const MAX_NAMED: usize = 5;
/// Number of paths of which it is known how they were rejected.
const MAX_PATHS: usize = 10_000;

#[derive(Default)]
pub(super) struct GivenUp(Mutex<Lists>, OnceLock<OnGivenUp>);

/// Called with the kind of each change that is given up, and a line about it. Must not wait.
pub(super) type OnGivenUp = Box<dyn Fn(RejectKind, &str) + Send + Sync>;

#[derive(Default)]
struct Lists {
    /// What no barrier has reported.
    refused: Unreported,
    conflicts: Unreported,
    /// Rejected changes of names, one line each. The last attempt of each path counts.
    names: VecDeque<(RemotePath, String)>,
    /// How the last change of each path was rejected, and whether it was to bring a directory.
    paths: HashMap<RemotePath, (RejectKind, bool)>,
}

/// Changes that no barrier has reported: their number, and the first lines.
#[derive(Default)]
struct Unreported {
    count: usize,
    /// Each with the copy of the user's version, if it has one.
    lines: Vec<(String, Option<PathBuf>)>,
}

impl Unreported {
    fn add(&mut self, line: String, copy: Option<PathBuf>) {
        self.count += 1;
        if self.lines.len() < MAX_LINES {
            self.lines.push((line, copy));
        }
    }

    /// What is not resolved: the copy goes when it is.
    fn unresolved(mut self) -> Self {
        let before = self.lines.len();
        self.lines.retain(|(_, copy)| copy.as_ref().is_none_or(|copy| copy.exists()));
        self.count -= before - self.lines.len();
        self
    }
}

/// What a barrier reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// What the server refused. A conflict is no failure of a barrier that only sends: the user's version is kept and
    /// listed until it is resolved.
    Refused,
    /// Conflicts, too: what is committed or discarded next would lack the user's version.
    All,
}

impl GivenUp {
    /// Sets the one listener.
    pub(super) fn listen(&self, listener: OnGivenUp) {
        // There is one; it is set once.
        let _ = self.1.set(listener);
    }

    /// A change was given up; `line` describes it, and the user's version is in `copy`.
    pub(super) fn add(&self, kind: RejectKind, line: String, copy: Option<PathBuf>) {
        if let Some(listener) = self.1.get() {
            listener(kind, &line);
        }
        let mut lists = self.0.lock();
        match kind {
            RejectKind::Conflict => lists.conflicts.add(line, copy),
            RejectKind::Stranded => lists.refused.add(line, copy),
        }
    }

    /// An operation was given up; `line` describes it, and the user's version is in `copy`.
    pub(super) fn add_op(&self, kind: RejectKind, op: &Op, line: String, copy: Option<PathBuf>) {
        {
            let mut lists = self.0.lock();
            if lists.paths.len() >= MAX_PATHS {
                lists.paths.clear();
            }
            let (path, dir) = match &op.action {
                Action::Rename { to, dir, .. } => (to, *dir),
                action => (&op.path, matches!(action, Action::MakeDir { .. })),
            };
            lists.paths.insert(path.clone(), (kind, dir));
            if op.spool().is_none() && copy.is_none() {
                lists.names.retain(|(known, _)| known != path);
                if lists.names.len() >= MAX_LINES {
                    lists.names.pop_front();
                }
                lists.names.push_back((path.clone(), line.clone()));
            }
        }
        // Of a change of names no copy is listed, so that a conflict is reported as a refusal is.
        let reported = if op.spool().is_none() && copy.is_none() { RejectKind::Stranded } else { kind };
        self.add(reported, line, copy);
    }

    /// The server has this directory after all.
    pub(super) fn is_there(&self, dir: &RemotePath) {
        self.0.lock().paths.remove(dir);
    }

    /// The server has a change of these paths: what was refused of them before is settled.
    pub(super) fn done(&self, op: &Op) {
        let mut lists = self.0.lock();
        if !lists.paths.is_empty() {
            let settled = |known: &RemotePath| op.paths().into_iter().any(|path| path == known);
            lists.paths.retain(|known, _| !settled(known));
            lists.names.retain(|(known, _)| !settled(known));
        }
    }

    /// The number of changes that no barrier has reported.
    pub(super) fn count(&self) -> usize {
        let lists = self.0.lock();
        lists.refused.count + lists.conflicts.count
    }

    /// The report of a barrier. What it names is not reported again.
    pub(super) fn report(&self, reports: Reports) -> Option<String> {
        let Unreported { count, lines } = {
            let mut lists = self.0.lock();
            let mut unreported = std::mem::take(&mut lists.refused);
            if reports == Reports::All {
                let conflicts = std::mem::take(&mut lists.conflicts).unresolved();
                unreported.count += conflicts.count;
                unreported.lines.extend(conflicts.lines);
            }
            unreported
        };
        let named = lines.iter().take(MAX_NAMED).map(|(line, _)| line.as_str()).collect::<Vec<_>>().join("; ");
        let more = if count > MAX_NAMED { format!("; and {} more", count - MAX_NAMED) } else { String::new() };
        let text = || {
            format!(
                "{count} change(s) were given up, and the server does not have them: {named}{more}; \
                 see .pantheon/status, .pantheon/stranded and .pantheon/conflicts"
            )
        };
        (count > 0).then(text)
    }

    /// The refused changes of names, one line each.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().names.iter().map(|(_, line)| line.clone()).collect()
    }

    /// How the last change of this path was rejected.
    pub(super) fn kind_of(&self, path: &RemotePath) -> Option<RejectKind> {
        self.0.lock().paths.get(path).map(|(kind, _)| *kind)
    }

    /// The directory above one of the operation's paths that did not come to be, and why.
    pub(super) fn above(&self, op: &Op) -> Option<(RemotePath, RejectKind)> {
        let lists = self.0.lock();
        let missing = |dir: &RemotePath| op.paths().into_iter().any(|path| path != dir && path.starts_with(dir));
        let above = lists.paths.iter().filter(|(path, (_, dir))| *dir && missing(path));
        above.map(|(path, (kind, _))| (path.clone(), *kind)).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Area;
    use crate::write::Expected;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    fn op(at: &str, action: Action) -> Op {
        Op { area: Area::Code, path: path(at), action, ino: 0, at: 0 }
    }

    #[test]
    fn what_was_given_up_is_reported_once_and_named() {
        let given_up = GivenUp::default();
        assert_eq!(given_up.report(Reports::All), None);
        given_up.add(RejectKind::Conflict, "save theirs".into(), None);
        given_up.add(RejectKind::Conflict, "save resolved".into(), Some("no/such/copy".into()));
        assert_eq!((given_up.report(Reports::Refused), given_up.count()), (None, 2));
        (0..6).for_each(|n| given_up.add(RejectKind::Stranded, format!("save {n}"), None));
        let text = given_up.report(Reports::Refused).expect("a report");
        assert!(text.starts_with("6 change(s)") && text.contains("save 4; and 1 more"), "{text}");
        let text = given_up.report(Reports::All).expect("a report");
        assert!(text.starts_with("1 change(s)") && text.contains("save theirs"), "{text}");
        assert_eq!((given_up.report(Reports::All), given_up.count()), (None, 0));
    }

    #[test]
    fn a_refused_directory_is_above_what_is_in_it_until_it_is_made() {
        let given_up = GivenUp::default();
        let mkdir = op("ro/d", Action::MakeDir { perm: 0o755 });
        let below = op("ro/d/e/f", Action::Unlink { base: Expected::Absent, file: true });
        assert_eq!(given_up.above(&below), None);
        given_up.add_op(RejectKind::Stranded, &mkdir, "mkdir ro/d".into(), None);
        assert_eq!(given_up.above(&below), Some((path("ro/d"), RejectKind::Stranded)));
        assert_eq!(given_up.above(&mkdir), None);
        assert_eq!(given_up.names(), ["mkdir ro/d"]);
        given_up.done(&mkdir);
        assert_eq!((given_up.above(&below), given_up.names()), (None, Vec::new()));
    }
}
