//! The pipelining engine: one I/O thread owns the stream, any number of threads submit requests.
//!
//! Answers are handed to callbacks on the I/O thread, which must be short. Two classes of work: what a caller waits for
//! overtakes prefetching and uploads in the queue (a sent request cannot be overtaken, hence the windows). A stream on
//! which nothing comes for the whole time limit although answers are due counts as dead.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::codec::{self, MAX_PACKET_BYTES, VERSION};
use super::deadline::LateAnswers;
use super::rate::Rate;
use super::window::Window;
use super::{Capabilities, Loss, Reply, Request, SftpError, StatusCode};
use crate::clock::Deadline;
use crate::transport::{Transport, TransportInfo};

/// Who waits for the answer; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A program that called us.
    Interactive,
    /// Nobody yet: what is renewed before it is too old. Small, and of no use when it comes late.
    Background,
    /// Nobody yet, or somebody who knows that it takes time: content of files.
    Bulk,
}

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How long an answer may take after the request was sent.
    pub timeout: Duration,
}

/// What went over the wire, for tests and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

type Callback = Box<dyn FnOnce(Result<Reply, SftpError>) + Send>;

struct Queued {
    request: Request,
    callback: Callback,
}

struct Flight {
    callback: Callback,
    sent: Instant,
    bulk: u64,
}

#[derive(Default)]
struct Queues {
    /// One for each [`Class`].
    waiting: [VecDeque<Queued>; 3],
    closed: Option<SftpError>,
    counters: Counters,
}

struct Shared {
    queues: Mutex<Queues>,
    wake: OwnedFd,
    /// The I/O thread is about to wait, or waits: a submitter must wake it.
    sleeping: AtomicBool,
    capabilities: Mutex<Capabilities>,
    info: TransportInfo,
    round_trip: Mutex<Option<Duration>>,
    /// File bytes per second that it carried at best; 0: not known yet.
    rate: AtomicU64,
    /// The transport said that a new connection may be faster.
    should_reconnect: AtomicBool,
}

impl Queues {
    /// What may be sent now, with so many requests and file bytes under way.
    fn next(&mut self, window: &Window, requests: usize, under_way: u64) -> Option<Queued> {
        let mut bulk_left = window.bulk_bytes().saturating_sub(under_way);
        for (class, queue) in self.waiting.iter_mut().enumerate() {
            // A caller's small request may exceed the window a little: it must not wait for a slot behind the bulk.
            let room = if class == Class::Interactive as usize { 32 } else { 0 };
            let Some(first) = queue.front() else { continue };
            let bulk = first.request.bulk_bytes();
            let fits = bulk == 0 || bulk <= bulk_left || under_way == 0;
            if fits && requests < window.requests() + room {
                return queue.pop_front();
            }
            if !fits {
                // It waits until there is room for it: smaller pieces of those who come after would take that for ever.
                bulk_left = 0;
            }
        }
        None
    }
}

/// A running engine. Dropping it ends the connection.
pub struct Engine {
    shared: Arc<Shared>,
}

/// Bytes gathered before the stream is offered them: batches small requests into few packets.
const BATCH_BYTES: usize = 64 * 1024;
/// Bytes read from the stream at a time.
const READ_BYTES: usize = 256 * 1024;
/// Longest sleep: deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// Abandoned requests whose late answers are still recognised.
const MAX_ABANDONED: usize = 100_000;

impl Engine {
    /// Agrees on the version and starts the I/O thread. `closed` is called once, from that thread, when the connection ends.
    pub fn start(
        mut transport: Box<dyn Transport>,
        config: Config,
        deadline: Deadline,
        closed: impl FnOnce(SftpError) + Send + 'static,
    ) -> Result<Self, SftpError> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| SftpError::Lost(io::Error::from(e).into()))?;
        let (capabilities, rest) = negotiate(transport.as_mut(), &wake, deadline)?;
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            wake,
            sleeping: AtomicBool::new(false),
            should_reconnect: AtomicBool::new(false),
            capabilities: Mutex::new(capabilities),
            info: transport.info(),
            round_trip: Mutex::default(),
            rate: AtomicU64::new(0),
        });
        let worker = Worker {
            shared: shared.clone(),
            transport,
            timeout: config.timeout,
            late: LateAnswers::new(config.timeout),
            window: Window::new(),
            rate: Rate::default(),
            next_id: 1,
            flights: HashMap::new(),
            abandoned: HashSet::new(),
            bulk: 0,
            buffer: vec![0; READ_BYTES].into(),
            input: rest,
            output: VecDeque::new(),
            last_input: Instant::now(),
            expired: Instant::now(),
        };
        std::thread::Builder::new()
            .name("sftp-io".into())
            .spawn(move || closed(worker.run()))
            .map_err(|e| SftpError::Lost(e.into()))?;
        Ok(Self { shared })
    }

    /// Makes the first call, and learns the server's limits beside it: both cost one round trip.
    pub fn first_call(&self, request: Request, deadline: Deadline) -> Result<Reply, SftpError> {
        let limits = self.capabilities().limits.then(|| self.send(Request::limits(), Class::Interactive));
        let answer = self.call(request, Class::Interactive, deadline);
        if let Some(limits) = limits {
            self.take_limits(limits.wait(deadline));
        }
        answer
    }

    fn take_limits(&self, reply: Result<Reply, SftpError>) {
        if let Ok(Reply::Extended(reply)) = reply
            && let Ok(capabilities) = self.capabilities().with_limits(&reply)
        {
            *self.shared.capabilities.lock() = capabilities;
        }
    }

    pub fn capabilities(&self) -> Capabilities {
        *self.shared.capabilities.lock()
    }

    pub fn info(&self) -> &TransportInfo {
        &self.shared.info
    }

    /// File bytes per second that it carried at best, once there was a busy second.
    pub fn rate(&self) -> Option<u64> {
        Some(self.shared.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Whether a new connection may be faster, as measured.
    pub fn should_reconnect(&self) -> bool {
        self.shared.should_reconnect.load(Ordering::Relaxed)
    }

    pub fn counters(&self) -> Counters {
        self.shared.queues.lock().counters
    }

    /// Shortest round trip seen so far.
    pub fn round_trip(&self) -> Option<Duration> {
        *self.shared.round_trip.lock()
    }

    /// Queues a request; `callback` runs on the I/O thread, or here and now when the connection is gone.
    pub fn submit(
        &self,
        request: Request,
        class: Class,
        callback: impl FnOnce(Result<Reply, SftpError>) + Send + 'static,
    ) {
        let mut queues = self.shared.queues.lock();
        if let Some(error) = queues.closed.clone() {
            drop(queues);
            return callback(Err(error));
        }
        queues.waiting[class as usize].push_back(Queued { request, callback: Box::new(callback) });
        drop(queues);
        if self.shared.sleeping.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Queues a request whose answer is waited for later: this is how calls are pipelined.
    pub fn send(&self, request: Request, class: Class) -> Pending {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(request, class, move |result| drop(sender.send(result)));
        Pending(receiver)
    }

    pub fn call(&self, request: Request, class: Class, deadline: Deadline) -> Result<Reply, SftpError> {
        self.send(request, class).wait(deadline)
    }

    /// Ends the connection now: what is queued or under way fails with the reason.
    pub fn close(&self, why: &str) {
        self.shared.queues.lock().closed.get_or_insert(SftpError::Lost(Loss::new(why)));
        self.wake();
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queues.lock().closed.get_or_insert(SftpError::Lost(Loss::new("closed")));
        self.wake();
    }
}

/// An answer that is on its way.
pub struct Pending(mpsc::Receiver<Result<Reply, SftpError>>);

impl Pending {
    pub fn wait(self, deadline: Deadline) -> Result<Reply, SftpError> {
        self.0.recv_timeout(deadline.remaining()).unwrap_or(Err(SftpError::Timeout))
    }
}

/// INIT and the server's VERSION. Gives what is known of the server and the bytes that came after.
fn negotiate(
    transport: &mut dyn Transport,
    wake: &OwnedFd,
    deadline: Deadline,
) -> Result<(Capabilities, Vec<u8>), SftpError> {
    let mut output = VecDeque::from(codec::encode_init());
    let mut input = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        write_some(transport, &mut output).map_err(|e| lost(transport, e))?;
        match transport.read(&mut buffer) {
            Ok(0) => return Err(lost(transport, io::Error::other("the server closed the connection"))),
            Ok(n) => input.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline.is_over() {
                    return Err(SftpError::Timeout);
                }
                let timeout = deadline.remaining().min(TICK);
                transport.wait(!output.is_empty(), wake.as_fd(), timeout).map_err(|e| lost(transport, e))?;
            }
            Err(error) => return Err(lost(transport, error)),
        }
        if let Some(packet) = take_packet(&mut input)? {
            let (version, extensions) = codec::decode_version(&packet)?;
            if version < VERSION {
                return Err(SftpError::Protocol(format!("version {version} is too old")));
            }
            return Ok((Capabilities::from_extensions(&extensions), input));
        }
    }
}

/// The stream failed. What the other side reported last is added.
fn lost(transport: &dyn Transport, error: io::Error) -> SftpError {
    let report = transport.last_report().map(|report| format!(" ({report})")).unwrap_or_default();
    SftpError::Lost(Loss::from_io(format!("{error}{report}"), error))
}

/// Writes until the stream takes no more; says whether anything went.
fn write_some(transport: &mut dyn Transport, output: &mut VecDeque<u8>) -> io::Result<usize> {
    let mut total = 0;
    while !output.is_empty() {
        match transport.write(output.as_slices().0) {
            Ok(0) => break,
            Ok(n) => {
                output.drain(..n);
                total += n;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Cuts the first whole packet off the input.
fn take_packet(input: &mut Vec<u8>) -> Result<Option<Vec<u8>>, SftpError> {
    let Some(len) = input.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) else { return Ok(None) };
    if len == 0 || len > MAX_PACKET_BYTES {
        return Err(SftpError::Protocol(format!("a packet of {len} bytes")));
    }
    if input.len() < 4 + len {
        return Ok(None);
    }
    let packet = input[4..4 + len].to_vec();
    input.drain(..4 + len);
    Ok(Some(packet))
}

/// What the I/O thread owns.
struct Worker {
    shared: Arc<Shared>,
    transport: Box<dyn Transport>,
    timeout: Duration,
    late: LateAnswers,
    window: Window,
    rate: Rate,
    next_id: u32,
    flights: HashMap<u32, Flight>,
    /// Timed out here, not answered yet: their numbers are still taken.
    abandoned: HashSet<u32>,
    bulk: u64,
    /// Where the transport reads to, kept: a new one each time would be fresh pages each time.
    buffer: Box<[u8]>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    last_input: Instant,
    /// When overdue answers were looked for.
    expired: Instant,
}

impl Worker {
    fn run(mut self) -> SftpError {
        let error = loop {
            if let Err(error) = self.turn() {
                break error;
            }
        };
        let unsent = {
            let mut queues = self.shared.queues.lock();
            queues.closed.get_or_insert(error.clone());
            std::mem::take(&mut queues.waiting)
        };
        let waiting = self.flights.into_values().map(|flight| flight.callback);
        let unsent = unsent.into_iter().flatten().map(|queued| queued.callback);
        waiting.chain(unsent).for_each(|callback| callback(Err(error.clone())));
        error
    }

    /// One turn: send what may be sent, take what came, sleep if there was neither.
    fn turn(&mut self) -> Result<(), SftpError> {
        self.shared.sleeping.store(true, Ordering::Release);
        self.fill_output()?;
        let wrote =
            write_some(self.transport.as_mut(), &mut self.output).map_err(|e| lost(self.transport.as_ref(), e))?;
        let read = self.read_some()?;
        self.shared.queues.lock().counters.sent_bytes += wrote as u64;
        // On a link that is never idle, too: a stream of other answers must not keep one caller waiting for ever.
        if (wrote == 0 && read == 0) || self.expired.elapsed() > TICK {
            self.expired = Instant::now();
            self.expire()?;
        }
        if wrote == 0 && read == 0 {
            let want_write = !self.output.is_empty();
            self.transport
                .wait(want_write, self.shared.wake.as_fd(), TICK)
                .map_err(|e| lost(self.transport.as_ref(), e))?;
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.shared.wake, &mut count);
        }
        Ok(())
    }

    /// Moves requests from the queues into the output, within the windows.
    fn fill_output(&mut self) -> Result<(), SftpError> {
        loop {
            let queued = {
                let mut queues = self.shared.queues.lock();
                // Looked at where nothing can be sent, too: a stream that is stuck must end when it is told to.
                if let Some(error) = &queues.closed {
                    return Err(error.clone());
                }
                if self.output.len() >= BATCH_BYTES {
                    return Ok(());
                }
                let Some(queued) = self.next_allowed(&mut queues) else { return Ok(()) };
                queues.counters.requests += 1;
                queued
            };
            let id = self.free_id();
            let bulk = queued.request.bulk_bytes();
            self.output.extend(queued.request.encode(id));
            self.bulk += bulk;
            self.flights.insert(id, Flight { callback: queued.callback, sent: Instant::now(), bulk });
        }
    }

    fn next_allowed(&self, queues: &mut Queues) -> Option<Queued> {
        queues.next(&self.window, self.flights.len(), self.bulk)
    }

    fn free_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            if !self.flights.contains_key(&id) && !self.abandoned.contains(&id) {
                return id;
            }
        }
    }

    fn read_some(&mut self) -> Result<usize, SftpError> {
        match self.transport.read(&mut self.buffer) {
            Ok(0) => Err(lost(self.transport.as_ref(), io::Error::other("the server closed the connection"))),
            Ok(n) => {
                self.last_input = Instant::now();
                self.shared.queues.lock().counters.received_bytes += n as u64;
                self.input.extend_from_slice(&self.buffer[..n]);
                self.dispatch()?;
                Ok(n)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(lost(self.transport.as_ref(), error)),
        }
    }

    fn dispatch(&mut self) -> Result<(), SftpError> {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(len) = input[at..].first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) {
            if len == 0 || len > MAX_PACKET_BYTES {
                return Err(SftpError::Protocol(format!("a packet of {len} bytes")));
            }
            let Some(packet) = input.get(at + 4..at + 4 + len) else { break };
            let (id, reply) = codec::decode_reply(packet)?;
            self.answered(id, reply)?;
            at += 4 + len;
        }
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    fn answered(&mut self, id: u32, reply: Reply) -> Result<(), SftpError> {
        let full = self.flights.len() + 1 >= self.window.requests() || self.bulk + 65_536 >= self.window.bulk_bytes();
        let Some(flight) = self.flights.remove(&id) else {
            if self.abandoned.remove(&id) {
                return Ok(());
            }
            return Err(SftpError::Protocol(format!("an answer to request {id}, which nobody sent")));
        };
        self.bulk -= flight.bulk;
        self.window.answered(flight.sent.elapsed(), flight.bulk, full);
        self.late.answered(Instant::now(), flight.sent);
        let bytes = match &reply {
            Reply::Data(data) => data.len() as u64,
            Reply::Status { code: StatusCode::Ok, .. } => flight.bulk,
            _ => 0,
        };
        if let Some(rate) = self.rate.moved(Instant::now(), bytes, self.bulk > 0) {
            self.shared.rate.store(rate, Ordering::Relaxed);
            let should_reconnect = self.transport.report_rate(rate);
            self.shared.should_reconnect.store(should_reconnect, Ordering::Relaxed);
        }
        *self.shared.round_trip.lock() = self.window.round_trip();
        (flight.callback)(Ok(reply));
        Ok(())
    }

    /// Gives up on answers that are overdue. If nothing at all came meanwhile, on the connection.
    fn expire(&mut self) -> Result<(), SftpError> {
        let Some(before) = self.late.before(Instant::now()) else { return Ok(()) };
        let overdue: Vec<u32> =
            self.flights.iter().filter(|(_, flight)| flight.sent < before).map(|(id, _)| *id).collect();
        if overdue.is_empty() {
            return Ok(());
        }
        if self.last_input.elapsed() > self.timeout || self.abandoned.len() > MAX_ABANDONED {
            return Err(SftpError::Lost(Loss::new("the server stopped answering")));
        }
        for id in overdue {
            if let Some(flight) = self.flights.remove(&id) {
                self.bulk -= flight.bulk;
                self.abandoned.insert(id);
                (flight.callback)(Err(SftpError::Timeout));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn start(script: &str) -> Result<Engine, SftpError> {
        let args = [std::ffi::OsStr::new("-c"), std::ffi::OsStr::new(script)];
        let transport = crate::transport::exec(Path::new("/bin/sh"), &args).expect("a shell");
        let config = Config { timeout: Duration::from_millis(500) };
        Engine::start(transport, config, Deadline::after(Duration::from_secs(5)), |_| {})
    }

    #[test]
    fn large_pieces_of_a_caller_are_not_starved_by_small_ones_in_the_background() {
        let mut queues = Queues::default();
        let mut put = |class: Class, len: u32| {
            let request = Request::Read { handle: Vec::new(), offset: 0, len };
            queues.waiting[class as usize].push_back(Queued { request, callback: Box::new(|_| {}) });
        };
        let window = Window::new();
        let whole = u32::try_from(window.bulk_bytes()).expect("small");
        put(Class::Interactive, whole);
        (0..4).for_each(|_| put(Class::Bulk, whole / 8));
        let mut next = |under_way: u64| queues.next(&window, 1, under_way).map(|queued| queued.request.bulk_bytes());
        assert_eq!(next(u64::from(whole / 2)), None, "what is under way comes in first");
        assert_eq!(next(0), Some(u64::from(whole)));
        assert_eq!(next(u64::from(whole / 2)), Some(u64::from(whole / 8)));
    }

    fn lstat() -> Request {
        Request::Lstat { path: b"x".to_vec() }
    }

    #[test]
    fn nonsense_instead_of_a_version_is_an_error() {
        assert!(matches!(start("printf 'This account is not available\\n'; sleep 1"), Err(SftpError::Protocol(_))));
        assert!(matches!(start("exit 0"), Err(SftpError::Lost(_))));
    }

    #[test]
    fn a_silent_server_is_given_up_and_an_answer_nobody_asked_for_is_fatal() {
        let version = r"printf '\000\000\000\005\002\000\000\000\003'";
        let soon = Deadline::after(Duration::from_secs(5));
        let engine = start(&format!("{version}; sleep 30")).expect("a version came");
        assert!(matches!(engine.call(lstat(), Class::Interactive, soon), Err(SftpError::Lost(_))));
        let answer = r"printf '\000\000\000\005\145\000\000\000\143'";
        let engine = start(&format!("{version}; sleep 0.1; {answer}; sleep 30")).expect("a version came");
        let error = engine.call(lstat(), Class::Interactive, soon);
        assert!(matches!(error, Err(SftpError::Protocol(_))), "{error:?}");
    }
}
