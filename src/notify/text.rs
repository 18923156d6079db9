//! The words of notices. Each names the command to run.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::event::{CommitInfo, Event};
use crate::control::ConnectionMode;
use crate::text::visible;

/// How many changes of a kind are named.
pub(super) const MAX_NAMED: usize = 3;
/// Characters of a line at most.
const MAX_LINE: usize = 160;

/// The mount that notices are about.
#[derive(Debug, Clone)]
pub struct About {
    pub source: String,
    pub mountpoint: PathBuf,
    /// Whether code is changed and committed there: not on Test and Live.
    pub takes_code: bool,
}

/// A notice as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) summary: String,
    pub(super) body: String,
    /// Shown until the user closes it.
    pub(super) urgent: bool,
}

/// Events of one kind: how many, and the newest ones that are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) newest: Event,
    pub(super) lines: Vec<String>,
}

/// Writes the notice about a group. `commit` looks up a commit.
pub(super) fn notice(group: &Group, about: &About, commit: impl Fn(&str) -> Option<CommitInfo>) -> Notice {
    let source = visible(&about.source);
    let place = quoted(about);
    let (summary, body, urgent) = match &group.newest {
        Event::Switched(ConnectionMode::Git) => (
            "switched to Git mode".to_owned(),
            format!(
                "Somebody else switched the connection mode: code is read-only here.\nBack: pantheonfs mode sftp --at {place}\n\
                 Copies of your uncommitted changes: pantheonfs rescue list --at {place}"
            ),
            true,
        ),
        Event::Switched(ConnectionMode::Sftp) => (
            "switched to SFTP mode".to_owned(),
            format!("Somebody else switched the connection mode: code can be changed here.\npantheonfs status {place}"),
            false,
        ),
        Event::Committed(hash) => committed(commit(hash), hash, about, &place),
        Event::Conflict(_) => (
            many(group.count, "conflict", "conflicts"),
            format!("{}\nYour versions are kept. To resolve: pantheonfs watch {place}", named(group)),
            true,
        ),
        Event::Stranded(_) => (
            many(group.count, "change was not taken by the server", "changes were not taken by the server"),
            format!("{}\nContents are kept: pantheonfs rescue list --at {place}", named(group)),
            true,
        ),
        Event::LinkAway(lasting, unsent) => (
            format!("no link for {}", rough(*lasting)),
            format!(
                "{} not on the server. They are kept on this machine and sent when the link is back.\npantheonfs status {place}",
                many(*unsent as u64, "changed file is", "changed files are")
            ),
            false,
        ),
        Event::Uncommitted(count, age) => (
            format!("uncommitted for {}", rough(*age)),
            format!(
                "{} in no backup of the platform.\npantheonfs commit --at {place}",
                many(*count as u64, "uncommitted change is", "uncommitted changes are")
            ),
            false,
        ),
        Event::Login(sentence) => ("the login ends soon".to_owned(), line(sentence), false),
    };
    Notice { summary: format!("{source}: {summary}"), body, urgent }
}

fn committed(commit: Option<CommitInfo>, hash: &str, about: &About, place: &str) -> (String, String, bool) {
    let (by, message) = match commit {
        Some(commit) => {
            (format!(" by {}", line(&commit.author)), line(commit.message.lines().next().unwrap_or_default()))
        }
        None => (String::new(), line(&hash.chars().take(12).collect::<String>())),
    };
    let what = if about.takes_code { "new commit" } else { "another commit runs" };
    (format!("{what}{by}"), format!("{message}\npantheonfs log {place}"), false)
}

fn named(group: &Group) -> String {
    let mut lines: Vec<String> = group.lines.iter().map(|text| line(text)).collect();
    let more = group.count.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// A text of others as a line that is not too long.
fn line(text: &str) -> String {
    let shown = visible(text);
    match shown.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

fn many(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A duration in its largest unit.
fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        secs @ 0..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

/// The mount point as a word for a shell.
fn quoted(about: &About) -> String {
    let path = about.mountpoint.as_os_str();
    let is_plain = path.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@:".contains(byte));
    let shown = visible(path.as_bytes());
    if is_plain { shown } else { format!("'{}'", shown.replace('\'', r"'\''")) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::notify) fn about() -> About {
        About { source: "mysite.dev".into(), mountpoint: "/home/me/my site".into(), takes_code: true }
    }

    fn of(event: Event) -> Notice {
        notice(&Group { count: 1, newest: event, lines: Vec::new() }, &about(), |_| None)
    }

    #[test]
    fn every_notice_names_the_mount_and_a_command() {
        let events = [
            Event::Switched(ConnectionMode::Git),
            Event::Switched(ConnectionMode::Sftp),
            Event::Committed("0123456789abcdef".into()),
            Event::Conflict("save a.php: changed".into()),
            Event::Stranded("save a.php: refused".into()),
            Event::LinkAway(Duration::from_secs(70), 2),
            Event::Uncommitted(3, Duration::from_secs(3 * 86_400)),
            Event::Login("create a new one and run `pantheonfs login`".into()),
        ];
        for event in events {
            let notice = of(event);
            assert!(notice.summary.starts_with("mysite.dev: "), "{notice:?}");
            assert!(notice.body.contains("pantheonfs "), "{notice:?}");
            let has_place = notice.body.contains("'/home/me/my site'");
            assert!(has_place || notice.body.contains("pantheonfs login"), "{notice:?}");
        }
    }

    #[test]
    fn many_changes_are_counted_and_a_few_are_named() {
        let lines = vec!["save a\u{1b}[31m: x".to_owned(), "b".into(), "c".into()];
        let group = Group { count: 300, newest: Event::Conflict("d".into()), lines };
        let notice = notice(&group, &about(), |_| None);
        assert_eq!(notice.summary, "mysite.dev: 300 conflicts");
        assert!(notice.body.starts_with("save a\\033[31m: x\nb\nc\nand 297 more\n"), "{}", notice.body);
    }

    #[test]
    fn a_commit_is_told_with_author_and_message() {
        let group = Group { count: 1, newest: Event::Committed("abc".into()), lines: Vec::new() };
        let info = CommitInfo { author: "Team Mate".into(), email: "m@x".into(), message: "Fix it\n\nWhy".into() };
        let told = notice(&group, &about(), |hash| (hash == "abc").then(|| info.clone()));
        assert_eq!(told.summary, "mysite.dev: new commit by Team Mate");
        assert!(told.body.starts_with("Fix it\npantheonfs log "), "{}", told.body);
        let live = About { takes_code: false, ..about() };
        assert_eq!(notice(&group, &live, |_| None).summary, "mysite.dev: another commit runs");
    }
}
