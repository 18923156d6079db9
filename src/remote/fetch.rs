//! Reading a range of a file: OPEN, all READs at once, and an FSTAT behind them that proves which version was read.
//!
//! A file that is read by one READ is closed by the request that follows, without waiting for the answers: its handle is free
//! a round trip earlier, so that twice as many files are read in the same time where the server allows few handles. If that
//! was too early, the file is read again.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

use super::client::Client;
use super::error::{Answer, ErrorKind, RemoteResult};
use super::handles::{MAX_REFUSALS, Slot};
use super::open_files::{Access, FileRange, OpenFile};
use super::reply;
use super::retry::{Repeat, retry_async};
use super::session::Session;
use crate::attr::{Attr, Version};
use crate::sftp::{Class, Reply, Request, SftpError, open};

/// More bytes than this are not asked for at once, whatever size a server tells.
const MAX_RANGE_BYTES: u64 = 1024 * 1024 * 1024;

pub(super) fn fetch(
    client: &Arc<Client>,
    wanted: FileRange,
    done: impl FnOnce(RemoteResult<Vec<u8>>) + Send + 'static,
) {
    if wanted.len() > MAX_RANGE_BYTES {
        let message = format!("it says that it has {} bytes: too much to be read at once", wanted.version.size);
        return done(Err(ErrorKind::Failure(message).at("read", &wanted.path)));
    }
    let (wire, path) = (client.wire(&wanted.path), wanted.path.clone());
    let send = move |session: &Arc<Session>, answer: Answer<Vec<u8>>| attempt(session, &wire, &wanted, answer);
    retry_async(client.clone(), "read", path, Repeat::Safe, send, done);
}

fn attempt(session: &Arc<Session>, wire: &[u8], wanted: &FileRange, answer: Answer<Vec<u8>>) {
    let (on, what) = (session.clone(), wanted.clone());
    let answer: Answer<Vec<u8>> = Box::new(move |result| {
        if result.is_err() {
            on.open_files().forget(&what);
        }
        answer(result);
    });
    match session.open_files().access(wanted, answer) {
        Access::Open(file, answer) => read(session, Source::Open(file), wanted, answer),
        Access::MustOpen(answer) => {
            let (on, wire, wanted) = (session.clone(), wire.to_vec(), wanted.clone());
            open_and_read(on, wire, wanted, 0, answer);
        }
        Access::Queued => {}
    }
}

/// Opens the file as soon as a handle may be opened; the OPEN was `refused` so often.
fn open_and_read(session: Arc<Session>, wire: Vec<u8>, wanted: FileRange, refused: u32, answer: Answer<Vec<u8>>) {
    let on = session.clone();
    session.handles().acquire(wanted.class, move |slot| send_open(on, slot, wire, wanted, refused, answer));
}

fn send_open(
    session: Arc<Session>,
    slot: Slot,
    wire: Vec<u8>,
    wanted: FileRange,
    refused: u32,
    answer: Answer<Vec<u8>>,
) {
    let request = Request::Open { path: wire.clone(), flags: open::READ, perm: None };
    let on = session.clone();
    session.submit(request, wanted.class, move |received| match reply::handle(received.clone()) {
        Err(ErrorKind::Failure(_)) if refused < MAX_REFUSALS && on.handles().refused(&slot) => {
            drop(slot);
            open_and_read(on, wire, wanted, refused + 1, answer);
        }
        Ok(handle) if wanted.is_alone() && wanted.len() <= on.read_bytes() && on.closes_files_early() => {
            read_and_close(on, slot, handle, wire, wanted, answer);
        }
        Ok(handle) => {
            let file = on.open_file(handle, slot);
            let waiting = on.open_files().opened(&wanted, Some(&file));
            let read = |wanted: &FileRange, answer| read(&on, Source::Open(file.clone()), wanted, answer);
            read(&wanted, answer);
            waiting.into_iter().for_each(|(wanted, answer)| read(&wanted, answer));
        }
        Err(kind) => {
            let waiting = on.open_files().opened(&wanted, None);
            answer(Err(kind));
            for (_, answer) in waiting {
                answer(reply::handle(received.clone()));
            }
        }
    });
}

/// The slot is free as soon as the CLOSE is queued: what is opened by this class is queued behind it.
fn read_and_close(
    session: Arc<Session>,
    slot: Slot,
    handle: Vec<u8>,
    wire: Vec<u8>,
    wanted: FileRange,
    answer: Answer<Vec<u8>>,
) {
    read(&session, Source::Closed { handle: handle.clone(), wire, wanted: wanted.clone() }, &wanted, answer);
    session.submit(Request::Close { handle }, wanted.class, |_| {});
    drop(slot);
}

/// Where a range is read from.
enum Source {
    Open(Arc<OpenFile>),
    /// A handle that is closed behind the READ, and what to open if that was too early.
    Closed {
        handle: Vec<u8>,
        wire: Vec<u8>,
        wanted: FileRange,
    },
}

impl Source {
    fn handle(&self) -> Vec<u8> {
        match self {
            Self::Open(file) => file.handle(),
            Self::Closed { handle, .. } => handle.clone(),
        }
    }
}

/// A range that is being read.
struct Reading {
    session: Arc<Session>,
    source: Source,
    class: Class,
    version: Version,
    start: u64,
    progress: Mutex<Progress>,
}

struct Progress {
    bytes: Vec<u8>,
    unanswered: usize,
    short: bool,
    attr: Option<Attr>,
    failure: Option<ErrorKind>,
    /// Taken when the last answer is there.
    answer: Option<Answer<Vec<u8>>>,
}

fn read(session: &Arc<Session>, source: Source, wanted: &FileRange, answer: Answer<Vec<u8>>) {
    let pieces = wanted.len().div_ceil(session.read_bytes()) as usize;
    let progress = Progress {
        bytes: vec![0; wanted.len() as usize],
        unanswered: pieces + 1,
        short: false,
        attr: None,
        failure: None,
        answer: Some(answer),
    };
    let reading = Arc::new(Reading {
        session: session.clone(),
        source,
        class: wanted.class,
        version: wanted.version,
        start: wanted.range.start,
        progress: Mutex::new(progress),
    });
    let mut at = wanted.range.start;
    while at < wanted.range.end {
        let len = (wanted.range.end - at).min(session.read_bytes());
        reading.send_read(at, len as u32);
        at += len;
    }
    let this = reading.clone();
    let request = Request::Fstat { handle: reading.source.handle() };
    session.submit(request, wanted.class, move |received| this.stat_answered(received));
}

impl Reading {
    fn send_read(self: &Arc<Self>, offset: u64, len: u32) {
        let this = self.clone();
        let request = Request::Read { handle: self.source.handle(), offset, len };
        self.session.submit(request, self.class, move |received| this.read_answered(offset, len, received));
    }

    fn read_answered(self: &Arc<Self>, offset: u64, len: u32, received: Result<Reply, SftpError>) {
        let mut progress = self.progress.lock();
        progress.unanswered -= 1;
        match reply::data(received) {
            Ok(Some(data)) if data.len() > len as usize => {
                progress.failure = Some(ErrorKind::Protocol("more data than was asked for".into()));
            }
            Ok(Some(data)) if !data.is_empty() => {
                let from = (offset - self.start) as usize;
                if let Some(place) = progress.bytes.get_mut(from..from + data.len()) {
                    place.copy_from_slice(&data);
                }
                let rest = len - data.len() as u32;
                if rest > 0 && matches!(self.source, Source::Closed { .. }) {
                    progress.short = true;
                } else if rest > 0 && progress.failure.is_none() {
                    progress.unanswered += 1;
                    drop(progress);
                    return self.send_read(offset + data.len() as u64, rest);
                }
            }
            Ok(_) => progress.short = true,
            Err(kind) => progress.failure = Some(kind),
        }
        self.finish_if_done(progress);
    }

    fn stat_answered(&self, received: Result<Reply, SftpError>) {
        let mut progress = self.progress.lock();
        progress.unanswered -= 1;
        match reply::attr(received) {
            Ok(attr) => progress.attr = Some(attr),
            Err(kind) => progress.failure = Some(kind),
        }
        self.finish_if_done(progress);
    }

    fn finish_if_done(&self, mut progress: MutexGuard<'_, Progress>) {
        if progress.unanswered > 0 {
            return;
        }
        let Some(answer) = progress.answer.take() else { return };
        let failure = progress.failure.take();
        let unread = match (&failure, progress.attr) {
            (Some(kind), _) => !kind.is_unanswered(),
            (None, now) => progress.short && now.is_none_or(|now| now.version() == self.version),
        };
        if unread && let Source::Closed { wire, wanted, .. } = &self.source {
            drop(progress);
            if self.session.closes_files_early() {
                log::info!("{}: not read as a whole before it was closed; files are closed later now", wanted.path);
                self.session.close_files_late();
            }
            return open_and_read(self.session.clone(), wire.clone(), wanted.clone(), 0, answer);
        }
        let result = match (failure, progress.attr) {
            (Some(kind), _) => Err(kind),
            (None, Some(now)) if now.version() != self.version => Err(ErrorKind::Changed { now }),
            (None, _) if progress.short => Err(ErrorKind::Failure("the file is shorter than it says".into())),
            (None, _) => Ok(std::mem::take(&mut progress.bytes)),
        };
        drop(progress);
        answer(result);
    }
}
