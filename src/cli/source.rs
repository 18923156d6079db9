//! The source of a mount: `site.env`, `uuid.env`, or an `sftp://` URL.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::exit::{CliResult, Exit, Failure};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A site (name or UUID) and an environment of it.
    Pantheon {
        site: String,
        env: String,
    },
    Url(SftpUrl),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SftpUrl {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Path on the server: absolute, or empty for the login directory.
    pub(super) path: Vec<u8>,
}

/// Longest name of an environment (characters).
const MAX_ENV_CHARS: usize = 11;

impl Source {
    pub(super) fn parse(text: &OsStr) -> CliResult<Self> {
        let bytes = text.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"sftp://") {
            return parse_url(rest).map(Self::Url).map_err(|why| bad(text, why));
        }
        let name = text.to_str().ok_or_else(|| bad(text, "not UTF-8"))?;
        let (site, env) = name.rsplit_once('.').ok_or_else(|| {
            bad(text, "name the environment (mysite.dev, mysite.live, …), or give an sftp://host/path URL")
        })?;
        let is_word = |word: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !word.is_empty() && word.chars().all(plain) && !word.starts_with('-')
        };
        if !is_word(site) {
            return Err(bad(text, "a site's name has letters, digits and hyphens"));
        }
        if !is_word(env) || env.len() > MAX_ENV_CHARS {
            return Err(bad(text, "an environment's name has at most 11 letters, digits and hyphens"));
        }
        Ok(Self::Pantheon { site: site.to_ascii_lowercase(), env: env.to_ascii_lowercase() })
    }

    /// As [`Self::parse`], where a site without an environment means its Dev; the second value tells whether one is named.
    pub(super) fn parse_or_dev(text: &OsStr) -> CliResult<(Self, bool)> {
        let bytes = text.as_bytes();
        if bytes.contains(&b'.') || bytes.starts_with(b"sftp://") {
            return Ok((Self::parse(text)?, true));
        }
        let mut whole = text.to_owned();
        whole.push(".dev");
        Self::parse(&whole).map(|source| (source, false)).map_err(|_| {
            bad(text, "name a site (mysite), an environment of it (mysite.live), or an sftp://host/path URL")
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pantheon { site, env } => write!(f, "{site}.{env}"),
            Self::Url(url) => {
                let user = url.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
                let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
                let path = String::from_utf8_lossy(&url.path);
                let path = if path.is_empty() { "/~".into() } else { path };
                write!(f, "sftp://{user}{host}{port}{path}")
            }
        }
    }
}

/// Whether it is a site's UUID rather than its name.
pub(super) fn is_uuid(site: &str) -> bool {
    let groups: Vec<&str> = site.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A directory name for a source: special characters become `_`, and a checksum keeps different sources apart.
pub(super) fn dir_name(source: &str) -> String {
    let plain: String = source
        .trim_start_matches("sftp://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
        .take(80)
        .collect();
    if plain == source { plain } else { format!("{plain}-{:08x}", crc32fast::hash(source.as_bytes())) }
}

fn bad(text: &OsStr, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("'{}' cannot be mounted: {why}", text.to_string_lossy()))
}

fn parse_url(rest: &[u8]) -> Result<SftpUrl, &'static str> {
    let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let authority = std::str::from_utf8(authority).map_err(|_| "the host is not UTF-8")?;
    let (user, host_port) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(
            "a URL must not have a password, because other users can see it; use a key, a prompt or password_file",
        );
    }
    let (host, port) = if let Some(v6) = host_port.strip_prefix('[') {
        let (host, after) = v6.split_once(']').ok_or("']' is missing after the address")?;
        (host, after.strip_prefix(':'))
    } else {
        host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = port.map(|port| port.parse().map_err(|_| "the port is not a number from 1 to 65535")).transpose()?;
    if port == Some(0) {
        return Err("the port is not a number from 1 to 65535");
    }
    let decoded = percent_decode(path)?;
    // `/~` and `/~/x` are relative to the login directory, as in curl.
    let path = match decoded.as_slice() {
        b"" | b"/~" | b"/~/" => Vec::new(),
        path => path.strip_prefix(b"/~/").unwrap_or(path).to_vec(),
    };
    let path = if path.len() > 1 { path.strip_suffix(b"/").unwrap_or(&path).to_vec() } else { path };
    Ok(SftpUrl { user: user.map(str::to_owned).filter(|u| !u.is_empty()), host: host.to_owned(), port, path })
}

fn percent_decode(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            out.push(first);
            continue;
        }
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or("a '%' needs two hex digits after it")?;
        if byte == 0 {
            return Err("a path cannot contain a zero byte");
        }
        out.push(byte);
        rest = &tail[2..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> SftpUrl {
        match Source::parse(OsStr::new(text)) {
            Ok(Source::Url(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sites_and_urls_are_told_apart() {
        let site = Source::parse(OsStr::new("My-Site.Dev")).expect("valid");
        assert_eq!(site, Source::Pantheon { site: "my-site".into(), env: "dev".into() });
        let full = url("sftp://me@[::1]:2222/srv/my%20site/");
        assert_eq!((full.user.as_deref(), full.host.as_str(), full.port), (Some("me"), "::1", Some(2222)));
        assert_eq!(full.path, b"/srv/my site");
        assert_eq!(url("sftp://h").path, b"");
        assert_eq!(url("sftp://h/~/x").path, b"x");
        assert_eq!(url("sftp://h/").path, b"/");
        for bad in [
            "mysite",
            "my site.dev",
            "a.b.c.dev.",
            "-x.dev",
            "s.averylongname",
            "sftp://",
            "sftp://h:x/",
            "sftp://u:secret@h/",
            "sftp://h/%zz",
            "sftp://h:0/",
            "s.dev/x",
        ] {
            assert!(Source::parse(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_site_without_an_environment_is_its_dev() {
        let parsed =
            |text: &str| Source::parse_or_dev(OsStr::new(text)).map(|(source, named)| (source.to_string(), named));
        assert_eq!(parsed("mysite").expect("valid"), ("mysite.dev".into(), false));
        assert_eq!(parsed("mysite.live").expect("valid"), ("mysite.live".into(), true));
        assert_eq!(parsed("sftp://h/x").expect("valid"), ("sftp://h/x".into(), true));
        for bad in ["", "my site", "-x", "s.averylongname"] {
            let error = parsed(bad).expect_err(bad).explain();
            assert!(error.contains(&format!("'{bad}'")), "{error}");
        }
    }

    #[test]
    fn uuids_are_recognised() {
        assert!(is_uuid("3f5b7d8e-0000-4abc-9def-0123456789ab"));
        assert!(!is_uuid("my-site-with-four-hyphens"));
    }

    #[test]
    fn state_directories_have_plain_and_distinct_names() {
        assert_eq!(dir_name("mysite.dev"), "mysite.dev");
        assert_ne!(dir_name("sftp://u@h/a b"), dir_name("sftp://u@h/a_b"));
        assert!(!dir_name("sftp://u@h/../../x").contains('/'));
    }

    proptest! {
        #[test]
        fn any_text_can_be_given(text in "(sftp://)?.{0,60}") {
            let _ = Source::parse(OsStr::new(&text));
        }
    }
}
