//! The one table from the cause of an error to the errno that the kernel gets. Nothing else chooses an errno.

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
            Cause::Remote(error) => remote_errno(error),
            // A full or broken local disk keeps its own number: ENOSPC must arrive as ENOSPC.
            Cause::Local(_, errno, _) => errno.unwrap_or(libc::EIO),
        }
    }
}

fn remote_errno(error: &RemoteError) -> i32 {
    match &error.kind {
        ErrorKind::NotFound => libc::ENOENT,
        // In `code` the caller turns this into `ReadOnly` and has the mode checked; elsewhere it is what it says.
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
        // The link is down: the same as a deadline that passed, the caller cannot tell them apart either.
        ErrorKind::Down(_) => libc::ETIMEDOUT,
        ErrorKind::NoSpace => libc::ENOSPC,
        ErrorKind::Local(io) => io.raw_os_error().unwrap_or(libc::EIO),
        // FAILURE alone says nothing; the server's text is in the log and in `.pantheon/status`.
        ErrorKind::Failure(_) | ErrorKind::Protocol(_) => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::ReadOnlyReason;
    use std::io;

    #[test]
    fn the_errno_table_of_the_design() {
        let cases: [(Cause, i32); 8] = [
            (Cause::ReadOnly(ReadOnlyReason::GitMode), libc::EROFS),
            (Cause::NotFound, libc::ENOENT),
            (Cause::Stale, libc::ESTALE),
            (Cause::NotPermitted("a symlink out of the mount"), libc::EPERM),
            (Cause::TimedOut, libc::ETIMEDOUT),
            (Cause::Busy("switching".into()), libc::EBUSY),
            (Cause::Invalid("nonsense".into()), libc::EINVAL),
            (io::Error::from_raw_os_error(libc::ENOSPC).into(), libc::ENOSPC),
        ];
        for (cause, errno) in cases {
            let error = FsError::new("write", "wp-config.php", cause);
            assert_eq!(error.errno(), errno, "{error}");
            assert!(error.to_string().starts_with("write wp-config.php: "));
        }
    }
}
