//! The only room that knows `fuser`: mounting, the adapter, kernel invalidation, the signal watchdog.
//!
//! No handler blocks: a call is answered at once from what is known, or moved to a thread that may wait (`deferred`).
//! The kernel is notified from one thread only (`invalidator`): a notification sent by a handler that the kernel holds
//! a directory's lock for would wait for that very lock.

mod adapter;
mod answer;
mod attach;
mod config;
mod convert;
mod deferred;
mod dispatch;
mod errno;
mod invalidator;
mod replay;
mod signals;
mod writers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, SessionACL};

pub use config::MountConfig;

use crate::fs::Fs;
use replay::Replay;

/// A mounted filesystem. Dropping it without [`Mounted::unmount`] leaves the unmounting to the process' end.
pub struct Mounted {
    session: Option<BackgroundSession>,
    mountpoint: PathBuf,
    ended: mpsc::Receiver<()>,
    fs: Fs,
    replay: Arc<Replay>,
}

/// Threads that read requests. More of them cost a lone caller 15-35 % (measured), and no handler ever blocks.
const EVENT_THREADS: usize = 2;
/// How long to wait for the session to end after the mount is gone. It may never end (another mount namespace can hold a
/// copy of the mount); closing the descriptor at exit ends the connection all the same.
const SESSION_END: Duration = Duration::from_secs(2);

/// Mounts `fs` and starts to serve it on threads of its own.
pub fn mount(fs: Fs, mountpoint: &Path, config: &MountConfig) -> io::Result<Mounted> {
    let mut options = Config::default();
    options.mount_options = config.options();
    options.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    options.n_threads = Some(EVENT_THREADS);
    options.clone_fd = true;
    let (alive, ended) = mpsc::channel();
    let changes = fs.subscribe();
    let replay = Arc::new(Replay::default());
    let adapter = dispatch::Adapter::new(fs.clone(), config.allow_other, replay.clone(), alive);
    let session = attach::attach(adapter, mountpoint, config, options)?;
    invalidator::start(session.notifier(), changes)?;
    fs.follow_others();
    if let Some(program) = config.program.clone().filter(|_| !config.read_only) {
        replay.start(fs.clone(), program, mountpoint.to_owned())?;
    }
    Ok(Mounted { session: Some(session), mountpoint: mountpoint.to_owned(), ended, fs, replay })
}

impl Mounted {
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// Waits until the mount is gone, however that happened, `limit` at the longest; says whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        !matches!(self.ended.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Timeout))
    }

    /// Takes the mount away. An error (busy, most often) leaves it as it was.
    pub fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        self.fs.close();
        self.replay.end();
        // After the end of the session the mount point may be that of another mount.
        if !session.guard.is_finished()
            && let Err(error) = detach(&self.mountpoint)
        {
            self.session = Some(session);
            return Err(error);
        }
        end(session);
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // fuser would unmount and then join without a limit.
        if let Some(session) = self.session.take() {
            self.fs.close();
            self.replay.end();
            if !session.guard.is_finished() {
                drop(detach(&self.mountpoint));
            }
            end(session);
        }
    }
}

/// Unmounts by umount2(2) as root and by fusermount3 otherwise.
fn detach(mountpoint: &Path) -> io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    match unmount(mountpoint, UnmountFlags::empty()) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => fusermount(mountpoint),
        // Not mounted any more: another process unmounted it.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn fusermount(mountpoint: &Path) -> io::Result<()> {
    let output =
        std::process::Command::new("fusermount3").arg("-u").arg("--").arg(mountpoint).current_dir("/").output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Ends the session within [`SESSION_END`].
fn end(session: BackgroundSession) {
    let until = Instant::now() + SESSION_END;
    while !session.guard.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    if session.guard.is_finished() {
        if let Err(error) = session.join() {
            log::error!("the kernel's requests could not be read any more: {error}");
        }
    } else {
        log::warn!("the kernel still holds the mount somewhere; leaving without waiting for it");
        // Its Drop would unmount again and join without a limit.
        std::mem::forget(session);
    }
}
