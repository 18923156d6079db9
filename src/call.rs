//! Whether the caller of a request still waits for its answer. A call that waits in a thread of its own can be given up:
//! its caller was interrupted and has its answer. Such a call must have no effect any more; and one that has begun to
//! have an effect is not given up.
//!
//! The call belongs to the thread that carries it out, from [`Call::run`] on. Where no call was begun, nothing is ever
//! given up.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Call>>> = const { RefCell::new(None) };
}

/// One request that is being waited for.
#[derive(Debug, Default)]
pub struct Call(AtomicU8);

/// The caller was told that nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller was interrupted")]
pub struct GivenUp;

/// Ends the call of a thread, whatever way it is left.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        CURRENT.with(|current| current.borrow_mut().take());
    }
}

impl Call {
    /// Gives it up, unless it has begun to have an effect: then `false`.
    pub fn give_up(&self) -> bool {
        self.0.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Carries out `work` as this call.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
        let _running = Running;
        work()
    }
}

/// From here on the call has an effect. To be called after the last wait, and before anything is changed.
///
/// # Errors
///
/// [`GivenUp`]: nothing may be changed.
pub fn begin() -> Result<(), GivenUp> {
    CURRENT.with(|current| match &*current.borrow() {
        None => Ok(()),
        Some(call) => match call.0.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(BEGUN) => Ok(()),
            Err(_) => Err(GivenUp),
        },
    })
}

/// The change is made; what is waited for from here on may be given up without it.
pub fn wait_again() {
    CURRENT.with(|current| {
        if let Some(call) = &*current.borrow() {
            let _ = call.0.compare_exchange(BEGUN, WAITING, Ordering::AcqRel, Ordering::Acquire);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_given_up_does_not_begin_and_one_that_began_is_not_given_up() {
        let call = Arc::new(Call::default());
        assert!(call.give_up());
        assert_eq!(call.run(begin), Err(GivenUp));
        let call = Arc::new(Call::default());
        call.run(|| {
            assert_eq!((begin(), begin()), (Ok(()), Ok(())));
            assert!(!call.give_up());
            wait_again();
            assert!(call.give_up());
        });
        assert_eq!(begin(), Ok(()), "outside of a call nothing is given up");
    }
}
