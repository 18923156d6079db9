//! The connection that there is now, and who waits for the next one. Made, watched and replaced in `supervise`.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::fetch::Readers;
use super::handles::Handles;
use super::rename::RenameCapabilities;
use super::supervise;
use super::temp::Temps;
use super::{ErrorKind, RemoteConfig, RemoteResult, SessionInfo};
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::sftp::{Config, Engine, Reply, Request};
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
    /// Memory that the listings under way take (bytes, about).
    pub(super) gathered: Arc<AtomicUsize>,
    epoch: u64,
    pub(super) since: Instant,
    home: Vec<u8>,
    /// Replaced because of its age: what it does not end is done again.
    retired: AtomicBool,
}

type Parked = Box<dyn FnOnce(Result<Arc<Session>, ErrorKind>) + Send>;

pub(super) struct State {
    pub(super) session: Option<Arc<Session>>,
    down_since: Instant,
    pub(super) why: String,
    parked: Vec<(Deadline, Parked)>,
    /// The connection that was lost last had been of use.
    pub(super) served: bool,
    pub(super) closed: bool,
    /// Somebody wants something of a server to which there is no connection.
    pub(super) wanted: bool,
    /// The server is being woken: waiting for it is not hopeless.
    pub(super) waking: bool,
    /// There has been no connection yet: nobody waits for the first one.
    offline: bool,
}

pub(super) struct Inner {
    pub(super) config: RemoteConfig,
    pub(super) rename_caps: RenameCapabilities,
    pub(super) temps: Temps,
    state: Mutex<State>,
    changed: Condvar,
    events: mpsc::Sender<()>,
}

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
            wanted: false,
            waking: false,
            offline: first.is_err(),
        };
        let inner = Arc::new(Self {
            config,
            rename_caps: RenameCapabilities::default(),
            temps: Temps::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            events,
        });
        if let Ok(first) = first {
            inner.begin(first, 1)?;
        }
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name("session".into()).spawn(move || supervise::run(&weak, &heard))?;
        Ok(inner)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Starts SFTP on a fresh stream and learns where it leads. From then on it is the connection; one that there was before
    /// goes on with what it was doing, and ends when its last call does.
    pub(super) fn begin(self: &Arc<Self>, transport: Box<dyn Transport>, epoch: u64) -> Result<(), ErrorKind> {
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
        let handles = Handles::new(capabilities.max_open_handles);
        let session = Arc::new(Session {
            readers: Readers::new(handles.free()),
            handles,
            gathered: Arc::default(),
            engine,
            epoch,
            since: Instant::now(),
            home,
            retired: AtomicBool::new(false),
        });
        let (before, parked) = {
            let mut state = self.lock();
            if state.closed {
                return Ok(());
            }
            let before = state.session.replace(session.clone());
            (state.offline, state.wanted) = (false, false);
            self.changed.notify_all();
            (before, std::mem::take(&mut state.parked))
        };
        // Outside of the lock: closing what it has open for reading submits requests.
        if let Some(before) = before {
            before.retired.store(true, Ordering::Relaxed);
            before.readers.clear();
        }
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
            // Who still waits for an answer over it waits in vain.
            session.engine.close(why);
        }
        // The supervisor is gone only when nobody needs it any more.
        let _ = self.events.send(());
    }

    /// From here on calls wait for the next connection; those under way go on. The last user of this one ends it.
    pub(super) fn hold(&self, epoch: u64, why: &str) {
        let mut state = self.lock();
        if state.session.as_ref().is_some_and(|session| session.epoch == epoch) {
            state.session = None;
            state.down_since = Instant::now();
            state.why = why.to_owned();
            state.served = true;
        }
    }

    /// The server is being woken, or no more.
    pub(super) fn set_waking(&self, waking: bool) {
        self.lock().waking = waking;
    }

    /// Somebody needs a connection. The first one to say so has the supervisor look at once, if the server may be asleep.
    fn want(&self, state: &mut State) {
        if !std::mem::replace(&mut state.wanted, true) && self.config.rouse.is_some() {
            let _ = self.events.send(());
        }
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
        state.closed || (!state.waking && (state.offline || state.down_since.elapsed() > self.config.timeout))
    }

    /// The session, waiting for it to come back if need be.
    pub(super) fn session(&self, deadline: Deadline) -> Result<Arc<Session>, ErrorKind> {
        let mut state = self.lock();
        loop {
            if let Some(session) = &state.session {
                return Ok(session.clone());
            }
            self.want(&mut state);
            let left = deadline.remaining();
            if left.is_zero() || self.is_hopeless(&state) {
                return Err(ErrorKind::Down(state.why.clone()));
            }
            self.changed.wait_for(&mut state, left);
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
        self.want(&mut state);
        if deadline.is_over() || self.is_hopeless(&state) {
            let why = state.why.clone();
            drop(state);
            return then(Err(ErrorKind::Down(why)));
        }
        state.parked.push((deadline, Box::new(then)));
    }

    /// Answers for those who have waited long enough.
    pub(super) fn expire_parked(&self) {
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
        let mut deadline = Deadline::after(self.config.timeout);
        let mut tries = 0;
        loop {
            tries += 1;
            let session = self.session(deadline).map_err(|kind| kind.at(op, path))?;
            let result = call(&Call { inner: self, session: &session, deadline, again: tries > 1 });
            match result {
                // That end was planned, and is nobody's failure: a long upload that it caught has not used up its time.
                Err(kind) if kind.is_loss() && session.retired.swap(false, Ordering::Relaxed) => {
                    deadline = Deadline::after(self.config.timeout);
                }
                Err(kind) if kind.is_loss() && tries < MAX_TRIES && !deadline.is_over() => {
                    self.lost(session.epoch, &kind.to_string());
                }
                Err(kind) => return Err(kind.at(op, path)),
                Ok(value) => return Ok(value),
            }
        }
    }
}

impl Inner {
    /// Runs a call that destroys something on the server, once: after a loss nobody knows whether it was executed, and what
    /// it was checked against may be another by now. The caller checks again, and decides.
    pub(super) fn once<T>(
        self: &Arc<Self>,
        op: &'static str,
        path: &RemotePath,
        call: impl FnOnce(&Call) -> Result<T, ErrorKind>,
    ) -> RemoteResult<T> {
        let deadline = Deadline::after(self.config.timeout);
        let session = self.session(deadline).map_err(|kind| kind.at(op, path))?;
        let result = call(&Call { inner: self, session: &session, deadline, again: false });
        result.map_err(|kind| {
            if kind.is_loss() && !session.retired.load(Ordering::Relaxed) {
                self.lost(session.epoch, &kind.to_string());
            }
            kind.at(op, path)
        })
    }
}

impl Session {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends it because of its age, with what it still has under way.
    pub(super) fn retire(&self, why: &str) {
        self.retired.store(true, Ordering::Relaxed);
        self.readers.clear();
        self.engine.close(why);
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
