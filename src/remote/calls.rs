//! Calls on single objects. Each sends all its requests at once: one round trip.

use super::attempt::Attempt;
use super::error::ErrorKind;
use super::reply;
use crate::attr::{Area, Attr, FileKind};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Pending, RawAttrs, Request, StatVfs};

/// Attributes to set. Size is not among them: content changes as a whole, by [`Remote::store`](super::Remote::store).
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub perm: Option<u16>,
    /// atime and mtime, seconds.
    pub times: Option<(u32, u32)>,
    /// The object is a symlink: plain SETSTAT would follow it.
    pub link: bool,
}

impl Attempt<'_> {
    pub(super) fn readlink(&self, path: &RemotePath) -> Result<Vec<u8>, ErrorKind> {
        reply::name(self.send(Request::ReadLink { path: self.wire(path) }).wait(self.deadline()))
    }

    /// `None`: the server does not say.
    pub(super) fn statvfs(&self, path: &RemotePath) -> Result<Option<StatVfs>, ErrorKind> {
        if !self.capabilities().statvfs {
            return Ok(None);
        }
        reply::statvfs(self.send(Request::statvfs(&self.wire(path))).wait(self.deadline()))
    }

    pub(super) fn mkdir(&self, permit: &WritePermit, path: &RemotePath, perm: u16) -> Result<Attr, ErrorKind> {
        permit.still_valid()?;
        let place = self.send_place(path);
        let made = self.send(Request::MkDir { path: self.wire(path), perm: u32::from(perm) });
        let found = self.send_lstat(path);
        let (made, found) = (self.ok(made), self.attr(found));
        place.check().inspect_err(|kind| {
            if made.is_ok() && !kind.is_unanswered() {
                // Behind another writer's link. Not waited for: an empty directory there harms nobody.
                drop(self.send(Request::RmDir { path: self.wire(path) }));
            }
        })?;
        match (made, found) {
            (Ok(()), found) => found,
            // Made by an attempt whose answer was lost.
            (Err(_), Ok(attr)) if self.is_repeated() && attr.is_dir() => Ok(attr),
            (Err(ErrorKind::Failure(_)), Ok(_)) => Err(ErrorKind::Exists),
            (Err(kind), _) => Err(kind),
        }
    }

    pub(super) fn rmdir(&self, permit: &WritePermit, path: &RemotePath) -> Result<(), ErrorKind> {
        let place = self.send_place(path);
        place.check()?;
        permit.still_valid()?;
        match self.ok(self.send(Request::RmDir { path: self.wire(path) })) {
            Err(ErrorKind::Failure(_)) => Err(ErrorKind::NotEmpty),
            other => other,
        }
    }

    pub(super) fn unlink(&self, permit: &WritePermit, path: &RemotePath) -> Result<(), ErrorKind> {
        permit.still_valid()?;
        let removed = self.send(Request::Remove { path: self.wire(path) });
        self.removed(path, removed)
    }

    /// Waits for the answer to REMOVE, and finds out what a failure means.
    pub(super) fn removed(&self, path: &RemotePath, removed: Pending) -> Result<(), ErrorKind> {
        match self.ok(removed) {
            Err(kind @ ErrorKind::Failure(_)) => match self.lstat(path) {
                Ok(attr) if attr.is_dir() => Err(ErrorKind::IsADirectory),
                _ => Err(kind),
            },
            other => other,
        }
    }

    pub(super) fn symlink(&self, permit: &WritePermit, path: &RemotePath, text: &[u8]) -> Result<Attr, ErrorKind> {
        self.send_place(path).check()?;
        permit.still_valid()?;
        let order = self.link_order();
        let link_first = order.is_link_first(&self.session().info().transport.software);
        let (made, found) = self.send_symlink(path, text, link_first);
        if made.is_ok() && !order.is_learned() {
            let link = self.wire(path);
            if self.has_text(link.clone(), text)? {
                order.learned(link_first);
            } else if matches!(found, Err(ErrorKind::NotFound)) && self.has_text(text.to_vec(), &link)? {
                // The server took the arguments in the other order: what it made is removed, and the link made again.
                log::info!("the server takes the {} of a symlink first", if link_first { "text" } else { "name" });
                permit.still_valid()?;
                self.ok(self.send(Request::Remove { path: text.to_vec() }))?;
                order.learned(!link_first);
                let (made, found) = self.send_symlink(path, text, !link_first);
                return made.and(found);
            }
        }
        match (made, found) {
            (Ok(()), found) => found,
            (Err(_), Ok(attr)) if self.is_repeated() && attr.kind == FileKind::Symlink => Ok(attr),
            (Err(ErrorKind::Failure(_)), Ok(_)) => Err(ErrorKind::Exists),
            (Err(kind), _) => Err(kind),
        }
    }

    /// Whether the link was made, and what is there now.
    fn send_symlink(
        &self,
        path: &RemotePath,
        text: &[u8],
        link_first: bool,
    ) -> (Result<(), ErrorKind>, Result<Attr, ErrorKind>) {
        let made = self.send(Request::Symlink { text: text.to_vec(), link: self.wire(path), link_first });
        let found = self.send_lstat(path);
        (self.ok(made), self.attr(found))
    }

    /// Whether there is a link of this text at a path of the server.
    fn has_text(&self, path: Vec<u8>, text: &[u8]) -> Result<bool, ErrorKind> {
        match reply::name(self.send(Request::ReadLink { path }).wait(self.deadline())) {
            Ok(there) => Ok(there == text),
            Err(kind) if kind.is_loss() => Err(kind),
            Err(_) => Ok(false),
        }
    }

    /// Permissions and times separately, so that a server that refuses one still takes the other.
    pub(super) fn set_attr(&self, permit: &WritePermit, path: &RemotePath, change: SetAttr) -> Result<Attr, ErrorKind> {
        permit.still_valid()?;
        let perm = change.perm.map(|perm| RawAttrs { perm: Some(u32::from(perm)), ..RawAttrs::default() });
        let times = change.times.map(|times| RawAttrs { times: Some(times), ..RawAttrs::default() });
        let wire = self.wire(path);
        let mut sent = Vec::new();
        let mut refused = None;
        for attrs in [perm, times].into_iter().flatten() {
            if !change.link {
                sent.push(self.send(Request::SetStat { path: wire.clone(), attrs }));
            } else if self.capabilities().lsetstat {
                sent.push(self.send(Request::lsetstat(&wire, &attrs)));
            }
        }
        let found = self.send_lstat(path);
        for pending in sent {
            if let Err(kind) = self.ok(pending) {
                if kind.is_loss() {
                    return Err(kind);
                }
                log::debug!("{path}: the server keeps its attributes: {kind}");
                if matches!(kind, ErrorKind::PermissionDenied) {
                    refused = Some(kind);
                }
            }
        }
        let attr = self.attr(found)?;
        // The platform sets the permissions of uploads itself. Elsewhere a refused chmod is a refused change.
        let lacks = !change.link && change.perm.is_some_and(|perm| perm != attr.perm);
        match refused.filter(|_| lacks && permit.area() == Area::Code) {
            Some(kind) => Err(kind),
            None => Ok(attr),
        }
    }
}
