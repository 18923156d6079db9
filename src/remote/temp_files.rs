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
    in_use: Mutex<HashMap<RemotePath, Use>>,
    /// Second names of files, and what for, until it is known which version has them.
    second: Mutex<HashMap<RemotePath, Kept>>,
}

#[derive(Clone, Copy)]
struct Use {
    /// Of the session that made it.
    epoch: u64,
    /// A call is writing or moving it. An older session goes on with its calls while the next one takes over.
    held: bool,
}

/// A temporary file; forgotten when it was moved or removed.
pub(super) struct TempFile<'a> {
    files: &'a TempFiles,
    pub(super) path: RemotePath,
}

impl TempFiles {
    pub(super) fn new(prefix: &str) -> Self {
        Self { start: format!("{START}{prefix}-"), in_use: Mutex::default(), second: Mutex::default() }
    }

    /// A name in `dir` that cannot be guessed and is not taken.
    pub(super) fn make(&self, dir: &RemotePath, epoch: u64) -> Result<TempFile<'_>, ErrorKind> {
        let path = dir.join(&self.random_name().map_err(ErrorKind::Local)?);
        self.in_use.lock().insert(path.clone(), Use { epoch, held: true });
        Ok(TempFile { files: self, path })
    }

    /// What sessions before this one left, whose calls have ended. Second names stay: it may be another writer's file that has one.
    pub(super) fn take_left(&self, epoch: u64) -> Vec<RemotePath> {
        let second = self.second.lock();
        let is_left = |path: &RemotePath, of: &mut Use| of.epoch < epoch && !of.held && !second.contains_key(path);
        self.in_use.lock().extract_if(is_left).map(|(path, _)| path).collect()
    }

    /// Second names of the file at this path of which it is not known which version has them.
    pub(super) fn second_names_of(&self, path: &RemotePath) -> Vec<(RemotePath, Kept)> {
        let second = self.second.lock();
        second.iter().filter(|(_, kept)| kept.path == *path).map(|(link, kept)| (link.clone(), kept.clone())).collect()
    }

    /// It was moved or removed.
    pub(super) fn forget(&self, path: &RemotePath) {
        self.second.lock().remove(path);
        self.in_use.lock().remove(path);
    }

    /// Whether an earlier mount of this machine and source left this file.
    pub(super) fn is_left(&self, dir: &RemotePath, name: &Name) -> bool {
        name.as_bytes().starts_with(self.start.as_bytes()) && !self.in_use.lock().contains_key(&dir.join(name))
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
    /// The call has ended. If it could not say what became of the file, a later session removes it.
    fn drop(&mut self) {
        if let Some(of) = self.files.in_use.lock().get_mut(&self.path) {
            of.held = false;
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
        let name = first.path.file_name().expect("a name");
        assert!(!files.is_left(&dir, &name), "in use");
        assert!(files.take_left(2).is_empty(), "the session of the first is replaced, and its call goes on");
        let path = first.path.clone();
        drop(first);
        assert_eq!(files.take_left(2), [path]);
        assert!(files.is_left(&dir, &name));
        second.forget();
        assert!(files.take_left(9).is_empty());
        assert!(!files.is_left(&dir, &Name::new(".pantheonfs-other-00").expect("valid")));
    }
}
