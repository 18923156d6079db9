//! Writing content to a file that is open on the server: all bytes, then size, permissions and times, then a look at what is
//! there, and CLOSE.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::attempt::Attempt;
use super::error::ErrorKind;
use super::reply;
use crate::attr::Attr;
use crate::path::RemotePath;
use crate::sftp::{Class, Pending, RawAttrs, Request};

/// Bytes under way at most (the link of a fast and far server holds about 1 MB).
const MAX_UNDER_WAY: u64 = 8 * 1024 * 1024;
/// Content up to this size travels with the requests that callers wait for; more would make them wait (bytes).
const SMALL_BYTES: u64 = 256 * 1024;

/// How far a long operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// From here on the server may have half of the change, and only another attempt completes it.
    Modifying,
    /// A piece of content arrived.
    Transferred,
}

/// The new content: the first `len` bytes of a local file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) len: u64,
}

impl Source<'_> {
    /// CRC-32 of the content.
    pub(super) fn sum(&self) -> std::io::Result<u32> {
        let (mut sum, mut at) = (crc32fast::Hasher::new(), 0);
        let mut piece = vec![0; SMALL_BYTES as usize];
        while at < self.len {
            let len = (self.len - at).min(SMALL_BYTES) as usize;
            self.file.read_exact_at(&mut piece[..len], at)?;
            sum.update(&piece[..len]);
            at += len as u64;
        }
        Ok(sum.finalize())
    }
}

/// Sends the content of one file within one attempt.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) attempt: &'a Attempt<'a>,
    /// For the log.
    pub(super) path: &'a RemotePath,
    pub(super) source: Source<'a>,
    /// Seconds; the server's own time if not given.
    pub(super) mtime: Option<u32>,
    pub(super) progress: &'a dyn Fn(Progress),
}

impl Writer<'_> {
    /// Each answer is progress and has the whole time limit: content of any size can be written.
    pub(super) fn extended(&self) -> Attempt<'_> {
        self.attempt.extended()
    }

    /// Queues a request, behind those that callers wait for if the content is large.
    pub(super) fn send(&self, request: Request) -> Pending {
        let class = if self.source.len <= SMALL_BYTES { Class::Interactive } else { Class::Bulk };
        self.attempt.session().send(request, class)
    }

    pub(super) fn send_open(&self, path: &RemotePath, flags: u32, perm: Option<u16>) -> Pending {
        self.send(Request::Open { path: self.attempt.wire(path), flags, perm: perm.map(u32::from) })
    }

    pub(super) fn send_remove(&self, path: &RemotePath) -> Pending {
        self.send(Request::Remove { path: self.attempt.wire(path) })
    }

    pub(super) fn handle(&self, pending: Pending) -> Result<Vec<u8>, ErrorKind> {
        reply::handle(pending.wait(self.attempt.deadline()))
    }

    pub(super) fn close(&self, handle: &[u8]) -> Pending {
        self.send(Request::Close { handle: handle.to_vec() })
    }

    /// Sends all requests, and exactly one CLOSE even if that fails: after a CLOSE the server may give the handle to another
    /// file.
    pub(super) fn send_all(&self, handle: &[u8], perm: Option<u16>) -> Result<Sent, ErrorKind> {
        self.send_parts(handle, perm, std::slice::from_ref(&(0..self.source.len)))
    }

    /// The same for a file that gets its other parts in another way.
    pub(super) fn send_parts(&self, handle: &[u8], perm: Option<u16>, parts: &[Range<u64>]) -> Result<Sent, ErrorKind> {
        let writes = self.send_bytes(handle, parts).inspect_err(|_| drop(self.close(handle)))?;
        let set = |attrs| self.send(Request::FsetStat { handle: handle.to_vec(), attrs });
        let sized = set(RawAttrs { size: Some(self.source.len), ..RawAttrs::default() });
        let perm = perm.map(|perm| set(RawAttrs { perm: Some(u32::from(perm)), ..RawAttrs::default() }));
        let times = self.mtime.map(|t| set(RawAttrs { times: Some((t, t)), ..RawAttrs::default() }));
        let stat = self.send(Request::Fstat { handle: handle.to_vec() });
        let closed = self.close(handle);
        Ok(Sent { writes, sized, wishes: [perm, times], stat, closed })
    }

    /// Sends the WRITEs. Waits for answers only when [`MAX_UNDER_WAY`] is reached.
    fn send_bytes(&self, handle: &[u8], parts: &[Range<u64>]) -> Result<VecDeque<(u64, Pending)>, ErrorKind> {
        let piece = self.attempt.session().write_bytes();
        let mut under_way = 0;
        let mut writes: VecDeque<(u64, Pending)> = VecDeque::new();
        let pieces = parts.iter().flat_map(|range| {
            let end = range.end;
            range.clone().step_by(piece as usize).map(move |at| (at, (end - at).min(piece)))
        });
        for (at, len) in pieces {
            let mut data = vec![0; len as usize];
            self.source.file.read_exact_at(&mut data, at)?;
            writes.push_back((len, self.send(Request::Write { handle: handle.to_vec(), offset: at, data })));
            under_way += len;
            while under_way > MAX_UNDER_WAY {
                under_way -= self.finish_write(&mut writes)?;
            }
        }
        Ok(writes)
    }

    /// Waits for the answers. The attributes are those after the last byte, and before CLOSE.
    pub(super) fn finish(&self, sent: Sent) -> Result<Attr, ErrorKind> {
        let (attr, sized) = self.finish_of_any_size(sent)?;
        if attr.size != self.source.len {
            sized?;
            let message = format!("the file has {} bytes there instead of {}", attr.size, self.source.len);
            return Err(ErrorKind::Failure(message));
        }
        Ok(attr)
    }

    /// Like [`Writer::finish`], also where the server did not set the size; with its answer to that.
    pub(super) fn finish_of_any_size(&self, mut sent: Sent) -> Result<(Attr, Result<(), ErrorKind>), ErrorKind> {
        while !sent.writes.is_empty() {
            self.finish_write(&mut sent.writes)?;
        }
        let sized = self.extended().ok(sent.sized);
        for pending in sent.wishes.into_iter().flatten() {
            self.refusable(pending)?;
        }
        let attr = self.extended().attr(sent.stat)?;
        self.extended().ok(sent.closed)?;
        Ok((attr, sized))
    }

    fn finish_write(&self, writes: &mut VecDeque<(u64, Pending)>) -> Result<u64, ErrorKind> {
        let Some((len, pending)) = writes.pop_front() else { return Ok(0) };
        self.extended().ok(pending)?;
        (self.progress)(Progress::Transferred);
        Ok(len)
    }

    /// A refused chmod or utimens never fails a save.
    fn refusable(&self, pending: Pending) -> Result<(), ErrorKind> {
        match self.extended().ok(pending) {
            Err(kind) if kind.is_loss() => Err(kind),
            Err(kind) => {
                log::debug!("{}: the server keeps its attributes: {kind}", self.path);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Requests that have no answer yet.
pub(super) struct Sent {
    writes: VecDeque<(u64, Pending)>,
    sized: Pending,
    /// Permissions and times: a server may refuse them.
    wishes: [Option<Pending>; 2],
    stat: Pending,
    closed: Pending,
}
