//! Mistakes and bad input, as people make them: one line that says what, on which object, and what to do; the documented
//! exit code; nothing left mounted.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::{Mounted, post};
use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::sshd::{Sshd, free_port};
use crate::common::{eventually, has_fuse, has_program, watch};

const USAGE: i32 = 2;
const NO_SUCH_SITE: i32 = 3;
const NOT_LOGGED_IN: i32 = 4;
const API: i32 = 5;
const UNREACHABLE: i32 = 6;
const NOT_SFTP: i32 = 7;
const HOST_KEY: i32 = 8;
const LOGIN_REFUSED: i32 = 9;
const NO_DIRECTORY: i32 = 10;
const MOUNT_POINT: i32 = 11;

/// A simulated site and somewhere to mount it; nothing is mounted yet.
struct Desk {
    sim: Sim,
    around: Environ,
}

impl Desk {
    fn with(config: &SimConfig) -> Self {
        let sim = Sim::start(config).expect("the simulator starts");
        let around = Environ::new().with(sim.env());
        fs::create_dir(around.path("mnt")).expect("made");
        Self { sim, around }
    }

    fn new() -> Self {
        Self::with(&SimConfig::default())
    }

    fn mount(&self, source: &str, options: &str) -> Ran {
        let ran = self.around.run(&["mount", source, &self.around.path("mnt").to_string_lossy(), "-o", options]);
        if ran.code() != 0 {
            assert!(!is_mounted(&self.around.path("mnt")), "nothing is left mounted");
        }
        ran
    }

    /// Everything right but what the test changes.
    fn mount_dev(&self, options: &str) -> Ran {
        self.mount(&self.site("dev"), &format!("{},{options}", self.sim.options()))
    }

    fn site(&self, environment: &str) -> String {
        format!("{}.{environment}", self.sim.site())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if is_mounted(&self.around.path("mnt")) {
            self.around.run(&["umount", "--force", &self.around.path("mnt").to_string_lossy()]);
        }
    }
}

#[test]
fn sources_that_do_not_exist() {
    if !has_fuse() {
        return;
    }
    let desk = Desk::new();
    let options = desk.sim.options();
    desk.mount("sim-nosuch.dev", &options).fails(NO_SUCH_SITE, &["sim-nosuch", "no such site", "check the spelling"]);
    desk.mount(&desk.site("nosuch"), &options).fails(NO_SUCH_SITE, &["nosuch", "no such environment"]);
    desk.mount("nodot", &options).fails(NO_SUCH_SITE, &["nodot", "no such site"]);
    desk.mount("sftp://u:secret@h/", &options).fails(USAGE, &["password"]);
    desk.mount("sftp://u@no-such-host.invalid/x", "").fails(UNREACHABLE, &["no-such-host.invalid"]);
}

#[test]
fn api_failures_are_reported() {
    if !has_fuse() {
        return;
    }
    let desk = Desk::new();
    let habit = |value: &str| {
        post(&format!("{}/habit", desk.sim.control()), &format!(r#"{{"name": "api", "value": "{value}"}}"#));
    };
    habit("error");
    desk.mount_dev("").fails(NOT_LOGGED_IN_OR_API, &["the service is unavailable"]);
    habit("malformed");
    desk.mount_dev("").fails(API, &["cannot be understood"]);
    habit("html");
    desk.mount_dev("").fails(API, &["cannot be understood"]);
    habit("ok");
    let wrong = [("TERMINUS_MACHINE_TOKEN".to_owned(), "wrong".to_owned())];
    let around = Environ::new().with(desk.sim.env()).with(wrong);
    let mnt = desk.around.path("mnt");
    let ran = around.run(&["mount", &desk.site("dev"), &mnt.to_string_lossy(), "-o", &desk.sim.options()]);
    ran.fails(NOT_LOGGED_IN, &["the token was refused", "expire after 90 days", "create a new Personal Access Token"]);
    let nobody = Environ::new();
    nobody.run(&["mount", "mysite.dev", &mnt.to_string_lossy()]).fails(NOT_LOGGED_IN, &["not logged in", "auth:login"]);
    let elsewhere = Environ::new().with(desk.sim.env()).with([("TERMINUS_PORT".to_owned(), free_port().to_string())]);
    elsewhere.run(&["mount", "mysite.dev", &mnt.to_string_lossy()]).fails(API, &["cannot be reached", "network"]);
    let insecure = Environ::new().with(desk.sim.env()).with([("TERMINUS_HOST".to_owned(), "example.org".to_owned())]);
    insecure.run(&["mount", "mysite.dev", &mnt.to_string_lossy()]).fails(USAGE, &["plain http"]);
}

/// A login that the platform cannot answer looks like a refused token to it (it says 500 to those).
const NOT_LOGGED_IN_OR_API: i32 = API;

#[test]
fn an_expired_session_is_renewed_silently() {
    let Some(m) = Mounted::sim() else { return };
    m.control("expire", "{}");
    fs::write(m.path(".pantheon/mode"), "git\n").expect("logs in again and switches");
    assert_eq!(fs::read_to_string(m.path(".pantheon/mode")).expect("readable"), "git\n");
}

#[test]
fn a_refused_login_says_why() {
    if !has_fuse() {
        return;
    }
    let desk = Desk::new();
    let keygen = |kind: &str| {
        let file = desk.around.path(kind);
        let done = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&file).status();
        assert!(done.expect("ssh-keygen runs").success());
        file
    };
    let with_key = |key: &std::path::Path| {
        let options = desk.sim.options();
        let others: Vec<&str> = options.split(',').filter(|o| !o.starts_with("IdentityFile")).collect();
        desk.mount(&desk.site("dev"), &format!("{},IdentityFile={}", others.join(","), key.display()))
    };
    with_key(&keygen("ecdsa")).fails(LOGIN_REFUSED, &["login refused", "ecdsa", "account"]);
    with_key(&keygen("ed25519")).fails(LOGIN_REFUSED, &["ed25519", "RSA key"]);
    with_key(&desk.around.path("missing")).fails(LOGIN_REFUSED, &["missing", "cannot be used"]);
    let password = desk.around.path("password");
    fs::write(&password, "wrong\n").expect("written");
    let options: Vec<String> =
        desk.sim.options().split(',').filter(|o| !o.starts_with("Identity")).map(str::to_owned).collect();
    let by_password = format!("{},password_file={}", options.join(","), password.display());
    desk.mount(&desk.site("dev"), &by_password).fails(LOGIN_REFUSED, &["wrong password"]);
    let right = desk.sim.describe()["ssh"]["password"].as_str().expect("text").to_owned();
    fs::write(&password, format!("{right}\n")).expect("written");
    desk.mount(&desk.site("dev"), &by_password).ok();
}

#[test]
fn a_password_comes_from_a_descriptor_and_never_from_argv() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    let right = desk.sim.describe()["ssh"]["password"].as_str().expect("text").to_owned();
    let options: Vec<String> =
        desk.sim.options().split(',').filter(|o| !o.starts_with("Identity")).map(str::to_owned).collect();
    let mut command = Command::new("sh");
    let script = format!(
        "exec 7<<EOF\n{right}\nEOF\nexec \"$0\" mount {} {} -o {},password_fd=7",
        desk.site("dev"),
        desk.around.path("mnt").display(),
        options.join(",")
    );
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pantheonfs"));
    desk.around.dress(&mut command);
    Ran(command.output().expect("runs")).ok();
    let shown =
        Command::new("ps").args(["-eo", "args"]).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let daemons: Vec<String> =
        shown.unwrap_or_default().lines().filter(|l| l.contains("--report")).map(str::to_owned).collect();
    assert!(daemons.iter().all(|line| !line.contains(&right)), "{daemons:?}");
    let log = walk(&desk.around.state());
    assert!(!log.contains(&right), "no password in any log");
}

/// All text of all files below a directory.
fn walk(dir: &std::path::Path) -> String {
    let mut out = String::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        out.push_str(&if path.is_dir() { walk(&path) } else { fs::read_to_string(&path).unwrap_or_default() });
    }
    out
}

#[test]
fn addresses_without_a_server_are_reported() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let around = Environ::new();
    fs::create_dir(around.path("mnt")).expect("made");
    let mnt = around.path("mnt").to_string_lossy().into_owned();
    let mount = |port: u16| around.run(&["mount", &format!("sftp://u@127.0.0.1:{port}/x"), &mnt]);
    mount(free_port()).fails(UNREACHABLE, &["cannot be reached", "port"]);
    let web = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = web.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in web.incoming().flatten() {
            let _ = { client }.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    mount(port).fails(NOT_SFTP, &["not an SSH server", "check host and port"]);
    // Accepted by the kernel's backlog, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("sftp://u@{}/x", silent.local_addr().expect("an address"));
    let ran = around.run(&["mount", &url, &mnt, "-o", "timeout=2"]);
    ran.fails(NOT_SFTP, &["not an SSH server", "it sends nothing"]);
    if let Some(sshd) = Sshd::with(&["Subsystem other /bin/true"]) {
        let ran = around.run(&["mount", &sshd.url(&sshd.tree()), &mnt, "-o", &sshd.options()]);
        ran.fails(NOT_SFTP, &["no SFTP", "ask the host"]);
        let by_program = format!("{},ssh_command=ssh", sshd.options());
        let ran = around.run(&["mount", &sshd.url(&sshd.tree()), &mnt, "-o", &by_program]);
        ran.fails(NOT_SFTP, &["SFTP"]);
    }
    if let Some(sshd) = Sshd::start() {
        let nowhere = sshd.url(std::path::Path::new("/no/such/dir"));
        around.run(&["mount", &nowhere, &mnt, "-o", &sshd.options()]).fails(NO_DIRECTORY, &["no such directory"]);
    }
    let desk = Desk::new();
    fs::rename(desk.sim.home("live").join("code"), desk.sim.home("live").join("gone")).expect("moved");
    desk.mount(&desk.site("live"), &desk.sim.options()).fails(NO_DIRECTORY, &["no directory 'code'"]);
}

#[test]
fn host_keys_are_checked() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let Some(sshd) = Sshd::start() else { return };
    let around = Environ::new();
    fs::create_dir(around.path("mnt")).expect("made");
    let mnt = around.path("mnt").to_string_lossy().into_owned();
    let known = around.path("known");
    let mount = |strict: &str| {
        let options =
            format!("IdentityFile={},UserKnownHostsFile={}{strict}", sshd.file("id_rsa").display(), known.display());
        around.run(&["mount", &sshd.url(&sshd.tree()), &mnt, "-o", &options])
    };
    mount("").fails(HOST_KEY, &["not known", "SHA256:", "accept-new"]);
    mount(",StrictHostKeyChecking=yes").fails(HOST_KEY, &["not known"]);
    mount(",StrictHostKeyChecking=accept-new").ok();
    around.run(&["umount", &mnt]).ok();
    assert!(fs::read_to_string(&known).expect("remembered").contains(&format!("[127.0.0.1]:{}", sshd.port())));
    mount(",StrictHostKeyChecking=yes").ok();
    around.run(&["umount", &mnt]).ok();
    let stranger = fs::read_to_string(sshd.file("id_ed25519.pub")).expect("a key");
    let stranger = stranger.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    fs::write(&known, format!("[127.0.0.1]:{} {stranger}\n", sshd.port())).expect("written");
    mount("").fails(HOST_KEY, &["HOST KEY CHANGED", "ssh-keygen -R"]);
    mount(",StrictHostKeyChecking=accept-new").fails(HOST_KEY, &["CHANGED"]);
}

#[test]
fn old_servers_and_the_ssh_program() {
    if !has_fuse() || !has_program("ssh") {
        return;
    }
    let _watch = watch();
    // A server with nothing but a SHA-1 ssh-rsa host key, as the platform's have been: the program takes over by itself.
    let config = SimConfig { quirks: vec![("host-key".into(), "rsa-sha1".into())], ..SimConfig::default() };
    let desk = Desk::with(&config);
    desk.mount_dev("").ok();
    let status = fs::read_to_string(desk.around.path("mnt/.pantheon/status")).expect("readable");
    assert!(status.contains("transport: ssh to "), "{status}");
    fs::write(desk.around.path("mnt/by-program.php"), "x").expect("written");
    fs::write(desk.around.path("mnt/.pantheon/sync"), "now").expect("sent");
    assert_eq!(fs::read(desk.sim.home("dev").join("code/by-program.php")).expect("there"), b"x");
    // Asked for.
    let desk = Desk::new();
    desk.mount_dev("ssh_command=ssh").ok();
    let status = fs::read_to_string(desk.around.path("mnt/.pantheon/status")).expect("readable");
    assert!(status.contains("transport: ssh to "), "{status}");
}

#[test]
fn ssh_config_is_respected() {
    if !has_fuse() || !has_program("ssh") {
        return;
    }
    let _watch = watch();
    let Some(sshd) = Sshd::start() else { return };
    let around = Environ::new();
    fs::create_dir(around.path("mnt")).expect("made");
    let mnt = around.path("mnt").to_string_lossy().into_owned();
    let user = sshd.url(std::path::Path::new("/"));
    let user = user.trim_start_matches("sftp://").split('@').next().expect("a user").to_owned();
    let config = around.path("config");
    let host = |name: &str, more: &str| {
        format!(
            "Host {name}\n  HostName 127.0.0.1\n  Port {}\n  User {user}\n  IdentityFile {}\n  UserKnownHostsFile {}\n{more}",
            sshd.port(),
            sshd.file("id_rsa").display(),
            sshd.file("known_hosts").display()
        )
    };
    let jump = format!("  ProxyCommand nc 127.0.0.1 {}\n", sshd.port());
    fs::write(&config, format!("{}{}", host("mysite", ""), host("jumped", &jump))).expect("written");
    let options = format!("ssh_config={}", config.display());
    let source = format!("sftp://mysite{}", sshd.tree().display());
    around.run(&["mount", &source, &mnt, "-o", &options]).ok();
    let status = fs::read_to_string(around.path("mnt/.pantheon/status")).expect("readable");
    assert!(status.contains("transport: libssh2 to 127.0.0.1"), "{status}");
    around.run(&["umount", &mnt]).ok();
    if has_program("nc") {
        let source = format!("sftp://jumped{}", sshd.tree().display());
        around.run(&["mount", &source, &mnt, "-o", &options]).ok();
        let status = fs::read_to_string(around.path("mnt/.pantheon/status")).expect("readable");
        assert!(status.contains("transport: ssh to "), "{status}");
        around.run(&["umount", &mnt]).ok();
    }
}

#[test]
fn an_agent_logs_in() {
    if !has_fuse() || !has_program("ssh-agent") {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    let socket = desk.around.path("agent");
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("starts");
    eventually("the agent listens", || socket.exists());
    let identity = desk.sim.describe()["ssh"]["identity"].as_str().expect("a path").to_owned();
    let add = |key: &str| {
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()).status();
        assert!(added.expect("ssh-add runs").success());
    };
    // A key that the platform does not take must not spoil the one that it does.
    let other = desk.around.path("other");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    assert!(made.expect("ssh-keygen runs").success());
    add(&other.to_string_lossy());
    add(&identity);
    let around =
        Environ::new().with(desk.sim.env()).with([("SSH_AUTH_SOCK".to_owned(), socket.to_string_lossy().into_owned())]);
    let mnt = around.path("mnt");
    fs::create_dir(&mnt).expect("made");
    let options: Vec<String> =
        desk.sim.options().split(',').filter(|o| !o.starts_with("Identity")).map(str::to_owned).collect();
    around.run(&["mount", &desk.site("dev"), &mnt.to_string_lossy(), "-o", &options.join(",")]).ok();
    around.run(&["umount", &mnt.to_string_lossy()]).ok();
    let _ = agent.kill();
    let _ = agent.wait();
}

#[test]
fn unusable_mount_points_are_refused() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    let (options, site) = (desk.sim.options(), desk.site("dev"));
    let on = |place: &std::path::Path| desk.around.run(&["mount", &site, &place.to_string_lossy(), "-o", &options]);
    on(&desk.around.path("none")).fails(MOUNT_POINT, &["no such directory", "mkdir -p"]);
    fs::write(desk.around.path("file"), "").expect("written");
    on(&desk.around.path("file")).fails(MOUNT_POINT, &["not a directory"]);
    fs::create_dir(desk.around.path("full")).expect("made");
    fs::write(desk.around.path("full/x"), "").expect("written");
    on(&desk.around.path("full")).fails(MOUNT_POINT, &["not empty", "nonempty"]);
    on(&desk.around.path("mnt")).ok();
    on(&desk.around.path("mnt")).fails(MOUNT_POINT, &["mounted here already"]);
    desk.around
        .run(&["umount", &desk.around.path("full").to_string_lossy()])
        .fails(MOUNT_POINT, &["not a mount of pantheonfs"]);
}

#[test]
fn a_mount_whose_process_died_is_cleared_away() {
    let Some(m) = Mounted::sim() else { return };
    let daemon = format!("mount --report -o {}", m.sim_ref().options());
    let killed = Command::new("pkill").args(["-9", "-f", &daemon.replace('+', ".")]).status().expect("pkill runs");
    assert!(killed.success(), "the daemon was there");
    eventually("the mount is stale", || {
        fs::metadata(m.dir()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    let site = format!("{}.dev", m.sim_ref().site());
    let ran = m.mount(&site, &m.sim_ref().options());
    assert_eq!(ran.code(), 0, "{}", ran.err());
    assert!(m.path("index.php").exists());
}

#[test]
fn options_and_their_misspellings() {
    let around = Environ::new();
    fs::create_dir(around.path("mnt")).expect("made");
    let mnt = around.path("mnt").to_string_lossy().into_owned();
    let with = |options: &str| around.run(&["mount", "mysite.dev", &mnt, "-o", options]);
    with("alow_other").fails(USAGE, &["unknown option 'alow_other'", "did you mean 'allow_other'"]);
    with("Port=many").fails(USAGE, &["Port=many", "65535"]);
    with("uid").fails(USAGE, &["needs a value"]);
    assert_eq!(around.run(&["mount"]).code(), USAGE);
    assert_eq!(around.run(&["nonsense"]).code(), USAGE);
    assert_eq!(around.run(&["--version"]).code(), 0);
}

#[test]
fn options_of_fstab_take_effect() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "ro,noauto,user,_netdev,nofail,x-a.b=c,umask=077")
    else {
        return;
    };
    let error = fs::write(m.path("index.php"), "x").expect_err("read-only");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let error = fs::write(m.path("wp-content/uploads/x"), "x").expect_err("uploads too");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::metadata(m.path("index.php")).expect("stat").permissions().mode() & 0o077, 0);
    let site = format!("{}.dev", m.sim_ref().site());
    let line = format!("{site} {} fuse.pantheonfs ro", m.dir().display());
    let list = fs::read_to_string("/proc/self/mounts").expect("readable");
    assert!(list.contains(&line), "{list}");
}

#[test]
fn status_works_from_inside_and_umount_cleans_up() {
    let Some(m) = Mounted::sim() else { return };
    let mut command = m.environ().command();
    let ran = Ran(command.arg("status").current_dir(m.path("wp-content/themes")).output().expect("runs")).ok();
    assert!(ran.out().contains("mode: sftp\n") && ran.out().contains("code: writable\n"), "{}", ran.out());
    let json = m.environ().run(&["status", "--json", &m.dir().to_string_lossy()]).ok();
    let json: serde_json::Value = serde_json::from_str(&json.out()).expect("JSON");
    assert_eq!(json["mode"], "sftp");
    m.environ().run(&["status", "/"]).fails(MOUNT_POINT, &["not in a mount"]);
    let open = fs::File::open(m.path("index.php")).expect("opened");
    m.umount().fails(13, &["in use", "--force"]);
    drop(open);
    m.umount().ok();
    assert!(!is_mounted(m.dir()));
    let daemon = format!("mount --report -o {}", m.sim_ref().options());
    eventually("the daemon ends", || {
        !Command::new("pgrep").args(["-f", &daemon]).stdout(Stdio::null()).status().expect("pgrep runs").success()
    });
}

/// The script tells the story, checks each step of it, and leaves nothing behind.
#[test]
fn the_story_script_runs() {
    if !crate::common::has_fuse() || !crate::common::has_program("python3") {
        return;
    }
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/story"));
    let around = Environ::new();
    around.dress(&mut command);
    let told = Ran(command.env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs")).output().expect("runs")).ok();
    assert!(told.out().ends_with("story: passed\n"), "{}", told.out());
}

#[test]
fn completions_and_the_manual_are_printed() {
    let around = Environ::new();
    assert!(around.run(&["completions", "bash"]).ok().out().contains("_pantheonfs"));
    assert!(around.run(&["man"]).ok().out().contains(".TH pantheonfs"));
}

#[test]
fn the_demo_says_what_to_try_and_ends_cleanly() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let around = Environ::new();
    let place = around.path("demo");
    let mut command = around.command();
    let mut child = command.arg("demo").arg(&place).stdout(Stdio::piped()).spawn().expect("starts");
    eventually("the demo is mounted", || is_mounted(&place));
    assert!(fs::read_to_string(place.join(".pantheon/status")).expect("readable").contains("mode: sftp"));
    fs::write(place.join("new.php"), "x").expect("writable");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    assert!(child.wait().expect("ends").success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut said).expect("text");
    assert!(said.contains("Try this in another shell") && said.contains("/control"), "{said}");
    assert!(!is_mounted(&place) && !place.exists(), "nothing is left");
}

#[test]
fn the_simulator_describes_itself_in_one_line() {
    let _watch = watch();
    let around = Environ::new();
    let mut command = around.command();
    let mut child = command.args(["sim", "--json"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert!(json["site"].as_str().is_some_and(|site| site.starts_with("sim-")));
    for key in ["env", "options", "home", "repository", "ssh", "control"] {
        assert!(!json[key].is_null(), "{key}: {json}");
    }
    let control = crate::common::mounted::get(json["control"].as_str().expect("a URL"));
    assert!(control["routes"].as_object().is_some_and(|routes| routes.len() > 5));
    assert!(control["habits"]["rename"].is_object());
    let home = json["home"]["dev"].as_str().expect("a path").to_owned();
    assert!(std::path::Path::new(&home).join("code/index.php").exists());
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    child.wait().expect("ends");
    assert!(!std::path::Path::new(&home).exists(), "its files go with it");
    around.run(&["sim", "--quirk", "rename=perhaps"]).fails(1, &["rename", "allow, refuse"]);
    // The former name of the option.
    around.run(&["sim", "--habit", "rename=perhaps"]).fails(1, &["rename", "allow, refuse"]);
    around.run(&["sim", "--quirk", "rename"]).fails(USAGE, &["--quirk rename", "NAME=VALUE"]);
    around.run(&["sim", "--code", "/nowhere"]).fails(USAGE, &["/nowhere", "not a directory"]);
}
