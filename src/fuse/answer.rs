//! The answer to one request of the kernel, and its trace: with `-v -v` the log has a line for every request.
//!
//! A line is `request NUMBER: OPERATION of inode INODE by pid PID: ANSWER, after TIME`. The number is the kernel's own
//! and unique, the pid that of the calling thread. A request that is not answered at once has a line before, that it
//! waits.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request,
};

use super::convert;
use super::errno::{self, Refusal};
use crate::fs::{DirEntry, Entry, Fs, FsError, FsResult, HandleId, Opened, Space};

/// What a call waits for, according to its reply. Each kind has its own threads, so that a save does not wait for calls
/// that wait for content.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The content of a file.
    Read,
    /// Names and attributes, and opening files.
    Lookup,
    /// A change, which usually needs no answer of the server.
    Change,
}

/// A reply of fuser's.
pub(super) trait Reply: Send + 'static {
    const KIND: Kind;

    fn error(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ty: $kind:ident),*) => { $(impl Reply for $reply {
        const KIND: Kind = Kind::$kind;

        fn error(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}
replies!(
    ReplyAttr: Lookup,
    ReplyCreate: Change,
    ReplyData: Read,
    ReplyDirectory: Lookup,
    ReplyDirectoryPlus: Lookup,
    ReplyEmpty: Change,
    ReplyEntry: Lookup,
    ReplyIoctl: Lookup,
    ReplyLseek: Lookup,
    ReplyOpen: Lookup,
    ReplyPoll: Lookup,
    ReplyStatfs: Lookup,
    ReplyWrite: Change,
    ReplyXattr: Lookup
);

/// See the module header.
pub(super) struct Answer<R> {
    reply: R,
    caller: u32,
    /// Only while requests are traced.
    trace: Option<Trace>,
}

struct Trace {
    number: u64,
    operation: &'static str,
    inode: u64,
    caller: u32,
    since: Instant,
}

impl Trace {
    fn new(request: &Request, operation: &'static str, inode: INodeNo) -> Option<Self> {
        log::log_enabled!(log::Level::Trace).then(|| Self {
            number: request.unique().0,
            operation,
            inode: inode.0,
            caller: request.pid(),
            since: Instant::now(),
        })
    }

    fn line(&self, answer: fmt::Arguments<'_>) {
        let Self { number, operation, inode, caller, .. } = self;
        let after = self.since.elapsed();
        log::trace!("request {number}: {operation} of inode {inode} by pid {caller}: {answer}, after {after:.1?}");
    }
}

/// Traces a request that has no answer.
pub(super) fn unanswered(request: &Request, operation: &'static str, inode: INodeNo, what: fmt::Arguments<'_>) {
    if let Some(trace) = Trace::new(request, operation, inode) {
        trace.line(what);
    }
}

impl<R: Reply> Answer<R> {
    pub(super) fn to(request: &Request, operation: &'static str, inode: INodeNo, reply: R) -> Self {
        Self { reply, caller: request.pid(), trace: Trace::new(request, operation, inode) }
    }

    /// The thread that waits for the answer.
    pub(super) fn caller(&self) -> u32 {
        self.caller
    }

    /// It is not given at once.
    pub(super) fn waits(&self) {
        self.trace(format_args!("waits"));
    }

    /// The answer for an operation that failed.
    pub(super) fn fail(self, error: &FsError) {
        log::debug!("{error}");
        self.error(errno::of(error));
    }

    pub(super) fn refuse(self, why: Refusal) {
        self.error(why.errno());
    }

    fn error(self, errno: Errno) {
        self.trace(format_args!("{}", io::Error::from_raw_os_error(errno.code())));
        self.reply.error(errno);
    }

    fn trace(&self, answer: fmt::Arguments<'_>) {
        if let Some(trace) = &self.trace {
            trace.line(answer);
        }
    }

    fn ok(self, what: fmt::Arguments<'_>) -> R {
        self.trace(format_args!("ok{what}"));
        self.reply
    }
}

impl Answer<ReplyEmpty> {
    pub(super) fn done(self) {
        self.ok(format_args!("")).ok();
    }
}

impl Answer<ReplyEntry> {
    pub(super) fn entry(self, fs: &Fs, entry: &Entry) {
        let (valid, attr) = (convert::valid(entry.valid), convert::attr(fs, entry));
        let attr_valid = if entry.ask_attr { Duration::ZERO } else { valid };
        self.ok(format_args!(", inode {}", entry.ino.0)).entry_with_ttls(&attr_valid, &valid, &attr, Generation(0));
    }

    /// Number 0 with a validity: the kernel remembers that there is no such name.
    pub(super) fn no_entry(self, valid: Duration) {
        if valid.is_zero() {
            return self.refuse(Refusal::NoSuchName);
        }
        let reply = self.ok(format_args!(", no such name for {valid:?}"));
        reply.entry(&convert::valid(valid), &convert::no_attr(), Generation(0));
    }
}

impl Answer<ReplyAttr> {
    pub(super) fn attr(self, fs: &Fs, entry: &Entry) {
        let (valid, attr) = (convert::valid(entry.valid), convert::attr(fs, entry));
        self.ok(format_args!(", {} bytes", attr.size)).attr(&valid, &attr);
    }
}

impl Answer<ReplyData> {
    pub(super) fn data(self, bytes: &[u8]) {
        self.ok(format_args!(", {} bytes", bytes.len())).data(bytes);
    }
}

impl Answer<ReplyWrite> {
    pub(super) fn written(self, bytes: u32) {
        self.ok(format_args!(", {bytes} bytes")).written(bytes);
    }
}

impl Answer<ReplyOpen> {
    pub(super) fn opened(self, handle: HandleId, flags: FopenFlags) {
        self.ok(format_args!(", handle {}", handle.0)).opened(FileHandle(handle.0), flags);
    }
}

impl Answer<ReplyCreate> {
    pub(super) fn created(self, fs: &Fs, entry: &Entry, opened: &Opened) {
        let (valid, attr) = (convert::valid(entry.valid), convert::attr(fs, entry));
        let (handle, flags) = (FileHandle(opened.handle.0), convert::open_flags(opened));
        let reply = self.ok(format_args!(", inode {}, handle {}", entry.ino.0, opened.handle.0));
        reply.created(&valid, &attr, Generation(0), handle, flags);
    }
}

impl Answer<ReplyStatfs> {
    pub(super) fn space(self, s: &Space) {
        let reply = self.ok(format_args!(", {} of {} blocks free", s.free, s.blocks));
        reply.statfs(s.blocks, s.free, s.available, s.files, s.files_free, s.block_bytes, s.name_bytes, s.block_bytes);
    }
}

impl Answer<ReplyDirectory> {
    /// `fill` gives entries to its argument until that says that there is no more room.
    pub(super) fn entries(mut self, fill: impl FnOnce(&mut dyn FnMut(&DirEntry) -> bool) -> FsResult<()>) {
        let mut count = 0;
        let mut add = |item: &DirEntry| {
            let (number, kind) = (INodeNo(item.entry.ino.0), convert::kind(item.entry.attr.kind));
            let full = self.reply.add(number, item.offset, kind, OsStr::from_bytes(&item.name));
            count += u32::from(!full);
            !full
        };
        match fill(&mut add) {
            Ok(()) => self.ok(format_args!(", {count} names")).ok(),
            Err(error) => self.fail(&error),
        }
    }
}

impl Answer<ReplyDirectoryPlus> {
    /// As [`Answer::entries`]; each entry that is given counts as looked up.
    pub(super) fn entries(mut self, fs: &Fs, fill: impl FnOnce(&mut dyn FnMut(&DirEntry) -> bool) -> FsResult<()>) {
        let mut count = 0;
        let mut add = |item: &DirEntry| {
            let (valid, attr) = (convert::valid(item.entry.valid), convert::attr(fs, &item.entry));
            let (number, name) = (INodeNo(item.entry.ino.0), OsStr::from_bytes(&item.name));
            let full = self.reply.add(number, item.offset, name, &valid, &attr, Generation(0));
            count += u32::from(!full);
            !full
        };
        match fill(&mut add) {
            Ok(()) => self.ok(format_args!(", {count} names")).ok(),
            Err(error) => self.fail(&error),
        }
    }
}
