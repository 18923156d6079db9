//! The floor for `scripts/bench`: a directory copied into memory and mounted by fuser with nothing behind it. What a mount
//! costs beyond this is ours, what this costs is the kernel's and FUSE's.
//!
//! `bare DIRECTORY MOUNTPOINT`; ends when it is unmounted.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry,
    ReplyOpen, Request,
};

/// Nothing ever changes here.
const FOR_EVER: Duration = Duration::from_secs(86_400);

struct Node {
    attr: FileAttr,
    content: Vec<u8>,
    names: Vec<(OsString, u64)>,
    by_name: HashMap<OsString, u64>,
}

/// Nodes by number; 0 is not used, 1 is the root.
struct Bare(Vec<Node>);

fn attr(ino: u64, kind: FileType, meta: &fs::Metadata) -> FileAttr {
    let time = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(ino),
        size: meta.len(),
        blocks: meta.len().div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: (meta.mode() & 0o7777) as u16,
        nlink: 1,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Bare {
    fn load(dir: &Path) -> io::Result<Self> {
        let root = || -> io::Result<Node> {
            let attr = attr(1, FileType::Directory, &fs::metadata(dir)?);
            Ok(Node { attr, content: Vec::new(), names: Vec::new(), by_name: HashMap::new() })
        };
        let mut nodes = vec![root()?, root()?];
        let mut queue = vec![(1, dir.to_owned())];
        while let Some((at, dir)) = queue.pop() {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let (meta, ino) = (entry.metadata()?, nodes.len() as u64);
                let (kind, content) = match meta.file_type() {
                    kind if kind.is_dir() => (FileType::Directory, Vec::new()),
                    kind if kind.is_file() => (FileType::RegularFile, fs::read(entry.path())?),
                    _ => continue,
                };
                if kind == FileType::Directory {
                    queue.push((ino as usize, entry.path()));
                }
                let attr = attr(ino, kind, &meta);
                nodes.push(Node { attr, content, names: Vec::new(), by_name: HashMap::new() });
                nodes[at].names.push((entry.file_name(), ino));
                nodes[at].by_name.insert(entry.file_name(), ino);
            }
        }
        Ok(Self(nodes))
    }

    fn node(&self, ino: INodeNo) -> Option<&Node> {
        self.0.get(usize::try_from(ino.0).ok()?)
    }
}

impl Filesystem for Bare {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_DO_READDIRPLUS] {
            // An older kernel does without.
            let _ = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.node(parent).and_then(|dir| dir.by_name.get(name)).and_then(|ino| self.node(INodeNo(*ino)));
        match found {
            Some(node) => reply.entry(&FOR_EVER, &node.attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(ino) {
            Some(node) => reply.attr(&FOR_EVER, &node.attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(node) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(node.content.len());
        reply.data(&node.content[from..(from + size as usize).min(node.content.len())]);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(dir) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        for (at, (name, ino)) in dir.names.iter().enumerate().skip(offset as usize) {
            let Some(node) = self.node(INodeNo(*ino)) else { continue };
            if reply.add(node.attr.ino, at as u64 + 1, node.attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let Some(dir) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        for (at, (name, ino)) in dir.names.iter().enumerate().skip(offset as usize) {
            let Some(node) = self.node(INodeNo(*ino)) else { continue };
            if reply.add(node.attr.ino, at as u64 + 1, name, &FOR_EVER, &node.attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}

fn main() -> io::Result<()> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [dir, mountpoint] = args.as_slice() else {
        eprintln!("usage: bare DIRECTORY MOUNTPOINT");
        std::process::exit(2);
    };
    let mut config = Config::default();
    config.n_threads = Some(2);
    config.clone_fd = true;
    fuser::mount(Bare::load(Path::new(dir))?, mountpoint, &config)
}
