//! The connection: made, watched, made again. One supervisor thread per mount.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use super::fetch::Readers;
use super::handles::Handles;
use super::rename::Rungs;
use super::{ErrorKind, RemoteConfig, RemoteResult, SessionInfo};
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::sftp::{Class, Config, Engine, Reply, Request};
use crate::transport::{Transport, TransportError};

/// Makes a connection before the deadline, asking nobody.
pub type Dial = Box<dyn Fn(Deadline) -> Result<Box<dyn Transport>, TransportError> + Send + Sync>;

/// How the connection stands.
#[derive(Debug, Clone)]
pub enum Link {
    Up { since: Instant, epoch: u64, home: Vec<u8> },
    Down { since: Instant, why: String },
}

/// One connection's life.
pub(super) struct Session {
    pub(super) engine: Engine,
    pub(super) handles: Handles,
    pub(super) readers: Readers,
    epoch: u64,
    since: Instant,
    home: Vec<u8>,
}

type Parked = Box<dyn FnOnce(Result<Arc<Session>, ErrorKind>) + Send>;

struct State {
    session: Option<Arc<Session>>,
    down_since: Instant,
    why: String,
    parked: Vec<(Deadline, Parked)>,
    /// The connection that was lost last had been of use.
    served: bool,
    closed: bool,
    /// There has been no connection yet: nobody waits for the first one.
    offline: bool,
}

pub(super) struct Inner {
    pub(super) config: RemoteConfig,
    pub(super) rungs: Rungs,
    state: Mutex<State>,
    changed: Condvar,
    events: mpsc::Sender<()>,
}

/// Silence after which something is sent: the platform drops a connection after 10 minutes without traffic.
const KEEPALIVE: Duration = Duration::from_secs(240);
/// Age at which a connection is replaced: the platform ends it after 60 minutes, whatever is under way.
const MAX_AGE: Duration = Duration::from_secs(55 * 60);
/// Waits between attempts to connect.
const BACKOFF: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];
/// How often the supervisor looks at age and silence.
const TICK: Duration = Duration::from_secs(15);
/// How often a call is made again after its connection was lost.
pub(super) const MAX_TRIES: u32 = 3;

impl Inner {
    /// With a first connection, or with the reason why there is none yet.
    pub(super) fn start(
        config: RemoteConfig,
        first: Result<Box<dyn Transport>, String>,
    ) -> Result<Arc<Self>, ErrorKind> {
        let (events, heard) = mpsc::channel();
        let state = State {
            session: None,
            down_since: Instant::now(),
            why: first.as_ref().err().cloned().unwrap_or_default(),
            parked: Vec::new(),
            served: false,
            closed: false,
            offline: first.is_err(),
        };
        let inner = Arc::new(Self {
            config,
            rungs: Rungs::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            events,
        });
        if let Ok(first) = first {
            inner.begin(first, 1)?;
        }
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name("session".into()).spawn(move || supervise(&weak, &heard))?;
        Ok(inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts SFTP on a fresh stream and learns where it leads.
    fn begin(self: &Arc<Self>, transport: Box<dyn Transport>, epoch: u64) -> Result<(), ErrorKind> {
        let deadline = Deadline::after(self.config.timeout);
        let weak = Arc::downgrade(self);
        let closed = move |error: crate::sftp::SftpError| {
            if let Some(inner) = weak.upgrade() {
                inner.lost(epoch, &error.to_string());
            }
        };
        let engine = Engine::start(transport, Config { timeout: self.config.timeout }, deadline, closed)?;
        let home = match engine.first_call(Request::RealPath { path: self.wire(&RemotePath::root()) }, deadline)? {
            Reply::Names(names) if names.len() == 1 => names.into_iter().next().map(|n| n.name).unwrap_or_default(),
            Reply::Status { code, message } => return Err(ErrorKind::from_status(code, message)),
            _ => return Err(ErrorKind::unexpected()),
        };
        let capabilities = engine.capabilities();
        let session = Arc::new(Session {
            handles: Handles::new(capabilities.max_open_handles),
            readers: Readers::default(),
            engine,
            epoch,
            since: Instant::now(),
            home,
        });
        let parked = {
            let mut state = self.lock();
            if state.closed {
                return Ok(());
            }
            state.session = Some(session.clone());
            state.offline = false;
            self.changed.notify_all();
            std::mem::take(&mut state.parked)
        };
        parked.into_iter().for_each(|(_, resume)| resume(Ok(session.clone())));
        Ok(())
    }

    /// The connection of this epoch is gone.
    pub(super) fn lost(&self, epoch: u64, why: &str) {
        let gone = {
            let mut state = self.lock();
            if state.session.as_ref().is_none_or(|session| session.epoch != epoch) {
                return;
            }
            log::info!("connection {epoch} ended: {why}");
            state.down_since = Instant::now();
            state.why = why.to_owned();
            let gone = state.session.take();
            // The first request is our own.
            state.served = gone.as_ref().is_some_and(|session| session.engine.counters().requests > 1);
            gone
        };
        if let Some(session) = gone {
            session.readers.clear();
        }
        // The supervisor is gone only when nobody needs it any more.
        let _ = self.events.send(());
    }

    pub(super) fn link(&self) -> Link {
        let state = self.lock();
        match &state.session {
            Some(session) => Link::Up { since: session.since, epoch: session.epoch, home: session.home.clone() },
            None => Link::Down { since: state.down_since, why: state.why.clone() },
        }
    }

    pub(super) fn session_info(&self) -> Option<SessionInfo> {
        let session = self.lock().session.clone()?;
        Some(SessionInfo {
            transport: session.engine.info().clone(),
            capabilities: session.engine.capabilities(),
            round_trip: session.engine.round_trip(),
            requests: session.engine.counters().requests,
            since: session.since,
        })
    }

    pub(super) fn heard(&self) -> Option<u64> {
        let session = self.lock().session.clone()?;
        Some(session.engine.counters().received_bytes)
    }

    pub(super) fn close(&self) {
        let (session, parked) = {
            let mut state = self.lock();
            state.closed = true;
            state.why = "unmounted".into();
            self.changed.notify_all();
            (state.session.take(), std::mem::take(&mut state.parked))
        };
        if let Some(session) = session {
            session.readers.clear();
        }
        parked.into_iter().for_each(|(_, resume)| resume(Err(ErrorKind::Down("unmounted".into()))));
        let _ = self.events.send(());
    }

    /// The path as the server is to see it.
    pub(super) fn wire(&self, path: &RemotePath) -> Vec<u8> {
        match (self.config.base.as_slice(), path.as_bytes()) {
            (b"", b"") => b".".to_vec(),
            (b"", path) => path.to_vec(),
            (base, b"") => base.to_vec(),
            (b"/", path) => [b"/", path].concat(),
            (base, path) => [base, b"/", path].concat(),
        }
    }

    /// A caller that finds the link down for this long already is told at once instead of after another wait.
    fn is_hopeless(&self, state: &State) -> bool {
        state.closed || state.offline || state.down_since.elapsed() > self.config.timeout
    }

    /// The session, waiting for it to come back if need be.
    pub(super) fn session(&self, deadline: Deadline) -> Result<Arc<Session>, ErrorKind> {
        let mut state = self.lock();
        loop {
            if let Some(session) = &state.session {
                return Ok(session.clone());
            }
            let left = deadline.remaining();
            if left.is_zero() || self.is_hopeless(&state) {
                return Err(ErrorKind::Down(state.why.clone()));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `then` with the session: now, or when it is back.
    pub(super) fn with_session(
        &self,
        deadline: Deadline,
        then: impl FnOnce(Result<Arc<Session>, ErrorKind>) + Send + 'static,
    ) {
        let mut state = self.lock();
        if let Some(session) = state.session.clone() {
            drop(state);
            return then(Ok(session));
        }
        if deadline.is_over() || self.is_hopeless(&state) {
            let why = state.why.clone();
            drop(state);
            return then(Err(ErrorKind::Down(why)));
        }
        state.parked.push((deadline, Box::new(then)));
    }

    /// Answers for those who have waited long enough.
    fn expire_parked(&self) {
        let (over, why) = {
            let mut state = self.lock();
            let hopeless = self.is_hopeless(&state);
            let (over, rest) =
                std::mem::take(&mut state.parked).into_iter().partition(|(d, _)| hopeless || d.is_over());
            state.parked = rest;
            let over: Vec<(Deadline, Parked)> = over;
            (over, state.why.clone())
        };
        over.into_iter().for_each(|(_, resume)| resume(Err(ErrorKind::Down(why.clone()))));
    }

    /// Runs a call, again on the next connection if its own was lost under it.
    pub(super) fn retry<T>(
        self: &Arc<Self>,
        op: &'static str,
        path: &RemotePath,
        call: impl Fn(&Call) -> Result<T, ErrorKind>,
    ) -> RemoteResult<T> {
        let deadline = Deadline::after(self.config.timeout);
        let mut tries = 0;
        loop {
            tries += 1;
            let session = self.session(deadline).map_err(|kind| kind.at(op, path))?;
            let result = call(&Call { inner: self, session: &session, deadline, again: tries > 1 });
            match result {
                Err(kind) if kind.is_loss() && tries < MAX_TRIES && !deadline.is_over() => {
                    self.lost(session.epoch, &kind.to_string());
                }
                Err(kind) => return Err(kind.at(op, path)),
                Ok(value) => return Ok(value),
            }
        }
    }
}

impl Session {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bytes to ask for in one READ.
    pub(super) fn read_bytes(&self) -> u64 {
        piece(self.engine.capabilities().max_read_bytes)
    }

    /// Bytes to send in one WRITE.
    pub(super) fn write_bytes(&self) -> u64 {
        piece(self.engine.capabilities().max_write_bytes)
    }
}

/// What every server takes in one packet, where it does not tell (bytes); the draft demands 32 KiB.
const SAFE_PIECE_BYTES: u32 = 32 * 1024;
/// More in one packet makes others wait without being faster (bytes).
const MAX_PIECE_BYTES: u32 = 128 * 1024;

fn piece(told: u32) -> u64 {
    u64::from(if told == 0 { SAFE_PIECE_BYTES } else { told.clamp(1024, MAX_PIECE_BYTES) })
}

/// One attempt at a call: where, until when, and whether it may have been executed before.
pub(super) struct Call<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) session: &'a Arc<Session>,
    pub(super) deadline: Deadline,
    pub(super) again: bool,
}

fn supervise(weak: &Weak<Inner>, heard: &mpsc::Receiver<()>) {
    let (mut epoch, mut failures, mut began, mut just_lost) = (1, 0, Instant::now(), true);
    let mut last_requests = (0, Instant::now());
    loop {
        let wait = {
            let Some(inner) = weak.upgrade() else { return };
            let mut state = inner.lock();
            if state.closed {
                return;
            }
            let (up, served) = (state.session.clone(), std::mem::take(&mut state.served));
            drop(state);
            match up {
                Some(session) => {
                    inner.tend(&session, &mut last_requests);
                    TICK
                }
                // It came and went at once, and served nobody: such a server is not asked again in a hurry.
                None if std::mem::take(&mut just_lost) && began.elapsed() < BACKOFF[1] && !served => {
                    failures += 1;
                    BACKOFF[(failures - 1).min(BACKOFF.len() - 1)]
                }
                None => {
                    if served {
                        failures = 0;
                    }
                    epoch += 1;
                    match inner.reconnect(epoch) {
                        Ok(()) => {
                            last_requests = (0, Instant::now());
                            began = Instant::now();
                            just_lost = true;
                            TICK
                        }
                        Err(why) => {
                            log::info!("no connection: {why}");
                            inner.lock().why = why;
                            inner.expire_parked();
                            failures += 1;
                            BACKOFF[(failures - 1).min(BACKOFF.len() - 1)]
                        }
                    }
                }
            }
        };
        // Woken early by a loss; a back-off is sat out, because the server may be drowning.
        match heard.recv_timeout(wait) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        while heard.try_recv().is_ok() {}
    }
}

impl Inner {
    fn reconnect(self: &Arc<Self>, epoch: u64) -> Result<(), String> {
        let transport = (self.config.dial)(Deadline::after(self.config.timeout)).map_err(|e| e.to_string())?;
        self.begin(transport, epoch).map_err(|e| e.to_string())
    }

    /// Keeps the connection alive, and ends it before the platform does.
    fn tend(&self, session: &Arc<Session>, last: &mut (u64, Instant)) {
        if session.since.elapsed() > MAX_AGE && session.engine.backlog() == 0 {
            self.lost(session.epoch, "replaced before the platform's 60-minute limit");
            return;
        }
        let requests = session.engine.counters().requests;
        if requests != last.0 {
            *last = (requests, Instant::now());
        } else if last.1.elapsed() > KEEPALIVE {
            session.engine.submit(Request::RealPath { path: b".".to_vec() }, Class::Background, |_| {});
        }
    }
}
