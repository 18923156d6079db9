//! A byte stream to an SFTP server: through libssh2 (the default), through the `ssh` program, or a plain child process.
//!
//! One value is owned by one I/O thread and never blocks outside [`Transport::wait`]. What travels in the stream is `sftp`'s
//! business; when to connect again is `remote`'s. Reads no environment variable and prints nothing: the caller passes in
//! what it knows ([`SshOverrides`]) and answers questions ([`Prompt`]).

mod auth;
mod child;
mod endpoint;
mod error;
mod known_hosts;
mod libssh2;
mod rates;
mod secret;
mod ssh_config;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use child::{exec, git_ssh_command, ssh_command};
pub use endpoint::{Endpoint, SshOverrides};
pub use error::TransportError;
pub use known_hosts::{HostKeyPolicy, KnownHosts, Verdict};
pub use rates::Rates;
pub use secret::Secret;
pub use ssh_config::{SshConfig, Strict};

use crate::clock::Deadline;

/// A non-blocking byte stream.
pub trait Transport: Send {
    /// `Ok(0)` is the end of the stream, `WouldBlock` means that nothing is there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// After `WouldBlock` the caller must offer the same bytes again: libssh2 has half of them in a packet already.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Waits until reading (or writing, if wanted and worth trying) may go on, until `wake` is readable, or for `timeout`.
    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()>;
    fn info(&self) -> TransportInfo;
    /// This many file bytes per second went through, more than before. Says whether a new connection may be faster.
    fn carried(&mut self, _rate: u64) -> bool {
        false
    }
    /// What the other side said on its way out, for the error message.
    fn last_words(&self) -> Option<String> {
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
    /// Whether libssh2 and the server agreed on compression.
    pub compressed: bool,
}

/// Questions to the person, while there is one.
pub trait Prompt: Send + Sync {
    /// A password or passphrase; `None`: nobody to ask.
    fn secret(&self, question: &str) -> Option<Secret>;
    /// Yes or no; `None`: nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;
    fn tell(&self, message: &str);
}

/// Nobody there: every question goes unanswered, messages go to the log.
pub struct Silent;

impl Prompt for Silent {
    fn secret(&self, _: &str) -> Option<Secret> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn tell(&self, message: &str) {
        log::warn!("{message}");
    }
}

/// Connects, logs in and starts the SFTP subsystem.
///
/// libssh2 is tried first unless the settings need the `ssh` program, or `known_hosts` knows the host by a certificate
/// authority, which libssh2 cannot check; where libssh2 cannot agree with the server on
/// algorithms (a server that has only a SHA-1 `ssh-rsa` host key), the program takes over by itself.
pub fn connect(
    endpoint: &Endpoint,
    prompt: &dyn Prompt,
    deadline: Deadline,
) -> Result<Box<dyn Transport>, TransportError> {
    let (name, port) = (&endpoint.host_keys.name, endpoint.host_keys.port);
    let certified = || KnownHosts::read(&endpoint.host_keys).only_by_authority(name, port);
    if endpoint.needs_program() || certified() {
        return child::connect(endpoint, false, deadline);
    }
    match libssh2::connect(endpoint, prompt, deadline) {
        Err(error @ TransportError::NoCommonAlgorithm { .. }) => {
            log::info!("{error}: trying the ssh program");
            child::connect(endpoint, true, deadline)
        }
        other => other,
    }
}
