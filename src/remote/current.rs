//! The session in use, and the calls that wait for the next one. What happens when a session ends is in
//! [`CurrentSession::lost`]; the next one is made by `supervise`.

use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::error::ErrorKind;
use super::session::Session;
use crate::clock::Deadline;

/// How the connection stands.
#[derive(Debug, Clone)]
pub enum Link {
    Up { since: Instant, epoch: u64, home: Vec<u8> },
    Down { since: Instant, why: String },
}

type Waiting = Box<dyn FnOnce(Result<Arc<Session>, ErrorKind>) + Send>;

struct State {
    session: Option<Arc<Session>>,
    down_since: Instant,
    /// Why there is no session.
    why: String,
    waiting: Vec<(Deadline, Waiting)>,
    /// The session that ended last had served at least one call.
    served: bool,
    closed: bool,
    /// A call needs a session and there is none.
    wanted: bool,
    /// The server is being woken: waiting for it is not hopeless.
    waking: bool,
    /// There has been no session yet: calls do not wait for the first one.
    offline: bool,
}

/// What the supervisor finds when it looks.
pub(super) struct Status {
    pub(super) session: Option<Arc<Session>>,
    /// The session that ended since the last look had served at least one call.
    pub(super) served: bool,
}

/// See the module header.
pub(super) struct CurrentSession {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the supervisor.
    events: mpsc::Sender<()>,
    timeout: Duration,
    /// The server may be asleep, and there is a way to wake it.
    can_wake: bool,
}

impl CurrentSession {
    /// Without a session as yet. `offline`: why none is tried at first. The receiver is for the supervisor.
    pub(super) fn new(timeout: Duration, can_wake: bool, offline: Option<String>) -> (Self, mpsc::Receiver<()>) {
        let (events, receiver) = mpsc::channel();
        let state = State {
            session: None,
            down_since: Instant::now(),
            offline: offline.is_some(),
            why: offline.unwrap_or_default(),
            waiting: Vec::new(),
            served: false,
            closed: false,
            wanted: false,
            waking: false,
        };
        (Self { state: Mutex::new(state), changed: Condvar::new(), events, timeout, can_wake }, receiver)
    }

    /// Makes this the session in use. One that was in use before goes on with its calls, and ends when the last of them does.
    pub(super) fn replace(&self, session: &Arc<Session>) {
        let (before, waiting) = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            let before = state.session.replace(session.clone());
            (state.offline, state.wanted) = (false, false);
            self.changed.notify_all();
            (before, std::mem::take(&mut state.waiting))
        };
        // Outside the lock: closing files submits requests.
        if let Some(before) = before {
            before.retire();
        }
        waiting.into_iter().for_each(|(_, resume)| resume(Ok(session.clone())));
    }

    /// The session of this epoch is gone. Its unanswered requests fail, and the supervisor makes another.
    pub(super) fn lost(&self, epoch: u64, why: &str) {
        let gone = {
            let mut state = self.state.lock();
            let Some(gone) = state.session.take_if(|session| session.epoch() == epoch) else { return };
            log::info!("connection {epoch} ended: {why}");
            state.down_since = Instant::now();
            state.why = why.to_owned();
            state.served = gone.has_served();
            gone
        };
        gone.end(why);
        self.wake_supervisor();
    }

    /// From here on calls wait for the next session; those under way go on.
    pub(super) fn hold(&self, epoch: u64, why: &str) {
        let mut state = self.state.lock();
        let held = state.session.take_if(|session| session.epoch() == epoch);
        if held.is_some() {
            state.down_since = Instant::now();
            state.why = why.to_owned();
            state.served = true;
        }
    }

    /// No calls any more: those that wait fail, and the supervisor ends.
    pub(super) fn close(&self) {
        let (session, waiting) = {
            let mut state = self.state.lock();
            state.closed = true;
            state.why = "unmounted".into();
            self.changed.notify_all();
            (state.session.take(), std::mem::take(&mut state.waiting))
        };
        if let Some(session) = session {
            session.open_files().clear();
        }
        waiting.into_iter().for_each(|(_, resume)| resume(Err(ErrorKind::down("unmounted"))));
        self.wake_supervisor();
    }

    /// The session, without waiting for one.
    pub(super) fn get(&self) -> Option<Arc<Session>> {
        self.state.lock().session.clone()
    }

    pub(super) fn link(&self) -> Link {
        let state = self.state.lock();
        match &state.session {
            Some(session) => Link::Up { since: session.since(), epoch: session.epoch(), home: session.home().to_vec() },
            None => Link::Down { since: state.down_since, why: state.why.clone() },
        }
    }

    /// The session, waiting for the next one until the deadline if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Down`] when none came in time, or waiting is hopeless.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Arc<Session>, ErrorKind> {
        let mut state = self.state.lock();
        loop {
            if let Some(session) = &state.session {
                return Ok(session.clone());
            }
            self.want(&mut state);
            let left = deadline.remaining();
            if left.is_zero() || self.is_hopeless(&state) {
                return Err(ErrorKind::down(&state.why));
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Calls `then` with the session: now, or when there is one again. Fails as [`CurrentSession::wait`] does.
    pub(super) fn with(&self, deadline: Deadline, then: impl FnOnce(Result<Arc<Session>, ErrorKind>) + Send + 'static) {
        let mut state = self.state.lock();
        if let Some(session) = state.session.clone() {
            drop(state);
            return then(Ok(session));
        }
        self.want(&mut state);
        if deadline.is_over() || self.is_hopeless(&state) {
            let kind = ErrorKind::down(&state.why);
            drop(state);
            return then(Err(kind));
        }
        state.waiting.push((deadline, Box::new(then)));
    }

    /// Fails the calls that have waited until their deadline.
    pub(super) fn expire_waiting(&self) {
        let (expired, why): (Vec<_>, String) = {
            let mut state = self.state.lock();
            let hopeless = self.is_hopeless(&state);
            let waiting = std::mem::take(&mut state.waiting);
            let (expired, rest) = waiting.into_iter().partition(|(d, _)| hopeless || d.is_over());
            state.waiting = rest;
            (expired, state.why.clone())
        };
        expired.into_iter().for_each(|(_, resume)| resume(Err(ErrorKind::down(&why))));
    }

    /// For the supervisor; `None`: closed.
    pub(super) fn take_status(&self) -> Option<Status> {
        let mut state = self.state.lock();
        let served = !state.closed && std::mem::take(&mut state.served);
        (!state.closed).then(|| Status { session: state.session.clone(), served })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// A call needs a session and there is none.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.lock().wanted
    }

    /// Why no session could be made.
    pub(super) fn set_reason(&self, why: String) {
        self.state.lock().why = why;
    }

    pub(super) fn set_waking(&self, waking: bool) {
        self.state.lock().waking = waking;
    }

    /// The first call without a session has the supervisor look at once, if the server may be asleep.
    fn want(&self, state: &mut State) {
        if !std::mem::replace(&mut state.wanted, true) && self.can_wake {
            self.wake_supervisor();
        }
    }

    /// A call that finds the link down for as long as a call may take fails at once instead of after another wait.
    fn is_hopeless(&self, state: &State) -> bool {
        state.closed || (!state.waking && (state.offline || state.down_since.elapsed() > self.timeout))
    }

    fn wake_supervisor(&self) {
        // The supervisor is gone only when this mount needs no session any more.
        let _ = self.events.send(());
    }
}
