//! Moving by copy + verify + delete, for servers that refuse to rename. The source is removed only after all of the copy was
//! seen complete; what is interrupted in between leaves both. If the server refuses a part of the copy, or removes nothing of
//! the source, the copy is removed again.

use std::sync::Arc;

use super::client::Client;
use super::content::{Progress, Source};
use super::error::{ErrorKind, RemoteError, RemoteResult};
use super::open_files::FileRange;
use super::retry::{Repeat, retry, wait_for};
use super::store::{self, Base, Store};
use super::{fetch, list};
use crate::attr::{Attr, FileKind, Version};
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, RawAttrs, Request};

/// Bytes read at a time.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Directories nested deeper than this are not moved: most likely a loop.
const MAX_DEPTH: usize = 200;

pub(super) fn rename_by_copy(
    client: &Arc<Client>,
    permit: &WritePermit,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
    progress: &dyn Fn(Progress),
) -> RemoteResult<()> {
    let attr = retry(client, "rename", from, Repeat::Safe, |attempt| attempt.lstat(from))?;
    Copying { client, permit, replace, resume: false, progress }.whole(from, to, &attr)
}

/// What is at `to` was begun by an earlier attempt; what is not at `from` any more has arrived.
pub(super) fn resume(
    client: &Arc<Client>,
    permit: &WritePermit,
    from: &RemotePath,
    to: &RemotePath,
    progress: &dyn Fn(Progress),
) -> RemoteResult<()> {
    let attr = match retry(client, "rename", from, Repeat::Safe, |attempt| attempt.lstat(from)) {
        Ok(attr) => attr,
        Err(error) if matches!(error.kind, ErrorKind::NotFound) => {
            return retry(client, "rename", to, Repeat::Safe, |attempt| attempt.lstat(to)).map(drop);
        }
        Err(error) => return Err(error),
    };
    // Nothing is there if the copy was removed again.
    let begun = match retry(client, "rename", to, Repeat::Safe, |attempt| attempt.lstat(to)) {
        Err(RemoteError { kind: ErrorKind::NotFound, .. }) => false,
        found => found.map(|_| true)?,
    };
    Copying { client, permit, replace: begun, resume: begun, progress }.whole(from, to, &attr)
}

/// An object that has a complete copy.
struct Copied {
    from: RemotePath,
    to: RemotePath,
    /// Of the source, as it was copied.
    attr: Attr,
    /// Of the copy.
    made: Version,
}

struct Copying<'a> {
    client: &'a Arc<Client>,
    permit: &'a WritePermit,
    replace: bool,
    /// Directories may be there already.
    resume: bool,
    progress: &'a dyn Fn(Progress),
}

impl Copying<'_> {
    /// Copies all, and then removes the source.
    fn whole(&self, from: &RemotePath, to: &RemotePath, attr: &Attr) -> RemoteResult<()> {
        let mut copied = Vec::new();
        if let Err(error) = self.object((from, to), attr, 0, &mut copied) {
            if !error.kind.is_unanswered() && !self.replace {
                self.remove_copies(&copied);
            }
            return Err(error);
        }
        let mut removed = false;
        // Each directory was copied before what is in it.
        while let Some(last) = copied.pop() {
            if let Err(error) = self.remove_source(&last) {
                copied.push(last);
                if !removed && error.kind.may_mean_unsupported() && !self.replace {
                    self.remove_copies(&copied);
                }
                return Err(error);
            }
            removed = true;
            (self.progress)(Progress::Transferred);
        }
        Ok(())
    }

    fn object(
        &self,
        (from, to): (&RemotePath, &RemotePath),
        attr: &Attr,
        depth: usize,
        copied: &mut Vec<Copied>,
    ) -> RemoteResult<()> {
        let made = match attr.kind {
            FileKind::Directory => return self.directory((from, to), attr, depth, copied),
            FileKind::File => self.file(from, to, attr)?,
            FileKind::Symlink => self.link(from, to)?,
            FileKind::Other => return Err(ErrorKind::Unsupported.at("rename", from)),
        };
        (self.progress)(Progress::Transferred);
        copied.push(Copied { from: from.clone(), to: to.clone(), attr: *attr, made: made.version() });
        Ok(())
    }

    fn remove_source(&self, copied: &Copied) -> RemoteResult<()> {
        let from = &copied.from;
        if copied.attr.is_dir() {
            return retry(self.client, "rename", from, Repeat::Never, |attempt| attempt.rmdir(self.permit, from));
        }
        if copied.attr.is_file() {
            self.unchanged(from, &copied.attr)?;
        }
        self.unlink(from)
    }

    /// The source stays: what was made of it is removed, unless another writer changed it meanwhile.
    fn remove_copies(&self, copied: &[Copied]) {
        for Copied { to, attr, made, .. } in copied.iter().rev() {
            let removed = if attr.is_dir() {
                retry(self.client, "rename", to, Repeat::Never, |attempt| attempt.rmdir(self.permit, to))
            } else {
                retry(self.client, "rename", to, Repeat::Never, |attempt| match attempt.lstat(to)?.version() {
                    now if now == *made => attempt.unlink(self.permit, to),
                    _ => Ok(()),
                })
            };
            (self.progress)(Progress::Transferred);
            if let Err(error) = removed {
                log::warn!("{to}: this copy stays on the server: {error}");
            }
        }
    }

    fn unlink(&self, path: &RemotePath) -> RemoteResult<()> {
        retry(self.client, "rename", path, Repeat::Never, |attempt| attempt.unlink(self.permit, path))
    }

    fn file(&self, from: &RemotePath, to: &RemotePath, attr: &Attr) -> RemoteResult<Attr> {
        let local = tempfile::tempfile().map_err(|e| ErrorKind::Local(e).at("rename", from))?;
        let mut at = 0;
        while at < attr.size {
            let range = at..(at + PIECE_BYTES).min(attr.size);
            let bytes = self.read(from, attr, range.clone())?;
            std::os::unix::fs::FileExt::write_all_at(&local, &bytes, at)
                .map_err(|e| ErrorKind::Local(e).at("rename", from))?;
            at = range.end;
            (self.progress)(Progress::Transferred);
        }
        let base = if self.replace { Base::Any } else { Base::Absent };
        let how = Store {
            base,
            base_sum: None,
            unchanged: Vec::new(),
            perm: Some(attr.perm),
            made_with: None,
            own_perm: false,
            mtime: Some(attr.mtime),
            temp_dir: None,
        };
        let source = Source { file: &local, len: attr.size };
        let made = store::store(self.client, self.permit, to, source, &how, self.progress).map_err(exists)?;
        self.keep_time(to, attr, made)
    }

    /// A save goes on without the time that it asked for. A file that was moved must have the time that it had: it is part of
    /// the version on which later changes are based.
    fn keep_time(&self, to: &RemotePath, attr: &Attr, made: Attr) -> RemoteResult<Attr> {
        if made.mtime == attr.mtime {
            return Ok(made);
        }
        Ok(if self.set_time(to, attr.mtime)? { Attr { mtime: attr.mtime, ..made } } else { made })
    }

    /// Whether the server sets times.
    fn set_time(&self, to: &RemotePath, mtime: u32) -> RemoteResult<bool> {
        let attrs = RawAttrs { times: Some((mtime, mtime)), ..RawAttrs::default() };
        let set = retry(self.client, "rename", to, Repeat::Safe, |attempt| {
            // It would be that of what a link leads to.
            if attempt.send_look(to).attr()?.kind == FileKind::Symlink {
                return Err(ErrorKind::Unsupported);
            }
            self.permit.still_valid()?;
            attempt.ok(attempt.send(Request::SetStat { path: attempt.wire(to), attrs }))
        });
        match set {
            Err(RemoteError { kind: ErrorKind::Unsupported | ErrorKind::PermissionDenied, .. }) => {
                log::info!("{to}: the time cannot be set; what was moved has a new one");
                Ok(false)
            }
            set => set.map(|()| true),
        }
    }

    /// Another writer may have written to the source meanwhile: then both stay.
    fn unchanged(&self, from: &RemotePath, attr: &Attr) -> RemoteResult<()> {
        let now = retry(self.client, "rename", from, Repeat::Safe, |attempt| attempt.lstat(from))?;
        if now.version() == attr.version() { Ok(()) } else { Err(ErrorKind::Changed { now }.at("rename", from)) }
    }

    fn read(&self, path: &RemotePath, attr: &Attr, range: std::ops::Range<u64>) -> RemoteResult<Vec<u8>> {
        let wanted =
            FileRange { path: path.clone(), version: attr.version(), range, class: Class::Bulk, settled: false };
        wait_for("rename", path, self.client.timeout() * 2, |done| fetch::fetch(self.client, wanted, done))
    }

    fn list(&self, dir: &RemotePath) -> RemoteResult<Vec<(Name, Attr)>> {
        wait_for("rename", dir, self.client.timeout() * 2, |done| {
            list::list(self.client, dir.clone(), Class::Background, None, done);
        })
    }

    fn directory(
        &self,
        (from, to): (&RemotePath, &RemotePath),
        attr: &Attr,
        depth: usize,
        copied: &mut Vec<Copied>,
    ) -> RemoteResult<()> {
        if depth > MAX_DEPTH {
            return Err(ErrorKind::Unsupported.at("rename", from));
        }
        let made =
            retry(self.client, "rename", to, Repeat::Recognised, |attempt| attempt.mkdir(self.permit, to, attr.perm));
        if let Err(error) = made {
            let there = || {
                retry(self.client, "rename", to, Repeat::Safe, |attempt| attempt.lstat(to))
                    .is_ok_and(|attr| attr.is_dir())
            };
            if !self.resume || !there() {
                return Err(error);
            }
        }
        copied.push(Copied { from: from.clone(), to: to.clone(), attr: *attr, made: attr.version() });
        for (name, attr) in self.list(from)? {
            self.object((&from.join(&name), &to.join(&name)), &attr, depth + 1, copied)?;
        }
        // `tar` and `rsync -a` look at the times of directories, which a rename leaves as they are.
        self.set_time(to, attr.mtime).map(drop)
    }

    fn link(&self, from: &RemotePath, to: &RemotePath) -> RemoteResult<Attr> {
        let text = retry(self.client, "rename", from, Repeat::Safe, |attempt| attempt.readlink(from))?;
        if self.replace {
            match self.unlink(to) {
                Ok(()) | Err(RemoteError { kind: ErrorKind::NotFound, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        retry(self.client, "rename", to, Repeat::Recognised, |attempt| attempt.symlink(self.permit, to, &text))
    }
}

fn exists(error: RemoteError) -> RemoteError {
    match error.kind {
        ErrorKind::Conflict { .. } => ErrorKind::Exists.at("rename", &error.path),
        _ => error,
    }
}
