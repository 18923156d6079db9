//! One change that the server is still to be told of.

use serde::{Deserialize, Serialize};

use crate::attr::{Area, Version};
use crate::path::RemotePath;

/// Number of an operation: in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// Number of a spool file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpoolId(pub u64);

/// What the server must have at a path for a change to be made there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    Absent,
    Version(Version),
    /// Whatever this earlier operation leaves there.
    After(OpId),
    /// The operation before it failed: nobody knows.
    Unknown,
    /// We have begun to write over it: whatever is there is ours to finish.
    Ours,
}

impl Expected {
    /// The version, if it is one that is expected.
    pub fn version(self) -> Option<Version> {
        match self {
            Expected::Version(version) => Some(version),
            _ => None,
        }
    }
}

impl From<Option<Version>> for Expected {
    fn from(version: Option<Version>) -> Self {
        version.map_or(Expected::Absent, Expected::Version)
    }
}

/// The new content of a file: a sealed spool, and attributes that travel with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub spool: SpoolId,
    /// Bytes.
    pub len: u64,
    /// CRC-32 of them: after a loss of power the disk may have less, or zeros.
    #[serde(default)]
    pub sum: Option<u32>,
    pub perm: u16,
    /// The permission bits were not changed here: those that the server has when the content arrives stay.
    #[serde(default)]
    pub keep_perm: bool,
    /// Seconds since the epoch.
    pub mtime: u32,
    pub base: Expected,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Put(Put),
    MakeDir {
        perm: u16,
    },
    Symlink {
        text: Vec<u8>,
    },
    Unlink {
        base: Expected,
        /// A regular file: one that is written anew under the same name takes its place.
        file: bool,
    },
    RemoveDir,
    Rename {
        to: RemotePath,
        /// What is moved.
        base: Expected,
        /// What it takes the place of.
        replaced: Expected,
        dir: bool,
    },
    SetAttr {
        perm: Option<u16>,
        /// atime and mtime, seconds.
        times: Option<(u32, u32)>,
        link: bool,
    },
}

/// See the module header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    pub area: Area,
    pub path: RemotePath,
    pub action: Action,
    /// The number of the object in the present mount; 0 where it has none.
    #[serde(skip)]
    pub ino: u64,
    /// When it was made, seconds since the epoch.
    pub at: u64,
}

impl Op {
    /// Every path that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &RemotePath> {
        let second = match &self.action {
            Action::Rename { to, .. } => Some(to),
            _ => None,
        };
        std::iter::once(&self.path).chain(second)
    }

    /// Whether what is below its paths is changed, too.
    pub fn reaches_below(&self) -> bool {
        match &self.action {
            Action::Put(_) | Action::Symlink { .. } | Action::Unlink { .. } => false,
            Action::Rename { dir, .. } => *dir,
            Action::MakeDir { .. } | Action::RemoveDir | Action::SetAttr { .. } => true,
        }
    }

    /// Whether it makes the directory, or moves it there: what is in it since then was not there before.
    pub(super) fn brings(&self, dir: &RemotePath) -> bool {
        match &self.action {
            Action::MakeDir { .. } => self.path == *dir,
            Action::Rename { to, .. } => to == dir,
            _ => false,
        }
    }

    /// It leaves the content and its version as they are.
    pub(super) fn is_chmod(&self) -> bool {
        matches!(self.action, Action::SetAttr { times: None, .. })
    }

    pub fn spool(&self) -> Option<SpoolId> {
        match &self.action {
            Action::Put(put) => Some(put.spool),
            _ => None,
        }
    }

    /// In a few words, for people.
    pub fn describe(&self) -> String {
        let path = &self.path;
        match &self.action {
            Action::Put(put) => format!("save {path} ({} bytes)", put.len),
            Action::MakeDir { .. } => format!("mkdir {path}"),
            Action::Symlink { .. } => format!("symlink {path}"),
            Action::Unlink { .. } => format!("remove {path}"),
            Action::RemoveDir => format!("rmdir {path}"),
            Action::Rename { to, .. } => format!("rename {path} to {to}"),
            Action::SetAttr { .. } => format!("attributes of {path}"),
        }
    }

    /// Every expectation, with the path that it is about.
    pub(super) fn expectations(&mut self) -> Vec<(RemotePath, &mut Expected)> {
        match &mut self.action {
            Action::Put(put) => vec![(self.path.clone(), &mut put.base)],
            Action::Unlink { base, .. } => vec![(self.path.clone(), base)],
            Action::Rename { to, base, replaced, .. } => vec![(self.path.clone(), base), (to.clone(), replaced)],
            Action::MakeDir { .. } | Action::Symlink { .. } | Action::RemoveDir | Action::SetAttr { .. } => Vec::new(),
        }
    }

    /// An earlier operation is over: what was expected of it is known.
    pub(super) fn settle(&mut self, id: OpId, left: Expected) {
        for (_, expected) in self.expectations() {
            if *expected == Expected::After(id) {
                *expected = left;
            }
        }
    }
}
