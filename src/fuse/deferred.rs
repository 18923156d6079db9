//! Calls that must wait: they run on a pool of threads, and their replies can be taken away by the signal watchdog.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::answer::{Answer, Reply};
use super::errno::Refusal;
use crate::call::Call;
use crate::fs::{Fs, FsResult, Wait};
use crate::pool::Pool;

/// Largest number of threads for each kind of call. Further calls wait for a thread of their kind.
const MAX_THREADS: usize = 2048;

/// The deferred calls, and the threads that run them.
pub(super) struct Waiting {
    calls: Mutex<HashMap<u64, Kept>>,
    next: AtomicU64,
    threads: [Pool; 3],
}

impl Default for Waiting {
    fn default() -> Self {
        let threads = ["read", "lookup", "change"].map(|name| Pool::new(name, MAX_THREADS));
        Self { calls: Mutex::default(), next: AtomicU64::default(), threads }
    }
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

/// An answer that either the worker or the watchdog gives.
struct Slot<R>(Mutex<Option<R>>);

impl<R> Slot<R> {
    fn take(&self) -> Option<R> {
        self.0.lock().take()
    }
}

/// Runs `call` where it may wait and gives its result to `ok`, or the error to the caller. A caller can be released as
/// long as its call has not begun to change anything. Then the call changes nothing any more, and `undo` gets a successful
/// result: references and handles that no `forget` or `release` will give back.
pub(super) fn defer<R: Reply, T: Send + 'static>(
    waiting: &Arc<Waiting>,
    fs: &Fs,
    answer: Answer<R>,
    call: impl FnOnce(&Fs, Wait) -> FsResult<T> + Send + 'static,
    ok: impl FnOnce(&Fs, Answer<R>, T) + Send + 'static,
    undo: impl FnOnce(&Fs, T) + Send + 'static,
) {
    answer.waits();
    let caller = answer.caller();
    let slot = Arc::new(Slot(Mutex::new(Some(answer))));
    let this = Arc::new(Call::default());
    let (watched, given_up) = (slot.clone(), this.clone());
    let interrupt = Arc::new(move || {
        let interrupted = given_up.give_up();
        if interrupted && let Some(answer) = watched.take() {
            answer.refuse(Refusal::Interrupted);
        }
        interrupted
    });
    let id = waiting.add(caller, interrupt);
    let (fs, waiting) = (fs.clone(), waiting.clone());
    // The deadline counts from now, not from the time when a thread is free.
    let until = Wait::Until(fs.deadline());
    let threads = waiting.threads[R::KIND as usize].clone();
    threads.run(move || {
        let result = catch_unwind(AssertUnwindSafe(|| this.run(|| call(&fs, until))));
        waiting.remove(id);
        match (slot.take(), result) {
            (Some(answer), Ok(Ok(value))) => ok(&fs, answer, value),
            (Some(answer), Ok(Err(error))) => answer.fail(&error),
            (Some(answer), Err(_)) => answer.refuse(Refusal::Panicked),
            (None, Ok(Ok(value))) => undo(&fs, value),
            (None, _) => {}
        }
    });
}
