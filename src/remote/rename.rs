//! Moving on servers that know how to and on servers that do not: `posix-rename`, plain RENAME, copy + verify + delete.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copy;
use super::guard::Guard;
use super::session::{Call, Inner};
use super::{ErrorKind, Note, RemoteResult};
use crate::attr::{Area, Attr};
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::Request;

/// What this server has been seen to accept, per area and separately for directories. A refusal is not for ever: it may
/// have been a busy moment or a quota, so that it takes several in a row, and is asked again later.
#[derive(Default)]
pub(super) struct RenameCapabilities {
    moves: Mutex<HashMap<(Area, bool), Seen>>,
    temp: Mutex<Seen>,
}

/// Refusals in a row after which a feature counts as not offered.
const REFUSALS: u32 = 3;
/// How long it counts so.
const REFUSED_FOR: Duration = Duration::from_secs(600);

#[derive(Default, Clone, Copy)]
struct Seen {
    worked: bool,
    refusals: u32,
    refused_at: Option<Instant>,
}

impl Seen {
    fn works(self) -> bool {
        self.refusals < REFUSALS || self.refused_at.is_none_or(|at| at.elapsed() > REFUSED_FOR)
    }

    fn worked(&mut self) {
        *self = Self { worked: true, ..Self::default() };
    }

    fn refused(&mut self) {
        (self.refusals, self.refused_at) = (self.refusals.saturating_add(1), Some(Instant::now()));
    }
}

impl RenameCapabilities {
    pub(super) fn refuses_rename(&self, area: Area, is_dir: bool) -> bool {
        self.moves.lock().get(&(area, is_dir)).is_some_and(|seen| !seen.works())
    }

    /// Whether moving has worked here: then a failure without a reason is a passing one.
    fn rename_worked_before(&self, area: Area, is_dir: bool) -> bool {
        self.moves.lock().get(&(area, is_dir)).is_some_and(|seen| seen.worked)
    }

    fn refused_rename(&self, area: Area, is_dir: bool) {
        self.moves.lock().entry((area, is_dir)).or_default().refused();
    }

    fn renamed(&self, area: Area, is_dir: bool) {
        self.moves.lock().entry((area, is_dir)).or_default().worked();
    }

    pub(super) fn temp_works(&self) -> bool {
        self.temp.lock().works()
    }

    /// Whether temporary files have ever taken their place here.
    pub(super) fn temp_worked_before(&self) -> bool {
        self.temp.lock().worked
    }

    pub(super) fn temp_worked(&self) {
        self.temp.lock().worked();
    }

    pub(super) fn temp_failed(&self) {
        self.temp.lock().refused();
    }
}

pub(super) fn rename(
    inner: &Arc<Inner>,
    permit: &WritePermit,
    (from, to): (&RemotePath, &RemotePath),
    replace: bool,
    guard: Option<&Guard>,
    note: &dyn Fn(Note),
) -> RemoteResult<()> {
    let moved = inner.once("rename", from, |call| {
        let (source, target) = (call.send_lstat(from), call.send_lstat(to));
        // What an attempt that was cut off may have left.
        let swaps = !call.session.engine.capabilities().posix_rename;
        let left = swaps.then(|| aside(to)).transpose()?.map(|aside| (call.send_lstat(&aside), aside));
        let (source, target) = (call.attr(source), call.attr(target));
        let left = left.and_then(|(there, aside)| call.attr(there).ok().map(|_| aside));
        let moving = |attr: Attr| Moving { call, permit, from, to, replace, guard, is_dir: attr.is_dir() };
        let done = match (source, target) {
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
    guard: Option<&'a Guard>,
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
        let request = Request::posix_rename(&self.call.wire(self.from), &self.call.wire(self.to));
        let held = self.guard.map(|guard| guard.hold(self.call, self.to)).transpose()?.flatten();
        let moved = self.call.send(request);
        let (Some(held), Some(guard)) = (held, self.guard) else { return self.call.done(moved) };
        let seen = held.look();
        self.call.done(moved).inspect_err(|_| held.drop_it())?;
        let Some(other) = held.other_than(guard.base, seen)? else { return Ok(()) };
        // Ours goes back first, then theirs.
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
                self.call.inner.rename_caps.renamed(self.permit.area(), self.is_dir);
                Ok(true)
            }
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
        self.copy_instead(kind)
    }

    /// What has worked before is tried again by the caller.
    fn copy_instead(&self, kind: ErrorKind) -> Moved {
        let caps = &self.call.inner.rename_caps;
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
        if self.call.session.engine.capabilities().posix_rename {
            match self.posix() {
                Ok(()) => {
                    self.call.inner.rename_caps.renamed(self.permit.area(), self.is_dir);
                    return Ok(true);
                }
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
            Err(kind) if kind.may_mean_unsupported() => return self.copy_instead(kind),
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
