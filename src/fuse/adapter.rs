//! fuser's handlers: each translates, calls the operation of the same name in `fs`, and answers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answer::{Answer, unanswered};
use super::convert::{self, ino, perm};
use super::deferred::defer;
use super::dispatch::Adapter;
use super::errno::Refusal;
use super::signals;
use crate::fs::{Entry, Fs, HandleId, OpenMode, Opened, SetAttr, Wait};

/// Kernel requests that may wait at once in the background (read-ahead, mostly). The kernel's default of 12 would throttle
/// a reader long before our own window does.
const MAX_BACKGROUND: u16 = 256;

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
        let answer = Answer::to(req, "lookup", parent, reply);
        let replayed = self.replayed(req, answer, |fs, current, answer| {
            let found = current.check(name.as_bytes());
            match found.or_else(|| fs.lookup_for(&current.step, ino(parent), name.as_bytes())) {
                Some(entry) => {
                    answer.entry(fs, &entry);
                    None
                }
                None => Some(answer),
            }
        });
        let Some(answer) = replayed else { return };
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        let ok = |fs: &Fs, answer: Answer<ReplyEntry>, found: (Option<Entry>, Duration)| match found {
            (Some(entry), valid) => answer.entry(fs, &Entry { valid, ..entry }),
            (None, valid) => answer.no_entry(valid),
        };
        let undo = |fs: &Fs, (entry, _): (Option<Entry>, Duration)| entry.iter().for_each(|e| fs.forget(e.ino, 1));
        self.run(answer, move |fs, wait| fs.lookup(parent, &name, wait), ok, undo);
    }

    fn forget(&self, req: &Request, number: INodeNo, nlookup: u64) {
        unanswered(req, "forget", number, format_args!("{nlookup} lookups"));
        self.fs.forget(ino(number), nlookup);
    }

    fn getattr(&self, req: &Request, number: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let answer = Answer::to(req, "getattr", number, reply);
        let Some(answer) = self.replayed_attr(req, number, answer) else { return };
        let number = ino(number);
        let call = move |fs: &Fs, wait| fs.getattr(number, wait);
        self.run(answer, call, |fs, answer, entry| answer.attr(fs, &entry), |_, _| {});
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
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let answer = Answer::to(req, "setattr", number, reply);
        let Some(answer) = self.replayed_attr(req, number, answer) else { return };
        let number = ino(number);
        let change =
            SetAttr { size, perm: mode.map(perm), atime: atime.map(convert::time), mtime: mtime.map(convert::time) };
        // By a descriptor that was opened for writing it is allowed whatever the bits are now.
        let (by_path, uid) = (size.is_some() && fh.is_none(), req.uid());
        let call = move |fs: &Fs, wait| {
            if by_path {
                fs.check_write(&[number], uid, wait)?;
            }
            fs.setattr(number, change, wait)
        };
        self.run(answer, call, |fs, answer, entry| answer.attr(fs, &entry), |_, _| {});
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        let answer = Answer::to(req, "readlink", number, reply);
        let number = ino(number);
        let call = move |fs: &Fs, wait| fs.readlink(number, wait);
        self.run(answer, call, |_, answer, text| answer.data(&text), |_, _| {});
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
        let (answer, uid) = (Answer::to(req, "mknod", parent, reply), req.uid());
        let Some(answer) = self.replayed_make(req, parent, name, answer) else { return };
        if mode & libc::S_IFMT != libc::S_IFREG {
            return answer.refuse(Refusal::SpecialFile);
        }
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_entry(answer, move |fs, wait| {
            fs.check_write(&[parent], uid, wait).and_then(|()| fs.mknod(parent, &name, perm(mode), wait))
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (answer, uid) = (Answer::to(req, "mkdir", parent, reply), req.uid());
        let Some(answer) = self.replayed_make(req, parent, name, answer) else { return };
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_entry(answer, move |fs, wait| {
            fs.check_write(&[parent], uid, wait).and_then(|()| fs.mkdir(parent, &name, perm(mode), wait))
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (answer, uid) = (Answer::to(req, "unlink", parent, reply), req.uid());
        let Some(answer) = self.replayed_removal(req, parent, name, answer) else { return };
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_empty(answer, move |fs, wait| {
            fs.check_unlink(parent, &name, uid, wait).and_then(|()| fs.unlink(parent, &name, wait))
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (answer, uid) = (Answer::to(req, "rmdir", parent, reply), req.uid());
        let Some(answer) = self.replayed_removal(req, parent, name, answer) else { return };
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        self.run_empty(answer, move |fs, wait| {
            fs.check_write(&[parent], uid, wait).and_then(|()| fs.rmdir(parent, &name, wait))
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (answer, uid) = (Answer::to(req, "symlink", parent, reply), req.uid());
        let Some(answer) = self.replayed_make(req, parent, link_name, answer) else { return };
        let (parent, name) = (ino(parent), link_name.as_bytes().to_vec());
        let text = target.as_os_str().as_bytes().to_vec();
        self.run_entry(answer, move |fs, wait| {
            fs.check_write(&[parent], uid, wait).and_then(|()| fs.symlink(parent, &name, &text, wait))
        });
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
        let (answer, uid) = (Answer::to(req, "rename", parent, reply), req.uid());
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return answer.refuse(Refusal::RenameFlags);
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, name) = (ino(parent), name.as_bytes().to_vec());
        let (to, newname) = (ino(newparent), newname.as_bytes().to_vec());
        self.run_empty(answer, move |fs, wait| {
            fs.check_rename((from, &name), (to, &newname), uid, wait)?;
            fs.rename((from, &name), (to, &newname), no_replace, wait)
        });
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = Answer::to(req, "open", number, reply);
        let mode = convert::open_mode(flags);
        if mode.write && self.is_stranger(req, number) {
            return answer.refuse(Refusal::NotTheOwner);
        }
        let number = ino(number);
        let writes = mode.write || mode.truncate;
        let writers = self.writers.clone();
        let ok = move |_: &Fs, answer: Answer<ReplyOpen>, opened: Opened| {
            if writes {
                writers.note(opened.handle, answer.caller());
            }
            answer.opened(opened.handle, convert::open_flags(&opened));
        };
        let undo = |fs: &Fs, opened: Opened| drop(fs.release(opened.handle, Wait::Until(fs.deadline())));
        let (runs, uid) = (convert::runs(flags), req.uid());
        let call = move |fs: &Fs, wait| {
            fs.check_open(number, mode, runs, uid, wait)?;
            fs.open(number, mode, wait)
        };
        self.run(answer, call, ok, undo);
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
        let answer = Answer::to(req, "create", parent, reply);
        let (parent, name) = (ino(parent), name.as_bytes().to_vec());
        let new = convert::new_file(perm(mode), flags);
        let open_mode = convert::open_mode(OpenFlags(flags));
        let uid = req.uid();
        let call = move |fs: &Fs, wait| {
            let new = fs.check_create(parent, new, uid, wait)?;
            fs.create(parent, &name, new, open_mode, wait)
        };
        let writers = self.writers.clone();
        let ok = move |fs: &Fs, answer: Answer<ReplyCreate>, (entry, opened): (Entry, Opened)| {
            writers.note(opened.handle, answer.caller());
            answer.created(fs, &entry, &opened);
        };
        let undo = |fs: &Fs, (entry, opened): (Entry, Opened)| {
            drop(fs.release(opened.handle, Wait::Until(fs.deadline())));
            fs.forget(entry.ino, 1);
        };
        self.run(answer, call, ok, undo);
    }

    fn read(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = Answer::to(req, "read", number, reply);
        let handle = HandleId(fh.0);
        let call = move |fs: &Fs, wait| fs.read(handle, offset, size, wait);
        self.run(answer, call, |_, answer, bytes| answer.data(&bytes), |_, _| {});
    }

    fn write(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let answer = Answer::to(req, "write", number, reply);
        let handle = HandleId(fh.0);
        self.writers.note(handle, req.pid());
        let ok = |_: &Fs, answer: Answer<ReplyWrite>, bytes| answer.written(bytes);
        // Not by `run`: the data is copied only if the call must wait.
        match self.fs.write(handle, offset, data, Wait::No) {
            Ok(bytes) => ok(&self.fs, answer, bytes),
            Err(error) if error.would_block() => {
                let data = data.to_vec();
                let call = move |fs: &Fs, wait| fs.write(handle, offset, &data, wait);
                defer(&self.waiting, &self.fs, answer, call, ok, |_, _| {});
            }
            Err(error) => answer.fail(&error),
        }
    }

    fn flush(&self, req: &Request, number: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let answer = Answer::to(req, "flush", number, reply);
        let handle = HandleId(fh.0);
        if self.writers.is_written_elsewhere(handle, req.pid()) {
            return answer.done();
        }
        self.run_empty(answer, move |fs, wait| fs.flush(handle, wait));
    }

    fn release(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let answer = Answer::to(req, "release", number, reply);
        let handle = HandleId(fh.0);
        self.writers.forget(handle);
        self.run_empty(answer, move |fs, wait| fs.release(handle, wait));
    }

    fn fsync(&self, req: &Request, number: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let answer = Answer::to(req, "fsync", number, reply);
        let handle = HandleId(fh.0);
        self.run_empty(answer, move |fs, wait| fs.fsync(handle, wait));
    }

    fn opendir(&self, req: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (answer, uid) = (Answer::to(req, "opendir", number, reply), req.uid());
        let number = ino(number);
        let mode = OpenMode { read: true, write: false, truncate: false };
        let ok = |_: &Fs, answer: Answer<ReplyOpen>, (handle, keep_names): (HandleId, bool)| {
            let mut flags = FopenFlags::FOPEN_CACHE_DIR;
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep_names);
            answer.opened(handle, flags);
        };
        let call = move |fs: &Fs, wait| {
            fs.check_open(number, mode, false, uid, wait)?;
            fs.opendir(number, wait)
        };
        self.run(answer, call, ok, |fs, opened| fs.releasedir(opened.0));
    }

    fn readdir(&self, req: &Request, number: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let answer = Answer::to(req, "readdir", number, reply);
        answer.entries(|add| self.fs.readdirplus(HandleId(fh.0), offset, add));
    }

    fn readdirplus(&self, req: &Request, number: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let answer = Answer::to(req, "readdirplus", number, reply);
        answer.entries(&self.fs, |add| {
            self.fs.readdirplus(HandleId(fh.0), offset, |entry| {
                let taken = add(entry);
                if taken {
                    self.fs.looked_up(entry);
                }
                taken
            })
        });
    }

    fn releasedir(&self, req: &Request, number: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let answer = Answer::to(req, "releasedir", number, reply);
        self.fs.releasedir(HandleId(fh.0));
        answer.done();
    }

    fn fsyncdir(&self, req: &Request, number: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let handle = HandleId(fh.0);
        self.run_empty(Answer::to(req, "fsyncdir", number, reply), move |fs, wait| fs.fsync(handle, wait));
    }

    fn statfs(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        let answer = Answer::to(req, "statfs", number, reply);
        self.run(answer, Fs::statfs, |_, answer, space| answer.space(&space), |_, _| {});
    }

    fn access(&self, req: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let answer = Answer::to(req, "access", number, reply);
        let (number, mask, uid) = (ino(number), mask.bits(), req.uid());
        self.run_empty(answer, move |fs, wait| fs.access(number, mask, uid, wait));
    }

    fn fallocate(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let answer = Answer::to(req, "fallocate", number, reply);
        let Some(what) = convert::allocate(mode) else { return answer.refuse(Refusal::AllocateMode) };
        let handle = HandleId(fh.0);
        self.run_empty(answer, move |fs, wait| fs.fallocate(handle, offset, length, what, wait));
    }

    fn link(&self, req: &Request, number: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        Answer::to(req, "link", number, reply).refuse(Refusal::HardLink);
    }

    fn getxattr(&self, req: &Request, number: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        Answer::to(req, "getxattr", number, reply).refuse(Refusal::NotOffered);
    }

    fn listxattr(&self, req: &Request, number: INodeNo, _size: u32, reply: ReplyXattr) {
        Answer::to(req, "listxattr", number, reply).refuse(Refusal::NotOffered);
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        Answer::to(req, "setxattr", number, reply).refuse(Refusal::NotOffered);
    }

    fn removexattr(&self, req: &Request, number: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        Answer::to(req, "removexattr", number, reply).refuse(Refusal::NotOffered);
    }

    fn ioctl(
        &self,
        req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        Answer::to(req, "ioctl", number, reply).refuse(Refusal::NotOffered);
    }

    fn poll(
        &self,
        req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        Answer::to(req, "poll", number, reply).refuse(Refusal::NotOffered);
    }

    fn lseek(&self, req: &Request, number: INodeNo, _fh: FileHandle, _offset: i64, _whence: i32, reply: ReplyLseek) {
        Answer::to(req, "lseek", number, reply).refuse(Refusal::NotOffered);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        number: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        Answer::to(req, "copy_file_range", number, reply).refuse(Refusal::NotOffered);
    }
}
