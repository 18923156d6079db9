//! The byte stream to a server, and what is known of its connection.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// A non-blocking byte stream.
pub trait Transport: Send {
    /// `Ok(0)` is the end of the stream, `WouldBlock` means that nothing is there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// After `WouldBlock` the caller must offer the same bytes again: libssh2 has half of them in a packet already.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Waits until reading (or writing, if wanted and worth trying) may go on, until `wake` is readable, or for `timeout`.
    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()>;
    fn info(&self) -> TransportInfo;
    /// Tells the stream its best rate so far (file bytes per second). Returns whether a new connection may be faster.
    fn report_rate(&mut self, _rate: u64) -> bool {
        false
    }
    /// What the other side reported last, for the error message.
    fn last_report(&self) -> Option<String> {
        None
    }
}

/// For status and doctor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransportInfo {
    /// `libssh2`, `ssh` or `exec`.
    pub kind: &'static str,
    /// `SHA256:…` of the host key; empty where the `ssh` program checked it.
    pub host_key: String,
    /// Address and port that were reached.
    pub peer: String,
    /// What the server accepted; empty where the `ssh` program logged in.
    pub login: String,
    /// How the server's software identifies itself (`SSH-2.0-…`); empty where it is not known.
    pub software: String,
    /// Whether libssh2 and the server agreed on compression.
    pub compressed: bool,
}
