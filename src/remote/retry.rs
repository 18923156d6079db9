//! The retry rule: when a call is asked again after its session was lost, how often, and until when. All calls go through
//! [`retry`] or, where the caller does not wait, [`retry_async`].
//!
//! - Only a loss is followed by another attempt ([`ErrorKind::is_loss`]); a refusal or a timeout never is.
//! - There are at most [`MAX_ATTEMPTS`], within the time limit of one call. An attempt whose session was retired by plan
//!   does not count, and starts the time limit anew: its end is not a failure.
//! - Each call states by [`Repeat`] what a second execution on the server would do.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::attempt::Attempt;
use super::client::Client;
use super::error::{Answer, ErrorKind, RemoteResult};
use super::session::Session;
use crate::clock::Deadline;
use crate::path::RemotePath;

/// Attempts at one call, each but the last ended by a loss.
const MAX_ATTEMPTS: u32 = 3;

/// What a second execution on the server would do, if the answer to the first was lost. Each call decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing: the call changes nothing. Asked again.
    Safe,
    /// Nothing: the call makes what must not exist before, so that a second execution fails, and a repeated attempt recognises
    /// what the first one made. Asked again.
    Recognised,
    /// Remove, replace or overwrite something, which may be another writer's by then. Never asked again here: the loss goes to
    /// the caller, who checks anew and decides.
    Never,
}

/// The rule, for one call. See the module header.
struct Rule {
    repeat: Repeat,
    timeout: Duration,
    deadline: Deadline,
    losses: u32,
    repeated: bool,
}

impl Rule {
    fn new(repeat: Repeat, timeout: Duration) -> Self {
        Self { repeat, timeout, deadline: Deadline::after(timeout), losses: 0, repeated: false }
    }

    /// Whether the call is asked again after an attempt that ended so, on a session that was retired or was not.
    fn asks_again(&mut self, kind: &ErrorKind, retired: bool) -> bool {
        if !kind.is_loss() || self.repeat == Repeat::Never {
            return false;
        }
        self.repeated = true;
        if retired {
            self.deadline = Deadline::after(self.timeout);
            return true;
        }
        self.losses += 1;
        self.losses < MAX_ATTEMPTS && !self.deadline.is_over()
    }
}

/// Applies the rule. The session that a call lost is given up, whether the call is asked again or not.
fn asks_again(client: &Client, rule: &mut Rule, kind: &ErrorKind, session: &Session) -> bool {
    if kind.is_loss() {
        client.current().lost(session.epoch(), &kind.to_string());
    }
    rule.asks_again(kind, session.is_retired())
}

/// Runs a call, and waits for its result.
pub(super) fn retry<T>(
    client: &Client,
    op: &'static str,
    path: &RemotePath,
    repeat: Repeat,
    call: impl Fn(&Attempt<'_>) -> Result<T, ErrorKind>,
) -> RemoteResult<T> {
    let mut rule = Rule::new(repeat, client.timeout());
    loop {
        let attempt = Attempt::begin(client, rule.deadline, rule.repeated).map_err(|kind| kind.at(op, path))?;
        match call(&attempt) {
            Err(kind) if asks_again(client, &mut rule, &kind, attempt.session()) => {}
            result => return result.map_err(|kind| kind.at(op, path)),
        }
    }
}

/// Waits for a call that `start` makes without waiting, for `limit` at most.
pub(super) fn wait_for<T: Send + 'static>(
    op: &'static str,
    path: &RemotePath,
    limit: Duration,
    start: impl FnOnce(Box<dyn FnOnce(RemoteResult<T>) + Send>),
) -> RemoteResult<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(limit).unwrap_or_else(|_| Err(ErrorKind::Timeout.at(op, path)))
}

/// Sends the requests of one attempt on this session and answers once.
type SendRequests<T> = dyn Fn(&Arc<Session>, Answer<T>) + Send + Sync;

/// Runs a call without waiting: `done` runs on an I/O thread, or here and now when there is no session to be had.
pub(super) fn retry_async<T: Send + 'static>(
    client: Arc<Client>,
    op: &'static str,
    path: RemotePath,
    repeat: Repeat,
    send: impl Fn(&Arc<Session>, Answer<T>) + Send + Sync + 'static,
    done: impl FnOnce(RemoteResult<T>) + Send + 'static,
) {
    let rule = Rule::new(repeat, client.timeout());
    Running { client, op, path, rule, send: Arc::new(send), done: Box::new(done) }.attempt();
}

/// A call whose caller does not wait.
struct Running<T> {
    client: Arc<Client>,
    op: &'static str,
    path: RemotePath,
    rule: Rule,
    send: Arc<SendRequests<T>>,
    done: Box<dyn FnOnce(RemoteResult<T>) + Send>,
}

impl<T: Send + 'static> Running<T> {
    fn attempt(self) {
        let client = self.client.clone();
        client.current().with(self.rule.deadline, move |session| match session {
            Ok(session) => {
                let (send, on) = (self.send.clone(), session.clone());
                send(&session, Box::new(move |result| self.answered(&on, result)));
            }
            Err(kind) => self.end(Err(kind)),
        });
    }

    fn answered(mut self, session: &Session, result: Result<T, ErrorKind>) {
        match result {
            Err(kind) if asks_again(&self.client, &mut self.rule, &kind, session) => self.attempt(),
            result => self.end(result),
        }
    }

    fn end(self, result: Result<T, ErrorKind>) {
        (self.done)(result.map_err(|kind| kind.at(self.op, &self.path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn lost() -> ErrorKind {
        ErrorKind::down("gone")
    }

    #[test]
    fn a_loss_is_followed_by_two_more_attempts_and_a_refusal_by_none() {
        let mut rule = Rule::new(Repeat::Safe, HOUR);
        assert!(!rule.repeated);
        assert!(rule.asks_again(&lost(), false) && rule.repeated);
        assert!(rule.asks_again(&ErrorKind::unexpected(), false));
        assert!(!rule.asks_again(&lost(), false), "the third attempt was the last");
        for kind in [ErrorKind::NotFound, ErrorKind::Timeout, ErrorKind::Failure(String::new())] {
            assert!(!Rule::new(Repeat::Safe, HOUR).asks_again(&kind, true), "{kind}");
        }
    }

    #[test]
    fn the_end_of_a_retired_session_counts_as_no_attempt_and_starts_the_time_anew() {
        let mut rule = Rule::new(Repeat::Recognised, HOUR);
        rule.deadline = Deadline::after(Duration::ZERO);
        assert!((0..10).all(|_| rule.asks_again(&lost(), true)));
        assert!(rule.repeated && !rule.deadline.is_over());
        assert!(rule.asks_again(&lost(), false));
    }

    #[test]
    fn what_destroys_something_is_never_asked_again() {
        let mut rule = Rule::new(Repeat::Never, HOUR);
        assert!(!rule.asks_again(&lost(), false) && !rule.asks_again(&lost(), true));
    }

    #[test]
    fn nothing_is_asked_again_after_the_deadline() {
        assert!(!Rule::new(Repeat::Safe, Duration::ZERO).asks_again(&lost(), false));
    }
}
