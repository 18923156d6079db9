//! The SFTP decoder: packets of a server, one at a time.

use pantheonfs::sftp::{Capabilities, RawAttrs, Reply, StatusCode, decode_reply, decode_statvfs, decode_version};

use super::driver::Target;
use super::{as_it_is, must, proportional};

#[test]
fn replies() {
    Target { name: "replies", cases: 4096, seal: as_it_is, check, budget: proportional }.run();
}

/// The reply types of version 3 and the extended one.
const KINDS: [u8; 6] = [101, 102, 103, 104, 105, 201];

fn check(bytes: &[u8]) -> Result<(), String> {
    decoded(bytes)?;
    // What is an answer of one kind is nonsense as another.
    if let Some(rest) = bytes.get(1..) {
        for kind in KINDS {
            decoded(&[&[kind], rest].concat())?;
        }
    }
    if let Ok((_, extensions)) = decode_version(bytes) {
        let total: usize = extensions.iter().map(|(name, data)| name.len() + data.len()).sum();
        must(total <= bytes.len(), "extensions are longer than their packet")?;
    }
    drop(decode_statvfs(bytes));
    drop(Capabilities::default().with_limits(bytes));
    Ok(())
}

/// What was understood says the same when it is said again.
fn decoded(packet: &[u8]) -> Result<(), String> {
    let Ok((id, reply)) = decode_reply(packet) else { return Ok(()) };
    let again = decode_reply(&encode(id, &reply)).map_err(|error| format!("{reply:?}: {error}"))?;
    must(again == (id, reply), "another reply after a round trip")
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn attributes(out: &mut Vec<u8>, attrs: &RawAttrs) {
    let flag = |there: bool, bit: u32| if there { bit } else { 0 };
    let flags = flag(attrs.size.is_some(), 1)
        | flag(attrs.owner.is_some(), 2)
        | flag(attrs.perm.is_some(), 4)
        | flag(attrs.times.is_some(), 8);
    out.extend(flags.to_be_bytes());
    out.extend(attrs.size.map(u64::to_be_bytes).into_iter().flatten());
    let words = attrs.owner.map(|(a, b)| [a, b]).into_iter().flatten().chain(attrs.perm);
    let words = words.chain(attrs.times.map(|(a, b)| [a, b]).into_iter().flatten());
    words.for_each(|word| out.extend(word.to_be_bytes()));
}

fn number(code: StatusCode) -> u32 {
    use StatusCode as S;
    match code {
        S::Ok => 0,
        S::Eof => 1,
        S::NoSuchFile => 2,
        S::PermissionDenied => 3,
        S::Failure => 4,
        S::BadMessage => 5,
        S::NoConnection => 6,
        S::ConnectionLost => 7,
        S::Unsupported => 8,
        S::Other(other) => other,
    }
}

/// A reply as a server would send it, without the length in front.
pub fn encode(id: u32, reply: &Reply) -> Vec<u8> {
    let kind = match reply {
        Reply::Status { .. } => 101,
        Reply::Handle(_) => 102,
        Reply::Data(_) => 103,
        Reply::Names(_) => 104,
        Reply::Attrs(_) => 105,
        Reply::Extended(_) => 201,
    };
    let mut out = vec![kind];
    out.extend(id.to_be_bytes());
    match reply {
        Reply::Status { code, message } => {
            out.extend(number(*code).to_be_bytes());
            text(&mut out, message.as_bytes());
        }
        Reply::Handle(bytes) | Reply::Data(bytes) => text(&mut out, bytes),
        Reply::Names(names) => {
            out.extend((names.len() as u32).to_be_bytes());
            for entry in names {
                text(&mut out, &entry.name);
                text(&mut out, b"");
                attributes(&mut out, &entry.attrs);
            }
        }
        Reply::Attrs(attrs) => attributes(&mut out, attrs),
        Reply::Extended(bytes) => out.extend(bytes),
    }
    out
}
