//! Compares the server's content with the expected one. Each answer holds only for the moment of the comparison.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::Duration;

use super::sender::Sender;
use crate::attr::{Attr, Version};
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind, RemoteError};

/// Time limit for reading a file that is compared with the local content.
const COMPARE_LIMIT: Duration = Duration::from_secs(120);
/// Larger files (bytes) are not compared with what was shown.
const MAX_SHOWN_BYTES: u64 = 4 * 1024 * 1024;

/// The result of a comparison. If it is unknown, the operation is retried: an unknown result is never taken for a
/// conflict.
pub(super) enum Compared {
    Same,
    Changed,
    /// The server's content could not be read.
    Unknown(String),
}

impl Sender {
    /// The attributes of the object at a path, `None` if there is none.
    pub(super) fn stat_there(&self, path: &RemotePath) -> Result<Option<Attr>, RemoteError> {
        match self.remote.lstat_in_place(path) {
            Ok(attr) => Ok(Some(attr)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`Sender::stat_there`] of two paths in one round trip.
    pub(super) fn stat_both_there(&self, paths: [&RemotePath; 2]) -> Result<[Option<Attr>; 2], RemoteError> {
        self.remote.lstat_both(paths)
    }

    /// Whether the file still has the content that the version stands for. If the version is racy, the bytes are
    /// compared.
    pub(super) fn compare_with_known(&self, path: &RemotePath, version: Version) -> Compared {
        match self.content.is_still(path, version, Deadline::after(COMPARE_LIMIT)) {
            Ok(true) => Compared::Same,
            Ok(false) => Compared::Changed,
            Err(error) => Compared::Unknown(format!("the version before it cannot be read: {error:?}")),
        }
    }

    /// Whether a file of another version has the content that callers were shown of the known one: then no other writer changed
    /// it. A server may set times on its own, for example when it copies or stores a file.
    pub(super) fn compare_with_shown(&self, path: &RemotePath, known: Version, found: Version) -> Compared {
        let same_size = known.size == found.size && found.size <= MAX_SHOWN_BYTES;
        let Some(shown) = same_size.then(|| self.content.last_shown(path, known)).flatten() else {
            return Compared::Changed;
        };
        match self.content.read_anew(path, found, Deadline::after(COMPARE_LIMIT)) {
            Ok(theirs) if theirs == shown => Compared::Same,
            Ok(_) => Compared::Changed,
            Err(error) => Compared::Unknown(format!("what is there cannot be read: {error:?}")),
        }
    }

    /// Whether the server's content is equal to the local content or to its beginning. A file that cannot be read
    /// now, or that changes while it is read, gives no answer: requests of an earlier connection may still arrive.
    pub(super) fn compare_with_ours(&self, path: &RemotePath, found: Version, ours: &File) -> Compared {
        let theirs = match self.content.read_anew(path, found, Deadline::after(COMPARE_LIMIT)) {
            Ok(theirs) => theirs,
            Err(error) => return Compared::Unknown(format!("what is there cannot be read: {error:?}")),
        };
        let mut bytes = vec![0; theirs.len()];
        let same = theirs.len() as u64 == found.size && ours.read_exact_at(&mut bytes, 0).is_ok() && bytes == theirs;
        if same { Compared::Same } else { Compared::Changed }
    }

    /// CRC-32 of the first bytes of the local content, for a check of what is there right before it is replaced; `None`: not
    /// known, or too much to be read again.
    pub(super) fn sum_of_beginning(&self, ours: &File, len: u64) -> Option<u32> {
        let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= MAX_SHOWN_BYTES)?];
        ours.read_exact_at(&mut bytes, 0).ok()?;
        Some(crc32fast::hash(&bytes))
    }

    /// Whether the directory has entries on the server.
    pub(super) fn holds_there(&self, dir: &RemotePath) -> bool {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.remote.list_async(dir.clone(), Class::Interactive, None, move |listed| drop(sender.send(listed)));
        let listed = receiver.recv_timeout(self.local.0.view.timeout());
        listed.is_ok_and(|listed| listed.is_ok_and(|entries| !entries.is_empty()))
    }
}
