//! The one place that decides whether an area may be written now, and if not, why.
//!
//! `env` opens and closes the gate as the belief about the environment changes; every mutating call on `remote` takes a
//! [`WritePermit`], and [`Gate::admit`] is the only way to get one. A permit carries the environment's generation: a
//! switch of the connection mode makes older permits invalid, which `remote` checks right before the last step of a call.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::attr::Area;

/// Why an area is read-only: shown in `.pantheon/status` and in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOnlyReason {
    /// The environment is in Git mode: code changes by `git push` only.
    GitMode,
    /// Test and Live never take code changes; carries the environment's name.
    Environment(String),
    /// The mount was made with `-o ro`.
    MountedReadOnly,
    /// Logs are always read-only.
    Logs,
    /// The server refused a write in `code` although its mode was believed to allow it.
    RefusedByServer,
    /// A version in `.pantheon/at`: what is committed stays as it is.
    Committed,
}

impl fmt::Display for ReadOnlyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GitMode => f.write_str(
                "the environment is in Git mode; write 'sftp' to .pantheon/mode to edit here, or push with git",
            ),
            Self::Environment(name) => {
                write!(f, "code on '{name}' is read-only on the platform; edit Dev or a multidev and deploy")
            }
            Self::MountedReadOnly => f.write_str("mounted with -o ro"),
            Self::Logs => f.write_str("logs are read-only"),
            Self::Committed => f.write_str("it is committed; copy it to the code to change it"),
            Self::RefusedByServer => f.write_str("the server refused a write in code; the mode is being checked again"),
        }
    }
}

/// The verdict for one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Open,
    /// Writes wait (a commit or another workflow runs) until the instant given at the latest, then go ahead.
    Held {
        why: String,
        until: Instant,
        /// What was accepted before is still sent.
        drains: bool,
    },
    Closed(ReadOnlyReason),
}

/// Why no permit was granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("read-only: {0}")]
    Closed(ReadOnlyReason),
    #[error("writes are held: {0}")]
    Held(String),
}

/// Proof that a write was admitted; see the module documentation.
#[derive(Debug, Clone)]
pub struct WritePermit {
    area: Area,
    generation: u64,
    gate: Gate,
}

impl WritePermit {
    /// The area that the permit is for.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Checks the permit again, right before the step that cannot be undone.
    ///
    /// # Errors
    ///
    /// The area was closed, or the connection mode changed, after the permit was granted.
    pub fn still_valid(&self) -> Result<(), Refused> {
        let state = self.gate.lock();
        match state.verdict(self.area) {
            Verdict::Closed(reason) => Err(Refused::Closed(reason.clone())),
            Verdict::Open | Verdict::Held { .. } if state.generation == self.generation => Ok(()),
            Verdict::Open | Verdict::Held { .. } => Err(Refused::Held("the connection mode just changed".into())),
        }
    }
}

#[derive(Debug)]
struct State {
    code: Verdict,
    uploads: Verdict,
    generation: u64,
}

impl State {
    fn verdict(&self, area: Area) -> &Verdict {
        static LOGS: Verdict = Verdict::Closed(ReadOnlyReason::Logs);
        match area {
            Area::Code => &self.code,
            Area::Uploads => &self.uploads,
            Area::Logs => &LOGS,
        }
    }
}

/// The gate: `env` sets it, and every writer asks it. Clones share one state.
#[derive(Debug, Clone)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate that is open for code and uploads.
    pub fn new() -> Self {
        let state = State { code: Verdict::Open, uploads: Verdict::Open, generation: 1 };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }

    /// Sets the verdict for one area (`Logs` has a fixed one) and starts a new generation if it closes or reopens.
    pub fn set(&self, area: Area, verdict: Verdict) {
        let mut state = self.lock();
        let slot = match area {
            Area::Code => &mut state.code,
            Area::Uploads => &mut state.uploads,
            Area::Logs => return,
        };
        let turned = matches!(slot, Verdict::Closed(_)) != matches!(verdict, Verdict::Closed(_));
        *slot = verdict;
        state.generation += u64::from(turned);
        self.0.1.notify_all();
    }

    /// The current verdict for one area.
    pub fn verdict(&self, area: Area) -> Verdict {
        self.lock().verdict(area).clone()
    }

    /// The environment's generation: it grows each time an area closes or reopens.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Grants a permit to write in `area` without waiting. See [`Gate::admit_waiting`].
    ///
    /// # Errors
    ///
    /// The area is closed, or writes are held.
    pub fn admit(&self, area: Area) -> Result<WritePermit, Refused> {
        let state = self.lock();
        match state.verdict(area) {
            Verdict::Open => Ok(WritePermit { area, generation: state.generation, gate: self.clone() }),
            Verdict::Held { until, .. } if *until <= Instant::now() => {
                Ok(WritePermit { area, generation: state.generation, gate: self.clone() })
            }
            Verdict::Held { why, .. } => Err(Refused::Held(why.clone())),
            Verdict::Closed(reason) => Err(Refused::Closed(reason.clone())),
        }
    }

    /// A permit for what was accepted before: like [`Gate::admit`], but a gate that is held for draining gives it.
    ///
    /// # Errors
    ///
    /// As [`Gate::admit`].
    pub fn admit_accepted(&self, area: Area) -> Result<WritePermit, Refused> {
        let state = self.lock();
        if matches!(state.verdict(area), Verdict::Held { drains: true, .. }) {
            return Ok(WritePermit { area, generation: state.generation, gate: self.clone() });
        }
        drop(state);
        self.admit(area)
    }

    /// Like [`Gate::admit`], but waits while writes are held, until `limit` at the latest.
    ///
    /// # Errors
    ///
    /// The area is closed, or writes are still held at `limit`.
    pub fn admit_waiting(&self, area: Area, limit: Instant) -> Result<WritePermit, Refused> {
        loop {
            let refused = match self.admit(area) {
                Err(Refused::Held(why)) => Refused::Held(why),
                other => return other,
            };
            let now = Instant::now();
            if now >= limit {
                return Err(refused);
            }
            let mut state = self.lock();
            if let Verdict::Held { until, .. } = state.verdict(area) {
                let wait = (*until).min(limit).saturating_duration_since(now);
                self.0.1.wait_for(&mut state, wait);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_closed_gate_refuses_and_voids_older_permits() {
        let gate = Gate::new();
        let permit = gate.admit(Area::Code).expect("open");
        gate.set(Area::Code, Verdict::Closed(ReadOnlyReason::GitMode));
        assert_eq!(permit.still_valid(), Err(Refused::Closed(ReadOnlyReason::GitMode)));
        assert!(gate.admit(Area::Code).is_err());
        assert!(gate.admit(Area::Uploads).is_ok());
        gate.set(Area::Code, Verdict::Open);
        assert!(permit.still_valid().is_err(), "a permit from before the switch must not be used after it");
        assert!(gate.admit(Area::Logs).is_err());
    }

    #[test]
    fn a_draining_gate_takes_nothing_new_and_lets_go_what_was_accepted() {
        let gate = Gate::new();
        let until = Instant::now() + Duration::from_secs(5);
        gate.set(Area::Code, Verdict::Held { why: "a switch".into(), until, drains: true });
        assert!(gate.admit(Area::Code).is_err());
        assert!(gate.admit_accepted(Area::Code).is_ok_and(|permit| permit.still_valid().is_ok()));
        gate.set(Area::Code, Verdict::Held { why: "a switch".into(), until, drains: false });
        assert!(gate.admit_accepted(Area::Code).is_err());
    }

    #[test]
    fn a_held_gate_lets_writers_wait_and_then_go() {
        let gate = Gate::new();
        let until = Instant::now() + Duration::from_secs(5);
        gate.set(Area::Code, Verdict::Held { why: "a commit runs".into(), until, drains: false });
        assert!(matches!(gate.admit(Area::Code), Err(Refused::Held(_))));
        let waiting = gate.clone();
        let writer = std::thread::spawn(move || waiting.admit_waiting(Area::Code, until).is_ok());
        gate.set(Area::Code, Verdict::Open);
        assert!(writer.join().expect("no panic"));
    }
}
