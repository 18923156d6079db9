//! Changing a part of a file that its owner may write and not read (mode 0200). The rest of the content is needed here, and a
//! server gives it to nobody without the read bit, so that the bit is set while the content is copied.

use super::state::Upload;
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::error::{Cause, Wait};
use crate::gate::WritePermit;
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::{ErrorKind, RemoteError, SetAttr};

/// The owner's read bit.
const READ_BIT: u16 = 0o400;

/// Whether the server refused to let the content be read.
pub(super) fn may_not_be_read(cause: &Cause) -> bool {
    matches!(cause, Cause::Remote(error) if matches!(error.kind, ErrorKind::PermissionDenied))
}

impl Upload {
    /// Calls `copy` while the owner has the read bit on the server; the permissions are then as before.
    ///
    /// # Errors
    ///
    /// `refused`, the first answer of the server, if the read bit is not what is missing, or cannot be set.
    pub(super) fn with_read_bit<T>(
        &self,
        (ino, path): (Ino, &RemotePath),
        refused: Cause,
        deadline: Deadline,
        copy: impl FnOnce() -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let Ok(permit) = self.permit("read", ino, path, Wait::Until(deadline)) else { return Err(refused) };
        let there = match self.remote.lstat(path) {
            Ok(there) if there.is_file() && there.perm & READ_BIT == 0 => there,
            _ => return Err(refused),
        };
        if self.set_perm(&permit, path, there.perm | READ_BIT).is_err() {
            return Err(refused);
        }
        let copied = copy();
        self.restore_perm(&permit, path, there);
        copied
    }

    fn restore_perm(&self, permit: &WritePermit, path: &RemotePath, there: Attr) {
        // Once more: the connection may have been replaced meanwhile.
        let restored = self.set_perm(permit, path, there.perm).or_else(|_| self.set_perm(permit, path, there.perm));
        if let Err(error) = restored {
            log::warn!(
                "{path}: its owner may read it now, because mode {:o} could not be restored: {error}",
                there.perm
            );
        }
    }

    fn set_perm(&self, permit: &WritePermit, path: &RemotePath, perm: u16) -> Result<Attr, RemoteError> {
        self.remote.set_attr(permit, path, SetAttr { perm: Some(perm), ..SetAttr::default() })
    }
}
