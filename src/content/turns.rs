//! How many stretches of content are asked for at a time. A few handles of the server are left alone: a comparison before a
//! save must not wait for readers whose answers do not come.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::remote::Class;

type Turn = Box<dyn FnOnce(Ticket) + Send>;

#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    under_way: usize,
    /// For callers, and for whoever comes later.
    waiting: [VecDeque<Turn>; 2],
    /// Turns are being given already: nested calls leave it to them, however many there are.
    serving: bool,
}

/// A stretch that is under way, until it is dropped.
pub(super) struct Ticket(Turns, usize);

impl Turns {
    /// Calls `turn` now if fewer than `limit` are under way, otherwise as soon as they are.
    pub(super) fn take(&self, class: Class, limit: usize, turn: impl FnOnce(Ticket) + Send + 'static) {
        self.0.lock().waiting[usize::from(class != Class::Interactive)].push_back(Box::new(turn));
        self.serve(limit);
    }

    fn serve(&self, limit: usize) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.serving, true) {
            return;
        }
        while state.under_way < limit {
            let Some(turn) = state.waiting.iter_mut().find_map(VecDeque::pop_front) else { break };
            state.under_way += 1;
            drop(state);
            turn(Ticket(self.clone(), limit));
            state = self.0.lock();
        }
        state.serving = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.lock().under_way -= 1;
        self.0.serve(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_limited_and_callers_come_first() {
        let turns = Turns::default();
        let (held, order) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        for (number, class) in [Class::Bulk, Class::Bulk, Class::Bulk, Class::Interactive].into_iter().enumerate() {
            let (held, order) = (held.clone(), order.clone());
            turns.take(class, 2, move |ticket| {
                order.lock().push(number);
                held.lock().push(ticket);
            });
        }
        assert_eq!(*order.lock(), [0, 1]);
        while let Some(ticket) = { held.lock().pop() } {
            drop(ticket);
        }
        assert_eq!(*order.lock(), [0, 1, 3, 2]);
    }
}
