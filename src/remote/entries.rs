//! The entries of a directory as they come in, and the memory that all listings of a session may take together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::attr::Attr;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, NameEntry};

/// Entries of one directory: more is refused instead of filling the memory. The platform stops at 200,000.
const MAX_ENTRIES: usize = 1_000_000;
/// READDIR answers in a row without a new valid name: a directory that sends more of them has no end.
const MAX_ANSWERS_WITHOUT_NEWS: usize = 64;
/// Bytes that the listings under way may take together: hundreds run at a time, and each may be of a directory without an
/// end. Background listings get half of it.
const MAX_MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// What an entry takes beside its name (bytes, about).
const ENTRY_BYTES: usize = 128;

/// Bytes that the listings of one session take at present (about).
#[derive(Clone, Default)]
pub(super) struct ListingMemory(Arc<AtomicUsize>);

impl ListingMemory {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_full(&self, class: Class) -> bool {
        let limit = if class == Class::Background { MAX_MEMORY_BYTES / 2 } else { MAX_MEMORY_BYTES };
        self.0.load(Ordering::Relaxed) > limit
    }
}

/// What has come of one directory. Invalid names are left out, and no name appears twice.
pub(super) struct Entries {
    names: BTreeMap<Name, Attr>,
    memory: ListingMemory,
    bytes: usize,
    left_out: usize,
    answers_without_news: usize,
}

impl Entries {
    pub(super) fn new(memory: ListingMemory) -> Self {
        Self { names: BTreeMap::new(), memory, bytes: 0, left_out: 0, answers_without_news: 0 }
    }

    /// Takes over the entries of one READDIR answer.
    pub(super) fn add(&mut self, entries: Vec<NameEntry>) {
        let before = (self.names.len(), self.bytes);
        for entry in entries {
            match Name::new(&entry.name) {
                Ok(name) => {
                    let bytes = entry.name.len() + ENTRY_BYTES;
                    self.names.entry(name).or_insert_with(|| {
                        self.bytes += bytes;
                        entry.attrs.to_attr()
                    });
                }
                Err(_) if entry.name == b"." || entry.name == b".." => {}
                Err(_) => self.left_out += 1,
            }
        }
        self.memory.add(self.bytes - before.1);
        self.answers_without_news = if self.names.len() > before.0 { 0 } else { self.answers_without_news + 1 };
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Why the listing of this directory is given up, if it is.
    pub(super) fn too_much(&self, class: Class) -> Option<String> {
        if self.answers_without_news > MAX_ANSWERS_WITHOUT_NEWS {
            return Some("the directory has no end: the same names come again and again".into());
        }
        if self.names.len() > MAX_ENTRIES {
            return Some(format!("the directory has more than {MAX_ENTRIES} entries"));
        }
        self.memory.is_full(class).then(|| "the directories that are being listed are too large for the memory".into())
    }

    pub(super) fn into_listing(mut self, dir: &RemotePath) -> Vec<(Name, Attr)> {
        if self.left_out > 0 {
            log::warn!("{dir}: {} entries of the server are left out: they have invalid names", self.left_out);
        }
        std::mem::take(&mut self.names).into_iter().collect()
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::RawAttrs;

    fn page(names: &[&str]) -> Vec<NameEntry> {
        names.iter().map(|n| NameEntry { name: n.as_bytes().to_vec(), attrs: RawAttrs::default() }).collect()
    }

    #[test]
    fn invalid_names_are_left_out_and_memory_is_given_back() {
        let memory = ListingMemory::default();
        let mut entries = Entries::new(memory.clone());
        entries.add(page(&[".", "..", "a", "a/b", "", "a", "b"]));
        assert_eq!((entries.left_out, entries.names.len()), (2, 2));
        assert_eq!(memory.0.load(Ordering::Relaxed), 2 * (ENTRY_BYTES + 1));
        assert_eq!(entries.into_listing(&RemotePath::root()).len(), 2);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_directory_that_repeats_itself_is_given_up() {
        let mut entries = Entries::new(ListingMemory::default());
        (0..=MAX_ANSWERS_WITHOUT_NEWS).for_each(|_| entries.add(page(&["a"])));
        assert_eq!(entries.too_much(Class::Interactive), None);
        entries.add(page(&["a"]));
        assert!(entries.too_much(Class::Interactive).is_some_and(|why| why.contains("no end")));
        entries.add(page(&["b"]));
        assert_eq!(entries.too_much(Class::Interactive), None);
    }
}
