//! From a source and options to everything a mount needs: endpoint, API, directories.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::options::Options;
use super::source::{SftpUrl, Source, is_uuid};
use crate::control::{Control, ControlError, EnvKind, Environment, WakeConfig, Waker};
use crate::env::EnvConfig;
use crate::fs::{AttestConfig, Layout};
use crate::mirror::MirrorConfig;
use crate::transport::{self, Endpoint, Secret, SshOverrides};
use crate::vfiles::Connection;

/// See the module header.
pub(super) struct Plan {
    pub(super) source: String,
    pub(super) endpoint: Endpoint,
    /// What paths on the server are relative to: empty for the login directory.
    pub(super) base: Vec<u8>,
    pub(super) layout: Layout,
    pub(super) env: EnvConfig,
    /// What the API said while we prepared.
    pub(super) initial: Option<Environment>,
    pub(super) connection: Connection,
    /// Name of the state directory.
    pub(super) key: String,
    /// Names that it had in older versions; the first is the one that people know.
    pub(super) names: Vec<String>,
    /// Name of the directory where content is kept: one for all environments of a site.
    pub(super) content_key: String,
    pub(super) mirror: Option<MirrorConfig>,
    /// Where the server can be asked for checksums.
    pub(super) attest: Option<AttestConfig>,
    /// Wakes the environment; `None` for a plain server, and where the site's name is not known.
    pub(super) waker: Option<Arc<Waker>>,
}

/// A site as far as it is known without connecting.
struct Known {
    id: String,
    /// `None`: mounted by its UUID, and nobody to ask for the name.
    name: Option<String>,
    environment: Option<Environment>,
}

/// Port of the platform's SFTP.
const PANTHEON_PORT: u16 = 2222;

pub(super) fn make(source: &Source, options: &Options, around: &Environ) -> CliResult<Plan> {
    let given = overrides(options, around)?;
    match source {
        Source::Pantheon { site, env } => pantheon(source, (site, env), options, around, &given),
        Source::Url(url) => plain(source, url, options, &given),
    }
}

fn overrides(options: &Options, around: &Environ) -> CliResult<SshOverrides> {
    let password = match &options.password_file {
        None => None,
        Some(file) => {
            let read = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|e| {
                Failure::new(Exit::LoginRefused, format!("{}: the password cannot be read: {e}", file.display()))
            })?;
            Some(Secret::new(read.lines().next().unwrap_or_default().to_owned()))
        }
    };
    Ok(SshOverrides {
        host_name: options.host_name.clone(),
        port: options.port,
        user: options.user.clone(),
        identity_files: options.identity_files.clone(),
        user_known_hosts_files: options.known_hosts_files.clone(),
        strict: options.strict,
        ssh_command: options.ssh_command.clone(),
        ssh_config: options.ssh_config.clone(),
        home: around.home.clone(),
        agent: around.agent.clone(),
        password,
    })
}

fn plain(source: &Source, url: &SftpUrl, options: &Options, given: &SshOverrides) -> CliResult<Plan> {
    let endpoint = Endpoint::resolve(&url.host, url.port, url.user.as_deref(), given)?;
    let connection = connection(&endpoint, String::from_utf8_lossy(&url.path).into_owned(), None);
    let env = EnvConfig {
        name: None,
        api: None,
        mode: options.mode,
        memory: None,
        read_only: options.read_only,
        author: None,
    };
    let source = source.to_string();
    Ok(Plan {
        content_key: key(&source),
        key: key(&source),
        names: Vec::new(),
        source,
        endpoint,
        base: url.path.clone(),
        layout: Layout::Plain,
        env,
        initial: None,
        connection,
        mirror: None,
        attest: None,
        waker: None,
    })
}

fn pantheon(
    source: &Source,
    (site, env): (&str, &str),
    options: &Options,
    around: &Environ,
    given: &SshOverrides,
) -> CliResult<Plan> {
    let control = Control::new(around.control.clone())?;
    let known = if is_uuid(site) {
        // Host and user follow from the UUID: without a login only the mode stays unknown.
        let nothing = Known { id: site.to_owned(), name: None, environment: None };
        match control.can_log_in().then(|| ask(&control, site, env)) {
            Some(Err(error)) if error.is_passing() => {
                log::warn!("{error}; mounting without it");
                nothing
            }
            asked => asked.unwrap_or(Ok(nothing))?,
        }
    } else {
        by_name(&control, (site, env), around)?
    };
    let waker = waker(&known, env, around)?;
    let Known { id, environment: initial, name } = known;
    let names = names(name.as_deref(), source, &id, around);
    let (host, user) = match &around.ssh_host {
        Some(host) => (host.clone(), format!("appserver.{env}.{id}")),
        None => (format!("appserver.{env}.{id}.drush.in"), format!("{env}.{id}")),
    };
    let endpoint = Endpoint::resolve(&host, Some(PANTHEON_PORT), Some(&user), given)?;
    // One host for all sites: the port is the same, too.
    let git = format!("codeserver.dev.{id}");
    let (git_host, git_port) = match &around.ssh_host {
        Some(host) => (host.clone(), endpoint.port),
        None => (format!("{git}.drush.in"), PANTHEON_PORT),
    };
    let url = format!("ssh://{git}@{git_host}:{git_port}/~/repository.git");
    let mirror = MirrorConfig {
        dir: around.mirror_dir(&id)?,
        url: url.clone(),
        ssh_command: transport::git_ssh_command(&endpoint),
    };
    let attest = AttestConfig {
        ssh_command: transport::ssh_command(&endpoint),
        host: endpoint.host.clone(),
        dir: "code".into(),
    };
    let connection = connection(&endpoint, "code".into(), Some(url));
    let (site_id, key) = (id.clone(), key(&format!("{id}.{env}")));
    let api = (initial.is_some() || control.can_log_in()).then_some((control, id));
    let env = EnvConfig {
        name: Some(env.to_owned()),
        api,
        mode: options.mode,
        memory: Some(around.state_path(&key).join("environment.json")),
        read_only: options.read_only,
        author: git_author(),
    };
    Ok(Plan {
        key,
        names,
        content_key: site_id,
        source: source.to_string(),
        endpoint,
        base: Vec::new(),
        layout: Layout::Pantheon,
        env,
        initial,
        connection,
        mirror: Some(mirror),
        attest: Some(attest),
        waker,
    })
}

/// What the state directory was called by the names of the site that are known; what the platform says now comes first, and
/// is remembered.
fn names(now: Option<&str>, source: &Source, id: &str, around: &Environ) -> Vec<String> {
    let Source::Pantheon { site, env } = source else { return Vec::new() };
    let before = around.sites.name_of(id);
    if let Some(name) = now {
        around.sites.remember(name, id);
    }
    let given = (!is_uuid(site)).then(|| site.clone());
    let mut names = Vec::new();
    for name in [now.map(str::to_owned), given, before].into_iter().flatten() {
        let name = key(&format!("{name}.{env}"));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where the environment answers the web. Whoever leads SSH elsewhere (a simulator) says where that is, too: nobody else's
/// site is to be visited.
fn waker(known: &Known, env: &str, around: &Environ) -> CliResult<Option<Arc<Waker>>> {
    let Some(site) = known.name.clone() else { return Ok(None) };
    if around.ssh_host.is_some() && around.wake_url.is_none() {
        return Ok(None);
    }
    let told = known.environment.as_ref();
    let config = WakeConfig {
        site,
        env: env.to_owned(),
        dns_zone: told.and_then(|environment| environment.dns_zone.clone()),
        url: around.wake_url.clone(),
        lock: told.and_then(|environment| environment.lock.clone()),
    };
    Ok(Some(Arc::new(Waker::new(config)?)))
}

/// The id of a site and how the environment stands. A site that was seen before is mounted without the API, too.
fn by_name(control: &Control, (site, env): (&str, &str), around: &Environ) -> CliResult<Known> {
    let known = around.sites.id_of(site);
    let id = match control.site_id(site) {
        Ok(id) => id,
        Err(error) => return without_api(error, site, known),
    };
    around.sites.remember(site, &id);
    ask(control, &id, env).or_else(|error| without_api(error, site, known))
}

fn without_api(error: ControlError, site: &str, known: Option<String>) -> CliResult<Known> {
    let excused = error.is_passing() || matches!(error, ControlError::NotLoggedIn);
    match known.filter(|_| excused) {
        Some(id) => {
            log::warn!("{error}; the site is known from before: mounting without the platform's API");
            Ok(Known { id, name: Some(site.to_owned()), environment: None })
        }
        None => Err(error.into()),
    }
}

/// Who commits, as git knows it; `None` where it does not.
fn git_author() -> Option<(String, String)> {
    let ask = |key: &str| {
        let output = std::process::Command::new("git").args(["config", "--get", key]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    Some((ask("user.name")?, ask("user.email")?))
}

/// The site must be in a state to be mounted.
fn ask(control: &Control, id: &str, env: &str) -> Result<Known, ControlError> {
    let site = control.site(id)?;
    let name = Some(site.name).filter(|name| !name.is_empty());
    let called = name.clone().unwrap_or_else(|| id.to_owned());
    if site.frozen {
        return Err(ControlError::Frozen { name: called });
    }
    let environment = control.environment(id, env)?;
    let initialized = match environment.initialized {
        None if !EnvKind::of(env).takes_code() => control.is_initialized(id, env)?,
        told => told,
    };
    if initialized == Some(false) {
        return Err(ControlError::NotInitialized { name: format!("{called}.{env}") });
    }
    Ok(Known { id: id.to_owned(), name, environment: Some(environment) })
}

fn connection(endpoint: &Endpoint, path: String, git_url: Option<String>) -> Connection {
    Connection { host: endpoint.address.clone(), port: endpoint.port, user: endpoint.user.clone(), path, git_url }
}

/// A directory name for a source: what is not plain becomes `_`, and a checksum keeps different sources apart.
pub(super) fn key(source: &str) -> String {
    let plain: String = source
        .trim_start_matches("sftp://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
        .take(80)
        .collect();
    if plain == source { plain } else { format!("{plain}-{:08x}", crc32fast::hash(source.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directories_have_plain_and_distinct_names() {
        assert_eq!(key("mysite.dev"), "mysite.dev");
        assert_ne!(key("sftp://u@h/a b"), key("sftp://u@h/a_b"));
        assert!(!key("sftp://u@h/../../x").contains('/'));
    }
}
