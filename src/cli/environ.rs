//! Environment variables and what follows from them. No other file reads them.

use parking_lot::Mutex;
use std::env;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::private_dir::private_dir;
use super::sites::Sites;
use super::source::Source;
use super::terminus::Terminus;
use crate::control::ControlConfig;
use crate::path::RemotePath;
use crate::write::keep_reverted;

/// The environment that the process was started in.
pub(super) struct Environ {
    pub(super) home: Option<PathBuf>,
    pub(super) here: PathBuf,
    /// `SSH_AUTH_SOCK`.
    pub(super) agent: Option<PathBuf>,
    /// The session bus of the desktop, as D-Bus writes it.
    pub(super) session_bus: Option<String>,
    pub(super) sites: Sites,
    state_root: PathBuf,
    cache_root: PathBuf,
}

/// How the platform is reached.
pub(super) struct Platform {
    pub(super) control: ControlConfig,
    /// `TERMINUS_SSH_HOST`: one host that serves all sites.
    pub(super) ssh_host: Option<String>,
    /// `PANTHEONFS_WAKE_URL`: where a simulator answers the health checks of its environments.
    pub(super) wake_url: Option<String>,
    /// The files with settings that were read, and what does not count in them.
    pub(super) settings: Option<String>,
}

/// Variables that may hold a machine token, in this order.
const TOKEN_VARIABLES: [&str; 3] = ["TERMINUS_MACHINE_TOKEN", "PANTHEON_MACHINE_TOKEN", "TERMINUS_TOKEN"];

/// Variables, without secrets, that say how the platform is reached and where state is kept: a mount at login needs the values
/// of the session that asked for it.
const KEPT_FOR_LOGIN: [&str; 13] = [
    "TERMINUS_USER",
    "TERMINUS_HOST",
    "TERMINUS_PORT",
    "TERMINUS_PROTOCOL",
    "TERMINUS_SSH_HOST",
    "TERMINUS_CACHE_DIR",
    "TERMINUS_TOKENS_DIR",
    "TERMINUS_BASE_DIR",
    "SSL_CERT_FILE",
    "PANTHEONFS_API",
    "PANTHEONFS_WAKE_URL",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
];

/// The socket of the SSH agent.
pub(super) const AGENT: &str = "SSH_AUTH_SOCK";

/// The machine token, taken out of the environment.
static TOKEN: Mutex<Option<Zeroizing<String>>> = Mutex::new(None);
/// Longer than any token (bytes).
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Takes the machine token out of the environment, so that no child inherits it: not ssh, not git, not an editor. Must be
/// called before any thread starts.
#[expect(unsafe_code, reason = "the environment can be changed by no other call")]
pub(super) fn hide_token() {
    let found = TOKEN_VARIABLES.iter().find_map(|name| text(name)).map(Zeroizing::new);
    for name in TOKEN_VARIABLES {
        // SAFETY: no thread has been started yet, so no other code reads the environment meanwhile.
        unsafe { env::remove_var(name) };
    }
    keep_token(found);
}

/// Reads the machine token from the pipe that the parent process passes.
pub(super) fn receive_token(descriptor: i32) -> CliResult<()> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "the token cannot be passed on", e);
    let pipe = std::fs::File::open(format!("/proc/self/fd/{descriptor}")).map_err(failed)?;
    let mut token = Zeroizing::new(String::new());
    pipe.take(MAX_TOKEN_BYTES).read_to_string(&mut token).map_err(failed)?;
    keep_token(Some(token).filter(|token| !token.is_empty()));
    Ok(())
}

fn keep_token(token: Option<Zeroizing<String>>) {
    *TOKEN.lock() = token;
}

/// The machine token that was given for this run.
pub(super) fn token() -> Option<Zeroizing<String>> {
    TOKEN.lock().clone()
}

/// Every secret of the platform on this machine: the token of this run, and the texts of Terminus' session and saved tokens.
pub(super) fn secrets_of(platform: &Platform) -> Vec<String> {
    let control = &platform.control;
    let mut out: Vec<String> = control.token.iter().map(|token| token.to_string()).collect();
    let tokens = control.tokens_dir.clone().or_else(|| Some(control.cache_dir.as_ref()?.join("tokens")));
    let saved =
        tokens.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    for file in saved.chain(control.cache_dir.iter().map(|dir| dir.join("session"))) {
        let Ok(bytes) = std::fs::read(file).map(Zeroizing::new) else { continue };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        let secret = |name: &&str| value[*name].as_str().map(str::to_owned);
        out.extend(["token", "session", "email"].iter().filter_map(secret));
    }
    out
}

/// The variables that a mount at login is given. The agent is one of them if its socket is at the same place at each login.
pub(super) fn kept_for_login() -> Vec<(String, String)> {
    let kept = KEPT_FOR_LOGIN.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?)));
    let agent =
        path("XDG_RUNTIME_DIR").zip(text(AGENT)).filter(|(runtime, agent)| Path::new(agent).starts_with(runtime));
    kept.chain(agent.map(|(_, agent)| (AGENT.to_owned(), agent))).collect()
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The session bus that the variables name, or that a login of this user has; mount(8) removes the variables.
fn session_bus() -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if let Some(address) = text("DBUS_SESSION_BUS_ADDRESS") {
        return Some(address);
    }
    let user = rustix::process::getuid().as_raw();
    let runtime = path("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{user}")));
    let socket = runtime.join("bus");
    let meta = socket.metadata().ok()?;
    let is_own = meta.file_type().is_socket() && meta.uid() == user;
    is_own.then(|| format!("unix:path={}", socket.display()))
}

impl Environ {
    /// Reads the environment variables.
    pub(super) fn look() -> CliResult<Self> {
        let home = env::home_dir().filter(|home| home.is_absolute());
        let below_home = |tail: &str| home.as_ref().map(|home| home.join(tail));
        let root = |variable: &str, tail: &str| {
            let given = path(variable).filter(|path| path.is_absolute());
            given.or_else(|| below_home(tail)).map(|path| path.join("pantheonfs"))
        };
        let homeless =
            || Failure::new(Exit::Failed, "no home directory is known; set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME");
        let state_root = root("XDG_STATE_HOME", ".local/state").ok_or_else(homeless)?;
        Ok(Self {
            sites: Sites::below(&state_root),
            here: env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            agent: path(AGENT),
            session_bus: session_bus(),
            state_root,
            cache_root: root("XDG_CACHE_HOME", ".cache").ok_or_else(homeless)?,
            home,
        })
    }

    /// How the platform is reached: read when it is needed, because `.env` may be in a mount without a link.
    ///
    /// # Errors
    ///
    /// A setting cannot be read, or is not what it should be.
    pub(super) fn platform(&self) -> CliResult<Platform> {
        let variables =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let settings = Terminus::read(variables, self.home.as_deref(), &self.here)?;
        let port = match settings.get("port") {
            Some((port, from)) => Some(port.parse().map_err(|error: std::num::ParseIntError| {
                Failure::caused(Exit::Usage, format!("{from}: {port} is not a port number"), error)
            })?),
            None => None,
        };
        let control = ControlConfig {
            protocol: settings.text("protocol"),
            host: settings.text("host"),
            port,
            token: token(),
            cache_dir: settings.dir("cache_dir"),
            tokens_dir: settings.dir("tokens_dir"),
            // Nothing is shared through a directory of another user; making the mount reports it.
            shared_dir: private_dir(&self.cache_root, &["api"]).ok(),
            certificates: path("SSL_CERT_FILE").map(|file| self.here.join(file)),
            user: settings.text("user"),
            api: text("PANTHEONFS_API"),
        };
        Ok(Platform {
            control,
            ssh_host: settings.text("ssh_host"),
            wake_url: text("PANTHEONFS_WAKE_URL"),
            settings: settings.describe(),
        })
    }

    /// The directory of the user's units of systemd, which may not exist.
    pub(super) fn units(&self) -> CliResult<PathBuf> {
        let config = path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config = config.or_else(|| Some(self.home.as_ref()?.join(".config")));
        let homeless = || Failure::new(Exit::Failed, "no home directory is known; set HOME");
        config.map(|config| config.join("systemd/user")).ok_or_else(homeless)
    }

    /// The state directory of one environment, made if missing. Its content must not be lost.
    pub(super) fn state_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.state_root, &[key])
    }

    /// The path of the state directory of one environment, which may not exist.
    pub(super) fn state_path(&self, key: &str) -> PathBuf {
        self.state_root.join(key)
    }

    /// The state directory of an environment that was mounted before.
    pub(super) fn known_state_dir(&self, source: &Source) -> Option<PathBuf> {
        // Older versions named it by the site.
        let keys = std::iter::once(self.sites.key(source)).chain(self.sites.former_keys(source));
        let is_dir = |dir: &PathBuf| dir.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        keys.map(|key| self.state_path(&key)).find(is_dir)
    }

    /// The directory of all state directories, made if missing.
    pub(super) fn state_root(&self) -> CliResult<PathBuf> {
        private_dir(&self.state_root, &[])
    }

    /// The path of the directory that caches the tree of one environment, which may not exist.
    pub(super) fn cache_path(&self, key: &str) -> PathBuf {
        self.cache_root.join(key)
    }

    /// The directory that caches the tree of one environment, made if missing. May be deleted.
    pub(super) fn cache_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &[key])
    }

    /// The directory that caches the content of a site's files, made if missing. May be deleted.
    pub(super) fn content_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &["content", key])
    }

    /// The directory of the local copy of a site's repository, made if missing. May be deleted.
    pub(super) fn mirror_dir(&self, site: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &["mirror", &format!("{site}.git")])
    }

    /// Keeps a copy of a file that a command is about to replace, under a free name below `reverted/`.
    pub(super) fn keep_reverted(&self, source: &std::ffi::OsStr, inside: &Path, content: &[u8]) -> CliResult<PathBuf> {
        let key = self.sites.key(&Source::parse(source)?);
        let state_dir = self.state_dir(&key)?;
        let failed = |e: std::io::Error| {
            let text = format!("{}: no copy could be kept in {}", inside.display(), state_dir.display());
            Failure::caused(Exit::Failed, text, e)
        };
        let path = RemotePath::parse(inside.as_os_str().as_bytes()).map_err(|e| failed(std::io::Error::other(e)))?;
        keep_reverted(&state_dir, &path, content).map_err(failed)
    }
}
