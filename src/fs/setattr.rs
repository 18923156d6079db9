//! setattr and access.

use std::time::SystemTime;

use super::{Cause, Entry, Fs, FsError, FsResult, Wait};
use crate::attr::{Attr, secs_from_time};
use crate::gate::Verdict;
use crate::inode::{Ino, NodeView};
use crate::path::RemotePath;
use crate::write::Action;

/// A time to set.
#[derive(Debug, Clone, Copy)]
pub enum Time {
    Now,
    At(SystemTime),
}

/// What a caller wants changed. Owner and group are not here: everything belongs to the mounting user, and a refused
/// chown would fail saves that do not depend on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub size: Option<u64>,
    pub perm: Option<u16>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

impl Fs {
    pub fn setattr(&self, ino: Ino, change: SetAttr, wait: Wait) -> FsResult<Entry> {
        if ino.is_virtual() {
            return self.virt_getattr(ino);
        }
        let path = self.object(ino);
        self.permit("setattr", ino, &path, wait)?;
        let view = self.fresh_view("setattr", ino, self.freshness(ino), wait)?;
        if let Some(size) = change.size {
            self.truncate(ino, &view, size, wait)?;
        }
        let view = self.0.table.view(ino).unwrap_or(view);
        if change.perm.is_some() || change.atime.is_some() || change.mtime.is_some() {
            self.set_perm_and_times(ino, &path, &view, change, wait)?;
        }
        let view = self.0.table.view(ino).unwrap_or(view);
        Ok(self.entry(&view))
    }

    /// While the file is open for writing the cut stays local; otherwise it is sent at once, as a whole new content.
    fn truncate(&self, ino: Ino, view: &NodeView, size: u64, wait: Wait) -> FsResult<()> {
        let path = self.object(ino);
        if view.attr.is_dir() {
            return Err(FsError::new("truncate", path, Cause::IsADirectory));
        }
        if size > i64::MAX as u64 {
            return Err(FsError::new("truncate", path, Cause::TooBig));
        }
        if size == view.attr.size && self.spool(ino).is_none() {
            return Ok(());
        }
        let cut = match self.spool(ino) {
            Some(spool) if !spool.is_sealed() => spool.set_len(size),
            _ if size == 0 => self.new_spool("truncate", ino).map(|_| Ok(Some(0)))?,
            _ => self.ensure_spool("truncate", ino, Some(size), wait)?.set_len(size),
        };
        match cut.map_err(|e| FsError::new("truncate", &path, e))? {
            Some(len) => self.wrote(ino, len),
            // Sealed in this very moment.
            None => return self.truncate(ino, view, size, wait),
        }
        if self.0.table.view(ino).is_some_and(|view| view.opens == 0) {
            let saved = self.save("truncate", ino, wait);
            self.rest(ino);
            saved?;
        }
        Ok(())
    }

    fn set_perm_and_times(
        &self,
        ino: Ino,
        path: &RemotePath,
        view: &NodeView,
        change: SetAttr,
        wait: Wait,
    ) -> FsResult<()> {
        let wall = self.0.clock.wall();
        let secs = |time: Time| match time {
            Time::Now => secs_from_time(wall),
            Time::At(at) => secs_from_time(at),
        };
        let (atime, mtime) = (change.atime.map(secs), change.mtime.map(secs));
        let apply = |attr: &mut Attr| {
            attr.perm = change.perm.unwrap_or(attr.perm);
            attr.atime = atime.unwrap_or(attr.atime);
            attr.mtime = mtime.unwrap_or(attr.mtime);
        };
        {
            let _names = self.0.names.lock();
            let view = self.0.table.view(ino).unwrap_or_else(|| view.clone());
            let waits_for_content = self.spool(ino).is_some_and(|spool| spool.is_dirty());
            if view.unlinked || waits_for_content || self.is_unrecorded(&view) {
                // Travels with the content.
                self.0.table.update(ino, apply);
                return Ok(());
            }
        }
        self.may_record("setattr", path, wait)?;
        {
            let _names = self.0.names.lock();
            let mut wanted = view.attr;
            apply(&mut wanted);
            let times = (atime.is_some() || mtime.is_some()).then_some((wanted.atime, wanted.mtime));
            let link = view.attr.kind == crate::attr::FileKind::Symlink;
            let action = Action::SetAttr { perm: change.perm, times, link };
            let now = self.0.table.path(ino).unwrap_or_else(|| path.clone());
            self.record(ino, &now, action).map_err(|cause| FsError::new("setattr", path, cause))?;
            self.0.table.update(ino, apply);
        }
        self.settle("setattr", path)
    }

    /// access(2): the gate first, then the permission bits. Root may read and write whatever the gate lets through.
    pub fn access(&self, ino: Ino, mask: i32, caller_uid: u32, wait: Wait) -> FsResult<()> {
        let attr = self.getattr(ino, wait)?.attr;
        if mask & libc::W_OK != 0 {
            self.writable("access", ino)?;
        }
        if mask & libc::X_OK != 0 && !attr.is_dir() && attr.perm & 0o111 == 0 {
            return Err(FsError::new("access", self.object(ino), Cause::AccessDenied));
        }
        if caller_uid == 0 {
            return Ok(());
        }
        let shift = if caller_uid == self.uid() { 6 } else { 0 };
        let bits = i32::from((self.shown_perm(attr.perm) >> shift) & 0o7);
        if mask & 0o7 & !bits != 0 {
            return Err(FsError::new("access", self.object(ino), Cause::AccessDenied));
        }
        Ok(())
    }

    fn writable(&self, op: &'static str, ino: Ino) -> FsResult<()> {
        let Some(area) = self.0.table.area(ino) else { return Ok(()) };
        match self.0.gate.verdict(area) {
            Verdict::Closed(reason) => Err(FsError::new(op, self.object(ino), Cause::ReadOnly(reason))),
            Verdict::Open | Verdict::Held { .. } => Ok(()),
        }
    }
}
