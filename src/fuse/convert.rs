//! Between our types and fuser's: no decisions, only spelling.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, OpenAccMode, OpenFlags, TimeOrNow};

use crate::attr::{Attr, FileKind, time_from_secs};
use crate::fs::{Allocate, Entry, Fs, NewFile, OpenMode, Opened, Time};
use crate::inode::Ino;

/// Size that `st_blksize` suggests for reads: one request of the kernel's read-ahead.
const IO_BYTES: u32 = 128 * 1024;

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        // A socket can be neither opened nor mistaken for content.
        FileKind::Other => FileType::Socket,
    }
}

pub(super) fn attr(fs: &Fs, entry: &Entry) -> FileAttr {
    let Attr { kind: of, size, perm, mtime, atime } = entry.attr;
    FileAttr {
        ino: INodeNo(entry.ino.0),
        size,
        blocks: size.div_ceil(512),
        atime: time_from_secs(atime),
        mtime: time_from_secs(mtime),
        ctime: time_from_secs(entry.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(of),
        perm: fs.shown_perm(perm),
        nlink: match of {
            _ if entry.unlinked => 0,
            FileKind::Directory => 2,
            FileKind::File | FileKind::Symlink | FileKind::Other => 1,
        },
        uid: fs.uid(),
        gid: fs.gid(),
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

pub(super) fn open_mode(flags: OpenFlags) -> OpenMode {
    let (read, write) = match flags.acc_mode() {
        OpenAccMode::O_RDONLY => (true, false),
        OpenAccMode::O_WRONLY => (false, true),
        OpenAccMode::O_RDWR => (true, true),
    };
    OpenMode { read, write, truncate: flags.0 & libc::O_TRUNC != 0 }
}

/// How a file is made. A temporary file is told by what mkstemp(3) does: it is made exclusively, and for its owner alone.
pub(super) fn new_file(perm: u16, flags: i32) -> NewFile {
    let exclusive = flags & libc::O_EXCL != 0;
    NewFile { perm, exclusive, scratch: exclusive && perm & 0o077 == 0 }
}

/// Whether the file is opened by execve(2): the kernel's own `FMODE_EXEC`, which no program can give.
pub(super) fn runs(flags: OpenFlags) -> bool {
    const FMODE_EXEC: i32 = 0x20;
    flags.0 & FMODE_EXEC != 0
}

pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

/// The permission bits of a mode.
pub(super) fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// What a mode of fallocate(2) asks for; `None`: something else.
pub(super) fn allocate(mode: i32) -> Option<Allocate> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Some(Allocate::Reserve { keep_size }),
        libc::FALLOC_FL_ZERO_RANGE => Some(Allocate::Zero { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Some(Allocate::PunchHole),
        _ => None,
    }
}

pub(super) fn time(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::Now => Time::Now,
        TimeOrNow::SpecificTime(at) => Time::At(at),
    }
}

/// The kernel's clock for a validity has no use for more than this.
pub(super) fn valid(valid: Duration) -> Duration {
    valid.min(Duration::from_secs(24 * 3600))
}

/// Attributes for the answer "there is no such name": only the number 0 counts.
pub(super) fn no_attr() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
