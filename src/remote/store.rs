//! Replacing the content of a file as a whole.
//!
//! The base version is checked beside the first request and again right before the step that cannot be taken back. A
//! truncation never travels ahead of the new bytes: content goes to a temporary file outside the web root that takes
//! the file's place by `posix-rename`, or, where that is not to be had, over the old bytes, with the size set last.

use std::cell::Cell;
use std::ops::Range;

use super::attempt::Attempt;
use super::base_copy::{BaseCopy, OpenBase};
use super::client::Client;
use super::content::{Progress, Source, Writer};
use super::error::{ErrorKind, RemoteResult};
use super::guard;
use super::handles::Slot;
use super::retry::{Repeat, retry};
use super::second_name::{Done, Guard};
use crate::attr::{Attr, Version};
use crate::gate::{Refused, WritePermit};
use crate::path::RemotePath;
use crate::sftp::{Request, open};

/// What the server is believed to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nothing under this name.
    Absent,
    Version(Version),
    /// Whatever there is may be replaced.
    Any,
}

/// How to store.
#[derive(Debug, Clone)]
pub struct Store {
    pub base: Base,
    /// CRC-32 of the base, where its version alone does not tell one content from the next.
    pub base_sum: Option<u32>,
    /// Parts of the new content that the base has at the same place, as far as known: in order, not next to each other. For a base
    /// whose version alone tells one content from the next.
    pub unchanged: Vec<Range<u64>>,
    /// Permission bits to set, because they were asked for.
    pub perm: Option<u16>,
    /// Permission bits with which a file is made, if none are set: the server's umask and default ACL apply to them.
    pub made_with: Option<u16>,
    /// The file that is replaced does not hand down its permission bits, if none are set: another file takes its place.
    pub own_perm: bool,
    /// Seconds; the server's own time if not given.
    pub mtime: Option<u32>,
    /// A directory on the same disk of the server that is not served; for temporary files.
    pub temp_dir: Option<RemotePath>,
}

/// Permission bits of a new file if the caller gives none.
const DEFAULT_PERM: u16 = 0o644;

pub(super) fn store(
    client: &Client,
    permit: &WritePermit,
    path: &RemotePath,
    source: Source<'_>,
    how: &Store,
    progress: &dyn Fn(Progress),
) -> RemoteResult<Attr> {
    retry(client, "store", path, Repeat::Never, |attempt| {
        let slot = attempt.handle_slot()?;
        let writer = Writer { attempt, path, source, mtime: how.mtime, progress };
        let storing = Storing { attempt, permit, path, how, writer, slot };
        match how.base {
            Base::Absent => storing.create(),
            Base::Version(_) | Base::Any => storing.replace(how.base),
        }
    })
}

struct Storing<'a> {
    attempt: &'a Attempt<'a>,
    permit: &'a WritePermit,
    path: &'a RemotePath,
    how: &'a Store,
    writer: Writer<'a>,
    /// The right to its handle.
    slot: Slot,
}

impl Storing<'_> {
    /// A name that must not exist yet: the file appears whole where the server can move one there.
    fn create(&self) -> Result<Attr, ErrorKind> {
        if self.writer.source.len == 0 {
            return self.create_in_place();
        }
        self.by_rename_or(Base::Absent, || self.create_in_place())
    }

    fn replace(&self, base: Base) -> Result<Attr, ErrorKind> {
        self.by_rename_or(base, || self.in_place(base))
    }

    /// A file that may not be opened for writing, in a directory that may be changed: by a temporary file in that directory.
    fn beside(&self, base: Base) -> Result<Attr, ErrorKind> {
        let dir = self.path.parent().unwrap_or_else(RemotePath::root);
        self.by_rename(base, &dir, None).map_err(|failed| match failed {
            Failed::Store(kind) => kind,
            Failed::Copy(_) | Failed::Temp(_) | Failed::Perm | Failed::Names => ErrorKind::PermissionDenied,
        })
    }

    /// By a temporary file where that works, else in place.
    fn by_rename_or(&self, base: Base, in_place: impl FnOnce() -> Result<Attr, ErrorKind>) -> Result<Attr, ErrorKind> {
        let works = self.attempt.capabilities().posix_rename && self.attempt.rename_capabilities().temp_works();
        let Some(dir) = self.how.temp_dir.as_ref().filter(|_| works) else { return in_place() };
        let copy = self.base_copy(base);
        let stored = match self.by_rename(base, dir, copy.as_ref()) {
            Err(Failed::Copy(kind)) => {
                log::info!("{}: all of it is sent, because what did not change could not be copied: {kind}", self.path);
                self.by_rename(base, dir, None)
            }
            stored => stored,
        };
        match stored {
            Err(Failed::Temp(kind) | Failed::Copy(kind)) => {
                self.temp_failed(dir, kind)?;
                in_place()
            }
            Err(Failed::Perm) => {
                log::debug!("{}: it would lose its permissions, and is overwritten in place", self.path);
                in_place()
            }
            Err(Failed::Names) => {
                log::debug!("{}: names in its directory cannot be changed, and it is overwritten in place", self.path);
                in_place()
            }
            Err(Failed::Store(kind)) => Err(kind),
            Ok(attr) => Ok(attr),
        }
    }

    /// What the server may copy from the base; `None`: everything is sent.
    fn base_copy(&self, base: Base) -> Option<BaseCopy<'_>> {
        match base {
            Base::Version(version) if self.attempt.capabilities().copy_data && self.how.base_sum.is_none() => {
                BaseCopy::new(version, &self.how.unchanged)
            }
            _ => None,
        }
    }

    /// An OPEN was refused in this way. If that may be because the server has no handle left: that the save has to wait.
    fn beyond_a_limit(&self, kind: &ErrorKind) -> Option<ErrorKind> {
        let limited = matches!(kind, ErrorKind::Failure(_)) && self.attempt.session().handles().refused(&self.slot);
        let held = || Refused::Held("the server opens no more files at the moment".into());
        limited.then(|| ErrorKind::Refused(held()))
    }

    /// Temporary files did not work. Where they have before, that is a passing failure, and the caller tries again.
    fn temp_failed(&self, dir: &RemotePath, kind: ErrorKind) -> Result<(), ErrorKind> {
        let caps = self.attempt.rename_capabilities();
        let passing = caps.temp_worked_before();
        caps.temp_failed();
        if passing && caps.temp_works() {
            return Err(kind);
        }
        log::info!("{dir}: cannot be used for temporary files ({kind}); files are overwritten in place");
        Ok(())
    }

    /// By an exclusive OPEN. 3 round trips.
    fn create_in_place(&self) -> Result<Attr, ErrorKind> {
        self.permit.still_valid()?;
        let perm = self.made_with();
        let opened = self.writer.send_open(self.path, open::WRITE | open::CREATE | open::EXCLUSIVE, Some(perm));
        let found = self.attempt.send_lstat(self.path);
        let place = self.attempt.send_place(self.path);
        let handle = match self.writer.handle(opened) {
            Ok(handle) => handle,
            Err(kind @ ErrorKind::Failure(_)) => {
                return Err(match self.writer.extended().attr(found) {
                    Ok(attr) => ErrorKind::Conflict { found: Some(attr.version()) },
                    Err(_) => self.beyond_a_limit(&kind).unwrap_or(kind),
                });
            }
            Err(ErrorKind::Exists) => {
                return Err(ErrorKind::Conflict {
                    found: self.writer.extended().attr(found).ok().map(|a| a.version()),
                });
            }
            Err(kind) => return Err(kind),
        };
        let result = match place.check() {
            Ok(()) => self.write_all(&handle, self.how.perm),
            Err(kind) => {
                drop(self.writer.close(&handle));
                Err(kind)
            }
        };
        if matches!(&result, Err(kind) if !kind.is_loss()) {
            // Half a file is of no use, and this attempt made it under a name that was free.
            drop(self.writer.extended().ok(self.writer.send_remove(self.path)));
        }
        result
    }

    fn made_with(&self) -> u16 {
        self.how.perm.or(self.how.made_with).unwrap_or(DEFAULT_PERM)
    }

    /// What is there now, if it may be replaced.
    fn check(&self, base: Base, found: Result<Attr, ErrorKind>) -> Result<Option<Attr>, ErrorKind> {
        match (base, found) {
            (_, Ok(attr)) if attr.is_dir() => Err(ErrorKind::IsADirectory),
            (Base::Any, Ok(attr)) => Ok(Some(attr)),
            (Base::Absent, Ok(attr)) => Err(ErrorKind::Conflict { found: Some(attr.version()) }),
            (Base::Any | Base::Absent, Err(ErrorKind::NotFound)) => Ok(None),
            (Base::Version(version), Ok(attr)) if attr.version() == version && attr.is_file() => Ok(Some(attr)),
            (Base::Version(_), Ok(attr)) => Err(ErrorKind::Conflict { found: Some(attr.version()) }),
            (Base::Version(_), Err(ErrorKind::NotFound)) => Err(ErrorKind::Conflict { found: None }),
            (_, Err(kind)) => Err(kind),
        }
    }

    /// Temporary file, then a rename: the server shows the old content or the new. 3 round trips.
    fn by_rename(&self, base: Base, dir: &RemotePath, copy: Option<&BaseCopy<'_>>) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        self.remove_left();
        let temp = self.attempt.temp_files().make(dir, self.attempt.session().epoch())?;
        let place = self.attempt.send_place(self.path);
        let found = self.attempt.send_lstat(self.path);
        // What is copied is read again in part.
        let flags = open::WRITE | open::CREATE | open::EXCLUSIVE | if copy.is_some() { open::READ } else { 0 };
        let opened = self.writer.send_open(&temp.path, flags, Some(self.made_with()));
        let from = copy.map(|copy| (copy, self.writer.send_open(self.path, open::READ, None)));
        let found = self.check(base, self.writer.extended().attr(found));
        let found = place.check().and(found);
        // One that cannot be opened, because it may not be read or there is no handle left, is not copied from.
        let from = from.and_then(|(copy, opened)| Some(OpenBase::new(copy, self.writer.handle(opened).ok()?)));
        let close_base = || from.iter().for_each(|base| base.close(&self.writer));
        let handle = match self.writer.handle(opened) {
            Ok(handle) => handle,
            Err(kind) if kind.is_loss() => return Err(kind.into()),
            Err(kind) => {
                close_base();
                temp.forget();
                return Err(match (found, self.beyond_a_limit(&kind)) {
                    (Err(kind), _) | (Ok(_), Some(kind)) => Failed::Store(kind),
                    (Ok(_), None) => Failed::Temp(kind),
                });
            }
        };
        let remove_temp = || {
            drop(self.writer.send_remove(&temp.path));
            temp.forget();
        };
        let copied = Cell::new(true);
        let unchecked = |_: &ErrorKind| {
            close_base();
            drop(self.writer.close(&handle));
        };
        let result = found.inspect_err(unchecked).and_then(|found| {
            let found = found.filter(|_| !self.how.own_perm);
            let perm = self.how.perm.or(found.map(|attr| attr.perm));
            let all = 0..self.writer.source.len;
            let parts = from.as_ref().map_or_else(|| vec![all.clone()], |base| base.rest(all.end));
            let copies = from.map(|base| base.send(&self.writer, &handle));
            let sent = self.writer.send_parts(&handle, perm, &parts)?;
            // The base once more, behind the last byte: shows what happened meanwhile without a round trip of its own.
            let again = self.writer.send(Request::Lstat { path: self.attempt.wire(self.path) });
            let finished = copies.map_or(Ok(()), |copies| copies.finish(&self.writer));
            copied.set(finished.is_ok());
            finished?;
            let made = self.writer.finish(sent)?;
            self.check(base, self.writer.extended().attr(again))?;
            let keeps_perm = found.is_none_or(|old| self.how.perm.is_some() || (old.perm ^ made.perm) & 0o777 == 0);
            Ok((made, keeps_perm))
        });
        let made = match result {
            Ok((made, true)) => made,
            Ok((_, false)) => {
                remove_temp();
                return Err(Failed::Perm);
            }
            Err(kind) => {
                if !kind.is_loss() {
                    remove_temp();
                }
                return Err(if copied.get() || kind.is_loss() { kind.into() } else { Failed::Copy(kind) });
            }
        };
        let moved = match base {
            Base::Absent => self.move_to_free_name(&temp.path),
            Base::Version(_) | Base::Any => self.move_over(&temp.path, base, dir).and_then(|now| {
                self.is_ours(&made, &now)?;
                Ok(now)
            }),
        };
        match &moved {
            Err(Failed::Store(kind)) if kind.is_loss() => {}
            Err(_) => remove_temp(),
            Ok(_) => temp.forget(),
        }
        moved
    }

    /// Removes temporary files that sessions before this one left; the answers are not awaited.
    fn remove_left(&self) {
        for path in self.attempt.temp_files().take_left(self.attempt.session().epoch()) {
            drop(self.writer.send_remove(&path));
        }
    }

    /// Plain RENAME, which takes no other file's place.
    fn move_to_free_name(&self, temp: &RemotePath) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        let moved =
            self.attempt.send(Request::Rename { from: self.attempt.wire(temp), to: self.attempt.wire(self.path) });
        let now = self.attempt.send_lstat(self.path);
        let (moved, now) = (self.writer.extended().ok(moved), self.writer.extended().attr(now));
        match (moved, now) {
            (Ok(()), now) => {
                self.attempt.rename_capabilities().temp_worked();
                Ok(now?)
            }
            (Err(kind), _) if kind.is_loss() => Err(kind.into()),
            (Err(_), Ok(now)) => Err(ErrorKind::Conflict { found: Some(now.version()) }.into()),
            (Err(kind), Err(_)) if kind.may_mean_unsupported() => Err(Failed::Temp(kind)),
            (Err(kind), Err(_)) => Err(kind.into()),
        }
    }

    /// The version that a replacement leaves, where this client chooses its time.
    fn leaves(&self) -> Done {
        Done::Stored(self.how.mtime.map(|mtime| Version { size: self.writer.source.len, mtime }))
    }

    fn move_over(&self, temp: &RemotePath, base: Base, dir: &RemotePath) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        let guard = match base {
            Base::Version(base) => Some(Guard { base, sum: self.how.base_sum, temp_dir: dir.clone() }),
            Base::Absent | Base::Any => None,
        };
        let held =
            guard.as_ref().map(|guard| guard.hold(self.attempt, self.path, self.leaves())).transpose()?.flatten();
        let moved = self.attempt.send(Request::posix_rename(&self.attempt.wire(temp), &self.attempt.wire(self.path)));
        let seen = held.as_ref().map(|held| held.send_lstat());
        let now = self.attempt.send_lstat(self.path);
        if let Err(kind) = self.writer.extended().ok(moved) {
            held.iter().for_each(|held| held.remove_if_refused(&kind));
            return Err(match kind {
                // Another disk, or a server that refuses moves: not the content's fault.
                ErrorKind::Failure(_) | ErrorKind::Unsupported => Failed::Temp(kind),
                ErrorKind::PermissionDenied if self.attempt.rename_capabilities().temp_worked_before() => Failed::Names,
                ErrorKind::PermissionDenied => Failed::Temp(kind),
                kind => kind.into(),
            });
        }
        self.attempt.rename_capabilities().temp_worked();
        if let (Some(held), Some(guard), Some(seen)) = (&held, &guard, seen)
            && let Some(other) = held.other_than(guard, seen)?
        {
            held.put_back(self.path)?;
            return Err(ErrorKind::Conflict { found: Some(other) }.into());
        }
        Ok(self.writer.extended().attr(now)?)
    }

    /// Checks that what is at the path right after the replacement is what was moved there. Another writer may have
    /// replaced it in between, and cannot have seen it.
    fn is_ours(&self, made: &Attr, now: &Attr) -> Result<(), ErrorKind> {
        if now.version() == made.version() {
            return Ok(());
        }
        // The same size with another time: some servers set the time at CLOSE.
        let same = now.is_file()
            && now.size == made.size
            && guard::sum(self.attempt, self.path, now)? == self.writer.source.sum()?;
        if same { Ok(()) } else { Err(ErrorKind::Conflict { found: Some(now.version()) }) }
    }

    /// Over the old bytes; the size follows them. 3 round trips.
    fn in_place(&self, base: Base) -> Result<Attr, ErrorKind> {
        self.permit.still_valid()?;
        let place = self.attempt.send_place(self.path);
        let found = self.attempt.send_lstat(self.path);
        let create = if base == Base::Any { open::CREATE } else { 0 };
        let opened = self.writer.send_open(self.path, open::WRITE | create, (create != 0).then(|| self.made_with()));
        let found = self.check(base, self.writer.extended().attr(found));
        let found = place.check().and(found);
        let handle = match (self.writer.handle(opened), found) {
            (Ok(handle), Ok(_)) => handle,
            (Ok(handle), Err(kind)) => {
                drop(self.writer.close(&handle));
                return Err(kind);
            }
            (Err(ErrorKind::PermissionDenied), Ok(_)) if self.attempt.capabilities().posix_rename => {
                return self.beside(base);
            }
            (Err(kind), Ok(_)) => return Err(self.beyond_a_limit(&kind).unwrap_or(kind)),
            (Err(_), Err(kind)) => return Err(kind),
        };
        self.permit.still_valid()?;
        (self.writer.progress)(Progress::Modifying);
        let perm = self.how.perm.or(self.how.made_with.filter(|_| self.how.own_perm));
        let sent = self.writer.send_all(&handle, perm)?;
        let (attr, sized) = self.writer.finish_of_any_size(sent)?;
        if attr.size <= self.writer.source.len || sized.is_err_and(|kind| kind.is_unanswered()) {
            return self.seen_after(attr);
        }
        log::debug!("{}: the server does not shorten files; it is emptied and written again", self.path);
        self.emptied(attr)
    }

    /// After a shorter content was written over the old bytes on a server that does not set sizes: OPEN with TRUNC,
    /// and all bytes again. Until it is whole, the caller has the old content.
    fn emptied(&self, written: Attr) -> Result<Attr, ErrorKind> {
        let now = self.writer.extended().attr(self.attempt.send_lstat(self.path))?;
        if !now.is_file() || now.size != written.size {
            return Err(ErrorKind::Conflict { found: Some(now.version()) });
        }
        self.permit.still_valid()?;
        let opened = self.writer.send_open(self.path, open::WRITE | open::CREATE | open::TRUNCATE, None);
        let handle = self.writer.handle(opened)?;
        self.write_all(&handle, self.how.perm)
    }

    /// All bytes, then size, permissions and time, then a look at what is there: it must be what was sent. Closes.
    fn write_all(&self, handle: &[u8], perm: Option<u16>) -> Result<Attr, ErrorKind> {
        let sent = self.writer.send_all(handle, perm)?;
        let attr = self.writer.finish(sent)?;
        self.seen_after(attr)
    }

    /// The version that a save leaves is that after the answer to CLOSE: some servers set the time while they carry
    /// it out, and a request that is sent beside it may be answered before.
    fn seen_after(&self, attr: Attr) -> Result<Attr, ErrorKind> {
        if attr.size != self.writer.source.len {
            let message = format!("the file has {} bytes there instead of {}", attr.size, self.writer.source.len);
            return Err(ErrorKind::Failure(message));
        }
        match self.writer.extended().attr(self.attempt.send_lstat(self.path)) {
            Ok(now) if now.is_file() && now.size == attr.size => Ok(now),
            Err(kind) if kind.is_loss() => Err(kind),
            // Replaced or removed by another writer since: the attributes before CLOSE are those of what was stored.
            Ok(_) | Err(_) => Ok(attr),
        }
    }
}

/// Why a save by a temporary file failed.
enum Failed {
    /// The server did not copy what stays.
    Copy(ErrorKind),
    /// Temporary files do not work here; another way may.
    Temp(ErrorKind),
    /// The temporary file does not get the permissions of the file that it is to replace, because the server refuses or
    /// ignores that.
    Perm,
    /// The directory of the file is not to be written, and the file itself may be (mode 0555, as Drupal leaves `sites/default`).
    Names,
    /// The save itself; another way would fail, too.
    Store(ErrorKind),
}

impl From<ErrorKind> for Failed {
    fn from(kind: ErrorKind) -> Self {
        Self::Store(kind)
    }
}
