//! The running simulator: its servers, and what a client needs to find them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::config::{ENVIRONMENTS, SimConfig};
use super::state::Shared;
use super::tls::Secure;
use super::{api, control, health, site, ssh};

/// A running simulator. Dropping it ends its servers and deletes its files.
pub struct Sim {
    shared: Arc<Shared>,
    ssh: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    runtime: Option<Runtime>,
}

impl Sim {
    /// Builds the site and starts the servers.
    ///
    /// # Errors
    ///
    /// A quirk is unknown, `ssh-keygen` is missing, the code cannot be copied, or a port cannot be opened.
    pub fn start(config: &SimConfig) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let shared = Arc::new(Shared::create(config)?);
        site::build(&shared, config.code.as_deref())?;
        let (ssh, http, https) = runtime.block_on(async {
            let ssh = TcpListener::bind(("127.0.0.1", config.port)).await?;
            let http = TcpListener::bind(("127.0.0.1", 0)).await?;
            let https = Secure::start(&shared.authority()).await?;
            io::Result::Ok((ssh, http, https))
        })?;
        let at = (ssh.local_addr()?, http.local_addr()?, https.local_addr()?);
        let mut sim = Self { ssh: at.0, http: at.1, https: at.2, shared, runtime: None };
        sim.shared.write_known_hosts(sim.ssh.port())?;
        runtime.spawn(ssh::serve(sim.shared.clone(), ssh));
        let routes = api::routes(sim.shared.clone()).merge(control::routes(sim.shared.clone()));
        let routes = routes.merge(health::routes(sim.shared.clone()));
        let secure = axum::serve(https, routes.clone());
        runtime.spawn(async move {
            if let Err(error) = secure.await {
                log::error!("the simulated API ended: {error}");
            }
        });
        runtime.spawn(async move {
            if let Err(error) = axum::serve(http, routes).await {
                log::error!("the simulated API ended: {error}");
            }
        });
        sim.runtime = Some(runtime);
        Ok(sim)
    }

    /// Name of the site.
    pub fn site(&self) -> &str {
        &self.shared.site_name
    }

    /// UUID of the site.
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

    /// A directory for files that are deleted with the simulator.
    pub fn root(&self) -> &Path {
        self.shared.root()
    }

    /// The control URL.
    pub fn control(&self) -> String {
        format!("http://{}/control", self.http)
    }

    /// Environment variables that direct a client to the simulator.
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

    /// The same by HTTPS, with the certificate to trust.
    pub fn secure_env(&self) -> BTreeMap<String, String> {
        let mut env = self.env();
        env.extend([
            ("TERMINUS_PROTOCOL".into(), "https".into()),
            ("TERMINUS_PORT".into(), self.https.port().to_string()),
            ("PANTHEONFS_WAKE_URL".into(), format!("https://{}", self.https)),
            ("SSL_CERT_FILE".into(), self.shared.authority().display().to_string()),
        ]);
        env
    }

    /// The value of `-o` for a mount.
    pub fn options(&self) -> String {
        format!(
            "Port={},IdentityFile={},UserKnownHostsFile={}",
            self.ssh.port(),
            self.shared.identity().display(),
            self.shared.known_hosts().display()
        )
    }

    /// Everything that a client needs to know, as `pantheonfs sim --json` prints it.
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
            "secure_env": self.secure_env(),
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
