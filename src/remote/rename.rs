//! Moving on servers that know how to and on servers that do not: `posix-rename`, plain RENAME, copy + verify + delete.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::copy;
use super::session::{Call, Inner};
use super::store::temp_name;
use super::{ErrorKind, RemoteResult};
use crate::attr::{Area, Attr};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::Request;

/// What this server has been seen to accept, per area and separately for directories.
#[derive(Default)]
pub(super) struct Rungs {
    refuses: Mutex<HashSet<(Area, bool)>>,
    /// 0: not tried, 1: works, 2: does not.
    temp: AtomicU8,
}

impl Rungs {
    pub(super) fn refuses_rename(&self, area: Area, is_dir: bool) -> bool {
        self.refuses.lock().unwrap_or_else(PoisonError::into_inner).contains(&(area, is_dir))
    }

    fn refused_rename(&self, area: Area, is_dir: bool) {
        self.refuses.lock().unwrap_or_else(PoisonError::into_inner).insert((area, is_dir));
    }

    pub(super) fn temp_works(&self) -> bool {
        self.temp.load(Ordering::Relaxed) != 2
    }

    pub(super) fn temp_unproved(&self) -> bool {
        self.temp.load(Ordering::Relaxed) != 1
    }

    pub(super) fn temp_worked(&self) {
        self.temp.store(1, Ordering::Relaxed);
    }

    pub(super) fn temp_failed(&self) {
        self.temp.store(2, Ordering::Relaxed);
    }
}

pub(super) fn rename(
    inner: &Arc<Inner>,
    permit: &WritePermit,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
    touch: &dyn Fn(),
) -> RemoteResult<()> {
    let moved = inner.retry("rename", from, |call| {
        let (source, target) = (call.send_lstat(from), call.send_lstat(to));
        let (source, target) = (call.attr(source), call.attr(target));
        let moving = match (source, &target) {
            (Ok(attr), _) => Moving { call, permit, from, to, replace, is_dir: attr.is_dir() },
            // Moved by the attempt whose answer was lost.
            (Err(ErrorKind::NotFound), Ok(_)) if call.again => return Ok(true),
            (Err(kind), _) => return Err(kind),
        };
        match target {
            Ok(_) if !replace => Err(ErrorKind::Exists),
            Ok(attr) => moving.onto(&attr),
            Err(ErrorKind::NotFound) => moving.to_free_name(),
            Err(kind) => Err(kind),
        }
    })?;
    if moved {
        return Ok(());
    }
    touch();
    copy::rename_by_copy(inner, permit, from, to, replace)
}

struct Moving<'a> {
    call: &'a Call<'a>,
    permit: &'a WritePermit,
    from: &'a RemotePath,
    to: &'a RemotePath,
    replace: bool,
    is_dir: bool,
}

/// `Ok(false)`: the server does not move things, copy instead.
type Moved = Result<bool, ErrorKind>;

impl Moving<'_> {
    fn refuses(&self) -> bool {
        self.call.inner.rungs.refuses_rename(self.permit.area(), self.is_dir)
    }

    fn plain(&self, from: &RemotePath, to: &RemotePath) -> Result<(), ErrorKind> {
        self.permit.still_valid()?;
        self.call.done(self.call.send(Request::Rename { from: self.call.wire(from), to: self.call.wire(to) }))
    }

    fn posix(&self) -> Result<(), ErrorKind> {
        self.permit.still_valid()?;
        self.call.done(self.call.send(Request::posix_rename(&self.call.wire(self.from), &self.call.wire(self.to))))
    }

    /// Plain RENAME fails where the target exists: what "no replace" needs.
    fn to_free_name(&self) -> Moved {
        if self.refuses() {
            return Ok(false);
        }
        match self.plain(self.from, self.to) {
            Ok(()) => Ok(true),
            Err(kind) if kind.may_mean_unsupported() => self.after_refusal(kind),
            Err(kind) => Err(kind),
        }
    }

    fn after_refusal(&self, kind: ErrorKind) -> Moved {
        match (self.call.lstat(self.from), self.call.lstat(self.to)) {
            (Ok(_), Err(ErrorKind::NotFound)) => {}
            (Ok(_), Ok(_)) if !self.replace => return Err(ErrorKind::Exists),
            (Err(ErrorKind::NotFound), Ok(_)) => return Ok(true),
            _ => return Err(kind),
        }
        if self.call.session.engine.capabilities().posix_rename && self.posix().is_ok() {
            return Ok(true);
        }
        log::info!("the server does not rename in {} ({kind}); copying instead", self.permit.area());
        self.call.inner.rungs.refused_rename(self.permit.area(), self.is_dir);
        Ok(false)
    }

    /// The target exists and may be replaced.
    fn onto(&self, target: &Attr) -> Moved {
        if target.is_dir() {
            return Err(ErrorKind::IsADirectory);
        }
        if self.refuses() {
            return Ok(false);
        }
        if self.call.session.engine.capabilities().posix_rename {
            match self.posix() {
                Ok(()) => return Ok(true),
                Err(kind) if kind.may_mean_unsupported() => {}
                Err(kind) => return Err(kind),
            }
        }
        self.swap()
    }

    /// Without an atomic way: the old file steps aside, and back if the new one cannot take its place.
    fn swap(&self) -> Moved {
        let aside = self.to.parent().unwrap_or_else(RemotePath::root).join(&temp_name()?);
        match self.plain(self.to, &aside) {
            Ok(()) => {}
            Err(kind) if kind.may_mean_unsupported() => {
                self.call.inner.rungs.refused_rename(self.permit.area(), self.is_dir);
                return Ok(false);
            }
            Err(kind) => return Err(kind),
        }
        if let Err(kind) = self.plain(self.from, self.to) {
            if let Err(back) = self.plain(&aside, self.to) {
                log::error!("{}: its old content is now in {aside} on the server ({back})", self.to);
            }
            return Err(kind);
        }
        if let Err(kind) = self.call.unlink(self.permit, &aside) {
            log::warn!("{aside}: could not be removed on the server: {kind}");
        }
        Ok(true)
    }
}
