//! The queue of events, and the thread that gathers and shows them. Who has an event never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::bus;
use super::event::{CommitInfo, Event, KINDS, Kind};
use super::gather::Gathered;
use super::text::{self, About};

/// Events that wait for the thread at most.
const MAX_QUEUED: usize = 256;
/// Between two looks at what time brings.
const TICK: Duration = Duration::from_secs(15);
const ALL_KINDS: [Kind; KINDS] =
    [Kind::Switched, Kind::Committed, Kind::Conflict, Kind::Stranded, Kind::LinkAway, Kind::Uncommitted, Kind::Login];

/// What the thread asks for.
pub trait Tells: Send {
    /// What has become due. Called every 15 s.
    fn due(&mut self, now: Instant) -> Vec<Event>;

    /// Author and message of a commit, if they are known.
    fn commit(&self, hash: &str) -> Option<CommitInfo>;

    /// Whether the user made this commit, from another program.
    fn is_own(&self, commit: &CommitInfo) -> bool;
}

/// Takes events of a mount. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Notices {
    queue: SyncSender<Event>,
    /// Events of each kind for which the queue had no room.
    left_out: Arc<[AtomicU64; KINDS]>,
}

impl Notices {
    /// Starts the thread. `address`: the session bus, as D-Bus writes it.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(address: String, about: About, tells: impl Tells + 'static) -> std::io::Result<Self> {
        let (queue, events) = sync_channel(MAX_QUEUED);
        let left_out = Arc::<[AtomicU64; KINDS]>::default();
        let showing = Showing { address, about, tells, gathered: Gathered::default(), is_silent: false };
        let uncounted = left_out.clone();
        thread::Builder::new().name("notices".into()).spawn(move || run(showing, &events, &uncounted))?;
        Ok(Self { queue, left_out })
    }

    /// Tells an event, without waiting.
    pub fn tell(&self, event: Event) {
        let kind = event.kind();
        if self.queue.try_send(event).is_err() {
            self.left_out[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Showing<T> {
    address: String,
    about: About,
    tells: T,
    gathered: Gathered,
    /// The last attempt failed.
    is_silent: bool,
}

fn run<T: Tells>(mut showing: Showing<T>, events: &Receiver<Event>, left_out: &[AtomicU64; KINDS]) {
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        let until_look = (looked + TICK).saturating_duration_since(now);
        let wait = showing.gathered.wait(now).map_or(until_look, |wait| wait.min(until_look));
        match events.recv_timeout(wait) {
            Ok(event) => showing.gathered.add(event, Instant::now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now.duration_since(looked) >= TICK {
            looked = now;
            showing.tells.due(now).into_iter().for_each(|event| showing.gathered.add(event, now));
        }
        for kind in ALL_KINDS {
            if showing.gathered.has(kind) {
                showing.gathered.add_uncounted(kind, left_out[kind as usize].swap(0, Ordering::Relaxed));
            }
        }
        showing.show(now);
    }
}

impl<T: Tells> Showing<T> {
    fn show(&mut self, now: Instant) {
        let groups = self.gathered.take(now);
        let is_others = |event: &Event| match event {
            Event::Committed(hash) => !self.tells.commit(hash).is_some_and(|commit| self.tells.is_own(&commit)),
            _ => true,
        };
        let told = groups.iter().filter(|group| is_others(&group.newest));
        let notices: Vec<_> =
            told.map(|group| text::notice(group, &self.about, |hash| self.tells.commit(hash))).collect();
        if notices.is_empty() {
            return;
        }
        let shown = bus::show(&self.address, &notices);
        if let Err(error) = &shown
            && !self.is_silent
        {
            log::info!("desktop notices are not shown: {error}");
        }
        self.is_silent = shown.is_err();
    }
}
