//! Environments that sleep: one that does not answer by SFTP is woken by a visit to its web site, and waited for. That SFTP
//! fails is all that can be seen of a sleep from here; how long the visit took tells whether it was one.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{CliResult, Exit, Failure};
use super::plan::Plan;
use crate::clock::Deadline;
use crate::control::{ControlError, Waker};
use crate::remote::Rouse;

/// How long waking may take; the platform says that it is usually done within 30 s.
const WAKE_LIMIT: Duration = Duration::from_secs(60);
/// A visit that was answered faster than this woke nobody up.
const PROMPT: Duration = Duration::from_millis(1500);
/// How long SFTP may take to follow: a moment where nobody slept (it may be a blocked port), longer where somebody did.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether sleep would look like this.
fn looks_asleep(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::NotSftp)
}

/// Makes the try, and where it fails as with a sleeping environment, wakes it and tries again, all within the limit.
pub(super) fn rousing<T>(plan: &Plan, limit: Duration, attempt: impl Fn(Deadline) -> CliResult<T>) -> CliResult<T> {
    let failure = match (attempt(Deadline::after(limit)), &plan.waker) {
        (Err(failure), Some(_)) if looks_asleep(&failure) => failure,
        (other, _) => return other,
    };
    let Some(waker) = &plan.waker else { return Err(failure) };
    tell(&format!("{} does not answer and may be asleep: waking it ({})", plan.source, waker.domain()));
    match waker.wake(Deadline::after(WAKE_LIMIT.min(limit * 2))) {
        Ok(took) => again(failure, took, limit, attempt),
        Err(error @ ControlError::Frozen { .. }) => Err(error.into()),
        Err(error) => {
            log::info!("{error}");
            Err(failure)
        }
    }
}

/// Awake, says the web site: SFTP should follow.
fn again<T>(
    failure: Failure,
    took: Duration,
    limit: Duration,
    attempt: impl Fn(Deadline) -> CliResult<T>,
) -> CliResult<T> {
    let patience = Deadline::after(PATIENCE[usize::from(took >= PROMPT)]);
    let mut last = failure;
    while !patience.is_over() {
        std::thread::sleep(PAUSE);
        match attempt(Deadline::after(patience.remaining().max(PAUSE).min(limit))) {
            Err(failure) if looks_asleep(&failure) => last = failure,
            other => return other,
        }
    }
    let text = format!("{}; its web site answers, so it is not asleep", last.message);
    Err(Failure::new(last.exit, text))
}

/// What the sleep looks like to `doctor`: the visit, and how long it took.
pub(super) fn visit(waker: &Waker, answers: impl Fn() -> bool) -> CliResult<String> {
    let took = waker.wake(Deadline::after(WAKE_LIMIT)).map_err(Failure::from)?;
    let patience = Deadline::after(PATIENCE[usize::from(took >= PROMPT)]);
    while !patience.is_over() {
        if answers() {
            return Ok(format!("it was asleep, and was woken by a visit to {}", waker.domain()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(format!("not asleep: {} answers, SFTP does not", waker.domain()))
}

/// For a mount that runs: wakes the environment when somebody wants something of it and it cannot be reached.
pub(super) fn rouse(plan: &Plan) -> Option<Rouse> {
    let (waker, source) = (plan.waker.clone()?, plan.source.clone());
    let wake = move |deadline| {
        log::info!("{source} does not answer and may be asleep: waking it ({})", waker.domain());
        waker.wake(deadline).map(drop).map_err(|error| error.to_string())
    };
    Some(Arc::new(wake))
}

/// A person wants to know why it takes so long; a script is told with `-v`.
fn tell(message: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("pantheonfs: {}", crate::text::visible(message));
    } else {
        log::info!("{message}");
    }
}
