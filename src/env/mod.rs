//! What we believe about the environment, and the one place that opens and closes the gate.
//!
//! A watcher thread asks the API while the mount is in use; a write that the server refuses makes it ask at once. Without
//! an API (any SFTP server, or nobody logged in) the belief is what the mount options say.

mod belief;
mod memory;
mod watcher;

use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

pub use belief::{Belief, Running, Source};

use memory::Memory;

use crate::attr::Area;
use crate::clock::Clock;
use crate::control::{ConnectionMode, Control, ControlError, Diffstat, EnvKind};
use crate::gate::{Gate, ReadOnlyReason, Verdict};

/// Which environment, and where its state is learned.
pub struct EnvConfig {
    /// The environment's name; `None` for a plain SFTP server.
    pub name: Option<String>,
    /// The API and the site's id there.
    pub api: Option<(Control, String)>,
    /// What to go by until the API has spoken, or for ever without it. `None`: what was so last, or SFTP mode.
    pub mode: Option<ConnectionMode>,
    /// Where to remember what the platform said.
    pub memory: Option<PathBuf>,
    /// `-o ro`.
    pub read_only: bool,
    /// Name and email for commits, as git has them; the account's where not given.
    pub author: Option<(String, String)>,
}

/// See the module header. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

type OnChange = Box<dyn Fn(&Belief) + Send + Sync>;

struct Inner {
    config: EnvConfig,
    gate: Gate,
    clock: Clock,
    belief: Mutex<Belief>,
    listeners: Mutex<Vec<OnChange>>,
    touched: Mutex<Instant>,
    /// A switch or commit asked for through this mount, and until when it holds writes.
    own_job: Mutex<Option<(String, Instant)>>,
    wake: mpsc::Sender<Wake>,
    /// How often the API has answered or failed to.
    answers: (Mutex<u64>, Condvar),
}

enum Wake {
    /// Ask now.
    Check,
    Stop,
}

/// How often the API is asked while the mount is in use: a teammate's switch is followed within this.
const POLL_IN_USE: Duration = Duration::from_secs(3);
/// And while it is not.
const POLL_IDLE: Duration = Duration::from_secs(30);
/// In use: something was asked of the mount this short a time ago.
const IN_USE: Duration = Duration::from_secs(60);
/// How long somebody else's job may hold writes.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);
/// How long a switch may hold writes.
const SWITCH_LIMIT: Duration = Duration::from_secs(310);

/// Why a switch of the mode did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SwitchError {
    #[error("there is no API for this mount: the mode can only be changed in the dashboard")]
    NoApi,
    #[error("the mode of '{0}' cannot be switched: its code is always read-only")]
    NotSwitchable(String),
    #[error("{} uncommitted change(s) on the server would be deleted for good ({}); commit them first, or write 'git --discard'", .0.len(), names(.0))]
    WouldDiscard(Diffstat),
    #[error(transparent)]
    Api(#[from] ControlError),
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    #[error("there is no API for this mount: commit in the dashboard, or with git")]
    NoApi,
    #[error("the message is empty")]
    EmptyMessage,
    #[error("there is nothing to commit (as the platform sees it)")]
    Nothing,
    #[error("{0}")]
    ReadOnly(ReadOnlyReason),
    #[error("the platform says that it has committed, but the environment still runs {0}; look at the dashboard")]
    NotThere(String),
    #[error(transparent)]
    Api(#[from] ControlError),
}

/// What a commit made.
#[derive(Debug, Clone)]
pub struct Committed {
    pub hash: String,
    pub message: String,
    pub files: Diffstat,
    /// Whether the repository has it; `None` where there is no repository to ask.
    pub in_repository: Option<bool>,
}

fn names(diffstat: &Diffstat) -> String {
    let first: Vec<&str> = diffstat.0.iter().take(5).map(|file| file.path.as_str()).collect();
    let more = if diffstat.len() > first.len() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

impl Env {
    /// Begins with what is known: the API is asked by the caller first where it matters (`initial`).
    pub fn start(config: EnvConfig, gate: Gate, clock: Clock, initial: Option<crate::control::Environment>) -> Self {
        let kind = config.name.as_deref().map(EnvKind::of);
        let remembered = config.memory.as_deref().and_then(Memory::load);
        let mode = config.mode.unwrap_or(ConnectionMode::Sftp);
        let mut belief = Belief::new(config.name.clone(), kind, mode, clock.wall());
        if let Some((mode, then)) = remembered.as_ref().and_then(Memory::mode).filter(|_| config.mode.is_none()) {
            (belief.mode, belief.learned, belief.source) = (mode, then, Source::Remembered);
        }
        if let Some(environment) = initial {
            belief.learn(environment, clock.wall());
        }
        let (wake, woken) = mpsc::channel();
        let inner = Arc::new(Inner {
            gate,
            belief: Mutex::new(belief),
            listeners: Mutex::default(),
            touched: Mutex::new(Instant::now()),
            own_job: Mutex::default(),
            clock,
            wake,
            answers: Default::default(),
            config,
        });
        inner.set_clock();
        inner.apply_to_gate();
        inner.remember();
        if inner.config.api.is_some() {
            watcher::start(&inner, woken);
        }
        Self(inner)
    }

    pub fn belief(&self) -> Belief {
        self.0.belief.lock().clone()
    }

    /// Nobody can change the code here, short of a push or a deploy. Asked for every name that is shown.
    pub fn is_frozen(&self) -> bool {
        self.0.belief.lock().is_frozen()
    }

    /// The mount is being used.
    pub fn touch(&self) {
        let was_idle = {
            let mut touched = self.0.touched.lock();
            let was_idle = touched.elapsed() > IN_USE;
            *touched = Instant::now();
            was_idle
        };
        if was_idle {
            self.check();
        }
    }

    /// Asks the API soon.
    pub fn check(&self) {
        // Without a watcher there is nothing to ask.
        let _ = self.0.wake.send(Wake::Check);
    }

    /// Asks the API now and waits for the answer; without one the belief stays.
    pub fn refresh(&self) {
        watcher::ask(&self.0);
    }

    /// Whether the mode needs no further question: it was answered this short a time ago, or there is nobody to ask.
    pub fn is_certain(&self, within: Duration) -> bool {
        let age = self.0.clock.wall().duration_since(self.0.belief.lock().learned).unwrap_or_default();
        self.0.config.api.is_none() || (age < within && self.0.belief.lock().source == Source::Api)
    }

    /// Has the API asked, and waits for its answer until `until`. Without one the belief stays.
    pub fn confirm(&self, until: Instant) {
        let answers = &self.0.answers;
        let mut count = answers.0.lock();
        let before = *count;
        self.check();
        while *count == before {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            answers.1.wait_for(&mut count, left);
        }
    }

    /// The server refused a write in code: whatever we believed, it is asked again, and until the answer is there no
    /// further write is tried.
    pub fn refused(&self) {
        if self.0.config.api.is_some() {
            self.0.gate.set(Area::Code, Verdict::Closed(ReadOnlyReason::RefusedByServer));
            self.check();
        }
    }

    /// Called after the mode or the deployed commit changed.
    pub fn on_change(&self, listener: impl Fn(&Belief) + Send + Sync + 'static) {
        self.0.listeners.lock().push(Box::new(listener));
    }

    /// Ends the watcher.
    pub fn stop(&self) {
        let _ = self.0.wake.send(Wake::Stop);
        self.0.remember();
    }

    /// Switches the mode and waits for the outcome. To Git mode only when nothing would be lost, or `discard` says that
    /// it may. `Ok(false)`: it was in that mode already.
    pub fn switch(&self, mode: ConnectionMode, discard: bool) -> Result<bool, SwitchError> {
        let inner = &self.0;
        let (Some((control, site)), Some(name)) = (&inner.config.api, &inner.config.name) else {
            return Err(SwitchError::NoApi);
        };
        if !EnvKind::of(name).takes_code() {
            return Err(SwitchError::NotSwitchable(name.clone()));
        }
        let now = control.environment(site, name)?;
        if now.mode == mode {
            inner.learn(now);
            return Ok(false);
        }
        if mode == ConnectionMode::Git && !discard {
            let pending = control.diffstat(site, name)?;
            if !pending.is_empty() {
                return Err(SwitchError::WouldDiscard(pending));
            }
        }
        let until = Instant::now() + SWITCH_LIMIT;
        inner.hold(Some((format!("the mode is being switched to {mode}"), until)));
        let done = control.set_mode(site, name, mode).and_then(|()| control.environment(site, name));
        inner.hold(None);
        match done {
            Ok(environment) => inner.learn(environment),
            Err(error) => {
                self.check();
                return Err(error.into());
            }
        }
        Ok(true)
    }

    /// Commits everything that is uncommitted on the server; writes wait meanwhile. The caller has sent what was dirty.
    pub fn commit(&self, message: &str) -> Result<Committed, CommitError> {
        let inner = &self.0;
        let message = message.trim();
        if message.is_empty() {
            return Err(CommitError::EmptyMessage);
        }
        let (Some((control, site)), Some(name)) = (&inner.config.api, &inner.config.name) else {
            return Err(CommitError::NoApi);
        };
        let before = control.environment(site, name)?;
        inner.learn(before.clone());
        if let Some(reason) = inner.belief.lock().read_only_reason() {
            return Err(CommitError::ReadOnly(reason));
        }
        // The close look: the embedded list may be stale.
        let files = control.diffstat(site, name)?;
        if files.is_empty() {
            return Err(CommitError::Nothing);
        }
        let (author, email) = match &inner.config.author {
            Some(author) => author.clone(),
            None => {
                let profile = control.profile()?;
                (profile.full_name, profile.email)
            }
        };
        let until = Instant::now() + SWITCH_LIMIT;
        inner.hold(Some(("a commit runs".into(), until)));
        let done = control.commit(site, name, message, &author, &email).and_then(|()| control.environment(site, name));
        inner.hold(None);
        let after = match done {
            Ok(after) => after,
            Err(error) => {
                self.check();
                return Err(error.into());
            }
        };
        let (old, new) = (before.target_commit.unwrap_or_default(), after.target_commit.clone().unwrap_or_default());
        inner.learn(after);
        self.check();
        if new == old {
            return Err(CommitError::NotThere(old));
        }
        Ok(Committed { hash: new, message: message.to_owned(), files, in_repository: None })
    }
}

impl Inner {
    /// What the platform's clock says bounds the server's.
    fn set_clock(&self) {
        if let Some((secs, heard)) = self.config.api.as_ref().and_then(|(control, _)| control.dated()) {
            self.clock.platform_said(secs, heard);
        }
    }

    /// Takes over an answer of the API, turns the gate, tells whoever wants to know.
    fn learn(&self, environment: crate::control::Environment) {
        let changed = self.belief.lock().learn(environment, self.clock.wall());
        self.set_clock();
        self.apply_to_gate();
        if changed {
            self.remember();
            let belief = self.belief.lock().clone();
            log::info!("the environment changed: mode {}, commit {:?}", belief.mode, belief.target_commit);
            self.listeners.lock().iter().for_each(|listener| listener(&belief));
        }
    }

    fn remember(&self) {
        let Some(file) = &self.config.memory else { return };
        let memory = Memory::of(&self.belief.lock());
        if let Some(Err(error)) = memory.map(|memory| memory.save(file)) {
            log::warn!("{}: {error}", file.display());
        }
    }

    fn learn_running(&self, running: Vec<(String, String)>) {
        let changed = {
            let mut belief = self.belief.lock();
            let before = belief.running.clone();
            belief.learn_running(running, self.clock.wall());
            before != belief.running
        };
        if changed {
            self.apply_to_gate();
        }
    }

    fn log_is_old(&self) -> bool {
        let belief = self.belief.lock();
        belief.log.first().map(|commit| &commit.hash) != belief.target_commit.as_ref()
    }

    fn learn_log(&self, log: Vec<crate::control::Commit>) {
        self.belief.lock().log = Arc::new(log);
    }

    /// A job of our own runs, or has ended.
    fn hold(&self, job: Option<(String, Instant)>) {
        *self.own_job.lock() = job;
        self.apply_to_gate();
    }

    /// A teammate's commit, deploy or switch: writes wait for its end, but not for ever.
    fn held_by_others(&self) -> Option<Verdict> {
        let belief = self.belief.lock();
        let job = belief.running.first()?;
        let age = self.clock.wall().duration_since(job.seen).unwrap_or_default();
        let left = OTHERS_LIMIT.checked_sub(age)?;
        Some(Verdict::Held { why: format!("on the platform: {}", job.description), until: Instant::now() + left })
    }

    fn answered(&self) {
        *self.answers.0.lock() += 1;
        self.answers.1.notify_all();
    }

    fn failed(&self, error: &ControlError) {
        log::debug!("the API was asked in vain: {error}");
        self.belief.lock().error = Some(error.to_string());
        // A refused write closed the gate until the answer; there is none, so the server decides again.
        self.apply_to_gate();
    }

    fn apply_to_gate(&self) {
        let reason = self.belief.lock().read_only_reason();
        let verdict = match reason {
            _ if self.config.read_only => Verdict::Closed(ReadOnlyReason::MountedReadOnly),
            Some(reason) => Verdict::Closed(reason),
            None => match self.own_job.lock().clone() {
                Some((why, until)) => Verdict::Held { why, until },
                None => self.held_by_others().unwrap_or(Verdict::Open),
            },
        };
        self.gate.set(Area::Code, verdict);
        if self.config.read_only {
            self.gate.set(Area::Uploads, Verdict::Closed(ReadOnlyReason::MountedReadOnly));
        }
    }

    fn is_in_use(&self) -> bool {
        self.touched.lock().elapsed() < IN_USE
    }
}
