//! Attestation: the server's own checksums of its files. One `rsync -rcn` dry run over SSH lists a checksum per file
//! and transfers 50 bytes per file. A server may refuse it: then files are proved as they are read.
//!
//! This uses a second, short connection beside the mount's own. If the platform allows only one, the run fails and is
//! not repeated by this mount.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::attr::{Version, secs_from_time};
use crate::path::RemotePath;

/// How to ask the server.
#[derive(Debug, Clone)]
pub struct AttestConfig {
    /// The SSH command for rsync, quoted, with port and user.
    pub ssh_command: String,
    pub host: String,
    /// Relative to the login directory.
    pub dir: String,
}

/// The server's statement about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Relative to the requested directory.
    pub path: RemotePath,
    pub version: Version,
    pub md5: [u8; 16],
}

/// Time limit of a run: the server reads all files once.
const LIMIT: Duration = Duration::from_secs(300);
/// Limits for the output: lines, and bytes per line. A server must not fill the memory.
const MAX_FILES: usize = 1_000_000;
const MAX_LINE_BYTES: u64 = 8 * 1024;

/// Runs rsync and returns its list. May take as long as the time limit.
pub fn ask(config: &AttestConfig) -> io::Result<Vec<Attested>> {
    // The local directory is empty, so that all files are listed.
    let empty = tempfile::tempdir()?;
    let mut command = Command::new("rsync");
    command.args(["-rcn", "--no-motd", "--exclude=/.git", "--out-format=%C %l %M %n", "--timeout=60", "-e"]);
    command.arg(&config.ssh_command).arg("--").arg(format!("{}:{}/", config.host, config.dir)).arg(empty.path());
    // Newer versions would choose another checksum, and print local times.
    command.env("RSYNC_CHECKSUM_LIST", "md5").env("TZ", "UTC").env("LC_ALL", "C").current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::Builder::new().name("attest".into()).spawn(move || drop(sender.send(read(output))));
    let said = std::thread::Builder::new().name("attest-errors".into()).spawn(move || first_line(errors));
    let until = Instant::now() + LIMIT;
    let found = reader.and_then(|_| lines.recv_timeout(LIMIT).map_err(|_| io::ErrorKind::TimedOut.into()));
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if found.is_err() || Instant::now() > until => {
                // It may have ended by itself meanwhile.
                let _ = child.kill();
                break child.wait()?;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let found = found?;
    if !status.success() {
        let said = said.ok().and_then(|thread| thread.join().ok()).unwrap_or_default();
        return Err(io::Error::other(if said.is_empty() { format!("rsync: {status}") } else { said }));
    }
    Ok(found)
}

fn first_line(errors: impl Read) -> String {
    let mut lines = BufReader::new(errors.take(64 * 1024)).lines().map_while(Result::ok);
    lines.find(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn read(output: impl Read) -> Vec<Attested> {
    let mut output = BufReader::new(output);
    let (mut line, mut found) = (Vec::new(), Vec::new());
    while found.len() < MAX_FILES {
        line.clear();
        match output.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => found.extend(parse(line.strip_suffix(b"\n").unwrap_or_default())),
            _ => break,
        }
    }
    found
}

/// Parses `MD5 SIZE YYYY/MM/DD-HH:MM:SS NAME`. Directories have no checksum; escaped names are skipped.
fn parse(line: &[u8]) -> Option<Attested> {
    let mut words = line.splitn(4, |&b| b == b' ');
    let mut text = || std::str::from_utf8(words.next()?).ok();
    let (sum, size, time) = (text()?, text()?, text()?);
    let name = words.next()?;
    let digit = |at: usize| u8::from_str_radix(sum.get(2 * at..2 * at + 2)?, 16).ok();
    let md5: Vec<u8> = (0..16).map(digit).collect::<Option<_>>()?;
    let escaped = name.windows(2).any(|two| two == b"\\#");
    if sum.len() != 32 || escaped || name.ends_with(b"/") {
        return None;
    }
    let (day, clock) = time.split_once('-')?;
    let time = humantime::parse_rfc3339_weak(&format!("{} {clock}", day.replace('/', "-"))).ok()?;
    let version = Version { size: size.parse().ok()?, mtime: secs_from_time(time) };
    Some(Attested {
        path: RemotePath::parse(OsStr::from_bytes(name).as_bytes()).ok()?,
        version,
        md5: md5.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_rsync_prints_is_understood() {
        let line = b"764efa883dda1e11db47671c4a3bbd9e 3 2020/01/02-03:04:05 b/we ird";
        let said = parse(line).expect("a file");
        assert_eq!(said.path.as_bytes(), b"b/we ird");
        assert_eq!(said.version, Version { size: 3, mtime: 1_577_934_245 });
        assert_eq!(said.md5[..2], [0x76, 0x4e]);
        for other in [
            &b"                                 4096 2026/11/25-02:07:57 b/"[..],
            b"764efa883dda1e11db47671c4a3bbd9e 3 2020/01/02-03:04:05 ../etc/passwd",
            b"764efa883dda1e11db47671c4a3bbd9e 3 2020/01/02-03:04:05 a\\#012b",
            b"skipping non-regular file \"link\"",
            b"",
        ] {
            assert_eq!(parse(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&line);
        }
    }
}
