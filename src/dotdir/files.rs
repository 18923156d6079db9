//! Open virtual files: rendered when they are opened; a command is carried out when it is complete.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::inodes::{Object, Version};
use super::objects::{Difference, gone, missing};
use super::state::{Dot, must_wait};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::gate::ReadOnlyReason;
use crate::inode::Ino;
use crate::mirror::TreeEntry;
use crate::pending::DiffFile;
use crate::vfiles::{self, MAX_COMMAND_BYTES};
use crate::view::{OUTSIDE_PATH, goes_on, outside_text};

/// Committed files up to this size (bytes) are held in memory while they are open.
const MAX_IN_MEMORY: u64 = 4 * 1024 * 1024;

/// An open virtual file.
pub struct VirtualFile {
    content: Content,
    /// Size and content never change, so that the kernel may keep them.
    fixed: bool,
}

impl VirtualFile {
    /// Whether size and content never change.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }
}

enum Content {
    Rendered {
        file: vfiles::File,
        text: Vec<u8>,
        input: Mutex<Vec<u8>>,
        /// Whether the first command replaces what the file has.
        replaces: AtomicBool,
    },
    /// The content of an object of the repository.
    Text(Vec<u8>),
    /// A part of the diff of a comparison.
    Diff(Arc<DiffFile>, Range<u64>),
    /// A rejected copy on the local disk.
    Local(File),
}

impl Dot {
    /// Opens a virtual file.
    ///
    /// # Errors
    ///
    /// [`Cause::AccessDenied`] for writing if the file accepts no commands, [`Cause::ReadOnly`] if it is a version;
    /// [`Cause::Platform`] if the repository
    /// does not have the object.
    pub fn open(&self, ino: Ino, writes: bool, empties: bool, wait: Wait) -> FsResult<VirtualFile> {
        let object = self.object(ino).ok_or_else(|| missing("open", ino))?;
        let fixed = matches!(object, Object::Version(_));
        if writes && fixed {
            return Err(FsError::new("open", name_of(&object), Cause::ReadOnly(ReadOnlyReason::Committed)));
        }
        if writes {
            let takes_commands = matches!(&object, Object::File(file) if file.takes_commands());
            let name = name_of(&object);
            if !takes_commands {
                return Err(FsError::new("open", name, Cause::AccessDenied));
            }
        }
        let content = match object {
            Object::Dir => return Err(FsError::new("open", ".pantheon", Cause::IsADirectory)),
            Object::File(file) => {
                if file.needs_a_look() && self.has_repository() {
                    must_wait("open", file.name(), wait)?;
                    self.compare(wait, file == vfiles::File::Diff);
                }
                if matches!(file, vfiles::File::Mode | vfiles::File::Activity) {
                    self.0.env.look();
                }
                match self.0.comparisons.diff().filter(|_| file == vfiles::File::Diff) {
                    Some(diff) => Content::Diff(diff.clone(), 0..diff.len()),
                    None => {
                        let text = vfiles::render(file, &self.status());
                        Content::Rendered { file, text, input: Mutex::default(), replaces: AtomicBool::new(empties) }
                    }
                }
            }
            Object::GitLink => Content::Text(self.0.config.git.link()),
            Object::At(_) => return Err(FsError::new("open", name_of(&object), Cause::IsADirectory)),
            Object::Version(version) => self.open_version(&version, wait)?,
            Object::DiffAt(name) if name.is_root() => {
                return Err(FsError::new("open", ".pantheon/diff-at", Cause::IsADirectory));
            }
            Object::DiffAt(name) => {
                must_wait("open", &name, wait)?;
                let diff = self.difference_to(&name, wait)?;
                Content::Diff(diff.clone(), 0..diff.len())
            }
            Object::Since(token) => {
                must_wait("open", ".pantheon/since", wait)?;
                Content::Text(self.changes_since(&token, wait))
            }
            Object::Head(path) => match self.0.reader.repository().object(&path) {
                Some(Some(file)) => {
                    let blob = self.0.reader.repository().blob(&file);
                    Content::Text(blob.map_err(|e| FsError::new("open", &path, Cause::Platform(e)))?)
                }
                Some(None) => return Err(FsError::new("open", path, Cause::IsADirectory)),
                None => return Err(gone("open")),
            },
            Object::Diff(path) => {
                must_wait("open", &path, wait)?;
                self.compare_if_old(wait);
                match self.difference(&path) {
                    Some(Difference::File(diff, part)) => Content::Diff(diff, part),
                    Some(Difference::Directory) => return Err(FsError::new("open", path, Cause::IsADirectory)),
                    None => return Err(gone("open")),
                }
            }
            Object::Outside(path) if goes_on(&path) => {
                return Err(FsError::new("open", OUTSIDE_PATH, Cause::IsADirectory));
            }
            Object::Outside(path) => Content::Text(outside_text(&path).ok_or_else(|| gone("open"))?),
            Object::Rejected(kind, below) => {
                let path = self.rejected(kind, &below);
                if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                    return Err(FsError::new("open", path.display(), Cause::IsADirectory));
                }
                Content::Local(File::open(&path).map_err(|e| FsError::new("open", path.display(), e))?)
            }
        };
        Ok(VirtualFile { content, fixed })
    }

    fn open_version(&self, version: &Version, wait: Wait) -> FsResult<Content> {
        match version.entry {
            TreeEntry::File { blob, size, .. } if size > MAX_IN_MEMORY => {
                must_wait("open", version, wait)?;
                let file = self.mirror()?.blob_file(blob);
                Ok(Content::Local(file.map_err(|e| FsError::new("open", version, Cause::Platform(e.to_string())))?))
            }
            TreeEntry::File { blob, .. } | TreeEntry::Link { blob, .. } => {
                Ok(Content::Text(self.version_blob(version, blob)?))
            }
            TreeEntry::Directory(_) | TreeEntry::Submodule => Err(FsError::new("open", version, Cause::IsADirectory)),
        }
    }

    pub fn read(&self, file: &VirtualFile, offset: u64, size: u32) -> FsResult<Vec<u8>> {
        match &file.content {
            Content::Rendered { text, .. } | Content::Text(text) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let end = start.saturating_add(size as usize).min(text.len());
                Ok(text[start..end].to_vec())
            }
            Content::Diff(diff, part) => {
                let start = part.start.saturating_add(offset).min(part.end);
                let left = usize::try_from(part.end - start).unwrap_or(usize::MAX);
                let read = diff.read_at(start, left.min(size as usize));
                read.map_err(|e| FsError::new("read", ".pantheon/diff", e))
            }
            Content::Local(file) => {
                let mut bytes = vec![0; size as usize];
                let n = file.read_at(&mut bytes, offset).map_err(|e| FsError::new("read", ".pantheon", e))?;
                bytes.truncate(n);
                Ok(bytes)
            }
        }
    }

    /// Writes to a command file. A command that ends with a newline is carried out at once, so that the writer gets
    /// the result from `write`: shells ignore the result of `close`.
    pub fn write(&self, file: &VirtualFile, bytes: &[u8], wait: Wait) -> FsResult<u32> {
        let Content::Rendered { file, input, replaces, .. } = &file.content else {
            return Err(FsError::new("write", ".pantheon", Cause::BadHandle));
        };
        let complete = bytes.ends_with(b"\n");
        if complete {
            must_wait("write", file.name(), wait)?;
        }
        {
            let mut input = input.lock();
            if input.len() + bytes.len() > MAX_COMMAND_BYTES {
                return Err(FsError::new("write", file.name(), Cause::Invalid("the command is too long".into())));
            }
            input.extend_from_slice(bytes);
        }
        if complete {
            self.carry_out(*file, input, replaces, wait)?;
        }
        Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// Called at `close`: text without a newline is a command, too.
    pub fn flush(&self, file: &VirtualFile, wait: Wait) -> FsResult<()> {
        match &file.content {
            Content::Rendered { file, input, replaces, .. } if !input.lock().is_empty() => {
                must_wait("close", file.name(), wait)?;
                self.carry_out(*file, input, replaces, wait)
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&self, file: vfiles::File, input: &Mutex<Vec<u8>>, replaces: &AtomicBool, wait: Wait) -> FsResult<()> {
        let text = std::mem::take(&mut *input.lock());
        self.command(file, &text, replaces.swap(false, Ordering::Relaxed), wait)
    }
}

/// The name of the object in error messages.
fn name_of(object: &Object) -> String {
    match object {
        Object::Dir => ".pantheon".into(),
        Object::File(file) => format!(".pantheon/{}", file.name()),
        Object::Rejected(kind, below) => format!(".pantheon/{}/{}", kind.dir_name(), below.display()),
        Object::Head(path) => format!(".pantheon/head/{path}"),
        Object::Diff(path) => format!(".pantheon/diffs/{path}"),
        Object::Outside(path) => format!("{OUTSIDE_PATH}/{path}"),
        Object::GitLink => ".git".into(),
        Object::Since(_) => ".pantheon/since".into(),
        Object::At(path) => format!(".pantheon/at/{path}"),
        Object::Version(version) => version.to_string(),
        Object::DiffAt(name) => format!(".pantheon/diff-at/{name}"),
    }
}
