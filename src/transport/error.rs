//! Why there is no connection: what, on which object, what to do next. The kinds decide `cli`'s exit code.

use std::io;
use std::path::PathBuf;

/// The error of the system or of libssh2 that is behind a failure.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// See the module header.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("{host}: the host name is not known; check the spelling and your DNS ({detail})")]
    NoSuchHost { host: String, detail: String, source: Option<Cause> },
    #[error(
        "{host}:{port}: cannot be reached ({detail}); check the network, and whether port {port} is blocked where you are"
    )]
    Unreachable { host: String, port: u16, detail: String, source: Option<Cause> },
    #[error("{host}:{port}: this is not an SSH server ({detail}); check host and port")]
    NotSsh { host: String, port: u16, detail: String, source: Option<Cause> },
    #[error("{host}: no algorithm in common with the server ({detail})")]
    NoCommonAlgorithm { host: String, detail: String, source: Option<Cause> },
    #[error(
        "{host}: the host key is not known ({fingerprint}); compare it with what the host's owner says, then accept it with \
         -o StrictHostKeyChecking=accept-new"
    )]
    HostKeyUnknown { host: String, fingerprint: String },
    #[error(
        "{host}: THE HOST KEY CHANGED (now {fingerprint}). Someone may be listening in, or the server was moved. Compare it \
         from another network (ssh-keyscan) or ask the host's owner; if it is right, remove the old key with: \
         ssh-keygen -R '{entry}' -f '{}'",
        file.display()
    )]
    HostKeyChanged { host: String, fingerprint: String, entry: String, file: PathBuf },
    #[error("{host}: the host key {fingerprint} is marked as revoked in {}; do not connect", file.display())]
    HostKeyRevoked { host: String, fingerprint: String, file: PathBuf },
    #[error("{user}@{host}: login refused (tried: {tried}){hint}")]
    AuthRefused { user: String, host: String, tried: String, hint: String },
    #[error("{user}@{host}: wrong password; check it, or use an SSH key")]
    WrongPassword { user: String, host: String },
    #[error("{host}: logged in, but the server has no SFTP subsystem ({detail}); ask the host whether SFTP is enabled")]
    NoSubsystem { host: String, detail: String, source: Option<Cause> },
    #[error("{}: the key cannot be used: {detail}", file.display())]
    BadKey { file: PathBuf, detail: String, source: Option<Cause> },
    #[error("the ssh program '{program}' failed: {detail}")]
    Program { program: String, detail: String, source: Option<Cause> },
    #[error("{0}")]
    BadEndpoint(String),
    #[error("{host}: no answer in time; check the network")]
    Timeout { host: String },
    #[error("{host}: the connection failed: {error}")]
    Io {
        host: String,
        #[source]
        error: io::Error,
    },
}
