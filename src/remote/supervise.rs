//! The one thread per mount that makes sessions: at first, after a loss, and before the platform's limits end them. It
//! keeps an idle session alive, wakes a server that sleeps, and tries again at once after a suspend or a change of network.

use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use super::client::{Client, FIRST_EPOCH};
use super::error::ErrorKind;
use super::session::Session;
use crate::clock::Deadline;
use crate::transport::TransportError;

/// Idle time after which a keep-alive is sent: the platform drops a connection after 10 minutes without traffic.
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
/// How often age and idle time are checked.
const TICK: Duration = Duration::from_secs(15);
/// How often a session that is to be ended is checked for calls under way.
const QUIET_TICK: Duration = Duration::from_millis(20);
/// Calls under way get this long to end before their session does.
const DRAIN: Duration = Duration::from_secs(2);
/// How often suspend and changes of network are checked for.
const DETECT: Duration = Duration::from_secs(2);
/// How long a session that may be dead gets for one answer.
const PROBE: Duration = Duration::from_secs(3);
/// How long waking may take, and the pause before the next try: a site must not be visited on and on because a port is
/// blocked.
const WAKE_LIMIT: Duration = Duration::from_secs(60);
const WAKE_PAUSE: Duration = Duration::from_secs(60);

/// Whether the server takes a second connection while there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Unknown,
    Accepted,
    Refused,
}

/// Why no session was made.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Dial(TransportError),
    #[error(transparent)]
    Open(ErrorKind),
}

struct Supervisor {
    epoch: u64,
    failures: usize,
    connected_at: Instant,
    just_connected: bool,
    /// Requests that the session had sent at the last check, and when that number changed.
    last_requests: (u64, Instant),
    second: Second,
    /// When a second connection is tried again, after a failure that says nothing about the server.
    next_second: Instant,
    /// When the server was woken last; `None`: it may be woken now.
    woken_at: Option<Instant>,
    /// When suspend and changes of network were last checked for.
    detected_at: Instant,
}

/// Starts the thread. It ends when the client is closed or dropped.
pub(super) fn spawn(client: &Arc<Client>, events: mpsc::Receiver<()>) -> Result<(), ErrorKind> {
    let weak = Arc::downgrade(client);
    std::thread::Builder::new().name("session".into()).spawn(move || run(&weak, &events))?;
    Ok(())
}

fn run(weak: &Weak<Client>, events: &mpsc::Receiver<()>) {
    let now = Instant::now();
    let mut me = Supervisor {
        epoch: FIRST_EPOCH,
        failures: 0,
        connected_at: now,
        just_connected: true,
        last_requests: (0, now),
        second: Second::Unknown,
        next_second: now,
        woken_at: None,
        detected_at: now,
    };
    loop {
        let Some(client) = weak.upgrade() else { return };
        let Some(status) = client.current().take_status() else { return };
        let wait = match status.session {
            Some(session) => me.maintain(&client, session),
            None => me.make(&client, status.served),
        };
        drop(client);
        if !me.rest(weak, events, wait) {
            return;
        }
    }
}

impl Supervisor {
    fn back_off(&mut self) -> Duration {
        self.failures += 1;
        BACKOFF[(self.failures - 1).min(BACKOFF.len() - 1)]
    }

    fn connect(&mut self, client: &Arc<Client>) -> Result<(), ConnectError> {
        self.epoch += 1;
        let transport = (client.config().dial)(client.deadline()).map_err(ConnectError::Dial)?;
        client.connect_over(transport, self.epoch).map_err(ConnectError::Open)?;
        (self.connected_at, self.just_connected) = (Instant::now(), true);
        self.last_requests = (0, Instant::now());
        // Waking helped: if the server falls asleep again, it is woken again without a pause.
        self.woken_at = None;
        Ok(())
    }

    /// There is no session: makes one. Returns how long to wait.
    fn make(&mut self, client: &Arc<Client>, served: bool) -> Duration {
        // The session ended at once and served no call: the next try waits for longer.
        if std::mem::take(&mut self.just_connected) && self.connected_at.elapsed() < BACKOFF[1] && !served {
            return self.back_off();
        }
        if served {
            self.failures = 0;
        }
        let Err(error) = self.connect(client) else { return TICK.min(client.config().session_age.renew_after) };
        let mut why = error.to_string();
        log::info!("no connection: {why}");
        match self.wake(client) {
            Some(Ok(())) => self.failures = 0,
            Some(Err(error)) => why = format!("{why}; {error}"),
            None => {}
        }
        client.current().set_reason(why);
        client.current().expire_waiting();
        self.back_off()
    }

    /// Wakes the server if a call waits for it. `None`: that was not tried.
    fn wake(&mut self, client: &Arc<Client>) -> Option<Result<(), String>> {
        let wake = client.config().wake.clone()?;
        if !client.current().is_wanted() || self.woken_at.is_some_and(|at| at.elapsed() < WAKE_PAUSE) {
            return None;
        }
        client.current().set_waking(true);
        let (sender, answer) = mpsc::channel();
        let deadline = Deadline::after(WAKE_LIMIT);
        // On a thread of its own: calls that have waited long enough must fail meanwhile.
        let thread = std::thread::Builder::new().name("wake".into());
        let started = thread.spawn(move || drop(sender.send(wake(deadline))));
        self.woken_at = Some(Instant::now());
        let result = loop {
            match answer.recv_timeout(BACKOFF[0]) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Timeout) if self.disturbance(client, None).is_some() => {
                    // The server may be reachable now, asleep or not.
                    (self.failures, self.woken_at) = (0, None);
                    break Err("the network changed meanwhile".into());
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !client.current().is_closed() => {
                    client.current().expire_waiting()
                }
                Err(_) => break Err("the server could not be woken".into()),
            }
        };
        client.current().set_waking(false);
        started.ok().map(|_| result)
    }

    /// Keeps the session alive, and replaces it before the platform ends it.
    fn maintain(&mut self, client: &Arc<Client>, session: Arc<Session>) -> Duration {
        let (age, limits) = (session.age(), client.config().session_age);
        if age >= limits.renew_after || self.should_reconnect(&session) {
            return self.renew(client, session, age >= limits.max);
        }
        let requests = session.requests();
        if requests != self.last_requests.0 {
            self.last_requests = (requests, Instant::now());
        } else if self.last_requests.1.elapsed() > KEEPALIVE {
            session.keep_alive();
        }
        TICK.min(limits.renew_after - age)
    }

    /// Whether a new connection may be faster, and the server takes it beside the present one, so that no call waits.
    fn should_reconnect(&self, session: &Session) -> bool {
        self.second != Second::Refused && Instant::now() >= self.next_second && session.should_reconnect()
    }

    /// Replaces a session: by one beside it where the server takes a second connection, else by one after its end.
    fn renew(&mut self, client: &Arc<Client>, session: Arc<Session>, urgent: bool) -> Duration {
        if self.second == Second::Refused {
            // This one and the one in use: no call has it.
            if !urgent && Arc::strong_count(&session) > 2 {
                return QUIET_TICK;
            }
            return self.break_then_make(client, session);
        }
        if Instant::now() < self.next_second {
            return TICK.min(self.next_second - Instant::now());
        }
        let age = session.age();
        match self.connect(client) {
            Ok(()) => {
                self.second = Second::Accepted;
                log::info!("connection {} replaced by {} after {} s", session.epoch(), self.epoch, age.as_secs());
                return TICK.min(client.config().session_age.renew_after);
            }
            // A failure of the network or the resolver says nothing about a second connection.
            Err(ConnectError::Dial(TransportError::NoSuchHost { .. } | TransportError::Timeout { .. })) => {
                self.next_second = Instant::now() + TICK;
            }
            Err(error) if session.is_alive(PROBE) => {
                log::info!("the server takes no second connection ({error}): the next one comes after the last");
                self.second = Second::Refused;
            }
            Err(error) => client.current().lost(session.epoch(), &error.to_string()),
        }
        Duration::ZERO
    }

    /// New calls wait, those under way get [`DRAIN`], then the session ends; the next turn makes another.
    fn break_then_make(&mut self, client: &Arc<Client>, session: Arc<Session>) -> Duration {
        let why = "replaced before the platform's 60-minute limit";
        client.current().hold(session.epoch(), why);
        let until = Instant::now() + DRAIN.min(client.timeout() / 4);
        while Arc::strong_count(&session) > 1 && Instant::now() < until {
            std::thread::sleep(QUIET_TICK / 4);
        }
        log::info!("connection {} ended: {why}", session.epoch());
        session.retire();
        session.end(why);
        Duration::ZERO
    }

    /// Waits, at most until there is something to do. `false`: the client is gone.
    fn rest(&mut self, weak: &Weak<Client>, events: &mpsc::Receiver<()>, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            // A loss ends the wait. A back-off is kept otherwise, because the server may be overloaded.
            match events.recv_timeout(until.saturating_duration_since(Instant::now()).min(DETECT)) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) => {
                    while events.try_recv().is_ok() {}
                    return true;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
            let Some(client) = weak.upgrade() else { return false };
            let session = client.current().get();
            if self.check_disturbance(&client) || session.is_some_and(|session| self.should_reconnect(&session)) {
                return true;
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }

    /// A suspend or change of network since the last check, if a check is due.
    fn disturbance(&mut self, client: &Client, session: Option<&Session>) -> Option<String> {
        if self.detected_at.elapsed() < DETECT {
            return None;
        }
        self.detected_at = Instant::now();
        client.config().wake_detect.disturbance(session.and_then(|session| session.peer().parse().ok()))
    }

    /// After a suspend or change of network the session is probed, and pauses end.
    fn check_disturbance(&mut self, client: &Arc<Client>) -> bool {
        let session = client.current().get();
        let Some(what) = self.disturbance(client, session.as_deref()) else { return false };
        (self.failures, self.woken_at) = (0, None);
        if let Some(session) = session
            && !session.is_alive(PROBE)
        {
            client.current().lost(session.epoch(), &format!("{what}, and the server does not answer"));
        }
        log::info!("{what}: checked the connection");
        true
    }
}
