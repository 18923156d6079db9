//! The value that `.pantheon` is rendered from. It is built from local state, without a round trip.

use std::time::{Duration, SystemTime};

use super::notes::Noted;
use super::state::Dot;
use crate::attr::Area;
use crate::gate::Verdict;
use crate::path::RemotePath;
use crate::remote::Link;
use crate::vfiles::{LinkStatus, LocalChanges, LocalNames, Status, Traffic, Write};
use crate::write::RejectKind;

impl Dot {
    /// The status of the mount.
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let noted = inner.notes.now();
        Status {
            now: inner.view.clock().wall(),
            source: inner.config.source.clone(),
            state_dir: inner.config.state_dir.clone(),
            belief: inner.env.belief(),
            code: write(inner.admission.verdict(Area::Code)),
            uploads: inner.view.is_pantheon().then(|| write(inner.admission.verdict(Area::Uploads))),
            link: self.link_status(),
            connection: inner.config.connection.clone(),
            traffic: self.traffic(&noted),
            local: self.local_changes(noted),
            compared: inner.comparisons.last(),
            last_error: inner.errors.last(),
        }
    }

    fn local_changes(&self, noted: Noted) -> LocalChanges {
        let (upload, view) = (&self.0.upload, &self.0.view);
        let rejected =
            |kind| -> Vec<String> { upload.rejects(kind).iter().map(|path| path.display().to_string()).collect() };
        let texts = |paths: Vec<RemotePath>| paths.iter().map(RemotePath::to_string).collect();
        let (backups, since) = self.backups_summary();
        LocalChanges {
            dirty: upload.dirty_files().iter().map(|path| view.shown_path(path).to_string()).collect(),
            waiting: upload.waiting(),
            waiting_bytes: upload.waiting_bytes(),
            conflicts: rejected(RejectKind::Conflict),
            stranded: [rejected(RejectKind::Stranded), upload.refused_names()].concat(),
            written: texts(noted.written.into_iter().collect()),
            ignored_written: texts(noted.ignored.into_iter().collect()),
            backups,
            backups_since: since.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at)),
            lost: texts(noted.lost),
            committed: noted.committed,
            git: self.0.config.git.status(self.server_has_git()),
        }
    }

    fn traffic(&self, noted: &Noted) -> Traffic {
        let (reader, content) = (&self.0.reader, self.0.reader.content());
        let disk = content.disk_figures().unwrap_or_default();
        let (fetched_files, fetched_bytes) = content.fetched();
        Traffic {
            sent_files: noted.sent_files,
            sent_bytes: noted.sent_bytes,
            fetched_files,
            fetched_bytes,
            minute_bytes: self.0.view.received_in_a_minute(),
            origin: reader.origin(),
            cached_bytes: content.figures().bytes,
            hydration: reader.hydration(),
            stays: self.local_names(),
            disk_bytes: disk.bytes,
            disk_hits: disk.hits,
            inodes: self.0.view.len(),
        }
    }

    fn local_names(&self) -> LocalNames {
        let (files, bytes) = self.0.upload.local_only_figures();
        LocalNames { patterns: self.0.upload.local_names(), files, bytes }
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
            changes: self.0.migration.changes(),
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
