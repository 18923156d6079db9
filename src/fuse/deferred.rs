//! Calls that must wait: they run on a pool of threads, and their replies can be taken away by the signal watchdog.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuser::Errno;

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
    calls: Mutex<HashMap<u64, Call>>,
    next: AtomicU64,
}

struct Call {
    tid: u32,
    since: Instant,
    interrupt: Box<dyn FnOnce() + Send>,
}

impl Waiting {
    fn add(&self, tid: u32, interrupt: Box<dyn FnOnce() + Send>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let call = Call { tid, since: Instant::now(), interrupt };
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
            let call = self.calls.lock().remove(&id);
            if let Some(call) = call {
                (call.interrupt)();
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

/// Runs `call` where it may wait and hands its result to `answer`. If the caller was released meanwhile, `undo` gets a
/// successful result instead: references and handles that nobody will give back.
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
    let watched = slot.clone();
    let interrupt = Box::new(move || {
        if let Some(reply) = watched.take() {
            reply.fail(Errno::EINTR);
        }
    });
    let id = waiting.add(tid, interrupt);
    let (fs, waiting) = (fs.clone(), waiting.clone());
    blocking::unblock(move || {
        let result = call(&fs, Wait::Until(fs.deadline()));
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
