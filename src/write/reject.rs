//! Copies of content that could not be sent, as plain files in the state directory: `conflicts` (someone else changed
//! the file) and `stranded` (the environment takes no writes any more). Shown under `.pantheon`, never in the code tree,
//! where a web server would serve them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::path::RemotePath;

/// Why a copy is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectKind {
    Conflict,
    Stranded,
}

impl RejectKind {
    pub fn dir_name(self) -> &'static str {
        match self {
            RejectKind::Conflict => "conflicts",
            RejectKind::Stranded => "stranded",
        }
    }
}

/// The two shelves of one environment.
#[derive(Debug, Clone)]
pub struct Rejects {
    state_dir: PathBuf,
}

/// Copies of one path beyond this many are refused a new number and overwrite the last: an editor that retries a save
/// for hours must not fill the disk with names.
const MAX_COPIES_PER_PATH: u32 = 100;

impl Rejects {
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// Where it all is.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub fn dir(&self, shelf: RejectKind) -> PathBuf {
        self.state_dir.join(shelf.dir_name())
    }

    /// Copies `source` onto the shelf and returns where it is. A name that is taken gets a number.
    pub fn keep(&self, shelf: RejectKind, path: &RemotePath, source: &File) -> io::Result<PathBuf> {
        let wanted = self.dir(shelf).join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        if let Some(parent) = wanted.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let (target, mut copy) = (0..=MAX_COPIES_PER_PATH)
            .map(|n| numbered(&wanted, n))
            .find_map(|target| {
                let mut options = File::options();
                options.write(true).mode(0o600).create_new(true);
                match options.open(&target) {
                    Ok(file) => Some(Ok((target, file))),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    Err(error) => Some(Err(error)),
                }
            })
            .unwrap_or_else(|| {
                let target = numbered(&wanted, MAX_COPIES_PER_PATH);
                Ok((target.clone(), File::create(target)?))
            })?;
        copy_all(source, &mut copy)?;
        copy.sync_all()?;
        Ok(target)
    }

    /// What a conflicting copy was made from, for a merge. Not on a shelf: nobody is to decide about it.
    pub fn keep_base(&self, copy: &Path, base: &[u8]) -> io::Result<()> {
        let Some(target) = base_of(&self.state_dir, copy) else { return Ok(()) };
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut options = File::options();
        options.write(true).mode(0o600).create(true).truncate(true).open(target)?.write_all(base)
    }

    /// Files on the shelf, as paths relative to it, in order.
    pub fn list(&self, shelf: RejectKind) -> Vec<PathBuf> {
        let (root, mut out) = (self.dir(shelf), Vec::new());
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                    Ok(_) => out.extend(entry.path().strip_prefix(&root).map(Path::to_owned)),
                    Err(_) => {}
                }
            }
        }
        out.sort();
        out
    }
}

/// Where the base of a conflicting copy is, if it was still at hand.
pub fn base_of(state_dir: &Path, copy: &Path) -> Option<PathBuf> {
    let inside = copy.strip_prefix(state_dir.join(RejectKind::Conflict.dir_name())).ok()?;
    Some(state_dir.join("bases").join(inside))
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Positioned reads: the file is shared with writers that have their own idea of a position.
fn copy_all(source: &File, target: &mut File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        match source.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            n => target.write_all(&buffer[..n])?,
        }
        at = target.metadata()?.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_their_path_and_never_replace_each_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rescue = Rejects::new(dir.path());
        let path = RemotePath::parse("code/wp-content/a.php").expect("valid");
        for text in ["one", "two"] {
            let mut source = tempfile::tempfile().expect("a file");
            source.write_all(text.as_bytes()).expect("written");
            rescue.keep(RejectKind::Conflict, &path, &source).expect("kept");
        }
        let list = rescue.list(RejectKind::Conflict);
        assert_eq!(list, [Path::new("code/wp-content/a.php"), Path::new("code/wp-content/a.php.1")]);
        let read = |p: &Path| fs::read_to_string(rescue.dir(RejectKind::Conflict).join(p)).expect("read");
        assert_eq!((read(&list[0]), read(&list[1])), ("one".into(), "two".into()));
        assert!(rescue.list(RejectKind::Stranded).is_empty());
    }
}
