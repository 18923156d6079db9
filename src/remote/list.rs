//! Listing a directory: OPENDIR, then several READDIRs under way at a time, and a CLOSE that nobody waits for.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
/// Answers in a row that bring no name that is new and can be one: such a directory has no end.
const MAX_FRUITLESS: usize = 64;
/// Memory for what the listings under way have gathered, all together (bytes): hundreds are made at a time, and each of
/// them might be of a directory that does not end. Those that nobody waits for get half of it.
const MAX_GATHERED: usize = 256 * 1024 * 1024;
/// What an entry takes beside its name (bytes, about).
const ENTRY_BYTES: usize = 128;

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
        let finished = move |result: Result<Entries, ErrorKind>| match result {
            Err(kind) if kind.is_loss() && tries < MAX_TRIES && !deadline.is_over() => {
                again.lost(epoch, &kind.to_string());
                attempt(again, dir, class, tries + 1, deadline, done);
            }
            Err(kind) => done(Err(kind.at("list", &dir))),
            Ok(entries) => done(Ok(entries.named(&dir))),
        };
        handles.acquire(class, move |slot| open(session, slot, wire, class, Box::new(finished)));
    });
}

type Finished = Box<dyn FnOnce(Result<Entries, ErrorKind>) + Send>;

fn open(session: Arc<Session>, slot: Slot, wire: Vec<u8>, class: Class, finished: Finished) {
    let on = session.clone();
    session.engine.submit(Request::OpenDir { path: wire }, class, move |reply| match reply {
        Ok(Reply::Handle(handle)) => {
            let progress = Progress {
                entries: Entries::of(on.gathered.clone()),
                fruitless: 0,
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
    entries: Entries,
    fruitless: usize,
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
    fn lock(&self) -> parking_lot::MutexGuard<'_, Progress> {
        self.progress.lock()
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
                progress.fruitless = if progress.entries.take_in(names) { 0 } else { progress.fruitless + 1 };
                // The directory is at fault, not the connection: that one is kept.
                progress.failure = progress.too_much(self.class).map(ErrorKind::Failure);
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
                let pages = progress.asked - progress.under_way.len();
                let wanted = if pages <= 1 { 1 } else { (FIRST_READS << (pages - 1).min(8)).min(MAX_READS) };
                let more = wanted.saturating_sub(progress.under_way.len());
                drop(progress);
                self.read(more);
            }
            (Some(end), None) if progress.under_way.first().is_some_and(|first| *first < end) => {}
            _ => self.finish(progress),
        }
    }

    fn finish(&self, mut progress: parking_lot::MutexGuard<'_, Progress>) {
        let (Some(finished), slot) = (progress.finished.take(), progress.slot.take()) else { return };
        let result = match progress.failure.take() {
            Some(kind) => Err(kind),
            None => Ok(std::mem::replace(&mut progress.entries, Entries::of(Arc::default()))),
        };
        drop(progress);
        // Sent before the slot is free, so that the server closes before it opens the next.
        self.session.engine.submit(Request::Close { handle: self.handle.clone() }, self.class, |_| {});
        drop(slot);
        finished(result);
    }
}

impl Progress {
    /// Why this directory is given up, if it is.
    fn too_much(&self, class: Class) -> Option<String> {
        if self.fruitless > MAX_FRUITLESS {
            return Some("the directory has no end: the same names come again and again".into());
        }
        if self.entries.names.len() > MAX_ENTRIES {
            return Some(format!("the directory has more than {MAX_ENTRIES} entries"));
        }
        let room = if class == Class::Background { MAX_GATHERED / 2 } else { MAX_GATHERED };
        let full = self.entries.gathered.load(Ordering::Relaxed) > room;
        full.then(|| "the directories that are being listed are too large for the memory".into())
    }
}

/// What came so far. Names are checked here, on entry: what is not a name is left out, and nothing appears twice.
struct Entries {
    names: BTreeMap<Name, Attr>,
    /// Of the whole connection.
    gathered: Arc<AtomicUsize>,
    bytes: usize,
    left_out: usize,
}

impl Entries {
    fn of(gathered: Arc<AtomicUsize>) -> Self {
        Self { names: BTreeMap::new(), gathered, bytes: 0, left_out: 0 }
    }

    /// Says whether anything was new.
    fn take_in(&mut self, entries: Vec<NameEntry>) -> bool {
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
        self.gathered.fetch_add(self.bytes - before.1, Ordering::Relaxed);
        self.names.len() > before.0
    }

    fn named(mut self, dir: &RemotePath) -> Vec<(Name, Attr)> {
        if self.left_out > 0 {
            log::warn!("{dir}: {} entries of the server are left out: they are no names", self.left_out);
        }
        std::mem::take(&mut self.names).into_iter().collect()
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.gathered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
