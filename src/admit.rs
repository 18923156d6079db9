//! Admission: returns a [`WritePermit`] for a change, or the reason why there is none.
//!
//! This is the only room that asks `gate` for permits and `env` for the mode before a change. It does not know the
//! change itself: callers name the area and the object.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::attr::Area;
use crate::env::Env;
use crate::error::{Cause, FsError, FsResult, LastError, Wait};
use crate::gate::{Gate, ReadOnlyReason, Refused, Verdict, WritePermit};
use crate::path::RemotePath;
use crate::remote::{Link, Remote};

/// How long the last known mode is trusted.
const TRUSTED: Duration = Duration::from_secs(2);
/// How long a change waits for the platform's answer about the mode.
const CONFIRM_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether the platform has answered.
const ANSWER_PAUSE: Duration = Duration::from_millis(20);

/// Admits changes. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    env: Env,
    gate: Gate,
    remote: Remote,
    errors: LastError,
    /// Only a Pantheon environment has modes. On other servers code is never frozen, and a refusal tells nothing
    /// about a mode.
    pantheon: bool,
    /// When a change was last admitted.
    admitted: Mutex<Option<Instant>>,
}

impl Admission {
    pub fn new(env: Env, gate: Gate, remote: Remote, errors: LastError, pantheon: bool) -> Self {
        Self(Arc::new(Inner { env, gate, remote, errors, pantheon, admitted: Mutex::default() }))
    }

    /// The permit for a change that a caller requests. While a workflow holds writes, it waits as long as `wait`
    /// allows.
    ///
    /// # Errors
    ///
    /// [`Cause::ReadOnly`] in Git mode, on Test and on Live; [`Cause::Held`] when the wait for a workflow ended;
    /// [`Cause::WouldBlock`] if the answer needs a wait that `wait` does not allow.
    pub fn permit(&self, op: &'static str, area: Area, object: &RemotePath, wait: Wait) -> FsResult<WritePermit> {
        self.confirm_mode(op, area, object, wait)?;
        self.await_answer(op, area, object, wait)?;
        let permit = match wait {
            Wait::No => match self.0.gate.admit(area) {
                Err(Refused::Held(_)) => return Err(FsError::new(op, object, Cause::WouldBlock)),
                other => other,
            },
            Wait::Until(deadline) => self.0.gate.admit_waiting(area, deadline.0),
        };
        self.0.env.touch();
        if permit.is_ok() {
            *self.0.admitted.lock() = Some(Instant::now());
        }
        permit.map_err(|refused| self.0.errors.noted(FsError::new(op, object, refused)))
    }

    /// Checks the mode before the first change after a pause, so that the caller gets EROFS at once. In a burst of
    /// changes, and while the connection or the platform is unavailable, the last known mode is trusted.
    fn confirm_mode(&self, op: &'static str, area: Area, object: &RemotePath, wait: Wait) -> FsResult<()> {
        let recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < TRUSTED);
        if area != Area::Code || recent(*self.0.admitted.lock()) || self.0.env.is_certain(TRUSTED) {
            return Ok(());
        }
        if matches!(self.0.remote.link(), Link::Down { .. }) {
            return Ok(());
        }
        match wait {
            Wait::No => return Err(FsError::new(op, object, Cause::WouldBlock)),
            Wait::Until(deadline) => self.0.env.confirm(deadline.0.min(Instant::now() + CONFIRM_LIMIT)),
        }
        Ok(())
    }

    /// While the platform is asked for the mode because the server refused a write, the next change waits for the answer: the
    /// refusal may have been for the permissions of one file.
    fn await_answer(&self, op: &'static str, area: Area, object: &RemotePath, wait: Wait) -> FsResult<()> {
        let asked = || matches!(self.0.gate.verdict(area), Verdict::Closed(ReadOnlyReason::RefusedByServer));
        let until = match wait {
            Wait::No if asked() => return Err(FsError::new(op, object, Cause::WouldBlock)),
            Wait::No => return Ok(()),
            Wait::Until(deadline) => deadline.0.min(Instant::now() + CONFIRM_LIMIT),
        };
        while asked() && Instant::now() < until {
            std::thread::sleep(ANSWER_PAUSE);
        }
        Ok(())
    }

    /// The permit for sending a change that was accepted before. Never waits.
    pub fn permit_sending(&self, area: Area) -> Result<WritePermit, Refused> {
        self.0.gate.admit_accepted(area)
    }

    /// Whether writes are refused, for access(2). A workflow that holds writes does not refuse them.
    pub fn may_write(&self, op: &'static str, area: Area, object: &RemotePath) -> FsResult<()> {
        match self.0.gate.verdict(area) {
            // Not known at the moment.
            Verdict::Closed(ReadOnlyReason::RefusedByServer) => Ok(()),
            Verdict::Closed(reason) => Err(FsError::new(op, object, Cause::ReadOnly(reason))),
            Verdict::Open | Verdict::Held { .. } => Ok(()),
        }
    }

    /// The gate's verdict for the area, for the status.
    pub fn verdict(&self, area: Area) -> Verdict {
        self.0.gate.verdict(area)
    }

    /// Whether objects of this area cannot be changed: code in Git mode, on Test and on Live.
    pub fn is_frozen(&self, area: Area) -> bool {
        area == Area::Code && self.0.pantheon && self.0.env.is_frozen()
    }

    /// The commit of frozen code, and when the platform reported it. `None`: the code can change, or its commit is
    /// not known.
    pub fn frozen_commit(&self) -> Option<(String, SystemTime)> {
        let belief = self.0.env.belief();
        let commit = belief.target_commit.filter(|_| self.is_frozen(Area::Code))?;
        Some((commit, belief.learned))
    }

    /// Notes that the mount is in use: the environment is watched while it is.
    pub fn touch(&self) {
        self.0.env.touch();
    }

    /// Notes that the server denied a change in this area. In code of a Pantheon environment the mode may have been
    /// switched: the platform is asked for it, and no change is sent before the answer.
    pub fn denied(&self, area: Area) {
        if area == Area::Code && self.0.pantheon {
            self.0.env.refused();
        }
    }
}
