//! Requests to bytes and bytes to replies. Decoding is total: whatever comes, the result is a value or an error, and no
//! length that the server claims is believed before the bytes are there.

use super::SftpError;
use crate::attr::{Attr, FileKind};

/// Largest packet that is read (bytes). Servers send at most 256 KiB of data; the rest is room for odd ones.
pub(super) const MAX_PACKET_BYTES: usize = 1024 * 1024;
/// Protocol version that is spoken.
pub(super) const VERSION: u32 = 3;

const INIT: u8 = 1;
const VERSION_REPLY: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

const ATTR_SIZE: u32 = 1;
const ATTR_UIDGID: u32 = 2;
const ATTR_PERMISSIONS: u32 = 4;
const ATTR_ACMODTIME: u32 = 8;
const ATTR_EXTENDED: u32 = 0x8000_0000;

/// Flags of OPEN.
pub(crate) mod open {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const CREATE: u32 = 8;
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
    /// In OpenSSH's order of arguments, which nearly everybody follows: the text first, then the link.
    Symlink {
        text: Vec<u8>,
        link: Vec<u8>,
    },
    Extended {
        name: &'static str,
        payload: Vec<u8>,
    },
}

/// Attributes as they travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawAttrs {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub perm: Option<u32>,
    /// atime and mtime, seconds.
    pub times: Option<(u32, u32)>,
}

/// Status numbers of version 3, and what lies beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusCode {
    Ok,
    Eof,
    NoSuchFile,
    PermissionDenied,
    Failure,
    BadMessage,
    NoConnection,
    ConnectionLost,
    Unsupported,
    Other(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEntry {
    pub name: Vec<u8>,
    pub attrs: RawAttrs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status { code: StatusCode, message: String },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<NameEntry>),
    Attrs(RawAttrs),
    Extended(Vec<u8>),
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
            Self::Symlink { text, link } => {
                out.string(text);
                out.string(link);
            }
            Self::Extended { name, payload } => {
                out.string(name.as_bytes());
                out.0.extend_from_slice(payload);
            }
        }
        out.finish()
    }
}

/// Builds one packet.
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    fn new(number: u8) -> Self {
        Self(vec![0, 0, 0, 0, number])
    }

    /// A payload without the packet around it, for extensions.
    pub(super) fn payload() -> Self {
        Self(Vec::new())
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
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

    fn finish(mut self) -> Vec<u8> {
        let len = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

pub(super) fn encode_init() -> Vec<u8> {
    let mut out = Encoder::new(INIT);
    out.u32(VERSION);
    out.finish()
}

/// Reads values off the front of a packet.
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    fn short<T>(what: &str) -> Result<T, SftpError> {
        Err(SftpError::Protocol(format!("a packet ends inside {what}")))
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], SftpError> {
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

    fn attrs(&mut self) -> Result<RawAttrs, SftpError> {
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

/// Name and data of an extension that the server offers.
pub type Extension = (Vec<u8>, Vec<u8>);

/// The answer to INIT: version and extensions with their data.
pub fn decode_version(packet: &[u8]) -> Result<(u32, Vec<Extension>), SftpError> {
    let mut input = Decoder(packet);
    match input.take(1, "a packet")? {
        [VERSION_REPLY] => {}
        _ => return Err(SftpError::Protocol("the first packet is not a version".into())),
    }
    let version = input.u32("the version")?;
    let mut extensions = Vec::new();
    while !input.is_empty() {
        extensions.push((input.string("an extension")?.to_vec(), input.string("an extension")?.to_vec()));
    }
    Ok((version, extensions))
}

/// Any other packet: the request's number and the answer.
pub fn decode_reply(packet: &[u8]) -> Result<(u32, Reply), SftpError> {
    let mut input = Decoder(packet);
    let kind = input.take(1, "a packet")?.first().copied().unwrap_or(0);
    let id = input.u32("a request number")?;
    let reply = match kind {
        STATUS => {
            let code = StatusCode::from(input.u32("a status")?);
            // Old servers leave message and language out.
            let message = if input.is_empty() { &b""[..] } else { input.string("a message")? };
            Reply::Status { code, message: printable(message) }
        }
        HANDLE => Reply::Handle(input.string("a handle")?.to_vec()),
        DATA => Reply::Data(input.string("data")?.to_vec()),
        NAME => Reply::Names(decode_names(&mut input)?),
        ATTRS => Reply::Attrs(input.attrs()?),
        EXTENDED_REPLY => Reply::Extended(input.0.to_vec()),
        other => return Err(SftpError::Protocol(format!("packet type {other} is not an answer"))),
    };
    Ok((id, reply))
}

fn decode_names(input: &mut Decoder<'_>) -> Result<Vec<NameEntry>, SftpError> {
    let count = input.u32("a count of names")?;
    // Grows as entries really come: the claimed count reserves nothing.
    let mut names = Vec::new();
    for _ in 0..count {
        let name = input.string("a name")?.to_vec();
        input.string("a long name")?;
        names.push(NameEntry { name, attrs: input.attrs()? });
    }
    Ok(names)
}

/// Longest message of a server that is kept (characters).
const MAX_MESSAGE_CHARS: usize = 300;

fn printable(message: &[u8]) -> String {
    String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect()
}

impl From<u32> for StatusCode {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Eof,
            2 => Self::NoSuchFile,
            3 => Self::PermissionDenied,
            4 => Self::Failure,
            5 => Self::BadMessage,
            6 => Self::NoConnection,
            7 => Self::ConnectionLost,
            8 => Self::Unsupported,
            other => Self::Other(other),
        }
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

impl RawAttrs {
    /// Our attributes. A server that sends no permissions leaves the kind open: it is taken for a file. No size is larger
    /// than the kernel can say: it would refuse to show the object at all.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(id: u32, code: u32, message: &str) -> Vec<u8> {
        let mut out = Encoder::new(STATUS);
        out.u32(id);
        out.u32(code);
        out.string(message.as_bytes());
        out.string(b"en");
        out.finish()[4..].to_vec()
    }

    #[test]
    fn a_request_has_the_bytes_of_the_draft() {
        let request = Request::Open { path: b"a".to_vec(), flags: open::READ, perm: None };
        assert_eq!(request.encode(7), [0, 0, 0, 18, 3, 0, 0, 0, 7, 0, 0, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn replies_are_decoded() {
        let (id, reply) = decode_reply(&status(9, 3, "no\u{7} way")).expect("decodes");
        assert_eq!(id, 9);
        assert_eq!(reply, Reply::Status { code: StatusCode::PermissionDenied, message: "no way".into() });
        let attrs = RawAttrs { size: Some(5), perm: Some(S_IFDIR | 0o755), times: Some((1, 2)), owner: Some((3, 4)) };
        let mut out = Encoder::new(NAME);
        out.u32(1);
        out.u32(1);
        out.string(b"dir");
        out.string(b"drwxr-xr-x dir");
        out.attrs(&attrs);
        let (_, reply) = decode_reply(&out.finish()[4..]).expect("decodes");
        assert_eq!(reply, Reply::Names(vec![NameEntry { name: b"dir".to_vec(), attrs }]));
        assert!(attrs.to_attr().is_dir());
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let mut packet = vec![DATA, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert!(decode_reply(&packet).is_err());
        packet[0] = NAME;
        assert!(decode_reply(&packet).is_err());
        assert!(decode_version(&[VERSION_REPLY, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 100u8..106) {
            drop(decode_reply(&bytes));
            drop(decode_version(&bytes));
            let mut packet = vec![kind, 0, 0, 0, 1];
            packet.extend(&bytes);
            drop(decode_reply(&packet));
        }
    }
}
