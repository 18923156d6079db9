//! Text of others for terminals and for files of lines: what a server, the platform or a file name says must not steer a
//! terminal, and must not begin a line of its own.
//!
//! The one place that decides how such text is shown: as `ls -b` and git do, with a backslash. What shows text to people
//! calls [`visible`] where the text goes out, once; rooms below pass text on as it came.

use std::fmt::Write;

/// The text with everything escaped that is not a visible character: control characters (C0, DEL, C1), line separators,
/// marks that change the direction of text, other characters without a shape of their own, bytes that are not UTF-8, and
/// the backslash, so that every text can be told from every other.
pub fn visible(text: impl AsRef<[u8]>) -> String {
    let mut out = String::with_capacity(text.as_ref().len());
    for chunk in text.as_ref().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                _ if is_hidden(c) => octal(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => out.push(c),
            }
        }
        octal(&mut out, chunk.invalid());
    }
    out
}

/// A JSON value for people and programs. What [`visible`] escapes is escaped as JSON has it: the value stays the same.
pub fn json(value: &serde_json::Value) -> String {
    let mut out = String::new();
    for c in format!("{value:#}\n").chars() {
        // Outside of texts there are line ends only.
        if c == '\n' || !is_hidden(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "\\{byte:03o}");
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("wp-content/Übersicht für Ärzte 日本.php", "wp-content/Übersicht für Ärzte 日本.php"),
            ("a\nmode: git\r\t.php", "a\\nmode: git\\r\\t.php"),
            ("\u{1b}]0;x\u{7}", "\\033]0;x\\007"),
            ("\u{7f}\u{9b}31m", "\\177\\302\\23331m"),
            ("x\u{202e}php.exe\u{2066}", "x\\342\\200\\256php.exe\\342\\201\\246"),
            ("a\u{2028}b\u{200b}c", "a\\342\\200\\250b\\342\\200\\213c"),
            ("\\033", "\\\\033"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible(b"\x9b31m\xffa"), "\\23331m\\377a");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_texts_stay_apart(one in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            let shown = visible(&one);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(one == other, shown == visible(&other));
        }

        #[test]
        fn json_stays_the_same_value(text in any::<String>()) {
            let value = serde_json::json!({ &text: [&text, 1] });
            let shown = json(&value);
            prop_assert!(!shown.chars().any(|c| c != '\n' && is_hidden(c)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        }
    }
}
