//! Keys and random names.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `n` random bytes as hexadecimal text.
pub(super) fn random_hex(n: usize) -> io::Result<String> {
    Ok(random(n)?.iter().map(|b| format!("{b:02x}")).collect())
}

/// `n` random bytes as text of letters, digits, `-` and `_`.
pub(super) fn random_text(n: usize) -> io::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random(n)?))
}

fn random(n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; n];
    let mut at = 0;
    while at < n {
        at += rustix::rand::getrandom(&mut bytes[at..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A random UUID.
pub(super) fn random_uuid() -> io::Result<String> {
    let hex = random_hex(16)?;
    Ok(format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]))
}

/// The program that makes keys cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("ssh-keygen cannot be run: {0}; install the package openssh-client")]
struct NoKeygen(#[source] io::Error);

/// Makes a key with OpenSSH's own program, because its formats are those that clients must read.
pub(super) fn ssh_keygen(kind: &str, file: &Path) -> io::Result<()> {
    let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "sim", "-f"]).arg(file).args(bits);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("ssh-keygen ended with {status}"))),
        Err(error) => Err(io::Error::new(error.kind(), NoKeygen(error))),
    }
}
