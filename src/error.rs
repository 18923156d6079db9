//! Errors of filesystem operations, and the last error for the status.
//!
//! An error names the operation and the object; the cause keeps the error of the lower room. Only `fs/errno.rs` turns
//! it into an errno.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::clock::{Clock, Deadline};
use crate::content::{ReadError, SharedError};
use crate::gate::{ReadOnlyReason, Refused};
use crate::path::InvalidPath;
use crate::remote::{ErrorKind, RemoteError};

/// Whether an operation may wait for the network.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// Answer from what is known, or fail with [`Cause::WouldBlock`] before anything was changed.
    No,
    Until(Deadline),
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Only with [`Wait::No`]: the call must be repeated where waiting is allowed.
    WouldBlock,
    NotFound,
    Exists,
    NotEmpty,
    NotADirectory,
    IsADirectory,
    ReadOnly(ReadOnlyReason),
    /// Writes are held because a workflow runs, and the wait for it ended.
    Held(String),
    /// The content changed on the server under an open handle, or since it was read.
    Stale,
    /// Another writer changed the file on the server; the local version is in `.pantheon/conflicts`.
    Conflict(String),
    /// The journal has reached its limit of queued changes.
    JournalFull,
    /// Never supported: a symlink that leads out of the mount, a device node, a hard link.
    NotPermitted(&'static str),
    AccessDenied,
    CrossesAreas,
    Unsupported(&'static str),
    Invalid(String),
    Busy(String),
    BadHandle,
    NameTooLong,
    TooBig,
    TimedOut,
    /// Changes were given up: the server refused them, or another writer's changes prevented them. The text names them.
    Rejected(String),
    /// The platform refused; with the text of its answer.
    Platform(String),
    Remote(SharedError),
    /// A failure of the local disk.
    Local(io::ErrorKind, Option<i32>, String),
}

/// A failed operation: what was tried, on which object, and why it failed.
#[derive(Debug, Clone)]
pub struct FsError {
    pub op: &'static str,
    pub object: String,
    pub cause: Cause,
}

pub type FsResult<T> = Result<T, FsError>;

impl FsError {
    pub fn new(op: &'static str, object: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        Self { op, object: object.to_string(), cause: cause.into() }
    }

    pub fn would_block(&self) -> bool {
        matches!(self.cause, Cause::WouldBlock)
    }

    /// Whether the connection is down or too slow, so that the previous answer may be shown.
    pub fn is_link_trouble(&self) -> bool {
        match &self.cause {
            Cause::TimedOut => true,
            Cause::Remote(error) => matches!(error.kind, ErrorKind::Down(_) | ErrorKind::Timeout),
            _ => false,
        }
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.op, self.object, self.cause)
    }
}

impl std::error::Error for FsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Remote(error) => error.source(),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("the operation would have to wait"),
            Self::NotFound => f.write_str("no such file or directory"),
            Self::Exists => f.write_str("it exists already"),
            Self::NotEmpty => f.write_str("the directory is not empty"),
            Self::NotADirectory => f.write_str("not a directory"),
            Self::IsADirectory => f.write_str("is a directory"),
            Self::ReadOnly(reason) => write!(f, "read-only: {reason}"),
            Self::Held(why) => write!(f, "writes are held: {why}"),
            Self::Stale => f.write_str("changed on the server meanwhile; open it again"),
            Self::NotPermitted(what) | Self::Unsupported(what) => f.write_str(what),
            Self::AccessDenied => f.write_str("permission denied"),
            Self::CrossesAreas => f.write_str("code and uploads are separate; copy instead of moving"),
            Self::Invalid(what)
            | Self::Busy(what)
            | Self::Platform(what)
            | Self::Conflict(what)
            | Self::Rejected(what) => f.write_str(what),
            Self::JournalFull => {
                f.write_str("too many changes wait to be sent; try again when the connection is faster")
            }
            Self::BadHandle => f.write_str("the handle is not open for this operation"),
            Self::NameTooLong => f.write_str("the name is too long"),
            Self::TooBig => f.write_str("the file would become too large"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::Remote(error) => write!(f, "{error}"),
            Self::Local(_, _, text) => write!(f, "local disk: {text}"),
        }
    }
}

impl From<RemoteError> for Cause {
    fn from(error: RemoteError) -> Self {
        Cause::Remote(SharedError::new(error))
    }
}

impl From<ReadError> for Cause {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Remote(error) => Cause::Remote(error),
            ReadError::TimedOut => Cause::TimedOut,
        }
    }
}

impl From<Refused> for Cause {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed(reason) => Cause::ReadOnly(reason),
            Refused::Held(why) => Cause::Held(why),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Cause::Local(error.kind(), error.raw_os_error(), error.to_string())
    }
}

impl From<InvalidPath> for Cause {
    fn from(error: InvalidPath) -> Self {
        match error {
            InvalidPath::NameTooLong | InvalidPath::PathTooLong => Cause::NameTooLong,
            InvalidPath::Empty | InvalidPath::ForbiddenByte | InvalidPath::Dots => Cause::Invalid(error.to_string()),
        }
    }
}

/// The last error of the mount, shown in `.pantheon/status`. Clones share the same error.
#[derive(Clone)]
pub struct LastError {
    clock: Clock,
    last: Arc<Mutex<Option<(SystemTime, String)>>>,
}

impl LastError {
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::default() }
    }

    /// Stores and logs an error that is returned to a caller, except [`Cause::WouldBlock`], which callers never see.
    pub fn noted(&self, error: FsError) -> FsError {
        if !error.would_block() {
            log::info!("{error}");
            *self.last.lock() = Some((self.clock.wall(), error.to_string()));
        }
        error
    }

    /// The time and the text of the last error.
    pub fn last(&self) -> Option<(SystemTime, String)> {
        self.last.lock().clone()
    }
}
