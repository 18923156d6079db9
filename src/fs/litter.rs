//! Names that stay on this machine: swap and backup files of editors, droppings of operating systems. On the server they
//! would be served to the public (`wp-config.php~` is plain text) and be uncommitted changes.

use crate::path::RemotePath;

/// Whether an object of this name is only ever local.
pub(super) fn is_litter(path: &RemotePath) -> bool {
    path.file_name().is_some_and(|name| matches(name.as_bytes()))
}

fn matches(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    // vim's swap files, `.NAME.swp` and what follows when that is taken; its probe is called 4913 and counts up from there.
    let swap = starts(b".") && name.len() > 5 && {
        let tail = &name[name.len() - 4..];
        tail[..2] == *b".s" && tail[2].is_ascii_lowercase() && tail[3].is_ascii_lowercase() && tail[2] >= b'v'
    };
    let probe = name == b"4913";
    let emacs = starts(b".#") || (starts(b"#") && name.ends_with(b"#") && name.len() > 2);
    let backup = name.len() > 1 && name.ends_with(b"~");
    let system = starts(b"._") && name.len() > 2
        || [&b".DS_Store"[..], b"Thumbs.db", b"desktop.ini", b".directory"].contains(&name);
    swap || probe || emacs || backup || system
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppings_are_told_from_work() {
        for name in [
            ".index.php.swp",
            ".a.swo",
            ".a.svz",
            "4913",
            "wp-config.php~",
            ".#index.php",
            "#index.php#",
            ".DS_Store",
            "._index.php",
            "Thumbs.db",
        ] {
            assert!(matches(name.as_bytes()), "{name}");
        }
        for name in
            ["index.php", ".htaccess", "a.swp", "49130", "~", "#", "##", "._", ".env", "style.css", ".s", "x.swf"]
        {
            assert!(!matches(name.as_bytes()), "{name}");
        }
    }
}
