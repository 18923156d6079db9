//! The state of the simulator: the site, its environments, accepted keys, running workflows.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use russh::keys::{PublicKey, PublicKeyBase64};
use tempfile::TempDir;

use super::calls::Calls;
use super::config::{ENVIRONMENTS, SimConfig};
use super::job::Workflow;
use super::keys::{random_hex, random_text, random_uuid, ssh_keygen};
use super::link::LinkConfig;
use super::quirks::Quirks;
use super::round_trips::RoundTrips;
use crate::control::{ConnectionMode, EnvKind};

/// Shared by the SSH server, the API and the control URL.
pub(super) struct Shared {
    dir: TempDir,
    pub(super) site_name: String,
    pub(super) site_id: String,
    pub(super) user_id: String,
    pub(super) token: String,
    pub(super) password: String,
    pub(super) link: LinkConfig,
    state: Mutex<State>,
    round_trips: Mutex<RoundTrips>,
}

pub(super) struct State {
    pub(super) environments: BTreeMap<String, Environment>,
    pub(super) quirks: Quirks,
    pub(super) authorized: Vec<PublicKey>,
    /// API sessions that are accepted, and until when.
    pub(super) sessions: Vec<(String, Instant)>,
    pub(super) workflows: Vec<Workflow>,
    pub(super) sftp_sessions: u64,
    pub(super) ssh_port: u16,
    /// Health checks so far.
    pub(super) visits: u64,
    /// When the sleeping site will be awake.
    pub(super) woken: Option<Instant>,
    /// The API's account of its calls.
    pub(super) calls: Calls,
}

pub(super) struct Environment {
    pub(super) mode: ConnectionMode,
    /// Name of the directory that the login starts in; changes with each migration.
    pub(super) binding: String,
    /// SFTP sessions that run now.
    pub(super) sessions: u32,
    /// The largest number of SFTP sessions that ran at once.
    pub(super) most_sessions: u32,
    /// The commit that is shown as `target_commit` while the code of a newer one is still being synchronized.
    pub(super) deployed: Option<String>,
    /// The list of uncommitted paths when it was last asked for by itself.
    pub(super) stale_diffstat: Option<serde_json::Value>,
}

impl State {
    fn new(quirks: Quirks, authorized: PublicKey) -> io::Result<Self> {
        let environments = ENVIRONMENTS.iter().map(|name| Ok(((*name).to_owned(), Environment::new(name)?)));
        Ok(Self {
            environments: environments.collect::<io::Result<_>>()?,
            quirks,
            authorized: vec![authorized],
            sessions: Vec::new(),
            workflows: Vec::new(),
            sftp_sessions: 0,
            ssh_port: 0,
            visits: 0,
            woken: None,
            calls: Calls::default(),
        })
    }
}

impl Environment {
    fn new(name: &str) -> io::Result<Self> {
        let mode = if EnvKind::of(name).takes_code() { ConnectionMode::Sftp } else { ConnectionMode::Git };
        Ok(Self { mode, binding: random_hex(16)?, sessions: 0, most_sessions: 0, deployed: None, stale_diffstat: None })
    }
}

/// How long a container takes to wake up here; the platform's take up to 30 s.
const WAKING: Duration = Duration::from_secs(1);
/// Random bytes of the account's token: a Personal Access Token is long text that means nothing to clients.
const TOKEN_BYTES: usize = 192;
/// Password of the locked web site.
pub(super) const LOCK: (&str, &str) = ("visitor", "sim-lock");
pub(super) const EMAIL: &str = "dev@sim.example";

impl Shared {
    /// The state of a new site; its files are made by `site::build`.
    pub(super) fn create(config: &SimConfig) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("pantheonfs-sim-").tempdir()?;
        let mut quirks = Quirks::default();
        for (name, value) in &config.quirks {
            quirks.set(name, value).map_err(io::Error::other)?;
        }
        fs::create_dir(dir.path().join("home"))?;
        fs::create_dir(dir.path().join("terminus"))?;
        ssh_keygen("ecdsa", &dir.path().join("identity"))?;
        let host_key = if quirks.is("host-key", "rsa-sha1") { "rsa" } else { "ed25519" };
        ssh_keygen(host_key, &dir.path().join("host_key"))?;
        let authorized = russh::keys::load_public_key(dir.path().join("identity.pub")).map_err(io::Error::other)?;
        Ok(Self {
            site_name: "sim-wordpress".into(),
            site_id: random_uuid()?,
            user_id: random_uuid()?,
            token: random_text(TOKEN_BYTES)?,
            password: random_hex(8)?,
            link: LinkConfig::new(config.rtt, config.mbit),
            state: Mutex::new(State::new(quirks, authorized)?),
            round_trips: Mutex::default(),
            dir,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn home(&self, environment: &str) -> PathBuf {
        self.root().join("home").join(environment)
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.root().join("repository.git")
    }

    /// The private git directory of an environment's work tree; outside of `code`, where it is not seen.
    pub(super) fn git_dir(&self, environment: &str) -> PathBuf {
        self.root().join("git").join(environment)
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.root().join("identity")
    }

    /// The certificate (PEM) that vouches for the one of HTTPS.
    pub(super) fn authority(&self) -> PathBuf {
        self.root().join("authority.pem")
    }

    pub(super) fn known_hosts(&self) -> PathBuf {
        self.root().join("known_hosts")
    }

    pub(super) fn host_key(&self) -> PathBuf {
        self.root().join("host_key")
    }

    /// The line that a client's `known_hosts` needs.
    pub(super) fn known_hosts_line(&self) -> io::Result<String> {
        let key = russh::keys::load_public_key(self.root().join("host_key.pub")).map_err(io::Error::other)?;
        let port = self.lock().ssh_port;
        Ok(format!("[127.0.0.1]:{port} {} {}\n", key.algorithm().as_str(), key.public_key_base64()))
    }

    /// From the next connection on the server shows another key.
    pub(super) fn renew_host_key(&self) -> io::Result<()> {
        for name in ["host_key", "host_key.pub"] {
            fs::remove_file(self.root().join(name))?;
        }
        ssh_keygen("ed25519", &self.host_key())
    }

    pub(super) fn write_known_hosts(&self, port: u16) -> io::Result<()> {
        self.lock().ssh_port = port;
        fs::write(self.known_hosts(), self.known_hosts_line()?)?;
        fs::set_permissions(self.known_hosts(), fs::Permissions::from_mode(0o600))
    }

    /// Whether code may be changed over SFTP now.
    pub(super) fn code_writable(&self, environment: &str) -> bool {
        let writable = |env: &Environment| env.mode == ConnectionMode::Sftp;
        EnvKind::of(environment).takes_code() && self.lock().environments.get(environment).is_some_and(writable)
    }

    pub(super) fn quirk_is(&self, name: &str, value: &str) -> bool {
        self.lock().quirks.is(name, value)
    }

    /// Whether the containers sleep now, with `how` as the value of the quirk.
    pub(super) fn sleeps(&self, how: &str) -> bool {
        let state = self.lock();
        state.quirks.is("sleep", how) && state.woken.is_none_or(|at| Instant::now() < at)
    }

    /// A visit to the web site wakes the containers. Returns how long that takes.
    pub(super) fn visit(&self) -> Duration {
        let mut state = self.lock();
        state.visits += 1;
        let now = Instant::now();
        let asleep = !state.quirks.is("sleep", "off");
        let at = *state.woken.get_or_insert(if asleep { now + WAKING } else { now });
        at.saturating_duration_since(now)
    }

    pub(super) fn round_trips(&self) -> MutexGuard<'_, RoundTrips> {
        self.round_trips.lock()
    }
}
