//! Which errno the kernel gets. Of an operation that failed it is the one that `fs` chose; what is refused before an
//! operation begins, or beside it, is listed here.

use fuser::Errno;

use crate::fs::FsError;

/// Why a request is refused at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such name, and the kernel must not remember that.
    NoSuchName,
    /// The caller has a signal that ends it.
    Interrupted,
    /// The call panicked, which is a bug.
    Panicked,
    /// SFTP cannot make device nodes, sockets and pipes.
    SpecialFile,
    /// The server cannot say which names share a file, so a link made here would look like two files. Programs that are
    /// refused copy instead (git does).
    HardLink,
    /// RENAME_EXCHANGE and RENAME_WHITEOUT.
    RenameFlags,
    /// Commands to `.pantheon` are for the mounting user.
    NotTheOwner,
    /// A mode of fallocate(2) that is not known.
    AllocateMode,
    /// SFTP has nothing like it. The kernel is told once and does not ask again; it would otherwise ask for
    /// `security.capability` before every write.
    NotOffered,
}

impl Refusal {
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::NoSuchName => Errno::ENOENT,
            Self::Interrupted => Errno::EINTR,
            Self::Panicked => Errno::EIO,
            Self::SpecialFile | Self::HardLink => Errno::EPERM,
            Self::RenameFlags => Errno::EINVAL,
            Self::NotTheOwner => Errno::EACCES,
            Self::AllocateMode => Errno::EOPNOTSUPP,
            Self::NotOffered => Errno::ENOSYS,
        }
    }
}

pub(super) fn of(error: &FsError) -> Errno {
    Errno::from_i32(error.errno())
}
