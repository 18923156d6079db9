//! Moving by copy + verify + delete, for servers that refuse to rename. The source is removed only after the copy was
//! seen complete; whatever fails in between leaves both.

use std::sync::{Arc, mpsc};

use super::session::Inner;
use super::store::{self, Base, Note, Source, Store};
use super::{ErrorKind, RemoteError, RemoteResult, fetch, list};
use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::Class;

/// Bytes read at a time.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Directories nested deeper than this are not moved: a loop, most likely.
const MAX_DEPTH: usize = 200;

pub(super) fn rename_by_copy(
    inner: &Arc<Inner>,
    permit: &WritePermit,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
    note: &dyn Fn(Note),
) -> RemoteResult<()> {
    let attr = inner.retry("rename", from, |call| call.lstat(from))?;
    Copying { inner, permit, replace, resume: false, note }.object(from, to, &attr, 0)
}

/// What is at `to` was begun by an earlier attempt; what is not at `from` any more has arrived.
pub(super) fn resume(
    inner: &Arc<Inner>,
    permit: &WritePermit,
    from: &RemotePath,
    to: &RemotePath,
    note: &dyn Fn(Note),
) -> RemoteResult<()> {
    let attr = match inner.retry("rename", from, |call| call.lstat(from)) {
        Ok(attr) => attr,
        Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
            return inner.retry("rename", to, |call| call.lstat(to)).map(drop);
        }
        Err(error) => return Err(error),
    };
    Copying { inner, permit, replace: true, resume: true, note }.object(from, to, &attr, 0)
}

struct Copying<'a> {
    inner: &'a Arc<Inner>,
    permit: &'a WritePermit,
    replace: bool,
    /// Directories may be there already.
    resume: bool,
    note: &'a dyn Fn(Note),
}

impl Copying<'_> {
    fn object(&self, from: &RemotePath, to: &RemotePath, attr: &Attr, depth: usize) -> RemoteResult<()> {
        match attr.kind {
            FileKind::Directory => self.directory(from, to, attr, depth),
            FileKind::File => self.file(from, to, attr),
            FileKind::Symlink => self.link(from, to),
            FileKind::Other => Err(ErrorKind::Unsupported.at("rename", from)),
        }
    }

    fn unlink(&self, path: &RemotePath) -> RemoteResult<()> {
        self.inner.once("rename", path, |call| call.unlink(self.permit, path))
    }

    fn file(&self, from: &RemotePath, to: &RemotePath, attr: &Attr) -> RemoteResult<()> {
        let local = tempfile::tempfile().map_err(|e| ErrorKind::Local(e).at("rename", from))?;
        let mut at = 0;
        while at < attr.size {
            let range = at..(at + PIECE_BYTES).min(attr.size);
            let bytes = self.read(from, attr, range.clone())?;
            std::os::unix::fs::FileExt::write_all_at(&local, &bytes, at)
                .map_err(|e| ErrorKind::Local(e).at("rename", from))?;
            at = range.end;
            (self.note)(Note::Moved);
        }
        let base = if self.replace { Base::Any } else { Base::Absent };
        let how = Store { base, perm: Some(attr.perm), mtime: Some(attr.mtime), temp_dir: None };
        store::store(self.inner, self.permit, to, Source { file: &local, len: attr.size }, &how, self.note)
            .map_err(exists)?;
        self.unchanged(from, attr)?;
        self.unlink(from)
    }

    /// Somebody may have written to the source meanwhile: then both stay.
    fn unchanged(&self, from: &RemotePath, attr: &Attr) -> RemoteResult<()> {
        let now = self.inner.retry("rename", from, |call| call.lstat(from))?;
        if now.version() == attr.version() { Ok(()) } else { Err(ErrorKind::Changed { now }.at("rename", from)) }
    }

    fn read(&self, path: &RemotePath, attr: &Attr, range: std::ops::Range<u64>) -> RemoteResult<Vec<u8>> {
        let wanted = fetch::Wanted { path: path.clone(), version: attr.version(), range, class: Class::Bulk };
        self.wait(path, |done| fetch::fetch(self.inner, wanted, done))
    }

    fn list(&self, dir: &RemotePath) -> RemoteResult<Vec<(Name, Attr)>> {
        self.wait(dir, |done| list::list(self.inner, dir.clone(), Class::Background, done))
    }

    fn wait<T: Send + 'static>(
        &self,
        path: &RemotePath,
        start: impl FnOnce(Box<dyn FnOnce(RemoteResult<T>) + Send>),
    ) -> RemoteResult<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        start(Box::new(move |result| drop(sender.send(result))));
        let deadline = Deadline::after(self.inner.config.timeout * 2);
        receiver.recv_timeout(deadline.remaining()).unwrap_or_else(|_| Err(ErrorKind::Timeout.at("rename", path)))
    }

    fn directory(&self, from: &RemotePath, to: &RemotePath, attr: &Attr, depth: usize) -> RemoteResult<()> {
        if depth > MAX_DEPTH {
            return Err(ErrorKind::Unsupported.at("rename", from));
        }
        let made = self.inner.retry("rename", to, |call| call.mkdir(self.permit, to, attr.perm));
        if let Err(error) = made {
            let there = || self.inner.retry("rename", to, |call| call.lstat(to)).is_ok_and(|attr| attr.is_dir());
            if !self.resume || !there() {
                return Err(error);
            }
        }
        for (name, attr) in self.list(from)? {
            self.object(&from.join(&name), &to.join(&name), &attr, depth + 1)?;
        }
        self.inner.once("rename", from, |call| call.rmdir(self.permit, from))
    }

    fn link(&self, from: &RemotePath, to: &RemotePath) -> RemoteResult<()> {
        let text = self.inner.retry("rename", from, |call| call.readlink(from))?;
        if self.replace {
            match self.unlink(to) {
                Ok(()) | Err(RemoteError { kind: ErrorKind::NotFound, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.retry("rename", to, |call| call.symlink(self.permit, to, &text))?;
        self.unlink(from)
    }
}

fn exists(error: RemoteError) -> RemoteError {
    match error.kind {
        ErrorKind::Conflict { .. } => ErrorKind::Exists.at("rename", &error.path),
        _ => error,
    }
}
