//! How symlinks of the server that lead out of the mount are shown: as symlinks to a name below `.pantheon/outside`, which
//! carries their text. The kernel never leaves the mount by them, and a copy of such a symlink, made by any program, gets its
//! text again when it is sent to the server.

use crate::path::{Name, RemotePath};

/// The directory, from the root of the mount.
pub const OUTSIDE_PATH: &str = ".pantheon/outside";
/// The name for texts that are too long to be carried.
const TOO_LONG: &str = "too-long";
/// Largest length of a name (bytes), without the mark that more follows.
const MAX_NAME_BYTES: usize = 240;
/// Largest length of all names together. The kernel takes texts of up to 4095 bytes.
const MAX_ALL_BYTES: usize = 3000;
/// Ends a name after which more of the text follows.
const MORE: u8 = b'%';

/// The path, from the root of the mount, that stands for a text.
pub fn outside_path(text: &[u8]) -> RemotePath {
    let root = RemotePath::parse(OUTSIDE_PATH).unwrap_or_else(|_| RemotePath::root());
    let below = names_of(text).unwrap_or_else(|| Name::new(TOO_LONG).into_iter().collect());
    below.iter().fold(root, |path, name| path.join(name))
}

/// The names that carry a text; `None` if it is too long.
fn names_of(text: &[u8]) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    let mut name = Vec::new();
    let mut all = 0;
    for &byte in text {
        if name.len() + 3 > MAX_NAME_BYTES {
            name.push(MORE);
            names.push(Name::new(std::mem::take(&mut name)).ok()?);
        }
        // Names of dots alone are special.
        let escaped = matches!(byte, b'/' | MORE | 0) || (name.is_empty() && byte == b'.');
        match escaped {
            true => name.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => name.push(byte),
        }
        all += 3;
        if all > MAX_ALL_BYTES {
            return None;
        }
    }
    names.push(Name::new(name).ok()?);
    Some(names)
}

/// Whether a path below the directory ends in the middle of a text, so that it stands for a directory.
pub fn goes_on(below: &RemotePath) -> bool {
    below.as_bytes().last().is_none_or(|&last| last == MORE)
}

/// The text that a path below the directory stands for; `None` if it stands for none.
pub fn outside_text(below: &RemotePath) -> Option<Vec<u8>> {
    if goes_on(below) || below.as_bytes() == TOO_LONG.as_bytes() {
        return None;
    }
    let mut text = Vec::new();
    for name in below.names() {
        let name = name.as_bytes();
        let mut rest = name.strip_suffix(&[MORE]).unwrap_or(name);
        while let Some((&byte, more)) = rest.split_first() {
            let (byte, more) = match byte {
                b'%' => (escape(more.get(..2)?)?, &more[2..]),
                byte => (byte, more),
            };
            text.push(byte);
            rest = more;
        }
    }
    Some(text)
}

fn escape(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(text: &[u8]) -> RemotePath {
        let root = RemotePath::parse(OUTSIDE_PATH).expect("valid");
        outside_path(text).strip_prefix(&root).expect("below the directory")
    }

    #[test]
    fn every_link_text_can_be_encoded_in_a_path() {
        let long = b"../%/\xff\n".repeat(120);
        for text in [&b"/etc/passwd"[..], b"..", b".", b"...", b"../../x", b"100%", b"a/../..", b"%2F", b"a\0b", &long]
        {
            let path = below(text);
            assert_eq!(outside_text(&path).as_deref(), Some(text), "{path}");
            assert!(path.names().all(|name| name.as_bytes().len() <= 255));
        }
        assert_eq!(below(b"/etc/passwd").as_bytes(), b"%2Fetc%2Fpasswd");
    }

    #[test]
    fn an_empty_or_overlong_path_encodes_no_text() {
        assert_eq!(outside_text(&below(&b"x".repeat(4000))), None);
        assert!(below(&b"x".repeat(4000)).as_bytes() == TOO_LONG.as_bytes());
        for path in ["", "a%", "%2", "%zz"] {
            assert_eq!(outside_text(&RemotePath::parse(path).expect("valid")), None, "{path}");
        }
        assert!(goes_on(&RemotePath::root()) && goes_on(&RemotePath::parse("a%").expect("valid")));
    }
}
