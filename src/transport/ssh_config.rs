//! What `~/.ssh/config` says about a host, as OpenSSH itself evaluates it: `ssh -G` prints the outcome of Host, Match,
//! Include and tokens as plain `key value` lines. Parsing that output is total; not having the program means defaults.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to do about a host key that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strict {
    Yes,
    AcceptNew,
    Ask,
    No,
}

impl Strict {
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "true" => Some(Self::Yes),
            "accept-new" => Some(Self::AcceptNew),
            "ask" => Some(Self::Ask),
            "no" | "off" | "false" => Some(Self::No),
            _ => None,
        }
    }
}

/// The settings that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshConfig {
    pub host_name: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub identity_files: Vec<String>,
    pub identities_only: bool,
    pub identity_agent: Option<String>,
    pub user_known_hosts_files: Vec<String>,
    pub global_known_hosts_files: Vec<String>,
    pub strict: Option<Strict>,
    pub host_key_alias: Option<String>,
    /// ProxyJump or ProxyCommand is set: only the program can follow it.
    pub proxied: bool,
}

impl SshConfig {
    /// Parses the output of `ssh -G`. Unknown keys and malformed lines are passed over.
    pub fn parse(output: &str) -> Self {
        let mut config = Self::default();
        for line in output.lines() {
            let Some((key, value)) = line.trim().split_once(' ') else { continue };
            config.set(&key.to_ascii_lowercase(), value.trim());
        }
        config
    }

    fn set(&mut self, key: &str, value: &str) {
        let words = || value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let given = || (!value.is_empty() && !value.eq_ignore_ascii_case("none")).then(|| value.to_owned());
        match key {
            "hostname" => self.host_name = given(),
            "port" => self.port = value.parse().ok(),
            "user" => self.user = given(),
            "identityfile" => self.identity_files.extend(given()),
            "identitiesonly" => self.identities_only = value == "yes",
            "identityagent" => self.identity_agent = given(),
            "userknownhostsfile" => self.user_known_hosts_files = words(),
            "globalknownhostsfile" => self.global_known_hosts_files = words(),
            "stricthostkeychecking" => self.strict = Strict::parse(value),
            "hostkeyalias" => self.host_key_alias = given(),
            "proxyjump" | "proxycommand" => self.proxied |= given().is_some(),
            _ => {}
        }
    }

    /// Asks the `ssh` program; `None` when there is none or it fails.
    pub fn evaluate(
        program: &str,
        config: Option<&Path>,
        user: Option<&str>,
        port: Option<u16>,
        host: &str,
    ) -> Option<Self> {
        let mut command = Command::new(program);
        command.arg("-G").stdin(Stdio::null()).current_dir("/");
        if let Some(file) = config {
            command.arg("-F").arg(file);
        }
        if let Some(user) = user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = port {
            command.arg("-p").arg(port.to_string());
        }
        let output = command.arg("--").arg(host).output().ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Replaces a leading `~/`; OpenSSH prints its default files that way.
pub(super) fn expand_home(path: &str, home: Option<&Path>) -> Option<PathBuf> {
    match path.strip_prefix("~/") {
        Some(rest) => Some(home?.join(rest)),
        None => Some(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_output_of_ssh_g_is_understood() {
        let config = SshConfig::parse(
            "user u\nhostname 127.0.0.1\nport 2222\nstricthostkeychecking accept-new\nidentityfile ~/.ssh/a\n\
             identityfile ~/.ssh/b\nuserknownhostsfile /a /b\nproxyjump none\nidentitiesonly yes\nport x\nnonsense\n",
        );
        assert_eq!(config.identity_files, ["~/.ssh/a", "~/.ssh/b"]);
        assert_eq!(config.user_known_hosts_files, ["/a", "/b"]);
        assert_eq!(config.strict, Some(Strict::AcceptNew));
        assert!(config.identities_only && !config.proxied);
        assert!(SshConfig::parse("proxyjump bastion").proxied);
    }

    proptest! {
        #[test]
        fn any_output_can_be_parsed(text in ".{0,400}") {
            SshConfig::parse(&text);
        }
    }
}
