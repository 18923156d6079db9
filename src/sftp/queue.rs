//! Requests that wait to be sent, by class, and which of them is next.

use std::collections::VecDeque;

use super::error::SftpError;
use super::reply::Reply;
use super::request::Request;
use super::window::Window;

/// Who waits for the answer. Requests of an earlier class are sent before those of a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A program waits in a system call.
    Interactive,
    /// No program yet: what is renewed before it is too old. Small, and useless when it comes late.
    Background,
    /// No program yet, or one that expects to wait: content of files.
    Bulk,
}

pub(super) type Callback = Box<dyn FnOnce(Result<Reply, SftpError>) + Send>;

pub(super) struct Queued {
    pub(super) request: Request,
    pub(super) callback: Callback,
}

/// See the module header.
#[derive(Default)]
pub(super) struct Queue {
    /// One for each [`Class`].
    waiting: [VecDeque<Queued>; 3],
}

impl Queue {
    pub(super) fn push(&mut self, class: Class, queued: Queued) {
        self.waiting[class as usize].push_back(queued);
    }

    pub(super) fn into_callbacks(self) -> impl Iterator<Item = Callback> {
        self.waiting.into_iter().flatten().map(|queued| queued.callback)
    }

    /// The next request that may be sent while so many requests and file bytes are under way.
    pub(super) fn next(&mut self, window: &Window, requests: usize, under_way: u64) -> Option<Queued> {
        let mut bulk_left = window.bulk_bytes().saturating_sub(under_way);
        for (class, queue) in self.waiting.iter_mut().enumerate() {
            // A caller's small request may exceed the window a little: it must not wait for a slot behind the bulk.
            let room = if class == Class::Interactive as usize { 32 } else { 0 };
            let Some(first) = queue.front() else { continue };
            let bulk = first.request.bulk_bytes();
            let fits = bulk == 0 || bulk <= bulk_left || under_way == 0;
            if fits && requests < window.requests() + room {
                return queue.pop_front();
            }
            if !fits {
                // The room is left for it: smaller requests of later classes would take it for ever.
                bulk_left = 0;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_of_a_caller_are_not_starved_by_small_ones_in_the_background() {
        let mut queue = Queue::default();
        let mut put = |class: Class, len: u32| {
            let request = Request::Read { handle: Vec::new(), offset: 0, len };
            queue.push(class, Queued { request, callback: Box::new(|_| {}) });
        };
        let window = Window::new();
        let whole = u32::try_from(window.bulk_bytes()).expect("small");
        put(Class::Interactive, whole);
        (0..4).for_each(|_| put(Class::Bulk, whole / 8));
        let mut next = |under_way: u64| queue.next(&window, 1, under_way).map(|queued| queued.request.bulk_bytes());
        assert_eq!(next(u64::from(whole / 2)), None, "what is under way comes in first");
        assert_eq!(next(0), Some(u64::from(whole)));
        assert_eq!(next(u64::from(whole / 2)), Some(u64::from(whole / 8)));
    }
}
