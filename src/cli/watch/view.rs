//! The screen: where each part is.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::dialog::Dialog;
use super::theme::{Theme, shown, styled};
use super::watched::Watched;
use super::{details, head};
use crate::cli::list::describe;
use crate::text::visible;
use crate::vfiles::span;

/// From this width on the details are beside the list, otherwise below it.
const WIDE: u16 = 72;
/// From this height on all lines about a mount are shown.
const LOW: u16 = 16;
/// Rows that the list and the details need to be one below the other.
const STACKED: u16 = 10;
/// Rows of the table of mounts at most.
const MOUNTS: usize = 8;
/// The smallest screen that shows anything useful.
const SMALLEST: (u16, u16) = (30, 8);
/// Rows of the outcome of the last command at most.
const OUTCOME: u16 = 3;

/// What is shown.
pub(super) struct Screen<'a> {
    pub(super) mounts: &'a [Watched],
    /// The number of the mount that is shown.
    pub(super) at: usize,
    pub(super) dialog: Option<&'a Dialog>,
    /// The outcome of the last command, and whether it is a good one.
    pub(super) outcome: Option<(&'a str, bool)>,
    pub(super) theme: Theme,
    pub(super) now: Instant,
}

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new("This terminal is too small.").wrap(Wrap { trim: true }), area);
        return;
    }
    let table = mounts(screen);
    let head = match screen.mounts.get(screen.at) {
        Some(of) => state(of, screen, area.height < LOW),
        None => vec![Line::from(" nothing is mounted; `pantheonfs mount SITE` mounts Dev of a site")],
    };
    let outcome = outcome_height(screen, area.width);
    let rows = |lines: &[Line<'_>]| Constraint::Length(u16::try_from(lines.len()).unwrap_or(u16::MAX));
    let parts = [Constraint::Length(1), rows(&table), rows(&head), Constraint::Min(3), Constraint::Length(outcome)];
    let [title, above, upper, lower, below, keys] =
        Layout::vertical(parts.into_iter().chain([Constraint::Length(1)])).areas(area);
    frame.render_widget(title_line(screen), title);
    frame.render_widget(Paragraph::new(table), above);
    frame.render_widget(Paragraph::new(head), upper);
    if let Some(of) = screen.mounts.get(screen.at) {
        draw_items(frame, of, screen.theme, lower);
    }
    if let Some((text, good)) = screen.outcome {
        let style = if good { screen.theme.good() } else { screen.theme.bad() };
        frame.render_widget(Paragraph::new(shown(text)).style(style).wrap(Wrap { trim: true }), below);
    }
    frame.render_widget(keys_line(screen.theme), keys);
    if let Some(dialog) = screen.dialog {
        draw_dialog(frame, dialog, screen.theme);
    }
}

fn outcome_height(screen: &Screen<'_>, width: u16) -> u16 {
    let columns = screen.outcome.map_or(0, |(text, _)| Line::from(shown(text)).width());
    u16::try_from(columns.div_ceil(usize::from(width))).map_or(OUTCOME, |rows| rows.min(OUTCOME))
}

fn title_line(screen: &Screen<'_>) -> Line<'static> {
    let theme = screen.theme;
    let mut spans = vec![styled(" pantheonfs ", theme.selected())];
    if let Some(of) = screen.mounts.get(screen.at) {
        spans.push(styled(format!(" {} ", visible(&of.mount.record.source)), theme.heading()));
        spans.push(styled(of.place(), theme.faint()));
        if of.said.comparing {
            spans.push(styled("  comparing…", theme.faint()));
        }
    }
    Line::from(spans)
}

/// A row for each mount, if there are several.
fn mounts(screen: &Screen<'_>) -> Vec<Line<'static>> {
    if screen.mounts.len() < 2 {
        return Vec::new();
    }
    let first = screen.at.saturating_sub(MOUNTS - 1);
    let width = screen.mounts.iter().map(|of| visible(&of.mount.record.source).chars().count()).max();
    let width = width.unwrap_or_default();
    let row = |(index, of): (usize, &Watched)| {
        let text = match of.silent(screen.now) {
            Some(silent) => format!("does not answer since {}", span(silent)),
            None if of.mount.alive && !of.is_known() => "asking…".to_owned(),
            None => describe(&of.mount, Some(&of.said.status).filter(|_| of.mount.alive)),
        };
        let line = Line::from(format!(" {} {:<width$}  {text}", index + 1, visible(&of.mount.record.source)));
        if index == screen.at { line.style(screen.theme.selected()) } else { line }
    };
    screen.mounts.iter().enumerate().skip(first).take(MOUNTS).map(row).collect()
}

/// The lines about the mount, and in front of them why they may be old.
fn state(of: &Watched, screen: &Screen<'_>, brief: bool) -> Vec<Line<'static>> {
    let theme = screen.theme;
    let mut out = Vec::new();
    if !of.mount.alive {
        out.push(Line::from(styled(format!(" {}", describe(&of.mount, None)), theme.bad())));
    } else if let Some(silent) = of.silent(screen.now) {
        let hint = "`pantheonfs umount --force` removes it";
        out.push(Line::from(styled(format!(" the mount does not answer since {}; {hint}", span(silent)), theme.bad())));
    } else if let Some(error) = &of.said.error {
        out.push(Line::from(styled(format!(" the mount cannot be read: {}", shown(error)), theme.bad())));
    }
    if of.is_known() {
        out.extend(head::lines(of, theme, brief));
    } else if out.is_empty() {
        out.push(Line::from(styled(" asking the mount…", theme.faint())));
    }
    out
}

fn draw_items(frame: &mut Frame<'_>, of: &Watched, theme: Theme, area: Rect) {
    let halves = [Constraint::Percentage(40), Constraint::Percentage(60)];
    let [left, right] = match (area.width >= WIDE, area.height >= STACKED) {
        (true, _) => Layout::horizontal(halves).areas(area),
        (false, true) => Layout::vertical(halves).areas(area),
        (false, false) => [area, Rect::default()],
    };
    let (lines, selected) = details::list(of, theme);
    let block = |title: &'static str| Block::bordered().title(title).border_style(theme.faint());
    let height = usize::from(left.height.saturating_sub(2));
    // The heading above the first line is shown, too.
    let first = if selected < 2 { 0 } else { (selected + 1).saturating_sub(height) };
    let window = lines.into_iter().skip(first).take(height).collect::<Vec<_>>();
    frame.render_widget(Paragraph::new(window).block(block(" changes and log ")), left);
    let lines = details::details(of, theme);
    let height = usize::from(right.height.saturating_sub(2));
    let first = of.scroll.min(lines.len().saturating_sub(height));
    let window = lines.into_iter().skip(first).take(height).collect::<Vec<_>>();
    frame.render_widget(Paragraph::new(window).block(block(" details ")), right);
}

fn keys_line(theme: Theme) -> Line<'static> {
    let keys = [
        ("q", "uit"),
        ("?", " help"),
        ("c", "ommit"),
        ("m", "ode"),
        ("v", " revert"),
        ("o", " resolve"),
        ("s", "ync"),
        ("h", "ydrate"),
        ("r", "efresh"),
    ];
    let spans = keys.into_iter().flat_map(|(key, rest)| {
        [Span::raw(" "), styled(key, theme.selected()), styled(rest.to_owned(), theme.faint())]
    });
    Line::from_iter(spans)
}

fn draw_dialog(frame: &mut Frame<'_>, dialog: &Dialog, theme: Theme) {
    let area = frame.area();
    let keys = dialog.keys().into_iter();
    let keys = keys.map(|(key, what)| Line::from(vec![styled(key, theme.heading()), Span::raw(format!("  {what}"))]));
    let mut lines: Vec<Line<'_>> = dialog.lines.iter().map(|line| Line::from(line.clone())).collect();
    lines.push(Line::default());
    lines.extend(keys);
    let width = lines.iter().map(Line::width).max().unwrap_or_default() + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width.saturating_sub(2));
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    let inner = usize::from(width.saturating_sub(2).max(1));
    let rows: usize = dialog.lines.iter().map(|line| Line::from(line.as_str()).width().div_ceil(inner).max(1)).sum();
    let rows = rows + dialog.keys().len() + 3;
    let height = u16::try_from(rows).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(text.block(Block::bordered().title(format!(" {} ", dialog.title))), place);
}

#[cfg(test)]
mod tests {
    use super::super::dialog;
    use super::super::watched::tests::watched;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;
    use std::time::Duration;

    /// The text of a screen of this size.
    fn drawn(mounts: &[Watched], size: (u16, u16), dialog: Option<&Dialog>, now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a terminal in memory");
        let theme = Theme { colours: true };
        let screen = Screen { mounts, at: 0, dialog, outcome: Some(("sync: done", true)), theme, now };
        terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
        if size.0 == 0 { String::new() } else { terminal.backend().to_string() }
    }

    fn status() -> serde_json::Value {
        json!({
            "environment": "dev", "mode": "sftp", "code": { "writable": true }, "link": { "up": true, "seconds": 3 },
            "uncommitted": [{ "path": "index.php", "letter": "M" }], "conflicts": ["code/a.php"],
            "log": [{ "commit": "0123456789", "message": "First" }],
        })
    }

    #[test]
    fn every_part_is_on_screens_of_all_sizes() {
        let mounts = [watched(status())];
        for size in [(80, 24), (200, 60), (60, 40)] {
            let text = drawn(&mounts, size, None, Instant::now());
            for part in [
                "mysite.dev",
                "code writable",
                "up for 3 s",
                "CONFLICTS 1",
                "M index.php",
                "LOG 1",
                "sync: done",
                "quit",
            ] {
                assert!(text.contains(part), "'{part}' is not on {size:?}:\n{text}");
            }
        }
    }

    #[test]
    fn any_size_can_be_drawn() {
        let mounts = [watched(status()), watched(json!({}))];
        let help = dialog::help();
        for width in [0, 1, 2, 5, 29, 30, 31, 71, 72, 300] {
            for height in [0, 1, 3, 7, 8, 9, 12, 100] {
                drawn(&mounts, (width, height), Some(&help), Instant::now());
            }
        }
        assert!(drawn(&mounts, (29, 20), None, Instant::now()).contains("too small"));
    }

    #[test]
    fn a_mount_that_does_not_answer_is_said_to() {
        let text = drawn(&[watched(status())], (80, 24), None, Instant::now() + Duration::from_secs(7));
        assert!(text.contains("does not answer since 7 s") || text.contains("does not answer since 6 s"), "{text}");
        let mut dead = watched(status());
        dead.mount.alive = false;
        assert!(drawn(&[dead], (80, 24), None, Instant::now()).contains("its driver has ended"));
    }

    #[test]
    fn several_mounts_have_a_row_each() {
        let mounts = [watched(status()), watched(json!({ "link": { "up": false } }))];
        let text = drawn(&mounts, (100, 30), None, Instant::now());
        assert!(
            text.contains(" 1 mysite.dev  sftp mode") && text.contains(" 2 mysite.dev  code read-only, link down"),
            "{text}"
        );
    }

    #[test]
    fn a_question_names_its_keys() {
        let mounts = [watched(status())];
        let question = dialog::switch(&mounts[0]);
        let text = drawn(&mounts, (80, 24), Some(&question), Instant::now());
        assert!(text.contains("DELETES 1 uncommitted") && text.contains("D  delete them and switch"), "{text}");
    }
}
