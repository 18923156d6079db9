//! Which objects have an operation under way on the server, so that two of them never meet on one path.
//!
//! Not a mutex: nothing is locked while the network is waited for. A holder is a mark with a bounded wait in front of
//! it, and moving a directory waits until nothing is under way anywhere, since it changes the paths of all below.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::clock::Deadline;

/// See the module header. Cheap to clone.
#[derive(Clone, Default)]
pub struct Busy(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    objects: HashSet<u64>,
    everything: bool,
}

/// The mark; gone when dropped.
pub struct BusyGuard {
    busy: Busy,
    objects: Vec<u64>,
    everything: bool,
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks these objects; `None` when they did not become free before the deadline.
    pub fn objects(&self, objects: &[u64], deadline: Deadline) -> Option<BusyGuard> {
        let mut state =
            self.wait(deadline, |state| !state.everything && objects.iter().all(|o| !state.objects.contains(o)))?;
        state.objects.extend(objects);
        Some(BusyGuard { busy: self.clone(), objects: objects.to_vec(), everything: false })
    }

    /// Marks everything, for moves of directories.
    pub fn everything(&self, deadline: Deadline) -> Option<BusyGuard> {
        let mut state = self.wait(deadline, |state| !state.everything && state.objects.is_empty())?;
        state.everything = true;
        Some(BusyGuard { busy: self.clone(), objects: Vec::new(), everything: true })
    }

    fn wait(&self, deadline: Deadline, free: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let mut state = self.lock();
        while !free(&state) {
            let left = deadline.remaining();
            if left.is_zero() {
                return None;
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut state = self.busy.lock();
        for object in &self.objects {
            state.objects.remove(object);
        }
        state.everything &= !self.everything;
        self.busy.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_at_a_time_per_object_and_alone_for_everything() {
        let busy = Busy::default();
        let (soon, now) = (Deadline::after(Duration::from_secs(5)), Deadline::after(Duration::ZERO));
        let one = busy.objects(&[1], soon).expect("free");
        assert!(busy.objects(&[1, 2], now).is_none());
        assert!(busy.everything(now).is_none());
        let two = busy.objects(&[2], now).expect("free");
        drop((one, two));
        let all = busy.everything(now).expect("free");
        assert!(busy.objects(&[3], now).is_none());
        drop(all);
        assert!(busy.objects(&[3], now).is_some());
    }
}
