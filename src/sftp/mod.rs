//! SFTP version 3: the codec and a pipelining engine over any byte stream.
//!
//! The engine sends many requests before the first answer comes and matches answers by number. It retries nothing and
//! knows no paths of ours; see `remote`.

mod codec;
mod deadline;
mod engine;
mod extensions;
mod rate;
mod window;

pub(crate) use codec::open;
pub use codec::{Extension, NameEntry, RawAttrs, Reply, Request, StatusCode, decode_reply, decode_version};
pub use engine::{Class, Config, Counters, Engine, Pending};
pub use extensions::{Capabilities, StatVfs, decode_statvfs};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    /// The connection is gone; the server may or may not have done it.
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the server did not answer in time")]
    Timeout,
    /// The server says things that SFTP does not allow.
    #[error("the server breaks the protocol: {0}")]
    Protocol(String),
}
