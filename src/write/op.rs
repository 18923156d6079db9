//! One change that is still to be applied on the server.

use serde::{Deserialize, Serialize};

use crate::attr::{Area, Version};
use crate::path::RemotePath;

/// Number of an operation, in the order in which the operations were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// Number of a spool file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpoolId(pub u64);

/// The state that the server must have at a path before a change is applied there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    Absent,
    Version(Version),
    /// The state that this earlier operation leaves.
    After(OpId),
    /// Unknown, because the operation before it failed.
    Unknown,
    /// This mount has begun to overwrite it: any state is overwritten.
    Ours,
}

impl Expected {
    /// The version, if the expectation is a version.
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

/// The new content of a file: a sealed spool, and the attributes that are sent with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub spool: SpoolId,
    /// Bytes.
    pub len: u64,
    /// CRC-32 of the content. After a loss of power the spool may be shorter, or have zeros.
    #[serde(default)]
    pub sum: Option<u32>,
    pub perm: u16,
    /// The permission bits were not changed locally: the server's bits stay.
    #[serde(default)]
    pub keep_perm: bool,
    /// Seconds since the epoch.
    pub mtime: u32,
    pub base: Expected,
}

/// The kind of operation.
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
        /// Whether it is a regular file. If it is saved again under the same name, both operations are folded into
        /// one save.
        file: bool,
    },
    RemoveDir,
    Rename {
        to: RemotePath,
        /// The object that is renamed.
        base: Expected,
        /// The object that is replaced.
        replaced: Expected,
        dir: bool,
    },
    SetAttr {
        perm: Option<u16>,
        /// atime and mtime, seconds since the epoch.
        times: Option<(u32, u32)>,
        link: bool,
    },
}

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    pub area: Area,
    pub path: RemotePath,
    pub action: Action,
    /// The inode number of the object in this mount; 0 if it has none.
    #[serde(skip)]
    pub ino: u64,
    /// When the operation was recorded, seconds since the epoch.
    pub at: u64,
}

impl Op {
    /// All paths that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &RemotePath> {
        let second = match &self.action {
            Action::Rename { to, .. } => Some(to),
            _ => None,
        };
        std::iter::once(&self.path).chain(second)
    }

    /// The path at which its caller looks for the result.
    pub fn awaited(&self) -> &RemotePath {
        match &self.action {
            Action::Rename { to, .. } => to,
            _ => &self.path,
        }
    }

    /// Whether objects below its paths are affected, too.
    pub fn reaches_below(&self) -> bool {
        match &self.action {
            Action::Put(_) | Action::Symlink { .. } | Action::Unlink { .. } => false,
            Action::Rename { dir, .. } => *dir,
            Action::MakeDir { .. } | Action::RemoveDir | Action::SetAttr { .. } => true,
        }
    }

    /// Whether it creates the directory, or renames another one to this path: what is in it now was not there before.
    pub(super) fn brings(&self, dir: &RemotePath) -> bool {
        match &self.action {
            Action::MakeDir { .. } => self.path == *dir,
            Action::Rename { to, .. } => to == dir,
            _ => false,
        }
    }

    /// Whether it leaves the content and the version unchanged.
    pub(super) fn is_chmod(&self) -> bool {
        matches!(self.action, Action::SetAttr { times: None, .. })
    }

    pub fn spool(&self) -> Option<SpoolId> {
        match &self.action {
            Action::Put(put) => Some(put.spool),
            _ => None,
        }
    }

    /// A short description for logs and the status.
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

    /// All versions that it expects, each with its path.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&RemotePath, Version)> {
        let (first, second) = match &self.action {
            Action::Put(put) => (Some((&self.path, put.base)), None),
            Action::Unlink { base, .. } => (Some((&self.path, *base)), None),
            Action::Rename { to, base, replaced, .. } => (Some((&self.path, *base)), Some((to, *replaced))),
            Action::MakeDir { .. } | Action::Symlink { .. } | Action::RemoveDir | Action::SetAttr { .. } => {
                (None, None)
            }
        };
        first.into_iter().chain(second).filter_map(|(path, expected)| Some((path, expected.version()?)))
    }

    /// All expectations, each with its path.
    pub(super) fn expectations(&mut self) -> Vec<(RemotePath, &mut Expected)> {
        match &mut self.action {
            Action::Put(put) => vec![(self.path.clone(), &mut put.base)],
            Action::Unlink { base, .. } => vec![(self.path.clone(), base)],
            Action::Rename { to, base, replaced, .. } => vec![(self.path.clone(), base), (to.clone(), replaced)],
            Action::MakeDir { .. } | Action::Symlink { .. } | Action::RemoveDir | Action::SetAttr { .. } => Vec::new(),
        }
    }

    /// Replaces the expectation that depends on an earlier operation by the state that the operation left.
    pub(super) fn resolve_base(&mut self, id: OpId, left: Expected) {
        for (_, expected) in self.expectations() {
            if *expected == Expected::After(id) {
                *expected = left;
            }
        }
    }
}
