//! The belief together with the gate that follows it: takes over answers of the API, tells the listeners, and remembers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::belief::{Belief, Running, Source};
use super::config::EnvConfig;
use super::memory::Memory;
use super::pace::{Budget, Due, Pace, Usage};
use crate::attr::Area;
use crate::clock::Clock;
use crate::control::{Commit, ConnectionMode, Control, ControlError, EnvKind, Environment, Workflow};
use crate::gate::{Gate, ReadOnlyReason, Verdict};

/// In use: the mount was asked for something within this time.
const IN_USE: Duration = Duration::from_secs(60);
/// Between questions because a program reads the mode or the jobs.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// How long a teammate's workflow may hold writes.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);

type OnChange = Box<dyn Fn(&Belief) + Send + Sync>;

/// What the watcher is told.
pub(super) enum Wake {
    /// Ask the API for the environment now.
    Check,
    /// Ask for the environment and for its jobs now.
    Look,
    Stop,
}

/// A workflow that this mount asked for, and until when it holds writes.
pub(super) struct Job {
    pub(super) why: String,
    pub(super) until: Instant,
    /// What was accepted before is still sent.
    pub(super) drains: bool,
}

/// When the API was asked, and when it may be asked again.
struct Asking {
    /// When the mount was used last.
    touched: Instant,
    pace: Pace,
    budget: Budget,
    /// When a program last read the mode or the jobs.
    looked: Option<Instant>,
    /// Somebody looks: what other mounts know is not enough.
    look: bool,
}

/// See the module header.
pub(super) struct Tracker {
    config: EnvConfig,
    gate: Gate,
    clock: Clock,
    belief: Mutex<Belief>,
    listeners: Mutex<Vec<OnChange>>,
    asking: Mutex<Asking>,
    /// Switches and commits that this mount asked for; the last one decides.
    own_jobs: Mutex<Vec<Arc<Job>>>,
    /// How many switches and commits that this mount asked for are under way, until their outcome is known.
    asked_here: AtomicUsize,
    wake: mpsc::Sender<Wake>,
    /// How many questions to the API have ended, with an answer or without.
    answers: (Mutex<u64>, Condvar),
}

impl Asking {
    fn new(now: Instant) -> Self {
        Self { touched: now, pace: Pace::default(), budget: Budget::new(now), looked: None, look: false }
    }
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
            asking: Mutex::new(Asking::new(Instant::now())),
            own_jobs: Mutex::default(),
            asked_here: AtomicUsize::new(0),
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
        let mut belief = self.belief.lock().clone();
        if let Some(pause) = self.config.api.as_ref().and_then(|(control, _)| control.throttled()) {
            belief.error = Some(format!(
                "the API answered 429, too many calls; it is asked again in {} s",
                pause.as_secs_f64().ceil()
            ));
        }
        belief
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
        let was_idle = std::mem::replace(&mut self.asking.lock().touched, Instant::now()).elapsed() > IN_USE;
        if was_idle {
            self.check();
        }
    }

    fn usage(&self) -> Usage {
        let held = self.belief.lock().running.iter().any(|job| job.holds.is_some());
        Usage { in_use: self.asking.lock().touched.elapsed() < IN_USE, held }
    }

    /// What the watcher has to ask for now.
    pub(super) fn due(&self) -> Due {
        let usage = self.usage();
        self.asking.lock().pace.due(usage, Instant::now())
    }

    /// Until the watcher's next question.
    pub(super) fn wait(&self) -> Duration {
        let usage = self.usage();
        self.asking.lock().pace.wait(usage, Instant::now())
    }

    /// How old what another mount knows may be.
    pub(super) fn max_age(&self) -> Duration {
        Pace::max_age(self.usage())
    }

    pub(super) fn asked(&self, due: Due) {
        self.asking.lock().pace.asked(due, Instant::now());
    }

    /// Notes that a program reads the mode or the jobs.
    pub(super) fn look(&self) {
        let now = Instant::now();
        let asked = {
            let mut asking = self.asking.lock();
            let recent = asking.looked.is_some_and(|at| now.duration_since(at) < LOOK_PAUSE);
            let asked = !recent && asking.budget.take(now);
            if asked {
                (asking.looked, asking.look) = (Some(now), true);
            }
            asked
        };
        if asked {
            let _ = self.wake.send(Wake::Look);
        }
    }

    /// Whether a program has read them since the last call.
    pub(super) fn take_look(&self) -> bool {
        std::mem::take(&mut self.asking.lock().look)
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
        if !self.asking.lock().budget.take(Instant::now()) {
            return;
        }
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
    /// Returns whether they did.
    pub(super) fn learn(&self, environment: Environment) -> bool {
        self.learn_of(environment, self.clock.wall())
    }

    /// Takes over what another process of the user was told when it asked at `asked`, if it asked after this one learned
    /// what it knows. Returns whether mode or commit are others than before; `None`: it asked before.
    pub(super) fn learn_from_others(&self, environment: Environment, asked: SystemTime) -> Option<bool> {
        let is_newer = {
            let belief = self.belief.lock();
            belief.source == Source::Api && asked > belief.learned
        };
        is_newer.then(|| {
            let age = self.clock.wall().duration_since(asked).unwrap_or_default();
            self.asking.lock().pace.told(Instant::now(), age);
            self.learn_of(environment, asked)
        })
    }

    fn learn_of(&self, environment: Environment, at: SystemTime) -> bool {
        let changed = {
            let mut belief = self.belief.lock();
            let changed = belief.learn(environment, at);
            belief.changed_here = self.asked_here.load(Ordering::Relaxed) > 0;
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
        changed
    }

    /// Asks for each job that holds writes. Returns whether one has ended.
    pub(super) fn ask_held(&self, control: &Control, site: &str) -> bool {
        let holding = |job: &&Running| job.holds.is_some();
        let ids: Vec<String> = self.belief.lock().running.iter().filter(holding).map(|job| job.id.clone()).collect();
        let has_ended = |id: &String| match control.workflow(site, id) {
            Ok(job) => job.outcome.is_some(),
            Err(error) => !error.is_passing(),
        };
        let ended: Vec<&String> = ids.iter().filter(|id| has_ended(id)).collect();
        let mut belief = self.belief.lock();
        belief.running.retain(|job| !ended.contains(&&job.id));
        self.set_gate(&belief);
        !ended.is_empty()
    }

    /// Takes over the workflows that run now.
    pub(super) fn learn_running(&self, running: Vec<Workflow>) {
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

    /// Counts a switch or commit that this mount asks for: what changes meanwhile was changed here.
    pub(super) fn asking_here(&self) -> AskedHere<'_> {
        self.asked_here.fetch_add(1, Ordering::Relaxed);
        AskedHere(&self.asked_here)
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
        let job = belief.running.iter().find(|job| job.holds.is_some())?;
        let age = self.clock.wall().duration_since(job.seen).unwrap_or_default();
        let left = OTHERS_LIMIT.checked_sub(age)?;
        Some(Verdict::Held {
            why: format!("on the platform: {}, which {}", job.description, job.holds.unwrap_or_default()),
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

/// A switch or commit that this mount asked for; dropped when its outcome is known.
pub(super) struct AskedHere<'a>(&'a AtomicUsize);

impl Drop for AskedHere<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
