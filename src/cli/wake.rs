//! Environments that sleep: one that does not answer by SFTP is woken by a request to its web site. From outside, sleep
//! looks like any failure of SFTP; only the time that the web site takes to answer tells the difference.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{CliResult, Exit, Failure};
use super::plan::Plan;
use crate::clock::Deadline;
use crate::control::{ControlError, Waker};
use crate::remote::Wake;

/// Limit of waking; according to the platform it usually takes up to 30 s.
const WAKE_LIMIT: Duration = Duration::from_secs(60);
/// An environment whose web site answers faster than this was not asleep.
const PROMPT: Duration = Duration::from_millis(1500);
/// How long SFTP is tried after that: shortly if the environment was awake (its port may be blocked), longer if it was
/// asleep.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the failure may come from a sleeping environment.
fn looks_asleep(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::NotSftp)
}

/// Makes the attempt. If it fails as with a sleeping environment, wakes the environment and tries again.
pub(super) fn rousing<T>(plan: &Plan, limit: Duration, attempt: impl Fn(Deadline) -> CliResult<T>) -> CliResult<T> {
    let failure = match (attempt(Deadline::after(limit)), &plan.waker) {
        (Err(failure), Some(_)) if looks_asleep(&failure) => failure,
        (other, _) => return other,
    };
    let Some(waker) = &plan.waker else { return Err(failure) };
    tell(&format!("{} does not answer and may be asleep; waking it by {}", plan.source, waker.domain()));
    match waker.wake(Deadline::after(WAKE_LIMIT.min(limit * 2))) {
        Ok(took) => again(failure, took, limit, attempt),
        Err(error @ ControlError::Frozen { .. }) => Err(error.into()),
        Err(error @ ControlError::Unhealthy { .. }) => {
            let text = format!("{}; {error}", failure.explain());
            Err(Failure::caused(failure.exit, text, failure))
        }
        Err(error) => {
            log::info!("{error}");
            Err(failure)
        }
    }
}

/// Tries again after the web site answered, when SFTP should follow.
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
    let text = format!("{}; its web site answers, so it is not asleep", last.explain());
    Err(Failure::caused(last.exit, text, last))
}

/// The step of `doctor`: wakes the environment and tells whether it was asleep.
pub(super) fn visit(waker: &Waker, answers: impl Fn() -> bool) -> CliResult<String> {
    let took = waker.wake(Deadline::after(WAKE_LIMIT)).map_err(Failure::from)?;
    let patience = Deadline::after(PATIENCE[usize::from(took >= PROMPT)]);
    while !patience.is_over() {
        if answers() {
            return Ok(format!("the environment was asleep; a request to {} woke it", waker.domain()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(format!("not asleep: {} answers, SFTP does not", waker.domain()))
}

/// For a running mount: wakes the environment when a request needs the server and the server cannot be reached.
pub(super) fn rouse(plan: &Plan) -> Option<Wake> {
    let (waker, source) = (plan.waker.clone()?, plan.source.clone());
    let wake = move |deadline| {
        log::info!("{source} does not answer and may be asleep; waking it by {}", waker.domain());
        waker.wake(deadline).map(drop).map_err(|error| error.to_string())
    };
    Some(Arc::new(wake))
}

/// Tells a user at a terminal why it takes long; a script sees it with `-v`.
fn tell(message: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("pantheonfs: {}", crate::text::visible(message));
    } else {
        log::info!("{message}");
    }
}
