//! Thread pools for blocking work. Each kind of work has its own pool, so that work that needs only this machine never
//! waits for threads that wait for the network.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long an idle thread is kept.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A pool that starts threads up to its limit. Further jobs are queued in their order. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    name: &'static str,
    limit: usize,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// The pool for short background work.
pub fn background() -> &'static Pool {
    static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new("background", 64));
    &POOL
}

impl Pool {
    /// `name` is the name of the threads, and `limit` their largest number.
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self(Arc::new(Inner { name, limit, state: Mutex::default(), more: Condvar::new() }))
    }

    /// Runs the job on a thread of the pool, as soon as one is free or can be started. A panic ends only the job.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            self.0.more.notify_one();
            return;
        }
        if state.threads < self.0.limit {
            state.threads += 1;
            drop(state);
            let inner = self.0.clone();
            let made = std::thread::Builder::new().name(self.0.name.into()).spawn(move || inner.work());
            if let Err(error) = made {
                // A running thread takes the job; if there is none, the next call tries to start one.
                let mut state = self.0.state.lock();
                state.threads -= 1;
                log::warn!("{}: no thread can be started beside {} others: {error}", self.0.name, state.threads);
            }
        }
    }
}

impl Inner {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("{}: a job panicked (see the log above)", self.name);
                }
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.more.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn jobs_beyond_the_limit_wait_and_a_panic_frees_its_thread() {
        let pool = Pool::new("test", 2);
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (done, finished) = mpsc::channel();
        for _ in 0..2 {
            let gate = gate.clone();
            pool.run(move || {
                let _ = gate.lock().recv_timeout(SOON);
                panic!("on purpose");
            });
        }
        pool.run(move || done.send(()).expect("waited for"));
        assert!(finished.recv_timeout(Duration::from_millis(100)).is_err(), "both threads are busy");
        go.send(()).expect("waited for");
        finished.recv_timeout(SOON).expect("a thread that panicked is free again");
        go.send(()).expect("waited for");
    }

    #[test]
    fn one_pool_does_not_wait_for_another() {
        let (slow, fast) = (Pool::new("slow", 1), Pool::new("fast", 1));
        let (_go, gate) = mpsc::channel::<()>();
        slow.run(move || assert!(gate.recv_timeout(SOON).is_err()));
        let (done, finished) = mpsc::channel();
        fast.run(move || done.send(()).expect("waited for"));
        finished.recv_timeout(SOON).expect("at once");
    }
}
