//! fuser's handlers: each translates, calls the operation of the same name in `fs`, and answers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{self, ino};
use super::deferred::{Reply, Waiting, defer, refuse};
use super::signals;
use crate::fs::{Allocate, Entry, Fs, FsResult, HandleId, Opened, SetAttr, Wait};

/// Kernel requests that may wait at once in the background (read-ahead, mostly). The kernel's default of 12 would throttle
/// a reader long before our own window does.
const MAX_BACKGROUND: u16 = 256;

pub(super) struct Adapter {
    fs: Fs,
    waiting: Arc<Waiting>,
    allow_other: bool,
    /// Dropped with the session: tells the main thread that the mount is gone.
    _alive: mpsc::Sender<()>,
}

impl Adapter {
    pub(super) fn new(fs: Fs, allow_other: bool, alive: mpsc::Sender<()>) -> Self {
        Self { fs, waiting: Arc::default(), allow_other, _alive: alive }
    }

    /// Answers at once if that needs no waiting, otherwise from a thread that may wait.
    fn run<R: Reply, T: Send + 'static>(
        &self,
        req: &Request,
        reply: R,
        call: impl Fn(&Fs, Wait) -> FsResult<T> + Send + 'static,
        answer: impl FnOnce(&Fs, R, FsResult<T>) + Send + 'static,
        undo: impl FnOnce(&Fs, T) + Send + 'static,
    ) {
        match call(&self.fs, Wait::No) {
            Err(error) if error.would_block() => {
                defer(&self.waiting, &self.fs, req.pid(), reply, call, answer, undo);
            }
            result => answer(&self.fs, reply, result),
        }
    }

    fn run_empty(&self, req: &Request, reply: ReplyEmpty, call: impl Fn(&Fs, Wait) -> FsResult<()> + Send + 'static) {
        self.run(req, reply, call, answer_empty, |_, ()| {});
    }

    fn run_entry(
        &self,
        req: &Request,
        reply: ReplyEntry,
        call: impl Fn(&Fs, Wait) -> FsResult<Entry> + Send + 'static,
    ) {
        let undo = |fs: &Fs, entry: Entry| fs.forget(entry.ino, 1);
        self.run(
            req,
            reply,
            call,
            |fs, reply, result| match result {
                Ok(entry) => reply.entry(&convert::valid(entry.valid), &convert::attr(fs, &entry), Generation(0)),
                Err(error) => refuse(reply, &error),
            },
            undo,
        );
    }

    /// `.pantheon` takes commands from the mounting user only, even where others may read. What root mounted for somebody
    /// (`uid=`, as fstab has it) is that one's; anybody else's `uid=` is only what is shown.
    fn is_stranger(&self, req: &Request, number: INodeNo) -> bool {
        let me = rustix::process::getuid();
        let owner = if me.is_root() { self.fs.uid() } else { me.as_raw() };
        self.allow_other && ino(number).is_virtual() && req.uid() != owner && req.uid() != 0
    }
}

fn answer_empty(_: &Fs, reply: ReplyEmpty, result: FsResult<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => refuse(reply, &error),
    }
}

fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            // A truncation by open(2) must come with the open: on its own it would reach the server ahead of the bytes.
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                log::info!("the kernel does not offer {flag:?}");
            }
        }
        // The kernel may allow less; then that holds.
        let _ = config.set_max_background(MAX_BACKGROUND);
        signals::start(&self.waiting)
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        let call = move |fs: &Fs, wait| fs.lookup(parent, &name, wait);
        let answer = |fs: &Fs, reply: ReplyEntry, result: FsResult<(Option<Entry>, Duration)>| match result {
            Ok((Some(entry), valid)) => {
                reply.entry(&convert::valid(valid), &convert::attr(fs, &entry), Generation(0));
            }
            Ok((None, Duration::ZERO)) => reply.error(Errno::ENOENT),
            // Number 0 with a validity: the kernel remembers that there is no such name.
            Ok((None, valid)) => reply.entry(&convert::valid(valid), &convert::no_attr(), Generation(0)),
            Err(error) => refuse(reply, &error),
        };
        let undo = |fs: &Fs, (entry, _): (Option<Entry>, Duration)| entry.iter().for_each(|e| fs.forget(e.ino, 1));
        self.run(req, reply, call, answer, undo);
    }

    fn forget(&self, _req: &Request, number: INodeNo, nlookup: u64) {
        self.fs.forget(ino(number), nlookup);
    }

    fn getattr(&self, req: &Request, number: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let number = ino(number);
        self.run(req, reply, move |fs, wait| fs.getattr(number, wait), answer_attr, |_, _| {});
    }

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let number = ino(number);
        let change = SetAttr {
            size,
            perm: mode.map(|mode| (mode & 0o7777) as u16),
            atime: atime.map(convert::time),
            mtime: mtime.map(convert::time),
        };
        self.run(req, reply, move |fs, wait| fs.setattr(number, change, wait), answer_attr, |_, _| {});
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        let number = ino(number);
        self.run(req, reply, move |fs, wait| fs.readlink(number, wait), answer_data, |_, _| {});
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_entry(req, reply, move |fs, wait| fs.mknod(parent, &name, (mode & 0o7777) as u16, wait));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_entry(req, reply, move |fs, wait| fs.mkdir(parent, &name, (mode & 0o7777) as u16, wait));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_empty(req, reply, move |fs, wait| fs.unlink(parent, &name, wait));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_empty(req, reply, move |fs, wait| fs.rmdir(parent, &name, wait));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (parent, name) = (ino(parent), link_name.as_bytes().to_vec());
        let text = target.as_os_str().as_bytes().to_vec();
        self.run_entry(req, reply, move |fs, wait| fs.symlink(parent, &name, &text, wait));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, name) = (ino(parent), name.as_bytes().to_vec());
        let (to, newname) = (ino(newparent), newname.as_bytes().to_vec());
        self.run_empty(req, reply, move |fs, wait| fs.rename((from, &name), (to, &newname), no_replace, wait));
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = convert::open_mode(flags);
        if mode.write && self.is_stranger(req, number) {
            return reply.error(Errno::EACCES);
        }
        let number = ino(number);
        let answer = |_: &Fs, reply: ReplyOpen, result: FsResult<Opened>| match result {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), open_flags(&opened)),
            Err(error) => refuse(reply, &error),
        };
        let undo = |fs: &Fs, opened: Opened| drop(fs.release(opened.handle, Wait::Until(fs.deadline())));
        self.run(req, reply, move |fs, wait| fs.open(number, mode, wait), answer, undo);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        let (perm, exclusive) = ((mode & 0o7777) as u16, flags & libc::O_EXCL != 0);
        let open_mode = convert::open_mode(OpenFlags(flags));
        let call = move |fs: &Fs, wait| fs.create(parent, &name, perm, open_mode, exclusive, wait);
        let answer = |fs: &Fs, reply: ReplyCreate, result: FsResult<(Entry, Opened)>| match result {
            Ok((entry, opened)) => {
                let (valid, attr) = (convert::valid(entry.valid), convert::attr(fs, &entry));
                reply.created(&valid, &attr, Generation(0), FileHandle(opened.handle.0), open_flags(&opened));
            }
            Err(error) => refuse(reply, &error),
        };
        let undo = |fs: &Fs, (entry, opened): (Entry, Opened)| {
            drop(fs.release(opened.handle, Wait::Until(fs.deadline())));
            fs.forget(entry.ino, 1);
        };
        self.run(req, reply, call, answer, undo);
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = HandleId(fh.0);
        self.run(req, reply, move |fs, wait| fs.read(handle, offset, size, wait), answer_data, |_, _| {});
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let handle = HandleId(fh.0);
        let answer = |_: &Fs, reply: ReplyWrite, result: FsResult<u32>| match result {
            Ok(size) => reply.written(size),
            Err(error) => refuse(reply, &error),
        };
        match self.fs.write(handle, offset, data, Wait::No) {
            Err(error) if error.would_block() => {
                let data = data.to_vec();
                let call = move |fs: &Fs, wait| fs.write(handle, offset, &data, wait);
                defer(&self.waiting, &self.fs, req.pid(), reply, call, answer, |_, _| {});
            }
            result => answer(&self.fs, reply, result),
        }
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let handle = HandleId(fh.0);
        self.run_empty(req, reply, move |fs, wait| fs.flush(handle, wait));
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let handle = HandleId(fh.0);
        self.run_empty(req, reply, move |fs, wait| fs.release(handle, wait));
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let handle = HandleId(fh.0);
        self.run_empty(req, reply, move |fs, wait| fs.fsync(handle, wait));
    }

    fn opendir(&self, req: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let number = ino(number);
        let answer = |_: &Fs, reply: ReplyOpen, result: FsResult<(HandleId, bool)>| match result {
            Ok((handle, keep_names)) => {
                let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep_names);
                reply.opened(FileHandle(handle.0), flags);
            }
            Err(error) => refuse(reply, &error),
        };
        self.run(req, reply, move |fs, wait| fs.opendir(number, wait), answer, |fs, opened| fs.releasedir(opened.0));
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let done = self.fs.readdirplus(HandleId(fh.0), offset, |entry| {
            let number = INodeNo(entry.entry.ino.0);
            !reply.add(number, entry.offset, convert::kind(entry.entry.attr.kind), OsStr::from_bytes(&entry.name))
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(convert::errno(&error)),
        }
    }

    fn readdirplus(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let done = self.fs.readdirplus(HandleId(fh.0), offset, |item| {
            let (valid, attr) = (convert::valid(item.entry.valid), convert::attr(&self.fs, &item.entry));
            let name = OsStr::from_bytes(&item.name);
            let full = reply.add(INodeNo(item.entry.ino.0), item.offset, name, &valid, &attr, Generation(0));
            if !full {
                self.fs.looked_up(item);
            }
            !full
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(convert::errno(&error)),
        }
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.fs.releasedir(HandleId(fh.0));
        reply.ok();
    }

    fn fsyncdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let handle = HandleId(fh.0);
        self.run_empty(req, reply, move |fs, wait| fs.fsync(handle, wait));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = self.fs.statfs();
        reply.statfs(s.blocks, s.free, s.available, s.files, s.files_free, s.block_bytes, s.name_bytes, s.block_bytes);
    }

    fn access(&self, req: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (number, mask, uid) = (ino(number), mask.bits(), req.uid());
        self.run_empty(req, reply, move |fs, wait| fs.access(number, mask, uid, wait));
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let what = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Allocate::Reserve { keep_size },
            libc::FALLOC_FL_ZERO_RANGE => Allocate::Zero { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Allocate::PunchHole,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let handle = HandleId(fh.0);
        self.run_empty(req, reply, move |fs, wait| fs.fallocate(handle, offset, length, what, wait));
    }

    // SFTP has no extended attributes. ENOSYS tells the kernel once and for all; it would otherwise ask for
    // `security.capability` before every write.

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        // The server cannot say which names share a file, so a link made here would look like two files. Programs that
        // are refused copy instead (git does).
        reply.error(Errno::EPERM);
    }
}

fn answer_attr(fs: &Fs, reply: ReplyAttr, result: FsResult<Entry>) {
    match result {
        Ok(entry) => reply.attr(&convert::valid(entry.valid), &convert::attr(fs, &entry)),
        Err(error) => refuse(reply, &error),
    }
}

fn answer_data(_: &Fs, reply: ReplyData, result: FsResult<Vec<u8>>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => refuse(reply, &error),
    }
}
