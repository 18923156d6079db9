//! The one thread per mount that makes connections: at first, after a loss, and before the platform's limits end them. It
//! keeps a silent one alive, wakes a server that sleeps, and looks again at once when the machine has slept or moved.

use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use super::ErrorKind;
use super::session::{Inner, Session};
use crate::clock::Deadline;
use crate::sftp::{Class, Request};
use crate::transport::TransportError;

/// Wakes the server before the deadline, or says why not.
pub type Rouse = Arc<dyn Fn(Deadline) -> Result<(), String> + Send + Sync>;

/// How old a connection gets. The platform ends each after 60 minutes, whatever is under way.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// From this age on a connection is replaced when it suits.
    pub renew: Duration,
    /// At this age it is replaced whether it suits or not.
    pub last: Duration,
}

impl Default for Life {
    fn default() -> Self {
        Self { renew: Duration::from_secs(50 * 60), last: Duration::from_secs(57 * 60) }
    }
}

/// Silence after which something is sent: the platform drops a connection after 10 minutes without traffic.
const KEEPALIVE: Duration = Duration::from_secs(240);
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
/// How often age and silence are looked at.
const TICK: Duration = Duration::from_secs(15);
/// How often a busy connection that is to be ended is looked at: does it do nothing for a moment?
const QUIET_TICK: Duration = Duration::from_millis(20);
/// What is under way gets this long to end by itself before its connection does.
const DRAIN: Duration = Duration::from_secs(2);
/// How often the machine is looked at.
const SENSE: Duration = Duration::from_secs(2);
/// How long a connection that may be dead gets for one answer.
const PROBE: Duration = Duration::from_secs(3);
/// How long waking may take, and how soon it is not tried again: a site must not be visited on and on because a port is
/// blocked.
const ROUSE_LIMIT: Duration = Duration::from_secs(60);
const ROUSE_PAUSE: Duration = Duration::from_secs(60);

/// What is known of a server that has one connection and is asked for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Unknown,
    Accepted,
    Refused,
}

/// Why there is no connection.
enum NoLink {
    Dial(TransportError),
    Begin(ErrorKind),
}

impl std::fmt::Display for NoLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Begin(kind) => kind.fmt(f),
        }
    }
}

struct Supervisor {
    epoch: u64,
    failures: usize,
    began: Instant,
    just_made: bool,
    /// Requests that the connection had sent when it was last looked at, and when that number changed.
    last_requests: (u64, Instant),
    second: Second,
    /// When a second connection is tried again after trouble that says nothing about the server.
    next_try: Instant,
    roused: Option<Instant>,
    sensed: Instant,
}

/// Until nobody needs connections any more.
pub(super) fn run(weak: &Weak<Inner>, heard: &mpsc::Receiver<()>) {
    let now = Instant::now();
    let mut me = Supervisor {
        epoch: 1,
        failures: 0,
        began: now,
        just_made: true,
        last_requests: (0, now),
        second: Second::Unknown,
        next_try: now,
        roused: None,
        sensed: now,
    };
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let (session, served) = {
            let mut state = inner.lock();
            if state.closed {
                return;
            }
            (state.session.clone(), std::mem::take(&mut state.served))
        };
        let wait = match session {
            Some(session) => me.tend(&inner, session),
            None => me.make(&inner, served),
        };
        drop(inner);
        if !me.rest(weak, heard, wait) {
            return;
        }
    }
}

impl Supervisor {
    fn back_off(&mut self) -> Duration {
        self.failures += 1;
        BACKOFF[(self.failures - 1).min(BACKOFF.len() - 1)]
    }

    fn connect(&mut self, inner: &Arc<Inner>) -> Result<(), NoLink> {
        self.epoch += 1;
        let transport = (inner.config.dial)(Deadline::after(inner.config.timeout)).map_err(NoLink::Dial)?;
        inner.begin(transport, self.epoch).map_err(NoLink::Begin)?;
        (self.began, self.just_made) = (Instant::now(), true);
        self.last_requests = (0, Instant::now());
        // Waking helped: should it fall asleep again, it is worth another visit.
        self.roused = None;
        Ok(())
    }

    /// There is no connection: makes one. Says how long to wait.
    fn make(&mut self, inner: &Arc<Inner>, served: bool) -> Duration {
        // It came and went at once, and served nobody: such a server is not asked again in a hurry.
        if std::mem::take(&mut self.just_made) && self.began.elapsed() < BACKOFF[1] && !served {
            return self.back_off();
        }
        if served {
            self.failures = 0;
        }
        let Err(error) = self.connect(inner) else { return TICK.min(inner.config.life.renew) };
        let mut why = error.to_string();
        log::info!("no connection: {why}");
        match self.rouse(inner) {
            Some(Ok(())) => self.failures = 0,
            Some(Err(error)) => why = format!("{why}; {error}"),
            None => {}
        }
        inner.lock().why = why;
        inner.expire_parked();
        self.back_off()
    }

    /// Wakes the server if somebody wants something of it. `None`: that was not tried.
    fn rouse(&mut self, inner: &Arc<Inner>) -> Option<Result<(), String>> {
        let rouse = inner.config.rouse.clone()?;
        if !inner.lock().wanted || self.roused.is_some_and(|at| at.elapsed() < ROUSE_PAUSE) {
            return None;
        }
        inner.set_waking(true);
        let (sender, answer) = mpsc::channel();
        let deadline = Deadline::after(ROUSE_LIMIT);
        // Beside us: those who have waited long enough are to be told meanwhile.
        let thread = std::thread::Builder::new().name("rouse".into());
        let started = thread.spawn(move || drop(sender.send(rouse(deadline))));
        self.roused = Some(Instant::now());
        let result = loop {
            match answer.recv_timeout(BACKOFF[0]) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Timeout) if self.upset(inner, None).is_some() => {
                    // Whatever it was knocking at: there may be a way now.
                    (self.failures, self.roused) = (0, None);
                    break Err("the network changed meanwhile".into());
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !inner.lock().closed => inner.expire_parked(),
                Err(_) => break Err("the server could not be woken".into()),
            }
        };
        inner.set_waking(false);
        started.ok().map(|_| result)
    }

    /// Keeps the connection alive, and replaces it before the platform ends it.
    fn tend(&mut self, inner: &Arc<Inner>, session: Arc<Session>) -> Duration {
        let (age, life) = (session.since.elapsed(), inner.config.life);
        if age >= life.renew || self.outdone(&session) {
            return self.renew(inner, session, age >= life.last);
        }
        let requests = session.engine.counters().requests;
        if requests != self.last_requests.0 {
            self.last_requests = (requests, Instant::now());
        } else if self.last_requests.1.elapsed() > KEEPALIVE {
            session.engine.submit(Request::RealPath { path: b".".to_vec() }, Class::Background, |_| {});
        }
        TICK.min(life.renew - age)
    }

    /// Whether a new connection may be faster. Only where it costs nobody a pause.
    fn outdone(&self, session: &Session) -> bool {
        self.second != Second::Refused && Instant::now() >= self.next_try && session.engine.is_outdone()
    }

    /// Replaces an old connection: beside it where the server takes a second one for a moment, else after its end.
    fn renew(&mut self, inner: &Arc<Inner>, session: Arc<Session>, urgent: bool) -> Duration {
        if self.second == Second::Refused {
            // Our own and the one in the state: nobody else uses it.
            if !urgent && Arc::strong_count(&session) > 2 {
                return QUIET_TICK;
            }
            return self.break_then_make(inner, session);
        }
        if Instant::now() < self.next_try {
            return TICK.min(self.next_try - Instant::now());
        }
        let age = session.since.elapsed();
        match self.connect(inner) {
            Ok(()) => {
                self.second = Second::Accepted;
                log::info!("connection {} replaced by {} after {} s", session.epoch(), self.epoch, age.as_secs());
                return TICK.min(inner.config.life.renew);
            }
            // The network's trouble, or a resolver's: it says nothing about a second connection.
            Err(NoLink::Dial(TransportError::NoSuchHost { .. } | TransportError::Timeout { .. })) => {
                self.next_try = Instant::now() + TICK;
            }
            Err(error) if answers(&session) => {
                log::info!("the server takes no second connection ({error}): the next one comes after the last");
                self.second = Second::Refused;
            }
            Err(error) => inner.lost(session.epoch(), &error.to_string()),
        }
        Duration::ZERO
    }

    /// Calls wait, those under way get a moment, then the connection ends; the next turn makes another.
    fn break_then_make(&mut self, inner: &Arc<Inner>, session: Arc<Session>) -> Duration {
        let why = "replaced before the platform's 60-minute limit";
        inner.hold(session.epoch(), why);
        let until = Instant::now() + DRAIN.min(inner.config.timeout / 4);
        while Arc::strong_count(&session) > 1 && Instant::now() < until {
            std::thread::sleep(QUIET_TICK / 4);
        }
        log::info!("connection {} ended: {why}", session.epoch());
        session.retire(why);
        Duration::ZERO
    }

    /// Waits, until something happens at most. `false`: nobody needs us any more.
    fn rest(&mut self, weak: &Weak<Inner>, heard: &mpsc::Receiver<()>, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            // Woken early by a loss; a back-off is sat out, because the server may be drowning.
            match heard.recv_timeout(until.saturating_duration_since(Instant::now()).min(SENSE)) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) => {
                    while heard.try_recv().is_ok() {}
                    return true;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
            let Some(inner) = weak.upgrade() else { return false };
            let session = inner.lock().session.clone();
            if self.sense(&inner) || session.is_some_and(|session| self.outdone(&session)) {
                return true;
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }

    /// What happened to the machine, if it is time to look.
    fn upset(&mut self, inner: &Inner, session: Option<&Session>) -> Option<String> {
        if self.sensed.elapsed() < SENSE {
            return None;
        }
        self.sensed = Instant::now();
        inner.config.wake_detect.upset(session.and_then(|session| session.engine.info().peer.parse().ok()))
    }

    /// Looks at the machine. After a sleep or a move the connection has to prove itself, and waiting is over.
    fn sense(&mut self, inner: &Arc<Inner>) -> bool {
        let session = inner.lock().session.clone();
        let Some(what) = self.upset(inner, session.as_deref()) else { return false };
        (self.failures, self.roused) = (0, None);
        if let Some(session) = session
            && !answers(&session)
        {
            inner.lost(session.epoch(), &format!("{what}, and the server does not answer"));
        }
        log::info!("{what}: looked at the connection");
        true
    }
}

/// Whether anything comes over this connection within a moment.
fn answers(session: &Session) -> bool {
    let before = session.engine.counters().received_bytes;
    let request = Request::RealPath { path: b".".to_vec() };
    let probe = session.engine.call(request, Class::Interactive, Deadline::after(PROBE));
    probe.is_ok() || session.engine.counters().received_bytes > before
}
