//! The thread that asks the API, at the pace of [`Pace`] and when it is told to.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::code_jobs::concerns;
use super::pace::{Due, JOBS};
use super::tracker::{Tracker, Wake};
use crate::control::Control;

/// Starts the thread. It ends when told to, or when the last handle of the environment is gone.
pub(super) fn start(tracker: &Arc<Tracker>, woken: Receiver<Wake>) {
    let weak = Arc::downgrade(tracker);
    let started = std::thread::Builder::new().name("env-watcher".into()).spawn(move || watch(&weak, &woken));
    if let Err(error) = started {
        log::error!("the thread that follows the mode cannot be started: {error}");
    }
}

fn watch(weak: &Weak<Tracker>, woken: &Receiver<Wake>) {
    let mut told = Due { environment: true, ..Due::default() };
    loop {
        let wait = {
            let Some(tracker) = weak.upgrade() else { return };
            let mut due = tracker.due();
            if due.environment && !told.environment {
                // Who switches or commits has jobs that follow.
                let changed = learn_from_others(&tracker);
                (due.environment, due.jobs) = (changed.is_none(), due.jobs || changed == Some(true));
            }
            let due = Due { environment: due.environment || told.environment, jobs: due.jobs || told.jobs, ..due };
            ask(&tracker, due);
            tracker.wait()
        };
        told = Due::default();
        let mut wake = match woken.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => None,
            Ok(wake) => Some(wake),
        };
        // Many wake-ups at once lead to one question.
        while let Some(one) = wake {
            match one {
                Wake::Stop => return,
                Wake::Check => told.environment = true,
                Wake::Look => (told.environment, told.jobs) = (true, true),
            }
            wake = woken.try_recv().ok();
        }
    }
}

/// Takes over what another mount of the site learned since this one asked; `None`: there is nothing newer. Returns whether
/// mode or commit are others than before.
fn learn_from_others(tracker: &Tracker) -> Option<bool> {
    let ((control, site), name) = tracker.config().api.as_ref().zip(tracker.config().name.as_deref())?;
    let (environment, asked) = control.known_environment(site, name, tracker.max_age())?;
    let changed = tracker.learn_from_others(environment, asked)?;
    follow_log(tracker, control, site, name);
    Some(changed)
}

/// Asks for the history if it is not that of the deployed commit.
fn follow_log(tracker: &Tracker, control: &Control, site: &str, name: &str) {
    if tracker.log_is_old()
        && let Ok(log) = control.log(site, name)
    {
        tracker.learn_log(log);
    }
}

/// Asks for the environment now.
pub(super) fn ask_now(tracker: &Tracker) {
    ask(tracker, Due { environment: true, ..Due::default() });
}

/// Asks for what is due: the environment with its history, the jobs of the site, and the jobs that hold writes.
fn ask(tracker: &Tracker, due: Due) {
    tracker.asked(due);
    let (Some((control, site)), Some(name)) = (&tracker.config().api, &tracker.config().name) else { return };
    let mut jobs = due.jobs;
    if due.held && tracker.ask_held(control, site) {
        // One of them has ended: the code may be another.
        ask_environment(tracker);
    } else if due.environment {
        // Who switches or commits has jobs that follow.
        jobs |= ask_environment(tracker);
    }
    if !jobs {
        return;
    }
    tracker.asked(Due { jobs: true, ..Due::default() });
    // What another mount of the site learned a moment ago is not asked again, unless something happened.
    let max_age = if due.jobs { JOBS[0] / 2 } else { std::time::Duration::ZERO };
    let max_age = if tracker.take_look() { std::time::Duration::ZERO } else { max_age };
    match control.jobs(site, max_age) {
        Ok(all) => tracker.learn_running(all.into_iter().filter(|job| concerns(job, name)).collect()),
        Err(error) => log::debug!("the jobs of the site are not known: {error}"),
    }
}

/// Returns whether mode or commit are others than before.
fn ask_environment(tracker: &Tracker) -> bool {
    let (Some((control, site)), Some(name)) = (&tracker.config().api, &tracker.config().name) else { return false };
    let began = Instant::now();
    let changed = match control.environment(site, name) {
        Ok(environment) => Some(tracker.learn(environment)),
        Err(error) => {
            tracker.failed(&error);
            None
        }
    };
    log::trace!("the API was asked for the environment: {:?}", began.elapsed());
    tracker.answered();
    if changed.is_some() {
        follow_log(tracker, control, site, name);
    }
    changed == Some(true)
}
