//! What happened lately, and the one value from which `.pantheon` is rendered.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::{Fs, FsError, Layout};
use crate::attr::Area;
use crate::env::Committed;
use crate::gate::Verdict;
use crate::path::RemotePath;
use crate::remote::Link;
use crate::vfiles::{LinkStatus, Status, Write};
use crate::write::RejectKind;

/// Written paths that are remembered; more are counted by the platform only.
const MAX_WRITTEN: usize = 10_000;

/// Remembered for people who look after something went wrong.
#[derive(Default)]
pub(super) struct Notes(Mutex<Inner>);

#[derive(Default, Clone)]
struct Inner {
    last_error: Option<(SystemTime, String)>,
    sent_files: u64,
    sent_bytes: u64,
    written: BTreeSet<RemotePath>,
    /// Written, and never to be committed.
    ignored: BTreeSet<RemotePath>,
    /// Kept here, and not on the server any more.
    lost: Vec<RemotePath>,
    committed: Option<Committed>,
}

impl Notes {
    pub(super) fn error(&self, error: &FsError, at: SystemTime) {
        log::info!("{error}");
        self.0.lock().last_error = Some((at, error.to_string()));
    }

    pub(super) fn sent(&self, bytes: u64) {
        let mut inner = self.0.lock();
        inner.sent_files += 1;
        inner.sent_bytes += bytes;
    }

    /// A path in code was changed on the server by us.
    pub(super) fn written(&self, path: &RemotePath) {
        let mut inner = self.0.lock();
        inner.lost.retain(|lost| lost != path);
        if inner.written.len() < MAX_WRITTEN {
            inner.written.insert(path.clone());
        }
    }

    /// A path that can never be committed was written; says whether that is new.
    pub(super) fn ignored(&self, path: &RemotePath) -> bool {
        let mut inner = self.0.lock();
        inner.ignored.len() < MAX_WRITTEN && inner.ignored.insert(path.clone())
    }

    pub(super) fn lost(&self, lost: Vec<RemotePath>) {
        self.0.lock().lost = lost;
    }

    pub(super) fn all_written(&self) -> Vec<RemotePath> {
        self.0.lock().written.iter().cloned().collect()
    }

    pub(super) fn committed(&self, committed: Committed) {
        self.0.lock().committed = Some(committed);
    }

    /// What was written is committed or discarded.
    pub(super) fn forget_written(&self) {
        self.0.lock().written.clear();
    }
}

impl Fs {
    /// How things stand, from what is known here: no round trip.
    pub fn status(&self) -> Status {
        let shared = &self.0;
        let disk = shared.content.disk_figures().unwrap_or_default();
        let notes = shared.notes.0.lock().clone();
        let (kept, since) = self.kept_summary();
        let shelf = |shelf| shared.rescue.list(shelf).iter().map(|path| path.display().to_string()).collect();
        let pantheon = shared.config.layout == Layout::Pantheon;
        Status {
            now: shared.clock.wall(),
            source: shared.config.source.clone(),
            state_dir: shared.config.state_dir.clone(),
            belief: shared.env.belief(),
            code: write(shared.gate.verdict(Area::Code)),
            uploads: pantheon.then(|| write(shared.gate.verdict(Area::Uploads))),
            link: self.link_status(),
            connection: shared.config.connection.clone(),
            dirty: self.dirty_files().iter().map(|path| self.shown_path(path).to_string()).collect(),
            waiting: shared.journal.queue(|queue| queue.ops().map(|(_, op)| op.describe()).collect()),
            waiting_bytes: shared.journal.queue(crate::write::Queue::bytes),
            conflicts: shelf(RejectKind::Conflict),
            stranded: shelf(RejectKind::Stranded),
            written: notes.written.iter().map(RemotePath::to_string).collect(),
            ignored_written: notes.ignored.iter().map(RemotePath::to_string).collect(),
            kept,
            kept_since: since.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at)),
            lost: notes.lost.iter().map(RemotePath::to_string).collect(),
            connection_changes: shared.migration.changes(),
            sent_files: notes.sent_files,
            sent_bytes: notes.sent_bytes,
            fetched_files: shared.content.fetched().0,
            fetched_bytes: shared.content.fetched().1,
            origin: self.origin(),
            cached_bytes: shared.content.figures().bytes,
            hydration: self.hydration(),
            disk_bytes: disk.bytes,
            disk_hits: disk.hits,
            inodes: shared.table.len(),
            looked: self.last_look(),
            committed: notes.committed,
            last_error: notes.last_error,
        }
    }

    fn link_status(&self) -> LinkStatus {
        let (down, lasting) = match self.0.remote.link() {
            Link::Up { since, .. } => (None, since.elapsed()),
            Link::Down { since, why } => (Some(why), since.elapsed()),
        };
        let mut status = LinkStatus {
            down,
            lasting,
            round_trip: None,
            transport: "none".into(),
            compressed: false,
            peer: format!("{}:{}", self.0.config.connection.host, self.0.config.connection.port),
            host_key: String::new(),
            extensions: Vec::new(),
            requests: 0,
        };
        if let Some(info) = self.0.remote.session_info() {
            status.round_trip = info.round_trip.filter(|rtt| *rtt < Duration::from_secs(3600));
            status.transport = info.transport.kind.into();
            status.compressed = info.transport.compressed;
            status.host_key = info.transport.host_key;
            status.extensions = info.capabilities.names();
            status.requests = info.requests;
        }
        status
    }
}

fn write(verdict: Verdict) -> Write {
    match verdict {
        Verdict::Open => Write::Yes,
        Verdict::Held { why, .. } => Write::Held(why),
        Verdict::Closed(reason) => Write::No(reason.to_string()),
    }
}
