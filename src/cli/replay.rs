//! `pantheonfs replay`: the process that does again in a mount what others changed on the server (see `fuse::replay`). It
//! reads records from its standard input, each a letter, a token, a time, the length of a path and the path, and answers
//! each with `+` or `-`. It ends with its standard input.
//!
//! It must never reach another file system than the mount: that could have other files under these names. So each step
//! begins with a look at a name that only the mount has, and goes on from there through no mount point and no link.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};

use super::exit::{CliResult, Exit, Failure};

/// The name by which the mount is recognised.
const CHECK: &str = ".pantheonfs-replay-check";
/// Longest path (bytes).
const MAX_PATH: u32 = 4096;

struct Record {
    code: u8,
    token: u64,
    secs: u32,
    path: Vec<u8>,
}

/// See the module header.
pub(super) fn run(mountpoint: &Path) -> CliResult<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    while let Some(record) = read(&mut from).map_err(|e| Failure::caused(Exit::Failed, "standard input", e))? {
        let done = carry_out(mountpoint, &record).is_ok();
        let answered = to.write_all(if done { b"+" } else { b"-" }).and_then(|()| to.flush());
        answered.map_err(|e| Failure::caused(Exit::Failed, "standard output", e))?;
    }
    Ok(())
}

fn read(from: &mut impl Read) -> io::Result<Option<Record>> {
    let mut head = [0; 17];
    if let Err(error) = from.read_exact(&mut head) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (token, secs, len) = (u64::from(word(1)) | u64::from(word(5)) << 32, word(9), word(13));
    if len > MAX_PATH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; len as usize];
    from.read_exact(&mut path)?;
    Ok(Some(Record { code: head[0], token, secs, path }))
}

fn carry_out(mountpoint: &Path, record: &Record) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, mountpoint, flags | OFlags::DIRECTORY, Mode::empty())?;
    let check = statat(&root, CHECK, AtFlags::SYMLINK_NOFOLLOW)?;
    if u64::try_from(check.st_size) != Ok(record.token) {
        return Err(io::Error::other("another mount"));
    }
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let path = Path::new(OsStr::from_bytes(&record.path));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent: OwnedFd = match above {
        Some(dir) => openat2(&root, dir, flags | OFlags::DIRECTORY, Mode::empty(), inside)?,
        None => root,
    };
    match record.code {
        b'f' => mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?,
        b'd' => mkdirat(&parent, name, Mode::from_raw_mode(0o755))?,
        b'l' => symlinkat("x", &parent, name)?,
        b'u' => unlinkat(&parent, name, AtFlags::empty())?,
        b'r' => unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        code @ (b'c' | b'a') => {
            let file = openat2(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty(), inside)?;
            let at = Timespec { tv_sec: record.secs.into(), tv_nsec: 0 };
            let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            // The time of the content alone is what the kernel takes for a write; both times are a change of attributes.
            let last_access = if code == b'c' { omitted } else { at };
            utimensat(&file, "", &Timestamps { last_access, last_modification: at }, AtFlags::EMPTY_PATH)?;
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(())
}
