//! The list of what can be selected, and the details of what is selected.

use ratatui::text::{Line, Span};
use serde_json::Value;

use super::diff::Diff;
use super::theme::{Theme, list_of, shown, styled, text_of};
use super::watched::{Item, Watched};

/// Letters of a commit that are shown in the list.
const HASH: usize = 8;

/// The lines of the list, and which of them is the selected one.
pub(super) fn list(of: &Watched, theme: Theme) -> (Vec<Line<'static>>, usize) {
    let items = of.items();
    let selected = of.position(&items);
    let (mut out, mut at, mut group) = (Vec::new(), 0, None);
    for (index, item) in items.iter().enumerate() {
        let kind = std::mem::discriminant(item);
        if group.replace(kind) != Some(kind) {
            let count = items.iter().filter(|other| std::mem::discriminant(*other) == kind).count();
            out.push(heading(item, count, theme));
        }
        let mut line = item_line(of, item, theme);
        if index == selected {
            at = out.len();
            line = line.style(theme.selected());
        }
        out.push(line);
    }
    if out.is_empty() {
        out.push(Line::from(styled(" nothing is uncommitted", theme.faint())));
    }
    (out, at)
}

fn heading(item: &Item, count: usize, theme: Theme) -> Line<'static> {
    let (text, style) = match item {
        Item::Conflict(_) => ("CONFLICTS", theme.bad()),
        Item::Stranded(_) => ("STRANDED", theme.bad()),
        Item::Change(..) => ("UNCOMMITTED", theme.heading()),
        Item::Commit(_) => ("LOG", theme.heading()),
    };
    Line::from(styled(format!("{text} {count}"), style))
}

fn item_line(of: &Watched, item: &Item, theme: Theme) -> Line<'static> {
    match item {
        Item::Change(path, letter) => {
            let style = match letter.as_str() {
                "A" => theme.good(),
                "D" => theme.bad(),
                _ => theme.warn(),
            };
            let mut spans = vec![styled(format!(" {} ", shown(letter)), style), Span::raw(shown(path))];
            if let Some(part) = of.said.diff.part(path) {
                let (added, removed) = Diff::lines(part);
                spans.push(styled(format!(" +{added} -{removed}"), theme.faint()));
            }
            Line::from(spans)
        }
        Item::Conflict(path) | Item::Stranded(path) => Line::from(format!(" ! {}", shown(path))),
        Item::Commit(index) => {
            let commit = &of.said.status["log"][*index];
            let hash: String = text_of(&commit["commit"]).chars().take(HASH).collect();
            let first = commit["message"].as_str().and_then(|text| text.lines().next()).unwrap_or_default();
            let labels: Vec<String> = list_of(&commit["environments"]).map(shown).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("({}) ", labels.join(", ")) };
            Line::from(vec![
                styled(format!(" {hash} "), theme.warn()),
                styled(labels, theme.good()),
                Span::raw(shown(first)),
            ])
        }
    }
}

/// The lines about the selected one.
pub(super) fn details(of: &Watched, theme: Theme) -> Vec<Line<'static>> {
    match of.selected() {
        Some(Item::Change(path, _)) => change(of, &path, theme),
        Some(Item::Conflict(copy)) => vec![
            Line::from(styled(shown(&copy), theme.heading())),
            Line::default(),
            Line::from("Another writer changed this file before your save arrived."),
            Line::from("The mount shows the version of the server; yours is kept in"),
            Line::from(format!("{}/.pantheon/conflicts", of.place())),
            Line::default(),
            Line::from("o  choose a version, or merge both"),
        ],
        Some(Item::Stranded(copy)) => vec![
            Line::from(styled(shown(&copy), theme.heading())),
            Line::default(),
            Line::from("The server does not take this change. A content is kept in"),
            Line::from(format!("{}/.pantheon/stranded", of.place())),
            Line::default(),
            Line::from("When the mode permits: pantheonfs rescue list, rescue restore PATH"),
        ],
        Some(Item::Commit(index)) => commit(&of.said.status["log"][index], theme),
        None => of.said.diff.remarks.iter().map(|remark| Line::from(styled(shown(remark), theme.faint()))).collect(),
    }
}

fn change(of: &Watched, path: &str, theme: Theme) -> Vec<Line<'static>> {
    if let Some(part) = of.said.diff.part(path) {
        return part.iter().map(|line| diff_line(line, theme)).collect();
    }
    let remarks = of.said.diff.remarks.iter().map(|remark| shown(remark));
    let waits = if of.said.comparing { "comparing with the server…" } else { "there is no diff of this file" };
    let text = remarks.chain([waits.to_owned()]);
    text.map(|line| Line::from(styled(line, theme.faint()))).collect()
}

fn diff_line(line: &str, theme: Theme) -> Line<'static> {
    let style = match line.as_bytes() {
        [b'+', ..] if !line.starts_with("+++ ") => theme.good(),
        [b'-', ..] if !line.starts_with("--- ") => theme.bad(),
        [b'@', b'@', ..] => theme.place(),
        [b' ' | b'\\', ..] | [] => ratatui::style::Style::new(),
        _ => theme.faint(),
    };
    Line::from(styled(shown(line), style))
}

fn commit(commit: &Value, theme: Theme) -> Vec<Line<'static>> {
    let mut out = vec![
        Line::from(styled(format!("commit {}", text_of(&commit["commit"])), theme.warn())),
        Line::from(format!("Author: {} <{}>", text_of(&commit["author"]), text_of(&commit["email"]))),
        Line::from(format!("Date:   {}", text_of(&commit["time"]))),
    ];
    let labels: Vec<String> = list_of(&commit["environments"]).map(shown).collect();
    if !labels.is_empty() {
        out.push(Line::from(format!("Runs:   {}", labels.join(", "))));
    }
    out.push(Line::default());
    let message = commit["message"].as_str().unwrap_or_default();
    out.extend(message.lines().map(|line| Line::from(format!("    {}", shown(line)))));
    out
}

#[cfg(test)]
mod tests {
    use super::super::watched::tests::watched;
    use super::*;
    use serde_json::json;
    use std::time::Instant;

    #[test]
    fn the_list_has_all_groups_and_the_details_of_the_selected_line() {
        let mut of = watched(json!({
            "environment": "dev", "conflicts": ["code/a.php"], "stranded": ["code/b.php"],
            "uncommitted": [{ "path": "c\u{1b}.php", "letter": "A" }],
            "log": [{ "commit": "0123456789", "author": "A", "email": "a@b", "time": "now", "message": "Fix\u{9b}31m\n\nWhy", "environments": ["dev"] }],
        }));
        let diff = "diff --git a/c\u{1b}.php b/c\u{1b}.php\n@@ -0,0 +1 @@\n+use A\\B;\u{1b}[2J\n";
        of.learn(json!({ "diff": diff, "whole": true }), Instant::now());
        let theme = Theme { colours: true };
        let (lines, selected) = list(&of, theme);
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "CONFLICTS 1",
                " ! code/a.php",
                "STRANDED 1",
                " ! code/b.php",
                "UNCOMMITTED 1",
                " A c\\033.php +1 -0",
                "LOG 1",
                " 01234567 (dev) Fix\\302\\23331m",
            ]
        );
        assert_eq!(selected, 1);
        of.go(2);
        assert_eq!(list(&of, theme).1, 5);
        let shown: Vec<String> = details(&of, theme).iter().map(ToString::to_string).collect();
        assert_eq!(shown[2], "+use A\\B;\\033[2J");
        of.go(1);
        let shown: Vec<String> = details(&of, theme).iter().map(ToString::to_string).collect();
        assert_eq!((shown[0].as_str(), shown[4].as_str()), ("commit 0123456789", ""));
        assert!(shown.contains(&"    Why".to_owned()), "{shown:?}");
    }

    #[test]
    fn without_a_diff_the_reason_is_said() {
        let mut of = watched(json!({ "uncommitted": [{ "path": "a", "letter": "M" }] }));
        of.learn(json!({ "diff": "# there is no diff: no repository\n", "whole": true }), Instant::now());
        let text: Vec<String> = details(&of, Theme { colours: false }).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["there is no diff: no repository", "there is no diff of this file"]);
    }
}
