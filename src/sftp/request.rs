//! Requests, and their bytes.

use super::wire::{Encoder, RawAttrs};

/// Protocol version that is spoken.
pub(super) const VERSION: u32 = 3;

const INIT: u8 = 1;

/// Flags of OPEN.
pub(crate) mod open {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 16;
    pub(crate) const EXCLUSIVE: u32 = 32;
}

/// A request, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Open {
        path: Vec<u8>,
        flags: u32,
        perm: Option<u32>,
    },
    Close {
        handle: Vec<u8>,
    },
    Read {
        handle: Vec<u8>,
        offset: u64,
        len: u32,
    },
    Write {
        handle: Vec<u8>,
        offset: u64,
        data: Vec<u8>,
    },
    Lstat {
        path: Vec<u8>,
    },
    Fstat {
        handle: Vec<u8>,
    },
    SetStat {
        path: Vec<u8>,
        attrs: RawAttrs,
    },
    FsetStat {
        handle: Vec<u8>,
        attrs: RawAttrs,
    },
    OpenDir {
        path: Vec<u8>,
    },
    ReadDir {
        handle: Vec<u8>,
    },
    Remove {
        path: Vec<u8>,
    },
    MkDir {
        path: Vec<u8>,
        perm: u32,
    },
    RmDir {
        path: Vec<u8>,
    },
    RealPath {
        path: Vec<u8>,
    },
    Stat {
        path: Vec<u8>,
    },
    Rename {
        from: Vec<u8>,
        to: Vec<u8>,
    },
    ReadLink {
        path: Vec<u8>,
    },
    Symlink {
        text: Vec<u8>,
        link: Vec<u8>,
        /// The order of the arguments: the link first, as the draft says; otherwise the text first, as OpenSSH does it,
        /// which nearly all servers follow.
        link_first: bool,
    },
    Extended {
        name: &'static str,
        payload: Vec<u8>,
    },
}

impl Request {
    fn number(&self) -> u8 {
        match self {
            Self::Open { .. } => 3,
            Self::Close { .. } => 4,
            Self::Read { .. } => 5,
            Self::Write { .. } => 6,
            Self::Lstat { .. } => 7,
            Self::Fstat { .. } => 8,
            Self::SetStat { .. } => 9,
            Self::FsetStat { .. } => 10,
            Self::OpenDir { .. } => 11,
            Self::ReadDir { .. } => 12,
            Self::Remove { .. } => 13,
            Self::MkDir { .. } => 14,
            Self::RmDir { .. } => 15,
            Self::RealPath { .. } => 16,
            Self::Stat { .. } => 17,
            Self::Rename { .. } => 18,
            Self::ReadLink { .. } => 19,
            Self::Symlink { .. } => 20,
            Self::Extended { .. } => 200,
        }
    }

    /// Bytes of file content that the request or its answer carries: what fills the link.
    pub fn bulk_bytes(&self) -> u64 {
        match self {
            Self::Read { len, .. } => u64::from(*len),
            Self::Write { data, .. } => data.len() as u64,
            _ => 0,
        }
    }

    /// The packet, length included.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        let mut out = Encoder::new(self.number());
        out.u32(id);
        match self {
            Self::Open { path, flags, perm } => {
                out.string(path);
                out.u32(*flags);
                out.attrs(&RawAttrs { perm: *perm, ..RawAttrs::default() });
            }
            Self::Close { handle } | Self::Fstat { handle } | Self::ReadDir { handle } => out.string(handle),
            Self::Read { handle, offset, len } => {
                out.string(handle);
                out.u64(*offset);
                out.u32(*len);
            }
            Self::Write { handle, offset, data } => {
                out.string(handle);
                out.u64(*offset);
                out.string(data);
            }
            Self::SetStat { path: at, attrs } | Self::FsetStat { handle: at, attrs } => {
                out.string(at);
                out.attrs(attrs);
            }
            Self::MkDir { path, perm } => {
                out.string(path);
                out.attrs(&RawAttrs { perm: Some(*perm), ..RawAttrs::default() });
            }
            Self::Lstat { path }
            | Self::OpenDir { path }
            | Self::Remove { path }
            | Self::RmDir { path }
            | Self::RealPath { path }
            | Self::Stat { path }
            | Self::ReadLink { path } => out.string(path),
            Self::Rename { from, to } => {
                out.string(from);
                out.string(to);
            }
            Self::Symlink { text, link, link_first } => {
                let (first, second) = if *link_first { (link, text) } else { (text, link) };
                out.string(first);
                out.string(second);
            }
            Self::Extended { name, payload } => {
                out.string(name.as_bytes());
                out.raw(payload);
            }
        }
        out.finish()
    }
}

/// The first packet of a connection.
pub(super) fn encode_init() -> Vec<u8> {
    let mut out = Encoder::new(INIT);
    out.u32(VERSION);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_of_the_draft() {
        let request = Request::Open { path: b"a".to_vec(), flags: open::READ, perm: None };
        assert_eq!(request.encode(7), [0, 0, 0, 18, 3, 0, 0, 0, 7, 0, 0, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
