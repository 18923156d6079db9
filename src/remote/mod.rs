//! A session that survives: calls on paths of the server, over one connection that is made anew whenever it goes.
//!
//! Calls that change nothing are repeated on the next connection, and so are those that only make something (a name that
//! exists already tells a second execution from a first). Calls that destroy something are made once: the caller checks
//! before each. Every call that changes something takes a [`WritePermit`]. No absolute path of the server outlives a connection: all
//! are relative to the login directory or to the path of the source. Knows nothing of inodes, caches or modes.

mod calls;
mod copy;
mod error;
mod fetch;
mod guard;
mod handles;
mod list;
mod rename;
mod session;
mod store;
mod supervise;
mod temp;
mod wake_detect;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::{ErrorKind, RemoteError};
pub use guard::Guard;
pub use session::{Dial, Link};
pub use store::{Base, Note, Store};
pub use supervise::{Life, Rouse};
pub use wake_detect::{Machine, WakeDetect};

pub use crate::sftp::{Capabilities, Class, StatVfs};

use crate::attr::{Area, Attr, Version};
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::transport::{Transport, TransportInfo};
use session::Inner;

/// The result of a call.
pub type RemoteResult<T> = Result<T, RemoteError>;

/// How to reach the server and how long to wait for it.
pub struct RemoteConfig {
    /// Makes a connection; asked again after each loss.
    pub dial: Dial,
    /// What every path is relative to: empty for the login directory.
    pub base: Vec<u8>,
    /// How long a call may take, and how long an answer may stay out before the connection counts as dead.
    pub timeout: Duration,
    /// Wakes a server that may be asleep.
    pub rouse: Option<Rouse>,
    pub life: Life,
    pub wake_detect: Box<dyn WakeDetect>,
    /// Part of the names of temporary files on the server: the same for every mount of this machine and source, and no
    /// other's.
    pub temp_prefix: String,
}

impl RemoteConfig {
    /// For a server that never sleeps, with the platform's limits on a connection, on this machine.
    pub fn new(dial: Dial, base: Vec<u8>, timeout: Duration) -> Self {
        let wake_detect = Box::<Machine>::default();
        let temp_prefix = "0".to_owned();
        Self { dial, base, timeout, rouse: None, life: Life::default(), wake_detect, temp_prefix }
    }
}

/// Attributes to set. Size is not among them: content changes as a whole, by [`Remote::store`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub perm: Option<u16>,
    /// atime and mtime, seconds.
    pub times: Option<(u32, u32)>,
    /// The object is a symlink: plain SETSTAT would follow it.
    pub link: bool,
}

/// What is known of the present connection, for status and doctor.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    pub transport: TransportInfo,
    pub capabilities: Capabilities,
    pub round_trip: Option<Duration>,
    /// Requests sent over this connection.
    pub requests: u64,
    pub since: Instant,
}

/// See the module header. Cheap to clone.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

impl Remote {
    /// Takes over a first connection, so that whoever mounts sees why it cannot be made.
    pub fn start(config: RemoteConfig, first: Box<dyn Transport>) -> RemoteResult<Self> {
        Inner::start(config, Ok(first)).map(Self).map_err(|kind| kind.at("connect", &RemotePath::root()))
    }

    /// Begins without a connection, for the reason given; one is made as soon as it can be.
    pub fn start_offline(config: RemoteConfig, why: String) -> RemoteResult<Self> {
        Inner::start(config, Err(why)).map(Self).map_err(|kind| kind.at("connect", &RemotePath::root()))
    }

    pub fn link(&self) -> Link {
        self.0.link()
    }

    pub fn session_info(&self) -> Option<SessionInfo> {
        self.0.session_info()
    }

    /// Bytes received over the present connection; `None`: there is none.
    pub fn heard(&self) -> Option<u64> {
        self.0.heard()
    }

    /// File bytes per second that the connection carried at best, once there was a busy second.
    pub fn rate(&self) -> Option<u64> {
        self.0.lock().session.as_ref().and_then(|session| session.engine.rate())
    }

    /// Ends the connection for good.
    pub fn close(&self) {
        self.0.close();
    }

    /// The complete listing of a directory, without `.` and `..`. `done` runs on an I/O thread and must be short.
    pub fn list_async(
        &self,
        dir: RemotePath,
        class: Class,
        done: impl FnOnce(RemoteResult<Vec<(Name, Attr)>>) + Send + 'static,
    ) {
        list::list(&self.0, dir, class, Box::new(done));
    }

    /// The bytes of `range` of the file at exactly this version. `done` runs on an I/O thread and must be short.
    pub fn fetch_async(
        &self,
        path: RemotePath,
        version: Version,
        range: Range<u64>,
        class: Class,
        done: impl FnOnce(RemoteResult<Vec<u8>>) + Send + 'static,
    ) {
        fetch::fetch(&self.0, fetch::Wanted { path, version, range, class }, Box::new(done));
    }

    /// Attributes of one object, links not followed.
    pub fn lstat(&self, path: &RemotePath) -> RemoteResult<Attr> {
        self.0.retry("lstat", path, |call| call.lstat(path))
    }

    pub fn readlink(&self, path: &RemotePath) -> RemoteResult<Vec<u8>> {
        self.0.retry("readlink", path, |call| call.readlink(path))
    }

    /// `None`: the server does not say.
    pub fn statvfs(&self) -> RemoteResult<Option<StatVfs>> {
        let root = RemotePath::root();
        self.0.retry("statvfs", &root, |call| call.statvfs(&root))
    }

    pub fn mkdir(&self, permit: &WritePermit, path: &RemotePath, perm: u16) -> RemoteResult<Attr> {
        self.0.retry("mkdir", path, |call| call.mkdir(permit, path, perm))
    }

    pub fn rmdir(&self, permit: &WritePermit, path: &RemotePath) -> RemoteResult<()> {
        self.0.once("rmdir", path, |call| call.rmdir(permit, path))
    }

    /// Removes a file or link. With a guard, one of another version that took its place in the last moment is put back.
    pub fn unlink(&self, permit: &WritePermit, path: &RemotePath, guard: Option<&Guard>) -> RemoteResult<()> {
        self.0.once("unlink", path, |call| match guard {
            Some(guard) => guard.unlink(call, permit, path),
            None => call.unlink(permit, path),
        })
    }

    pub fn symlink(&self, permit: &WritePermit, path: &RemotePath, text: &[u8]) -> RemoteResult<Attr> {
        self.0.retry("symlink", path, |call| call.symlink(permit, path, text))
    }

    /// A refused change of permissions or times is no error: what the server made of it is returned.
    pub fn set_attr(&self, permit: &WritePermit, path: &RemotePath, change: SetAttr) -> RemoteResult<Attr> {
        self.0.once("setattr", path, |call| call.set_attr(permit, path, change))
    }

    /// Moves a file, link or directory. With `replace` it takes the place of a file that is there. `note` hears of
    /// what takes long: once touched, only [`Remote::resume_rename`] makes it whole.
    pub fn rename(
        &self,
        permit: &WritePermit,
        from: &RemotePath,
        to: &RemotePath,
        replace: bool,
        guard: Option<&Guard>,
        note: &dyn Fn(Note),
    ) -> RemoteResult<()> {
        rename::rename(&self.0, permit, (from, to), replace, guard, note)
    }

    /// Removes temporary files in a directory that earlier mounts of this machine left; says how many.
    pub fn sweep(&self, permit: &WritePermit, dir: &RemotePath) -> RemoteResult<usize> {
        temp::sweep(&self.0, permit, dir)
    }

    /// It was moved by an attempt whose end nobody saw: what that may have left beside it goes.
    pub fn end_rename(&self, permit: &WritePermit, to: &RemotePath) -> RemoteResult<()> {
        rename::clear(&self.0, permit, to)
    }

    /// Goes on where copying was interrupted: what is at `to` is ours.
    pub fn resume_rename(
        &self,
        permit: &WritePermit,
        from: &RemotePath,
        to: &RemotePath,
        note: &dyn Fn(Note),
    ) -> RemoteResult<()> {
        copy::resume(&self.0, permit, from, to, note)
    }

    /// Whether the server was seen to refuse moving files in this area.
    pub fn refuses_rename(&self, area: Area) -> bool {
        self.0.rename_caps.refuses_rename(area, false)
    }

    /// Makes the content of the file equal to the first `len` bytes of `source`, all or nothing as far as the server
    /// lets us, and only if the server's version is still the base.
    pub fn store(
        &self,
        permit: &WritePermit,
        path: &RemotePath,
        source: &File,
        len: u64,
        how: &Store,
    ) -> RemoteResult<Attr> {
        self.store_noting(permit, path, source, len, how, &|_| {})
    }

    /// Like [`Remote::store`]; `note` hears how far it is: touching is writing over the old content in place.
    pub fn store_noting(
        &self,
        permit: &WritePermit,
        path: &RemotePath,
        source: &File,
        len: u64,
        how: &Store,
        note: &dyn Fn(Note),
    ) -> RemoteResult<Attr> {
        store::store(&self.0, permit, path, store::Source { file: source, len }, how, note)
    }
}
