//! Reading a stretch of a file: OPEN, all READs at once, and an FSTAT behind them that proves which version was read.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;

use super::handles::Slot;
use super::session::{Inner, MAX_TRIES, Session};
use super::{ErrorKind, RemoteResult};
use crate::attr::{Attr, Version};
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::sftp::{Class, Reply, Request, SftpError, StatusCode, open};

/// Files of which a part was read stay open on the server, since the next part is asked for soon.
const MAX_READERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

type Done = Box<dyn FnOnce(RemoteResult<Vec<u8>>) + Send>;
type Finished = Box<dyn FnOnce(Result<Vec<u8>, ErrorKind>) + Send>;

/// What to read.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) path: RemotePath,
    pub(super) version: Version,
    pub(super) range: Range<u64>,
    pub(super) class: Class,
}

/// A file that is open for reading on the server; closed when the last user drops it.
struct OpenFile {
    session: Weak<Session>,
    handle: Vec<u8>,
    _slot: Slot,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            let handle = std::mem::take(&mut self.handle);
            session.engine.submit(Request::Close { handle }, Class::Background, |_| {});
        }
    }
}

/// The open files of one connection.
pub(super) struct Readers(Mutex<LruCache<(RemotePath, Version), Arc<OpenFile>>>);

impl Default for Readers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_READERS)))
    }
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, LruCache<(RemotePath, Version), Arc<OpenFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &RemotePath, version: Version) -> Option<Arc<OpenFile>> {
        self.lock().get(&(path.clone(), version)).cloned()
    }

    fn put(&self, path: RemotePath, version: Version, file: Arc<OpenFile>) {
        // Dropped outside the lock: closing submits a request.
        let evicted = self.lock().push((path, version), file);
        drop(evicted);
    }

    fn forget(&self, path: &RemotePath, version: Version) {
        let gone = self.lock().pop(&(path.clone(), version));
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let mut gone = HashMap::new();
        {
            let mut readers = self.lock();
            while let Some((key, file)) = readers.pop_lru() {
                gone.insert(key, file);
            }
        }
    }
}

pub(super) fn fetch(inner: &Arc<Inner>, wanted: Wanted, done: Done) {
    attempt(inner.clone(), wanted, 1, Deadline::after(inner.config.timeout), done);
}

fn attempt(inner: Arc<Inner>, wanted: Wanted, tries: u32, deadline: Deadline, done: Done) {
    let again = inner.clone();
    inner.with_session(deadline, move |session| {
        let session = match session {
            Ok(session) => session,
            Err(kind) => return done(Err(kind.at("read", &wanted.path))),
        };
        let (epoch, on, wire) = (session.epoch(), session.clone(), again.wire(&wanted.path));
        let what = wanted.clone();
        let finished: Finished = Box::new(move |result| match result {
            Err(kind) if kind.is_loss() && tries < MAX_TRIES && !deadline.is_over() => {
                again.lost(epoch, &kind.to_string());
                attempt(again, what, tries + 1, deadline, done);
            }
            Err(kind) => {
                on.readers.forget(&what.path, what.version);
                done(Err(kind.at("read", &what.path)));
            }
            Ok(bytes) => done(Ok(bytes)),
        });
        match session.readers.get(&wanted.path, wanted.version) {
            Some(file) => read(&session, &file, &wanted, finished),
            None => {
                let handles = session.handles.clone();
                handles.acquire(wanted.class, move |slot| open_and_read(session, slot, wire, wanted, finished));
            }
        }
    });
}

fn open_and_read(session: Arc<Session>, slot: Slot, wire: Vec<u8>, wanted: Wanted, finished: Finished) {
    let request = Request::Open { path: wire, flags: open::READ, perm: None };
    let on = session.clone();
    session.engine.submit(request, wanted.class, move |reply| match reply {
        Ok(Reply::Handle(handle)) => {
            let file = Arc::new(OpenFile { session: Arc::downgrade(&on), handle, _slot: slot });
            let whole = wanted.range.end - wanted.range.start >= wanted.version.size;
            if !whole {
                on.readers.put(wanted.path.clone(), wanted.version, file.clone());
            }
            read(&on, &file, &wanted, finished);
        }
        Ok(Reply::Status { code, message }) => finished(Err(ErrorKind::from_status(code, message))),
        Ok(_) => finished(Err(ErrorKind::unexpected())),
        Err(error) => finished(Err(error.into())),
    });
}

/// One stretch being read.
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
    under_way: usize,
    short: bool,
    attr: Option<Attr>,
    failure: Option<ErrorKind>,
    finished: Option<Finished>,
}

fn read(session: &Arc<Session>, file: &Arc<OpenFile>, wanted: &Wanted, finished: Finished) {
    let len = wanted.range.end - wanted.range.start;
    let pieces = len.div_ceil(session.read_bytes()) as usize;
    let progress = Progress {
        bytes: vec![0; len as usize],
        under_way: pieces + 1,
        short: false,
        attr: None,
        failure: None,
        finished: Some(finished),
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
        reading.ask(at, len as u32);
        at += len;
    }
    let this = reading.clone();
    let request = Request::Fstat { handle: file.handle.clone() };
    session.engine.submit(request, wanted.class, move |reply| this.stat(reply));
}

impl Reading {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, offset: u64, len: u32) {
        let this = self.clone();
        let request = Request::Read { handle: self.file.handle.clone(), offset, len };
        self.session.engine.submit(request, self.class, move |reply| this.data(offset, len, reply));
    }

    fn data(self: &Arc<Self>, offset: u64, len: u32, reply: Result<Reply, SftpError>) {
        let mut progress = self.lock();
        progress.under_way -= 1;
        match reply {
            Ok(Reply::Data(data)) if data.len() > len as usize => {
                progress.failure = Some(ErrorKind::Protocol("more data than was asked for".into()));
            }
            Ok(Reply::Data(data)) if !data.is_empty() => {
                let from = (offset - self.start) as usize;
                if let Some(place) = progress.bytes.get_mut(from..from + data.len()) {
                    place.copy_from_slice(&data);
                }
                let rest = len - data.len() as u32;
                if rest > 0 && progress.failure.is_none() {
                    progress.under_way += 1;
                    drop(progress);
                    return self.ask(offset + data.len() as u64, rest);
                }
            }
            Ok(Reply::Data(_)) | Ok(Reply::Status { code: StatusCode::Eof, .. }) => progress.short = true,
            Ok(Reply::Status { code, message }) => progress.failure = Some(ErrorKind::from_status(code, message)),
            Ok(_) => progress.failure = Some(ErrorKind::unexpected()),
            Err(error) => progress.failure = Some(error.into()),
        }
        self.finish_if_done(progress);
    }

    fn stat(&self, reply: Result<Reply, SftpError>) {
        let mut progress = self.lock();
        progress.under_way -= 1;
        match reply {
            Ok(Reply::Attrs(attrs)) => progress.attr = Some(attrs.to_attr()),
            Ok(Reply::Status { code, message }) => progress.failure = Some(ErrorKind::from_status(code, message)),
            Ok(_) => progress.failure = Some(ErrorKind::unexpected()),
            Err(error) => progress.failure = Some(error.into()),
        }
        self.finish_if_done(progress);
    }

    fn finish_if_done(&self, mut progress: MutexGuard<'_, Progress>) {
        if progress.under_way > 0 {
            return;
        }
        let finished = progress.finished.take();
        let result = match (progress.failure.take(), progress.attr) {
            (Some(kind), _) => Err(kind),
            (None, Some(now)) if now.version() != self.version => Err(ErrorKind::Changed { now }),
            (None, _) if progress.short => Err(ErrorKind::Failure("the file is shorter than it says".into())),
            (None, _) => Ok(std::mem::take(&mut progress.bytes)),
        };
        drop(progress);
        if let Some(finished) = finished {
            finished(result);
        }
    }
}
