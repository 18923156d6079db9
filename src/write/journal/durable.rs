//! Durability: syncs of the disk, and the spools that are released after them.

use std::fs;
use std::io;
use std::time::Instant;

use super::state::Journal;
use crate::write::fold::Record;
use crate::write::op::{OpId, SpoolId};

impl Journal {
    /// Flushes the records and the names of spools to the local disk. The spool `content` was synced before.
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

    /// Bytes of the journal that survive a loss of power.
    pub fn synced_bytes(&self) -> u64 {
        self.log.synced()
    }

    fn sync_records(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()?;
        let Err(error) = self.log.sync() else { return Ok(()) };
        // A later sync of this file would succeed, because the kernel forgets data that it failed to write.
        log::error!("the journal could not be written to the disk ({error}); it is rewritten");
        let state = self.lock();
        self.log.rewrite(|| self.records(&state))
    }

    fn let_go(&self, spools: &[SpoolId]) {
        self.lock().replaced.remove(spools);
        spools.iter().for_each(|spool| self.drop_spool(*spool));
    }

    /// Whether replaced contents have waited long enough for a sync of the new ones. If it returns `true`, the caller
    /// must call [`Journal::let_go_replaced`] where it may wait for the disk.
    pub fn is_time_to_sync(&self) -> bool {
        self.lock().replaced.is_time(Instant::now())
    }

    /// Syncs the contents that replaced earlier ones, and releases the earlier ones.
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

    /// Called before the server's file is modified in place: from then on only the local content can complete it. The
    /// content and a record of that are on the disk when this returns.
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
