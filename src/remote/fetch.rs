//! Reading a range of a file: OPEN, all READs at once, and an FSTAT behind them that proves which version was read.

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
        Access::Open(file, answer) => read(session, &file, wanted, answer),
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
        Ok(handle) => {
            let file = on.open_file(handle, slot);
            let waiting = on.open_files().opened(&wanted, Some(&file));
            read(&on, &file, &wanted, answer);
            waiting.into_iter().for_each(|(wanted, answer)| read(&on, &file, &wanted, answer));
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

/// A range that is being read.
struct Reading {
    session: Arc<Session>,
    file: Arc<OpenFile>,
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

fn read(session: &Arc<Session>, file: &Arc<OpenFile>, wanted: &FileRange, answer: Answer<Vec<u8>>) {
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
        file: file.clone(),
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
    let request = Request::Fstat { handle: file.handle() };
    session.submit(request, wanted.class, move |received| this.stat_answered(received));
}

impl Reading {
    fn send_read(self: &Arc<Self>, offset: u64, len: u32) {
        let this = self.clone();
        let request = Request::Read { handle: self.file.handle(), offset, len };
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
                if rest > 0 && progress.failure.is_none() {
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
        let answer = progress.answer.take();
        let result = match (progress.failure.take(), progress.attr) {
            (Some(kind), _) => Err(kind),
            (None, Some(now)) if now.version() != self.version => Err(ErrorKind::Changed { now }),
            (None, _) if progress.short => Err(ErrorKind::Failure("the file is shorter than it says".into())),
            (None, _) => Ok(std::mem::take(&mut progress.bytes)),
        };
        drop(progress);
        if let Some(answer) = answer {
            answer(result);
        }
    }
}
