//! Limits the number of concurrent fetches. Some of the server's handles stay unused by them, so that the comparison before
//! a save does not wait for fetches whose answers do not come.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::remote::Class;

type Fetch = Box<dyn FnOnce(Permit) + Send>;

#[derive(Clone, Default)]
pub(super) struct FetchLimit(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: usize,
    /// Interactive fetches, and the others.
    waiting: [VecDeque<Fetch>; 2],
    /// A thread starts fetches already: nested calls leave it to that thread, which bounds the depth of the stack.
    serving: bool,
}

/// Counts as a running fetch until it is dropped.
pub(super) struct Permit(FetchLimit, usize);

impl FetchLimit {
    /// Calls `fetch` as soon as fewer than `limit` fetches are running.
    pub(super) fn run(&self, class: Class, limit: usize, fetch: impl FnOnce(Permit) + Send + 'static) {
        self.0.lock().waiting[usize::from(class != Class::Interactive)].push_back(Box::new(fetch));
        self.serve(limit);
    }

    fn serve(&self, limit: usize) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.serving, true) {
            return;
        }
        while state.running < limit {
            let Some(fetch) = state.waiting.iter_mut().find_map(VecDeque::pop_front) else { break };
            state.running += 1;
            drop(state);
            fetch(Permit(self.clone(), limit));
            state = self.0.lock();
        }
        state.serving = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.lock().running -= 1;
        self.0.serve(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_are_limited_and_interactive_ones_come_first() {
        let limit = FetchLimit::default();
        let (held, order) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        for (number, class) in [Class::Bulk, Class::Bulk, Class::Bulk, Class::Interactive].into_iter().enumerate() {
            let (held, order) = (held.clone(), order.clone());
            limit.run(class, 2, move |permit| {
                order.lock().push(number);
                held.lock().push(permit);
            });
        }
        assert_eq!(*order.lock(), [0, 1]);
        while let Some(permit) = { held.lock().pop() } {
            drop(permit);
        }
        assert_eq!(*order.lock(), [0, 1, 3, 2]);
    }
}
