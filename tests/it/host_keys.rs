//! Who the server is: `known_hosts` in all its forms, and what `StrictHostKeyChecking` makes of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::post;
use crate::common::program::{Environ, Ran};
use crate::common::sshd::Sshd;
use crate::common::{eventually, has_fuse, has_program, watch};

const HOST_KEY: i32 = 8;
const LOGIN_REFUSED: i32 = 9;

/// A real server, and a `known_hosts` that the test writes.
struct Bench {
    sshd: Sshd,
    around: Environ,
}

impl Bench {
    fn with(lines: &[&str]) -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let (sshd, around) = (Sshd::with(lines)?, Environ::new());
        fs::create_dir(around.path("mnt")).expect("made");
        Some(Self { sshd, around })
    }

    fn known(&self) -> PathBuf {
        self.around.path("known")
    }

    /// Type and text of a public key.
    fn key(&self, name: &str) -> String {
        let text = fs::read_to_string(self.sshd.file(name)).expect("a key");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    fn name(&self) -> String {
        format!("[127.0.0.1]:{}", self.sshd.port())
    }

    fn options(&self, strict: &str) -> String {
        let (key, known) = (self.sshd.file("id_rsa"), self.known());
        format!("IdentityFile={},UserKnownHostsFile={},{strict}", key.display(), known.display())
    }

    fn mount(&self, strict: &str) -> Ran {
        let mnt = self.around.path("mnt").to_string_lossy().into_owned();
        let ran = self.around.run(&["mount", &self.sshd.url(&self.sshd.tree()), &mnt, "-o", &self.options(strict)]);
        if ran.code() == 0 {
            let status = fs::read_to_string(self.around.path("mnt/.pantheon/status")).expect("readable");
            self.around.run(&["umount", &mnt]).ok();
            fs::write(self.around.path("status"), status).expect("written");
            let state = fs::read_dir(self.around.state()).expect("listed").flatten().next().expect("a mount's").path();
            eventually("the process has ended", || {
                let lock = fs::File::open(state.join("lock")).expect("there");
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
            });
        }
        ran
    }

    fn write(&self, lines: &str) {
        fs::write(self.known(), lines).expect("written");
    }
}

fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    assert!(status.success(), "{program} {args:?}");
}

#[test]
fn known_hosts_is_read_as_openssh_reads_it() {
    let Some(bench) = Bench::with(&[]) else { return };
    let _watch = watch();
    let (name, key) = (bench.name(), bench.key("host_key.pub"));
    // Hashed by OpenSSH itself.
    bench.write(&format!("{name} {key}\n"));
    run("ssh-keygen", &["-H", "-f", &bench.known().to_string_lossy()]);
    assert!(fs::read_to_string(bench.known()).expect("readable").starts_with("|1|"));
    bench.mount("StrictHostKeyChecking=yes").ok();
    // Wildcards.
    bench.write(&format!("[127.0.0.*]:* {key}\n"));
    bench.mount("StrictHostKeyChecking=yes").ok();
    // Revoked, though it is known.
    bench.write(&format!("{name} {key}\n@revoked * {key}\n"));
    for strict in ["StrictHostKeyChecking=yes", "StrictHostKeyChecking=no"] {
        bench.mount(strict).fails(HOST_KEY, &["revoked", "do not connect"]);
    }
}

/// Known by its RSA key, while the server would rather show another.
#[test]
fn a_server_is_asked_for_the_key_that_is_known() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let second = dir.path().join("second");
    run("ssh-keygen", &["-q", "-t", "rsa", "-N", "", "-f", &second.to_string_lossy()]);
    let Some(bench) = Bench::with(&[&format!("HostKey {}", second.display())]) else { return };
    let _watch = watch();
    let public = fs::read_to_string(second.with_extension("pub")).expect("a key");
    bench.write(&format!("{} {public}", bench.name()));
    bench.mount("StrictHostKeyChecking=yes").ok();
}

#[test]
fn a_certificate_authority_is_left_to_the_ssh_program() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    for name in ["ca", "host", "other"] {
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]);
    }
    run("ssh-keygen", &["-q", "-s", &path("ca"), "-I", "test", "-h", "-n", "127.0.0.1", &path("host.pub")]);
    let lines = [format!("HostKey {}", path("host")), format!("HostCertificate {}", path("host-cert.pub"))];
    let Some(bench) = Bench::with(&[&lines[0], &lines[1]]) else { return };
    let _watch = watch();
    let authority = |name: &str| {
        let key = fs::read_to_string(path(&format!("{name}.pub"))).expect("a key");
        bench.write(&format!("@cert-authority [127.0.0.*]:* {key}"));
    };
    authority("ca");
    bench.mount("StrictHostKeyChecking=yes").ok();
    let status = fs::read_to_string(bench.around.path("status")).expect("seen");
    assert!(status.contains("transport: ssh to "), "{status}");
    authority("other");
    bench.mount("StrictHostKeyChecking=yes").fails(HOST_KEY, &["ost key"]);
}

#[test]
fn a_changed_key_is_refused_and_a_password_is_never_sent_to_it() {
    let Some(bench) = Bench::with(&[]) else { return };
    let _watch = watch();
    let wrong = format!("{} {}\n", bench.name(), bench.key("id_ed25519.pub"));
    for strict in ["", "StrictHostKeyChecking=yes", "StrictHostKeyChecking=ask", "StrictHostKeyChecking=accept-new"] {
        bench.write(&wrong);
        let says = ["CHANGED", "ssh-keyscan", "ssh-keygen -R", &bench.name()];
        bench.mount(strict).fails(HOST_KEY, &says);
        assert_eq!(fs::read_to_string(bench.known()).expect("readable"), wrong, "nothing was learned");
    }
    // What the message says to do, helps.
    run("ssh-keygen", &["-R", &bench.name(), "-f", &bench.known().to_string_lossy()]);
    bench.mount("StrictHostKeyChecking=accept-new").ok();
    bench.write(&wrong);
    let ran = bench.mount("StrictHostKeyChecking=no").ok();
    assert!(ran.err().contains("THE HOST KEY CHANGED"), "a key gives nothing away: {}", ran.err());
    // A password would.
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let around = Environ::new().with(sim.env());
    fs::create_dir(around.path("mnt")).expect("made");
    let password = around.path("password");
    fs::write(&password, sim.describe()["ssh"]["password"].as_str().expect("text")).expect("written");
    let port = sim.describe()["ssh"]["port"].as_u64().expect("a number");
    fs::write(bench.known(), format!("[127.0.0.1]:{port} {}\n", bench.key("id_ed25519.pub"))).expect("written");
    let options = format!(
        "Port={port},UserKnownHostsFile={},password_file={},StrictHostKeyChecking=no",
        bench.known().display(),
        password.display()
    );
    let mnt = around.path("mnt").to_string_lossy().into_owned();
    let ran = around.run(&["mount", &format!("{}.dev", sim.site()), &mnt, "-o", &options]);
    assert_eq!(ran.code(), LOGIN_REFUSED, "{}", ran.err());
    assert!(ran.err().contains("no password is sent"), "{}", ran.err());
}

/// `*.drush.in` by its own name, though led to a simulator: the first key is taken on trust, a second one is not.
#[test]
fn the_platforms_hosts_are_trusted_at_first_sight_and_only_then() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let env = sim.env().into_iter().filter(|(name, _)| name != "TERMINUS_SSH_HOST");
    let around = Environ::new().with(env);
    fs::create_dir(around.path("mnt")).expect("made");
    let (site, mnt) = (format!("{}.dev", sim.site_id()), around.path("mnt").to_string_lossy().into_owned());
    let known = around.path("known");
    let others = sim.options();
    let others: Vec<&str> = others.split(',').filter(|o| !o.starts_with("UserKnown")).collect();
    let options =
        |more: &str| format!("{},HostName=127.0.0.1,UserKnownHostsFile={},{more}", others.join(","), known.display());
    let mount = |more: &str| around.run(&["mount", &site, &mnt, "-o", &options(more)]);
    mount("StrictHostKeyChecking=yes").fails(HOST_KEY, &["not known", "drush.in"]);
    mount("").ok();
    around.run(&["umount", &mnt]).ok();
    assert!(fs::read_to_string(&known).expect("remembered").starts_with("[127.0.0.1]:"));
    post(&format!("{}/migrate", sim.control()), r#"{"environment": "dev", "host_key": true}"#);
    mount("").fails(HOST_KEY, &["CHANGED", "drush.in", "ssh-keygen -R"]);
}

/// Types an answer to the question on a terminal.
fn answered(bench: &Bench, answer: &str, said: &Path) -> (bool, String) {
    let mnt = bench.around.path("mnt");
    let url = bench.sshd.url(&bench.sshd.tree());
    let options = bench.options("StrictHostKeyChecking=ask");
    let mount = format!("{} mount {url} {} -o {options}", env!("CARGO_BIN_EXE_pantheonfs"), mnt.display());
    let mut script = Command::new("script");
    script.args(["-qefc", &mount]).arg(said);
    bench.around.dress(&mut script);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("script runs");
    let text = || String::from_utf8_lossy(&fs::read(said).unwrap_or_default()).into_owned();
    eventually("it asks", || text().contains("(yes/no)") || child.try_wait().is_ok_and(|s| s.is_some()));
    std::thread::sleep(Duration::from_millis(100));
    child.stdin.as_mut().expect("piped").write_all(format!("{answer}\n").as_bytes()).expect("typed");
    let status = child.wait().expect("ends");
    (status.success(), text())
}

#[test]
fn with_ask_a_host_key_is_confirmed_on_the_terminal() {
    if !has_program("script") {
        return;
    }
    let Some(bench) = Bench::with(&[]) else { return };
    let _watch = watch();
    bench.mount("StrictHostKeyChecking=ask").fails(HOST_KEY, &["not known", "SHA256:"]);
    let (mounted, said) = answered(&bench, "no", &bench.around.path("first"));
    assert!(!mounted && said.contains("new host key SHA256:"), "{said}");
    assert!(!bench.known().exists(), "nothing was learned");
    let (mounted, said) = answered(&bench, "yes", &bench.around.path("second"));
    assert!(mounted, "{said}");
    bench.around.run(&["umount", &bench.around.path("mnt").to_string_lossy()]).ok();
    assert!(fs::read_to_string(bench.known()).expect("remembered").starts_with(&bench.name()));
}
