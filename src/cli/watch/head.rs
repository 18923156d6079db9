//! The lines about the state of a mount: mode, link, what is sent, jobs, kept copies.

use std::time::Duration;

use indicatif::HumanBytes;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::theme::{Theme, count_of, list_of, shown, since, styled, text_of};
use super::watched::Watched;
use crate::vfiles::span;

/// Columns of the bar.
const BAR: usize = 24;
/// Columns of the names of the lines.
const NAMES: usize = 9;

/// A line with its name.
fn named(name: &str, theme: Theme, spans: Vec<Span<'static>>) -> Line<'static> {
    let name = styled(format!(" {name:<NAMES$}"), theme.faint());
    Line::from_iter([name].into_iter().chain(spans))
}

/// Spans with dots between them.
fn joined(parts: impl IntoIterator<Item = Span<'static>>, theme: Theme) -> Vec<Span<'static>> {
    let mut out = Vec::new();
    for part in parts {
        if !out.is_empty() {
            out.push(styled(" · ", theme.faint()));
        }
        out.push(part);
    }
    out
}

/// The lines about the mount; `brief`: the most important ones.
pub(super) fn lines(of: &Watched, theme: Theme, brief: bool) -> Vec<Line<'static>> {
    let status = &of.said.status;
    let mut out = vec![
        named("mode", theme, mode(status, theme)),
        named("link", theme, link(status, theme)),
        named("sending", theme, sending(of, theme)),
    ];
    if brief {
        return out;
    }
    out.push(named("jobs", theme, jobs(of, theme)));
    out.push(named("kept", theme, kept(status, theme)));
    if status["hydration"]["running"].as_bool() == Some(true) {
        out.push(named("hydrate", theme, hydration(&status["hydration"], theme)));
    }
    if let Some(error) = status["last_error"]["message"].as_str() {
        let ago = since(&status["last_error"]["time"]).unwrap_or_default();
        out.push(named("error", theme, vec![styled(format!("{} ago: {}", span(ago), shown(error)), theme.warn())]));
    }
    out
}

/// Whether an area can be written.
fn writable(what: &str, write: &Value, theme: Theme) -> Option<Span<'static>> {
    let (text, style) = match (write["writable"].as_bool()?, write["held"].is_string()) {
        (true, _) => ("writable", theme.good()),
        (false, true) => ("waits", theme.warn()),
        (false, false) => ("read-only", theme.warn()),
    };
    Some(styled(format!("{what} {text}"), style))
}

fn mode(status: &Value, theme: Theme) -> Vec<Span<'static>> {
    let mut parts = Vec::new();
    if status["environment"].is_string() {
        let since = since(&status["mode_since"]).map(|ago| format!(" for {}", span(ago))).unwrap_or_default();
        parts.push(styled(format!("{}{since}", text_of(&status["mode"])), theme.heading()));
    }
    let areas = ["code", "uploads"];
    parts.extend(areas.iter().filter_map(|area| writable(area, &status[area], theme)));
    if let Some(error) = status["mode_error"].as_str() {
        parts.push(styled(shown(error), theme.warn()));
    }
    // Long texts are last: what is right of the screen is not seen.
    let reasons = areas.iter().filter_map(|area| status[area]["held"].as_str().or(status[area]["reason"].as_str()));
    parts.extend(reasons.map(|why| Span::raw(shown(why))));
    parts.extend(since_checked(status).map(|text| styled(text, theme.faint())));
    joined(parts, theme)
}

/// Where the mode comes from, and how old that is.
fn since_checked(status: &Value) -> Option<String> {
    status["environment"].as_str()?;
    let ago = span(since(&status["mode_checked"])?);
    Some(match status["mode_source"].as_str()? {
        "api" => format!("checked {ago} ago"),
        "remembered" => format!("as of {ago} ago"),
        _ => "assumed".to_owned(),
    })
}

fn link(status: &Value, theme: Theme) -> Vec<Span<'static>> {
    let link = &status["link"];
    let lasting = span(Duration::from_secs(link["seconds"].as_u64().unwrap_or_default()));
    if link["up"].as_bool() != Some(true) {
        return vec![styled(format!("DOWN for {lasting} ({})", text_of(&link["why"])), theme.bad())];
    }
    let mut parts = vec![styled(format!("up for {lasting}"), theme.good())];
    if let Some(ms) = link["round_trip_ms"].as_f64() {
        parts.push(Span::raw(format!("round trip {ms:.0} ms")));
    }
    let received = status["received_in_a_minute"].as_u64().unwrap_or_default();
    parts.push(Span::raw(format!("{} received in a minute", HumanBytes(received))));
    parts.push(styled(format!("{} to {}", text_of(&link["transport"]), text_of(&link["peer"])), theme.faint()));
    joined(parts, theme)
}

/// A bar of the part that is done, 0 to 1.
fn bar(done: f64, style: Style) -> [Span<'static>; 2] {
    let full = (done.clamp(0.0, 1.0) * BAR as f64).floor() as usize;
    [styled("█".repeat(full), style), Span::raw("░".repeat(BAR - full))]
}

fn sending(of: &Watched, theme: Theme) -> Vec<Span<'static>> {
    let Some(progress) = of.sending.progress() else {
        let sent = count_of(&of.said.status["sent_files"]);
        let bytes = HumanBytes(count_of(&of.said.status["sent_bytes"]));
        return joined(
            [
                styled("nothing waits", theme.good()),
                styled(format!("{sent} file(s), {bytes} sent so far"), theme.faint()),
            ],
            theme,
        );
    };
    let mut parts = vec![
        Span::raw(format!(" {:.0} %", (progress.done * 100.0).floor())),
        Span::raw(format!("{} change(s), {} wait", progress.waiting, HumanBytes(progress.waiting_bytes))),
    ];
    parts.push(Span::raw(format!("{}/s", HumanBytes(progress.rate.max(0.0) as u64))));
    bar(progress.done, theme.good()).into_iter().chain(joined(parts, theme)).collect()
}

fn jobs(of: &Watched, theme: Theme) -> Vec<Span<'static>> {
    let mut parts: Vec<_> = of.running.iter().map(|what| styled(format!("{what} runs"), theme.warn())).collect();
    parts.extend(list_of(&of.said.status["running"]).map(|job| styled(shown(job), theme.warn())));
    if parts.is_empty() { vec![styled("none", theme.faint())] } else { joined(parts, theme) }
}

fn kept(status: &Value, theme: Theme) -> Vec<Span<'static>> {
    let kept = count_of(&status["kept"]);
    if kept == 0 {
        return vec![styled("no copies of uncommitted work", theme.faint())];
    }
    let oldest = since(&status["kept_since"]).map(|ago| format!(", the oldest {} old", span(ago))).unwrap_or_default();
    let mut parts = vec![Span::raw(format!("{kept} copies of uncommitted work{oldest}"))];
    let lost = count_of(&status["lost"]);
    if lost > 0 {
        parts.push(styled(format!("{lost} not on the server any more: pantheonfs rescue list"), theme.bad()));
    }
    joined(parts, theme)
}

fn hydration(now: &Value, theme: Theme) -> Vec<Span<'static>> {
    let number = |key: &str| now[key].as_u64().unwrap_or_default();
    let (bytes, all) = (number("bytes"), number("bytes_in_all"));
    let part = if all == 0 { 0.0 } else { bytes as f64 / all as f64 };
    let parts = [
        Span::raw(format!(" {} of {} files", number("files"), number("files_in_all"))),
        Span::raw(format!("{} of {}", HumanBytes(bytes), HumanBytes(all))),
    ];
    bar(part, theme.good()).into_iter().chain(joined(parts, theme)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::watched::tests::watched;
    use super::*;
    use serde_json::json;

    fn text(status: Value) -> String {
        let lines = lines(&watched(status), Theme { colours: false }, false);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn each_line_says_its_part_of_the_status() {
        let long_ago = "2020-01-01T00:00:00Z";
        let all = text(json!({
            "environment": "dev", "mode": "git", "mode_since": long_ago, "mode_checked": long_ago, "mode_source": "api",
            "code": { "writable": false, "reason": "Git mode" }, "uploads": { "writable": true },
            "link": { "up": false, "seconds": 150, "why": "closed \u{1b}[31m" },
            "waiting": 3, "waiting_bytes": 2048, "running": ["Sync code\u{7}"], "kept": 2, "kept_since": long_ago,
            "lost": ["x"], "hydration": { "running": true, "files": 1, "files_in_all": 4, "bytes": 5, "bytes_in_all": 10 },
            "last_error": { "time": long_ago, "message": "write a.php: refused" },
        }));
        for part in [
            "git for ",
            "code read-only · uploads writable · Git mode",
            "DOWN for 2 min (closed \\033[31m)",
            "0 % · 3 change(s), 2.00 KiB wait",
            "Sync code\\007",
            "2 copies of uncommitted work, the oldest ",
            "1 not on the server any more",
            "1 of 4 files · 5 B of 10 B",
            "ago: write a.php: refused",
        ] {
            assert!(all.contains(part), "'{part}' is not in:\n{all}");
        }
        let half = format!("{}{}", "█".repeat(BAR / 2), "░".repeat(BAR / 2));
        assert!(all.contains(&half), "{all}");
    }

    #[test]
    fn a_server_without_an_environment_has_no_mode() {
        let all = text(
            json!({ "mode": "sftp", "code": { "writable": true }, "link": { "up": true, "round_trip_ms": 51.6 } }),
        );
        assert!(!all.contains("sftp") && all.contains("code writable") && all.contains("round trip 52 ms"), "{all}");
        assert!(all.contains("nothing waits") && all.contains("none") && all.contains("no copies"), "{all}");
    }
}
