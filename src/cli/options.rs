//! The `-o` options: understood, ignored because fstab has them, or an error with a suggestion.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{CliResult, Exit, Failure};
use super::nearest::nearest;
use crate::control::ConnectionMode;
use crate::fs::Links;
use crate::transport::Strict;

/// The values of all `-o` options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) read_only: bool,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) umask: u16,
    pub(super) allow_other: bool,
    pub(super) default_permissions: bool,
    pub(super) noexec: bool,
    pub(super) noatime: bool,
    pub(super) nonempty: bool,
    pub(super) sync: bool,
    /// Whether the mount has a `.git` of this machine.
    pub(super) git: bool,
    /// Whether events are told by notices of the desktop.
    pub(super) notify: bool,
    pub(super) mode: Option<ConnectionMode>,
    pub(super) links: Links,
    pub(super) fresh: Duration,
    pub(super) timeout: Duration,
    pub(super) cache_bytes: u64,
    pub(super) ssh_command: Option<String>,
    pub(super) ssh_config: Option<PathBuf>,
    pub(super) identity_files: Vec<PathBuf>,
    pub(super) known_hosts_files: Vec<PathBuf>,
    pub(super) strict: Option<Strict>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) host_name: Option<String>,
    pub(super) password_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            uid: None,
            gid: None,
            umask: 0,
            allow_other: false,
            default_permissions: false,
            noexec: false,
            noatime: false,
            nonempty: false,
            sync: false,
            git: true,
            notify: true,
            mode: None,
            links: Links::default(),
            fresh: Duration::from_secs(30),
            timeout: Duration::from_secs(15),
            cache_bytes: 256 * 1024 * 1024,
            ssh_command: None,
            ssh_config: None,
            identity_files: Vec::new(),
            known_hosts_files: Vec::new(),
            strict: None,
            port: None,
            user: None,
            host_name: None,
            password_file: None,
        }
    }
}

/// Options without a value that are understood or, for mount(8) and fstab, ignored.
const FLAGS: [&str; 28] = [
    "sync",
    "ro",
    "rw",
    "allow_other",
    "default_permissions",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "nodiratime",
    "strictatime",
    "lazytime",
    "nonempty",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "defaults",
    "nosuid",
    "nodev",
    "async",
];
/// Options with a value.
const VALUES: [&str; 20] = [
    "git",
    "notify",
    "uid",
    "gid",
    "umask",
    "mode",
    "links",
    "fresh",
    "timeout",
    "cache",
    "ssh_command",
    "ssh_config",
    "IdentityFile",
    "UserKnownHostsFile",
    "StrictHostKeyChecking",
    "Port",
    "User",
    "HostName",
    "password_file",
    "password_fd",
];

impl Options {
    /// Parses `a,b=c` lists; relative paths are taken from `here`, `~/` from `home`.
    pub(super) fn parse(lists: &[OsString], here: &Path, home: Option<&Path>) -> CliResult<Self> {
        let mut options = Self::default();
        let place = Dirs { here, home };
        for list in lists {
            for word in list.as_bytes().split(|&b| b == b',').filter(|word| !word.is_empty()) {
                options.apply(OsStr::from_bytes(word), &place)?;
            }
        }
        Ok(options)
    }

    fn apply(&mut self, word: &OsStr, place: &Dirs<'_>) -> CliResult<()> {
        let text = word.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&*text, None),
        };
        if name.starts_with("x-") || name.starts_with("X-") || name == "comment" {
            return Ok(());
        }
        // Keywords of ssh_config are case-insensitive.
        let is_flag = value.is_none() && FLAGS.contains(&name);
        let known = VALUES.iter().copied().find(|known| known.eq_ignore_ascii_case(name) && !is_flag);
        match (known, value) {
            (Some(known), Some(value)) if !value.is_empty() => self.set(known, value, word, place),
            (Some(known), _) => Err(usage(format!("option '{known}' needs a value ({known}=…)"))),
            (None, None) if FLAGS.contains(&name) => {
                self.flag(name);
                Ok(())
            }
            (None, Some(_)) if FLAGS.contains(&name) => Err(usage(format!("option '{name}' takes no value"))),
            (None, _) => Err(unknown(name)),
        }
    }

    fn flag(&mut self, name: &str) {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "noexec" => self.noexec = true,
            // As for mount(8): a mount that any user may make cannot run programs, unless `exec` follows.
            "user" | "users" | "owner" | "group" => self.noexec = true,
            "exec" => self.noexec = false,
            "noatime" => self.noatime = true,
            "nonempty" => self.nonempty = true,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            // The rest is for mount(8), or always so for pantheonfs (nosuid, nodev).
            _ => {}
        }
    }

    fn set(&mut self, name: &str, value: &str, word: &OsStr, place: &Dirs<'_>) -> CliResult<()> {
        let bad = |expected: &str| usage(format!("option {name}={value}: expected {expected}"));
        let number = || value.parse::<u32>().map_err(|_| bad("a number"));
        let path = || {
            let bytes = word.as_bytes();
            let at = bytes.iter().position(|&b| b == b'=').map_or(bytes.len(), |at| at + 1);
            place.path(&bytes[at..])
        };
        match name {
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "umask" => {
                let bits = u16::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o777);
                self.umask = bits.ok_or_else(|| bad("octal permission bits such as 022"))?;
            }
            "git" => self.git = yes_or_no(value).ok_or_else(|| bad("yes or no"))?,
            "notify" => self.notify = yes_or_no(value).ok_or_else(|| bad("yes or no"))?,
            "mode" => self.mode = Some(ConnectionMode::parse(value).ok_or_else(|| bad("sftp or git"))?),
            "links" => {
                self.links = match value {
                    "contain" => Links::Contain,
                    "as-is" => Links::AsIs,
                    _ => return Err(bad("contain or as-is")),
                }
            }
            "fresh" => self.fresh = seconds(value).ok_or_else(|| bad("seconds, 0 to 3600"))?,
            "timeout" => {
                self.timeout = seconds(value).filter(|t| !t.is_zero()).ok_or_else(|| bad("seconds, 1 to 3600"))?;
            }
            "cache" => self.cache_bytes = size(value).ok_or_else(|| bad("a size such as 256M"))?,
            "ssh_command" => self.ssh_command = Some(value.to_owned()),
            "ssh_config" => self.ssh_config = Some(path()),
            "IdentityFile" => self.identity_files.push(path()),
            "UserKnownHostsFile" => self.known_hosts_files.push(path()),
            "StrictHostKeyChecking" => {
                self.strict = Some(Strict::parse(value).ok_or_else(|| bad("yes, accept-new, ask or no"))?);
            }
            "Port" => {
                let port = value.parse().ok().filter(|port| *port > 0);
                self.port = Some(port.ok_or_else(|| bad("a number from 1 to 65535"))?);
            }
            "User" => self.user = Some(value.to_owned()),
            "HostName" => self.host_name = Some(value.to_owned()),
            "password_file" => self.password_file = Some(path()),
            "password_fd" => self.password_file = Some(format!("/proc/self/fd/{}", number()?).into()),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

struct Dirs<'a> {
    here: &'a Path,
    home: Option<&'a Path>,
}

impl Dirs<'_> {
    fn path(&self, bytes: &[u8]) -> PathBuf {
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        match (bytes.strip_prefix(b"~/"), self.home) {
            (Some(rest), Some(home)) => home.join(path(rest)),
            _ => self.here.join(path(bytes)),
        }
    }
}

fn usage(text: String) -> Failure {
    Failure::new(Exit::Usage, text)
}

fn unknown(name: &str) -> Failure {
    if matches!(name, "suid" | "dev") {
        return usage(format!("option '{name}' is not possible; a mount of pantheonfs is always nosuid,nodev"));
    }
    let near_enough = nearest(name, FLAGS.iter().chain(&VALUES).copied());
    let hint = near_enough.map_or_else(
        || "; docs/REFERENCE.md lists the options".to_owned(),
        |known| format!("; did you mean '{known}{}'?", if VALUES.contains(&known) { "=…" } else { "" }),
    );
    usage(format!("unknown option '{name}'{hint}"))
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn seconds(value: &str) -> Option<Duration> {
    let seconds: f64 = value.parse().ok()?;
    (0.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn size(value: &str) -> Option<u64> {
    let (digits, unit) = match value.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&value[..value.len() - 1], 1 << 10),
        b'M' => (&value[..value.len() - 1], 1 << 20),
        b'G' => (&value[..value.len() - 1], 1 << 30),
        _ => (value, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(&[text.into()], Path::new("/here"), Some(Path::new("/home/me"))).map_err(|f| f.explain())
    }

    #[test]
    fn the_usual_options_of_fstab_are_understood_or_tolerated() {
        let text = "rw,noauto,user,_netdev,nofail,x-systemd.automount,uid=1000,gid=1000,umask=022,allow_other,\
                    default_permissions,comment=x,,ro";
        let options = parse(text).expect("valid");
        assert_eq!((options.uid, options.umask, options.read_only, options.noexec), (Some(1000), 0o22, true, true));
        assert!(!parse("user,exec").expect("valid").noexec);
    }

    #[test]
    fn ssh_settings_carry_their_names() {
        let text = "identityfile=~/.ssh/key,UserKnownHostsFile=kh,StrictHostKeyChecking=accept-new,Port=2222,User=u,\
                    HostName=h,timeout=2.5,cache=64M,mode=git";
        let options = parse(text).expect("valid");
        assert_eq!(options.identity_files, [PathBuf::from("/home/me/.ssh/key")]);
        assert_eq!(options.known_hosts_files, [PathBuf::from("/here/kh")]);
        assert_eq!((options.port, options.cache_bytes), (Some(2222), 64 << 20));
        assert_eq!(options.timeout, Duration::from_millis(2500));
    }

    #[test]
    fn misspelled_options_are_answered_with_the_nearest() {
        assert!(parse("Prot=22").expect_err("unknown").contains("did you mean 'Port=…'?"));
        assert!(parse("alow_other").expect_err("unknown").contains("'allow_other'"));
        assert!(parse("zzzzzzzz").expect_err("unknown").contains("REFERENCE"));
        assert!(parse("suid").expect_err("never").contains("nosuid"));
        for bad in ["Port=0", "Port", "uid=", "umask=999", "ro=1", "mode=ftp", "timeout=0", "cache=9999999999999G"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_list_can_be_given(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
