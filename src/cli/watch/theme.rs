//! The styles of the screen, with colours and without (`NO_COLOR`), and texts as the screen shows them.

use std::time::{Duration, SystemTime};

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;
use serde_json::Value;

use crate::text::visible;

/// Columns of a tab in a diff.
const TAB: &str = "    ";

#[derive(Clone, Copy)]
pub(super) struct Theme {
    pub(super) colours: bool,
}

impl Theme {
    fn style(self, colour: Color, without: Modifier) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new().add_modifier(without) }
    }

    pub(super) fn good(self) -> Style {
        self.style(Color::Green, Modifier::empty())
    }

    pub(super) fn bad(self) -> Style {
        self.style(Color::Red, Modifier::BOLD)
    }

    pub(super) fn warn(self) -> Style {
        self.style(Color::Yellow, Modifier::BOLD)
    }

    pub(super) fn place(self) -> Style {
        self.style(Color::Cyan, Modifier::empty())
    }

    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// A text of the server or of a file, which must not steer the terminal. A backslash stays one, because code has many: the
/// screen is not read by programs, which would have to tell it from an escape.
pub(super) fn shown(text: &str) -> String {
    text.replace('\t', TAB).split('\\').map(visible).collect::<Vec<_>>().join("\\")
}

pub(super) fn text_of(value: &Value) -> String {
    shown(value.as_str().unwrap_or_default())
}

/// The texts of a list.
pub(super) fn list_of(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub(super) fn count_of(value: &Value) -> u64 {
    value.as_array().map_or_else(|| value.as_u64().unwrap_or_default(), |list| list.len() as u64)
}

pub(super) fn styled(text: impl Into<String>, style: Style) -> Span<'static> {
    Span::styled(text.into(), style)
}

/// How long ago a time of the status was.
pub(super) fn since(time: &Value) -> Option<Duration> {
    let time = humantime::parse_rfc3339(time.as_str()?).ok()?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_does_not_steer_the_terminal_and_code_stays_readable() {
        assert_eq!(shown("use Foo\\Bar;\t// x"), "use Foo\\Bar;    // x");
        assert_eq!(shown("\u{1b}]0;title\u{7}\r"), "\\033]0;title\\007\\r");
        assert_eq!(shown("\u{202e}gpj.php"), "\\342\\200\\256gpj.php");
    }

    #[test]
    fn without_colours_the_styles_have_none() {
        let plain = Theme { colours: false };
        for style in [plain.good(), plain.bad(), plain.warn(), plain.place(), plain.faint(), plain.selected()] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
        assert!(Theme { colours: true }.bad().fg.is_some());
    }
}
