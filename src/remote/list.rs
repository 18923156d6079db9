//! Listing a directory: OPENDIR, then several READDIRs under way at a time, and a CLOSE whose answer is not awaited.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::client::Client;
use super::entries::{Entries, ListingMemory};
use super::error::{Answer, ErrorKind, RemoteResult};
use super::handles::{MAX_REFUSALS, Slot};
use super::reply;
use super::retry::{Repeat, retry_async};
use super::session::Session;
use crate::attr::Attr;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, Reply, Request, SftpError};

/// READDIRs under way at a time for one directory: the second finds the end of most directories, and more of them would be
/// most of what a walk asks of the server.
const FIRST_READS: usize = 2;
/// For directories that turn out to be long: twice as many after each page, up to this.
const MAX_READS: usize = 16;

pub(super) fn list(
    client: &Arc<Client>,
    dir: RemotePath,
    class: Class,
    done: impl FnOnce(RemoteResult<Vec<(Name, Attr)>>) + Send + 'static,
) {
    let (wire, of) = (client.wire(&dir), dir.clone());
    let send = move |session: &Arc<Session>, answer: Answer<Entries>| {
        let (on, wire) = (session.clone(), wire.clone());
        open(on, wire, class, 0, answer);
    };
    let done = move |result: RemoteResult<Entries>| done(result.map(|entries| entries.into_listing(&of)));
    retry_async(client.clone(), "list", dir, Repeat::Safe, send, done);
}

/// Opens the directory as soon as a handle may be opened; the OPENDIR was `refused` so often.
fn open(session: Arc<Session>, wire: Vec<u8>, class: Class, refused: u32, answer: Answer<Entries>) {
    let on = session.clone();
    session.handles().acquire(class, move |slot| send_open(on, slot, wire, class, refused, answer));
}

fn send_open(session: Arc<Session>, slot: Slot, wire: Vec<u8>, class: Class, refused: u32, answer: Answer<Entries>) {
    let on = session.clone();
    session.submit(Request::OpenDir { path: wire.clone() }, class, move |received| match reply::handle(received) {
        Err(ErrorKind::Failure(_)) if refused < MAX_REFUSALS && on.handles().refused() => {
            drop(slot);
            open(on, wire, class, refused + 1, answer);
        }
        Ok(handle) => read_all(on, slot, handle, class, answer),
        // OpenSSH says FAILURE for ENOTDIR.
        Err(ErrorKind::Failure(_)) => answer(Err(ErrorKind::NotADirectory)),
        Err(kind) => answer(Err(kind)),
    });
}

fn read_all(session: Arc<Session>, slot: Slot, handle: Vec<u8>, class: Class, answer: Answer<Entries>) {
    let progress = Progress {
        entries: Entries::new(session.listing_memory()),
        sent: 0,
        unanswered: BTreeSet::new(),
        end: None,
        failure: None,
        waiting: Some((answer, slot)),
    };
    let listing = Arc::new(Listing { session, handle, class, progress: Mutex::new(progress) });
    listing.read(FIRST_READS);
}

/// A directory that is open on the server.
struct Listing {
    session: Arc<Session>,
    handle: Vec<u8>,
    class: Class,
    progress: Mutex<Progress>,
}

struct Progress {
    entries: Entries,
    /// READDIRs sent, and the numbers of those that have no answer yet.
    sent: usize,
    unanswered: BTreeSet<usize>,
    /// The first READDIR that was answered with the end. Those sent after it have nothing to add; waiting for them would
    /// cost a round trip per directory.
    end: Option<usize>,
    failure: Option<ErrorKind>,
    /// Taken when the listing ends.
    waiting: Option<(Answer<Entries>, Slot)>,
}

impl Listing {
    fn read(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            let number = {
                let mut progress = self.progress.lock();
                let number = progress.sent;
                progress.sent += 1;
                progress.unanswered.insert(number);
                number
            };
            let this = self.clone();
            let request = Request::ReadDir { handle: self.handle.clone() };
            self.session.submit(request, self.class, move |received| this.answered(number, received));
        }
    }

    fn answered(self: &Arc<Self>, number: usize, received: Result<Reply, SftpError>) {
        let mut progress = self.progress.lock();
        progress.unanswered.remove(&number);
        if progress.waiting.is_none() {
            // The handle is closed, or about to be, and may soon be another directory's.
            return;
        }
        match reply::names(received) {
            Ok(Some(names)) => {
                progress.entries.add(names);
                // The directory is at fault, not the session: that one is kept.
                progress.failure = progress.entries.too_much(self.class).map(ErrorKind::Failure);
            }
            Ok(None) => progress.end = Some(progress.end.map_or(number, |end| end.min(number))),
            Err(kind) => progress.failure = Some(kind),
        }
        match (progress.end, &progress.failure) {
            (None, None) => {
                let more = progress.wanted_reads();
                drop(progress);
                self.read(more);
            }
            (Some(end), None) if progress.unanswered.first().is_some_and(|first| *first < end) => {}
            _ => self.finish(progress),
        }
    }

    fn finish(&self, mut progress: MutexGuard<'_, Progress>) {
        let Some((answer, slot)) = progress.waiting.take() else { return };
        let result = match progress.failure.take() {
            Some(kind) => Err(kind),
            None => Ok(std::mem::replace(&mut progress.entries, Entries::new(ListingMemory::default()))),
        };
        drop(progress);
        // Sent before the slot is free, so that the server closes before it opens the next.
        self.session.submit(Request::Close { handle: self.handle.clone() }, self.class, |_| {});
        drop(slot);
        answer(result);
    }
}

impl Progress {
    /// How many READDIRs more are to be under way.
    fn wanted_reads(&self) -> usize {
        let pages = self.sent - self.unanswered.len();
        let wanted = if pages <= 1 { 1 } else { (FIRST_READS << (pages - 1).min(8)).min(MAX_READS) };
        wanted.saturating_sub(self.unanswered.len())
    }
}
