//! Listing a directory: OPENDIR, then several READDIRs under way at a time, and a CLOSE that nobody waits for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::handles::Slot;
use super::session::{Inner, MAX_TRIES, Session};
use super::{ErrorKind, RemoteResult};
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, NameEntry, Reply, Request, StatusCode};

/// READDIRs under way at a time for one directory: the second finds the end of most directories, and more of them would be
/// most of what a walk asks of the server.
const FIRST_READS: usize = 2;
/// For directories that turn out to be long: twice as many after each page, up to this.
const MAX_READS: usize = 16;
/// Entries of one directory: more is refused instead of filling the memory. The platform stops at 200,000.
const MAX_ENTRIES: usize = 1_000_000;
/// Answers of one listing; a server may send single entries, but not go on for ever.
const MAX_PAGES: usize = 2 * MAX_ENTRIES;

type Done = Box<dyn FnOnce(RemoteResult<Vec<(Name, Attr)>>) + Send>;

pub(super) fn list(inner: &Arc<Inner>, dir: RemotePath, class: Class, done: Done) {
    attempt(inner.clone(), dir, class, 1, Deadline::after(inner.config.timeout), done);
}

fn attempt(inner: Arc<Inner>, dir: RemotePath, class: Class, tries: u32, deadline: Deadline, done: Done) {
    let again = inner.clone();
    inner.with_session(deadline, move |session| {
        let session = match session {
            Ok(session) => session,
            Err(kind) => return done(Err(kind.at("list", &dir))),
        };
        let wire = again.wire(&dir);
        let (epoch, handles) = (session.epoch(), session.handles.clone());
        let finished = move |result: Result<Vec<NameEntry>, ErrorKind>| match result {
            Err(kind) if kind.is_loss() && tries < MAX_TRIES && !deadline.is_over() => {
                again.lost(epoch, &kind.to_string());
                attempt(again, dir, class, tries + 1, deadline, done);
            }
            Err(kind) => done(Err(kind.at("list", &dir))),
            Ok(entries) => done(Ok(checked(&dir, entries))),
        };
        handles.acquire(class, move |slot| open(session, slot, wire, class, Box::new(finished)));
    });
}

type Finished = Box<dyn FnOnce(Result<Vec<NameEntry>, ErrorKind>) + Send>;

fn open(session: Arc<Session>, slot: Slot, wire: Vec<u8>, class: Class, finished: Finished) {
    let on = session.clone();
    session.engine.submit(Request::OpenDir { path: wire }, class, move |reply| match reply {
        Ok(Reply::Handle(handle)) => {
            let progress = Progress {
                entries: Vec::new(),
                pages: 0,
                asked: 0,
                under_way: BTreeSet::new(),
                end: None,
                failure: None,
                finished: Some(finished),
                slot: Some(slot),
            };
            let listing = Arc::new(Listing { session: on, handle, class, progress: Mutex::new(progress) });
            listing.read(FIRST_READS);
        }
        Ok(Reply::Status { code, message }) => finished(Err(match ErrorKind::from_status(code, message) {
            // OpenSSH says FAILURE for ENOTDIR.
            ErrorKind::Failure(_) => ErrorKind::NotADirectory,
            kind => kind,
        })),
        Ok(_) => finished(Err(ErrorKind::unexpected())),
        Err(error) => finished(Err(error.into())),
    });
}

struct Listing {
    session: Arc<Session>,
    handle: Vec<u8>,
    class: Class,
    progress: Mutex<Progress>,
}

struct Progress {
    entries: Vec<NameEntry>,
    pages: usize,
    /// READDIRs sent, and the numbers of those that have no answer yet.
    asked: usize,
    under_way: BTreeSet<usize>,
    /// The first READDIR that was answered with the end. Those sent after it have nothing to add; waiting for them would
    /// cost a round trip per directory.
    end: Option<usize>,
    failure: Option<ErrorKind>,
    finished: Option<Finished>,
    slot: Option<Slot>,
}

impl Listing {
    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            let number = {
                let mut progress = self.lock();
                let number = progress.asked;
                progress.asked += 1;
                progress.under_way.insert(number);
                number
            };
            let this = self.clone();
            let request = Request::ReadDir { handle: self.handle.clone() };
            self.session.engine.submit(request, self.class, move |reply| this.answered(number, reply));
        }
    }

    fn answered(self: &Arc<Self>, number: usize, reply: Result<Reply, crate::sftp::SftpError>) {
        let mut progress = self.lock();
        progress.under_way.remove(&number);
        if progress.finished.is_none() {
            // The handle is closed, or about to be, and may soon be another directory's.
            return;
        }
        match reply {
            Ok(Reply::Names(names)) => {
                progress.pages += 1;
                progress.entries.extend(names);
                if progress.entries.len() > MAX_ENTRIES || progress.pages > MAX_PAGES {
                    progress.failure =
                        Some(ErrorKind::Protocol(format!("a directory of more than {MAX_ENTRIES} entries")));
                }
            }
            Ok(Reply::Status { code: StatusCode::Eof, .. }) => {
                progress.end = Some(progress.end.map_or(number, |end| end.min(number)));
            }
            Ok(Reply::Status { code, message }) => progress.failure = Some(ErrorKind::from_status(code, message)),
            Ok(_) => progress.failure = Some(ErrorKind::unexpected()),
            Err(error) => progress.failure = Some(error.into()),
        }
        match (progress.end, &progress.failure) {
            (None, None) => {
                let wanted = FIRST_READS.saturating_mul(1 << (progress.pages - 1).min(8)).min(MAX_READS);
                let wanted = if progress.pages == 1 { 1 } else { wanted };
                let more = wanted.saturating_sub(progress.under_way.len());
                drop(progress);
                self.read(more);
            }
            (Some(end), None) if progress.under_way.first().is_some_and(|first| *first < end) => {}
            _ => self.finish(progress),
        }
    }

    fn finish(&self, mut progress: std::sync::MutexGuard<'_, Progress>) {
        let (Some(finished), slot) = (progress.finished.take(), progress.slot.take()) else { return };
        let result = match progress.failure.take() {
            Some(kind) => Err(kind),
            None => Ok(std::mem::take(&mut progress.entries)),
        };
        drop(progress);
        // Sent before the slot is free, so that the server closes before it opens the next.
        self.session.engine.submit(Request::Close { handle: self.handle.clone() }, self.class, |_| {});
        drop(slot);
        finished(result);
    }
}

/// Names are checked here, on entry: what is not a name is left out, and nothing appears twice.
fn checked(dir: &RemotePath, entries: Vec<NameEntry>) -> Vec<(Name, Attr)> {
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        match Name::new(&entry.name) {
            Ok(name) => out.push((name, entry.attrs.to_attr())),
            Err(_) if entry.name == b"." || entry.name == b".." => {}
            Err(error) => log::warn!("{dir}: an entry of the server is left out: {error}"),
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out.dedup_by(|a, b| a.0 == b.0);
    out
}
