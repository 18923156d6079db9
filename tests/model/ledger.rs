//! The ledger of contents: who stored each, who had been shown it, and what took its place.

use std::collections::{BTreeMap, BTreeSet};

/// Who writes: a client, or somebody else on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    Client(usize),
    Other,
}

/// The number of a content. Its bytes begin with it, and no two contents are the same.
pub type ContentId = usize;

/// What took the place of a content, by somebody who had been shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    For(ContentId),
    Removed,
}

struct Content {
    bytes: Vec<u8>,
    of: Actor,
    path: &'static str,
    /// It was accepted: it must be somewhere in the end.
    accepted: bool,
    gone: Vec<Gone>,
}

/// See the module header.
#[derive(Default)]
pub struct Ledger {
    contents: Vec<Content>,
    /// Who has changed what at each path.
    changed: BTreeMap<&'static str, BTreeSet<Actor>>,
    /// Paths between which something was moved.
    moved: BTreeSet<(&'static str, &'static str)>,
}

/// Digits of the number at the beginning of a content.
const DIGITS: usize = 8;

impl Ledger {
    /// A new content of `len` bytes, or a little more.
    pub fn new_content(&mut self, of: Actor, path: &'static str, len: usize) -> (ContentId, Vec<u8>) {
        let id = self.contents.len();
        let fill = b'a' + u8::try_from(id % 26).expect("a letter");
        let mut bytes = format!("{id:0DIGITS$}").into_bytes();
        bytes.resize(len.max(DIGITS), fill);
        self.contents.push(Content { bytes: bytes.clone(), of, path, accepted: false, gone: Vec::new() });
        (id, bytes)
    }

    /// The next content has this number: lengths are made of it, so that no two contents have the same.
    pub fn next(&self) -> ContentId {
        self.contents.len()
    }

    /// Which content this is; `None`: it is torn, or nobody wrote it.
    pub fn which(&self, bytes: &[u8]) -> Option<ContentId> {
        let id: ContentId = std::str::from_utf8(bytes.get(..DIGITS)?).ok()?.parse().ok()?;
        self.contents.get(id).filter(|content| content.bytes == bytes).map(|_| id)
    }

    pub fn len_of(&self, id: ContentId) -> usize {
        self.contents[id].bytes.len()
    }

    pub fn accepted(&mut self, id: ContentId) {
        self.contents[id].accepted = true;
    }

    /// They may be lost after all.
    pub fn not_accepted(&mut self, ids: &BTreeSet<ContentId>) {
        ids.iter().for_each(|id| self.contents[*id].accepted = false);
    }

    /// The machine of a client lost its power: what it had not synced may be lost.
    pub fn lost_power(&mut self, client: usize, synced: &BTreeSet<ContentId>) {
        for (id, content) in self.contents.iter_mut().enumerate() {
            content.accepted &= content.of != Actor::Client(client) || synced.contains(&id);
        }
    }

    /// `new` takes the place of contents that its writer has been shown.
    pub fn replaced(&mut self, shown: impl IntoIterator<Item = ContentId>, new: ContentId) {
        shown.into_iter().filter(|id| *id != new).for_each(|id| self.contents[id].gone.push(Gone::For(new)));
    }

    pub fn removed(&mut self, shown: impl IntoIterator<Item = ContentId>) {
        shown.into_iter().for_each(|id| self.contents[id].gone.push(Gone::Removed));
    }

    pub fn changed(&mut self, path: &'static str, by: Actor) {
        self.changed.entry(path).or_default().insert(by);
    }

    pub fn moved(&mut self, from: &'static str, to: &'static str, by: Actor) {
        self.changed(from, by);
        self.changed(to, by);
        self.moved.insert((from, to));
    }

    /// Whether somebody else has changed this path, or one from or to which something was moved.
    pub fn others_changed(&self, path: &str, client: usize) -> bool {
        let mut linked = BTreeSet::from([path]);
        loop {
            let before = linked.len();
            for (from, to) in &self.moved {
                if linked.contains(from) || linked.contains(to) {
                    linked.extend([*from, *to]);
                }
            }
            if linked.len() == before {
                break;
            }
        }
        let by = linked.iter().filter_map(|path| self.changed.get(path)).flatten();
        by.into_iter().any(|actor| *actor != Actor::Client(client))
    }

    /// Contents that were accepted, are in none of the places where they may be, and whose place nothing took that is there.
    pub fn missing(&self, present: &BTreeSet<ContentId>) -> Vec<String> {
        let mut there: Vec<bool> = (0..self.contents.len()).map(|id| present.contains(&id)).collect();
        loop {
            let is_accounted = |gone: &Gone| match gone {
                Gone::Removed => true,
                Gone::For(new) => there[*new],
            };
            let found = self.contents.iter().enumerate();
            let mut found = found.filter(|(id, content)| !there[*id] && content.gone.iter().any(is_accounted));
            let Some((id, _)) = found.next() else { break };
            there[id] = true;
        }
        let missing = self.contents.iter().enumerate().filter(|(id, content)| content.accepted && !there[*id]);
        let told = missing.map(|(id, content)| {
            let replaced = &content.gone;
            format!("content {id} of {:?} at {} (replaced: {replaced:?})", content.of, content.path)
        });
        told.collect()
    }
}
