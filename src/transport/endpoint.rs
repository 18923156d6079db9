//! Which server to connect to and how, merged from the source, the `-o` options and `ssh_config`, in this order of precedence.

use std::path::PathBuf;
use std::sync::Arc;

use super::known_hosts::HostKeyPolicy;
use super::rates::Rates;
use super::ssh_config::{SshConfig, Strict, expand_home};
use super::{Secret, TransportError};

/// What the caller knows beside the source: `-o` options and the environ of the process.
#[derive(Debug, Clone, Default)]
pub struct SshOverrides {
    pub host_name: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub identity_files: Vec<PathBuf>,
    pub user_known_hosts_files: Vec<PathBuf>,
    pub strict: Option<Strict>,
    pub ssh_command: Option<String>,
    pub ssh_config: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    pub password: Option<Secret>,
}

/// Everything that is needed to connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// As it was named.
    pub host: String,
    /// What to connect to.
    pub address: String,
    pub port: u16,
    pub user: String,
    pub identity_files: Vec<PathBuf>,
    pub identities_only: bool,
    pub agent: Option<PathBuf>,
    pub password: Option<Secret>,
    pub host_keys: HostKeyPolicy,
    /// The program, where it is wanted or needed.
    pub ssh_command: Option<String>,
    pub ssh_config: Option<PathBuf>,
    /// Rates that earlier connections reached.
    pub rates: Arc<Rates>,
    /// The user gave identity files or known hosts by option: the program is told.
    pub explicit: SshOverrides,
    proxied: bool,
}

const SSH_PORT: u16 = 22;

impl Endpoint {
    /// Merges what is known about `host`. Host, user and options never reach a shell, and never start with `-`.
    pub fn resolve(
        host: &str,
        port: Option<u16>,
        user: Option<&str>,
        given: &SshOverrides,
    ) -> Result<Self, TransportError> {
        check_word("host", host)?;
        let user = given.user.as_deref().or(user);
        user.map_or(Ok(()), |user| check_word("user", user))?;
        let port = given.port.or(port);
        let program = given.ssh_command.as_deref().unwrap_or("ssh");
        let config = SshConfig::evaluate(program, given.ssh_config.as_deref(), user, port, host).unwrap_or_default();
        let address = given.host_name.clone().or(config.host_name.clone()).unwrap_or_else(|| host.to_owned());
        check_word("host", &address)?;
        let home = given.home.as_deref();
        let files = |names: &[String]| names.iter().filter_map(|f| expand_home(f, home)).collect::<Vec<_>>();
        let identity_files =
            if given.identity_files.is_empty() { files(&config.identity_files) } else { given.identity_files.clone() };
        let mut known_hosts = if given.user_known_hosts_files.is_empty() {
            files(&config.user_known_hosts_files)
        } else {
            given.user_known_hosts_files.clone()
        };
        if known_hosts.is_empty() {
            known_hosts.extend(home.map(|home| home.join(".ssh/known_hosts")));
        }
        let agent = match config.identity_agent.as_deref() {
            None | Some("SSH_AUTH_SOCK") => given.agent.clone(),
            Some(path) => expand_home(path, home),
        };
        let port = port.or(config.port).unwrap_or(SSH_PORT);
        let host_keys = HostKeyPolicy {
            name: config.host_key_alias.clone().unwrap_or_else(|| address.clone()),
            port: if config.host_key_alias.is_some() { SSH_PORT } else { port },
            strict: strictness(host, given.strict, config.strict),
            files: known_hosts,
            global_files: files(&config.global_known_hosts_files),
        };
        Ok(Self {
            host: host.to_owned(),
            address,
            port,
            user: user.map(str::to_owned).or(config.user).unwrap_or_default(),
            identity_files,
            identities_only: config.identities_only || !given.identity_files.is_empty(),
            agent,
            password: given.password.clone(),
            host_keys,
            ssh_command: given.ssh_command.clone(),
            ssh_config: given.ssh_config.clone(),
            rates: Arc::default(),
            explicit: given.clone(),
            proxied: config.proxied,
        })
    }

    /// Whether only the `ssh` program can make this connection.
    pub fn needs_program(&self) -> bool {
        self.ssh_command.is_some() || self.proxied
    }

    /// The platform's hosts have rules of their own for keys.
    pub fn is_pantheon(&self) -> bool {
        is_pantheon(&self.host)
    }
}

fn is_pantheon(host: &str) -> bool {
    host.to_ascii_lowercase().ends_with(".drush.in")
}

/// On the platform every container brings its own key and no list is published: a first key is trusted there, unless the user
/// demands more.
fn strictness(host: &str, given: Option<Strict>, config: Option<Strict>) -> Strict {
    match given.or(config).unwrap_or(Strict::Ask) {
        Strict::Ask if given.is_none() && is_pantheon(host) => Strict::AcceptNew,
        strict => strict,
    }
}

fn check_word(what: &str, text: &str) -> Result<(), TransportError> {
    let bad = text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_whitespace() || c.is_control());
    if bad {
        return Err(TransportError::BadEndpoint(format!("'{}' is not a {what} name", text.escape_debug())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_options_are_refused() {
        let none = SshOverrides { ssh_command: Some("/nonexistent".into()), ..SshOverrides::default() };
        for host in ["-oProxyCommand=x", "", "a b", "a\nb"] {
            assert!(Endpoint::resolve(host, None, Some("u"), &none).is_err(), "{host:?}");
        }
        assert!(Endpoint::resolve("h", None, Some("-u"), &none).is_err());
    }

    #[test]
    fn options_win_over_the_source_and_defaults_come_last() {
        let given = SshOverrides {
            ssh_command: Some("/nonexistent".into()),
            port: Some(2022),
            home: Some("/home/u".into()),
            ..SshOverrides::default()
        };
        let endpoint = Endpoint::resolve("appserver.dev.x.drush.in", Some(2222), Some("dev.x"), &given).expect("valid");
        assert_eq!((endpoint.port, endpoint.user.as_str()), (2022, "dev.x"));
        assert_eq!(endpoint.host_keys.strict, Strict::AcceptNew);
        assert_eq!(endpoint.host_keys.files, [PathBuf::from("/home/u/.ssh/known_hosts")]);
        assert_eq!(strictness("example.org", None, None), Strict::Ask);
        assert_eq!(strictness("a.drush.in", Some(Strict::Yes), None), Strict::Yes);
    }
}
