//! The spools (content that is only on this machine) and the local-only symlinks, by inode number.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::here::Here;
use crate::cache::InFlight;
use crate::error::Cause;
use crate::inode::Ino;
use crate::write::Spool;

/// The result of one attempt to fill a spool.
pub(super) type Filled = Result<Arc<Spool>, Cause>;

pub(super) struct Spools {
    /// Names that are only on this machine.
    pub(super) here: Here,
    by_ino: Mutex<HashMap<Ino, Arc<Spool>>>,
    /// The texts of local-only symlinks.
    links: Mutex<HashMap<Ino, Vec<u8>>>,
    /// Spools that are being filled from the server.
    pub(super) fills: InFlight<Ino, Filled>,
}

impl Spools {
    pub(super) fn new(here: Here) -> Self {
        Self { here, by_ino: Mutex::default(), links: Mutex::default(), fills: InFlight::default() }
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<Spool>> {
        self.by_ino.lock().get(&ino).cloned()
    }

    /// Inserts a spool, and calls `then` before the map is unlocked.
    pub(super) fn put(&self, ino: Ino, spool: Arc<Spool>, then: impl FnOnce()) {
        let mut spools = self.by_ino.lock();
        spools.insert(ino, spool);
        then();
    }

    /// Inserts a copy of `before`, or of the server's content if there was no spool, and calls `then` before the map is
    /// unlocked. A spool that was inserted while the copy was made is newer: it stays, and is returned instead.
    pub(super) fn put_copy(
        &self,
        ino: Ino,
        before: Option<&Arc<Spool>>,
        copy: Arc<Spool>,
        then: impl FnOnce(),
    ) -> Arc<Spool> {
        let mut spools = self.by_ino.lock();
        let is_copied = |now: &Arc<Spool>| before.is_some_and(|before| Arc::ptr_eq(now, before)) && now.is_sealed();
        if let Some(now) = spools.get(&ino).filter(|now| !is_copied(now)) {
            return now.clone();
        }
        spools.insert(ino, copy.clone());
        then();
        copy
    }

    pub(super) fn remove(&self, ino: Ino) {
        self.by_ino.lock().remove(&ino);
    }

    /// Removes the spool, unless another one replaced it or `keep` returns false.
    pub(super) fn remove_this(&self, ino: Ino, spool: &Arc<Spool>, keep: impl FnOnce() -> bool) {
        let mut spools = self.by_ino.lock();
        if spools.get(&ino).is_some_and(|now| Arc::ptr_eq(now, spool)) && !keep() {
            spools.remove(&ino);
        }
    }

    /// Calls `then` under the lock of the map if the inode has no spool.
    pub(super) fn if_none(&self, ino: Ino, then: impl FnOnce()) {
        let spools = self.by_ino.lock();
        if !spools.contains_key(&ino) {
            then();
        }
    }

    /// Whether a spool is being filled for the inode.
    pub(super) fn is_filled(&self, ino: Ino) -> bool {
        self.fills.peek(&ino).is_some()
    }

    pub(super) fn all(&self) -> Vec<(Ino, Arc<Spool>)> {
        self.by_ino.lock().iter().map(|(ino, spool)| (*ino, spool.clone())).collect()
    }

    pub(super) fn link(&self, ino: Ino) -> Option<Vec<u8>> {
        self.links.lock().get(&ino).cloned()
    }

    pub(super) fn put_link(&self, ino: Ino, text: &[u8]) {
        self.links.lock().insert(ino, text.to_vec());
    }

    pub(super) fn remove_link(&self, ino: Ino) {
        self.links.lock().remove(&ino);
    }
}
