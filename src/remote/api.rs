//! [`Remote`], the calls that the rest of the program makes.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::client::{Client, FIRST_EPOCH};
use super::config::RemoteConfig;
use super::content::{Progress, Source};
use super::current::Link;
use super::error::{ErrorKind, RemoteError, RemoteResult};
use super::guard;
use super::open_files::FileRange;
use super::retry::{Repeat, retry};
use super::second_name::Guard;
use super::session::SessionInfo;
use super::store::{self, Store};
use super::{calls::SetAttr, copy, fetch, list, rename, supervise, sweep};
use crate::attr::{Area, Attr, Version};
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, StatVfs};
use crate::transport::Transport;

/// Calls on paths of the server, over one SFTP session that is replaced whenever it ends. Cheap to clone.
///
/// Calls that change nothing, and those that only make something, are asked again after a loss of the session. Calls that
/// remove, replace or overwrite something are made once.
#[derive(Clone)]
pub struct Remote(Arc<Client>);

impl Remote {
    /// Takes over a first connection, so that the user who mounts sees why it cannot be made.
    ///
    /// # Errors
    /// When no SFTP session can be opened on it.
    pub fn start(config: RemoteConfig, first: Box<dyn Transport>) -> RemoteResult<Self> {
        let (client, events) = Client::new(config, None);
        let started = client.connect_over(first, FIRST_EPOCH).and_then(|()| supervise::spawn(&client, events));
        started.map(|()| Self(client)).map_err(Self::not_started)
    }

    /// Begins without a connection, for the reason given; one is made as soon as possible.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_offline(config: RemoteConfig, why: String) -> RemoteResult<Self> {
        let (client, events) = Client::new(config, Some(why));
        supervise::spawn(&client, events).map(|()| Self(client)).map_err(Self::not_started)
    }

    fn not_started(kind: ErrorKind) -> RemoteError {
        kind.at("connect", &RemotePath::root())
    }

    /// The attributes of [`RemoteConfig::root`]. No round trip in the first session: they were asked for while it was opened.
    pub fn root_attr(&self) -> RemoteResult<Attr> {
        let path = &self.0.config().root;
        match self.0.current().get().filter(|session| session.epoch() == FIRST_EPOCH) {
            Some(session) => session.looked().map_err(|kind| kind.at("lstat", path)),
            None => self.lstat(path),
        }
    }

    pub fn link(&self) -> Link {
        self.0.current().link()
    }

    pub fn session_info(&self) -> Option<SessionInfo> {
        self.0.current().get().map(|session| session.info())
    }

    /// How many calls of [`Remote::fetch_async`] may be under way at a time; `None`: there is no session.
    pub fn fetches(&self) -> Option<usize> {
        self.0.current().get().map(|session| session.fetches())
    }

    /// Bytes received over the present session; `None`: there is none.
    pub fn received_bytes(&self) -> Option<u64> {
        self.0.current().get().map(|session| session.received_bytes())
    }

    /// File bytes per second that the session carried at best, once there was a busy second.
    pub fn rate(&self) -> Option<u64> {
        self.0.current().get().and_then(|session| session.rate())
    }

    /// Ends the session for good: calls fail from here on.
    pub fn close(&self) {
        self.0.current().close();
    }

    /// The complete listing of a directory, without `.` and `..`. `done` runs on an I/O thread and must be short.
    /// `known_names`: how many names it had when it was listed last; a directory of few names is closed earlier.
    pub fn list_async(
        &self,
        dir: RemotePath,
        class: Class,
        known_names: Option<usize>,
        done: impl FnOnce(RemoteResult<Vec<(Name, Attr)>>) + Send + 'static,
    ) {
        list::list(&self.0, dir, class, known_names, done);
    }

    /// The bytes of `range` of the file at exactly this version. `done` runs on an I/O thread and must be short.
    /// `settled`: the content of the version cannot change any more, so that the file may be one that is kept open.
    pub fn fetch_async(
        &self,
        path: RemotePath,
        (version, settled): (Version, bool),
        range: Range<u64>,
        class: Class,
        done: impl FnOnce(RemoteResult<Vec<u8>>) + Send + 'static,
    ) {
        fetch::fetch(&self.0, FileRange { path, version, range, class, settled }, done);
    }

    /// Attributes of one object, links not followed.
    pub fn lstat(&self, path: &RemotePath) -> RemoteResult<Attr> {
        retry(&self.0, "lstat", path, Repeat::Safe, |attempt| attempt.lstat(path))
    }

    /// As [`Remote::lstat`], and not found if something on the way to the object is no directory, but a symbolic link for
    /// instance: what is below it is another object.
    pub fn lstat_in_place(&self, path: &RemotePath) -> RemoteResult<Attr> {
        retry(&self.0, "lstat", path, Repeat::Safe, |attempt| attempt.send_look(path).attr())
    }

    /// [`Remote::lstat_in_place`] of two paths in one round trip; `None`: not found.
    pub fn lstat_both(&self, paths: [&RemotePath; 2]) -> RemoteResult<[Option<Attr>; 2]> {
        retry(&self.0, "lstat", paths[0], Repeat::Safe, |attempt| {
            let [first, second] = paths.map(|path| attempt.send_look(path));
            let found = |attr: Result<Attr, ErrorKind>| match attr {
                Err(ErrorKind::NotFound) => Ok(None),
                found => found.map(Some),
            };
            Ok([found(first.attr())?, found(second.attr())?])
        })
    }

    pub fn readlink(&self, path: &RemotePath) -> RemoteResult<Vec<u8>> {
        retry(&self.0, "readlink", path, Repeat::Safe, |attempt| attempt.readlink(path))
    }

    /// `None`: the server does not say.
    pub fn statvfs(&self) -> RemoteResult<Option<StatVfs>> {
        let root = RemotePath::root();
        retry(&self.0, "statvfs", &root, Repeat::Safe, |attempt| attempt.statvfs(&root))
    }

    pub fn mkdir(&self, permit: &WritePermit, path: &RemotePath, perm: u16) -> RemoteResult<Attr> {
        retry(&self.0, "mkdir", path, Repeat::Recognised, |attempt| attempt.mkdir(permit, path, perm))
    }

    pub fn rmdir(&self, permit: &WritePermit, path: &RemotePath) -> RemoteResult<()> {
        retry(&self.0, "rmdir", path, Repeat::Never, |attempt| attempt.rmdir(permit, path))
    }

    /// Removes a file or link. With a guard, one of another version that took its place in the last moment is put back.
    pub fn unlink(&self, permit: &WritePermit, path: &RemotePath, guard: Option<&Guard>) -> RemoteResult<()> {
        let removed = retry(&self.0, "unlink", path, Repeat::Never, |attempt| match guard {
            Some(guard) => guard.unlink(attempt, permit, path),
            None => attempt.unlink(permit, path),
        });
        self.forget_open(path);
        removed
    }

    /// The object at the path may be another one now: files that are kept open are of the old one.
    fn forget_open(&self, path: &RemotePath) {
        if let Some(session) = self.0.current().get() {
            session.open_files().forget_below(path);
        }
    }

    pub fn symlink(&self, permit: &WritePermit, path: &RemotePath, text: &[u8]) -> RemoteResult<Attr> {
        retry(&self.0, "symlink", path, Repeat::Recognised, |attempt| attempt.symlink(permit, path, text))
    }

    /// A refused change of permissions or times is no error: what the server made of it is returned.
    pub fn set_attr(&self, permit: &WritePermit, path: &RemotePath, change: SetAttr) -> RemoteResult<Attr> {
        retry(&self.0, "setattr", path, Repeat::Never, |attempt| attempt.set_attr(permit, path, change))
    }

    /// Moves a file, link or directory. With `replace` it takes the place of a file that is there. `progress` is
    /// called during a copy: after [`Progress::Modifying`] only [`Remote::resume_rename`] completes it.
    pub fn rename(
        &self,
        permit: &WritePermit,
        from: &RemotePath,
        to: &RemotePath,
        replace: bool,
        guard: Option<&Guard>,
        progress: &dyn Fn(Progress),
    ) -> RemoteResult<()> {
        let renamed = rename::rename(&self.0, permit, (from, to), replace, guard, progress);
        [from, to].into_iter().for_each(|path| self.forget_open(path));
        renamed
    }

    /// Puts back what an attempt whose answer was lost replaced or removed at this path without having seen it.
    pub fn resolve_second_names(&self, permit: &WritePermit, path: &RemotePath) -> RemoteResult<()> {
        if self.0.temp_files().second_names_of(path).is_empty() {
            return Ok(());
        }
        let done = retry(&self.0, "restore", path, Repeat::Never, |attempt| {
            guard::resolve_second_names(attempt, permit, path)
        });
        self.forget_open(path);
        done
    }

    /// Removes temporary files in a directory that earlier mounts of this machine left; says how many.
    pub fn sweep(&self, permit: &WritePermit, dir: &RemotePath) -> RemoteResult<usize> {
        sweep::sweep(&self.0, permit, dir)
    }

    /// Removes what an interrupted rename may have left beside `to`.
    pub fn remove_rename_leftovers(&self, permit: &WritePermit, to: &RemotePath) -> RemoteResult<()> {
        rename::remove_leftovers(&self.0, permit, to)
    }

    /// Goes on with a rename whose copying was interrupted: what is at `to` is of that rename.
    pub fn resume_rename(
        &self,
        permit: &WritePermit,
        from: &RemotePath,
        to: &RemotePath,
        progress: &dyn Fn(Progress),
    ) -> RemoteResult<()> {
        let renamed = copy::resume(&self.0, permit, from, to, progress);
        [from, to].into_iter().for_each(|path| self.forget_open(path));
        renamed
    }

    /// Whether the server was seen to refuse moving files in this area.
    pub fn refuses_rename(&self, area: Area) -> bool {
        self.0.rename_capabilities().last_refused_rename(area, false)
    }

    /// Makes the content of the file equal to the first `len` bytes of `source`, all or nothing as far as the server
    /// lets us, and only if the server's version is still the base. `progress` is called with [`Progress::Modifying`] before
    /// old content is overwritten in place.
    pub fn store(
        &self,
        permit: &WritePermit,
        path: &RemotePath,
        source: &File,
        len: u64,
        how: &Store,
        progress: &dyn Fn(Progress),
    ) -> RemoteResult<Attr> {
        let stored = store::store(&self.0, permit, path, Source { file: source, len }, how, progress);
        self.forget_open(path);
        stored
    }
}
