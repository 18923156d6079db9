//! Answers of the SFTP server: status codes and attributes, as OpenSSH's server sends them.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use russh_sftp::protocol::{FileAttributes, Status, StatusCode};
use russh_sftp::server::StatusReply;

pub(super) type Reply<T> = Result<T, StatusReply>;

pub(super) fn code(code: StatusCode) -> StatusReply {
    StatusReply::new(code)
}

/// The status that OpenSSH's server sends for an errno.
pub(super) fn status(error: &io::Error) -> StatusReply {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => code(StatusCode::NoSuchFile),
        Some(libc::EACCES | libc::EPERM) => code(StatusCode::PermissionDenied),
        _ => code(StatusCode::Failure),
    }
}

pub(super) fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en".into() }
}

pub(super) fn attributes(meta: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(meta.size()),
        uid: Some(10_000),
        gid: Some(10_000),
        permissions: Some(meta.mode()),
        atime: Some(u32::try_from(meta.atime()).unwrap_or(0)),
        mtime: Some(u32::try_from(meta.mtime()).unwrap_or(0)),
        ..FileAttributes::empty()
    }
}

/// Strings of an extension's payload.
pub(super) fn strings(mut data: &[u8]) -> Reply<Vec<String>> {
    let bad = || code(StatusCode::BadMessage);
    let mut out = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let bytes = rest.get(..len).ok_or_else(bad)?;
        out.push(String::from_utf8(bytes.to_vec()).map_err(|_| bad())?);
        data = &rest[len..];
    }
    Ok(out)
}
