//! Moving on servers that know how to and on servers that do not: `posix-rename`, plain RENAME, copy + verify + delete.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::copy;
use super::session::{Call, Inner};
use super::{ErrorKind, Note, RemoteResult};
use crate::attr::{Area, Attr};
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::Request;

/// What this server has been seen to accept, per area and separately for directories.
#[derive(Default)]
pub(super) struct RenameCapabilities {
    refuses: Mutex<HashSet<(Area, bool)>>,
    /// 0: not tried, 1: works, 2: does not.
    temp: AtomicU8,
}

impl RenameCapabilities {
    pub(super) fn refuses_rename(&self, area: Area, is_dir: bool) -> bool {
        self.refuses.lock().contains(&(area, is_dir))
    }

    fn refused_rename(&self, area: Area, is_dir: bool) {
        self.refuses.lock().insert((area, is_dir));
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
    note: &dyn Fn(Note),
) -> RemoteResult<()> {
    let moved = inner.retry("rename", from, |call| {
        let (source, target) = (call.send_lstat(from), call.send_lstat(to));
        // What an attempt that was cut off may have left.
        let swaps = !call.session.engine.capabilities().posix_rename;
        let left = swaps.then(|| aside(to)).transpose()?.map(|aside| (call.send_lstat(&aside), aside));
        let (source, target) = (call.attr(source), call.attr(target));
        let left = left.and_then(|(there, aside)| call.attr(there).ok().map(|_| aside));
        let moving = |attr: Attr| Moving { call, permit, from, to, replace, is_dir: attr.is_dir() };
        let done = match (source, target) {
            // Moved by the attempt whose answer was lost.
            (Err(ErrorKind::NotFound), Ok(_)) if call.again => Ok(true),
            (Err(kind), _) => Err(kind),
            (Ok(_), Ok(_)) if !replace => Err(ErrorKind::Exists),
            (Ok(attr), Ok(target)) => {
                // Nobody waits for it: its place was taken by something else meanwhile.
                left.iter().try_for_each(|aside| call.unlink(permit, aside))?;
                return moving(attr).onto(&target);
            }
            (Ok(attr), Err(ErrorKind::NotFound)) => moving(attr).to_free_name(),
            (_, Err(kind)) => Err(kind),
        };
        if let (Ok(true), Some(aside)) = (&done, left) {
            call.unlink(permit, &aside)?;
        }
        done
    })?;
    if moved {
        return Ok(());
    }
    note(Note::Touching);
    copy::rename_by_copy(inner, permit, from, to, replace, note)
}

/// Removes what waits for nothing any more.
pub(super) fn clear(inner: &Arc<Inner>, permit: &WritePermit, to: &RemotePath) -> RemoteResult<()> {
    inner.retry("rename", to, |call| {
        let aside = aside(to)?;
        if call.session.engine.capabilities().posix_rename || call.lstat(&aside).is_err() {
            return Ok(());
        }
        call.unlink(permit, &aside)
    })
}

/// Where a file waits while another takes its place on a server that cannot do both at once. Always the same, so that it is
/// found again.
fn aside(to: &RemotePath) -> Result<RemotePath, ErrorKind> {
    let name = format!(".pantheonfs-{:08x}", crc32fast::hash(to.as_bytes()));
    let name = Name::new(name).map_err(|e| ErrorKind::Local(std::io::Error::other(e)))?;
    Ok(to.parent().unwrap_or_else(RemotePath::root).join(&name))
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
        self.call.inner.rename_caps.refuses_rename(self.permit.area(), self.is_dir)
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
        self.call.inner.rename_caps.refused_rename(self.permit.area(), self.is_dir);
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
        let aside = aside(self.to)?;
        match self.plain(self.to, &aside) {
            Ok(()) => {}
            Err(kind) if kind.may_mean_unsupported() => {
                self.call.inner.rename_caps.refused_rename(self.permit.area(), self.is_dir);
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
        match self.call.unlink(self.permit, &aside) {
            Err(kind) if kind.is_loss() => return Err(kind),
            Err(kind) => log::warn!("{aside}: could not be removed on the server: {kind}"),
            Ok(()) => {}
        }
        Ok(true)
    }
}
