//! The handle that other rooms have of the environment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::belief::Belief;
use super::config::EnvConfig;
use super::error::{CommitError, SwitchError};
use super::hold::Holding;
use super::jobs::{self, Committed};
use super::tracker::Tracker;
use super::watcher;
use crate::clock::Clock;
use crate::control::{ConnectionMode, Environment};
use crate::gate::Gate;

/// The environment of a mount. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Tracker>);

impl Env {
    /// Starts with what is known: options, memory, and `initial`, the answer of the API where the caller asked already.
    /// With an API, a watcher thread follows it.
    pub fn start(config: EnvConfig, gate: Gate, clock: Clock, initial: Option<Environment>) -> Self {
        let has_api = config.api.is_some();
        let (tracker, woken) = Tracker::new(config, gate, clock, initial);
        if has_api {
            watcher::start(&tracker, woken);
        }
        Self(tracker)
    }

    /// The current belief.
    pub fn belief(&self) -> Belief {
        self.0.belief()
    }

    /// Whether code can change only by a push or a deploy. Cheap: called for every name that is shown.
    pub fn is_frozen(&self) -> bool {
        self.0.is_frozen()
    }

    /// Notes that the mount is used: the API is asked more often while it is.
    pub fn touch(&self) {
        self.0.touch();
    }

    /// Has the API asked soon.
    pub fn check(&self) {
        self.0.check();
    }

    /// Notes that a program reads the mode or the running jobs: the API is asked soon, unless it was asked a moment ago.
    pub fn look(&self) {
        self.0.look();
    }

    /// Asks the API now and waits for the answer; without an answer the belief stays.
    pub fn refresh(&self) {
        watcher::ask_now(&self.0);
    }

    /// Whether the mode needs no further question: the API confirmed it within this time, or there is no API.
    pub fn is_certain(&self, within: Duration) -> bool {
        self.0.is_certain(within)
    }

    /// Has the API asked and waits for its answer until `until`; without an answer the belief stays.
    pub fn confirm(&self, until: Instant) {
        self.0.confirm(until);
    }

    /// Reports that the server refused a write in code: the API is asked again, and no further write is admitted until it
    /// has answered.
    pub fn refused(&self) {
        self.0.refused();
    }

    /// Registers a listener that is called after the mode or the deployed commit changed.
    pub fn on_change(&self, listener: impl Fn(&Belief) + Send + Sync + 'static) {
        self.0.listen(Box::new(listener));
    }

    /// A sentence about a login that ends soon, if the mount logs in with a saved token.
    pub fn login_warning(&self) -> Option<String> {
        self.0.config().api.as_ref()?.0.token_warning()
    }

    /// Ends the watcher.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Holds new changes of code, while what was accepted before goes on to the server: after a barrier the server has all
    /// that a workflow is to find there.
    #[must_use]
    pub fn drain(&self, why: impl Into<String>) -> Holding {
        Holding::new(&self.0, why.into(), true)
    }

    /// Whether a switch to Git mode would be refused now, because it would delete something or for any other reason.
    ///
    /// # Errors
    ///
    /// As [`Env::switch`].
    pub fn may_discard_nothing(&self) -> Result<(), SwitchError> {
        jobs::may_discard_nothing(&self.0)
    }

    /// Switches the connection mode and waits for the outcome. `Ok(false)`: the environment was in that mode already.
    ///
    /// # Errors
    ///
    /// A switch to Git mode would delete uncommitted changes and `discard` does not permit that, the mode cannot be
    /// switched, or the platform failed.
    pub fn switch(&self, mode: ConnectionMode, discard: bool) -> Result<bool, SwitchError> {
        jobs::switch(&self.0, mode, discard)
    }

    /// Commits all uncommitted changes on the server; writes wait meanwhile. The caller has sent what was dirty.
    ///
    /// # Errors
    ///
    /// There is nothing to commit, code is read-only, or the platform failed.
    pub fn commit(&self, message: &str) -> Result<Committed, CommitError> {
        jobs::commit(&self.0, message)
    }
}
