//! One SFTP session: its handles, what it may change, and the quirks that its requests meet.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh_sftp::protocol::{File as Entry, FileAttributes, StatusCode};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::binding::Binding;
use super::sftp_reply::{Reply, attributes, code, status};
use super::state::Shared;

/// Handles that may be open at once.
pub(super) const MAX_HANDLES: u64 = 200;
const FEW_HANDLES: u64 = 20;
/// Most that one request copies (bytes).
const MAX_COPY_BYTES: usize = 64 * 1024 * 1024;

/// A string of the protocol, and what follows it.
fn counted(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// One SFTP session.
pub(super) struct Sftp {
    shared: Arc<Shared>,
    environment: String,
    pub(super) binding: Binding,
    pub(super) extensions: bool,
    handles: HashMap<String, Open>,
    next: u64,
}

pub(super) enum Open {
    File {
        file: File,
        writable: bool,
    },
    /// Listed at the first READDIR, as OpenSSH does it.
    Dir {
        path: PathBuf,
        entries: Option<Vec<Entry>>,
    },
}

/// What attributes are set on.
pub(super) enum Target<'a> {
    File(&'a File),
    Path(&'a Path),
}

impl Drop for Sftp {
    fn drop(&mut self) {
        if let Some(env) = self.shared.lock().environments.get_mut(&self.environment) {
            env.sessions = env.sessions.saturating_sub(1);
        }
    }
}

impl Sftp {
    /// Starts a session. `None`: refused, because another session runs.
    pub(super) fn start(shared: Arc<Shared>, environment: &str) -> Option<Self> {
        let (binding, extensions) = {
            let mut state = shared.lock();
            let alone = state.quirks.is("second-connection", "refuse");
            let replaces = state.quirks.is("second-connection", "replace");
            let extensions = state.quirks.is("extensions", "on");
            let env = state.environments.get_mut(environment)?;
            if alone && env.sessions > 0 {
                return None;
            }
            if replaces && env.sessions > 0 {
                shared.link.cut_older();
            }
            env.sessions += 1;
            env.most_sessions = env.most_sessions.max(env.sessions);
            (format!("/srv/bindings/{}", env.binding), extensions)
        };
        let binding = Binding::new(shared.home(environment), binding);
        let handles = HashMap::new();
        Some(Self { shared, environment: environment.to_owned(), binding, extensions, handles, next: 0 })
    }

    pub(super) fn quirk_is(&self, name: &str, value: &str) -> bool {
        self.shared.quirk_is(name, value)
    }

    /// Refuses a change of an object in `logs`, or in `code` while code is read-only, wherever links lead.
    pub(super) fn check_write(&self, path: &Path) -> Reply<()> {
        let parent = || fs::canonicalize(path.parent()?).ok();
        let real = fs::canonicalize(path).ok().or_else(parent);
        let is_below = |dir: &str| real.as_ref().is_some_and(|real| self.binding.is_below(dir, real));
        if is_below("logs") || (is_below("code") && !self.shared.code_writable(&self.environment)) {
            return Err(code(StatusCode::PermissionDenied));
        }
        if is_below("code/sites/default") && self.quirk_is("sites-default", "read-only") {
            return Err(code(StatusCode::PermissionDenied));
        }
        Ok(())
    }

    /// Refuses a change of a name if its directory may not be changed, wherever the name leads.
    pub(super) fn check_name(&self, path: &Path) -> Reply<()> {
        path.parent().map_or_else(|| Err(code(StatusCode::PermissionDenied)), |parent| self.check_write(parent))
    }

    pub(super) fn keep(&mut self, open: Open) -> Reply<String> {
        let most = if self.quirk_is("handles", "few") { FEW_HANDLES } else { MAX_HANDLES };
        if self.handles.len() as u64 >= most {
            return Err(code(StatusCode::Failure).with_message("too many open handles"));
        }
        self.next += 1;
        let name = format!("h{}", self.next);
        self.handles.insert(name.clone(), open);
        Ok(name)
    }

    pub(super) fn opened(&self, handle: &str) -> Option<&Open> {
        self.handles.get(handle)
    }

    /// What is left of an open directory.
    pub(super) fn entries(&mut self, handle: &str) -> Reply<&mut Vec<Entry>> {
        let listed = match self.handles.get(handle) {
            Some(Open::Dir { path, entries: None }) => Some(self.listing(path).map_err(|e| status(&e))?),
            _ => None,
        };
        match self.handles.get_mut(handle) {
            Some(Open::Dir { entries, .. }) => Ok(entries.get_or_insert(listed.unwrap_or_default())),
            _ => Err(code(StatusCode::Failure)),
        }
    }

    pub(super) fn release(&mut self, handle: &str) -> Option<Open> {
        self.handles.remove(handle)
    }

    pub(super) fn file(&self, handle: &str) -> Reply<&File> {
        match self.handles.get(handle) {
            Some(Open::File { file, .. }) => Ok(file),
            _ => Err(code(StatusCode::Failure).with_message("bad handle")),
        }
    }

    pub(super) fn set(&self, target: &Target<'_>, attrs: &FileAttributes) -> Reply<()> {
        if let Some(size) = attrs.size {
            let truncated = match target {
                Target::File(file) => file.set_len(size),
                Target::Path(path) => OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(size)),
            };
            truncated.map_err(|e| status(&e))?;
        }
        if let Some(perm) = attrs.permissions
            && self.shared.quirk_is("chmod", "obey")
        {
            let perm = fs::Permissions::from_mode(perm & 0o7777);
            let set = match target {
                Target::File(file) => file.set_permissions(perm),
                Target::Path(path) => fs::set_permissions(path, perm),
            };
            set.map_err(|e| status(&e))?;
        }
        if let (Some(atime), Some(mtime)) = (attrs.atime, attrs.mtime) {
            let time = |secs: u32| Timespec { tv_sec: i64::from(secs), tv_nsec: 0 };
            let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
            let set = match target {
                Target::File(file) => rustix::fs::futimens(file, &times),
                Target::Path(path) => utimensat(CWD, *path, &times, AtFlags::empty()),
            };
            set.map_err(|e| status(&e.into()))?;
        }
        Ok(())
    }

    pub(super) fn listing(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let own = attributes(&fs::symlink_metadata(dir)?);
        let mut out = vec![Entry::new(".", own.clone()), Entry::new("..", own)];
        for found in fs::read_dir(dir)? {
            let found = found?;
            // The library supports UTF-8 names only; other names are tested against OpenSSH's server. The attributes are
            // asked of the open directory: walking the whole path again for each name takes most of the time of a listing.
            let (Ok(name), Ok(meta)) = (found.file_name().into_string(), found.metadata()) else {
                continue;
            };
            out.push(Entry::new(name, attributes(&meta)));
        }
        out.reverse();
        Ok(out)
    }

    pub(super) fn rename_path(&self, from: &str, to: &str, replace: bool) -> Reply<()> {
        let (from, to) = (self.binding.path(from)?, self.binding.path(to)?);
        self.check_name(&from)?;
        self.check_name(&to)?;
        let meta = from.symlink_metadata().map_err(|e| status(&e))?;
        let quirk = self.shared.lock().quirks.get("rename");
        let exists = to.symlink_metadata().is_ok();
        let refused = match quirk {
            "refuse" => true,
            "refuse-directories" => meta.is_dir(),
            "refuse-replace" => exists,
            _ => false,
        };
        if refused || (exists && !replace) {
            return Err(code(StatusCode::Failure));
        }
        fs::rename(&from, &to).map_err(|e| status(&e))
    }

    /// Handle, offset and length of the source, then handle and offset of the target.
    pub(super) fn copy_data(&self, request: &[u8]) -> Reply<()> {
        let (from, rest) = counted(request).ok_or_else(|| code(StatusCode::BadMessage))?;
        let (numbers, rest) = rest.split_at_checked(16).ok_or_else(|| code(StatusCode::BadMessage))?;
        let (to, rest) = counted(rest).ok_or_else(|| code(StatusCode::BadMessage))?;
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let (offset, len, at) = (number(numbers), number(&numbers[8..]), number(rest));
        let (from, to) = (self.file(from)?, self.file(to)?);
        let mut piece = vec![0; usize::try_from(len).unwrap_or_default().min(MAX_COPY_BYTES)];
        from.read_exact_at(&mut piece, offset).map_err(|e| status(&e))?;
        if self.quirk_is("copy-data", "wrong") {
            piece.fill(0);
        }
        to.write_all_at(&piece, at).map_err(|e| status(&e))
    }

    pub(super) fn statvfs(&self, path: &str) -> Reply<Vec<u8>> {
        let stat = rustix::fs::statvfs(self.binding.path(path)?).map_err(|e| status(&e.into()))?;
        let words = [
            stat.f_bsize,
            stat.f_frsize,
            stat.f_blocks,
            stat.f_bfree,
            stat.f_bavail,
            stat.f_files,
            stat.f_ffree,
            stat.f_favail,
            0,
            0,
            stat.f_namemax,
        ];
        Ok(words.iter().flat_map(|word| word.to_be_bytes()).collect())
    }

    /// Carries out a request and counts its round trip.
    pub(super) fn answer<T>(&mut self, work: impl FnOnce(&mut Self) -> Reply<T>) -> Reply<T> {
        let round = self.shared.round_trips().asked(self.shared.link.rtt());
        let result = work(self);
        self.shared.round_trips().answered(round);
        result
    }
}
