//! Moving on servers that know how to and on servers that do not: `posix-rename`, plain RENAME, copy + verify + delete.

use std::sync::Arc;

use super::attempt::Attempt;
use super::client::Client;
use super::content::Progress;
use super::copy;
use super::error::{ErrorKind, RemoteResult};
use super::place::Place;
use super::retry::{Repeat, retry};
use super::second_name::{Done, Guard};
use crate::attr::Attr;
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::Request;

pub(super) fn rename(
    client: &Arc<Client>,
    permit: &WritePermit,
    (from, to): (&RemotePath, &RemotePath),
    replace: bool,
    guard: Option<&Guard>,
    progress: &dyn Fn(Progress),
) -> RemoteResult<()> {
    let moved = retry(client, "rename", from, Repeat::Never, |attempt| {
        let places = [attempt.send_place(from), attempt.send_place(to)];
        let (source, target) = (attempt.send_lstat(from), attempt.send_lstat(to));
        // What an attempt that was cut off may have left.
        let swaps = !attempt.capabilities().posix_rename;
        let left = swaps.then(|| aside(to)).transpose()?.map(|aside| (attempt.send_lstat(&aside), aside));
        places.into_iter().try_for_each(Place::check)?;
        let (source, target) = (attempt.attr(source), attempt.attr(target));
        let left = left.and_then(|(there, aside)| attempt.attr(there).ok().map(|_| aside));
        let moving = |attr: Attr| Moving { attempt, permit, from, to, replace, guard, is_dir: attr.is_dir() };
        let done = match (source, target) {
            (Err(kind), _) => Err(kind),
            (Ok(_), Ok(_)) if !replace => Err(ErrorKind::Exists),
            (Ok(attr), Ok(target)) => {
                // Its place was taken by another file meanwhile: no rename will put it back.
                left.iter().try_for_each(|aside| attempt.unlink(permit, aside))?;
                return moving(attr).onto(&target);
            }
            (Ok(attr), Err(ErrorKind::NotFound)) => moving(attr).to_free_name(),
            (_, Err(kind)) => Err(kind),
        };
        if let (Ok(true), Some(aside)) = (&done, left) {
            attempt.unlink(permit, &aside)?;
        }
        done
    })?;
    if moved {
        return Ok(());
    }
    progress(Progress::Modifying);
    copy::rename_by_copy(client, permit, from, to, replace, progress)
}

/// Removes what an interrupted swap left beside `to`.
pub(super) fn remove_leftovers(client: &Arc<Client>, permit: &WritePermit, to: &RemotePath) -> RemoteResult<()> {
    retry(client, "rename", to, Repeat::Never, |attempt| {
        let aside = aside(to)?;
        if attempt.capabilities().posix_rename || attempt.lstat(&aside).is_err() {
            return Ok(());
        }
        attempt.unlink(permit, &aside)
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
    attempt: &'a Attempt<'a>,
    permit: &'a WritePermit,
    from: &'a RemotePath,
    to: &'a RemotePath,
    replace: bool,
    guard: Option<&'a Guard>,
    is_dir: bool,
}

/// `Ok(false)`: the server does not move things, copy instead.
type Moved = Result<bool, ErrorKind>;

impl Moving<'_> {
    fn refuses(&self) -> bool {
        self.attempt.rename_capabilities().refuses_rename(self.permit.area(), self.is_dir)
    }

    fn plain(&self, from: &RemotePath, to: &RemotePath) -> Result<(), ErrorKind> {
        self.permit.still_valid()?;
        self.attempt.ok(self.attempt.send(Request::Rename { from: self.attempt.wire(from), to: self.attempt.wire(to) }))
    }

    fn posix(&self) -> Result<(), ErrorKind> {
        self.permit.still_valid()?;
        let request = Request::posix_rename(&self.attempt.wire(self.from), &self.attempt.wire(self.to));
        let held = self
            .guard
            .map(|guard| guard.hold(self.attempt, self.to, Done::Moved(self.from.clone())))
            .transpose()?
            .flatten();
        let moved = self.attempt.send(request);
        let (Some(held), Some(guard)) = (held, self.guard) else { return self.attempt.ok(moved) };
        let seen = held.send_lstat();
        self.attempt.ok(moved).inspect_err(|kind| held.remove_if_refused(kind))?;
        let Some(other) = held.other_than(guard, seen)? else { return Ok(()) };
        // The moved file goes back first, then the other writer's.
        self.plain(self.to, self.from)?;
        held.put_back(self.to)?;
        Err(ErrorKind::Conflict { found: Some(other) })
    }

    /// Plain RENAME fails where the target exists: what "no replace" needs.
    fn to_free_name(&self) -> Moved {
        if self.refuses() {
            return Ok(false);
        }
        match self.plain(self.from, self.to) {
            Ok(()) => {
                self.attempt.rename_capabilities().renamed(self.permit.area(), self.is_dir);
                Ok(true)
            }
            Err(kind) if kind.may_mean_unsupported() => self.after_refusal(kind),
            Err(kind) => Err(kind),
        }
    }

    fn after_refusal(&self, kind: ErrorKind) -> Moved {
        match (self.attempt.lstat(self.from), self.attempt.lstat(self.to)) {
            (Ok(_), Err(ErrorKind::NotFound)) => {}
            (Ok(source), Ok(target))
                if matches!(kind, ErrorKind::PermissionDenied) && source.version() == target.version() =>
            {
                self.remove_half()?;
                return Err(kind);
            }
            (Ok(_), Ok(_)) if !self.replace => return Err(ErrorKind::Exists),
            (Err(ErrorKind::NotFound), Ok(_)) => return Ok(true),
            _ => return Err(kind),
        }
        if self.attempt.capabilities().posix_rename && self.posix().is_ok() {
            return Ok(true);
        }
        self.copy_instead(kind)
    }

    /// A server may rename by making the new name and removing the old one, and leave both where it may not remove the old
    /// one (of somebody else, in a sticky directory). No copy is tried: its source could not be removed either.
    fn remove_half(&self) -> Result<(), ErrorKind> {
        match self.attempt.unlink(self.permit, self.to) {
            Err(kind) if kind.is_unanswered() => return Err(kind),
            Err(kind) => log::warn!("{}: this second name of {} stays on the server: {kind}", self.to, self.from),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Unless renaming has worked here before: then the caller tries again.
    fn copy_instead(&self, kind: ErrorKind) -> Moved {
        let caps = &self.attempt.rename_capabilities();
        let passing =
            matches!(kind, ErrorKind::Failure(_)) && caps.rename_worked_before(self.permit.area(), self.is_dir);
        caps.refused_rename(self.permit.area(), self.is_dir);
        if passing && !self.refuses() {
            return Err(kind);
        }
        log::info!("the server does not rename in {} ({kind}); copying instead", self.permit.area());
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
        if self.attempt.capabilities().posix_rename {
            match self.posix() {
                Ok(()) => {
                    self.attempt.rename_capabilities().renamed(self.permit.area(), self.is_dir);
                    return Ok(true);
                }
                // A swap would be refused half way, with the old file under two names.
                Err(kind @ ErrorKind::PermissionDenied) => return self.copy_instead(kind),
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
                // It may have got its second name.
                drop(self.attempt.send(Request::Remove { path: self.attempt.wire(&aside) }));
                return self.copy_instead(kind);
            }
            Err(kind) => return Err(kind),
        }
        if let Err(kind) = self.plain(self.from, self.to) {
            if let Err(back) = self.plain(&aside, self.to) {
                log::error!("{}: its old content is now in {aside} on the server ({back})", self.to);
            }
            return Err(kind);
        }
        match self.attempt.unlink(self.permit, &aside) {
            Err(kind) if kind.is_loss() => return Err(kind),
            Err(kind) => log::warn!("{aside}: could not be removed on the server: {kind}"),
            Ok(()) => {}
        }
        Ok(true)
    }
}
