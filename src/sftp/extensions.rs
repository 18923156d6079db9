//! Extensions of version 3 that a server may offer. The program works without any of them.

use super::error::SftpError;
use super::request::Request;
use super::wire::{Decoder, Encoder, RawAttrs};

/// Extensions that were found in the server's version packet, and limits that it told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub posix_rename: bool,
    pub fsync: bool,
    pub statvfs: bool,
    pub hardlink: bool,
    pub lsetstat: bool,
    pub limits: bool,
    /// Copies from one open file to another on the server.
    pub copy_data: bool,
    /// Largest read and write, bytes; 0 when not told.
    pub max_read_bytes: u32,
    pub max_write_bytes: u32,
    /// Handles that may be open at once; 0 when not told.
    pub max_open_handles: u32,
}

/// Figures of a file system, as `statvfs@openssh.com` sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatVfs {
    pub frsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub namemax: u64,
}

impl Capabilities {
    pub(super) fn from_extensions(extensions: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let has = |name: &str| extensions.iter().any(|(n, _)| n == name.as_bytes());
        Self {
            posix_rename: has("posix-rename@openssh.com"),
            fsync: has("fsync@openssh.com"),
            statvfs: has("statvfs@openssh.com"),
            hardlink: has("hardlink@openssh.com"),
            lsetstat: has("lsetstat@openssh.com"),
            limits: has("limits@openssh.com"),
            copy_data: has("copy-data"),
            ..Self::default()
        }
    }

    /// Takes over the answer to `limits@openssh.com`.
    pub fn with_limits(mut self, reply: &[u8]) -> Result<Self, SftpError> {
        let mut input = Decoder::new(reply);
        let mut next = || input.u64("limits").map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let _packet = next()?;
        self.max_read_bytes = next()?;
        self.max_write_bytes = next()?;
        self.max_open_handles = next()?;
        Ok(self)
    }

    /// The extensions by name, for doctor and status.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.posix_rename, "posix-rename"),
            (self.fsync, "fsync"),
            (self.statvfs, "statvfs"),
            (self.hardlink, "hardlink"),
            (self.lsetstat, "lsetstat"),
            (self.limits, "limits"),
            (self.copy_data, "copy-data"),
        ];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }
}

impl Request {
    pub(crate) fn posix_rename(from: &[u8], to: &[u8]) -> Self {
        let mut payload = Encoder::payload();
        payload.string(from);
        payload.string(to);
        Self::Extended { name: "posix-rename@openssh.com", payload: payload.into_bytes() }
    }

    pub(crate) fn hardlink(existing: &[u8], new: &[u8]) -> Self {
        let mut payload = Encoder::payload();
        payload.string(existing);
        payload.string(new);
        Self::Extended { name: "hardlink@openssh.com", payload: payload.into_bytes() }
    }

    pub(crate) fn statvfs(path: &[u8]) -> Self {
        let mut payload = Encoder::payload();
        payload.string(path);
        Self::Extended { name: "statvfs@openssh.com", payload: payload.into_bytes() }
    }

    pub(crate) fn lsetstat(path: &[u8], attrs: &RawAttrs) -> Self {
        let mut payload = Encoder::payload();
        payload.string(path);
        payload.attrs(attrs);
        Self::Extended { name: "lsetstat@openssh.com", payload: payload.into_bytes() }
    }

    /// `len` bytes of an open file from an offset to an offset of another one.
    pub(crate) fn copy_data((from, offset): (&[u8], u64), len: u64, (to, at): (&[u8], u64)) -> Self {
        let mut payload = Encoder::payload();
        payload.string(from);
        payload.u64(offset);
        payload.u64(len);
        payload.string(to);
        payload.u64(at);
        Self::Extended { name: "copy-data", payload: payload.into_bytes() }
    }

    pub(crate) fn limits() -> Self {
        Self::Extended { name: "limits@openssh.com", payload: Vec::new() }
    }
}

/// Decodes the answer to `Request::statvfs`.
pub fn decode_statvfs(reply: &[u8]) -> Result<StatVfs, SftpError> {
    let mut input = Decoder::new(reply);
    let mut next = || input.u64("statvfs");
    let _bsize = next()?;
    let (frsize, blocks, bfree, bavail) = (next()?, next()?, next()?, next()?);
    let (files, ffree, _favail, _fsid, _flag) = (next()?, next()?, next()?, next()?, next()?);
    Ok(StatVfs { frsize, blocks, bfree, bavail, files, ffree, namemax: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_extensions_are_decoded() {
        let words = |n: u64| (1..=n).flat_map(u64::to_be_bytes).collect::<Vec<u8>>();
        let limits = Capabilities::default().with_limits(&words(4)).expect("decodes");
        assert_eq!((limits.max_read_bytes, limits.max_write_bytes, limits.max_open_handles), (2, 3, 4));
        assert!(Capabilities::default().with_limits(&words(3)).is_err());
        let stat = decode_statvfs(&words(11)).expect("decodes");
        assert_eq!((stat.frsize, stat.blocks, stat.namemax), (2, 3, 11));
        assert!(decode_statvfs(&words(10)).is_err());
    }
}
