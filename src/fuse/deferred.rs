//! Calls that must wait: they run on a pool of threads, and their replies can be taken away by the signal watchdog.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::fs::{Fs, FsError, FsResult, Wait};
use crate::pool::Pool;

use super::convert;

/// What a call waits for, going by its reply. Each kind has threads of its own: a save is not kept waiting by those who wait
/// for bytes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Bytes of a file.
    Read,
    /// Names, attributes, and whether a file can be opened.
    Look,
    /// A change, which mostly needs this machine only.
    Change,
}

/// Threads for each kind of call at most: more callers than that wait in line, for their own kind only.
const MAX_THREADS: usize = 2048;

/// A reply of fuser's that can also say "no".
pub(super) trait Reply: Send + 'static {
    const KIND: Kind;

    fn fail(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ident: $kind:ident),*) => { $(impl Reply for fuser::$reply {
        const KIND: Kind = Kind::$kind;

        fn fail(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}
replies!(
    ReplyData: Read,
    ReplyEntry: Look,
    ReplyAttr: Look,
    ReplyOpen: Look,
    ReplyEmpty: Change,
    ReplyWrite: Change,
    ReplyCreate: Change
);

/// Callers that are being kept waiting, and the threads that wait for them.
pub(super) struct Waiting {
    calls: Mutex<HashMap<u64, Call>>,
    next: AtomicU64,
    threads: [Pool; 3],
}

impl Default for Waiting {
    fn default() -> Self {
        let threads = ["reading", "looking", "changing"].map(|name| Pool::new(name, MAX_THREADS));
        Self { calls: Mutex::default(), next: AtomicU64::default(), threads }
    }
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
    // From here on, not from when a thread is free.
    let until = Wait::Until(fs.deadline());
    let threads = waiting.threads[R::KIND as usize].clone();
    threads.run(move || {
        let result = catch_unwind(AssertUnwindSafe(|| call(&fs, until)));
        waiting.remove(id);
        match (slot.take(), result) {
            (Some(reply), Ok(result)) => answer(&fs, reply, result),
            (Some(reply), Err(_)) => {
                log::error!("a call panicked; its caller is told EIO");
                reply.fail(Errno::EIO);
            }
            (None, Ok(Ok(value))) => undo(&fs, value),
            (None, _) => {}
        }
    });
}

/// The answer for a failed call.
pub(super) fn refuse(reply: impl Reply, error: &FsError) {
    log::debug!("{error}");
    reply.fail(convert::errno(error));
}
