//! Mounts made by the program itself, as a user would, and taken away whatever happens.

use std::path::{Path, PathBuf};

use pantheonfs::sim::{Sim, SimConfig};
use rustix::process::Pid;

use super::program::{Environ, Ran, is_mounted};
use super::sshd::Sshd;
use super::{Watch, has_fuse, watch};

/// A mount, and the server behind it.
pub struct Mounted {
    environ: Environ,
    dir: PathBuf,
    /// Where the mounted directory is on disk.
    pub server: PathBuf,
    pub sim: Option<Sim>,
    pub sshd: Option<Sshd>,
    _watch: Watch,
}

impl Mounted {
    /// Dev of a fresh simulated site.
    pub fn sim() -> Option<Self> {
        Self::sim_with(&SimConfig::default(), "dev", "")
    }

    pub fn sim_with(config: &SimConfig, environment: &str, options: &str) -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let sim = Sim::start(config).expect("the simulator starts");
        let environ = Environ::new().with(sim.env());
        let source = format!("{}.{environment}", sim.site());
        let all = format!("{},{options}", sim.options());
        let server = sim.home(environment).join("code");
        let mut mounted = Self::make(environ, &source, &all, server);
        mounted.sim = Some(sim);
        Some(mounted)
    }

    /// An empty directory of a real OpenSSH server.
    pub fn openssh(options: &str) -> Option<Self> {
        Self::openssh_with(&[], options)
    }

    /// The same, with further lines of the server's configuration.
    pub fn openssh_with(lines: &[&str], options: &str) -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let sshd = Sshd::with(lines)?;
        let tree = sshd.tree();
        let all = format!("{},{options}", sshd.options());
        let mut mounted = Self::make(Environ::new(), &sshd.url(&tree), &all, tree);
        mounted.sshd = Some(sshd);
        Some(mounted)
    }

    /// A directory of a real OpenSSH server, which `place` fills; it gives the port through which the server is reached.
    pub fn openssh_through(place: impl FnOnce(&Sshd) -> u16) -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let sshd = Sshd::start()?;
        let tree = sshd.tree();
        let port = place(&sshd);
        let source = sshd.url(&tree).replace(&format!(":{}/", sshd.port()), &format!(":{port}/"));
        let (key, hosts) = (sshd.file("id_rsa"), sshd.file("hosts"));
        let options = format!(
            "IdentityFile={},UserKnownHostsFile={},StrictHostKeyChecking=accept-new",
            key.display(),
            hosts.display()
        );
        let mut mounted = Self::make(Environ::new(), &source, &options, tree);
        mounted.sshd = Some(sshd);
        Some(mounted)
    }

    fn make(environ: Environ, source: &str, options: &str, server: PathBuf) -> Self {
        let dir = environ.path("mnt");
        std::fs::create_dir(&dir).expect("made");
        let mounted = Self { environ, dir, server, sim: None, sshd: None, _watch: watch() };
        mounted.mount(source, options).ok();
        assert!(is_mounted(&mounted.dir), "the program said that it has mounted");
        mounted
    }

    pub fn mount(&self, source: &str, options: &str) -> Ran {
        self.environ.run(&["mount", source, &self.dir.to_string_lossy(), "-o", options])
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same object on the server's disk, once the server was told of everything (as far as the link allows it).
    pub fn on_server(&self, name: &str) -> PathBuf {
        if let Err(error) = self.barrier() {
            // No failure by itself: some tests have cut the link. Who wonders about one finds this in its output.
            let told = |file: &str| std::fs::read_to_string(self.path(file)).unwrap_or_default();
            println!(
                "barrier before looking at {name}: {error}\n{}{}",
                told(".pantheon/sync"),
                told(".pantheon/status")
            );
        }
        self.there(name)
    }

    /// The same object on the server's disk, right now.
    pub fn there(&self, name: &str) -> PathBuf {
        self.server.join(name)
    }

    /// Waits until the server has everything.
    pub fn barrier(&self) -> std::io::Result<()> {
        std::fs::write(self.path(".pantheon/sync"), "now\n")
    }

    /// The process that serves the mount, as it has recorded it. Not by the command lines of all processes: to read that of a
    /// process that is busy with its memory may take minutes.
    #[allow(dead_code)] // tests/model.rs
    pub fn driver(&self) -> Pid {
        let states = std::fs::read_dir(self.environ().state()).expect("listed").flatten();
        let records = states.filter_map(|state| std::fs::read(state.path().join("mount.json")).ok());
        let mut records = records.filter_map(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        let ours = |record: &serde_json::Value| record["mountpoint"].as_str().map(Path::new) == Some(self.dir());
        let pid = records.find(ours).and_then(|record| record["pid"].as_i64()).expect("a record of the mount");
        Pid::from_raw(i32::try_from(pid).expect("a number")).expect("not zero")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn environ(&self) -> &Environ {
        &self.environ
    }

    pub fn sim_ref(&self) -> &Sim {
        self.sim.as_ref().expect("a simulated site")
    }

    pub fn umount(&self) -> Ran {
        self.environ.run(&["umount", &self.dir.to_string_lossy()])
    }

    /// One value of `.pantheon/status.json`.
    pub fn status(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path(".pantheon/status.json")).expect("status can be read");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Tells the simulator's control URL.
    pub fn control(&self, route: &str, body: &str) -> serde_json::Value {
        post(&format!("{}/{route}", self.sim_ref().control()), body)
    }
}

/// Sends JSON and returns JSON.
pub fn post(url: &str, body: &str) -> serde_json::Value {
    let mut answer = ureq::post(url).header("Content-Type", "application/json").send(body).expect("an answer");
    serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON")
}

pub fn get(url: &str) -> serde_json::Value {
    let mut answer = ureq::get(url).call().expect("an answer");
    serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON")
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the drivers' logs:\n{}", self.environ.driver_logs());
        }
        if is_mounted(&self.dir) {
            let gone = self.environ.run(&["umount", "--force", &self.dir.to_string_lossy()]);
            if !std::thread::panicking() {
                assert_eq!(gone.code(), 0, "{}", gone.err());
            }
        }
    }
}
