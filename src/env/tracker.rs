//! The belief together with the gate that follows it: takes over answers of the API, tells the listeners, and remembers.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::belief::{Belief, Source};
use super::config::EnvConfig;
use super::memory::Memory;
use crate::attr::Area;
use crate::clock::Clock;
use crate::control::{Commit, ConnectionMode, ControlError, EnvKind, Environment};
use crate::gate::{Gate, ReadOnlyReason, Verdict};

/// In use: the mount was asked for something within this time.
const IN_USE: Duration = Duration::from_secs(60);
/// How long a teammate's workflow may hold writes.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);

type OnChange = Box<dyn Fn(&Belief) + Send + Sync>;

/// What the watcher is told.
pub(super) enum Wake {
    /// Ask the API now.
    Check,
    Stop,
}

/// A workflow that this mount asked for, and until when it holds writes.
pub(super) struct Job {
    pub(super) why: String,
    pub(super) until: Instant,
    /// What was accepted before is still sent.
    pub(super) drains: bool,
}

/// See the module header.
pub(super) struct Tracker {
    config: EnvConfig,
    gate: Gate,
    clock: Clock,
    belief: Mutex<Belief>,
    listeners: Mutex<Vec<OnChange>>,
    touched: Mutex<Instant>,
    /// Switches and commits that this mount asked for; the last one decides.
    own_jobs: Mutex<Vec<Arc<Job>>>,
    wake: mpsc::Sender<Wake>,
    /// How many questions to the API have ended, with an answer or without.
    answers: (Mutex<u64>, Condvar),
}

impl Tracker {
    /// The belief from the options, what is remembered, and `initial`, the API's answer if there is one already.
    pub(super) fn new(
        config: EnvConfig,
        gate: Gate,
        clock: Clock,
        initial: Option<Environment>,
    ) -> (Arc<Self>, Receiver<Wake>) {
        let belief = first_belief(&config, &clock, initial);
        let (wake, woken) = mpsc::channel();
        let tracker = Self {
            gate,
            belief: Mutex::new(belief),
            listeners: Mutex::default(),
            touched: Mutex::new(Instant::now()),
            own_jobs: Mutex::default(),
            clock,
            wake,
            answers: Default::default(),
            config,
        };
        tracker.set_clock();
        tracker.apply_to_gate();
        tracker.remember();
        (Arc::new(tracker), woken)
    }

    /// Passes the platform's time on, which bounds the server's clock.
    fn set_clock(&self) {
        if let Some((secs, heard)) = self.config.api.as_ref().and_then(|(control, _)| control.server_time()) {
            self.clock.platform_time(secs, heard);
        }
    }

    pub(super) fn config(&self) -> &EnvConfig {
        &self.config
    }

    pub(super) fn belief(&self) -> Belief {
        self.belief.lock().clone()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.belief.lock().is_frozen()
    }

    pub(super) fn read_only_reason(&self) -> Option<ReadOnlyReason> {
        self.belief.lock().read_only_reason()
    }

    pub(super) fn listen(&self, listener: OnChange) {
        self.listeners.lock().push(listener);
    }

    /// Notes that the mount is used; the first use after a pause asks the API.
    pub(super) fn touch(&self) {
        let was_idle = std::mem::replace(&mut *self.touched.lock(), Instant::now()).elapsed() > IN_USE;
        if was_idle {
            self.check();
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.touched.lock().elapsed() < IN_USE
    }

    /// Has the watcher ask the API soon. Without a watcher there is no API.
    pub(super) fn check(&self) {
        let _ = self.wake.send(Wake::Check);
    }

    /// Ends the watcher.
    pub(super) fn stop(&self) {
        let _ = self.wake.send(Wake::Stop);
        self.remember();
    }

    /// Whether the API confirmed the mode within this time, or there is no API.
    pub(super) fn is_certain(&self, within: Duration) -> bool {
        let belief = self.belief.lock();
        let age = self.clock.wall().duration_since(belief.learned).unwrap_or_default();
        self.config.api.is_none() || (age < within && belief.source == Source::Api)
    }

    /// Has the API asked and waits for the end of the question, until `until`.
    pub(super) fn confirm(&self, until: Instant) {
        let (ended, more) = (&self.answers.0, &self.answers.1);
        let mut count = ended.lock();
        let before = *count;
        self.check();
        while *count == before {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            more.wait_for(&mut count, left);
        }
    }

    /// Closes the gate for code until the API has answered.
    pub(super) fn refused(&self) {
        if self.config.api.is_some() {
            self.gate.set(Area::Code, Verdict::Closed(ReadOnlyReason::RefusedByServer));
            self.check();
        }
    }

    /// Takes over an answer of the API, sets the gate, and tells the listeners if mode or commit changed.
    pub(super) fn learn(&self, environment: Environment) {
        let changed = {
            let mut belief = self.belief.lock();
            let changed = belief.learn(environment, self.clock.wall());
            self.set_gate(&belief);
            changed
        };
        self.set_clock();
        if changed {
            self.remember();
            let belief = self.belief();
            log::info!("the environment changed: mode {}, commit {:?}", belief.mode, belief.target_commit);
            self.listeners.lock().iter().for_each(|listener| listener(&belief));
        }
    }

    /// Takes over the workflows that run now, as pairs of id and description.
    pub(super) fn learn_running(&self, running: Vec<(String, String)>) {
        let mut belief = self.belief.lock();
        let before = belief.running.clone();
        belief.learn_running(running, self.clock.wall());
        if before != belief.running {
            self.set_gate(&belief);
        }
    }

    pub(super) fn log_is_old(&self) -> bool {
        let belief = self.belief.lock();
        belief.log.first().map(|commit| &commit.hash) != belief.target_commit.as_ref()
    }

    pub(super) fn learn_log(&self, log: Vec<Commit>) {
        self.belief.lock().log = Arc::new(log);
    }

    /// Notes that a question to the API failed.
    pub(super) fn failed(&self, error: &ControlError) {
        log::debug!("the API did not answer: {error}");
        self.belief.lock().error = Some(error.to_string());
        // A refused write closed the gate until the answer. Without an answer the server decides again.
        self.apply_to_gate();
    }

    /// Notes that a question to the API has ended.
    pub(super) fn answered(&self) {
        *self.answers.0.lock() += 1;
        self.answers.1.notify_all();
    }

    /// Holds writes while a workflow of this mount runs.
    pub(super) fn hold(&self, job: Arc<Job>) {
        self.own_jobs.lock().push(job);
        self.apply_to_gate();
    }

    /// The workflow has ended.
    pub(super) fn let_go(&self, job: &Arc<Job>) {
        self.own_jobs.lock().retain(|other| !Arc::ptr_eq(other, job));
        self.apply_to_gate();
    }

    /// The verdict while a teammate's commit, deploy or switch runs: writes wait for its end, up to a limit.
    fn held_by_others(&self, belief: &Belief) -> Option<Verdict> {
        let job = belief.running.first()?;
        let age = self.clock.wall().duration_since(job.seen).unwrap_or_default();
        let left = OTHERS_LIMIT.checked_sub(age)?;
        Some(Verdict::Held {
            why: format!("on the platform: {}", job.description),
            until: Instant::now() + left,
            drains: false,
        })
    }

    fn apply_to_gate(&self) {
        self.set_gate(&self.belief.lock());
    }

    /// Sets the gate as the belief demands, before the belief can be seen: what the status shows holds already.
    fn set_gate(&self, belief: &Belief) {
        let verdict = match belief.read_only_reason() {
            _ if self.config.read_only => Verdict::Closed(ReadOnlyReason::MountedReadOnly),
            Some(reason) => Verdict::Closed(reason),
            None => match self.own_jobs.lock().last() {
                Some(job) => Verdict::Held { why: job.why.clone(), until: job.until, drains: job.drains },
                None => self.held_by_others(belief).unwrap_or(Verdict::Open),
            },
        };
        self.gate.set(Area::Code, verdict);
        if self.config.read_only {
            self.gate.set(Area::Uploads, Verdict::Closed(ReadOnlyReason::MountedReadOnly));
        }
    }

    fn remember(&self) {
        let Some(file) = &self.config.memory else { return };
        let memory = Memory::of(&self.belief.lock());
        if let Some(Err(error)) = memory.map(|memory| memory.save(file)) {
            log::warn!("{}: {error}", file.display());
        }
    }
}

fn first_belief(config: &EnvConfig, clock: &Clock, initial: Option<Environment>) -> Belief {
    let kind = config.name.as_deref().map(EnvKind::of);
    let mode = config.mode.unwrap_or(ConnectionMode::Sftp);
    let mut belief = Belief::new(config.name.clone(), kind, mode, clock.wall());
    let remembered = config.memory.as_deref().filter(|_| config.mode.is_none()).and_then(Memory::load);
    if let Some((mode, then)) = remembered.as_ref().and_then(Memory::mode) {
        (belief.mode, belief.learned, belief.source) = (mode, then, Source::Remembered);
    }
    if let Some(environment) = initial {
        belief.learn(environment, clock.wall());
    }
    belief
}
