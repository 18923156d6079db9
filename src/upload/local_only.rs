//! Local-only objects: swap and backup files of editors, files and trash of desktops. On the server they would be served
//! to the public (`wp-config.php~` is plain text) and be uncommitted changes.
//!
//! The name decides only where an object is made. What the server has under such a name is as any other object, and what
//! is only here stays here whatever the server gets.

use std::sync::Arc;

use super::here::Object;
use super::local::Local;
use crate::attr::FileKind;
use crate::error::Cause;
use crate::inode::{Ino, NodeView};
use crate::path::{Name, RemotePath};
use crate::write::Spool;

impl Local {
    /// Updates the journal's list of local-only files after the name, the content or the object of this number
    /// changed, so that the next mount finds them.
    pub(super) fn record_local_only(&self, ino: Ino) -> Result<(), Cause> {
        let Some(spool) = self.spool(ino) else { return Ok(()) };
        let now = match (self.0.view.path(ino), self.0.view.node(ino)) {
            (Some(path), Some(node)) if node.only_here && !node.unlinked => Some((path, node.attr.perm)),
            _ => None,
        };
        spool.stay(now.is_some());
        Ok(self.0.journal.note_local_only(spool.id(), now)?)
    }

    /// Updates the lists of local-only objects after the permission bits of this one changed.
    pub(super) fn perm_of_local_only(&self, ino: Ino) -> Result<(), Cause> {
        let dir = self.0.view.node(ino).filter(|node| node.only_here && node.attr.is_dir() && !node.unlinked);
        if let (Some(node), Some(path)) = (dir, self.0.view.path(ino)) {
            self.0.spools.here.made(&path, &Object::Dir(node.attr.perm));
        }
        self.record_local_only(ino)
    }

    pub(super) fn is_only_here(&self, ino: Ino) -> bool {
        self.0.view.node(ino).is_some_and(|node| node.only_here)
    }

    /// Whether an object that is made under this name never leaves this machine.
    pub(super) fn stays_here(&self, parent: Ino, name: &Name, kind: FileKind) -> bool {
        let known = name.as_bytes();
        self.is_only_here(parent)
            || is_tree(known)
            || (kind != FileKind::Directory && matches(known))
            || self.is_named_local(parent, name, kind)
    }

    /// Whether the user's patterns say so.
    fn is_named_local(&self, parent: Ino, name: &Name, kind: FileKind) -> bool {
        let path = self.0.view.below_code(parent).map(|dir| dir.join(name));
        path.is_some_and(|path| self.0.spools.here.patterns.match_path(&path, kind == FileKind::Directory))
    }

    /// An object was renamed over another one, or to a free name: updates the list of directories and links that are only
    /// here.
    pub(super) fn moved_here(&self, (from, to): (&RemotePath, &RemotePath), moved: &NodeView, over: Option<&NodeView>) {
        let here = &self.0.spools.here;
        if over.is_some_and(|node| node.only_here && !node.attr.is_file()) {
            here.removed(to);
        }
        if moved.only_here && !moved.attr.is_file() {
            here.moved(from, to);
        }
    }

    /// Number and bytes of the files that are only here.
    pub(super) fn local_only_figures(&self) -> (usize, u64) {
        let files = self.0.spools.all().into_iter().filter(|(ino, _)| self.is_only_here(*ino));
        files.fold((0, 0), |(files, bytes), (_, spool)| (files + 1, bytes + spool.len()))
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
        let below =
            |ino: &Ino| self.0.view.path(*ino).is_some_and(|path| path.starts_with(to)) && self.is_only_here(*ino);
        let inodes = self.0.spools.all().into_iter().map(|(ino, _)| ino);
        inodes.filter(below).try_for_each(|ino| self.record_local_only(ino))
    }
}

/// Directories that desktops make in the root of a disk, and everything in them.
fn is_tree(name: &[u8]) -> bool {
    let trash = name.starts_with(b".Trash-") && name.len() > 7;
    trash || [&b".Trashes"[..], b".Spotlight-V100", b".fseventsd", b".TemporaryItems"].contains(&name)
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
    let office = (starts(b".~lock.") && name.ends_with(b"#")) || (starts(b"~$") && name.len() > 2);
    let removed = starts(b".fuse_hidden");
    let emacs = starts(b".#") || (starts(b"#") && name.ends_with(b"#") && name.len() > 2);
    let backup = name.len() > 1 && name.ends_with(b"~");
    let system = starts(b"._") && name.len() > 2
        || [&b".DS_Store"[..], b"Thumbs.db", b"desktop.ini", b".directory"].contains(&name);
    swap || probe || office || removed || emacs || backup || system
}

/// The same names as patterns of `gitignore`.
pub const LOCAL_ONLY_PATTERNS: [&str; 18] = [
    ".Trash-*",
    ".Trashes",
    ".Spotlight-V100",
    ".fseventsd",
    ".TemporaryItems",
    ".*.s[v-z][a-z]",
    "4913",
    ".~lock.*#",
    "~$*",
    ".fuse_hidden*",
    ".#*",
    r"\#*#",
    "?*~",
    "._?*",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".directory",
];

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
            ".~lock.a.odt#",
            "~$a.docx",
            ".fuse_hidden0001",
        ] {
            assert!(matches(name.as_bytes()), "{name}");
        }
        assert!([&b".Trash-1000"[..], b".Spotlight-V100", b".fseventsd", b".TemporaryItems"].into_iter().all(is_tree));
        assert!(![&b".Trash-"[..], b".Trash.php", b"Trash-1000", b".git"].into_iter().any(is_tree));
        for name in
            ["index.php", ".htaccess", "a.swp", "49130", "~", "#", "##", "._", ".env", "style.css", ".s", "x.swf"]
        {
            assert!(!matches(name.as_bytes()), "{name}");
        }
    }
}
