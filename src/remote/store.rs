//! Replacing the content of a file as a whole.
//!
//! The base version is checked beside the first request and again right before the step that cannot be taken back. A
//! truncation never travels ahead of the new bytes: content goes to a temporary file outside the web root that takes
//! the file's place by `posix-rename`, or, where that is not to be had, over the old bytes, with the size set last.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::guard::Guard;
use super::rename::RenameCapabilities;
use super::session::{Call, Inner};
use super::{ErrorKind, RemoteResult};
use crate::attr::{Attr, Version};
use crate::clock::Deadline;
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Class, Pending, RawAttrs, Reply, Request, open};

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
    /// Permission bits of a new file, or to change to.
    pub perm: Option<u16>,
    /// Seconds; the server's own time if not given.
    pub mtime: Option<u32>,
    /// A directory on the same disk of the server where temporary files harm nobody.
    pub temp_dir: Option<RemotePath>,
}

/// The new content: the first `len` bytes of a local file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) len: u64,
}

/// How far a long operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// From here on the server may have half of it, and only another attempt makes it whole.
    Touching,
    /// A piece of content arrived.
    Moved,
}

/// Bytes under way at most (the link of a fast and far server holds about 1 MB).
const MAX_UNDER_WAY: u64 = 8 * 1024 * 1024;
/// Content up to this size travels with the requests that callers wait for; more would make them wait.
const SMALL_BYTES: u64 = 256 * 1024;
/// Permission bits of a new file if the caller has no wish.
const DEFAULT_PERM: u16 = 0o644;

pub(super) fn store(
    inner: &Arc<Inner>,
    permit: &WritePermit,
    path: &RemotePath,
    source: Source<'_>,
    how: &Store,
    note: &dyn Fn(Note),
) -> RemoteResult<Attr> {
    inner.once("store", path, |call| {
        let storing = Storing { call, permit, path, source, how, note };
        match how.base {
            Base::Absent => storing.create(),
            Base::Version(_) | Base::Any => storing.replace(how.base),
        }
    })
}

struct Storing<'a> {
    call: &'a Call<'a>,
    permit: &'a WritePermit,
    path: &'a RemotePath,
    source: Source<'a>,
    how: &'a Store,
    note: &'a dyn Fn(Note),
}

impl Storing<'_> {
    fn class(&self) -> Class {
        if self.source.len <= SMALL_BYTES { Class::Interactive } else { Class::Bulk }
    }

    /// Every answer is progress: each has the whole time limit, or no content could take longer than that.
    fn patiently(&self) -> Call<'_> {
        Call { deadline: Deadline::after(self.call.inner.config.timeout), ..*self.call }
    }

    fn send(&self, request: Request) -> Pending {
        self.call.session.engine.send(request, self.class())
    }

    fn send_open(&self, path: &RemotePath, flags: u32, perm: Option<u16>) -> Pending {
        self.send(Request::Open { path: self.call.wire(path), flags, perm: perm.map(u32::from) })
    }

    fn handle(&self, pending: Pending) -> Result<Vec<u8>, ErrorKind> {
        match pending.wait(self.call.deadline)? {
            Reply::Handle(handle) => Ok(handle),
            Reply::Status { code, message } => Err(ErrorKind::from_status(code, message)),
            _ => Err(ErrorKind::unexpected()),
        }
    }

    fn close(&self, handle: &[u8]) -> Pending {
        self.send(Request::Close { handle: handle.to_vec() })
    }

    /// A name that must not exist yet: the file appears whole where the server can move one there.
    fn create(&self) -> Result<Attr, ErrorKind> {
        let caps: &RenameCapabilities = &self.call.inner.rename_caps;
        let atomic = self.call.session.engine.capabilities().posix_rename;
        match &self.how.temp_dir {
            Some(dir) if atomic && caps.temp_works() && self.source.len > 0 => {
                match self.by_rename(Base::Absent, dir) {
                    Err(Failed::Temp(kind)) => {
                        self.temp_failed(dir, kind)?;
                        self.create_in_place()
                    }
                    Err(Failed::Store(kind)) => Err(kind),
                    Ok(attr) => Ok(attr),
                }
            }
            _ => self.create_in_place(),
        }
    }

    /// The way by a temporary file did not work. Where it has before, that is a passing failure: the caller tries again.
    fn temp_failed(&self, dir: &RemotePath, kind: ErrorKind) -> Result<(), ErrorKind> {
        let caps = &self.call.inner.rename_caps;
        let passing = caps.temp_worked_before();
        caps.temp_failed();
        if passing && caps.temp_works() {
            return Err(kind);
        }
        log::info!("{dir}: cannot be used for temporary files ({kind}); files are overwritten in place");
        Ok(())
    }

    /// 2 round trips.
    fn create_in_place(&self) -> Result<Attr, ErrorKind> {
        self.permit.still_valid()?;
        let perm = self.how.perm.unwrap_or(DEFAULT_PERM);
        let opened = self.send_open(self.path, open::WRITE | open::CREATE | open::EXCLUSIVE, Some(perm));
        let found = self.call.send_lstat(self.path);
        let handle = match self.handle(opened) {
            Ok(handle) => handle,
            Err(ErrorKind::Failure(message)) => {
                return Err(match self.patiently().attr(found) {
                    Ok(attr) => ErrorKind::Conflict { found: Some(attr.version()) },
                    Err(_) => ErrorKind::Failure(message),
                });
            }
            Err(ErrorKind::Exists) => {
                return Err(ErrorKind::Conflict { found: self.patiently().attr(found).ok().map(|a| a.version()) });
            }
            Err(kind) => return Err(kind),
        };
        // Said again after the OPEN: there the server takes its own umask off.
        let result = self.write_all(&handle, Some(perm));
        if matches!(&result, Err(kind) if !kind.is_loss()) {
            // Nobody asked for half a file. What we just made under a name that was free is ours to remove.
            drop(self.patiently().done(self.send(Request::Remove { path: self.call.wire(self.path) })));
        }
        result
    }

    fn replace(&self, base: Base) -> Result<Attr, ErrorKind> {
        let atomic = self.call.session.engine.capabilities().posix_rename;
        let rename_caps: &RenameCapabilities = &self.call.inner.rename_caps;
        match &self.how.temp_dir {
            Some(dir) if atomic && rename_caps.temp_works() => match self.by_rename(base, dir) {
                Err(Failed::Temp(kind)) => {
                    self.temp_failed(dir, kind)?;
                    self.in_place(base)
                }
                Err(Failed::Store(kind)) => Err(kind),
                Ok(attr) => Ok(attr),
            },
            _ => self.in_place(base),
        }
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
    fn by_rename(&self, base: Base, dir: &RemotePath) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        self.remove_left();
        let (temps, epoch) = (&self.call.inner.temps, self.call.session.epoch());
        let temp = temps.make(dir, &self.call.inner.config.temp_prefix, epoch)?;
        let found = self.call.send_lstat(self.path);
        let opened = self.send_open(&temp.path, open::WRITE | open::CREATE | open::EXCLUSIVE, Some(0o600));
        let found = self.check(base, self.patiently().attr(found));
        let handle = match self.handle(opened) {
            Ok(handle) => handle,
            Err(kind) if kind.is_loss() => return Err(kind.into()),
            Err(kind) => {
                temp.forget();
                return Err(found.err().map_or(Failed::Temp(kind), Failed::Store));
            }
        };
        let remove_temp = || {
            drop(self.send(Request::Remove { path: self.call.wire(&temp.path) }));
            temp.forget();
        };
        let result = found.inspect_err(|_| drop(self.close(&handle))).and_then(|found| {
            let perm = self.how.perm.or(found.map(|attr| attr.perm)).unwrap_or(DEFAULT_PERM);
            let sent = self.send_all(&handle, Some(perm))?;
            // The base once more, behind the last byte: what happened meanwhile is seen without a round trip of its own.
            let again = self.send(Request::Lstat { path: self.call.wire(self.path) });
            self.finish(sent)?;
            self.check(base, self.patiently().attr(again))
        });
        if let Err(kind) = result {
            if !kind.is_loss() {
                remove_temp();
            }
            return Err(kind.into());
        }
        let moved = match base {
            Base::Absent => self.move_to_free_name(&temp.path),
            Base::Version(_) | Base::Any => self.move_over(&temp.path, base, dir),
        };
        match &moved {
            Err(Failed::Store(kind)) if kind.is_loss() => {}
            Err(_) => remove_temp(),
            Ok(_) => temp.forget(),
        }
        moved
    }

    /// Temporary files that connections before this one left; not waited for.
    fn remove_left(&self) {
        for path in self.call.inner.temps.take_left(self.call.session.epoch()) {
            drop(self.send(Request::Remove { path: self.call.wire(&path) }));
        }
    }

    /// Plain RENAME, which takes no other file's place.
    fn move_to_free_name(&self, temp: &RemotePath) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        let moved = self.call.send(Request::Rename { from: self.call.wire(temp), to: self.call.wire(self.path) });
        let now = self.call.send_lstat(self.path);
        let (moved, now) = (self.patiently().done(moved), self.patiently().attr(now));
        match (moved, now) {
            (Ok(()), now) => {
                self.call.inner.rename_caps.temp_worked();
                Ok(now?)
            }
            (Err(kind), _) if kind.is_loss() => Err(kind.into()),
            (Err(_), Ok(now)) => Err(ErrorKind::Conflict { found: Some(now.version()) }.into()),
            (Err(kind), Err(_)) if kind.may_mean_unsupported() => Err(Failed::Temp(kind)),
            (Err(kind), Err(_)) => Err(kind.into()),
        }
    }

    fn move_over(&self, temp: &RemotePath, base: Base, dir: &RemotePath) -> Result<Attr, Failed> {
        self.permit.still_valid().map_err(ErrorKind::from)?;
        let guard = match base {
            Base::Version(base) => Some(Guard { base, temp_dir: dir.clone() }),
            Base::Absent | Base::Any => None,
        };
        let held = guard.as_ref().map(|guard| guard.hold(self.call, self.path)).transpose()?.flatten();
        let moved = self.call.send(Request::posix_rename(&self.call.wire(temp), &self.call.wire(self.path)));
        let seen = held.as_ref().map(|held| held.look());
        let now = self.call.send_lstat(self.path);
        if let Err(kind) = self.patiently().done(moved) {
            if !kind.is_loss() {
                held.iter().for_each(|held| held.drop_it());
            }
            return Err(match kind {
                // Another disk, or a server that refuses moves: not the content's fault.
                ErrorKind::Failure(_) | ErrorKind::Unsupported => Failed::Temp(kind),
                ErrorKind::PermissionDenied if !self.call.inner.rename_caps.temp_worked_before() => Failed::Temp(kind),
                kind => kind.into(),
            });
        }
        self.call.inner.rename_caps.temp_worked();
        if let (Some(held), Some(guard), Some(seen)) = (&held, &guard, seen)
            && let Some(other) = held.other_than(guard.base, seen)?
        {
            held.put_back(self.path)?;
            return Err(ErrorKind::Conflict { found: Some(other) }.into());
        }
        Ok(self.patiently().attr(now)?)
    }

    /// Over the old bytes; the size follows them. 2 round trips.
    fn in_place(&self, base: Base) -> Result<Attr, ErrorKind> {
        self.permit.still_valid()?;
        let found = self.call.send_lstat(self.path);
        let create = if base == Base::Any { open::CREATE } else { 0 };
        let opened = self.send_open(self.path, open::WRITE | create, self.how.perm.filter(|_| create != 0));
        let found = self.check(base, self.patiently().attr(found));
        let handle = match (self.handle(opened), found) {
            (Ok(handle), Ok(_)) => handle,
            (Ok(handle), Err(kind)) => {
                drop(self.close(&handle));
                return Err(kind);
            }
            (Err(kind), Ok(_)) | (Err(_), Err(kind)) => return Err(kind),
        };
        self.permit.still_valid()?;
        (self.note)(Note::Touching);
        self.write_all(&handle, self.how.perm)
    }

    /// All bytes, then size, permissions and time, then a look at what is there: it must be what was sent. Closes. The
    /// version is that after CLOSE: some servers set the time then.
    fn write_all(&self, handle: &[u8], perm: Option<u16>) -> Result<Attr, ErrorKind> {
        let sent = self.send_all(handle, perm)?;
        let after = self.call.send_lstat(self.path);
        let attr = self.finish(sent)?;
        match self.patiently().attr(after) {
            Ok(now) if now.is_file() && now.size == attr.size => Ok(now),
            Err(kind) if kind.is_loss() => Err(kind),
            // Another writer's already, or gone: what was sent is what was stored.
            Ok(_) | Err(_) => Ok(attr),
        }
    }

    /// Sends everything, and whatever becomes of it one CLOSE: after that the server may give the handle to another file.
    fn send_all(&self, handle: &[u8], perm: Option<u16>) -> Result<Sent, ErrorKind> {
        let writes = self.send_bytes(handle).inspect_err(|_| drop(self.close(handle)))?;
        let set = |attrs| self.send(Request::FsetStat { handle: handle.to_vec(), attrs });
        let sized = set(RawAttrs { size: Some(self.source.len), ..RawAttrs::default() });
        let perm = perm.map(|perm| set(RawAttrs { perm: Some(u32::from(perm)), ..RawAttrs::default() }));
        let times = self.how.mtime.map(|t| set(RawAttrs { times: Some((t, t)), ..RawAttrs::default() }));
        let stat = self.send(Request::Fstat { handle: handle.to_vec() });
        let closed = self.close(handle);
        Ok(Sent { writes, sized, wishes: [perm, times], stat, closed })
    }

    /// Waits only when more is under way than is good.
    fn send_bytes(&self, handle: &[u8]) -> Result<VecDeque<(u64, Pending)>, ErrorKind> {
        let piece = self.call.session.write_bytes();
        let (mut at, mut under_way) = (0, 0);
        let mut writes: VecDeque<(u64, Pending)> = VecDeque::new();
        while at < self.source.len {
            let len = (self.source.len - at).min(piece);
            let mut data = vec![0; len as usize];
            self.source.file.read_exact_at(&mut data, at)?;
            writes.push_back((len, self.send(Request::Write { handle: handle.to_vec(), offset: at, data })));
            at += len;
            under_way += len;
            while under_way > MAX_UNDER_WAY {
                under_way -= self.finish_write(&mut writes)?;
            }
        }
        Ok(writes)
    }

    fn finish(&self, mut sent: Sent) -> Result<Attr, ErrorKind> {
        while !sent.writes.is_empty() {
            self.finish_write(&mut sent.writes)?;
        }
        let sized = self.patiently().done(sent.sized);
        for pending in sent.wishes.into_iter().flatten() {
            self.refusable(pending)?;
        }
        let attr = self.patiently().attr(sent.stat)?;
        self.patiently().done(sent.closed)?;
        if attr.size != self.source.len {
            sized?;
            let message = format!("the file has {} bytes there instead of {}", attr.size, self.source.len);
            return Err(ErrorKind::Failure(message));
        }
        Ok(attr)
    }

    fn finish_write(&self, writes: &mut VecDeque<(u64, Pending)>) -> Result<u64, ErrorKind> {
        let Some((len, pending)) = writes.pop_front() else { return Ok(0) };
        self.patiently().done(pending)?;
        (self.note)(Note::Moved);
        Ok(len)
    }

    /// A refused chmod or utimens never fails a save.
    fn refusable(&self, pending: Pending) -> Result<(), ErrorKind> {
        match self.patiently().done(pending) {
            Err(kind) if kind.is_loss() => Err(kind),
            Err(kind) => {
                log::debug!("{}: the server keeps its attributes: {kind}", self.path);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// What was sent and has no answer yet.
struct Sent {
    writes: VecDeque<(u64, Pending)>,
    sized: Pending,
    /// Permissions and times: a server may refuse them.
    wishes: [Option<Pending>; 2],
    stat: Pending,
    closed: Pending,
}

/// Whose fault it was.
enum Failed {
    /// The way by a temporary file does not work here.
    Temp(ErrorKind),
    Store(ErrorKind),
}

impl From<ErrorKind> for Failed {
    fn from(kind: ErrorKind) -> Self {
        Self::Store(kind)
    }
}
