//! Threads for work that may wait. Each kind of work has a pool of its own, so that what waits for the network never stands
//! before what needs only this machine.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A pool that grows to its limit. Jobs beyond it wait in their order. Cheap to clone.
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

/// For small things that are done behind the back of a caller.
pub fn background() -> &'static Pool {
    static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new("background", 64));
    &POOL
}

impl Pool {
    /// `name` is that of the threads; `limit` how many there may be.
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self(Arc::new(Inner { name, limit, state: Mutex::default(), more: Condvar::new() }))
    }

    /// Runs the job on a thread of the pool, now if one is free or may be made. A job that panics ends, and nothing else.
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
                // Those that there are take it; without any it is taken as soon as one can be made.
                let mut state = self.0.state.lock();
                state.threads -= 1;
                log::warn!("{}: no more threads than {}: {error}", self.0.name, state.threads);
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
                    log::error!("{}: a call panicked; see above", self.name);
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
                panic!("as asked");
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
