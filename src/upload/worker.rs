//! The worker: takes operations from the journal, applies many at a time, and decides what follows from each outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::apply_names::Ends;
use super::local::Local;
use super::outcome::{LINK_PAUSE, Outcome};
use super::sender::Sender;
use crate::attr::Area;
use crate::error::{Cause, FsError};
use crate::gate::{ReadOnlyReason, Refused};
use crate::pool::{Pool, background};
use crate::remote::{ErrorKind, Link, RemoteError, SetAttr};
use crate::write::{Action, Expected, Journal, Next, Op, OpId, RejectKind};

/// Limits for the operations that are applied at a time: their number, and bytes of content in them.
const MAX_RUNNING: usize = 512;
const MAX_RUNNING_BYTES: u64 = 16 * 1024 * 1024;
/// How often the thread checks whether the mount still exists.
const TICK: Duration = Duration::from_millis(500);
/// Pauses before an operation is retried.
const GATE_PAUSE: Duration = Duration::from_millis(500);
const FULL_PAUSE: Duration = Duration::from_secs(10);
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// Pause while the environment is unavailable.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How often a server may refuse an operation before it is rejected.
const MAX_REFUSALS: u32 = 5;
/// The limit for failures without a reason, which may be a full disk, a quota or another limit: about 15 minutes,
/// with short pauses at first.
const SOON_TRIES: u32 = 30;
const MAX_FAILURES: u32 = SOON_TRIES + 84;

/// The running operations: their number and bytes.
#[derive(Default)]
struct Slots(Mutex<(usize, u64)>, Condvar);

impl Slots {
    fn take(&self, bytes: u64) {
        let full = |(count, sum): (usize, u64)| count >= MAX_RUNNING || (count > 0 && sum + bytes > MAX_RUNNING_BYTES);
        let mut state = self.0.lock();
        while full(*state) {
            self.1.wait(&mut state);
        }
        *state = (state.0 + 1, state.1 + bytes);
    }

    fn give(&self, bytes: u64) {
        let mut state = self.0.lock();
        *state = (state.0 - 1, state.1 - bytes);
        self.1.notify_all();
    }
}

impl Sender {
    fn carry_out(&self, id: OpId, op: &Op) {
        match self.attempt(id, op) {
            Outcome::Done(left) => self.done(id, op, left),
            Outcome::Later(pause, why) => {
                log::debug!("{}: later ({why})", op.describe());
                self.local.0.journal.put_back(id, pause);
            }
            Outcome::Refused(error) if self.refusals(id) < patience(&error) => {
                let refusals = self.refused.lock().entry(id).and_modify(|count| *count += 1).or_insert(1).to_owned();
                log::info!("{}: {error}; it will be retried", op.describe());
                // In code the platform is being asked whether the mode was switched, so that the answer is near.
                let denied = op.area == Area::Code && matches!(error.kind, ErrorKind::PermissionDenied);
                self.local.noted(FsError::new("sync", &op.path, error));
                let pause = match refusals {
                    _ if denied => GATE_PAUSE,
                    ..SOON_TRIES => FAILURE_PAUSE,
                    _ => FULL_PAUSE,
                };
                self.local.0.journal.put_back(id, pause);
            }
            Outcome::Refused(error) => {
                if let Some(torn) = self.undo_if_touched(id, op) {
                    log::warn!("{}: {error}; {torn}; it will be retried", op.describe());
                    self.local.noted(FsError::new("sync", &op.path, error));
                    return self.local.0.journal.put_back(id, FULL_PAUSE);
                }
                self.refused.lock().remove(&id);
                self.local.reject(id, op, RejectKind::Stranded, FsError::new("sync", &op.path, error));
            }
            Outcome::Follows(kind, what) => {
                log::warn!("{}: {what}", op.describe());
                let cause = match kind {
                    RejectKind::Conflict => Cause::Conflict(what),
                    RejectKind::Stranded => Cause::Rejected(what),
                };
                self.local.reject(id, op, kind, FsError::new("sync", &op.path, cause));
            }
            Outcome::Closed(reason) => {
                self.local.reject(
                    id,
                    op,
                    RejectKind::Stranded,
                    FsError::new("sync", &op.path, Cause::ReadOnly(reason)),
                );
            }
            Outcome::Kept(what, copy) => {
                log::warn!("{}: {what}", op.describe());
                let error = FsError::new("sync", &op.path, Cause::Conflict(what));
                self.local.reject_kept(id, op, RejectKind::Conflict, error, Some(copy));
            }
            Outcome::Conflict(what) => {
                log::warn!("{}: {what}", op.describe());
                self.local.reject(id, op, RejectKind::Conflict, FsError::new("sync", &op.path, Cause::Conflict(what)));
            }
        }
    }

    /// How often the server has refused the operation.
    fn refusals(&self, id: OpId) -> u32 {
        self.refused.lock().get(&id).copied().unwrap_or_default()
    }

    fn attempt(&self, id: OpId, op: &Op) -> Outcome {
        if let Link::Down { why, .. } = self.remote.link() {
            self.root.while_down(&self.local, op.area);
            return Outcome::Later(LINK_PAUSE, why);
        }
        let permit = match self.admission.permit_sending(op.area) {
            Ok(permit) => permit,
            Err(Refused::Held(why)) => return Outcome::Later(GATE_PAUSE, why),
            // Not certain before the platform was asked.
            Err(Refused::Closed(ReadOnlyReason::RefusedByServer)) => {
                return Outcome::Later(GATE_PAUSE, "the platform is being asked for the mode".into());
            }
            Err(Refused::Closed(reason)) => return Outcome::Closed(reason),
        };
        if let Err(why) = self.root.before_sending(&self.local, &self.remote, op.area) {
            return Outcome::Later(AWAY_PAUSE, why);
        }
        if let Some(outcome) = self.in_missing_dir(op) {
            return outcome;
        }
        self.sweep_once(&permit, op.area);
        self.local.0.made.begins(op);
        if let Err(error) = op.paths().into_iter().try_for_each(|path| self.remote.resolve_second_names(&permit, path))
        {
            return self.classify(op, error);
        }
        let applied = match &op.action {
            Action::Put(put) => self.apply_content(&permit, id, op, put),
            Action::MakeDir { perm } => self.apply_mkdir(&permit, op, *perm),
            Action::Symlink { text } => self.apply_symlink(&permit, op, text),
            Action::Unlink { base, .. } => self.apply_unlink(&permit, op, *base),
            Action::RemoveDir => self.apply_rmdir(&permit, op),
            Action::Rename { to, base, replaced, dir } => {
                let ends = Ends { base: *base, replaced: *replaced, dir: *dir };
                self.apply_rename(&permit, id, op, to, ends)
            }
            Action::SetAttr { perm, times, link } => {
                self.apply_setattr(&permit, op, SetAttr { perm: *perm, times: *times, link: *link })
            }
        };
        let outcome = applied.unwrap_or_else(|error| self.classify(op, error));
        self.reject_rename(&permit, op, outcome)
    }

    /// Maps an error of the server to the outcome of the operation.
    fn classify(&self, op: &Op, error: RemoteError) -> Outcome {
        match &error.kind {
            ErrorKind::Down(_) | ErrorKind::Timeout | ErrorKind::Protocol(_) => {
                Outcome::Later(LINK_PAUSE, error.to_string())
            }
            ErrorKind::Refused(Refused::Held(why)) => Outcome::Later(GATE_PAUSE, why.clone()),
            ErrorKind::Refused(Refused::Closed(_)) => Outcome::Later(GATE_PAUSE, "the gate was closed".into()),
            ErrorKind::NoSpace => {
                self.local.noted(FsError::new("sync", &op.path, error));
                Outcome::Later(FULL_PAUSE, "the server's disk is full".into())
            }
            ErrorKind::PermissionDenied => {
                self.admission.denied(op.area);
                Outcome::Refused(error)
            }
            ErrorKind::NotFound => self.no_directory(op, error),
            ErrorKind::Conflict { found: None } => {
                self.unless_away(op, Outcome::Conflict("it was removed on the server meanwhile".into()))
            }
            ErrorKind::Conflict { .. } | ErrorKind::Changed { .. } => {
                Outcome::Conflict("another writer changed it on the server meanwhile".into())
            }
            ErrorKind::IsADirectory => Outcome::Conflict("there is a directory of that name on the server now".into()),
            _ => Outcome::Refused(error),
        }
    }

    fn done(&self, id: OpId, op: &Op, left: Expected) {
        self.local.0.view.touch_parents(op.paths());
        self.root.done(&self.local, op);
        if let Some(spool) = op.spool() {
            self.end_in_place(spool);
        }
        self.local.0.made.done(op, left);
        self.refused.lock().remove(&id);
        self.local.0.failures.lock().remove(op.awaited());
        self.local.0.given_up.done(op);
        let _ending = self.local.finish(id, left);
        self.local.release_after(op);
    }
}

/// How often an operation is retried that fails with this error.
fn patience(error: &RemoteError) -> u32 {
    match error.kind {
        ErrorKind::Failure(_) => MAX_FAILURES,
        _ => MAX_REFUSALS,
    }
}

/// Starts the worker thread, with a new [`Sender`] for each operation. It ends when the journal is closed or `local`
/// is dropped.
pub(super) fn start(local: &Local, sender: impl Fn(Local) -> Sender + Send + 'static) {
    let weak = Arc::downgrade(&local.0);
    let journal = local.0.journal.clone();
    let run = move || run(&journal, || weak.upgrade().map(Local).map(&sender));
    if let Err(error) = std::thread::Builder::new().name("upload".into()).spawn(run) {
        log::error!("nothing will be sent to the server: {error}");
    }
}

fn run(journal: &Arc<Journal>, sender: impl Fn() -> Option<Sender>) {
    let slots = Arc::new(Slots::default());
    // Its own pool, so that sending does not wait for threads that wait for the server elsewhere.
    let threads = Pool::new("send", MAX_RUNNING);
    loop {
        let next = journal.next(Instant::now() + TICK);
        let Some(sender) = sender() else { return };
        if journal.is_time_to_sync() {
            let journal = sender.local.0.journal.clone();
            background().run(move || journal.let_go_replaced());
        }
        match next {
            Next::Closed => return,
            Next::Idle => {
                sender.listeners.each(|listener| listener.idle());
                if let Err(error) = sender.local.save_unsaved() {
                    log::debug!("{error}");
                }
            }
            Next::Run(id, op, _) => {
                let bytes = if let Action::Put(put) = &op.action { put.len } else { 0 };
                slots.take(bytes);
                let slots = slots.clone();
                let journal = journal.clone();
                threads.run(move || {
                    if catch_unwind(AssertUnwindSafe(|| sender.carry_out(id, &op))).is_err() {
                        log::error!("{}: sending panicked; it is tried again", op.describe());
                        journal.put_back(id, FULL_PAUSE);
                    }
                    slots.give(bytes);
                });
            }
        }
    }
}
