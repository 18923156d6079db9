//! Reading a stretch of a file: OPEN, all READs at once, and an FSTAT behind them that proves which version was read.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Weak};

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

/// More bytes than this are not asked for at once, whatever size a server tells.
const MAX_STRETCH: u64 = 1024 * 1024 * 1024;

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

impl Wanted {
    fn key(&self) -> Key {
        (self.path.clone(), self.version)
    }

    /// Nothing else will be asked of the file.
    fn is_whole(&self) -> bool {
        self.range.end - self.range.start >= self.version.size
    }
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

type Key = (RemotePath, Version);

/// The open files of one connection.
pub(super) struct Readers(Mutex<State>);

struct State {
    open: LruCache<Key, Arc<OpenFile>>,
    /// Being opened, by whom it is urgent, with the others that read it as soon as it is open. One OPEN is enough; and
    /// with one each, a stretch whose OPEN is answered last would be read behind all the others.
    opening: HashMap<(Key, Class), Vec<(Wanted, Finished)>>,
}

/// What is to be done for a stretch.
enum Way {
    Read(Arc<OpenFile>, Finished),
    Open(Finished),
    /// Somebody opens it.
    Wait,
}

impl Readers {
    /// Of the handles that may be open at once half are left for others.
    pub(super) fn new(handles: usize) -> Self {
        let limit = NonZeroUsize::new(handles / 2).unwrap_or(NonZeroUsize::MIN).min(MAX_READERS);
        Self(Mutex::new(State { open: LruCache::new(limit), opening: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn way(&self, wanted: &Wanted, finished: Finished) -> Way {
        let mut state = self.lock();
        if let Some(file) = state.open.get(&wanted.key()) {
            return Way::Read(file.clone(), finished);
        }
        if wanted.is_whole() {
            return Way::Open(finished);
        }
        match state.opening.entry((wanted.key(), wanted.class)) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push((wanted.clone(), finished));
                Way::Wait
            }
            Entry::Vacant(nobody) => {
                nobody.insert(Vec::new());
                Way::Open(finished)
            }
        }
    }

    /// It is open, or cannot be opened. Returns who waited for that.
    fn opened(&self, wanted: &Wanted, file: Option<&Arc<OpenFile>>) -> Vec<(Wanted, Finished)> {
        if wanted.is_whole() {
            return Vec::new();
        }
        // Dropped outside the lock: closing submits a request.
        let (waiting, evicted) = {
            let mut state = self.lock();
            let waiting = state.opening.remove(&(wanted.key(), wanted.class)).unwrap_or_default();
            (waiting, file.and_then(|file| state.open.push(wanted.key(), file.clone())))
        };
        drop(evicted);
        waiting
    }

    fn forget(&self, wanted: &Wanted) {
        let gone = self.lock().open.pop(&wanted.key());
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let mut gone = Vec::new();
        {
            let mut state = self.lock();
            while let Some((_, file)) = state.open.pop_lru() {
                gone.push(file);
            }
        }
    }
}

pub(super) fn fetch(inner: &Arc<Inner>, wanted: Wanted, done: Done) {
    if wanted.range.end - wanted.range.start > MAX_STRETCH {
        let kind = ErrorKind::Failure(format!(
            "it says that it has {} bytes: too much to be read at once",
            wanted.version.size
        ));
        return done(Err(kind.at("read", &wanted.path)));
    }
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
                on.readers.forget(&what);
                done(Err(kind.at("read", &what.path)));
            }
            Ok(bytes) => done(Ok(bytes)),
        });
        match session.readers.way(&wanted, finished) {
            Way::Read(file, finished) => read(&session, &file, &wanted, finished),
            Way::Open(finished) => {
                let handles = session.handles.clone();
                handles.acquire(wanted.class, move |slot| open_and_read(session, slot, wire, wanted, finished));
            }
            Way::Wait => {}
        }
    });
}

fn open_and_read(session: Arc<Session>, slot: Slot, wire: Vec<u8>, wanted: Wanted, finished: Finished) {
    let request = Request::Open { path: wire, flags: open::READ, perm: None };
    let on = session.clone();
    session.engine.submit(request, wanted.class, move |reply| {
        let why: Box<dyn Fn() -> ErrorKind> = match reply {
            Ok(Reply::Handle(handle)) => {
                let file = Arc::new(OpenFile { session: Arc::downgrade(&on), handle, _slot: slot });
                let waiting = on.readers.opened(&wanted, Some(&file));
                read(&on, &file, &wanted, finished);
                return waiting.into_iter().for_each(|(wanted, finished)| read(&on, &file, &wanted, finished));
            }
            Ok(Reply::Status { code, message }) => Box::new(move || ErrorKind::from_status(code, message.clone())),
            Ok(_) => Box::new(ErrorKind::unexpected),
            Err(error) => Box::new(move || error.clone().into()),
        };
        let waiting = on.readers.opened(&wanted, None);
        finished(Err(why()));
        waiting.into_iter().for_each(|(_, finished)| finished(Err(why())));
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
        self.progress.lock()
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
