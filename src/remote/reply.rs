//! The one reader of replies: what the server sent, as the value that the request asked for or as an error kind.

use super::error::ErrorKind;
use crate::attr::Attr;
use crate::sftp::{NameEntry, Reply, SftpError, StatVfs, StatusCode, decode_statvfs};

type Received = Result<Reply, SftpError>;

/// A status, or a reply of a type that the request cannot have.
fn failure(reply: Reply) -> ErrorKind {
    match reply {
        Reply::Status { code, message } => ErrorKind::from_status(code, message),
        _ => ErrorKind::unexpected(),
    }
}

/// The plain "ok" of a request without a result.
pub(super) fn ok(received: Received) -> Result<(), ErrorKind> {
    match received? {
        Reply::Status { code: StatusCode::Ok, .. } => Ok(()),
        // Extended requests without a result may be answered by an empty packet.
        Reply::Extended(_) => Ok(()),
        other => Err(failure(other)),
    }
}

pub(super) fn attr(received: Received) -> Result<Attr, ErrorKind> {
    match received? {
        Reply::Attrs(attrs) => Ok(attrs.to_attr()),
        other => Err(failure(other)),
    }
}

pub(super) fn handle(received: Received) -> Result<Vec<u8>, ErrorKind> {
    match received? {
        Reply::Handle(handle) => Ok(handle),
        other => Err(failure(other)),
    }
}

/// `None`: the end of the file.
pub(super) fn data(received: Received) -> Result<Option<Vec<u8>>, ErrorKind> {
    match received? {
        Reply::Data(data) => Ok(Some(data)),
        Reply::Status { code: StatusCode::Eof, .. } => Ok(None),
        other => Err(failure(other)),
    }
}

/// `None`: the end of the directory.
pub(super) fn names(received: Received) -> Result<Option<Vec<NameEntry>>, ErrorKind> {
    match received? {
        Reply::Names(names) => Ok(Some(names)),
        Reply::Status { code: StatusCode::Eof, .. } => Ok(None),
        other => Err(failure(other)),
    }
}

/// The only name of an answer to READLINK or REALPATH.
pub(super) fn name(received: Received) -> Result<Vec<u8>, ErrorKind> {
    match received? {
        Reply::Names(names) => names.into_iter().next().map(|entry| entry.name).ok_or_else(ErrorKind::unexpected),
        other => Err(failure(other)),
    }
}

/// `None`: the server does not say.
pub(super) fn statvfs(received: Received) -> Result<Option<StatVfs>, ErrorKind> {
    match received? {
        Reply::Extended(payload) => Ok(Some(decode_statvfs(&payload)?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: StatusCode) -> Received {
        Ok(Reply::Status { code, message: String::new() })
    }

    #[test]
    fn the_end_is_no_error_where_something_is_read_in_pieces() {
        assert!(matches!(data(status(StatusCode::Eof)), Ok(None)));
        assert!(matches!(names(status(StatusCode::Eof)), Ok(None)));
        assert!(matches!(attr(status(StatusCode::Eof)), Err(ErrorKind::Failure(_))));
    }

    #[test]
    fn a_reply_of_another_type_breaks_the_protocol_and_a_status_keeps_its_meaning() {
        assert!(matches!(handle(Ok(Reply::Data(Vec::new()))), Err(ErrorKind::Protocol(_))));
        assert!(matches!(ok(Ok(Reply::Handle(Vec::new()))), Err(ErrorKind::Protocol(_))));
        assert!(matches!(name(Ok(Reply::Names(Vec::new()))), Err(ErrorKind::Protocol(_))));
        assert!(matches!(handle(status(StatusCode::NoSuchFile)), Err(ErrorKind::NotFound)));
        assert!(matches!(ok(Err(SftpError::Timeout)), Err(ErrorKind::Timeout)));
    }
}
