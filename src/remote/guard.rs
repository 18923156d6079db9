//! A second name (hard link) for a file that is about to be replaced or removed, until it is known which version that was.
//!
//! Between a check and the request that it guards lies a round trip, in which another writer may replace the file. Where
//! the server offers hard links, LINK is sent right before the request and LSTAT right behind it: if what got the second
//! name is another version than was checked, it gets its own name back. The file is never without a name, and no round trip
//! is added; each guarded request costs three more.
//!
//! If the answers are lost, the second name stays until the next attempt at the same path has seen which version has it
//! ([`resolve_second_names`]).

use super::attempt::Attempt;
use super::error::ErrorKind;
use super::reply;
use super::second_name::{Done, Guard, Kept};
use super::temp_files::TempFile;
use crate::attr::{Attr, Version};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Pending, Request, open};

/// The second name of a file, asked for and not answered yet.
pub(super) struct Held<'a> {
    attempt: &'a Attempt<'a>,
    link: TempFile<'a>,
    /// Its answer is not read: the LSTAT tells whether there is a link.
    _linked: Pending,
}

impl Guard {
    /// Sends the LINK. `None`: the server offers no hard links.
    pub(super) fn hold<'a>(
        &self,
        attempt: &'a Attempt<'a>,
        path: &RemotePath,
        done: Done,
    ) -> Result<Option<Held<'a>>, ErrorKind> {
        if !attempt.capabilities().hardlink {
            return Ok(None);
        }
        let link = attempt.temp_files().make(&self.temp_dir, attempt.session().epoch())?;
        link.keeps(Kept { path: path.clone(), guard: self.clone(), done });
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
        let held = self.hold(attempt, path, Done::Removed)?;
        let removed = attempt.send(Request::Remove { path: attempt.wire(path) });
        let Some(held) = held else { return attempt.removed(path, removed) };
        let seen = held.send_lstat();
        attempt.removed(path, removed).inspect_err(|kind| held.remove_if_refused(kind))?;
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
            Ok(attr) if guard.is_other(self.attempt, &self.link.path, &attr)? => return Ok(Some(attr.version())),
            Err(kind) if kind.is_unanswered() => return Err(kind),
            // Not linked: another disk, or a server that offers what it does not do.
            Ok(_) | Err(_) => self.remove(),
        }
        Ok(None)
    }

    /// Gives the file its own name again, in place of what has it now.
    pub(super) fn put_back(&self, path: &RemotePath) -> Result<(), ErrorKind> {
        put_back(self.attempt, &self.link.path, path)
    }

    /// The guarded request failed. Unless it is unknown whether it did, the second name is not needed.
    pub(super) fn remove_if_refused(&self, kind: &ErrorKind) {
        if !kind.is_unanswered() {
            self.remove();
        }
    }

    /// Removes the second name; the answer is not waited for.
    pub(super) fn remove(&self) {
        drop(self.attempt.send(Request::Remove { path: self.attempt.wire(&self.link.path) }));
        self.link.forget();
    }
}

impl Guard {
    /// Whether this second name has another version than the guard expects.
    fn is_other(&self, attempt: &Attempt<'_>, link: &RemotePath, attr: &Attr) -> Result<bool, ErrorKind> {
        if attr.version() != self.base {
            return Ok(true);
        }
        let Some(expected) = self.sum else { return Ok(false) };
        match sum(attempt, link, attr) {
            Err(kind) if kind.is_unanswered() => Err(kind),
            // It may not be read: its version is all that can be compared.
            Err(ErrorKind::PermissionDenied) => Ok(false),
            found => Ok(found.ok() != Some(expected)),
        }
    }
}

/// CRC-32 of the content of a file.
pub(super) fn sum(attempt: &Attempt<'_>, link: &RemotePath, attr: &Attr) -> Result<u32, ErrorKind> {
    let request = Request::Open { path: attempt.wire(link), flags: open::READ, perm: None };
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

fn put_back(attempt: &Attempt<'_>, link: &RemotePath, path: &RemotePath) -> Result<(), ErrorKind> {
    let request = if attempt.capabilities().posix_rename {
        Request::posix_rename(&attempt.wire(link), &attempt.wire(path))
    } else {
        Request::Rename { from: attempt.wire(link), to: attempt.wire(path) }
    };
    attempt.ok(attempt.send(request)).inspect(|()| attempt.temp_files().forget(link)).inspect_err(|kind| {
        log::error!("{path}: another writer's version is kept as {link} on the server ({kind})");
    })
}

/// Before a path is touched again: an earlier attempt may have replaced or removed another writer's file there without
/// having learned of it. It has a second name, and is put back.
pub(super) fn resolve_second_names(
    attempt: &Attempt<'_>,
    permit: &WritePermit,
    path: &RemotePath,
) -> Result<(), ErrorKind> {
    for (link, kept) in attempt.temp_files().second_names_of(path) {
        permit.still_valid()?;
        let Some(known) = there(attempt, &link)? else {
            attempt.temp_files().forget(&link);
            continue;
        };
        if kept.guard.is_other(attempt, &link, &known)? && !kept.has_its_name(attempt, &known)? {
            if !kept.undo(attempt, permit)? {
                log::error!("{path}: another writer's version is kept as {link} on the server");
                continue;
            }
            put_back(attempt, &link, path)?;
        }
        // Where both names lead to the same file, putting it back does nothing.
        drop(attempt.send(Request::Remove { path: attempt.wire(&link) }));
        attempt.temp_files().forget(&link);
    }
    Ok(())
}

fn there(attempt: &Attempt<'_>, path: &RemotePath) -> Result<Option<Attr>, ErrorKind> {
    match attempt.lstat(path) {
        Err(ErrorKind::NotFound) => Ok(None),
        found => found.map(Some),
    }
}

impl Kept {
    /// Whether the file still has its own name, because the guarded request was not executed.
    fn has_its_name(&self, attempt: &Attempt<'_>, known: &Attr) -> Result<bool, ErrorKind> {
        let Some(now) = there(attempt, &self.path)?.filter(|now| now.version() == known.version()) else {
            return Ok(false);
        };
        match &self.done {
            Done::Moved(from) => Ok(there(attempt, from)?.is_some()),
            Done::Removed | Done::Stored(_) => Ok(!self.is_done(Some(&now))),
        }
    }

    /// Whether this is what the guarded request leaves.
    fn is_done(&self, now: Option<&Attr>) -> bool {
        match (&self.done, now) {
            (Done::Removed, None) | (Done::Moved(_), _) => true,
            (Done::Stored(Some(version)), Some(now)) => now.version() == *version,
            (Done::Removed, Some(_)) | (Done::Stored(_), _) => false,
        }
    }

    /// Makes room for the file. `false`: a third one is there now.
    fn undo(&self, attempt: &Attempt<'_>, permit: &WritePermit) -> Result<bool, ErrorKind> {
        let now = there(attempt, &self.path)?;
        if !self.is_done(now.as_ref()) {
            return Ok(false);
        }
        if let (Done::Moved(from), Some(_)) = (&self.done, now) {
            // The moved file goes back first. Where its place is taken, this fails.
            permit.still_valid()?;
            let back = Request::Rename { from: attempt.wire(&self.path), to: attempt.wire(from) };
            return Ok(attempt.ok(attempt.send(back)).is_ok());
        }
        Ok(true)
    }
}
