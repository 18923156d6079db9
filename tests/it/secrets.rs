//! Keys and secrets: every way to log in, and none of them leaves a trace.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::post;
use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::{eventually, has_fuse, has_program, watch};

const LOGIN_REFUSED: i32 = 9;

/// A simulated site, and a place to mount it.
struct Desk {
    sim: Sim,
    around: Environ,
}

impl Desk {
    fn with(quirks: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let quirks = quirks.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sim = Sim::start(&SimConfig { quirks, ..SimConfig::default() }).expect("the simulator starts");
        let more = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let around = Environ::new().with(sim.env()).with(more);
        fs::create_dir(around.path("mnt")).expect("made");
        Self { sim, around }
    }

    /// The simulator's options without its key.
    fn keyless(&self) -> String {
        let options = self.sim.options();
        options.split(',').filter(|o| !o.starts_with("Identity")).collect::<Vec<_>>().join(",")
    }

    fn mount(&self, options: &str) -> Ran {
        let site = format!("{}.dev", self.sim.site());
        let place = self.around.path("mnt");
        self.around.run(&["mount", "-vv", &site, &place.to_string_lossy(), "-o", options])
    }

    fn umount(&self) {
        self.around.run(&["umount", &self.around.path("mnt").to_string_lossy()]).ok();
        let lock = self.around.state().join(format!("{}.dev/lock", self.sim.site()));
        eventually("the process has ended", || {
            let lock = fs::File::open(&lock).expect("there");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        });
    }

    fn password(&self) -> String {
        self.sim.describe()["ssh"]["password"].as_str().expect("text").to_owned()
    }

    fn password_file(&self) -> PathBuf {
        let file = self.around.path("password");
        fs::write(&file, format!("{}\n", self.password())).expect("written");
        file
    }

    /// From here on this key may log in.
    fn authorize(&self, key: &Path) {
        let public = fs::read_to_string(key.with_extension("pub")).expect("a key");
        let body = serde_json::json!({ "key": public.trim() }).to_string();
        post(&format!("{}/key", self.sim.control()), &body);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mnt = self.around.path("mnt");
        if is_mounted(&mnt) {
            self.around.run(&["umount", "--force", &mnt.to_string_lossy()]);
        }
    }
}

fn keygen(file: &Path, kind: &[&str], passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "test", "-N", passphrase, "-t"]).args(kind).arg("-f").arg(file);
    assert!(command.status().expect("ssh-keygen runs").success());
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Files below `dir` that hold any of the secrets.
fn traces(dir: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            out.extend(traces(&path, secrets));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            out.extend(secrets.iter().any(|secret| contains(&bytes, secret)).then_some(path));
        }
    }
    out
}

/// Processes that work in these environ and show a secret to whoever asks for their arguments or environment.
fn showing(around: &Environ, secrets: &[&str]) -> (usize, Vec<String>) {
    let (mut ours, mut bad) = (0, Vec::new());
    let home = format!("HOME={}", around.home().display());
    for entry in fs::read_dir("/proc").expect("listed").flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (line, environment) = (read("cmdline"), read("environ"));
        if contains(&environment, &home) {
            ours += 1;
            let shows = secrets.iter().any(|secret| contains(&line, secret) || contains(&environment, secret));
            bad.extend(shows.then(|| String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    (ours, bad)
}

/// After a mount: nothing on the disk, in the log, in what was said, in any process.
fn nothing_shows(desk: &Desk, ran: &Ran, secrets: &[&str]) {
    assert!(fs::read(desk.around.path("mnt/index.php")).is_ok());
    fs::write(desk.around.path("mnt/index.php"), "changed").expect("written");
    let said = format!("{}{}", ran.out(), ran.err());
    assert!(!secrets.iter().any(|secret| said.contains(secret)), "{said}");
    let pending = fs::read_to_string(desk.around.path("mnt/.pantheon/pending")).expect("git has run");
    assert!(pending.contains("index.php"), "{pending}");
    let (ours, bad) = showing(&desk.around, secrets);
    assert!(ours >= 1, "the driver is there");
    assert_eq!(bad, Vec::<String>::new());
    for dir in [desk.around.path("state"), desk.around.path("cache"), desk.around.home()] {
        assert_eq!(traces(&dir, secrets), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_password_and_a_token_leave_no_trace() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    for quirks in [&[][..], &[("auth", "keyboard-interactive")]] {
        let desk = Desk::with(quirks, &[]);
        let (password, token) = (desk.password(), desk.sim.env()["TERMINUS_MACHINE_TOKEN"].clone());
        let options = format!("{},password_file={}", desk.keyless(), desk.password_file().display());
        let ran = desk.mount(&options).ok();
        nothing_shows(&desk, &ran, &[&password, &token]);
        assert!(fs::read_to_string(desk.around.state().join(format!("{}.dev/log", desk.sim.site()))).is_ok());
        desk.umount();
        // Wrong by one letter, and said without it.
        fs::write(desk.around.path("password"), format!("{password}x\n")).expect("written");
        let refused = desk.mount(&options);
        assert_eq!(refused.code(), LOGIN_REFUSED, "{}", refused.err());
        assert!(refused.err().contains("wrong password") && !refused.err().contains(&password), "{}", refused.err());
    }
}

/// The ssh program and git are started with what they need, and nothing else of ours.
#[test]
fn children_are_not_handed_the_token() {
    if !has_fuse() || !has_program("ssh") {
        return;
    }
    let _watch = watch();
    let desk = Desk::with(&[], &[]);
    let (wrapper, seen) = (desk.around.path("wrapper"), desk.around.path("seen"));
    let script = format!("#!/bin/sh\nenv >> {0}\nprintf '%s\\n' \"$@\" >> {0}\nexec ssh \"$@\"\n", seen.display());
    fs::write(&wrapper, script).expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("set");
    let ran = desk.mount(&format!("{},ssh_command={}", desk.sim.options(), wrapper.display())).ok();
    let token = desk.sim.env()["TERMINUS_MACHINE_TOKEN"].clone();
    nothing_shows(&desk, &ran, &[&token]);
    let seen = fs::read_to_string(&seen).expect("children were started");
    assert!(seen.contains("sftp") && seen.contains("git-upload-pack"), "for SFTP and for git: {seen}");
    assert!(!seen.contains(&token) && !seen.contains("MACHINE_TOKEN"), "{seen}");
    // The token is still there for the one who needs it.
    fs::write(desk.around.path("mnt/.pantheon/commit"), "By the token\n").expect("committed");
}

/// Types on a terminal once the question is there.
fn typed(desk: &Desk, options: &str, answer: &str) -> (bool, String) {
    let mnt = desk.around.path("mnt");
    let site = format!("{}.dev", desk.sim.site());
    let mount = format!("{} mount -vv {site} {} -o {options}", env!("CARGO_BIN_EXE_pantheonfs"), mnt.display());
    let (mut script, said) = (Command::new("script"), desk.around.path("said"));
    script.args(["-qefc", &mount]).arg(&said);
    desk.around.dress(&mut script);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("script runs");
    let text = || String::from_utf8_lossy(&fs::read(&said).unwrap_or_default()).into_owned();
    eventually("it asks", || text().contains("Passphrase for") || child.try_wait().is_ok_and(|s| s.is_some()));
    // The echo is off a moment after the question is there.
    std::thread::sleep(Duration::from_millis(300));
    let mut keyboard = child.stdin.take().expect("piped");
    keyboard.write_all(format!("{answer}\n").as_bytes()).expect("typed");
    let status = child.wait().expect("ends");
    drop(keyboard);
    (status.success(), text())
}

#[test]
fn a_passphrase_is_asked_for_and_leaves_no_trace() {
    if !has_fuse() || !has_program("script") {
        return;
    }
    let _watch = watch();
    let passphrase = "correct-horse-9431";
    for kind in [&["rsa", "-b", "2048"][..], &["rsa", "-b", "2048", "-m", "PEM"], &["ecdsa", "-b", "256"]] {
        let desk = Desk::with(&[], &[]);
        let key = desk.around.path("locked");
        keygen(&key, kind, passphrase);
        desk.authorize(&key);
        let options = format!("{},IdentityFile={}", desk.keyless(), key.display());
        // Nobody to ask.
        let ran = desk.mount(&options);
        assert_eq!(ran.code(), LOGIN_REFUSED, "{}", ran.err());
        assert!(ran.err().contains("needs a passphrase: use ssh-agent"), "{}", ran.err());
        let (mounted, said) = typed(&desk, &options, passphrase);
        assert!(mounted && !said.contains(passphrase), "{kind:?}: {said}");
        // The connection is made again without a question.
        post(&format!("{}/cut", desk.sim.control()), "{}");
        eventually("it is connected again", || fs::read(desk.around.path("mnt/wp-load.php")).is_ok());
        assert!(fs::write(desk.around.path("mnt/index.php"), "changed").is_ok());
        let (_, bad) = showing(&desk.around, &[passphrase]);
        assert_eq!(bad, Vec::<String>::new());
        for dir in [desk.around.path("state"), desk.around.path("cache"), desk.around.home()] {
            assert_eq!(traces(&dir, &[passphrase]), Vec::<PathBuf>::new());
        }
        desk.umount();
    }
}

/// An agent with keys of its own.
struct Agent {
    socket: PathBuf,
    child: Child,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent");
        let mut command = Command::new("ssh-agent");
        let child = command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("starts");
        eventually("the agent listens", || socket.exists());
        Self { socket, child }
    }

    fn add(&self, key: &Path) {
        let mut add = Command::new("ssh-add");
        add.arg(key).env("SSH_AUTH_SOCK", &self.socket).stderr(Stdio::null());
        assert!(add.status().expect("ssh-add runs").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_agent_with_many_keys_offers_the_plausible_ones() {
    if !has_fuse() || !has_program("ssh-agent") {
        return;
    }
    let _watch = watch();
    let place = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(place.path());
    let desk = Desk::with(&[], &[("SSH_AUTH_SOCK", &agent.socket.to_string_lossy())]);
    let stranger = |kind: &str, n: usize| {
        let key = place.path().join(format!("{kind}-{n}"));
        keygen(&key, &[kind], "");
        agent.add(&key);
    };
    // Ten of a kind that the platform does not take are in front of the one that it does.
    (0..10).for_each(|n| stranger("ed25519", n));
    let right = place.path().join("right");
    keygen(&right, &["ecdsa", "-b", "256"], "");
    desk.authorize(&right);
    agent.add(&right);
    desk.mount(&desk.keyless()).ok();
    desk.umount();
    // Strangers that look just as good: it is said that not all were tried, and how to name the right one.
    Command::new("ssh-add").arg("-D").env("SSH_AUTH_SOCK", &agent.socket).output().expect("ssh-add runs");
    (0..7).for_each(|n| stranger("ecdsa", n));
    agent.add(&right);
    let ran = desk.mount(&desk.keyless());
    assert_eq!(ran.code(), LOGIN_REFUSED, "{}", ran.err());
    assert!(
        ran.err().contains("3 more key(s) that were not offered") && ran.err().contains("IdentityFile="),
        "{}",
        ran.err()
    );
    // A public half among the usual files names it; the private one is with the agent only.
    fs::create_dir(desk.around.home().join(".ssh")).expect("made");
    fs::copy(right.with_extension("pub"), desk.around.home().join(".ssh/id_ecdsa.pub")).expect("copied");
    let config = format!("ssh_config={}", place.path().join("config").display());
    let named = format!("IdentityFile {}\n", desk.around.home().join(".ssh/id_ecdsa").display());
    fs::write(place.path().join("config"), named).expect("written");
    desk.mount(&format!("{},{config}", desk.keyless())).ok();
}
