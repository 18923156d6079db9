//! What the keys ask the program to do, and the questions before it is done.

use std::ffi::OsString;
use std::path::Path;

use super::theme::shown;
use super::watched::{Item, Watched};
use crate::text::visible;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// A command of this program: what it is called, its words, what it reads.
    Run(String, Vec<OsString>, String),
    /// A command that uses the terminal.
    OnTerminal(String, Vec<OsString>),
    /// A commit, whose message an editor asks for.
    Commit,
}

/// A question, and what each key does. Any other key does nothing and ends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dialog {
    pub(super) title: &'static str,
    pub(super) lines: Vec<String>,
    answers: Vec<(char, &'static str, Task)>,
}

impl Dialog {
    pub(super) fn answer(&self, key: char) -> Option<Task> {
        self.answers.iter().find(|(of, ..)| *of == key).map(|(.., task)| task.clone())
    }

    /// The keys with what they do.
    pub(super) fn keys(&self) -> Vec<(String, &'static str)> {
        let keys = self.answers.iter().map(|(key, what, _)| (key.to_string(), *what));
        let other = if self.answers.is_empty() { "back" } else { "do nothing" };
        keys.chain([("any other key".to_owned(), other)]).collect()
    }
}

pub(super) fn words(words: &[&str], last: impl Into<OsString>) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([last.into()]).collect()
}

fn run(what: &str, words: Vec<OsString>) -> Task {
    Task::Run(what.to_owned(), words, String::new())
}

pub(super) fn sync(of: &Watched) -> Task {
    run("sync", words(&["sync", "--"], of.at()))
}

pub(super) fn hydrate(of: &Watched) -> Task {
    run("hydrate", words(&["hydrate", "--"], of.at()))
}

/// The commit of everything that is uncommitted, with this message.
pub(super) fn commit(of: &Watched, message: String) -> Task {
    Task::Run("commit".into(), words(&["commit", "--file", "-", "--at"], of.at()), message)
}

/// The question before a switch of the mode. What it deletes needs a key that is not pressed by mistake.
pub(super) fn switch(of: &Watched) -> Dialog {
    let to =
        |mode: &str, more: &[&str]| run("switch", words(&[&["mode", mode][..], more, &["--at"]].concat(), of.at()));
    let source = visible(&of.mount.record.source);
    let uncommitted = of.uncommitted();
    let (lines, answers) = match of.said.status["mode"].as_str() {
        Some("git") => (
            vec![
                format!("Switch {source} to SFTP mode?"),
                "Git pushes and core updates then wait for Git mode.".into(),
            ],
            vec![('y', "switch", to("sftp", &[]))],
        ),
        _ if uncommitted > 0 => (
            vec![
                format!("Switch {source} to Git mode?"),
                format!("The platform then DELETES {uncommitted} uncommitted change(s)."),
                "They are backed up on this machine first: `pantheonfs rescue list`.".into(),
            ],
            vec![('D', "delete them and switch", to("git", &["--discard"]))],
        ),
        _ => (
            vec![format!("Switch {source} to Git mode?"), "Code is then read-only here.".into()],
            vec![('y', "switch", to("git", &[]))],
        ),
    };
    Dialog { title: "connection mode", lines, answers }
}

/// The question before the selected change is taken back; without one, why not.
pub(super) fn revert(of: &Watched) -> Result<Dialog, &'static str> {
    let Some(Item::Change(path, _)) = of.selected() else { return Err("select an uncommitted change to revert it") };
    let task = run("revert", words(&["revert", "--"], of.path(&path)));
    let lines = vec![
        format!("Replace {} with its committed version?", shown(&path)),
        "A copy of what it replaces is kept.".into(),
    ];
    Ok(Dialog { title: "revert", lines, answers: vec![('y', "revert", task)] })
}

/// The choice of a version of the selected conflict; without one, why not.
pub(super) fn resolve(of: &Watched) -> Result<Dialog, &'static str> {
    let Some(Item::Conflict(copy)) = of.selected() else { return Err("select a conflict to resolve it") };
    let path = of.path_of_copy(&copy);
    let by = |how: &str| run("resolve", resolve_words(how, &path));
    let lines = vec![format!("{} was changed on both sides. Which version stays?", shown(&copy))];
    let answers = vec![
        ('o', "ours; a copy of theirs is kept", by("--ours")),
        ('t', "theirs; ours is deleted", by("--theirs")),
        ('m', "both, merged", by("--merge")),
        ('e', "both, merged in your merge tool", Task::OnTerminal("resolve".into(), resolve_words("--tool", &path))),
    ];
    Ok(Dialog { title: "conflict", lines, answers })
}

fn resolve_words(how: &str, path: &Path) -> Vec<OsString> {
    // `--` ends the value of --tool.
    words(&["resolve", how, "--"], path)
}

/// The keys.
pub(super) const KEYS: [(&str, &str); 13] = [
    ("↑ ↓ j k", "select a line"),
    ("PgUp PgDn", "move the details"),
    ("Tab 1-9", "another mount"),
    ("c", "commit: the editor asks for the message"),
    ("m", "switch the connection mode"),
    ("v", "revert the selected change"),
    ("o", "resolve the selected conflict"),
    ("s", "sync: wait until everything is sent"),
    ("h", "hydrate: download everything"),
    ("r", "compare with the server again"),
    ("l", "the outcome of the last command"),
    ("?", "this help"),
    ("q", "quit"),
];

pub(super) fn help() -> Dialog {
    let lines = KEYS.iter().map(|(key, what)| format!("{key:<10} {what}")).collect();
    Dialog { title: "keys", lines, answers: Vec::new() }
}

/// A text to read.
pub(super) fn text(title: &'static str, text: &str) -> Dialog {
    Dialog { title, lines: text.lines().map(shown).collect(), answers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::watched::tests::watched;
    use super::*;
    use serde_json::json;

    fn said(task: Option<Task>) -> String {
        let Some(Task::Run(_, words, _) | Task::OnTerminal(_, words)) = task else { return String::new() };
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_switch_that_deletes_needs_a_key_of_its_own() {
        let clean = switch(&watched(json!({ "mode": "sftp", "uncommitted": [] })));
        assert_eq!(said(clean.answer('y')), "mode git --at /home/me/m");
        let dirty = switch(&watched(json!({ "mode": "sftp", "pending": [{ "path": "a" }] })));
        assert_eq!(said(dirty.answer('y')), "");
        assert_eq!(said(dirty.answer('D')), "mode git --discard --at /home/me/m");
        let git = switch(&watched(json!({ "mode": "git" })));
        assert_eq!(said(git.answer('y')), "mode sftp --at /home/me/m");
    }

    #[test]
    fn what_is_selected_is_reverted_or_resolved() {
        let mut both = watched(json!({
            "environment": "dev", "uncommitted": [{ "path": "-x.php", "letter": "M" }], "conflicts": ["code/a.php"],
        }));
        let dialog = resolve(&both).expect("a conflict is selected");
        assert_eq!(said(dialog.answer('m')), "resolve --merge -- /home/me/m/a.php");
        assert!(matches!(dialog.answer('e'), Some(Task::OnTerminal(..))) && dialog.answer('y').is_none());
        assert!(revert(&both).is_err());
        both.go(1);
        assert_eq!(said(revert(&both).expect("a change is selected").answer('y')), "revert -- /home/me/m/-x.php");
        assert!(resolve(&both).is_err());
    }

    #[test]
    fn words_of_commands_are_understood() {
        let of = watched(json!({ "environment": "dev", "conflicts": ["code/a.php"] }));
        let mut tasks = vec![sync(&of), hydrate(&of), commit(&of, "m".into())];
        tasks.extend(switch(&of).answers.into_iter().map(|(.., task)| task));
        tasks.extend(resolve(&of).expect("a conflict is selected").answers.into_iter().map(|(.., task)| task));
        for task in tasks {
            let words = format!("pantheonfs {}", said(Some(task)));
            let parsed = crate::cli::grammar::command().try_get_matches_from(words.split(' '));
            assert!(parsed.is_ok(), "{words}");
        }
    }
}
