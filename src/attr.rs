//! The types that every room shares: attributes, versions, content identities, areas. They only convert values.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::RemotePath;

/// What kind of object a name leads to. Everything else (sockets, devices) is shown as [`FileKind::Other`] and cannot
/// be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// Attributes of one object. SFTP v3 has no ctime, no link count and no sub-second times, and none are made up here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub perm: u16,
    /// Seconds since the epoch, as the server reports them (unsigned 32 bits on the wire).
    pub mtime: u32,
    /// Seconds since the epoch.
    pub atime: u32,
}

impl Attr {
    pub fn version(&self) -> Version {
        Version { size: self.size, mtime: self.mtime }
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }
}

/// Converts seconds since the epoch.
pub fn time_from_secs(secs: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::from(secs))
}

/// Converts to seconds since the epoch, clamped to 32 unsigned bits: before 1970 is 0, after 2106 is the maximum.
pub fn secs_from_time(time: SystemTime) -> u32 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX))
}

/// Size and mtime as the server reports them. Over SFTP only these tell whether the content of a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    pub size: u64,
    pub mtime: u32,
}

/// Times in SFTP have a resolution of one second. Within this age (seconds) the content may change without a change
/// of the version, so that nothing must be remembered about such a version (git's index calls it racy).
const RACY_SECS: u32 = 2;

impl Version {
    /// Whether the content may still change without a change of the version. `server_secs`: a time that the server's clock
    /// has certainly passed (seconds since the epoch), see `Clock::server_floor`.
    pub fn is_racy(self, server_secs: u32) -> bool {
        server_secs <= self.mtime.saturating_add(RACY_SECS)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, mtime {}", self.size, self.mtime)
    }
}

/// A git blob's SHA-1; as text 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(pub [u8; 20]);

impl BlobId {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |i: usize| text.get(2 * i..2 * i + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let bytes: Option<Vec<u8>> = (0..20).map(digits).collect();
        bytes.filter(|_| text.len() == 40).and_then(|bytes| bytes.try_into().ok()).map(Self)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 40 hexadecimal digits"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// The key of cached blocks: content that cannot change under this key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// Content that is proved to be equal to a git object.
    Blob(BlobId),
    /// Content of this path at this version, as read over SFTP, in this generation of the path.
    Remote(RemotePath, Version, u64),
}

/// The parts of an environment that have different rules for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The git work tree: writable in SFTP mode on Dev and multidevs only.
    Code,
    /// The uploads: writable in every mode and environment.
    Uploads,
    /// `logs/`: read-only.
    Logs,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Code => "code",
            Area::Uploads => "files",
            Area::Logs => "logs",
        })
    }
}
