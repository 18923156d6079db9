//! Workflows that the mount starts: a switch of the connection mode, and a commit. Writes wait while one runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{CommitError, SwitchError};
use super::hold::Holding;
use super::settle::{Settled, Settling};
use super::tracker::Tracker;
use crate::control::{ConnectionMode, Control, ControlError, Diffstat, EnvKind, Environment};

/// How long a switch may take whose answer was lost.
const SWITCHED_WITHIN: Duration = Duration::from_secs(15);
/// Pause between looks at it.
const PAUSE: Duration = Duration::from_secs(1);

/// What a commit made.
#[derive(Debug, Clone)]
pub struct Committed {
    pub hash: String,
    pub message: String,
    pub files: Diffstat,
    /// Whether the repository has it; `None` where there is no repository to ask.
    pub in_repository: Option<bool>,
}

/// The environment as the API addresses it: client, id of the site, name. `None`: there is no API.
fn addressed(tracker: &Tracker) -> Option<(&Control, &str, &str)> {
    let config = tracker.config();
    let ((control, site), name) = config.api.as_ref().zip(config.name.as_deref())?;
    Some((control, site, name))
}

/// See [`Env::may_discard_nothing`](super::Env::may_discard_nothing).
pub(super) fn may_discard_nothing(tracker: &Tracker) -> Result<(), SwitchError> {
    let (control, site, name) = addressed(tracker).ok_or(SwitchError::NoApi)?;
    if !EnvKind::of(name).takes_code() {
        return Err(SwitchError::NotSwitchable(name.to_owned()));
    }
    let now = control.environment(site, name)?;
    let pending = if now.mode == ConnectionMode::Git { Diffstat::default() } else { control.diffstat(site, name)? };
    tracker.learn(now);
    if pending.is_empty() { Ok(()) } else { Err(SwitchError::WouldDiscard(pending)) }
}

/// See [`Env::switch`](super::Env::switch).
pub(super) fn switch(tracker: &Arc<Tracker>, mode: ConnectionMode, discard: bool) -> Result<bool, SwitchError> {
    let (control, site, name) = addressed(tracker).ok_or(SwitchError::NoApi)?;
    if !EnvKind::of(name).takes_code() {
        return Err(SwitchError::NotSwitchable(name.to_owned()));
    }
    let now = control.environment(site, name)?;
    if now.mode == mode {
        tracker.learn(now);
        return Ok(false);
    }
    if mode == ConnectionMode::Git && !discard {
        let pending = control.diffstat(site, name)?;
        if !pending.is_empty() {
            return Err(SwitchError::WouldDiscard(pending));
        }
    }
    let _asked_here = tracker.asking_here();
    let environment =
        run(tracker, format!("the mode is being switched to {mode}"), || match control.set_mode(site, name, mode) {
            Err(error) if error.is_doubtful() => switched_after_all((control, site, name), mode).ok_or(error),
            done => done.and_then(|()| control.environment(site, name)),
        })?;
    tracker.learn(environment);
    Ok(true)
}

/// The environment, if it gets into this mode within a while although the answer to the switch was lost.
fn switched_after_all((control, site, name): (&Control, &str, &str), mode: ConnectionMode) -> Option<Environment> {
    let until = Instant::now() + SWITCHED_WITHIN;
    loop {
        let now = control.environment(site, name).ok().filter(|environment| environment.mode == mode);
        if now.is_some() || Instant::now() >= until {
            return now;
        }
        std::thread::sleep(PAUSE);
    }
}

/// See [`Env::commit`](super::Env::commit).
pub(super) fn commit(tracker: &Arc<Tracker>, message: &str) -> Result<Committed, CommitError> {
    let message = message.trim();
    if message.is_empty() {
        return Err(CommitError::EmptyMessage);
    }
    let (control, site, name) = addressed(tracker).ok_or(CommitError::NoApi)?;
    let before = control.environment(site, name)?;
    tracker.learn(before.clone());
    if let Some(reason) = tracker.read_only_reason() {
        return Err(CommitError::ReadOnly(reason));
    }
    // Asked anew, because the list in the environment may be stale.
    let files = control.diffstat(site, name)?;
    if files.is_empty() {
        return Err(CommitError::Nothing);
    }
    let (author, email) = author(tracker, control)?;
    let _asked_here = tracker.asking_here();
    let asked = run(tracker, "a commit runs".into(), || control.commit(site, name, message, &author, &email));
    let lost = asked.err();
    if let Some(error) = lost.as_ref().filter(|error| !error.is_doubtful()) {
        return Err(error.clone().into());
    }
    let holding = Holding::new(tracker, "the platform synchronizes the code after the commit".into(), false);
    let settled = Settling::new((control, site, name), before.target_commit, message, lost.is_some()).wait();
    drop(holding);
    tracker.check();
    let Settled { hash, environment } = match (settled, lost) {
        // The commit was not made, for the reason that the platform gave.
        (Err(CommitError::NotThere { .. }), Some(error)) => return Err(error.into()),
        (settled, _) => settled?,
    };
    if let Some(environment) = environment {
        tracker.learn(environment);
    }
    Ok(Committed { hash, message: message.to_owned(), files, in_repository: None })
}

fn author(tracker: &Tracker, control: &Control) -> Result<(String, String), ControlError> {
    if let Some(author) = &tracker.config().author {
        return Ok(author.clone());
    }
    let profile = control.profile()?;
    Ok((profile.full_name, profile.email))
}

/// Runs a workflow while writes are held, and has the API asked if it failed.
fn run<T>(
    tracker: &Arc<Tracker>,
    why: String,
    workflow: impl FnOnce() -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let holding = Holding::new(tracker, why, false);
    let done = workflow();
    drop(holding);
    done.inspect_err(|_| tracker.check())
}
