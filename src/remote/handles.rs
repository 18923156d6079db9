//! The limit on handles that are open on the server at once. A call above the limit waits until a handle is closed. Not every
//! server tells its limit: an OPEN that is refused while others are open lowers it, and it grows again slowly.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::sftp::Class;

/// The limit where the server does not tell one.
const DEFAULT_HANDLES: usize = 100;
/// More than this is never needed to fill the window of requests.
const MAX_HANDLES: usize = 512;
/// The limit is not lowered below this: a server that refuses an OPEN beside so few has another reason.
const MIN_HANDLES: usize = 4;
/// The number of closed handles after which a lowered limit grows by one.
const CLOSED_PER_GROWTH: usize = 64;
/// How often a call is repeated whose OPEN was refused while others were open.
pub(super) const MAX_REFUSALS: u32 = 8;

type Turn = Box<dyn FnOnce(Slot) + Send>;

/// The handles of one session.
#[derive(Clone)]
pub(super) struct Handles(Arc<Mutex<State>>);

struct State {
    /// How many may be open now, and what the server told.
    limit: usize,
    told: usize,
    open: usize,
    /// Since the limit was changed last.
    closed: usize,
    /// How often the limit was lowered.
    lowered: u64,
    /// One for each [`Class`].
    waiting: [VecDeque<Turn>; 3],
    /// A caller up the stack or on another thread hands out turns already, and serves this one, too: a dead session with
    /// many waiting calls must not become a deep recursion.
    serving: bool,
}

/// The right to one open handle; given back when dropped.
pub(super) struct Slot {
    handles: Handles,
    /// How often the limit had been lowered when it was given out.
    lowered: u64,
}

fn limit(told: u32) -> usize {
    match told as usize {
        0 => DEFAULT_HANDLES,
        // Leaves room for handles that the server counts and this client does not.
        n => n.saturating_sub(n / 16 + 1).clamp(1, MAX_HANDLES),
    }
}

impl Handles {
    pub(super) fn new(told: u32) -> Self {
        let told = limit(told);
        Self(Arc::new(Mutex::new(State {
            limit: told,
            told,
            open: 0,
            closed: 0,
            lowered: 0,
            waiting: Default::default(),
            serving: false,
        })))
    }

    /// The server told its limit after the session was opened. Returns how many handles may be open from now on.
    pub(super) fn told(&self, told: u32) -> usize {
        let limit = {
            let mut state = self.lock();
            let told = limit(told);
            // One that was lowered since stays.
            state.limit = if state.limit < state.told { state.limit.min(told) } else { told };
            state.told = told;
            state.limit
        };
        self.serve();
        limit
    }

    /// How many may be open at a time.
    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// How many may be opened now.
    pub(super) fn free(&self) -> usize {
        let state = self.lock();
        state.limit.saturating_sub(state.open)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Calls `turn` as soon as a handle may be opened: now, or on the thread that closes one.
    pub(super) fn acquire(&self, class: Class, turn: impl FnOnce(Slot) + Send + 'static) {
        self.lock().waiting[class as usize].push_back(Box::new(turn));
        self.serve();
    }

    /// Called when the server answered an OPEN with FAILURE, which says nothing about the reason. If other handles are open,
    /// it may have none left: then the limit is lowered, once for all that were opened under it, and the caller should ask
    /// again.
    pub(super) fn refused(&self, slot: &Slot) -> bool {
        let mut state = self.lock();
        if state.open <= MIN_HANDLES {
            return false;
        }
        let limit = (state.open - state.open / 4).max(MIN_HANDLES);
        if limit < state.limit && slot.lowered == state.lowered {
            log::info!("the server refuses to open more beside {} handles; at most {limit} are used", state.open);
            (state.limit, state.closed) = (limit, 0);
            state.lowered += 1;
        }
        true
    }

    fn serve(&self) {
        let mut state = self.lock();
        if state.serving {
            return;
        }
        state.serving = true;
        while state.open < state.limit {
            let Some(turn) = state.waiting.iter_mut().find_map(VecDeque::pop_front) else { break };
            state.open += 1;
            let lowered = state.lowered;
            drop(state);
            turn(Slot { handles: self.clone(), lowered });
            state = self.lock();
        }
        state.serving = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.handles.lock();
            state.open -= 1;
            state.closed += 1;
            if state.closed >= CLOSED_PER_GROWTH && state.limit < state.told {
                (state.limit, state.closed) = (state.limit + 1, 0);
            }
        }
        self.handles.serve();
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

    #[test]
    fn a_refusal_lowers_the_limit_until_many_were_closed() {
        let handles = Handles::new(0);
        let held: Arc<Mutex<Vec<Slot>>> = Arc::default();
        let open = |count: usize| {
            for _ in 0..count {
                let held = held.clone();
                handles.acquire(Class::Bulk, move |slot| held.lock().push(slot));
            }
        };
        let count = || held.lock().len();
        let refused = |at: usize| handles.refused(&held.lock()[at]);
        open(MIN_HANDLES);
        assert!(!refused(0), "so few are not too many");
        open(36);
        assert!((0..10).all(refused), "all are asked for again, and the limit is lowered once");
        open(5);
        assert_eq!(count(), 40, "none is opened while 40 are open and the limit is 30");
        let all = std::mem::take(&mut *held.lock());
        drop(all);
        assert_eq!((count(), handles.free()), (5, 25));
        for _ in 0..CLOSED_PER_GROWTH {
            open(1);
            let last = held.lock().pop();
            drop(last);
        }
        assert!(handles.free() >= 26, "{}", handles.free());
    }
}
