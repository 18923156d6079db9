//! One fetch for all that want the same block: the first becomes the leader, the others wait for its result.
//!
//! The leader's ticket may be completed from any thread. A ticket that is dropped without a result wakes its waiters
//! without one, so that they do not wait until their deadline.

use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Deadlines are the caller's; this room only needs an instant.
use std::time::Instant;

type Slots<K, T> = Arc<Mutex<HashMap<K, Arc<Slot<T>>>>>;

/// The fetches in progress, by key.
pub struct InFlight<K, T> {
    slots: Slots<K, T>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    turned: Condvar,
}

enum State<T> {
    Pending,
    Done(T),
    Abandoned,
}

/// The role of a caller.
pub enum Role<K: Eq + Hash + Clone, T> {
    /// It must fetch, then call [`Ticket::complete`].
    Leader(Ticket<K, T>),
    Follower(Waiter<T>),
}

/// The duty to produce the result for a key.
pub struct Ticket<K: Eq + Hash + Clone, T> {
    key: K,
    slots: Slots<K, T>,
    slot: Arc<Slot<T>>,
}

/// Waits for the result of another caller's fetch.
pub struct Waiter<T>(Arc<Slot<T>>);

impl<K: Eq + Hash + Clone, T: Clone> Default for InFlight<K, T> {
    fn default() -> Self {
        Self { slots: Arc::default() }
    }
}

impl<K: Eq + Hash + Clone, T: Clone> InFlight<K, T> {
    pub fn join(&self, key: K) -> Role<K, T> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&key) {
            return Role::Follower(Waiter(slot.clone()));
        }
        let slot = Arc::new(Slot { state: Mutex::new(State::Pending), turned: Condvar::new() });
        slots.insert(key.clone(), slot.clone());
        Role::Leader(Ticket { key, slots: self.slots.clone(), slot })
    }

    /// A fetch in progress for the key.
    pub fn peek(&self, key: &K) -> Option<Waiter<T>> {
        let slots = self.slots.lock();
        slots.get(key).map(|slot| Waiter(slot.clone()))
    }

    /// Number of fetches in progress, for the status.
    pub fn len(&self) -> usize {
        self.slots.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash + Clone, T> Ticket<K, T> {
    pub fn waiter(&self) -> Waiter<T> {
        Waiter(self.slot.clone())
    }

    pub fn complete(self, value: T) {
        self.turn(State::Done(value));
    }

    fn turn(&self, to: State<T>) {
        // Removed from the map first: a caller that arrives after the result must fetch again.
        self.slots.lock().remove(&self.key);
        *self.slot.state.lock() = to;
        self.slot.turned.notify_all();
    }
}

impl<K: Eq + Hash + Clone, T> Drop for Ticket<K, T> {
    fn drop(&mut self) {
        let pending = matches!(*self.slot.state.lock(), State::Pending);
        if pending {
            self.turn(State::Abandoned);
        }
    }
}

impl<T: Clone> Waiter<T> {
    /// The result; `None` if the leader gave up or `until` passed.
    pub fn wait(&self, until: Instant) -> Option<T> {
        let mut state = self.0.state.lock();
        loop {
            match &*state {
                State::Done(value) => return Some(value.clone()),
                State::Abandoned => return None,
                State::Pending => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.0.turned.wait_for(&mut state, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn followers_share_the_leaders_result() {
        let flights: InFlight<u8, u32> = InFlight::default();
        let Role::Leader(ticket) = flights.join(1) else { panic!("no other fetch is in progress") };
        let Role::Follower(waiter) = flights.join(1) else { panic!("one fetch only") };
        let until = Instant::now() + Duration::from_secs(5);
        let follower = std::thread::spawn(move || waiter.wait(until));
        ticket.complete(42);
        assert_eq!(follower.join().expect("no panic"), Some(42));
        assert!(flights.is_empty());
        assert!(matches!(flights.join(1), Role::Leader(_)), "a later caller fetches anew");
    }

    #[test]
    fn a_lost_leader_wakes_its_followers() {
        let flights: InFlight<u8, u32> = InFlight::default();
        let Role::Leader(ticket) = flights.join(1) else { panic!("no other fetch is in progress") };
        let waiter = ticket.waiter();
        drop(ticket);
        assert_eq!(waiter.wait(Instant::now() + Duration::from_secs(5)), None);
    }
}
