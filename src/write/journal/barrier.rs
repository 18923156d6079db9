//! Waiting until the server has what was recorded.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::state::{Barrier, Journal, State};
use crate::write::op::OpId;
use crate::write::queue::Queue;

impl State {
    /// Whether something that the barrier waits for is not over.
    fn holds_up(&self, token: u64) -> bool {
        let Some(barrier) = self.barriers.get(&token) else { return false };
        let first = |id: Option<OpId>| id.is_some_and(|id| id < barrier.limit);
        first(self.queue.ops().next().map(|(id, _)| id))
            || first(self.ending.first().copied())
            || barrier.also.iter().any(|id| self.queue.op(*id).is_some() || self.ending.contains(id))
    }
}

impl Journal {
    /// Waits until `done` holds, in a hurry, as long as something moves within every `patience`. `false`: it does not.
    pub fn wait_until(&self, patience: Duration, done: impl Fn(&Queue) -> bool) -> bool {
        self.wait(patience, |state| done(&state.queue))
    }

    /// Waits like `wait_until` for what was recorded before the call, whatever it was folded into meanwhile.
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
