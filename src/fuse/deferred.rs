//! Calls that must wait: they run on a pool of threads, and their replies can be taken away by the signal watchdog.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::call::Call;
use crate::fs::{Fs, FsError, FsResult, Wait};

use super::convert;

/// A reply of fuser's that can also say "no".
pub(super) trait Reply: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ty),*) => { $(impl Reply for $reply { fn fail(self, errno: Errno) { self.error(errno); } })* };
}
replies!(
    fuser::ReplyEmpty,
    fuser::ReplyData,
    fuser::ReplyEntry,
    fuser::ReplyAttr,
    fuser::ReplyOpen,
    fuser::ReplyWrite,
    fuser::ReplyCreate
);

/// Callers that are being kept waiting.
#[derive(Default)]
pub(super) struct Waiting {
    calls: Mutex<HashMap<u64, Kept>>,
    next: AtomicU64,
}

struct Kept {
    tid: u32,
    since: Instant,
    /// Answers EINTR, unless the call has begun to have an effect.
    interrupt: Interrupt,
}

/// Whether it did.
type Interrupt = Arc<dyn Fn() -> bool + Send + Sync>;

impl Waiting {
    fn add(&self, tid: u32, interrupt: Interrupt) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let call = Kept { tid, since: Instant::now(), interrupt };
        self.calls.lock().insert(id, call);
        id
    }

    fn remove(&self, id: u64) {
        self.calls.lock().remove(&id);
    }

    /// Answers EINTR for every caller that has waited for `grace` and is ending.
    pub(super) fn interrupt_where(&self, grace: Duration, is_ending: impl Fn(u32) -> bool) {
        let mut old: Vec<(u64, u32)> = {
            let calls = self.calls.lock();
            calls.iter().filter(|(_, call)| call.since.elapsed() >= grace).map(|(id, call)| (*id, call.tid)).collect()
        };
        old.retain(|(_, tid)| *tid != 0 && is_ending(*tid));
        for (id, _) in old {
            let interrupt = self.calls.lock().get(&id).map(|call| call.interrupt.clone());
            if interrupt.is_some_and(|interrupt| interrupt()) {
                self.remove(id);
            }
        }
    }
}

/// A reply that either the worker or the watchdog gives.
struct Slot<R>(Mutex<Option<R>>);

impl<R> Slot<R> {
    fn take(&self) -> Option<R> {
        self.0.lock().take()
    }
}

/// Runs `call` where it may wait and hands its result to `answer`. A caller can be released as long as its call has not
/// begun to change anything. Then the call changes nothing any more, and `undo` gets a successful result: references and
/// handles that the kernel will not give back.
pub(super) fn defer<R: Reply, T: Send + 'static>(
    waiting: &Arc<Waiting>,
    fs: &Fs,
    tid: u32,
    reply: R,
    call: impl FnOnce(&Fs, Wait) -> FsResult<T> + Send + 'static,
    answer: impl FnOnce(&Fs, R, FsResult<T>) + Send + 'static,
    undo: impl FnOnce(&Fs, T) + Send + 'static,
) {
    let slot = Arc::new(Slot(Mutex::new(Some(reply))));
    let this = Arc::new(Call::default());
    let (watched, given_up) = (slot.clone(), this.clone());
    let interrupt = Arc::new(move || {
        let interrupted = given_up.give_up();
        if interrupted && let Some(reply) = watched.take() {
            reply.fail(Errno::EINTR);
        }
        interrupted
    });
    let id = waiting.add(tid, interrupt);
    let (fs, waiting) = (fs.clone(), waiting.clone());
    blocking::unblock(move || {
        let result = this.run(|| call(&fs, Wait::Until(fs.deadline())));
        waiting.remove(id);
        match (slot.take(), result) {
            (Some(reply), result) => answer(&fs, reply, result),
            (None, Ok(value)) => undo(&fs, value),
            (None, Err(_)) => {}
        }
    })
    .detach();
}

/// The answer for a failed call.
pub(super) fn refuse(reply: impl Reply, error: &FsError) {
    log::debug!("{error}");
    reply.fail(convert::errno(error));
}
