//! What the I/O thread and the threads that submit requests share.

use parking_lot::Mutex;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::error::SftpError;
use super::extensions::Capabilities;
use super::queue::{Callback, Class, Queue, Queued};
use super::request::Request;
use crate::transport::TransportInfo;

/// What went over the wire, for tests and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// Why no request is sent any more.
    pub(super) closed: Option<SftpError>,
    pub(super) counters: Counters,
}

/// See the module header.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    wake: OwnedFd,
    /// The I/O thread is about to wait, or waits: a submitter must wake it.
    sleeping: AtomicBool,
    pub(super) capabilities: Mutex<Capabilities>,
    pub(super) info: TransportInfo,
    pub(super) round_trip: Mutex<Option<Duration>>,
    /// File bytes per second that it carried at best; 0: not known yet.
    pub(super) rate: AtomicU64,
    /// The transport measured that a new connection may be faster.
    pub(super) should_reconnect: AtomicBool,
}

/// What wakes an I/O thread.
pub(super) fn wake_fd() -> Result<OwnedFd, SftpError> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    eventfd(0, flags).map_err(|e| SftpError::Lost(io::Error::from(e).into()))
}

impl Shared {
    pub(super) fn new(wake: OwnedFd, capabilities: Capabilities, info: TransportInfo) -> Self {
        Self {
            state: Mutex::default(),
            wake,
            sleeping: AtomicBool::new(false),
            capabilities: Mutex::new(capabilities),
            info,
            round_trip: Mutex::default(),
            rate: AtomicU64::new(0),
            should_reconnect: AtomicBool::new(false),
        }
    }

    /// Queues a request and wakes the I/O thread. A connection that is closed answers here and now.
    pub(super) fn submit(&self, request: Request, class: Class, callback: Callback) {
        let mut state = self.state.lock();
        if let Some(error) = state.closed.clone() {
            drop(state);
            return callback(Err(error));
        }
        state.queue.push(class, Queued { request, callback });
        drop(state);
        if self.sleeping.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// The first reason stays.
    pub(super) fn close(&self, why: SftpError) {
        self.state.lock().closed.get_or_insert(why);
        self.wake();
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// For the I/O thread: from here on a new request wakes it.
    pub(super) fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Release);
    }

    /// For the I/O thread: readable when it is woken.
    pub(super) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// For the I/O thread, after it was woken.
    pub(super) fn clear_wake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}
