//! The plan of a mount: from a source and options to endpoint, API and directories.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::early::Early;
use super::environ::{Environ, Platform};
use super::exit::{CliResult, Exit, Failure};
use super::nearest;
use super::options::Options;
use super::source::{SftpUrl, Source, dir_name, is_uuid};
use crate::control::{Control, ControlError, EnvKind, Environment, WakeConfig, Waker};
use crate::env::EnvConfig;
use crate::fs::{AttestConfig, Layout};
use crate::mirror::MirrorConfig;
use crate::transport::{self, Endpoint, Secret, SshOverrides, TransportError};
use crate::vfiles::Connection;

/// What a mount needs.
pub(super) struct Plan {
    pub(super) source: String,
    pub(super) endpoint: Endpoint,
    /// The directory on the server that is mounted; empty for the login directory.
    pub(super) base: Vec<u8>,
    pub(super) layout: Layout,
    pub(super) env: EnvConfig,
    /// The environment as the API described it during the preparation.
    pub(super) initial: Option<Environment>,
    pub(super) connection: Connection,
    /// Name of the state directory.
    pub(super) key: String,
    /// Names that it had in older versions; the first is the one that people know.
    pub(super) names: Vec<String>,
    /// Name of the directory that caches content: one for all environments of a site.
    pub(super) content_key: String,
    pub(super) mirror: Option<MirrorConfig>,
    /// How the server is asked for checksums.
    pub(super) attest: Option<AttestConfig>,
    /// Wakes the environment; `None` for a plain server, or if the name of the site is not known.
    pub(super) waker: Option<Arc<Waker>>,
    /// The connection that began while the API was asked.
    pub(super) early: Option<Early>,
}

/// Begins a connection to the endpoint of the environment with this key, or does not.
pub(super) type Begin<'a> = &'a dyn Fn(Endpoint, &str) -> Option<Early>;

/// A site, as far as it is known before a connection.
struct Known {
    id: String,
    /// `None`: given by its UUID, and the API cannot be asked for the name.
    name: Option<String>,
    environment: Option<Environment>,
}

/// Port of the platform's SFTP.
const PANTHEON_PORT: u16 = 2222;

/// Makes the plan; asks the API where that is possible. `begin` is called as soon as it is known where to connect to, while the
/// API is still to be asked.
pub(super) fn make(source: &Source, options: &Options, around: &Environ, begin: Begin<'_>) -> CliResult<Plan> {
    let given = overrides(options, around)?;
    match source {
        Source::Pantheon { .. } => pantheon(source, options, around, (&given, begin)),
        Source::Url(url) => plain(source, url, options, &given),
    }
}

fn overrides(options: &Options, around: &Environ) -> CliResult<SshOverrides> {
    let password = match &options.password_file {
        None => None,
        Some(file) => {
            let read = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|e| {
                Failure::caused(Exit::LoginRefused, format!("{}: the password cannot be read", file.display()), e)
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
    let source = source.to_string();
    Ok(Plan {
        content_key: dir_name(&source),
        key: dir_name(&source),
        names: Vec::new(),
        source,
        endpoint,
        base: url.path.clone(),
        layout: Layout::Plain,
        env: EnvConfig {
            name: None,
            api: None,
            mode: options.mode,
            memory: None,
            read_only: options.read_only,
            author: None,
        },
        initial: None,
        connection,
        mirror: None,
        attest: None,
        waker: None,
        early: None,
    })
}

fn pantheon(
    source: &Source,
    options: &Options,
    around: &Environ,
    (given, begin): (&SshOverrides, Begin<'_>),
) -> CliResult<Plan> {
    let Source::Pantheon { site, env } = source else { return Err(Failure::new(Exit::Usage, source.to_string())) };
    let platform = around.platform()?;
    let control = Control::new(platform.control.clone())?;
    let mut early = None;
    let mut found = |id: &str| {
        if early.is_none()
            && let Ok(endpoint) = endpoint(id, env, &platform, given)
        {
            early = begin(endpoint, &dir_name(&format!("{id}.{env}")));
        }
    };
    let known = match is_uuid(site) {
        true => by_id(&control, (site, env), &mut found),
        false => by_name(&control, (site, env), around, &mut found),
    };
    let known = known.map_err(|error| nearest::failure(error, (site, env), &control, around))?;
    let waker = waker(&known, env, &platform)?;
    let Known { id, environment: initial, name } = known;
    let names = names(name.as_deref(), source, &id, around);
    let endpoint = endpoint(&id, env, &platform, given)?;
    // A name that was remembered may be that of another site by now.
    let early = early.filter(|early| early.leads_to(&endpoint));
    let git_url = git_url(&id, &endpoint, &platform);
    let key = dir_name(&format!("{id}.{env}"));
    let api = (initial.is_some() || control.can_log_in()).then(|| (control, id.clone()));
    Ok(Plan {
        source: source.to_string(),
        base: Vec::new(),
        layout: Layout::Pantheon,
        env: EnvConfig {
            name: Some(env.to_owned()),
            api,
            mode: options.mode,
            memory: Some(around.state_path(&key).join("environment.json")),
            read_only: options.read_only,
            author: git_author(),
        },
        initial,
        connection: connection(&endpoint, "code".into(), Some(git_url.clone())),
        key,
        names,
        mirror: Some(MirrorConfig {
            dir: around.mirror_dir(&id)?,
            url: git_url,
            ssh_command: transport::git_ssh_command(&endpoint),
        }),
        attest: Some(AttestConfig {
            ssh_command: transport::ssh_command(&endpoint),
            host: endpoint.host.clone(),
            dir: "code".into(),
        }),
        content_key: id,
        endpoint,
        waker,
        early,
    })
}

/// Where the environment is, and the account there.
fn endpoint(id: &str, env: &str, platform: &Platform, given: &SshOverrides) -> Result<Endpoint, TransportError> {
    let (host, user) = match &platform.ssh_host {
        Some(host) => (host.clone(), format!("appserver.{env}.{id}")),
        None => (format!("appserver.{env}.{id}.drush.in"), format!("{env}.{id}")),
    };
    Endpoint::resolve(&host, Some(PANTHEON_PORT), Some(&user), given)
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
        let name = dir_name(&format!("{name}.{env}"));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The address of a site's repository.
fn git_url(id: &str, endpoint: &Endpoint, platform: &Platform) -> String {
    let git = format!("codeserver.dev.{id}");
    // A host that serves all sites has one port, too.
    let (host, port) = match &platform.ssh_host {
        Some(host) => (host.clone(), endpoint.port),
        None => (format!("{git}.drush.in"), PANTHEON_PORT),
    };
    format!("ssh://{git}@{host}:{port}/~/repository.git")
}

/// Wakes the environment by its web site. If SSH is directed to another host (a simulator), the web site must be, too, so
/// that no foreign site is visited.
fn waker(known: &Known, env: &str, platform: &Platform) -> CliResult<Option<Arc<Waker>>> {
    let Some(site) = known.name.clone() else { return Ok(None) };
    if platform.ssh_host.is_some() && platform.wake_url.is_none() {
        return Ok(None);
    }
    let told = known.environment.as_ref();
    let config = WakeConfig {
        site,
        env: env.to_owned(),
        dns_zone: told.and_then(|environment| environment.dns_zone.clone()),
        url: platform.wake_url.clone(),
        lock: told.and_then(|environment| environment.lock.clone()),
        certificates: platform.control.certificates.clone(),
    };
    Ok(Some(Arc::new(Waker::new(config)?)))
}

/// A site that is given by its UUID, from which host and user follow: without a login only the mode stays unknown.
fn by_id(control: &Control, (id, env): (&str, &str), found: &mut dyn FnMut(&str)) -> Result<Known, ControlError> {
    found(id);
    let without_api = || Known { id: id.to_owned(), name: None, environment: None };
    if !control.can_log_in() {
        return Ok(without_api());
    }
    match ask(control, id, env) {
        Err(error) if error.is_passing() => {
            log::warn!("{error}; mounting without the API");
            Ok(without_api())
        }
        asked => asked,
    }
}

/// A site that is given by its name. One that was mounted before is mounted without the API, too.
fn by_name(
    control: &Control,
    (site, env): (&str, &str),
    around: &Environ,
    found: &mut dyn FnMut(&str),
) -> Result<Known, ControlError> {
    let known = around.sites.id_of(site);
    known.iter().for_each(|id| found(id));
    let id = match control.site_id(site) {
        Ok(id) => id,
        Err(error) => return without_api(error, site, known),
    };
    around.sites.remember(site, &id);
    found(&id);
    ask(control, &id, env).or_else(|error| without_api(error, site, known))
}

fn without_api(error: ControlError, site: &str, known: Option<String>) -> Result<Known, ControlError> {
    let excused = error.is_passing() || matches!(error, ControlError::NotLoggedIn);
    match known.filter(|_| excused) {
        Some(id) => {
            log::warn!("{error}; the site was mounted before: mounting without the API");
            Ok(Known { id, name: Some(site.to_owned()), environment: None })
        }
        None => Err(error),
    }
}

/// Name and email from git's configuration; `None` if they are not set.
fn git_author() -> Option<(String, String)> {
    let ask = |key: &str| {
        let output = std::process::Command::new("git").args(["config", "--get", key]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    Some((ask("user.name")?, ask("user.email")?))
}

/// Asks the API for the site and the environment, and checks that it can be mounted.
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
