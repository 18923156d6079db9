//! opendir, readdirplus, releasedir.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::handles::{Handle, HandleId, OpenDir};
use super::state::Fs;
use crate::dotdir::parent;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, ROOT};
use crate::path::Name;
use crate::view::Entry;

/// The entries `.` and `..`, which come first.
const DOTS: usize = 2;

/// One entry for the kernel. `offset` continues the listing after this entry.
#[derive(Debug, Clone)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub entry: Entry,
    pub offset: u64,
    /// The kernel counts a reference for every entry except `.` and `..`.
    pub counted: bool,
}

impl Fs {
    /// Returns the handle, and whether the names that the kernel has cached are current.
    pub fn opendir(&self, ino: Ino, wait: Wait) -> FsResult<(HandleId, bool)> {
        if ino.is_virtual() {
            self.dot.opendir(ino, wait)?;
        } else {
            self.view.ensure_listed("opendir", ino, self.view.freshness(ino), wait)?;
        }
        let keep_names = !ino.is_virtual() && self.view.keep_names(ino);
        Ok((self.handles.add(Handle::Dir(OpenDir { ino, entries: Mutex::default() })), keep_names))
    }

    /// Passes the entries after `offset` to `take` until it returns `false` (full). Never waits: the listing was
    /// renewed when the directory was opened.
    pub fn readdirplus(&self, id: HandleId, offset: u64, mut take: impl FnMut(&DirEntry) -> bool) -> FsResult<()> {
        let handle = self.handles.get("readdir", id)?;
        let Handle::Dir(dir) = &*handle else { return Err(FsError::new("readdir", "handle", Cause::BadHandle)) };
        let names = self.names_at(dir, offset);
        for (index, entry) in self.dots(dir.ino).into_iter().enumerate().skip(offset as usize) {
            if !take(&DirEntry { offset: index as u64 + 1, ..entry }) {
                return Ok(());
            }
        }
        let skip = (offset as usize).saturating_sub(DOTS);
        for (index, (name, ino)) in names.iter().enumerate().skip(skip) {
            let Some(entry) = self.entry_now(*ino) else { continue };
            let offset = (index + DOTS + 1) as u64;
            let entry = DirEntry { name: name.as_bytes().to_vec(), entry, offset, counted: true };
            if !take(&entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The kernel took an entry of `readdirplus`, which counts as a lookup.
    pub fn looked_up(&self, entry: &DirEntry) {
        if entry.counted && !entry.entry.ino.is_virtual() {
            self.view.add_lookup(entry.entry.ino);
        }
    }

    pub fn releasedir(&self, id: HandleId) {
        self.handles.remove(id);
    }

    /// The names that offsets refer to; read again when the caller starts at the beginning.
    fn names_at(&self, dir: &OpenDir, offset: u64) -> Arc<Vec<(Name, Ino)>> {
        let mut entries = dir.entries.lock();
        if offset == 0 || entries.is_empty() {
            *entries = Arc::new(self.names(dir.ino));
        }
        entries.clone()
    }

    fn names(&self, dir: Ino) -> Vec<(Name, Ino)> {
        if dir.is_virtual() {
            return self.dot.children(dir);
        }
        // What the server has under these names is hidden by the mount's own.
        let own = if dir == ROOT { self.dot.root_entries() } else { Vec::new() };
        let names = self.view.names(dir).into_iter();
        own.into_iter().chain(names.filter(|(name, _)| !self.view.is_own(dir, name.as_bytes()))).collect()
    }

    /// The present entry of an object for a listing. Never waits.
    fn entry_now(&self, ino: Ino) -> Option<Entry> {
        if ino.is_virtual() {
            return self.dot.getattr(ino).ok();
        }
        let entry = self.view.listed_to_callers(ino)?;
        // The kernel has one validity for names and attributes here.
        let valid = if entry.ask_attr { Duration::ZERO } else { entry.valid };
        Some(Entry { valid, ..entry })
    }

    fn dots(&self, ino: Ino) -> Vec<DirEntry> {
        let dot = |name: &str, ino: Ino| {
            let attr = self.entry_now(ino).map(|e| e.attr)?;
            let entry = Entry { ino, attr, ctime: attr.mtime, valid: Duration::ZERO, ask_attr: false, unlinked: false };
            Some(DirEntry { name: name.into(), entry, offset: 0, counted: false })
        };
        let parent = if ino.is_virtual() { parent(ino) } else { self.view.node(ino).map_or(ROOT, |v| v.parent) };
        [dot(".", ino), dot("..", parent)].into_iter().flatten().collect()
    }
}
