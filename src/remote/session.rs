//! One SFTP session: the engine on its connection, and what this session holds open on the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::entries::ListingMemory;
use super::error::ErrorKind;
use super::handles::{Handles, Slot};
use super::open_files::{OpenFile, OpenFiles};
use super::reply;
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::sftp::{Capabilities, Class, Config, Engine, Pending, Reply, Request, SftpError};
use crate::transport::{Transport, TransportInfo};

/// What every server takes in one packet, where it does not tell (bytes); the draft demands 32 KiB.
const SAFE_PIECE_BYTES: u32 = 32 * 1024;
/// More in one packet makes other requests wait without being faster (bytes).
const MAX_PIECE_BYTES: u32 = 128 * 1024;

/// What is known of the present session, for status and doctor.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    pub transport: TransportInfo,
    pub capabilities: Capabilities,
    pub round_trip: Option<Duration>,
    /// Requests sent over this session.
    pub requests: u64,
    pub since: Instant,
}

/// See the module header. The connection ends when the last user drops it.
pub(super) struct Session {
    /// Open files share it only while they send their CLOSE: dropping the session ends the connection.
    engine: Arc<Engine>,
    handles: Handles,
    open_files: Arc<OpenFiles>,
    listing_memory: ListingMemory,
    /// Counts the sessions of a mount.
    epoch: u64,
    since: Instant,
    home: Vec<u8>,
    opening: Opening,
    /// Replaced by plan: calls that its end interrupts are no failures.
    retired: AtomicBool,
    /// A directory that is closed behind its READDIRs, without waiting for their answers, is not read as a whole.
    closes_late: AtomicBool,
    /// The same for a file that is closed behind its READ.
    closes_files_late: AtomicBool,
}

/// What was done in the round trip that opened the session.
struct Opening {
    requests: u64,
    looked: Result<Reply, SftpError>,
}

impl Session {
    /// Starts SFTP on a fresh connection and asks where `root` leads. If there is a path to `look` at, that is done in the
    /// same round trip. `closed` is called once when the connection ends.
    pub(super) fn open(
        transport: Box<dyn Transport>,
        (root, look): (Vec<u8>, Option<Vec<u8>>),
        epoch: u64,
        timeout: Duration,
        closed: impl FnOnce(SftpError) + Send + 'static,
    ) -> Result<Arc<Self>, ErrorKind> {
        let deadline = Deadline::after(timeout);
        let look = look.map(|path| Request::Lstat { path });
        let first = std::iter::once(Request::RealPath { path: root }).chain(look).collect();
        let (engine, answers) = Engine::start(transport, Config { timeout }, first, deadline, closed)?;
        let handles = Handles::new(engine.capabilities().max_open_handles);
        let open_files = Arc::new(OpenFiles::new(handles.free()));
        let limited = (handles.clone(), open_files.clone());
        engine.ask_limits(move |capabilities| limited.1.told(limited.0.told(capabilities.max_open_handles)));
        let opening_requests = answers.len() as u64 + u64::from(engine.capabilities().limits);
        let mut answers = answers.into_iter().map(|answer| answer.wait(deadline));
        let mut next = || answers.next().unwrap_or(Err(SftpError::Timeout));
        let home = reply::name(next())?;
        let looked = next();
        Ok(Arc::new(Self {
            open_files,
            handles,
            listing_memory: ListingMemory::default(),
            engine: Arc::new(engine),
            epoch,
            since: Instant::now(),
            home,
            opening: Opening { requests: opening_requests, looked },
            retired: AtomicBool::new(false),
            closes_late: AtomicBool::new(false),
            closes_files_late: AtomicBool::new(false),
        }))
    }

    /// What was at the path that was looked at while the session was opened.
    pub(super) fn looked(&self) -> Result<Attr, ErrorKind> {
        reply::attr(self.opening.looked.clone())
    }

    /// Whether it was asked for more than what opens a session.
    pub(super) fn has_served(&self) -> bool {
        self.requests() > self.opening.requests
    }

    /// Queues a request whose answer is waited for later.
    pub(super) fn send(&self, request: Request, class: Class) -> Pending {
        self.engine.send(request, class)
    }

    /// Queues a request; `callback` runs on the I/O thread.
    pub(super) fn submit(
        &self,
        request: Request,
        class: Class,
        callback: impl FnOnce(Result<Reply, SftpError>) + Send + 'static,
    ) {
        self.engine.submit(request, class, callback);
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }

    pub(super) fn handles(&self) -> &Handles {
        &self.handles
    }

    pub(super) fn open_files(&self) -> &OpenFiles {
        &self.open_files
    }

    /// The file behind a handle of this session, closed when the last user drops it.
    pub(super) fn open_file(&self, handle: Vec<u8>, slot: Slot) -> Arc<OpenFile> {
        OpenFile::new(Arc::downgrade(&self.engine), handle, slot)
    }

    pub(super) fn listing_memory(&self) -> ListingMemory {
        self.listing_memory.clone()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Where the root is, as the server says it.
    pub(super) fn home(&self) -> &[u8] {
        &self.home
    }

    pub(super) fn info(&self) -> SessionInfo {
        SessionInfo {
            transport: self.engine.info().clone(),
            capabilities: self.engine.capabilities(),
            round_trip: self.engine.round_trip(),
            requests: self.requests(),
            since: self.since,
        }
    }

    /// Address and port of the server, as the transport reports it.
    pub(super) fn peer(&self) -> &str {
        &self.engine.info().peer
    }

    pub(super) fn requests(&self) -> u64 {
        self.engine.counters().requests
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.engine.counters().received_bytes
    }

    /// File bytes per second that it carried at best, once there was a busy second.
    pub(super) fn rate(&self) -> Option<u64> {
        self.engine.rate()
    }

    /// The transport measured that a new connection may be faster.
    pub(super) fn should_reconnect(&self) -> bool {
        self.engine.should_reconnect()
    }

    /// Sends a request that changes nothing and does not wait for the answer.
    pub(super) fn keep_alive(&self) {
        self.engine.submit(Request::RealPath { path: b".".to_vec() }, Class::Background, |_| {});
    }

    /// Whether anything is received within `limit`.
    pub(super) fn is_alive(&self, limit: Duration) -> bool {
        let before = self.received_bytes();
        let probe = Request::RealPath { path: b".".to_vec() };
        let answer = self.engine.call(probe, Class::Interactive, Deadline::after(limit));
        answer.is_ok() || self.received_bytes() > before
    }

    /// From here on its end is planned. Files that no read uses are closed.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.open_files.clear();
    }

    /// Whether a directory may be closed behind its READDIRs, see `list`.
    pub(super) fn closes_early(&self) -> bool {
        !self.closes_late.load(Ordering::Relaxed)
    }

    pub(super) fn close_late(&self) {
        self.closes_late.store(true, Ordering::Relaxed);
    }

    /// Whether a file may be closed behind the only READ of it, see `fetch`.
    pub(super) fn closes_files_early(&self) -> bool {
        !self.closes_files_late.load(Ordering::Relaxed)
    }

    /// How many files may be read at a time: three quarters of the handles, so that requests of callers find a free one. A
    /// file that is closed early needs its handle for half of the time.
    pub(super) fn fetches(&self) -> usize {
        let handles = self.handles.limit();
        let busy = handles - handles / 4;
        if self.closes_files_early() { 2 * busy } else { busy }
    }

    pub(super) fn close_files_late(&self) {
        self.closes_files_late.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Ends the connection now; requests under way fail with the reason.
    pub(super) fn end(&self, why: &str) {
        self.open_files.clear();
        self.engine.close(why);
    }

    /// Bytes to ask for in one READ.
    pub(super) fn read_bytes(&self) -> u64 {
        piece(self.capabilities().max_read_bytes)
    }

    /// Bytes to send in one WRITE.
    pub(super) fn write_bytes(&self) -> u64 {
        piece(self.capabilities().max_write_bytes)
    }
}

fn piece(told: u32) -> u64 {
    u64::from(if told == 0 { SAFE_PIECE_BYTES } else { told.clamp(1024, MAX_PIECE_BYTES) })
}
