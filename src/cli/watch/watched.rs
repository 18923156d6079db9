//! One mount as it is watched: what its files said last, and what is selected of it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::diff::Diff;
use super::feeds::{Feed, Id};
use super::sending::Sending;
use super::theme::list_of;
use crate::cli::record::UserMount;

/// A mount that said nothing for so long does not answer.
const SILENCE: Duration = Duration::from_secs(3);

/// A line of the list that can be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An uncommitted change: path and letter.
    Change(String, String),
    /// A copy below `.pantheon/conflicts`.
    Conflict(String),
    Stranded(String),
    /// The number of a commit of the log.
    Commit(usize),
}

/// What the files of a mount said.
#[derive(Default)]
pub(super) struct Said {
    pub(super) status: Value,
    pub(super) diff: Diff,
    /// Why the files cannot be read.
    pub(super) error: Option<String>,
    /// What the diff depends on, as it was when the diff was asked for last.
    compared: Option<[Value; 5]>,
    /// The diff was asked for and has not come.
    pub(super) comparing: bool,
}

/// See the module header.
pub(super) struct Watched {
    pub(super) id: Id,
    pub(super) mount: UserMount,
    pub(super) feed: Option<Feed>,
    pub(super) said: Said,
    pub(super) sending: Sending,
    /// When it said something last.
    heard: Instant,
    selected: Option<Item>,
    /// Lines of the details above the screen.
    pub(super) scroll: usize,
    /// The command that runs.
    pub(super) running: Option<String>,
}

impl Watched {
    pub(super) fn new(id: Id, mount: UserMount, feed: Option<Feed>) -> Self {
        Self {
            id,
            mount,
            feed,
            said: Said::default(),
            sending: Sending::default(),
            heard: Instant::now(),
            selected: None,
            scroll: 0,
            running: None,
        }
    }

    /// Takes over a message of the process that reads the mount.
    pub(super) fn learn(&mut self, mut message: Value, now: Instant) {
        self.heard = now;
        if let Some(text) = message["diff"].as_str() {
            self.said.diff = Diff::new(text, message["whole"].as_bool() == Some(true));
            self.said.comparing = false;
            return;
        }
        self.said.error = message["error"].as_str().map(str::to_owned);
        if message["status"].is_object() {
            self.said.status = message["status"].take();
            self.sending.learn(&self.said.status, now);
            self.compare(false);
        }
    }

    /// Asks for the diff if something changed on which it depends, or if the user wants it.
    pub(super) fn compare(&mut self, wanted: bool) {
        let status = &self.said.status;
        // While something waits, the comparison would wait for it.
        let depends = ["mode", "target_commit", "sent_files", "pending", "conflicts"].map(|key| status[key].clone());
        let is_new = status["waiting"].as_u64() == Some(0) && self.said.compared.as_ref() != Some(&depends);
        if (is_new && !self.said.comparing) || wanted {
            self.said.compared = Some(depends);
            if let Some(feed) = &mut self.feed {
                self.said.comparing = true;
                feed.ask();
            }
        }
    }

    /// For how long the mount has not answered, if that is too long.
    pub(super) fn silent(&self, now: Instant) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.heard);
        (self.mount.alive && silent >= SILENCE).then_some(silent)
    }

    pub(super) fn is_known(&self) -> bool {
        self.said.status.is_object()
    }

    /// All lines that can be selected, in the order of the list.
    pub(super) fn items(&self) -> Vec<Item> {
        let status = &self.said.status;
        let changes = self.changes().into_iter().map(|(path, letter)| Item::Change(path, letter));
        let conflicts = list_of(&status["conflicts"]).map(|path| Item::Conflict(path.to_owned()));
        let stranded = list_of(&status["stranded"]).map(|path| Item::Stranded(path.to_owned()));
        let commits = (0..status["log"].as_array().map_or(0, Vec::len)).map(Item::Commit);
        // What needs the user is first.
        conflicts.chain(stranded).chain(changes).chain(commits).collect()
    }

    /// The uncommitted changes: path and letter. What the comparison found, or without one what the platform says.
    fn changes(&self) -> Vec<(String, String)> {
        let status = &self.said.status;
        let (list, key) = match &status["uncommitted"] {
            list @ Value::Array(_) => (list, "letter"),
            _ => (&status["pending"], "status"),
        };
        let text = |file: &Value, key: &str| file[key].as_str().unwrap_or_default().to_owned();
        list.as_array().into_iter().flatten().map(|file| (text(file, "path"), text(file, key))).collect()
    }

    /// The number of the selected line among all.
    pub(super) fn position(&self, items: &[Item]) -> usize {
        let found = self.selected.as_ref().and_then(|selected| items.iter().position(|item| item == selected));
        found.unwrap_or_default()
    }

    pub(super) fn selected(&self) -> Option<Item> {
        let mut items = self.items();
        let at = self.position(&items);
        (at < items.len()).then(|| items.swap_remove(at))
    }

    /// Selects another line.
    pub(super) fn go(&mut self, by: isize) {
        let items = self.items();
        let at = self.position(&items).saturating_add_signed(by).min(items.len().saturating_sub(1));
        self.selected = items.get(at).cloned();
        self.scroll = 0;
    }

    /// How many changes are uncommitted, as far as is known here. The mount asks the platform again before it switches.
    pub(super) fn uncommitted(&self) -> usize {
        self.changes().len()
    }

    /// Where the mount shows an uncommitted file.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.mount.record.mountpoint.join(inside)
    }

    /// Where the mount shows the file of a copy.
    pub(super) fn path_of_copy(&self, copy: &str) -> PathBuf {
        // In a directory of another server the copies lie as the files do.
        let inside = match (self.said.status["environment"].is_string(), copy.strip_prefix("code/")) {
            (true, Some(inside)) => inside.to_owned(),
            (true, None) => format!(".pantheon/{copy}"),
            (false, _) => copy.to_owned(),
        };
        self.path(&inside)
    }

    /// The words that name this mount to a command.
    pub(super) fn at(&self) -> OsString {
        self.mount.record.mountpoint.as_os_str().to_owned()
    }

    pub(super) fn place(&self) -> String {
        crate::text::visible(self.mount.record.mountpoint.as_os_str().as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::record::Record;
    use serde_json::json;

    /// A mount that has said this as its status.
    pub(in crate::cli::watch) fn watched(status: Value) -> Watched {
        let record = Record { source: "mysite.dev".into(), mountpoint: "/home/me/m".into(), pid: 7, made: Vec::new() };
        let mut out = Watched::new(1, UserMount { record, alive: true }, None);
        out.learn(json!({ "status": status }), Instant::now());
        out
    }

    #[test]
    fn the_selected_line_stays_selected_when_others_come() {
        let change = |path: &str| json!({ "path": path, "letter": "M" });
        let mut one = watched(json!({ "uncommitted": [change("a"), change("b")] }));
        one.go(1);
        assert_eq!(one.selected(), Some(Item::Change("b".into(), "M".into())));
        one.learn(
            json!({ "status": { "uncommitted": [change("a"), change("b")], "conflicts": ["code/x"] } }),
            Instant::now(),
        );
        assert_eq!(one.selected(), Some(Item::Change("b".into(), "M".into())));
        one.learn(json!({ "status": { "uncommitted": [], "conflicts": ["code/x"] } }), Instant::now());
        assert_eq!(one.selected(), Some(Item::Conflict("code/x".into())));
        one.go(-5);
        one.go(9);
        assert_eq!(one.selected(), Some(Item::Conflict("code/x".into())));
    }

    #[test]
    fn a_mount_that_says_nothing_for_long_does_not_answer() {
        let one = watched(json!({}));
        let now = Instant::now();
        assert_eq!(one.silent(now), None);
        assert!(one.silent(now + Duration::from_secs(7)).is_some_and(|silent| silent.as_secs() >= 6));
        let mut dead = watched(json!({}));
        dead.mount.alive = false;
        assert_eq!(dead.silent(now + Duration::from_secs(7)), None);
    }

    #[test]
    fn copies_are_found_where_the_mount_shows_their_files() {
        let site = watched(json!({ "environment": "dev" }));
        assert_eq!(site.path_of_copy("code/index.php"), PathBuf::from("/home/me/m/index.php"));
        assert_eq!(site.path_of_copy("files/a.png"), PathBuf::from("/home/me/m/.pantheon/files/a.png"));
        assert_eq!(watched(json!({})).path_of_copy("code/index.php"), PathBuf::from("/home/me/m/code/index.php"));
    }
}
