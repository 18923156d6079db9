//! Replies from their bytes. Decoding is total: whatever comes, the result is a value or an error.

use super::error::SftpError;
use super::wire::{Decoder, RawAttrs};

const VERSION_REPLY: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

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

/// Name and data of an extension that the server offers.
pub type Extension = (Vec<u8>, Vec<u8>);

/// The answer to INIT: version and extensions with their data.
pub fn decode_version(packet: &[u8]) -> Result<(u32, Vec<Extension>), SftpError> {
    let mut input = Decoder::new(packet);
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
    let mut input = Decoder::new(packet);
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
        EXTENDED_REPLY => Reply::Extended(input.rest().to_vec()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::wire::Encoder;
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
    fn replies_are_decoded() {
        let (id, reply) = decode_reply(&status(9, 3, "no\u{7} way")).expect("decodes");
        assert_eq!(id, 9);
        assert_eq!(reply, Reply::Status { code: StatusCode::PermissionDenied, message: "no way".into() });
        let attrs = RawAttrs { size: Some(5), perm: Some(0o040_755), times: Some((1, 2)), owner: Some((3, 4)) };
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
