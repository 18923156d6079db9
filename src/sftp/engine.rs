//! The pipelining engine: one I/O thread owns the connection, any number of threads submit requests.
//!
//! Answers are handed to callbacks on the I/O thread, which must be short. Requests that a program waits for overtake
//! prefetching and uploads in the queue (a sent request cannot be overtaken, hence the windows). A connection on which
//! nothing comes for the whole time limit although answers are due counts as dead.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::error::{Loss, SftpError};
use super::extensions::Capabilities;
use super::queue::Class;
use super::reply::Reply;
use super::request::Request;
use super::shared::{Counters, Shared, wake_fd};
use super::stream::Stream;
use super::worker::Worker;
use crate::clock::Deadline;
use crate::transport::{Transport, TransportInfo};

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How long an answer may take after the request was sent.
    pub timeout: Duration,
}

/// A running engine. Dropping it ends the connection.
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Agrees on the version and starts the I/O thread. `closed` is called once, from that thread, when the connection ends.
    pub fn start(
        transport: Box<dyn Transport>,
        config: Config,
        deadline: Deadline,
        closed: impl FnOnce(SftpError) + Send + 'static,
    ) -> Result<Self, SftpError> {
        let wake = wake_fd()?;
        let mut stream = Stream::new(transport);
        let capabilities = stream.negotiate(&wake, deadline)?;
        let shared = Arc::new(Shared::new(wake, capabilities, stream.info()));
        let worker = Worker::new(shared.clone(), stream, config.timeout);
        std::thread::Builder::new()
            .name("sftp-io".into())
            .spawn(move || closed(worker.run()))
            .map_err(|e| SftpError::Lost(e.into()))?;
        Ok(Self { shared })
    }

    /// Makes the first call, and learns the server's limits beside it: both cost one round trip.
    pub fn first_call(&self, request: Request, deadline: Deadline) -> Result<Reply, SftpError> {
        let limits = self.capabilities().limits.then(|| self.send(Request::limits(), Class::Interactive));
        let answer = self.call(request, Class::Interactive, deadline);
        if let Some(limits) = limits {
            self.take_limits(limits.wait(deadline));
        }
        answer
    }

    fn take_limits(&self, reply: Result<Reply, SftpError>) {
        if let Ok(Reply::Extended(reply)) = reply
            && let Ok(capabilities) = self.capabilities().with_limits(&reply)
        {
            *self.shared.capabilities.lock() = capabilities;
        }
    }

    pub fn capabilities(&self) -> Capabilities {
        *self.shared.capabilities.lock()
    }

    pub fn info(&self) -> &TransportInfo {
        &self.shared.info
    }

    /// File bytes per second that it carried at best, once there was a busy second.
    pub fn rate(&self) -> Option<u64> {
        Some(self.shared.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Whether a new connection may be faster, as measured.
    pub fn should_reconnect(&self) -> bool {
        self.shared.should_reconnect.load(Ordering::Relaxed)
    }

    pub fn counters(&self) -> Counters {
        self.shared.state.lock().counters
    }

    /// Shortest round trip seen so far.
    pub fn round_trip(&self) -> Option<Duration> {
        *self.shared.round_trip.lock()
    }

    /// Queues a request; `callback` runs on the I/O thread, or here and now when the connection is gone.
    pub fn submit(
        &self,
        request: Request,
        class: Class,
        callback: impl FnOnce(Result<Reply, SftpError>) + Send + 'static,
    ) {
        self.shared.submit(request, class, Box::new(callback));
    }

    /// Queues a request whose answer is waited for later: this is how calls are pipelined.
    pub fn send(&self, request: Request, class: Class) -> Pending {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(request, class, move |result| drop(sender.send(result)));
        Pending(receiver)
    }

    pub fn call(&self, request: Request, class: Class, deadline: Deadline) -> Result<Reply, SftpError> {
        self.send(request, class).wait(deadline)
    }

    /// Ends the connection now: what is queued or under way fails with the reason.
    pub fn close(&self, why: &str) {
        self.shared.close(SftpError::Lost(Loss::new(why)));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.close(SftpError::Lost(Loss::new("closed")));
    }
}

/// An answer that is on its way.
pub struct Pending(mpsc::Receiver<Result<Reply, SftpError>>);

impl Pending {
    pub fn wait(self, deadline: Deadline) -> Result<Reply, SftpError> {
        self.0.recv_timeout(deadline.remaining()).unwrap_or(Err(SftpError::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn start(script: &str) -> Result<Engine, SftpError> {
        let args = [std::ffi::OsStr::new("-c"), std::ffi::OsStr::new(script)];
        let transport = crate::transport::exec(Path::new("/bin/sh"), &args).expect("a shell");
        let config = Config { timeout: Duration::from_millis(500) };
        Engine::start(transport, config, Deadline::after(Duration::from_secs(5)), |_| {})
    }

    fn lstat() -> Request {
        Request::Lstat { path: b"x".to_vec() }
    }

    #[test]
    fn an_invalid_version_packet_is_an_error() {
        assert!(matches!(start("printf 'This account is not available\\n'; sleep 1"), Err(SftpError::Protocol(_))));
        assert!(matches!(start("exit 0"), Err(SftpError::Lost(_))));
    }

    #[test]
    fn a_silent_server_is_given_up_and_an_answer_nobody_asked_for_is_fatal() {
        let version = r"printf '\000\000\000\005\002\000\000\000\003'";
        let soon = Deadline::after(Duration::from_secs(5));
        let engine = start(&format!("{version}; sleep 30")).expect("a version came");
        assert!(matches!(engine.call(lstat(), Class::Interactive, soon), Err(SftpError::Lost(_))));
        let answer = r"printf '\000\000\000\005\145\000\000\000\143'";
        let engine = start(&format!("{version}; sleep 0.1; {answer}; sleep 30")).expect("a version came");
        let error = engine.call(lstat(), Class::Interactive, soon);
        assert!(matches!(error, Err(SftpError::Protocol(_))), "{error:?}");
    }
}
