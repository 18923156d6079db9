//! The limit on handles that are open on the server at once. A call above the limit waits until a handle is closed.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::sftp::Class;

/// The limit where the server does not tell one.
const DEFAULT_HANDLES: usize = 100;
/// More than this is never needed to fill the window of requests.
const MAX_HANDLES: usize = 512;

type Turn = Box<dyn FnOnce(Slot) + Send>;

/// The handles of one session.
#[derive(Clone)]
pub(super) struct Handles(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// One for each [`Class`].
    waiting: [VecDeque<Turn>; 3],
    /// A caller up the stack or on another thread hands out turns already, and serves this one, too: a dead session with
    /// many waiting calls must not become a deep recursion.
    serving: bool,
}

/// The right to one open handle; given back when dropped.
pub(super) struct Slot(Handles);

impl Handles {
    pub(super) fn new(told: u32) -> Self {
        let free = match told as usize {
            0 => DEFAULT_HANDLES,
            // Leaves room for handles that the server counts and this client does not.
            n => n.saturating_sub(n / 16 + 1).clamp(1, MAX_HANDLES),
        };
        Self(Arc::new(Mutex::new(State { free, waiting: Default::default(), serving: false })))
    }

    /// How many may be opened now.
    pub(super) fn free(&self) -> usize {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Calls `turn` as soon as a handle may be opened: now, or on the thread that closes one.
    pub(super) fn acquire(&self, class: Class, turn: impl FnOnce(Slot) + Send + 'static) {
        self.lock().waiting[class as usize].push_back(Box::new(turn));
        self.serve();
    }

    fn serve(&self) {
        let mut state = self.lock();
        if state.serving {
            return;
        }
        state.serving = true;
        while state.free > 0 {
            let Some(turn) = state.waiting.iter_mut().find_map(VecDeque::pop_front) else { break };
            state.free -= 1;
            drop(state);
            turn(Slot(self.clone()));
            state = self.lock();
        }
        state.serving = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_than_allowed_and_every_waiting_call_gets_a_turn() {
        let handles = Handles::new(3);
        let held: Arc<Mutex<Vec<Slot>>> = Arc::default();
        let turns = Arc::new(AtomicUsize::new(0));
        for _ in 0..1000 {
            let (held, turns) = (held.clone(), turns.clone());
            handles.acquire(Class::Background, move |slot| {
                turns.fetch_add(1, Ordering::Relaxed);
                held.lock().push(slot);
            });
        }
        assert_eq!(turns.load(Ordering::Relaxed), 2, "a sixteenth and one are left alone");
        while let Some(slot) = { held.lock().pop() } {
            drop(slot);
        }
        assert_eq!(turns.load(Ordering::Relaxed), 1000);
    }
}
