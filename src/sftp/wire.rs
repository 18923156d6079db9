//! Values as they travel: building and reading packets, and file attributes. Reading is total: no length that the server
//! claims is believed before the bytes are there.

use super::error::SftpError;
use crate::attr::{Attr, FileKind};

const ATTR_SIZE: u32 = 1;
const ATTR_UIDGID: u32 = 2;
const ATTR_PERMISSIONS: u32 = 4;
const ATTR_ACMODTIME: u32 = 8;
const ATTR_EXTENDED: u32 = 0x8000_0000;

/// Attributes as they travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawAttrs {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub perm: Option<u32>,
    /// atime and mtime, seconds.
    pub times: Option<(u32, u32)>,
}

/// Builds one packet.
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn new(number: u8) -> Self {
        Self(vec![0, 0, 0, 0, number])
    }

    /// A payload without the packet around it, for extensions.
    pub(super) fn payload() -> Self {
        Self(Vec::new())
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends what is encoded already.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn string(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn attrs(&mut self, attrs: &RawAttrs) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        self.u32(
            flag(attrs.size.is_some(), ATTR_SIZE)
                | flag(attrs.owner.is_some(), ATTR_UIDGID)
                | flag(attrs.perm.is_some(), ATTR_PERMISSIONS)
                | flag(attrs.times.is_some(), ATTR_ACMODTIME),
        );
        attrs.size.into_iter().for_each(|size| self.u64(size));
        attrs.owner.into_iter().chain(None).for_each(|(uid, gid)| {
            self.u32(uid);
            self.u32(gid);
        });
        attrs.perm.into_iter().for_each(|perm| self.u32(perm));
        attrs.times.into_iter().for_each(|(atime, mtime)| {
            self.u32(atime);
            self.u32(mtime);
        });
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads values off the front of a packet.
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn short<T>(what: &str) -> Result<T, SftpError> {
        Err(SftpError::Protocol(format!("a packet ends inside {what}")))
    }

    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], SftpError> {
        if len > self.0.len() {
            return Self::short(what);
        }
        let (head, tail) = self.0.split_at(len);
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, SftpError> {
        let bytes = self.take(4, what)?;
        bytes.try_into().map(u32::from_be_bytes).or_else(|_| Self::short(what))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, SftpError> {
        let bytes = self.take(8, what)?;
        bytes.try_into().map(u64::from_be_bytes).or_else(|_| Self::short(what))
    }

    pub(super) fn string(&mut self, what: &str) -> Result<&'a [u8], SftpError> {
        let len = self.u32(what)? as usize;
        self.take(len, what)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn attrs(&mut self) -> Result<RawAttrs, SftpError> {
        let flags = self.u32("attributes")?;
        let mut attrs = RawAttrs::default();
        if flags & ATTR_SIZE != 0 {
            attrs.size = Some(self.u64("a size")?);
        }
        if flags & ATTR_UIDGID != 0 {
            attrs.owner = Some((self.u32("an owner")?, self.u32("a group")?));
        }
        if flags & ATTR_PERMISSIONS != 0 {
            attrs.perm = Some(self.u32("permissions")?);
        }
        if flags & ATTR_ACMODTIME != 0 {
            attrs.times = Some((self.u32("a time")?, self.u32("a time")?));
        }
        if flags & ATTR_EXTENDED != 0 {
            for _ in 0..self.u32("extended attributes")? {
                self.string("an extended attribute")?;
                self.string("an extended attribute")?;
            }
        }
        Ok(attrs)
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

impl RawAttrs {
    /// As the rest of the program has them. Without permissions the kind is unknown, and the object is taken for a file. The
    /// size is at most what the kernel can represent: it would refuse to show the object otherwise.
    pub fn to_attr(&self) -> Attr {
        let mode = self.perm.unwrap_or(S_IFREG | 0o644);
        let kind = match mode & S_IFMT {
            S_IFDIR => FileKind::Directory,
            S_IFLNK => FileKind::Symlink,
            S_IFREG | 0 => FileKind::File,
            _ => FileKind::Other,
        };
        let (atime, mtime) = self.times.unwrap_or((0, 0));
        Attr { kind, size: self.size.unwrap_or(0).min(i64::MAX as u64), perm: (mode & 0o7777) as u16, mtime, atime }
    }
}
