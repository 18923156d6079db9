//! Replaces files on the local disk at once: a reader, and the next start after a crash, sees the old content or the new
//! one, never a part of either.
//!
//! The new content is written to a temporary file in the same directory, which is then renamed over the old one. What is
//! replaced here is state of one user, so that every file is for its owner only (mode 0600).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces the content of `path` by what `write` writes, and returns when a power loss cannot take it back: the file is
/// synced before the rename, the directory after it.
///
/// The file that is returned is open for reading and appending.
///
/// # Errors
///
/// Of the file system, or of `write`: `path` is as it was then. Only if the sync of the directory fails, which comes last,
/// the new content is in place already.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let (dir, name) = split(path)?;
    replace_named(dir, |file| write(file).map(|()| name))
}

/// As [`replace`], for a file in `dir` whose name is known once it is written: `write` returns the name.
///
/// # Errors
///
/// As [`replace`].
pub fn replace_named(dir: &Path, write: impl FnOnce(&mut File) -> io::Result<OsString>) -> io::Result<File> {
    let mut new = temporary(dir)?;
    let name = write(new.as_file_mut())?;
    new.as_file().sync_all()?;
    let file = persist(new, &dir.join(name))?;
    sync_dir(dir)?;
    Ok(file)
}

/// As [`replace`], without any sync: for caches that are read with a checksum or a parser that notices damage, and that
/// can be had again. After a power loss the file may have the old content, the new one, or be empty.
///
/// # Errors
///
/// Of the file system, or of `write`: `path` is as it was then.
pub fn replace_unsynced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let mut new = temporary(split(path)?.0)?;
    write(new.as_file_mut())?;
    persist(new, path)
}

fn split(path: &Path) -> io::Result<(&Path, OsString)> {
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not the name of a file", path.display()));
    let name = path.file_name().ok_or_else(no_file)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir, name.to_owned()))
}

/// Mode 0600, whatever the umask, as `tempfile` makes them.
fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().append(true).tempfile_in(dir)
}

fn persist(new: NamedTempFile, path: &Path) -> io::Result<File> {
    new.persist(path).map_err(|failed| failed.error)
}

/// Which names are in the directory survives a power loss when this returns.
///
/// # Errors
///
/// Of the file system.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some file systems keep directories where there is nothing to sync.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Replace = fn(&Path, &[u8]) -> io::Result<File>;
    const BOTH: [Replace; 2] = [
        |path, bytes| replace(path, |file| file.write_all(bytes)),
        |path, bytes| replace_unsynced(path, |file| file.write_all(bytes)),
    ];

    fn names(dir: &Path) -> Vec<OsString> {
        fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn content_and_mode_are_replaced_and_nothing_else_is_left() {
        for replace in BOTH {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("file");
            replace(&path, b"a longer text").expect("made");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened to all");
            let mut file = replace(&path, b"new").expect("replaced");
            assert_eq!(fs::read(&path).expect("read"), b"new");
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
            assert_eq!(names(dir.path()), ["file"]);
            file.write_all(b"er").expect("the returned file appends");
            file.set_len(3).expect("cut");
            file.write_all(b"!").expect("appended where the file ends");
            assert_eq!(fs::read(&path).expect("read"), b"new!");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let half = |file: &mut File| file.write_all(b"half").and_then(|()| Err(io::Error::other("full")));
        fs::write(&path, b"old").expect("made");
        assert_eq!(replace(&path, half).expect_err("refused").to_string(), "full");
        assert_eq!(replace_unsynced(&path, half).expect_err("refused").to_string(), "full");
        assert_eq!(fs::read(&path).expect("read"), b"old");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_name_can_be_chosen_by_the_content() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let named = replace_named(dir.path(), |file| file.write_all(b"x").map(|()| "chosen".into()));
        named.expect("made");
        assert_eq!(fs::read(dir.path().join("chosen")).expect("read"), b"x");
        assert_eq!(names(dir.path()), ["chosen"]);
    }

    #[test]
    fn what_cannot_be_a_file_is_refused() {
        for replace in BOTH {
            assert_eq!(replace(Path::new("/"), b"").expect_err("refused").kind(), io::ErrorKind::InvalidInput);
            assert!(replace(Path::new("/no/such/directory/file"), b"").is_err());
        }
    }
}
