//! Listing a directory: OPENDIR, then several READDIRs under way at a time, and a CLOSE whose answer is not awaited.
//!
//! A directory that had few names is closed by the request that follows its READDIRs, without waiting for their answers: its handle
//! is free a round trip earlier, and a tree of thousands of directories is listed twice as fast where the server allows few.
//! If that was too early, the directory is listed again.

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
/// A directory that had at most so many names is expected to end within the first READDIRs: servers send about 100 at a time.
const FEW_NAMES: usize = 64;
/// For directories that turn out to be long: twice as many after each page, up to this.
const MAX_READS: usize = 16;

pub(super) fn list(
    client: &Arc<Client>,
    dir: RemotePath,
    class: Class,
    known_names: Option<usize>,
    done: impl FnOnce(RemoteResult<Vec<(Name, Attr)>>) + Send + 'static,
) {
    let (wire, of) = (client.wire(&dir), dir.clone());
    let few = known_names.is_some_and(|count| count <= FEW_NAMES);
    let send = move |session: &Arc<Session>, answer: Answer<Entries>| {
        let close = if few && session.closes_early() { Close::AfterFirstReads } else { Close::AtTheEnd };
        open(session.clone(), Wanted { wire: wire.clone(), class, close, refused: 0 }, answer);
    };
    let done = move |result: RemoteResult<Entries>| done(result.map(|entries| entries.into_listing(&of)));
    retry_async(client.clone(), "list", dir, Repeat::Safe, send, done);
}

/// When a directory is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    AfterFirstReads,
    AtTheEnd,
}

/// A directory that is to be listed.
struct Wanted {
    wire: Vec<u8>,
    class: Class,
    close: Close,
    /// How often the OPENDIR was refused.
    refused: u32,
}

/// Opens the directory as soon as a handle may be opened.
fn open(session: Arc<Session>, wanted: Wanted, answer: Answer<Entries>) {
    let on = session.clone();
    session.handles().acquire(wanted.class, move |slot| send_open(on, slot, wanted, answer));
}

fn send_open(session: Arc<Session>, slot: Slot, wanted: Wanted, answer: Answer<Entries>) {
    let (on, request) = (session.clone(), Request::OpenDir { path: wanted.wire.clone() });
    session.submit(request, wanted.class, move |received| match reply::handle(received) {
        Err(ErrorKind::Failure(_)) if wanted.refused < MAX_REFUSALS && on.handles().refused(&slot) => {
            drop(slot);
            open(on, Wanted { refused: wanted.refused + 1, ..wanted }, answer);
        }
        Ok(handle) => read_all(on, slot, handle, wanted, answer),
        // OpenSSH says FAILURE for ENOTDIR.
        Err(ErrorKind::Failure(_)) => answer(Err(ErrorKind::NotADirectory)),
        Err(kind) => answer(Err(kind)),
    });
}

fn read_all(session: Arc<Session>, slot: Slot, handle: Vec<u8>, wanted: Wanted, answer: Answer<Entries>) {
    // Nothing that is opened later may overtake the CLOSE, and the CLOSE none of the READDIRs.
    let class = if wanted.close == Close::AfterFirstReads { Class::Interactive } else { wanted.class };
    let progress = Progress {
        entries: Entries::new(session.listing_memory()),
        sent: 0,
        unanswered: BTreeSet::new(),
        end: None,
        failure: None,
        waiting: Some((wanted, answer)),
        slot: Some(slot),
    };
    let listing = Arc::new(Listing { session, handle, class, progress: Mutex::new(progress) });
    listing.read(FIRST_READS);
    listing.close_early();
}

/// A directory that is open on the server.
struct Listing {
    session: Arc<Session>,
    handle: Vec<u8>,
    /// Of its READDIRs.
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
    waiting: Option<(Wanted, Answer<Entries>)>,
    /// Given back when the CLOSE is sent.
    slot: Option<Slot>,
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

    fn close_early(&self) {
        let mut progress = self.progress.lock();
        if progress.waiting.as_ref().is_some_and(|(wanted, _)| wanted.close == Close::AfterFirstReads) {
            let slot = progress.slot.take();
            drop(progress);
            self.close(slot);
        }
    }

    /// Sent before the slot is free, so that the server closes before it opens the next. It must not overtake READDIRs whose
    /// answers are not awaited: the server may have given the handle to another directory, and they would take names of it.
    fn close(&self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.session.submit(Request::Close { handle: self.handle.clone() }, self.class, |_| {});
            drop(slot);
        }
    }

    fn answered(self: &Arc<Self>, number: usize, received: Result<Reply, SftpError>) {
        let mut progress = self.progress.lock();
        progress.unanswered.remove(&number);
        let Some((wanted, _)) = &progress.waiting else {
            // The handle is closed, or about to be, and may soon be another directory's.
            return;
        };
        let (class, early) = (wanted.class, wanted.close == Close::AfterFirstReads);
        match reply::names(received) {
            Ok(Some(names)) => {
                progress.entries.add(names);
                // The directory is at fault, not the session: that one is kept.
                progress.failure = progress.entries.too_much(class).map(ErrorKind::Failure);
            }
            Ok(None) => progress.end = Some(progress.end.map_or(number, |end| end.min(number))),
            Err(kind) if early && !kind.is_unanswered() => {
                log::info!("the server closes a directory before it has read it: {kind}");
                self.session.close_late();
                return self.list_again(progress);
            }
            Err(kind) => progress.failure = Some(kind),
        }
        match (progress.end, &progress.failure) {
            (None, None) if early && progress.unanswered.is_empty() => {
                if progress.entries.len() <= FEW_NAMES {
                    // The directory is short: this server sends few names at a time.
                    self.session.close_late();
                }
                self.list_again(progress);
            }
            (None, None) if early => {}
            (None, None) => {
                let more = progress.wanted_reads();
                drop(progress);
                self.read(more);
            }
            (Some(end), None) if progress.unanswered.first().is_some_and(|first| *first < end) => {}
            _ => self.finish(progress),
        }
    }

    /// It was closed before its end was read.
    fn list_again(&self, mut progress: MutexGuard<'_, Progress>) {
        let Some((wanted, answer)) = progress.waiting.take() else { return };
        let slot = progress.slot.take();
        drop(progress);
        self.close(slot);
        open(self.session.clone(), Wanted { close: Close::AtTheEnd, ..wanted }, answer);
    }

    fn finish(&self, mut progress: MutexGuard<'_, Progress>) {
        let Some((_, answer)) = progress.waiting.take() else { return };
        let result = match progress.failure.take() {
            Some(kind) => Err(kind),
            None => Ok(std::mem::replace(&mut progress.entries, Entries::new(ListingMemory::default()))),
        };
        let slot = progress.slot.take();
        drop(progress);
        self.close(slot);
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
