//! The byte stream of a connection: buffers in both directions, and packets cut from what came.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::error::{Loss, SftpError};
use super::extensions::Capabilities;
use super::reply::decode_version;
use super::request::{VERSION, encode_init};
use crate::clock::Deadline;
use crate::transport::{Transport, TransportInfo};

/// Largest packet that is read (bytes). Servers send at most 256 KiB of data; the rest is room for odd ones.
const MAX_PACKET_BYTES: usize = 1024 * 1024;
/// Bytes gathered before the transport is offered them: batches small requests into few packets.
const BATCH_BYTES: usize = 64 * 1024;
/// Bytes read from the transport at a time.
const READ_BYTES: usize = 256 * 1024;
/// Longest wait while the version is negotiated.
const TICK: Duration = Duration::from_millis(250);

/// See the module header.
pub(super) struct Stream {
    transport: Box<dyn Transport>,
    /// Where the transport reads to, kept: a new one each time would be fresh pages each time.
    buffer: Box<[u8]>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    last_input: Instant,
}

impl Stream {
    pub(super) fn new(transport: Box<dyn Transport>) -> Self {
        let buffer = vec![0; READ_BYTES].into();
        Self { transport, buffer, input: Vec::new(), output: VecDeque::new(), last_input: Instant::now() }
    }

    /// Appends INIT to what will be written.
    pub(super) fn greet(&mut self) {
        self.push(&encode_init());
    }

    /// Writes what was appended, and waits for the server's VERSION. Gives what the server offers.
    pub(super) fn await_version(&mut self, wake: &OwnedFd, deadline: Deadline) -> Result<Capabilities, SftpError> {
        loop {
            self.write()?;
            if self.read()? == 0 {
                if deadline.is_over() {
                    return Err(SftpError::Timeout);
                }
                self.wait(wake, deadline.remaining().min(TICK))?;
            }
            if let Some(packet) = first_packet(&self.input)? {
                let (version, extensions) = decode_version(packet)?;
                if version < VERSION {
                    return Err(SftpError::Protocol(format!("version {version} is too old")));
                }
                let len = 4 + packet.len();
                self.input.drain(..len);
                return Ok(Capabilities::from_extensions(&extensions));
            }
        }
    }

    pub(super) fn info(&self) -> TransportInfo {
        self.transport.info()
    }

    /// Tells the transport what it carries (bytes/s); says whether a new connection may be faster.
    pub(super) fn report_rate(&mut self, rate: u64) -> bool {
        self.transport.report_rate(rate)
    }

    /// Appends a packet to what will be written.
    pub(super) fn push(&mut self, packet: &[u8]) {
        self.output.extend(packet);
    }

    /// Enough is there to be written.
    pub(super) fn is_batch_full(&self) -> bool {
        self.output.len() >= BATCH_BYTES
    }

    /// Writes until the transport takes no more; gives the bytes.
    pub(super) fn write(&mut self) -> Result<usize, SftpError> {
        let mut total = 0;
        while !self.output.is_empty() {
            match self.transport.write(self.output.as_slices().0) {
                Ok(0) => break,
                Ok(n) => {
                    self.output.drain(..n);
                    total += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(total)
    }

    /// Reads what is there; gives the bytes, 0 for nothing.
    pub(super) fn read(&mut self) -> Result<usize, SftpError> {
        match self.transport.read(&mut self.buffer) {
            Ok(0) => Err(self.lost(io::Error::other("the server closed the connection"))),
            Ok(n) => {
                self.last_input = Instant::now();
                self.input.extend_from_slice(&self.buffer[..n]);
                Ok(n)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Takes out what came, to be read by [`first_packet`].
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Puts back what came, without the bytes that were used.
    pub(super) fn put_back(&mut self, mut input: Vec<u8>, used: usize) {
        input.drain(..used);
        self.input = input;
    }

    /// Waits until something can be read or written, until `wake` is readable, or for `timeout`.
    pub(super) fn wait(&mut self, wake: &OwnedFd, timeout: Duration) -> Result<(), SftpError> {
        self.transport.wait(!self.output.is_empty(), wake.as_fd(), timeout).map_err(|error| self.lost(error))
    }

    /// How long nothing has come.
    pub(super) fn silent_for(&self) -> Duration {
        self.last_input.elapsed()
    }

    /// The transport failed. What the other side reported last is added.
    fn lost(&self, error: io::Error) -> SftpError {
        let report = self.transport.last_report().map(|report| format!(" ({report})")).unwrap_or_default();
        SftpError::Lost(Loss::from_io(format!("{error}{report}"), error))
    }
}

/// The first packet of `input`, without its length; `None`: it is not complete yet.
pub(super) fn first_packet(input: &[u8]) -> Result<Option<&[u8]>, SftpError> {
    let Some(len) = input.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) else { return Ok(None) };
    if len == 0 || len > MAX_PACKET_BYTES {
        return Err(SftpError::Protocol(format!("a packet of {len} bytes")));
    }
    Ok(input.get(4..4 + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_cut_off_when_it_is_complete_and_a_length_that_cannot_be_is_an_error() {
        assert!(matches!(first_packet(&[0, 0, 0]), Ok(None)));
        assert!(matches!(first_packet(&[0, 0, 0, 2, 7]), Ok(None)));
        assert!(matches!(first_packet(&[0, 0, 0, 2, 7, 8, 9]), Ok(Some([7, 8]))));
        assert!(first_packet(&[0, 0, 0, 0]).is_err() && first_packet(&[0xff; 4]).is_err());
    }
}
