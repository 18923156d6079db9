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
use super::flights::Flights;
use super::queue::{Callback, Class};
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
    /// Agrees on the version and starts the I/O thread. The `first` requests go with the greeting, in the same round trip.
    /// `closed` is called once, from that thread, when the connection ends.
    pub fn start(
        transport: Box<dyn Transport>,
        config: Config,
        first: Vec<Request>,
        deadline: Deadline,
        closed: impl FnOnce(SftpError) + Send + 'static,
    ) -> Result<(Self, Vec<Pending>), SftpError> {
        let wake = wake_fd()?;
        let (mut stream, mut flights) = (Stream::new(transport), Flights::default());
        stream.greet();
        let mut answers = Vec::new();
        for request in first {
            let (callback, pending) = Pending::new();
            let id = flights.begin(callback, request.bulk_bytes());
            stream.push(&request.encode(id));
            answers.push(pending);
        }
        let capabilities = stream.await_version(&wake, deadline)?;
        let shared = Arc::new(Shared::new(wake, capabilities, stream.info()));
        shared.state.lock().counters.requests = answers.len() as u64;
        let worker = Worker::new(shared.clone(), stream, flights, config.timeout);
        std::thread::Builder::new()
            .name("sftp-io".into())
            .spawn(move || closed(worker.run()))
            .map_err(|e| SftpError::Lost(e.into()))?;
        Ok((Self { shared }, answers))
    }

    /// Learns the server's limits, if it tells them; `told` is called when they are known.
    pub fn ask_limits(&self, told: impl FnOnce(Capabilities) + Send + 'static) {
        if !self.capabilities().limits {
            return;
        }
        let shared = self.shared.clone();
        self.submit(Request::limits(), Class::Interactive, move |reply| {
            let Ok(Reply::Extended(reply)) = reply else { return };
            let mut capabilities = shared.capabilities.lock();
            if let Ok(now) = capabilities.with_limits(&reply) {
                *capabilities = now;
                drop(capabilities);
                told(now);
            }
        });
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
        let (callback, pending) = Pending::new();
        self.shared.submit(request, class, callback);
        pending
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
    fn new() -> (Callback, Self) {
        let (sender, receiver) = mpsc::sync_channel(1);
        (Box::new(move |result| drop(sender.send(result))), Self(receiver))
    }

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
        Engine::start(transport, config, Vec::new(), Deadline::after(Duration::from_secs(5)), |_| {})
            .map(|(engine, _)| engine)
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
