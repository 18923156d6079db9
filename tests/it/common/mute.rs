//! A mount of our type whose driver takes every question about its state and answers none: what a driver looks like that hangs.

use parking_lot::Mutex;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, MountOption,
    OpenFlags, ReplyAttr, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};
use rustix::mount::{MountFlags, mount};

/// Whoever opens a file waits.
#[derive(Default)]
pub struct Mute(Mutex<Vec<ReplyOpen>>);

impl Mute {
    pub fn mount(at: &Path) -> BackgroundSession {
        let mut config = Config::default();
        if !rustix::process::geteuid().is_root() {
            let name = MountOption::FSName("mute.dev".into());
            config.mount_options = vec![name, MountOption::Subtype("pantheonfs".into()), MountOption::RO];
            return fuser::spawn_mount(Self::default(), at, &config).expect("mounted");
        }
        // As root fuser mounts without the subtype.
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("opened");
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = CString::new(data).expect("no NUL");
        mount("mute.dev", at, "fuse.pantheonfs", MountFlags::RDONLY, data.as_c_str()).expect("mounted");
        Session::from_fd(Self::default(), device.into(), SessionACL::Owner, config)
            .expect("begun")
            .spawn()
            .expect("served")
    }
}

const ROOT: u64 = 1;
const CONTROL: u64 = 2;
const FILE: u64 = 3;

fn attr(ino: u64) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    let dir = ino != FILE;
    FileAttr {
        ino: INodeNo(ino),
        size: 4096,
        blocks: 8,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: if dir { FileType::Directory } else { FileType::RegularFile },
        perm: if dir { 0o755 } else { 0o644 },
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Mute {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match (parent.0, name.to_str()) {
            (ROOT, Some(".pantheon")) => reply.entry(&Duration::ZERO, &attr(CONTROL), Generation(0)),
            (CONTROL, Some(_)) => reply.entry(&Duration::ZERO, &attr(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attr(ino.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.lock().push(reply);
    }
}
