//! What is mounted, and where, if the command line does not say all of it: the environment is `dev`, the mount point
//! `~/pantheon/SITE.ENV`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::args::Mount;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::record;
use super::source::{Source, dir_name};

/// The directory below the home directory with the mount points that are made.
const DEFAULT_PARENT: &str = "pantheon";

/// A mount point. Directories that were made for it are removed when it is dropped, if they are empty.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) made: Vec<PathBuf>,
}

impl Drop for Place {
    fn drop(&mut self) {
        record::remove_made(&self.made);
    }
}

/// What the arguments of `mount` mean.
pub(super) struct Chosen {
    pub(super) source: Source,
    pub(super) place: Place,
    /// What the user should know about the choice, as the end of a line.
    pub(super) remark: &'static str,
}

/// The source and the mount point that the arguments mean. A default mount point is made.
pub(super) fn choose(args: &Mount, around: &Environ) -> CliResult<Chosen> {
    let given = |path: &Path| Place { path: path.to_owned(), made: Vec::new() };
    if let Some(path) = &args.mountpoint {
        let (source, is_named) = Source::parse_or_dev(&args.source)?;
        return Ok(Chosen { source, place: given(path), remark: remark(is_named) });
    }
    let word = Path::new(&args.source);
    // A single path is the mount point: the git checkout around tells the site.
    let inferred = |source| Chosen { source, place: given(word), remark: "" };
    if is_path(word) {
        return around.sites.infer(&around.here).map(inferred);
    }
    if around.here.join(word).is_dir()
        && let Ok(source) = around.sites.infer(&around.here)
    {
        return Ok(inferred(source));
    }
    let (source, is_named) = Source::parse_or_dev(&args.source)?;
    let place = default_place(&source, around)?;
    Ok(Chosen { source, place, remark: remark(is_named) })
}

fn remark(is_named: bool) -> &'static str {
    if is_named { "" } else { "; no environment was named, so this is Dev" }
}

/// Whether a word can only be the path of a directory.
pub(super) fn is_path(word: &Path) -> bool {
    let bytes = word.as_os_str().as_bytes();
    matches!(bytes, b"." | b"..") || (bytes.contains(&b'/') && !bytes.starts_with(b"sftp://"))
}

/// `~/pantheon/SITE.ENV`, made if it is missing.
fn default_place(source: &Source, around: &Environ) -> CliResult<Place> {
    let home = around.home.as_ref().ok_or_else(|| {
        Failure::new(Exit::Usage, "no home directory is known for a default mount point; name a mount point")
    })?;
    let home = fs::canonicalize(home).unwrap_or_else(|_| home.clone());
    let parent = home.join(DEFAULT_PARENT);
    let path = parent.join(dir_name(&source.to_string()));
    let mut place = Place { made: record::made_before(around, &path)?, path };
    for dir in [parent, place.path.clone()] {
        match fs::create_dir(&dir) {
            Ok(()) => place.made.push(dir),
            // A mount whose process is gone is there and cannot be examined.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let text = format!("{}: cannot be created; name another mount point", dir.display());
                return Err(Failure::caused(Exit::MountPoint, text, error));
            }
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_sources() {
        for path in [".", "..", "./mnt", "/mnt", "a/b", "mysite.dev/"] {
            assert!(is_path(Path::new(path)), "{path}");
        }
        for source in ["mysite", "mysite.dev", "sftp://host/path"] {
            assert!(!is_path(Path::new(source)), "{source}");
        }
    }
}
