//! The only table from causes of errors to errno values. No other code chooses an errno.

use crate::error::{Cause, FsError};
use crate::gate::Refused;
use crate::remote::{ErrorKind, RemoteError};

impl FsError {
    /// The errno for the caller.
    pub fn errno(&self) -> i32 {
        match &self.cause {
            Cause::WouldBlock => libc::EAGAIN,
            Cause::NotFound => libc::ENOENT,
            Cause::Exists => libc::EEXIST,
            Cause::NotEmpty => libc::ENOTEMPTY,
            Cause::NotADirectory => libc::ENOTDIR,
            Cause::IsADirectory => libc::EISDIR,
            Cause::ReadOnly(_) => libc::EROFS,
            Cause::Held(_) | Cause::Busy(_) => libc::EBUSY,
            Cause::Stale | Cause::Conflict(_) => libc::ESTALE,
            Cause::JournalFull => libc::ENOSPC,
            Cause::NotPermitted(_) => libc::EPERM,
            Cause::AccessDenied => libc::EACCES,
            Cause::CrossesAreas => libc::EXDEV,
            Cause::Unsupported(_) => libc::EOPNOTSUPP,
            Cause::Invalid(_) => libc::EINVAL,
            Cause::BadHandle => libc::EBADF,
            Cause::NameTooLong => libc::ENAMETOOLONG,
            Cause::TooBig => libc::EFBIG,
            Cause::TimedOut => libc::ETIMEDOUT,
            Cause::Platform(_) => libc::EIO,
            // Nothing else has it, so that commands can tell it from other failures.
            Cause::Rejected(_) => libc::EREMOTEIO,
            Cause::Remote(error) => remote_errno(error),
            // A full or broken local disk keeps its own errno, so that callers see ENOSPC.
            Cause::Local(_, errno, _) => errno.unwrap_or(libc::EIO),
        }
    }
}

fn remote_errno(error: &RemoteError) -> i32 {
    match &error.kind {
        ErrorKind::NotFound => libc::ENOENT,
        // In `code` the caller replaces it by `ReadOnly` and has the mode checked; elsewhere it stays.
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::Changed { .. } | ErrorKind::Conflict { .. } => libc::ESTALE,
        ErrorKind::Refused(Refused::Closed(_)) => libc::EROFS,
        ErrorKind::Refused(Refused::Held(_)) => libc::EBUSY,
        ErrorKind::Timeout => libc::ETIMEDOUT,
        // A connection that is down has the errno of a timeout: callers cannot tell the two apart.
        ErrorKind::Down(_) => libc::ETIMEDOUT,
        ErrorKind::NoSpace => libc::ENOSPC,
        ErrorKind::Local(io) => io.raw_os_error().unwrap_or(libc::EIO),
        // FAILURE has no meaning by itself; the server's text is in the log and in `.pantheon/status`.
        ErrorKind::Failure(_) | ErrorKind::Protocol(_) => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{Attr, FileKind};
    use crate::content::SharedError;
    use crate::gate::ReadOnlyReason;
    use crate::path::RemotePath;
    use std::collections::BTreeSet;
    use std::io;

    /// The number of a cause's variant. A new variant does not compile until it is added here, and then the test
    /// demands its errno.
    fn number(cause: &Cause) -> usize {
        match cause {
            Cause::WouldBlock => 0,
            Cause::NotFound => 1,
            Cause::Exists => 2,
            Cause::NotEmpty => 3,
            Cause::NotADirectory => 4,
            Cause::IsADirectory => 5,
            Cause::ReadOnly(_) => 6,
            Cause::Held(_) => 7,
            Cause::Stale => 8,
            Cause::Conflict(_) => 9,
            Cause::JournalFull => 10,
            Cause::NotPermitted(_) => 11,
            Cause::AccessDenied => 12,
            Cause::CrossesAreas => 13,
            Cause::Unsupported(_) => 14,
            Cause::Invalid(_) => 15,
            Cause::Busy(_) => 16,
            Cause::BadHandle => 17,
            Cause::NameTooLong => 18,
            Cause::TooBig => 19,
            Cause::TimedOut => 20,
            Cause::Platform(_) => 21,
            Cause::Local(..) => 22,
            Cause::Rejected(_) => 23,
            Cause::Remote(error) => FIRST_REMOTE + remote_number(&error.kind),
        }
    }

    const FIRST_REMOTE: usize = 24;
    const REMOTE_KINDS: usize = 17;

    fn remote_number(kind: &ErrorKind) -> usize {
        match kind {
            ErrorKind::NotFound => 0,
            ErrorKind::PermissionDenied => 1,
            ErrorKind::Exists => 2,
            ErrorKind::NotEmpty => 3,
            ErrorKind::NotADirectory => 4,
            ErrorKind::IsADirectory => 5,
            ErrorKind::Failure(_) => 6,
            ErrorKind::Unsupported => 7,
            ErrorKind::Changed { .. } => 8,
            ErrorKind::Conflict { .. } => 9,
            ErrorKind::Refused(Refused::Closed(_)) => 10,
            ErrorKind::Refused(Refused::Held(_)) => 11,
            ErrorKind::Timeout => 12,
            ErrorKind::Down(_) => 13,
            ErrorKind::NoSpace => 14,
            ErrorKind::Protocol(_) => 15,
            ErrorKind::Local(_) => 16,
        }
    }

    #[test]
    fn every_cause_has_the_errno_of_the_design() {
        let text = String::new;
        let attr = Attr { kind: FileKind::File, size: 1, perm: 0o644, mtime: 1, atime: 1 };
        let local = |errno| io::Error::from_raw_os_error(errno);
        let remote = |kind| Cause::Remote(SharedError::new(RemoteError { op: "x", path: RemotePath::root(), kind }));
        let cases: Vec<(Cause, i32)> = vec![
            (Cause::WouldBlock, libc::EAGAIN),
            (Cause::NotFound, libc::ENOENT),
            (Cause::Exists, libc::EEXIST),
            (Cause::NotEmpty, libc::ENOTEMPTY),
            (Cause::NotADirectory, libc::ENOTDIR),
            (Cause::IsADirectory, libc::EISDIR),
            (Cause::ReadOnly(ReadOnlyReason::GitMode), libc::EROFS),
            (Cause::Held(text()), libc::EBUSY),
            (Cause::Stale, libc::ESTALE),
            (Cause::Conflict(text()), libc::ESTALE),
            (Cause::JournalFull, libc::ENOSPC),
            (Cause::NotPermitted("a symlink out of the mount"), libc::EPERM),
            (Cause::AccessDenied, libc::EACCES),
            (Cause::CrossesAreas, libc::EXDEV),
            (Cause::Unsupported("x"), libc::EOPNOTSUPP),
            (Cause::Invalid("nonsense".into()), libc::EINVAL),
            (Cause::Busy("switching".into()), libc::EBUSY),
            (Cause::BadHandle, libc::EBADF),
            (Cause::NameTooLong, libc::ENAMETOOLONG),
            (Cause::TooBig, libc::EFBIG),
            (Cause::TimedOut, libc::ETIMEDOUT),
            (Cause::Platform(text()), libc::EIO),
            (Cause::Rejected(text()), libc::EREMOTEIO),
            (local(libc::ENOSPC).into(), libc::ENOSPC),
            (io::Error::other("no number").into(), libc::EIO),
            (remote(ErrorKind::NotFound), libc::ENOENT),
            (remote(ErrorKind::PermissionDenied), libc::EACCES),
            (remote(ErrorKind::Exists), libc::EEXIST),
            (remote(ErrorKind::NotEmpty), libc::ENOTEMPTY),
            (remote(ErrorKind::NotADirectory), libc::ENOTDIR),
            (remote(ErrorKind::IsADirectory), libc::EISDIR),
            (remote(ErrorKind::Failure(text())), libc::EIO),
            (remote(ErrorKind::Unsupported), libc::EOPNOTSUPP),
            (remote(ErrorKind::Changed { now: attr }), libc::ESTALE),
            (remote(ErrorKind::Conflict { found: None }), libc::ESTALE),
            (remote(ErrorKind::Refused(Refused::Closed(ReadOnlyReason::Logs))), libc::EROFS),
            (remote(ErrorKind::Refused(Refused::Held(text()))), libc::EBUSY),
            (remote(ErrorKind::Timeout), libc::ETIMEDOUT),
            (remote(ErrorKind::Down(text().into())), libc::ETIMEDOUT),
            (remote(ErrorKind::NoSpace), libc::ENOSPC),
            (remote(ErrorKind::Protocol(text())), libc::EIO),
            (remote(ErrorKind::Local(local(libc::EDQUOT))), libc::EDQUOT),
        ];
        let seen: BTreeSet<usize> = cases.iter().map(|(cause, _)| number(cause)).collect();
        assert_eq!(seen, (0..FIRST_REMOTE + REMOTE_KINDS).collect(), "a cause is missing");
        for (cause, errno) in cases {
            let error = FsError::new("write", "wp-config.php", cause);
            assert_eq!(error.errno(), errno, "{error}");
            assert!(error.to_string().starts_with("write wp-config.php: "));
        }
    }
}
