//! A second name (hard link) for a file that is about to be replaced or removed, until it is known which version that was.
//!
//! Between a check and the request that it guards lies a round trip, in which another writer may replace the file. Where
//! the server offers hard links, LINK is sent right before the request and LSTAT right behind it: if what got the second
//! name is another version than was checked, it gets its own name back. The file is never without a name, and no round trip
//! is added; each guarded request costs three more.

use super::attempt::Attempt;
use super::error::ErrorKind;
use super::reply;
use super::temp_files::TempFile;
use crate::attr::{Attr, Version};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Pending, Request, open};

/// What is expected at a path that is about to be replaced or removed, and where its second name can be.
#[derive(Debug, Clone)]
pub struct Guard {
    pub base: Version,
    /// CRC-32 of its content, where the version alone does not tell one content from the next (written within the last
    /// seconds). It costs a reading of the file.
    pub sum: Option<u32>,
    /// A directory on the same disk of the server that is not served.
    pub temp_dir: RemotePath,
}

/// The second name of a file, asked for and not answered yet.
pub(super) struct Held<'a> {
    attempt: &'a Attempt<'a>,
    link: TempFile<'a>,
    /// Its answer is not read: the LSTAT tells whether there is a link.
    _linked: Pending,
}

impl Guard {
    /// Sends the LINK. `None`: the server offers no hard links.
    pub(super) fn hold<'a>(&self, attempt: &'a Attempt<'a>, path: &RemotePath) -> Result<Option<Held<'a>>, ErrorKind> {
        if !attempt.capabilities().hardlink {
            return Ok(None);
        }
        let link = attempt.temp_files().make(&self.temp_dir, attempt.session().epoch())?;
        let _linked = attempt.send(Request::hardlink(&attempt.wire(path), &attempt.wire(&link.path)));
        Ok(Some(Held { attempt, link, _linked }))
    }

    /// REMOVE. If that took another version than the base, it is put back.
    pub(super) fn unlink(
        &self,
        attempt: &Attempt<'_>,
        permit: &WritePermit,
        path: &RemotePath,
    ) -> Result<(), ErrorKind> {
        permit.still_valid()?;
        let held = self.hold(attempt, path)?;
        let removed = attempt.send(Request::Remove { path: attempt.wire(path) });
        let Some(held) = held else { return attempt.removed(path, removed) };
        let seen = held.send_lstat();
        attempt.removed(path, removed).inspect_err(|_| held.remove())?;
        match held.other_than(self, seen)? {
            Some(other) => {
                held.put_back(path)?;
                Err(ErrorKind::Conflict { found: Some(other) })
            }
            None => Ok(()),
        }
    }
}

impl Held<'_> {
    /// Sends the LSTAT of what got the second name.
    pub(super) fn send_lstat(&self) -> Pending {
        self.attempt.send_lstat(&self.link.path)
    }

    /// The version that was replaced or removed, if it is not what the guard expects. Otherwise the second name is removed.
    pub(super) fn other_than(&self, guard: &Guard, seen: Pending) -> Result<Option<Version>, ErrorKind> {
        let found: Result<Attr, ErrorKind> = self.attempt.attr(seen);
        match found {
            Ok(attr) if attr.version() != guard.base => return Ok(Some(attr.version())),
            Ok(attr) if guard.sum.is_some_and(|sum| self.sum(&attr).ok() != Some(sum)) => {
                return Ok(Some(attr.version()));
            }
            Err(kind) if kind.is_loss() => return Err(kind),
            // Not linked: another disk, or a server that offers what it does not do.
            Ok(_) | Err(_) => self.remove(),
        }
        Ok(None)
    }

    /// CRC-32 of what has the second name.
    fn sum(&self, attr: &Attr) -> Result<u32, ErrorKind> {
        let attempt = self.attempt;
        let request = Request::Open { path: attempt.wire(&self.link.path), flags: open::READ, perm: None };
        let handle = reply::handle(attempt.send(request).wait(attempt.deadline()))?;
        let (mut sum, mut at) = (crc32fast::Hasher::new(), 0);
        let result = loop {
            let len = (attr.size - at).min(attempt.session().read_bytes()) as u32;
            if len == 0 {
                break Ok(sum.finalize());
            }
            let read = attempt.send(Request::Read { handle: handle.clone(), offset: at, len });
            match reply::data(read.wait(attempt.deadline())) {
                Ok(Some(bytes)) => {
                    sum.update(&bytes);
                    at += bytes.len() as u64;
                }
                Ok(None) => break Err(ErrorKind::Failure("the file is shorter than it says".into())),
                Err(kind) => break Err(kind),
            }
        };
        drop(attempt.send(Request::Close { handle }));
        result
    }

    /// Gives the file its own name again, in place of what has it now.
    pub(super) fn put_back(&self, path: &RemotePath) -> Result<(), ErrorKind> {
        let attempt = self.attempt;
        let request = if attempt.capabilities().posix_rename {
            Request::posix_rename(&attempt.wire(&self.link.path), &attempt.wire(path))
        } else {
            Request::Rename { from: attempt.wire(&self.link.path), to: attempt.wire(path) }
        };
        attempt.ok(attempt.send(request)).inspect(|()| self.link.forget()).inspect_err(|kind| {
            log::error!("{path}: another writer's version is kept as {} on the server ({kind})", self.link.path);
        })
    }

    /// Removes the second name; the answer is not waited for.
    pub(super) fn remove(&self) {
        drop(self.attempt.send(Request::Remove { path: self.attempt.wire(&self.link.path) }));
        self.link.forget();
    }
}
