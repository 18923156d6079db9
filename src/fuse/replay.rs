//! Has a child process of this program do again in the mount what other writers changed on the server, so that the kernel
//! tells programs that watch files (inotify). See `fs::replay` for the answers that it gets.
//!
//! A process and not a thread: a thread that waits for an answer of this program when that is killed would keep its
//! descriptor of the mount open, and so would wait for ever. No thread that answers requests waits for the process. It can
//! be held up by a program that has a directory locked in the kernel; then the changes wait, and beyond a number are left
//! out.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fuser::Request;
use parking_lot::Mutex;

use crate::attr::{Attr, FileKind};
use crate::fs::{Again, Entry, Fs, Step};
use crate::inode::{Change, Ino, VIRTUAL_BIT};

/// Begins the name by which the process recognises this mount.
const CHECK: &[u8] = b".pantheonfs-replay-";
const CHECK_INO: Ino = Ino(VIRTUAL_BIT | (1 << 61));
/// Between two attempts to start the process.
const RESTART: Duration = Duration::from_secs(10);

/// The step that is being carried out, and by whom.
#[derive(Default)]
pub(super) struct Replay {
    process: AtomicU32,
    current: Mutex<Option<Current>>,
    child: Mutex<Option<Child>>,
    ending: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Current {
    pub(super) step: Arc<Step>,
    /// Made by chance for each step. The process proceeds only where it reads this number.
    token: u64,
}

impl Current {
    /// The object by which the process recognises this mount, if this is its name: other file systems do not have it.
    pub(super) fn check(&self, name: &[u8]) -> Option<Entry> {
        name.starts_with(CHECK).then(|| self.check_entry())
    }

    fn check_entry(&self) -> Entry {
        let attr = Attr { kind: FileKind::Other, size: self.token, perm: 0, mtime: 0, atime: 0 };
        Entry { ino: CHECK_INO, attr, ctime: attr.mtime, valid: Duration::ZERO, ask_attr: false, unlinked: false }
    }

    pub(super) fn attr(&self, fs: &Fs, ino: Ino) -> Option<Entry> {
        if ino == CHECK_INO { Some(self.check_entry()) } else { fs.attr_for(&self.step, ino) }
    }
}

impl Replay {
    /// The step that this request belongs to; `None` for requests of programs.
    pub(super) fn of(&self, request: &Request) -> Option<Current> {
        let process = self.process.load(Ordering::Relaxed);
        if process == 0 || request.pid() != process { None } else { self.current.lock().clone() }
    }

    /// Ends the process, so that it does not keep the mount in use.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(mut child) = self.child.lock().take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the thread that passes the changes to the process.
    pub(super) fn start(self: &Arc<Self>, fs: Fs, program: PathBuf, mountpoint: PathBuf) -> io::Result<()> {
        let (replay, changes) = (self.clone(), fs.subscribe_seen());
        std::thread::Builder::new()
            .name("replay".into())
            .spawn(move || replay.run(&fs, &changes, &program, &mountpoint))?;
        Ok(())
    }

    fn run(&self, fs: &Fs, changes: &mpsc::Receiver<Change>, program: &Path, mountpoint: &Path) {
        let mut pipes = None;
        let mut tried: Option<Instant> = None;
        for change in changes {
            for step in fs.steps(&change) {
                if self.ending.load(Ordering::Relaxed) {
                    return;
                }
                if pipes.is_none() && tried.is_none_or(|at| at.elapsed() > RESTART) {
                    tried = Some(Instant::now());
                    pipes = self.spawn(program, mountpoint).map_err(|error| log::info!("replay: {error}")).ok();
                }
                let Some((to, from)) = &mut pipes else { continue };
                match self.carry_out(step, to, from) {
                    Ok(true) => {}
                    Ok(false) => log::debug!("programs that watch files are not told of {change:?}"),
                    Err(error) => {
                        log::debug!("replay: {error}");
                        pipes = None;
                    }
                }
            }
        }
    }

    fn spawn(&self, program: &Path, mountpoint: &Path) -> io::Result<(ChildStdin, ChildStdout)> {
        let mut held = self.child.lock();
        if self.ending.load(Ordering::Relaxed) {
            return Err(io::Error::other("the mount is ending"));
        }
        if let Some(mut old) = held.take() {
            let _ = old.kill();
            old.wait()?;
        }
        let mut command = Command::new(program);
        command.arg("replay").arg("--").arg(mountpoint).current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        self.process.store(child.id(), Ordering::Relaxed);
        *held = Some(child);
        pipes.ok_or_else(|| io::Error::other("a pipe is missing"))
    }

    /// Returns whether it was done.
    fn carry_out(&self, step: Step, to: &mut ChildStdin, from: &mut ChildStdout) -> io::Result<bool> {
        let token = by_chance();
        let (code, secs) = code(step.what);
        let path = step.path.as_bytes().to_vec();
        *self.current.lock() = Some(Current { step: Arc::new(step), token });
        let len = u32::try_from(path.len()).unwrap_or_default();
        let words = [&[code][..], &token.to_le_bytes(), &secs.to_le_bytes(), &len.to_le_bytes(), &path].concat();
        let mut answer = [0];
        let answered = to.write_all(&words).and_then(|()| from.read_exact(&mut answer));
        *self.current.lock() = None;
        answered.map(|()| answer == [b'+'])
    }
}

fn by_chance() -> u64 {
    RandomState::new().hash_one(0) >> 2
}

/// The letter of what is to be done, and its time.
fn code(what: Again) -> (u8, u32) {
    match what {
        Again::Make(FileKind::Directory) => (b'd', 0),
        Again::Make(FileKind::Symlink) => (b'l', 0),
        Again::Make(_) => (b'f', 0),
        Again::Remove(FileKind::Directory) => (b'r', 0),
        Again::Remove(_) => (b'u', 0),
        Again::Content(secs) => (b'c', secs),
        Again::Attributes(secs) => (b'a', secs),
    }
}
