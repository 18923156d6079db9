//! The index of a mount's git directory: made from the committed tree without reading any content, and moved along when
//! the environment runs another commit.

use std::fs;
use std::io;

use git2::{Index, IndexEntry, IndexTime, Oid};

use super::git_dir::GitDir;
use super::{Committed, MirrorError};
use crate::path::RemotePath;

/// Length of a path from which the index stores it otherwise.
const MAX_FLAG_LEN: usize = 0xfff;

impl GitDir {
    /// Makes the index of the commit. `seen` tells the modification time of a file in the mount that is proved to have the
    /// committed content: git believes these without reading them, and compares all others.
    ///
    /// # Errors
    ///
    /// The commit is not on this machine, or the local disk fails.
    pub fn first_index(
        &self,
        commit: &str,
        seen: impl Fn(&RemotePath, &Committed) -> Option<u32>,
    ) -> Result<(), MirrorError> {
        let new = self.dir().join("index.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut index = Index::open(&new)?;
        for (path, file) in self.mirror().tree(commit)?.iter() {
            index.add(&entry(path, file, seen(path, file))?)?;
        }
        index.write()?;
        Ok(fs::rename(&new, self.dir().join("index"))?)
    }

    /// Moves the branch of the environment, and HEAD and the index with it if HEAD is on the branch, to the commit that
    /// runs. What the user has staged stays staged where the commits agree on it.
    ///
    /// # Errors
    ///
    /// The commit is not on this machine, or git refuses: another git holds its lock.
    pub fn follow(&self, branch: Option<&str>, commit: &str) -> Result<(), MirrorError> {
        self.take_refs()?;
        let head = fs::read_to_string(self.dir().join("HEAD"))?;
        let reference = branch.map(|branch| format!("refs/heads/{branch}"));
        let on_it = match &reference {
            Some(reference) => head.trim() == format!("ref: {reference}"),
            // A tag is run: HEAD is detached, unless the user has made a branch.
            None => !head.starts_with("ref: ") || self.resolve("HEAD").is_none(),
        };
        let name = reference.as_deref().unwrap_or("HEAD");
        let before = self.resolve(name);
        if before == Oid::from_str(commit).ok() {
            return Ok(());
        }
        if on_it && self.is_complete() {
            let before = before.map(|oid| oid.to_string());
            let merged = before.is_some_and(|before| self.git(&["read-tree", "-i", "-m", &before, commit]).is_ok());
            if !merged {
                self.git(&["read-tree", commit])?;
            }
        }
        let reason = "pantheonfs: the environment runs this commit";
        match &reference {
            Some(reference) => self.git(&["update-ref", "-m", reason, reference, commit]),
            None if on_it => self.git(&["update-ref", "--no-deref", "-m", reason, "HEAD", commit]),
            None => Ok(()),
        }
    }
}

/// An entry of the index. Without a time git compares the content.
fn entry(path: &RemotePath, file: &Committed, mtime: Option<u32>) -> Result<IndexEntry, MirrorError> {
    let seconds = mtime.map_or(0, |at| i32::from_ne_bytes(at.to_ne_bytes()));
    Ok(IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(seconds, 0),
        dev: 0,
        ino: 0,
        mode: file.mode,
        uid: 0,
        gid: 0,
        // The index has 32 bits for a size.
        file_size: if mtime.is_some() { (file.size & u64::from(u32::MAX)) as u32 } else { 0 },
        id: Oid::from_bytes(&file.blob.0)?,
        flags: u16::try_from(path.as_bytes().len().min(MAX_FLAG_LEN)).unwrap_or(u16::MAX),
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    })
}
