//! Local-only names: swap and backup files of editors, files of desktops. On the server they would be served to the
//! public (`wp-config.php~` is plain text) and be uncommitted changes.

use std::sync::Arc;

use super::local::Local;
use crate::error::Cause;
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::write::Spool;

impl Local {
    /// Updates the journal's list of local-only files after the name, the content or the object of this number
    /// changed, so that the next mount finds them.
    pub(super) fn record_local_only(&self, ino: Ino) -> Result<(), Cause> {
        let Some(spool) = self.spool(ino) else { return Ok(()) };
        let path = self.0.view.path(ino).filter(is_local_only);
        let now = match (path, self.0.view.node(ino)) {
            (Some(path), Some(node)) if !node.unlinked => Some((path, node.attr.perm)),
            _ => None,
        };
        spool.stay(now.is_some());
        Ok(self.0.journal.note_local_only(spool.id(), now)?)
    }

    /// The content of a local-only file is in another spool now.
    pub(super) fn replaced_local_only(&self, ino: Ino, before: Option<Arc<Spool>>) -> Result<(), Cause> {
        if let Some(before) = before {
            before.stay(false);
            self.0.journal.note_local_only(before.id(), None)?;
        }
        self.record_local_only(ino)
    }

    /// An object was renamed: updates the local-only files at and below it.
    pub(super) fn renamed_local_only(&self, moved: &NodeView, to: &RemotePath) -> Result<(), Cause> {
        if !moved.attr.is_dir() {
            return self.record_local_only(moved.ino);
        }
        let below = |ino: &Ino| self.0.view.path(*ino).is_some_and(|path| path.starts_with(to) && is_local_only(&path));
        let inodes = self.0.spools.all().into_iter().map(|(ino, _)| ino);
        inodes.filter(below).try_for_each(|ino| self.record_local_only(ino))
    }
}

/// Whether an object of this name stays on this machine.
pub(super) fn is_local_only(path: &RemotePath) -> bool {
    path.file_name().is_some_and(|name| matches(name.as_bytes()))
}

fn matches(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    // vim's swap files are `.NAME.swp`, or `.swo` and so on if that is taken. Its probe file is called 4913, and
    // counts up from there if that is taken.
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
    fn local_only_names_are_told_from_work() {
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
