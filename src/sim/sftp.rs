//! SFTP as the platform serves it: everything below one binding directory, code read-only when the mode says so, and the
//! quirks on top.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::state::Shared;

/// Entries in one answer to READDIR.
const PAGE: usize = 100;
/// Largest READ and WRITE (bytes).
const MAX_DATA_BYTES: u64 = 255 * 1024;
/// Largest READ of a server that has the quirk of short ones (bytes).
const SHORT_BYTES: u64 = 4096;
/// Handles that may be open at once.
const MAX_HANDLES: u64 = 200;

/// One SFTP session.
pub(super) struct Sftp {
    shared: Arc<Shared>,
    environment: String,
    home: PathBuf,
    /// What the session calls `home`.
    binding: String,
    extensions: bool,
    handles: HashMap<String, Open>,
    next: u64,
}

enum Open {
    File { file: File, writable: bool },
    Dir(Vec<Entry>),
}

type Reply<T> = Result<T, StatusReply>;

fn code(code: StatusCode) -> StatusReply {
    StatusReply::new(code)
}

/// What OpenSSH's server makes of an errno.
fn status(error: &io::Error) -> StatusReply {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => code(StatusCode::NoSuchFile),
        Some(libc::EACCES | libc::EPERM) => code(StatusCode::PermissionDenied),
        _ => code(StatusCode::Failure),
    }
}

fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en".into() }
}

fn attributes(meta: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(meta.size()),
        uid: Some(10_000),
        gid: Some(10_000),
        permissions: Some(meta.mode()),
        atime: Some(u32::try_from(meta.atime()).unwrap_or(0)),
        mtime: Some(u32::try_from(meta.mtime()).unwrap_or(0)),
        ..FileAttributes::empty()
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        if let Some(env) = self.shared.lock().environments.get_mut(&self.environment) {
            env.sessions = env.sessions.saturating_sub(1);
        }
    }
}

impl Sftp {
    /// `None`: refused, another session runs.
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
        let home = shared.home(environment);
        let handles = HashMap::new();
        Some(Self { shared, environment: environment.to_owned(), home, binding, extensions, handles, next: 0 })
    }

    /// The path on disk. Absolute paths exist below the binding only, and `/code` is known too.
    fn place(&self, path: &str) -> Reply<PathBuf> {
        let relative = match path.strip_prefix(&self.binding) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ if path == "/code" || path.starts_with("/code/") => &path[1..],
            _ if path.starts_with('/') => return Err(code(StatusCode::NoSuchFile)),
            _ => path,
        };
        let mut out = self.home.clone();
        let mut depth = 0_usize;
        for part in Path::new(relative).components() {
            match part {
                Component::Normal(name) => {
                    out.push(name);
                    depth += 1;
                }
                Component::ParentDir => {
                    depth = depth.checked_sub(1).ok_or_else(|| code(StatusCode::PermissionDenied))?;
                    out.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Ok(out)
    }

    /// For requests that follow a link at the end of the path.
    fn followed(&self, path: &str) -> Reply<PathBuf> {
        let path = self.place(path)?;
        self.contained(&path)?;
        Ok(path)
    }

    /// For requests that are about the object itself, even if it is a link that leads out.
    fn path(&self, path: &str) -> Reply<PathBuf> {
        let path = self.place(path)?;
        if path != self.home {
            path.parent().map_or(Ok(()), |parent| self.contained(parent))?;
        }
        Ok(path)
    }

    /// Links may lead about in the binding, but not out of it.
    fn contained(&self, path: &Path) -> Reply<()> {
        let mut at = path;
        loop {
            match fs::canonicalize(at) {
                Ok(real) if real.starts_with(&self.home) => return Ok(()),
                Ok(_) => return Err(code(StatusCode::PermissionDenied)),
                Err(_) => at = at.parent().ok_or_else(|| code(StatusCode::NoSuchFile))?,
            }
        }
    }

    /// Whether the object may be changed, by where it really is.
    fn check_write(&self, path: &Path) -> Reply<()> {
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let real = match fs::canonicalize(path) {
            Ok(real) => Some(real),
            Err(_) => parent.clone(),
        };
        let in_code = |place: &Option<PathBuf>| place.as_ref().is_some_and(|p| p.starts_with(self.home.join("code")));
        let in_logs = |place: &Option<PathBuf>| place.as_ref().is_some_and(|p| p.starts_with(self.home.join("logs")));
        if in_logs(&real) || (in_code(&real) && !self.shared.code_writable(&self.environment)) {
            return Err(code(StatusCode::PermissionDenied));
        }
        Ok(())
    }

    /// Changing a name changes the directory that has it, whatever the name leads to.
    fn check_name(&self, path: &Path) -> Reply<()> {
        path.parent().map_or_else(|| Err(code(StatusCode::PermissionDenied)), |parent| self.check_write(parent))
    }

    fn keep(&mut self, open: Open) -> Reply<String> {
        if self.handles.len() as u64 >= MAX_HANDLES {
            return Err(code(StatusCode::Failure).with_message("too many open handles"));
        }
        self.next += 1;
        let name = format!("h{}", self.next);
        self.handles.insert(name.clone(), open);
        Ok(name)
    }

    fn file(&self, handle: &str) -> Reply<&File> {
        match self.handles.get(handle) {
            Some(Open::File { file, .. }) => Ok(file),
            _ => Err(code(StatusCode::Failure).with_message("bad handle")),
        }
    }

    fn set(&self, target: &Target<'_>, attrs: &FileAttributes) -> Reply<()> {
        if let Some(size) = attrs.size {
            let truncated = match target {
                Target::File(file) => file.set_len(size),
                Target::Path(path) => OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(size)),
            };
            truncated.map_err(|e| status(&e))?;
        }
        if let Some(perm) = attrs.permissions
            && self.shared.habit_is("chmod", "obey")
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

    fn listing(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut out = vec![
            Entry::new(".", attributes(&fs::symlink_metadata(dir)?)),
            Entry::new("..", attributes(&fs::symlink_metadata(dir)?)),
        ];
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // The library speaks UTF-8 names only; OpenSSH's server is there for the others.
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.path().symlink_metadata()) else {
                continue;
            };
            out.push(Entry::new(name, attributes(&meta)));
        }
        out.reverse();
        Ok(out)
    }

    fn rename_path(&self, from: &str, to: &str, replace: bool) -> Reply<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
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

    fn statvfs(&self, path: &str) -> Reply<Vec<u8>> {
        let stat = rustix::fs::statvfs(self.path(path)?).map_err(|e| status(&e.into()))?;
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

    fn answer<T>(&mut self, work: impl FnOnce(&mut Self) -> Reply<T>) -> Reply<T> {
        let round = self.shared.rounds().asked(self.shared.link.rtt());
        let result = work(self);
        self.shared.rounds().answered(round);
        result
    }
}

/// What attributes are set on.
enum Target<'a> {
    File(&'a File),
    Path(&'a Path),
}

/// Strings of an extension's payload.
fn strings(mut data: &[u8]) -> Reply<Vec<String>> {
    let bad = || code(StatusCode::BadMessage);
    let mut out = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let bytes = rest.get(..len).ok_or_else(bad)?;
        out.push(String::from_utf8(bytes.to_vec()).map_err(|_| bad())?);
        data = &rest[len..];
    }
    Ok(out)
}

impl Handler for Sftp {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        code(StatusCode::OpUnsupported)
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Reply<Version> {
        let mut version = Version::new();
        if self.extensions {
            for (name, value) in
                [("posix-rename@openssh.com", "1"), ("statvfs@openssh.com", "2"), ("limits@openssh.com", "1")]
            {
                version.extensions.insert(name.into(), value.into());
            }
        }
        Ok(version)
    }

    async fn open(&mut self, id: u32, filename: String, flags: OpenFlags, attrs: FileAttributes) -> Reply<Handle> {
        self.answer(|sftp| {
            let path = sftp.followed(&filename)?;
            let writable =
                flags.intersects(OpenFlags::WRITE | OpenFlags::APPEND | OpenFlags::CREATE | OpenFlags::TRUNCATE);
            if writable {
                sftp.check_write(&path)?;
            }
            let mut options = OpenOptions::from(flags);
            options.mode(attrs.permissions.unwrap_or(0o644) & 0o7777);
            let file = options.open(&path).map_err(|e| status(&e))?;
            if file.metadata().is_ok_and(|meta| meta.is_dir()) {
                return Err(code(StatusCode::Failure));
            }
            Ok(Handle { id, handle: sftp.keep(Open::File { file, writable })? })
        })
    }

    async fn close(&mut self, id: u32, handle: String) -> Reply<Status> {
        self.answer(|sftp| match sftp.handles.remove(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(code(StatusCode::Failure)),
        })
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Reply<Data> {
        self.answer(|sftp| {
            let short = sftp.shared.lock().quirks.is("reads", "short");
            let most = if short { SHORT_BYTES } else { MAX_DATA_BYTES };
            let mut data = vec![0; u64::from(len).min(most) as usize];
            let n = sftp.file(&handle)?.read_at(&mut data, offset).map_err(|e| status(&e))?;
            if n == 0 {
                return Err(code(StatusCode::Eof));
            }
            data.truncate(n);
            Ok(Data { id, data })
        })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Reply<Status> {
        self.answer(|sftp| {
            match sftp.handles.get(&handle) {
                Some(Open::File { file, writable: true }) => {
                    file.write_all_at(&data, offset).map_err(|e| status(&e))?
                }
                Some(_) => return Err(code(StatusCode::PermissionDenied)),
                None => return Err(code(StatusCode::Failure)),
            }
            Ok(done(id))
        })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.path(&path)?.symlink_metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn stat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.followed(&path)?.metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.file(&handle)?.metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.followed(&path)?;
            sftp.check_write(&path)?;
            sftp.set(&Target::Path(&path), &attrs).map(|()| done(id))
        })
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| sftp.set(&Target::File(sftp.file(&handle)?), &attrs).map(|()| done(id)))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Reply<Handle> {
        self.answer(|sftp| {
            let entries = sftp.listing(&sftp.followed(&path)?).map_err(|e| status(&e))?;
            Ok(Handle { id, handle: sftp.keep(Open::Dir(entries))? })
        })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Reply<Name> {
        let page = if self.shared.lock().quirks.is("pages", "single") { 1 } else { PAGE };
        self.answer(|sftp| match sftp.handles.get_mut(&handle) {
            Some(Open::Dir(entries)) if entries.is_empty() => Err(code(StatusCode::Eof)),
            Some(Open::Dir(entries)) => {
                let rest = entries.len().saturating_sub(page);
                let mut files = entries.split_off(rest);
                files.reverse();
                Ok(Name { id, files })
            }
            _ => Err(code(StatusCode::Failure)),
        })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.path(&filename)?;
            sftp.check_name(&path)?;
            fs::remove_file(path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.path(&path)?;
            sftp.check_name(&path)?;
            fs::create_dir(&path).map_err(|e| status(&e))?;
            let perm = fs::Permissions::from_mode(attrs.permissions.unwrap_or(0o755) & 0o7777);
            fs::set_permissions(&path, perm).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.path(&path)?;
            sftp.check_name(&path)?;
            fs::remove_dir(path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn realpath(&mut self, id: u32, path: String) -> Reply<Name> {
        self.answer(|sftp| {
            let path = sftp.followed(&path)?;
            let real = fs::canonicalize(&path).unwrap_or(path);
            let below = real.strip_prefix(&sftp.home).map_err(|_| code(StatusCode::NoSuchFile))?;
            let shown = Path::new(&sftp.binding).join(below);
            let shown = shown.to_string_lossy().trim_end_matches('/').to_owned();
            Ok(Name { id, files: vec![Entry::dummy(shown)] })
        })
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Reply<Status> {
        self.answer(|sftp| sftp.rename_path(&oldpath, &newpath, false).map(|()| done(id)))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Reply<Name> {
        self.answer(|sftp| {
            let text = fs::read_link(sftp.path(&path)?).map_err(|e| status(&e))?;
            Ok(Name { id, files: vec![Entry::dummy(text.to_string_lossy())] })
        })
    }

    /// The library's names follow the draft; what comes is in the order of OpenSSH: the text first, then the link.
    async fn symlink(&mut self, id: u32, text: String, link: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.path(&link)?;
            sftp.check_name(&path)?;
            std::os::unix::fs::symlink(text, path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Reply<Packet> {
        self.answer(|sftp| {
            if !sftp.extensions {
                return Err(code(StatusCode::OpUnsupported));
            }
            match (request.as_str(), strings(&data).unwrap_or_default().as_slice()) {
                ("posix-rename@openssh.com", [from, to]) => {
                    sftp.rename_path(from, to, true).map(|()| Packet::Status(done(id)))
                }
                ("statvfs@openssh.com", [path]) => {
                    Ok(Packet::ExtendedReply(ExtendedReply { id, data: sftp.statvfs(path)? }))
                }
                ("limits@openssh.com", _) => {
                    let words = [MAX_DATA_BYTES + 1024, MAX_DATA_BYTES, MAX_DATA_BYTES, MAX_HANDLES];
                    let data = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                    Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
                }
                _ => Err(code(StatusCode::OpUnsupported)),
            }
        })
    }
}
