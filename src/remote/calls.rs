//! Calls on single objects. Each sends all its requests at once: one round trip.

use super::session::Call;
use super::{ErrorKind, SetAttr, StatVfs};
use crate::attr::{Attr, FileKind};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Class, Pending, RawAttrs, Reply, Request, StatusCode, decode_statvfs};

impl Call<'_> {
    pub(super) fn send(&self, request: Request) -> Pending {
        self.session.engine.send(request, Class::Interactive)
    }

    pub(super) fn wire(&self, path: &RemotePath) -> Vec<u8> {
        self.inner.wire(path)
    }

    /// Waits for a plain "done".
    pub(super) fn done(&self, pending: Pending) -> Result<(), ErrorKind> {
        match pending.wait(self.deadline)? {
            Reply::Status { code: StatusCode::Ok, .. } => Ok(()),
            Reply::Status { code, message } => Err(ErrorKind::from_status(code, message)),
            // Extended requests without a result may answer with an empty packet.
            Reply::Extended(_) => Ok(()),
            _ => Err(ErrorKind::unexpected()),
        }
    }

    pub(super) fn attr(&self, pending: Pending) -> Result<Attr, ErrorKind> {
        match pending.wait(self.deadline)? {
            Reply::Attrs(attrs) => Ok(attrs.to_attr()),
            Reply::Status { code, message } => Err(ErrorKind::from_status(code, message)),
            _ => Err(ErrorKind::unexpected()),
        }
    }

    pub(super) fn send_lstat(&self, path: &RemotePath) -> Pending {
        self.send(Request::Lstat { path: self.wire(path) })
    }

    pub(super) fn lstat(&self, path: &RemotePath) -> Result<Attr, ErrorKind> {
        self.attr(self.send_lstat(path))
    }

    pub(super) fn readlink(&self, path: &RemotePath) -> Result<Vec<u8>, ErrorKind> {
        match self.send(Request::ReadLink { path: self.wire(path) }).wait(self.deadline)? {
            Reply::Names(names) => names.into_iter().next().map(|n| n.name).ok_or_else(ErrorKind::unexpected),
            Reply::Status { code, message } => Err(ErrorKind::from_status(code, message)),
            _ => Err(ErrorKind::unexpected()),
        }
    }

    pub(super) fn statvfs(&self, path: &RemotePath) -> Result<Option<StatVfs>, ErrorKind> {
        if !self.session.engine.capabilities().statvfs {
            return Ok(None);
        }
        match self.send(Request::statvfs(&self.wire(path))).wait(self.deadline)? {
            Reply::Extended(payload) => Ok(Some(decode_statvfs(&payload)?)),
            _ => Ok(None),
        }
    }

    pub(super) fn mkdir(&self, permit: &WritePermit, path: &RemotePath, perm: u16) -> Result<Attr, ErrorKind> {
        permit.still_valid()?;
        let made = self.send(Request::MkDir { path: self.wire(path), perm: u32::from(perm) });
        let found = self.send_lstat(path);
        let (made, found) = (self.done(made), self.attr(found));
        match (made, found) {
            (Ok(()), found) => found,
            // Made by the attempt whose answer was lost.
            (Err(_), Ok(attr)) if self.again && attr.is_dir() => Ok(attr),
            (Err(ErrorKind::Failure(_)), Ok(_)) => Err(ErrorKind::Exists),
            (Err(kind), _) => Err(kind),
        }
    }

    pub(super) fn rmdir(&self, permit: &WritePermit, path: &RemotePath) -> Result<(), ErrorKind> {
        permit.still_valid()?;
        match self.done(self.send(Request::RmDir { path: self.wire(path) })) {
            Err(ErrorKind::Failure(_)) => Err(ErrorKind::NotEmpty),
            other => other,
        }
    }

    pub(super) fn unlink(&self, permit: &WritePermit, path: &RemotePath) -> Result<(), ErrorKind> {
        permit.still_valid()?;
        let removed = self.send(Request::Remove { path: self.wire(path) });
        self.removed(path, removed)
    }

    /// What became of a REMOVE.
    pub(super) fn removed(&self, path: &RemotePath, removed: Pending) -> Result<(), ErrorKind> {
        match self.done(removed) {
            Err(kind @ ErrorKind::Failure(_)) => match self.lstat(path) {
                Ok(attr) if attr.is_dir() => Err(ErrorKind::IsADirectory),
                _ => Err(kind),
            },
            other => other,
        }
    }

    pub(super) fn symlink(&self, permit: &WritePermit, path: &RemotePath, text: &[u8]) -> Result<Attr, ErrorKind> {
        permit.still_valid()?;
        let made = self.send(Request::Symlink { text: text.to_vec(), link: self.wire(path) });
        let found = self.send_lstat(path);
        let (made, found) = (self.done(made), self.attr(found));
        match (made, found) {
            (Ok(()), found) => found,
            (Err(_), Ok(attr)) if self.again && attr.kind == FileKind::Symlink => Ok(attr),
            (Err(ErrorKind::Failure(_)), Ok(_)) => Err(ErrorKind::Exists),
            (Err(kind), _) => Err(kind),
        }
    }

    /// Permissions and times separately, so that a server that refuses one still takes the other.
    pub(super) fn set_attr(&self, permit: &WritePermit, path: &RemotePath, change: SetAttr) -> Result<Attr, ErrorKind> {
        permit.still_valid()?;
        let perm = change.perm.map(|perm| RawAttrs { perm: Some(u32::from(perm)), ..RawAttrs::default() });
        let times = change.times.map(|times| RawAttrs { times: Some(times), ..RawAttrs::default() });
        let wire = self.wire(path);
        let mut sent = Vec::new();
        for attrs in [perm, times].into_iter().flatten() {
            if !change.link {
                sent.push(self.send(Request::SetStat { path: wire.clone(), attrs }));
            } else if self.session.engine.capabilities().lsetstat {
                sent.push(self.send(Request::lsetstat(&wire, &attrs)));
            }
        }
        let found = self.send_lstat(path);
        for pending in sent {
            if let Err(kind) = self.done(pending) {
                if kind.is_loss() {
                    return Err(kind);
                }
                log::debug!("{path}: the server keeps its attributes: {kind}");
            }
        }
        self.attr(found)
    }
}
