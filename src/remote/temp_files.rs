//! Temporary files on the server: their names, and which of them a lost session left.
//!
//! A name tells which machine and source it belongs to: the next mount finds what this one left, and never takes a file that
//! another machine is writing.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::error::ErrorKind;
use super::second_name::Kept;
use crate::path::{Name, RemotePath};

/// How the name of every temporary file begins.
const START: &str = ".pantheonfs-";

/// The temporary files of a mount.
pub(super) struct TempFiles {
    /// How the names of this machine and source begin.
    start: String,
    /// Those that may exist.
    made: Mutex<HashMap<RemotePath, Made>>,
    /// Second names of files, and what for, until it is known which version has them.
    second: Mutex<HashMap<RemotePath, Kept>>,
}

struct Made {
    /// The epoch of the session.
    epoch: u64,
    /// An attempt is still working with it: a session that is replaced ends its calls.
    in_use: bool,
}

/// A temporary file of a running attempt; forgotten when it was moved or removed.
pub(super) struct TempFile<'a> {
    files: &'a TempFiles,
    pub(super) path: RemotePath,
}

impl TempFiles {
    pub(super) fn new(prefix: &str) -> Self {
        Self { start: format!("{START}{prefix}-"), made: Mutex::default(), second: Mutex::default() }
    }

    /// A name in `dir` that cannot be guessed and is not taken.
    pub(super) fn make(&self, dir: &RemotePath, epoch: u64) -> Result<TempFile<'_>, ErrorKind> {
        let path = dir.join(&self.random_name().map_err(ErrorKind::Local)?);
        self.made.lock().insert(path.clone(), Made { epoch, in_use: true });
        Ok(TempFile { files: self, path })
    }

    /// What attempts that lost their session, one before this, left. Second names stay: it may be another writer's file that has one.
    pub(super) fn take_left(&self, epoch: u64) -> Vec<RemotePath> {
        let second = self.second.lock();
        let is_left =
            |path: &RemotePath, made: &mut Made| !made.in_use && made.epoch < epoch && !second.contains_key(path);
        self.made.lock().extract_if(is_left).map(|(path, _)| path).collect()
    }

    /// Second names of the file at this path of which it is not known which version has them.
    pub(super) fn second_names_of(&self, path: &RemotePath) -> Vec<(RemotePath, Kept)> {
        let second = self.second.lock();
        second.iter().filter(|(_, kept)| kept.path == *path).map(|(link, kept)| (link.clone(), kept.clone())).collect()
    }

    /// It was moved or removed.
    pub(super) fn forget(&self, path: &RemotePath) {
        self.second.lock().remove(path);
        self.made.lock().remove(path);
    }

    /// Whether an earlier mount of this machine and source left this file.
    pub(super) fn is_left(&self, dir: &RemotePath, name: &Name) -> bool {
        name.as_bytes().starts_with(self.start.as_bytes()) && !self.made.lock().contains_key(&dir.join(name))
    }

    fn random_name(&self) -> Result<Name, std::io::Error> {
        let mut random = [0; 12];
        let mut at = 0;
        while at < random.len() {
            at += rustix::rand::getrandom(&mut random[at..], rustix::rand::GetRandomFlags::empty())?;
        }
        let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
        Name::new(format!("{}{hex}", self.start)).map_err(std::io::Error::other)
    }
}

impl TempFile<'_> {
    /// It is a second name from now on.
    pub(super) fn keeps(&self, kept: Kept) {
        self.files.second.lock().insert(self.path.clone(), kept);
    }

    /// It was moved or removed.
    pub(super) fn forget(&self) {
        self.files.forget(&self.path);
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if let Some(made) = self.files.made.lock().get_mut(&self.path) {
            made.in_use = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ended_sessions_are_left() {
        let (files, dir) = (TempFiles::new("m"), RemotePath::root());
        let first = files.make(&dir, 1).expect("a name");
        let second = files.make(&dir, 2).expect("a name");
        let path = first.path.clone();
        let name = path.file_name().expect("a name");
        assert!(!files.is_left(&dir, &name), "in use");
        assert!(files.take_left(2).is_empty(), "its attempt goes on beside the session that replaces its own");
        drop(first);
        assert_eq!(files.take_left(2), [path]);
        assert!(files.is_left(&dir, &name));
        second.forget();
        assert!(files.take_left(9).is_empty());
        assert!(!files.is_left(&dir, &Name::new(".pantheonfs-other-00").expect("valid")));
    }
}
