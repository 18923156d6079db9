//! Why a request has no answer.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a connection is gone.
#[derive(Debug, Clone)]
pub struct Loss {
    why: String,
    source: Option<Arc<io::Error>>,
}

impl Loss {
    pub fn new(why: &str) -> Self {
        Self { why: why.to_owned(), source: None }
    }

    /// With the error of the stream; `why` tells it to the user.
    pub fn from_io(why: String, error: io::Error) -> Self {
        Self { why, source: Some(Arc::new(error)) }
    }

    /// The reason, for the user.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Loss {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

impl From<String> for Loss {
    fn from(why: String) -> Self {
        Self { why, source: None }
    }
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        Self::from_io(error.to_string(), error)
    }
}

/// Two losses are equal if they tell the user the same.
impl PartialEq for Loss {
    fn eq(&self, other: &Self) -> bool {
        self.why == other.why
    }
}

impl Eq for Loss {}

/// See the module header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    /// The connection is gone; the server may or may not have executed the request.
    #[error("the connection was lost: {0}")]
    Lost(#[source] Loss),
    #[error("the server did not answer in time")]
    Timeout,
    /// The server sends what SFTP does not allow.
    #[error("the server breaks the protocol: {0}")]
    Protocol(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn the_error_of_the_stream_is_at_the_end_of_the_chain() {
        let lost = SftpError::Lost(io::Error::from(io::ErrorKind::BrokenPipe).into());
        let source = lost.source().and_then(Error::source).and_then(|e| e.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::BrokenPipe));
    }
}
