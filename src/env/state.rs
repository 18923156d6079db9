//! The state of the environment, and what follows when it changes: the gate turns, listeners hear of it.

use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::belief::Belief;
use super::memory::Memory;
use crate::attr::Area;
use crate::clock::Clock;
use crate::control::{ConnectionMode, Control, ControlError};
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

/// In use: something was asked of the mount this short a time ago.
pub(super) const IN_USE: Duration = Duration::from_secs(60);
/// How long somebody else's job may hold writes.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);

pub(super) type OnChange = Box<dyn Fn(&Belief) + Send + Sync>;

/// A switch or a commit that was asked for through this mount.
pub(super) struct Job {
    pub(super) why: String,
    pub(super) until: Instant,
    /// What was accepted before is still sent.
    pub(super) drains: bool,
}

pub(super) struct Inner {
    pub(super) config: EnvConfig,
    pub(super) gate: Gate,
    pub(super) clock: Clock,
    pub(super) belief: Mutex<Belief>,
    pub(super) listeners: Mutex<Vec<OnChange>>,
    pub(super) touched: Mutex<Instant>,
    /// Switches and commits asked for through this mount; the last one decides.
    pub(super) own_jobs: Mutex<Vec<Arc<Job>>>,
    pub(super) wake: mpsc::Sender<Wake>,
    /// How often the API has answered or failed to.
    pub(super) answers: (Mutex<u64>, Condvar),
}

pub(super) enum Wake {
    /// Ask now.
    Check,
    Stop,
}

impl Inner {
    /// Takes over an answer of the API, turns the gate, tells whoever wants to know.
    pub(super) fn learn(&self, environment: crate::control::Environment) {
        let changed = self.belief.lock().learn(environment, self.clock.wall());
        self.apply_to_gate();
        if changed {
            self.remember();
            let belief = self.belief.lock().clone();
            log::info!("the environment changed: mode {}, commit {:?}", belief.mode, belief.target_commit);
            self.listeners.lock().iter().for_each(|listener| listener(&belief));
        }
    }

    pub(super) fn remember(&self) {
        let Some(file) = &self.config.memory else { return };
        let memory = Memory::of(&self.belief.lock());
        if let Some(Err(error)) = memory.map(|memory| memory.save(file)) {
            log::warn!("{}: {error}", file.display());
        }
    }

    pub(super) fn learn_running(&self, running: Vec<(String, String)>) {
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

    pub(super) fn log_is_old(&self) -> bool {
        let belief = self.belief.lock();
        belief.log.first().map(|commit| &commit.hash) != belief.target_commit.as_ref()
    }

    pub(super) fn learn_log(&self, log: Vec<crate::control::Commit>) {
        self.belief.lock().log = Arc::new(log);
    }

    /// A teammate's commit, deploy or switch: writes wait for its end, but not for ever.
    pub(super) fn held_by_others(&self) -> Option<Verdict> {
        let belief = self.belief.lock();
        let job = belief.running.first()?;
        let age = self.clock.wall().duration_since(job.seen).unwrap_or_default();
        let left = OTHERS_LIMIT.checked_sub(age)?;
        Some(Verdict::Held {
            why: format!("on the platform: {}", job.description),
            until: Instant::now() + left,
            drains: false,
        })
    }

    pub(super) fn answered(&self) {
        *self.answers.0.lock() += 1;
        self.answers.1.notify_all();
    }

    pub(super) fn failed(&self, error: &ControlError) {
        log::debug!("the API was asked in vain: {error}");
        self.belief.lock().error = Some(error.to_string());
        // A refused write closed the gate until the answer; there is none, so the server decides again.
        self.apply_to_gate();
    }

    pub(super) fn apply_to_gate(&self) {
        let reason = self.belief.lock().read_only_reason();
        let verdict = match reason {
            _ if self.config.read_only => Verdict::Closed(ReadOnlyReason::MountedReadOnly),
            Some(reason) => Verdict::Closed(reason),
            None => match self.own_jobs.lock().last() {
                Some(job) => Verdict::Held { why: job.why.clone(), until: job.until, drains: job.drains },
                None => self.held_by_others().unwrap_or(Verdict::Open),
            },
        };
        self.gate.set(Area::Code, verdict);
        if self.config.read_only {
            self.gate.set(Area::Uploads, Verdict::Closed(ReadOnlyReason::MountedReadOnly));
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.touched.lock().elapsed() < IN_USE
    }
}
