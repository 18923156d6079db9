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
mod prompt;
mod rates;
mod secret;
mod ssh_config;
mod stream;

pub use child::{exec, git_ssh_command, ssh_command};
pub use endpoint::{Endpoint, SshOverrides};
pub use error::{Cause, TransportError};
pub use known_hosts::{HostKeyPolicy, KnownHosts, Verdict};
pub use prompt::{Prompt, Silent};
pub use rates::Rates;
pub use secret::Secret;
pub use ssh_config::{SshConfig, Strict};
pub use stream::{Transport, TransportInfo};

use crate::clock::Deadline;

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
