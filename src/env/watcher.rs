//! Asks the API while the mount is in use.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::state::{Inner, Wake};

/// How often the API is asked while the mount is in use: a teammate's switch is followed within this.
const POLL_IN_USE: Duration = Duration::from_secs(3);
/// And while it is not.
const POLL_IDLE: Duration = Duration::from_secs(30);

/// Runs until told to stop or until nobody holds the environment any more.
pub(super) fn start(inner: &Arc<Inner>, woken: Receiver<Wake>) {
    let weak = Arc::downgrade(inner);
    let started = std::thread::Builder::new().name("env-watcher".into()).spawn(move || watch(&weak, &woken));
    if let Err(error) = started {
        log::error!("the mode is not being followed: {error}");
    }
}

fn watch(weak: &Weak<Inner>, woken: &Receiver<Wake>) {
    if let Some(inner) = weak.upgrade() {
        ask(&inner);
    }
    loop {
        let pause = {
            let Some(inner) = weak.upgrade() else { return };
            if inner.is_in_use() { POLL_IN_USE } else { POLL_IDLE }
        };
        match woken.recv_timeout(pause) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wake::Check) | Err(RecvTimeoutError::Timeout) => {}
        }
        // A burst of refusals is one question.
        while let Ok(wake) = woken.try_recv() {
            if matches!(wake, Wake::Stop) {
                return;
            }
        }
        let Some(inner) = weak.upgrade() else { return };
        ask(&inner);
    }
}

/// One round of questions.
pub(super) fn ask(inner: &Inner) {
    let (Some((control, site)), Some(name)) = (&inner.config.api, &inner.config.name) else { return };
    let answer = control.environment(site, name);
    match &answer {
        Ok(environment) => inner.learn(environment.clone()),
        Err(error) => inner.failed(error),
    }
    inner.answered();
    if answer.is_err() {
        return;
    }
    if let Ok(running) = control.running(site, name) {
        inner.learn_running(running.into_iter().map(|job| (job.id, job.description)).collect());
    }
    if inner.log_is_old()
        && let Ok(log) = control.log(site, name)
    {
        inner.learn_log(log);
    }
}
