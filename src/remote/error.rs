//! What can go wrong in a call. SFTP's FAILURE has no meaning of its own: each request that may get it decides.

use std::io;

use crate::attr::{Attr, Version};
use crate::gate::Refused;
use crate::path::RemotePath;
use crate::sftp::{Loss, SftpError, StatusCode};

/// The result of a call.
pub type RemoteResult<T> = Result<T, RemoteError>;

/// Takes the result of one attempt, once.
pub(super) type Answer<T> = Box<dyn FnOnce(Result<T, ErrorKind>) + Send>;

/// A failed call: which, on which object, why.
#[derive(Debug, thiserror::Error)]
#[error("{op} {path}: {kind}")]
pub struct RemoteError {
    pub op: &'static str,
    pub path: RemotePath,
    #[source]
    pub kind: ErrorKind,
}

/// See the module header.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    #[error("no such file or directory on the server")]
    NotFound,
    #[error("permission denied by the server")]
    PermissionDenied,
    #[error("exists already on the server")]
    Exists,
    #[error("the directory is not empty on the server")]
    NotEmpty,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    #[error("the server failed{}", message_part(.0))]
    Failure(String),
    #[error("the server does not support this")]
    Unsupported,
    #[error("the content changed on the server (now {})", now.version())]
    Changed { now: Attr },
    #[error("another writer changed it on the server{}", match found { Some(v) => format!(" (now {v})"), None => " (it is gone)".into() })]
    Conflict { found: Option<Version> },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no answer in time")]
    Timeout,
    #[error("the link is down: {0}")]
    Down(#[source] Loss),
    #[error("no space left on the server")]
    NoSpace,
    #[error("the server breaks the protocol: {0}")]
    Protocol(String),
    #[error("local disk: {0}")]
    Local(#[from] io::Error),
}

fn message_part(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl From<SftpError> for ErrorKind {
    fn from(error: SftpError) -> Self {
        match error {
            SftpError::Lost(why) => Self::Down(why),
            SftpError::Timeout => Self::Timeout,
            SftpError::Protocol(what) => Self::Protocol(what),
        }
    }
}

impl ErrorKind {
    /// There is no session, or the one that was used is gone.
    pub(super) fn down(why: &str) -> Self {
        Self::Down(Loss::new(why))
    }

    /// A status that is not OK, without knowledge of the request.
    pub(super) fn from_status(code: StatusCode, message: String) -> Self {
        match code {
            StatusCode::NoSuchFile => Self::NotFound,
            StatusCode::PermissionDenied => Self::PermissionDenied,
            StatusCode::Unsupported => Self::Unsupported,
            StatusCode::NoConnection | StatusCode::ConnectionLost => Self::down(&message),
            // Codes of later versions that some servers send in version 3, too.
            StatusCode::Other(11) => Self::Exists,
            StatusCode::Other(14 | 15) => Self::NoSpace,
            StatusCode::Other(18) => Self::NotEmpty,
            StatusCode::Other(19) => Self::NotADirectory,
            StatusCode::Other(24) => Self::IsADirectory,
            StatusCode::Failure if message.to_ascii_lowercase().contains("no space") => Self::NoSpace,
            _ => Self::Failure(message),
        }
    }

    pub(super) fn unexpected() -> Self {
        Self::Protocol("an answer of the wrong type".into())
    }

    /// Whether the session is lost, and the next one may do better. A session on which the server broke the protocol is given up.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Protocol(_))
    }

    /// Whether it is unknown what became of the request: the server may have executed it, or may do so later.
    pub fn is_unanswered(&self) -> bool {
        self.is_loss() || matches!(self, Self::Timeout)
    }

    /// Whether a server that does not offer the operation would say this.
    pub(super) fn may_mean_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported | Self::Failure(_) | Self::PermissionDenied)
    }

    pub(super) fn at(self, op: &'static str, path: &RemotePath) -> RemoteError {
        RemoteError { op, path: path.clone(), kind: self }
    }
}
