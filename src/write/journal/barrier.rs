//! Waiting until the server has the recorded changes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::state::{Barrier, Journal, State};
use crate::write::op::OpId;
use crate::write::queue::Queue;

impl State {
    /// Whether an operation that the barrier waits for has not ended.
    fn holds_up(&self, token: u64) -> bool {
        let Some(barrier) = self.barriers.get(&token) else { return false };
        let first = |id: Option<OpId>| id.is_some_and(|id| id < barrier.limit);
        first(self.queue.ops().next().map(|(id, _)| id))
            || first(self.ending.first().copied())
            || barrier.also.iter().any(|id| self.queue.op(*id).is_some() || self.ending.contains(id))
    }
}

impl Journal {
    /// Waits until `done` returns true, and lets operations skip their settle time. Returns `false` if nothing
    /// progressed for `patience`.
    pub fn wait_until(&self, patience: Duration, done: impl Fn(&Queue) -> bool) -> bool {
        self.wait(patience, |state| done(&state.queue))
    }

    /// Waits like [`Journal::wait_until`] for all operations that were recorded before the call, and for those that
    /// they were folded into.
    pub fn barrier(&self, patience: Duration) -> bool {
        let token = self.next_barrier.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = self.lock();
            let limit = state.queue.next_id();
            state.barriers.insert(token, Barrier { limit, also: BTreeSet::new() });
        }
        let well = self.wait(patience, |state| !state.holds_up(token));
        self.lock().barriers.remove(&token);
        well
    }

    fn wait(&self, patience: Duration, done: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        state.hurry += 1;
        self.changed.notify_all();
        let (mut seen, mut since) = (state.steps, Instant::now());
        let mut well = done(&state);
        while !well && !state.closed {
            if state.steps != seen {
                (seen, since) = (state.steps, Instant::now());
            }
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            self.changed.wait_for(&mut state, left);
            well = done(&state);
        }
        state.hurry -= 1;
        well
    }
}
