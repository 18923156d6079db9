//! `known_hosts`, read as OpenSSH reads it: patterns with `*`, `?` and `!`, hashed names, `[host]:port`, `@revoked`.
//! libssh2's own reader knows neither patterns nor markers, and would accept a revoked key.
//!
//! `@cert-authority` lines never match a key: libssh2 checks no certificates. A host that is known by its authority only is
//! left to the `ssh` program.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::ssh_config::Strict;

/// A file is not read beyond this (bytes): no list of hosts is so long.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// How host keys are to be judged.
#[derive(Debug, Clone)]
pub struct HostKeyPolicy {
    /// What the host is looked up by, and the port beside it: as the `ssh` program does it, the name after `HostName`
    /// took effect, or the alias, which has no port of its own.
    pub name: String,
    pub port: u16,
    pub strict: Strict,
    /// The user's files; a new key goes into the first.
    pub files: Vec<PathBuf>,
    pub global_files: Vec<PathBuf>,
}

/// What the files say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Known,
    Unknown,
    /// Other keys are known for the host; the file that holds one of them.
    Changed(PathBuf),
    Revoked(PathBuf),
}

/// The lines of some files.
#[derive(Debug, Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    file: PathBuf,
    marker: Marker,
    hosts: String,
    key_type: String,
    key: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    CertAuthority,
}

impl KnownHosts {
    pub fn read(policy: &HostKeyPolicy) -> Self {
        let mut known = Self::default();
        for file in policy.files.iter().chain(&policy.global_files) {
            if let Ok(mut bytes) = fs::read(file) {
                bytes.truncate(MAX_FILE_BYTES);
                known.add(file, &String::from_utf8_lossy(&bytes));
            }
        }
        known
    }

    /// Adds the lines of a file; what is not a line is passed over.
    pub fn add(&mut self, file: &Path, text: &str) {
        self.lines.extend(text.lines().filter_map(|line| parse_line(file, line)));
    }

    pub fn verdict(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let name = lookup_name(host, port);
        let matching: Vec<&Line> = self.lines.iter().filter(|line| line.matches(&name)).collect();
        let revoked = self.lines.iter().find(|l| l.marker == Marker::Revoked && l.key == key && l.matches(&name));
        if let Some(line) = revoked {
            return Verdict::Revoked(line.file.clone());
        }
        let plain = || matching.iter().filter(|line| line.marker == Marker::None);
        if plain().any(|line| line.key == key) || self.is_shared_on_platform(host, key) {
            return Verdict::Known;
        }
        plain().next().map_or(Verdict::Unknown, |line| Verdict::Changed(line.file.clone()))
    }

    /// The platform shows one key on many of its hosts: a key that was accepted for one is known for all.
    fn is_shared_on_platform(&self, host: &str, key: &[u8]) -> bool {
        // `[NAME]:PORT` where the port is another than 22.
        let bare = |name: &str| {
            name.strip_prefix('[').and_then(|n| n.split_once("]:")).map_or(name, |(n, _)| n).to_ascii_lowercase()
        };
        let platform = |name: &str| !name.starts_with('!') && bare(name).ends_with(".drush.in");
        platform(host)
            && self.lines.iter().any(|l| l.marker == Marker::None && l.key == key && l.hosts.split(',').any(platform))
    }

    /// Whether the host is known by a certificate authority and by nothing else.
    pub fn only_by_authority(&self, host: &str, port: u16) -> bool {
        let name = lookup_name(host, port);
        let known = |marker: Marker| self.lines.iter().any(|line| line.marker == marker && line.names(&name));
        known(Marker::CertAuthority) && !known(Marker::None)
    }

    /// Key types known for the host: the server is asked for one of these first, or a known key of another type would look
    /// like a changed one.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<String> {
        let name = lookup_name(host, port);
        let known = self.lines.iter().filter(|line| line.marker == Marker::None && line.matches(&name));
        known.map(|line| line.key_type.clone()).collect()
    }
}

impl Line {
    fn matches(&self, name: &str) -> bool {
        self.marker != Marker::CertAuthority && self.names(name)
    }

    fn names(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return matches_hashed(hashed, name);
        }
        let mut found = false;
        for pattern in self.hosts.split(',') {
            match pattern.strip_prefix('!') {
                Some(pattern) if matches_pattern(pattern, name) => return false,
                Some(_) => {}
                None => found |= matches_pattern(pattern, name),
            }
        }
        found
    }
}

/// The name by which a host stands in the file.
pub(super) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn parse_line(file: &Path, line: &str) -> Option<Line> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    let mut hosts = words.next()?;
    let marker = match hosts {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertAuthority,
        other if other.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        hosts = words.next()?;
    }
    let key_type = words.next()?.to_owned();
    let key = decode(words.next()?)?;
    Some(Line { file: file.to_owned(), marker, hosts: hosts.to_ascii_lowercase_unless_hashed(), key_type, key })
}

trait LowercaseUnlessHashed {
    fn to_ascii_lowercase_unless_hashed(&self) -> String;
}

impl LowercaseUnlessHashed for str {
    fn to_ascii_lowercase_unless_hashed(&self) -> String {
        if self.starts_with("|1|") { self.to_owned() } else { self.to_ascii_lowercase() }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

fn matches_hashed(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Some(salt), Some(hash)) = (decode(salt), decode(hash)) else { return false };
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else { return false };
    mac.update(name.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

/// `*` is any run of characters, `?` any one.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The type of a public key, from its own encoding.
pub(super) fn key_type(key: &[u8]) -> Option<&str> {
    let len = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    std::str::from_utf8(key.get(4..4usize.checked_add(len)?)?).ok()
}

pub(super) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// Appends a key to the user's file, creating it (0600) and its directory (0700).
pub(super) fn remember(file: &Path, host: &str, port: u16, key: &[u8]) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let unfinished = fs::read(file).is_ok_and(|text| text.last().is_some_and(|&b| b != b'\n'));
    let mut out = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    let start = if unfinished { "\n" } else { "" };
    let kind = key_type(key).unwrap_or("unknown");
    out.write_all(format!("{start}{} {kind} {}\n", lookup_name(host, port), STANDARD.encode(key)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> Vec<u8> {
        let mut key = vec![0, 0, 0, 7];
        key.extend_from_slice(b"ssh-rsa");
        key.push(n);
        key
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        let filled = text.replace("K1", &STANDARD.encode(key(1))).replace("K2", &STANDARD.encode(key(2)));
        known.add(Path::new("/kh"), &filled);
        known
    }

    #[test]
    fn plain_port_wildcard_and_negated_names() {
        let lines = known("example.org ssh-rsa K1\n[example.org]:2222 ssh-rsa K2\n*.in,!bad.in ssh-rsa K1\n");
        assert_eq!(lines.verdict("EXAMPLE.org", 22, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("example.org", 2222, &key(2)), Verdict::Known);
        assert_eq!(lines.verdict("example.org", 2222, &key(1)), Verdict::Changed("/kh".into()));
        assert_eq!(lines.verdict("good.in", 22, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("bad.in", 22, &key(1)), Verdict::Unknown);
        assert_eq!(lines.verdict("other.org", 22, &key(1)), Verdict::Unknown);
        assert!(known("[127.0.0.*]:2222 ssh-rsa K1").verdict("127.0.0.9", 2222, &key(1)) == Verdict::Known);
    }

    #[test]
    fn hashed_names_match() {
        let salt = b"0123456789abcdefghij";
        let mut mac = Hmac::<Sha1>::new_from_slice(salt).expect("any length");
        mac.update(b"[h.example]:2222");
        let hash = STANDARD.encode(mac.finalize().into_bytes());
        let lines = known(&format!("|1|{}|{hash} ssh-rsa K1", STANDARD.encode(salt)));
        assert_eq!(lines.verdict("h.example", 2222, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("h.example", 22, &key(1)), Verdict::Unknown);
    }

    #[test]
    fn a_revoked_key_is_refused_even_when_it_is_known() {
        let lines = known("h ssh-rsa K1\n@revoked * ssh-rsa K1\n@cert-authority * ssh-rsa K2");
        assert_eq!(lines.verdict("h", 22, &key(1)), Verdict::Revoked("/kh".into()));
        assert_eq!(lines.verdict("other", 22, &key(2)), Verdict::Unknown);
    }

    #[test]
    fn a_host_that_only_an_authority_vouches_for_is_one_for_the_program() {
        let lines = known("@cert-authority *.example ssh-rsa K2\nb.example ssh-rsa K1\n@revoked a.example ssh-rsa K1");
        assert!(lines.only_by_authority("a.example", 22));
        assert!(!lines.only_by_authority("b.example", 22) && !lines.only_by_authority("other", 22));
        assert_eq!(lines.verdict("a.example", 22, &key(2)), Verdict::Unknown, "an authority's key is no host key");
    }

    #[test]
    fn one_key_serves_all_hosts_of_the_platform() {
        let lines = known("[codeserver.dev.x.drush.in]:2222 ssh-rsa K1\n[appserver.dev.y.drush.in]:2222 ssh-rsa K2");
        assert_eq!(lines.verdict("appserver.dev.y.drush.in", 2222, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("example.org", 2222, &key(1)), Verdict::Unknown);
        // Only its hosts vouch for it, and only they are vouched for.
        let lines = known("[a.drush.in.example.org]:2222 ssh-rsa K1\n!b.drush.in,*.example ssh-rsa K1");
        assert_eq!(lines.verdict("appserver.dev.y.drush.in", 2222, &key(1)), Verdict::Unknown);
        let lines = known("appserver.dev.y.drush.in ssh-rsa K1");
        assert_eq!(lines.verdict("appserver.dev.x.drush.in", 2222, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("a.drush.in.example.org", 2222, &key(1)), Verdict::Unknown);
    }

    #[test]
    fn remembered_keys_are_found_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("ssh/known_hosts");
        remember(&file, "h", 2222, &key(1)).expect("written");
        fs::OpenOptions::new().append(true).open(&file).expect("there").write_all(b"x ssh-rsa").expect("written");
        remember(&file, "i", 22, &key(2)).expect("written");
        let policy =
            HostKeyPolicy { name: "h".into(), port: 22, strict: Strict::Yes, files: vec![file], global_files: vec![] };
        let lines = KnownHosts::read(&policy);
        assert_eq!(lines.verdict("h", 2222, &key(1)), Verdict::Known);
        assert_eq!(lines.verdict("i", 22, &key(2)), Verdict::Known);
        assert_eq!(lines.key_types("h", 2222), ["ssh-rsa"]);
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(text in "[ -~\n|@*!\\[\\]:,=]{0,300}", name in "[a-z.\\[\\]:]{0,40}") {
            let mut lines = KnownHosts::default();
            lines.add(Path::new("/kh"), &text);
            lines.verdict(&name, 2222, b"key");
        }
    }
}
