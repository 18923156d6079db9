//! What a loss of power leaves: syncs of the disk, and what is let go after them.

use std::fs;
use std::io;
use std::time::Instant;

use super::state::Journal;
use crate::write::fold::Record;
use crate::write::op::{OpId, SpoolId};

impl Journal {
    /// What waits is on the local disk, for power loss: operations and names. `content` was put there before.
    pub fn sync(&self, content: Option<SpoolId>) -> io::Result<()> {
        let on_disk: Vec<SpoolId> = content.into_iter().collect();
        let covered = {
            let state = self.lock();
            state.replaced.covered(&state.queue, &on_disk)
        };
        self.sync_records()?;
        self.let_go(&covered);
        Ok(())
    }

    /// Bytes of the journal that a loss of power leaves in any case.
    pub fn synced_bytes(&self) -> u64 {
        self.log.synced()
    }

    fn sync_records(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()?;
        let Err(error) = self.log.sync() else { return Ok(()) };
        // The next sync of this file would say that all is well: what the kernel could not write is forgotten.
        log::error!("the journal could not be written to the disk ({error}); it is written anew");
        let state = self.lock();
        self.log.rewrite(|| state.records())
    }

    fn let_go(&self, spools: &[SpoolId]) {
        self.lock().replaced.remove(spools);
        spools.iter().for_each(|spool| self.drop_spool(*spool));
    }

    /// Whether contents have waited long enough for what took their place to be on the disk. Whoever is told calls
    /// [`Journal::let_go_replaced`], where it may wait for the disk.
    pub fn is_time_to_sync(&self) -> bool {
        self.lock().replaced.is_time(Instant::now())
    }

    /// Puts on the disk what took the place of contents that were saved before, and lets those go.
    pub fn let_go_replaced(&self) {
        let replacing = {
            let state = self.lock();
            state.replaced.replacing(&state.queue)
        };
        let synced =
            |spool: &SpoolId| fs::File::open(self.spool_path(*spool)).and_then(|file| file.sync_data()).is_ok();
        let on_disk: Vec<SpoolId> = replacing.into_iter().filter(synced).collect();
        let covered = {
            let state = self.lock();
            state.replaced.covered(&state.queue, &on_disk)
        };
        match self.sync_records() {
            Ok(()) => self.let_go(&covered),
            Err(error) => log::error!("the journal: {error}"),
        }
        self.lock().replaced.rest();
    }

    /// From here on the server may have half of the content: only what is here makes it whole. It is on the disk when
    /// this returns, and so is the record that says so.
    pub fn touched(&self, id: OpId) {
        let (spool, appended) = {
            let mut state = self.lock();
            let Some(op) = state.queue.touched(id) else { return };
            (op.spool(), self.log.append(&[Record::Op(id, op)]))
        };
        let content = || spool.map_or(Ok(()), |spool| fs::File::open(self.spool_path(spool))?.sync_data());
        if let Err(error) = appended.and_then(|()| content()).and_then(|()| self.sync(spool)) {
            log::error!("the journal: {error}");
        }
    }
}
