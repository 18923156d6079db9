//! A real OpenSSH server on loopback, with keys and configuration of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;

/// Where distributions put it.
const PROGRAM: &str = "/usr/sbin/sshd";

/// A running server whose users are whoever runs the tests.
pub struct Sshd {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// `None`, loudly, where OpenSSH's server is not installed.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With further lines of configuration.
    pub fn with(lines: &[&str]) -> Option<Self> {
        if !Path::new(PROGRAM).exists() || super::server::sftp_server().is_none() {
            super::skip("openssh-server is not installed (scripts/setup installs it)");
            return None;
        }
        // Its privilege separation directory, which only init scripts make.
        let _ = fs::create_dir_all("/run/sshd");
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (kind, name) in [("ed25519", "host_key"), ("rsa", "id_rsa"), ("ed25519", "id_ed25519"), ("rsa", "stranger")]
        {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", kind, "-N", "", "-f"]).arg(dir.path().join(name));
            assert!(keygen.status().expect("ssh-keygen runs").success());
        }
        let authorized = fs::read(dir.path().join("id_rsa.pub")).expect("a key");
        fs::write(dir.path().join("authorized"), authorized).expect("written");
        let port = free_port();
        let place = |name: &str| dir.path().join(name).display().to_string();
        let subsystem = super::server::sftp_server().expect("looked for above").display();
        let mut config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxSessions 50\nMaxStartups 100\n",
            place("host_key"),
            place("authorized")
        );
        config.extend(lines.iter().map(|line| format!("{line}\n")));
        if !config.contains("Subsystem ") {
            config.push_str(&format!("Subsystem sftp {subsystem}\n"));
        }
        fs::write(dir.path().join("config"), config).expect("written");
        let key = fs::read_to_string(dir.path().join("host_key.pub")).expect("a key");
        let key = key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        fs::write(dir.path().join("known_hosts"), format!("[127.0.0.1]:{port} {key}\n")).expect("written");
        let mut command = Command::new(PROGRAM);
        command.arg("-D").arg("-f").arg(dir.path().join("config")).arg("-E").arg(dir.path().join("log"));
        let child = command.stdin(Stdio::null()).spawn().expect("sshd starts");
        let sshd = Self { dir, port, child };
        eventually("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(sshd)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server's processes have open below its tree: handles of clients.
    #[allow(dead_code)] // tests/model.rs
    pub fn handles(&self) -> usize {
        let tree = self.tree();
        let servers =
            fs::read_dir("/proc").expect("listed").flatten().map(|process| process.path()).filter(|process| {
                let line = fs::read(process.join("cmdline")).unwrap_or_default();
                let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
                words.first().is_some_and(|program| program.ends_with(b"sftp-server"))
            });
        let open = servers.flat_map(|process| fs::read_dir(process.join("fd")).into_iter().flatten().flatten());
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|place| place.starts_with(&tree))).count()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory on the server to mount.
    pub fn tree(&self) -> PathBuf {
        // For servers that run as somebody else.
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o711)).expect("set");
        let tree = self.dir.path().join("tree");
        fs::create_dir_all(&tree).expect("made");
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("set");
        tree
    }

    pub fn url(&self, path: &Path) -> String {
        let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(whoami);
        format!("sftp://{user}@127.0.0.1:{}{}", self.port, path.display())
    }

    pub fn options(&self) -> String {
        let (key, hosts) = (self.file("id_rsa"), self.file("known_hosts"));
        format!("IdentityFile={},UserKnownHostsFile={}", key.display(), hosts.display())
    }
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A port on which nobody listens at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
