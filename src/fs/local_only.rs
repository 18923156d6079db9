//! Names that stay on this machine: swap and backup files of editors, droppings of operating systems. On the server they
//! would be served to the public (`wp-config.php~` is plain text) and be uncommitted changes.

use std::sync::Arc;

use super::recover::file_at;
use super::{Cause, Fs};
use crate::inode::{Child, Ino, NodeView};
use crate::path::RemotePath;
use crate::write::{Spool, SpoolId};

impl Fs {
    /// After a name, a content or an object of this number changed: what stays here is in the journal, where it is found by
    /// the next mount, and what does not is not.
    pub(super) fn record_local_only(&self, ino: Ino) -> Result<(), Cause> {
        let Some(spool) = self.spool(ino) else { return Ok(()) };
        let path = self.0.table.path(ino).filter(is_local_only);
        let now = match (path, self.0.table.view(ino)) {
            (Some(path), Some(view)) if !view.unlinked => Some((path, view.attr.perm)),
            _ => None,
        };
        spool.stay(now.is_some());
        Ok(self.0.journal.note_local_only(spool.id(), now)?)
    }

    /// The content of a file is in another spool now.
    pub(super) fn replaced_local_only(&self, ino: Ino, before: Option<Arc<Spool>>) -> Result<(), Cause> {
        if let Some(before) = before {
            before.stay(false);
            self.0.journal.note_local_only(before.id(), None)?;
        }
        self.record_local_only(ino)
    }

    /// Something moved, and what stays here with it.
    pub(super) fn local_only_renamed(&self, moved: &NodeView, to: &RemotePath) -> Result<(), Cause> {
        if !moved.attr.is_dir() {
            return self.record_local_only(moved.ino);
        }
        let spools: Vec<Ino> = self.0.spools.lock().keys().copied().collect();
        let below =
            |ino: &Ino| self.0.table.path(*ino).is_some_and(|path| path.starts_with(to) && is_local_only(&path));
        spools.into_iter().filter(below).try_for_each(|ino| self.record_local_only(ino))
    }

    /// What stayed here when the last mount ended is shown again.
    pub(super) fn show_local_only(&self) {
        for (id, path, perm) in self.0.journal.local_only() {
            if self.show_one(id, &path, perm).is_none() {
                log::warn!("{path}: it stayed on this machine and cannot be shown any more");
            }
        }
    }

    fn show_one(&self, id: SpoolId, path: &RemotePath, perm: u16) -> Option<()> {
        let spool = Arc::new(self.0.journal.reopen_local_only(id).ok()?);
        let (parent, name) = (self.dir_at(&path.parent()?)?, path.file_name()?);
        if let Child::Positive(_) = self.0.table.child(parent, &name) {
            return None;
        }
        let at = crate::attr::secs_from_time(self.0.clock.wall());
        let ino = self.0.table.insert(parent, &name, file_at(spool.len(), perm, at), None)?;
        self.put_spool(ino, spool);
        Some(())
    }
}

/// Whether an object of this name is only ever local.
pub(super) fn is_local_only(path: &RemotePath) -> bool {
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
