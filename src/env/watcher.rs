//! The thread that asks the API: often while the mount is in use, seldom while it is not.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::tracker::{Tracker, Wake};

/// How often the API is asked while the mount is in use: a teammate's switch is noticed within this time.
const POLL_IN_USE: Duration = Duration::from_secs(3);
/// How often it is asked otherwise.
const POLL_IDLE: Duration = Duration::from_secs(30);

/// Starts the thread. It ends when told to, or when the last handle of the environment is gone.
pub(super) fn start(tracker: &Arc<Tracker>, woken: Receiver<Wake>) {
    let weak = Arc::downgrade(tracker);
    let started = std::thread::Builder::new().name("env-watcher".into()).spawn(move || watch(&weak, &woken));
    if let Err(error) = started {
        log::error!("the thread that follows the mode cannot be started: {error}");
    }
}

fn watch(weak: &Weak<Tracker>, woken: &Receiver<Wake>) {
    if let Some(tracker) = weak.upgrade() {
        ask(&tracker);
    }
    loop {
        let pause = {
            let Some(tracker) = weak.upgrade() else { return };
            if tracker.is_in_use() { POLL_IN_USE } else { POLL_IDLE }
        };
        match woken.recv_timeout(pause) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wake::Check) | Err(RecvTimeoutError::Timeout) => {}
        }
        // Many wake-ups at once lead to one question.
        while let Ok(wake) = woken.try_recv() {
            if matches!(wake, Wake::Stop) {
                return;
            }
        }
        let Some(tracker) = weak.upgrade() else { return };
        ask(&tracker);
    }
}

/// Asks for the environment, then for its running workflows, then for the history if it is old.
pub(super) fn ask(tracker: &Tracker) {
    let (Some((control, site)), Some(name)) = (&tracker.config().api, &tracker.config().name) else { return };
    let answer = control.environment(site, name);
    match &answer {
        Ok(environment) => tracker.learn(environment.clone()),
        Err(error) => tracker.failed(error),
    }
    tracker.answered();
    if answer.is_err() {
        return;
    }
    if let Ok(running) = control.running(site, name) {
        tracker.learn_running(running.into_iter().map(|job| (job.id, job.description)).collect());
    }
    if tracker.log_is_old()
        && let Ok(log) = control.log(site, name)
    {
        tracker.learn_log(log);
    }
}
