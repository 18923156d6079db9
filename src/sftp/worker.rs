//! The I/O thread of a connection: sends what the windows allow, matches answers to requests, and gives up on late ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::deadline::LateAnswers;
use super::error::{Loss, SftpError};
use super::flights::Flights;
use super::rate::Rate;
use super::reply::{Reply, StatusCode, decode_reply};
use super::shared::Shared;
use super::stream::{Stream, first_packet};
use super::window::Window;

/// Longest sleep: deadlines are checked this often.
const TICK: Duration = Duration::from_millis(250);
/// The window counts as used up when less than this is left of it (bytes).
const ALMOST_FULL_BYTES: u64 = 65_536;

/// See the module header.
pub(super) struct Worker {
    shared: Arc<Shared>,
    stream: Stream,
    flights: Flights,
    timeout: Duration,
    late: LateAnswers,
    window: Window,
    rate: Rate,
    /// When overdue answers were last looked for.
    expired: Instant,
}

impl Worker {
    /// `flights`: requests that were sent with the greeting.
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, flights: Flights, timeout: Duration) -> Self {
        Self {
            shared,
            stream,
            flights,
            timeout,
            late: LateAnswers::new(timeout),
            window: Window::new(),
            rate: Rate::default(),
            expired: Instant::now(),
        }
    }

    /// Until the connection ends: then all requests fail with the reason, which is returned.
    pub(super) fn run(mut self) -> SftpError {
        // Answers may have come together with the server's version.
        let mut turned = self.dispatch();
        let error = loop {
            match turned {
                Ok(()) => turned = self.turn(),
                Err(error) => break error,
            }
        };
        let unsent = {
            let mut state = self.shared.state.lock();
            state.closed.get_or_insert(error.clone());
            std::mem::take(&mut state.queue)
        };
        let callbacks = self.flights.into_callbacks().chain(unsent.into_callbacks());
        callbacks.for_each(|callback| callback(Err(error.clone())));
        error
    }

    /// One turn: send what may be sent, take what came, sleep if there was neither.
    fn turn(&mut self) -> Result<(), SftpError> {
        self.shared.about_to_sleep();
        self.fill_output()?;
        let wrote = self.stream.write()?;
        let read = self.stream.read()?;
        {
            let mut state = self.shared.state.lock();
            state.counters.sent_bytes += wrote as u64;
            state.counters.received_bytes += read as u64;
        }
        if read > 0 {
            self.dispatch()?;
        }
        // Also on a busy link: a stream of other answers must not keep one caller waiting for ever.
        if (wrote == 0 && read == 0) || self.expired.elapsed() > TICK {
            self.expired = Instant::now();
            self.expire()?;
        }
        if wrote == 0 && read == 0 {
            self.stream.wait(self.shared.wake_fd(), TICK)?;
            self.shared.clear_wake();
        }
        Ok(())
    }

    /// Moves requests from the queue into the output, within the windows.
    fn fill_output(&mut self) -> Result<(), SftpError> {
        loop {
            let queued = {
                let mut state = self.shared.state.lock();
                // Checked even when nothing can be sent: a connection that is stuck must end when it is closed.
                if let Some(error) = &state.closed {
                    return Err(error.clone());
                }
                if self.stream.is_batch_full() {
                    return Ok(());
                }
                let (requests, bulk) = (self.flights.len(), self.flights.bulk());
                let Some(queued) = state.queue.next(&self.window, requests, bulk) else { return Ok(()) };
                state.counters.requests += 1;
                queued
            };
            let id = self.flights.begin(queued.callback, queued.request.bulk_bytes());
            self.stream.push(&queued.request.encode(id));
        }
    }

    fn dispatch(&mut self) -> Result<(), SftpError> {
        let input = self.stream.take_input();
        let mut at = 0;
        while let Some(packet) = first_packet(&input[at..])? {
            let (id, reply) = decode_reply(packet)?;
            self.answered(id, reply)?;
            at += 4 + packet.len();
        }
        self.stream.put_back(input, at);
        Ok(())
    }

    fn answered(&mut self, id: u32, reply: Reply) -> Result<(), SftpError> {
        let full = self.flights.len() + 1 >= self.window.requests()
            || self.flights.bulk() + ALMOST_FULL_BYTES >= self.window.bulk_bytes();
        let Some(flight) = self.flights.end(id)? else { return Ok(()) };
        self.window.answered(flight.sent.elapsed(), flight.bulk, full);
        self.late.answered(Instant::now(), flight.sent);
        let bytes = match &reply {
            Reply::Data(data) => data.len() as u64,
            Reply::Status { code: StatusCode::Ok, .. } => flight.bulk,
            _ => 0,
        };
        if let Some(rate) = self.rate.moved(Instant::now(), bytes, self.flights.bulk() > 0) {
            self.shared.rate.store(rate, Ordering::Relaxed);
            let should_reconnect = self.stream.report_rate(rate);
            self.shared.should_reconnect.store(should_reconnect, Ordering::Relaxed);
        }
        *self.shared.round_trip.lock() = self.window.round_trip();
        (flight.callback)(Ok(reply));
        Ok(())
    }

    /// Gives up on answers that are overdue. If nothing came at all meanwhile, gives up the connection.
    fn expire(&mut self) -> Result<(), SftpError> {
        let Some(before) = self.late.before(Instant::now()) else { return Ok(()) };
        if !self.flights.any_before(before) {
            return Ok(());
        }
        if self.stream.silent_for() > self.timeout || self.flights.too_many_abandoned() {
            return Err(SftpError::Lost(Loss::new("the server stopped answering")));
        }
        for flight in self.flights.abandon(before) {
            (flight.callback)(Err(SftpError::Timeout));
        }
        Ok(())
    }
}
