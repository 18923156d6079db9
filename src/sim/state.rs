//! What the simulator knows: the site, its environments, who may log in, what runs.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use russh::keys::{PublicKey, PublicKeyBase64};
use tempfile::TempDir;

use super::link::LinkConfig;
use super::quirks::Quirks;
use super::round_trips::RoundTrips;
use super::workflows::Workflow;
use super::{ENVIRONMENTS, SimConfig, demo_site, site};
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
    pub(super) rounds: Mutex<RoundTrips>,
}

pub(super) struct State {
    pub(super) environments: BTreeMap<String, Environment>,
    pub(super) quirks: Quirks,
    pub(super) authorized: Vec<PublicKey>,
    /// API sessions that are accepted.
    pub(super) sessions: Vec<String>,
    pub(super) workflows: Vec<Workflow>,
    pub(super) sftp_sessions: u64,
    pub(super) ssh_port: u16,
    /// Health checks so far.
    pub(super) visits: u64,
    /// When the sleeping site will be awake.
    pub(super) woken: Option<Instant>,
    /// Calls of the API so far.
    pub(super) api_calls: u64,
}

pub(super) struct Environment {
    pub(super) mode: ConnectionMode,
    /// What `pwd` says after login: changes with each migration.
    pub(super) binding: String,
    /// SFTP sessions that run.
    pub(super) sessions: u32,
    /// And how many ran at once at most.
    pub(super) most_sessions: u32,
    /// The pending list as it was when it was last looked at closely.
    pub(super) stale_diffstat: Option<serde_json::Value>,
}

/// How long a container takes to wake up here; the platform's take up to 30 s.
const WAKING: Duration = Duration::from_secs(1);
/// Password of the locked web site.
pub(super) const LOCK: (&str, &str) = ("visitor", "sim-lock");
pub(super) const EMAIL: &str = "dev@sim.example";

/// `n` random bytes as hexadecimal text.
pub(super) fn random_hex(n: usize) -> io::Result<String> {
    let mut bytes = vec![0; n];
    let mut at = 0;
    while at < n {
        at += rustix::rand::getrandom(&mut bytes[at..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

pub(super) fn random_uuid() -> io::Result<String> {
    let hex = random_hex(16)?;
    Ok(format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]))
}

/// Keys are made by OpenSSH itself: its formats are what clients must read.
fn ssh_keygen(kind: &str, file: &Path) -> io::Result<()> {
    let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "sim", "-f"]).arg(file).args(bits);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("ssh-keygen ended with {status}"))),
        Err(error) => Err(io::Error::other(format!("ssh-keygen (package openssh-client): {error}"))),
    }
}

impl Shared {
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
        let environments = ENVIRONMENTS.iter().map(|name| {
            let mode = if EnvKind::of(name).takes_code() { ConnectionMode::Sftp } else { ConnectionMode::Git };
            let environment =
                Environment { mode, binding: random_hex(16)?, sessions: 0, most_sessions: 0, stale_diffstat: None };
            io::Result::Ok(((*name).to_owned(), environment))
        });
        let shared = Self {
            site_name: "sim-wordpress".into(),
            site_id: random_uuid()?,
            user_id: random_uuid()?,
            token: random_hex(20)?,
            password: random_hex(8)?,
            link: LinkConfig::new(config.rtt, config.mbit),
            state: Mutex::new(State {
                environments: environments.collect::<io::Result<_>>()?,
                quirks,
                authorized: vec![authorized],
                sessions: Vec::new(),
                workflows: Vec::new(),
                sftp_sessions: 0,
                ssh_port: 0,
                visits: 0,
                woken: None,
                api_calls: 0,
            }),
            rounds: Mutex::default(),
            dir,
        };
        let code = shared.home("dev").join("code");
        match &config.code {
            Some(from) => site::copy_tree(from, &code)?,
            None => demo_site::write(&code)?,
        }
        site::build(&shared)?;
        Ok(shared)
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

    pub(super) fn habit_is(&self, name: &str, value: &str) -> bool {
        self.lock().quirks.is(name, value)
    }

    /// Whether the containers sleep, and this is how it shows.
    pub(super) fn sleeps(&self, how: &str) -> bool {
        let state = self.lock();
        state.quirks.is("sleep", how) && state.woken.is_none_or(|at| Instant::now() < at)
    }

    /// Somebody visits: it wakes up, and takes its time.
    pub(super) fn visit(&self) -> Duration {
        let mut state = self.lock();
        state.visits += 1;
        let now = Instant::now();
        let asleep = !state.quirks.is("sleep", "off");
        let at = *state.woken.get_or_insert(if asleep { now + WAKING } else { now });
        at.saturating_duration_since(now)
    }

    pub(super) fn rounds(&self) -> MutexGuard<'_, RoundTrips> {
        self.rounds.lock()
    }
}
