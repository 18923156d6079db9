//! The filesystem in process on a simulated site: real SSH, and limits of a connection that a test can wait for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pantheonfs::clock::{Clock, Deadline};
use pantheonfs::control::ConnectionMode;
use pantheonfs::env::{Env, EnvConfig};
use pantheonfs::fs::{EarlierTree, Fs, FsConfig, Layout, Links};
use pantheonfs::gate::Gate;
use pantheonfs::remote::{Dial, Remote, RemoteConfig};
use pantheonfs::sim::{Sim, SimConfig};
use pantheonfs::transport::{self, Endpoint, Silent, SshOverrides, Strict};
use pantheonfs::vfiles::Connection;
use pantheonfs::write::Journal;
use tempfile::TempDir;

use super::kernel::Kernel;
use super::mounted::{get, post};

/// A mounted simulated site (dev).
pub struct SimRemote {
    pub sim: Sim,
    pub remote: Remote,
    _kernel: Kernel,
    dir: TempDir,
}

const LIMIT: Duration = Duration::from_secs(10);

impl SimRemote {
    /// `adjust` changes what the connection goes by.
    pub fn with(config: &SimConfig, adjust: impl FnOnce(RemoteConfig) -> RemoteConfig) -> Self {
        let sim = Sim::start(config).expect("the simulator starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = adjust(RemoteConfig::new(dial(&sim), Vec::new(), LIMIT));
        let first = (config.dial)(Deadline::after(LIMIT)).expect("connected");
        let remote = Remote::start(config, first).expect("a session");
        let (gate, clock) = (Gate::new(), Clock::system());
        let env = EnvConfig {
            name: Some("dev".into()),
            api: None,
            mode: Some(ConnectionMode::Sftp),
            memory: None,
            read_only: false,
            author: None,
        };
        let env = Env::start(env, gate.clone(), clock.clone(), None);
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("made");
        let config = FsConfig {
            source: "sim.dev".into(),
            uid: 0,
            gid: 0,
            umask: 0,
            fresh: Duration::from_secs(30),
            timeout: LIMIT,
            cache_bytes: 1 << 20,
            tree: EarlierTree::read(None, Layout::Pantheon).expect("a thread"),
            cache_dir: None,
            content_dir: None,
            journal: Arc::new(Journal::open(&state).expect("opened")),
            state_dir: state,
            sync: false,
            links: Links::default(),
            layout: Layout::Pantheon,
            mirror: None,
            git: None,
            attest: None,
            backups: None,
            connection: Connection::default(),
        };
        let fs = Fs::new(config, remote.clone(), env, gate, clock);
        let kernel = Kernel::mount(&fs, &dir.path().join("mnt"));
        Self { sim, remote, _kernel: kernel, dir }
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    /// The same on the server's disk.
    pub fn there(&self, name: &str) -> PathBuf {
        self.sim.home("dev").join("code").join(name)
    }

    pub fn control(&self, route: &str, body: &str) -> serde_json::Value {
        post(&format!("{}/{route}", self.sim.control()), body)
    }

    /// SSH connections so far.
    pub fn connections(&self) -> u64 {
        get(&format!("{}/counters", self.sim.control()))["connections"].as_u64().expect("a number")
    }

    /// SFTP sessions that the server has now, and how many it had at once at most.
    pub fn sessions(&self) -> (u64, u64) {
        let counters = get(&format!("{}/counters", self.sim.control()));
        let number = |name: &str| counters[name].as_u64().expect("a number");
        (number("sessions"), number("most_sessions"))
    }
}

/// Connects to the simulated dev environment.
pub fn dial(sim: &Sim) -> Dial {
    dial_through(sim, None)
}

/// The same through a proxy that listens on another port.
pub fn dial_through(sim: &Sim, port: Option<u16>) -> Dial {
    let told = sim.describe();
    let text = |at: &str| told.pointer(at).and_then(serde_json::Value::as_str).expect("text").to_owned();
    let given = SshOverrides {
        port: port.or_else(|| told["ssh"]["port"].as_u64().and_then(|port| u16::try_from(port).ok())),
        identity_files: vec![text("/ssh/identity").into()],
        user_known_hosts_files: vec![text("/ssh/known_hosts").into()],
        strict: port.map(|_| Strict::AcceptNew),
        ..SshOverrides::default()
    };
    let endpoint = Endpoint::resolve("127.0.0.1", None, Some(&text("/ssh/user/dev")), &given).expect("valid");
    Box::new(move |deadline| transport::connect(&endpoint, &Silent, deadline))
}
