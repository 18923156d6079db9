//! A small Pantheon on loopback: SSH with SFTP, the API, git repositories, and a control URL for what other people and
//! bad luck do. Ships in `pantheonfs demo` and drives the tests; the client learns about it only over the wire.
//!
//! A simulated site is unmistakable: its name starts with `sim-`, and everything listens on 127.0.0.1 only.

mod api;
mod codeserver;
mod control;
mod demo_site;
mod exec;
mod link;
mod quirks;
mod round_trips;
mod sftp;
mod site;
mod ssh;
mod state;
mod workflows;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use link::{LinkConfig, run_link};

use state::Shared;

/// What to simulate.
#[derive(Debug, Clone, Default)]
pub struct SimConfig {
    /// The site's code; copied, never touched. A small WordPress-like site if not given.
    pub code: Option<PathBuf>,
    pub rtt: Duration,
    /// Bandwidth of SSH per direction, Mbit/s; 0: unlimited.
    pub mbit: u64,
    /// Quirks to begin with, by name.
    pub quirks: Vec<(String, String)>,
    /// Port of the SSH server; 0: any.
    pub port: u16,
}

/// A running simulator; gone, with its files, when dropped.
pub struct Sim {
    shared: Arc<Shared>,
    ssh: SocketAddr,
    http: SocketAddr,
    runtime: Option<Runtime>,
}

/// Names of the environments of the simulated site.
pub const ENVIRONMENTS: [&str; 4] = ["dev", "test", "live", "feature-x"];

impl Sim {
    pub fn start(config: &SimConfig) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let shared = Arc::new(Shared::create(config)?);
        let (ssh, http) = runtime.block_on(async {
            let ssh = TcpListener::bind(("127.0.0.1", config.port)).await?;
            let http = TcpListener::bind(("127.0.0.1", 0)).await?;
            io::Result::Ok((ssh, http))
        })?;
        let mut sim = Self { ssh: ssh.local_addr()?, http: http.local_addr()?, shared, runtime: None };
        sim.shared.write_known_hosts(sim.ssh.port())?;
        runtime.spawn(ssh::serve(sim.shared.clone(), ssh));
        let routes = api::routes(sim.shared.clone()).merge(control::routes(sim.shared.clone()));
        runtime.spawn(async move {
            if let Err(error) = axum::serve(http, routes).await {
                log::error!("the simulated API ended: {error}");
            }
        });
        sim.runtime = Some(runtime);
        Ok(sim)
    }

    pub fn site(&self) -> &str {
        &self.shared.site_name
    }

    pub fn site_id(&self) -> &str {
        &self.shared.site_id
    }

    /// Directory on disk that holds `code`, `files`, … of an environment.
    pub fn home(&self, environment: &str) -> PathBuf {
        self.shared.home(environment)
    }

    /// The bare repository behind the site.
    pub fn repository(&self) -> PathBuf {
        self.shared.repository()
    }

    /// Somewhere to put what should go with the simulator.
    pub fn root(&self) -> &Path {
        self.shared.root()
    }

    pub fn control(&self) -> String {
        format!("http://{}/control", self.http)
    }

    /// Variables that lead a client here.
    pub fn env(&self) -> BTreeMap<String, String> {
        let text = |value: &Path| value.display().to_string();
        BTreeMap::from([
            ("TERMINUS_PROTOCOL".into(), "http".into()),
            ("TERMINUS_HOST".into(), self.http.ip().to_string()),
            ("TERMINUS_PORT".into(), self.http.port().to_string()),
            ("PANTHEONFS_WAKE_URL".into(), format!("http://{}", self.http)),
            ("TERMINUS_SSH_HOST".into(), self.ssh.ip().to_string()),
            ("TERMINUS_MACHINE_TOKEN".into(), self.shared.token.clone()),
            ("TERMINUS_CACHE_DIR".into(), text(&self.shared.root().join("terminus"))),
        ])
    }

    /// What goes after `-o`.
    pub fn options(&self) -> String {
        format!(
            "Port={},IdentityFile={},UserKnownHostsFile={}",
            self.ssh.port(),
            self.shared.identity().display(),
            self.shared.known_hosts().display()
        )
    }

    /// Everything that others need to know, as `pantheonfs sim --json` prints it.
    pub fn describe(&self) -> Value {
        let each = |value: &dyn Fn(&str) -> String| -> Value {
            ENVIRONMENTS
                .iter()
                .map(|env| ((*env).to_owned(), Value::String(value(env))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "site": self.site(),
            "env": self.env(),
            "options": self.options(),
            "home": each(&|env| self.home(env).display().to_string()),
            "repository": self.repository(),
            "ssh": {
                "host": self.ssh.ip().to_string(),
                "port": self.ssh.port(),
                "identity": self.shared.identity(),
                "known_hosts": self.shared.known_hosts(),
                "password": self.shared.password,
                "user": each(&|env| format!("{env}.{}", self.site_id())),
            },
            "control": self.control(),
        })
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
