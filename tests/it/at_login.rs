//! Mounts at login. There is no systemd here that runs as the first process: `systemctl` is a script that records how it is called
//! and does what `enable` and `disable` do with files; the unit is started by the test as systemd starts it, with a socket for the
//! notice that it is ready; `systemd-analyze` checks it, and systemd's own generator reads the line of fstab.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::{eventually, has_fuse, has_program, skip, watch};

const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >> "$CALLS"
wants="$HOME/.config/systemd/user/default.target.wants"
case "$2" in
  enable) mkdir -p "$wants"; ln -s "../$3" "$wants/$3" ;;
  disable) rm "$wants/$4" ;;
  start) [ ! -e "$CALLS.fail" ] || { echo "Job for $3 failed." >&2; exit 1; } ;;
esac
"#;
const GENERATOR: &str = "/usr/lib/systemd/system-generators/systemd-fstab-generator";
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

/// A user who has logged in to a simulated platform, on a machine with a script as `systemctl`.
struct Desk {
    sim: Sim,
    user: Environ,
}

impl Desk {
    fn new() -> Self {
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let user = Environ::new();
        let bin = user.path("bin");
        fs::create_dir(&bin).expect("made");
        fs::write(bin.join("systemctl"), SYSTEMCTL).expect("written");
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).expect("set");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
        let calls = user.path("calls").to_string_lossy().into_owned();
        let user = user.with(sim.env()).with([("PATH".to_owned(), path), ("CALLS".to_owned(), calls)]);
        fs::create_dir(user.path("mnt")).expect("made");
        Self { sim, user }
    }

    fn source(&self) -> String {
        format!("{}.dev", self.sim.site())
    }

    fn unit(&self) -> PathBuf {
        self.user.home().join(format!(".config/systemd/user/pantheonfs@{}.service", self.source()))
    }

    fn enable(&self) -> Ran {
        let place = self.user.path("mnt").to_string_lossy().into_owned();
        self.user.run(&["enable", &self.source(), &place, "-o", &self.sim.options()])
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.user.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn list(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.user.run(&["list", "--json"]).ok().out()).expect("a JSON array")
    }

    /// The words of a line of the unit, as systemd understands them.
    fn line(&self, key: &str) -> Vec<String> {
        let text = fs::read_to_string(self.unit()).expect("a unit");
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("the line").to_owned();
        let unescaped = line.replace("%%", "%").replace("$$", "$");
        assert!(!unescaped.contains('\\'), "this test needs no escapes: {unescaped}");
        let parts = unescaped.split('"').enumerate();
        parts
            .flat_map(|(at, part)| {
                if at % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
            })
            .collect()
    }

    /// A process of the unit: with the variables that the unit names, and none of this session.
    fn command(&self, key: &str) -> Command {
        let words = self.line(key);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("HOME", self.user.home())
            .env("PATH", std::env::var_os("PATH").expect("a PATH"));
        for line in fs::read_to_string(self.unit()).expect("a unit").lines() {
            let Some(setting) = line.strip_prefix("Environment=") else { continue };
            let (name, value) = setting.trim_matches('"').split_once('=').expect("a value");
            command.env(name, value.replace("%%", "%"));
        }
        command
    }

    /// Starts the unit and waits for its notice.
    fn start(&self) -> Child {
        let socket = self.user.path("notify");
        drop(fs::remove_file(&socket));
        let notices = UnixDatagram::bind(&socket).expect("bound");
        notices.set_read_timeout(Some(NOTICE_LIMIT)).expect("set");
        let driver =
            self.command("ExecStart").env("NOTIFY_SOCKET", &socket).stdout(Stdio::null()).spawn().expect("runs");
        let mut notice = [0; 64];
        let size = notices.recv(&mut notice).expect("a notice that it is ready");
        assert_eq!(String::from_utf8_lossy(&notice[..size]).trim(), "READY=1");
        driver
    }

    /// Saves the token, which a unit does not get from a variable.
    fn log_in(&self) {
        let token = self.sim.env().into_iter().find(|(name, _)| name == "TERMINUS_MACHINE_TOKEN").expect("a token").1;
        let file = self.user.path("token");
        fs::write(&file, token).expect("written");
        let mut command = self.user.command();
        Ran(command.arg("login").stdin(fs::File::open(file).expect("opened")).output().expect("runs")).ok();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.user.run(&["umount", "--all", "--force"]);
    }
}

#[test]
fn enable_writes_a_unit_and_disable_removes_it() {
    let desk = Desk::new();
    let name = format!("pantheonfs@{}.service", desk.source());
    let ran = desk.enable().ok();
    assert!(ran.out().contains("mounted, now and at each login"), "{}", ran.out());
    assert!(ran.err().contains("save it with `pantheonfs login`"), "the token is in a variable only: {}", ran.err());
    let expected = ["--user daemon-reload".to_owned(), format!("--user enable {name}"), format!("--user start {name}")];
    assert_eq!(desk.calls(), expected);
    let token = desk.sim.env().into_iter().find(|(name, _)| name == "TERMINUS_MACHINE_TOKEN").expect("a token").1;
    assert!(!fs::read_to_string(desk.unit()).expect("a unit").contains(&token), "no secret is in the unit");

    let text = desk.user.run(&["list"]).ok().out();
    assert!(text.contains("not mounted, at login") && text.contains(&name), "{text}");
    let list = desk.list();
    assert_eq!((&list[0]["state"], &list[0]["at_login"]), (&"unmounted".into(), &true.into()));
    assert_eq!(list[0]["mountpoint"], desk.user.path("mnt").to_string_lossy().as_ref());

    desk.user.run(&["enable", &desk.source()]).fails(1, &["other settings", "pantheonfs disable"]);
    desk.user.run(&["disable", &desk.source()]).ok();
    assert_eq!(
        desk.calls()[expected.len()..],
        [format!("--user disable --now {name}"), "--user daemon-reload".to_owned()]
    );
    assert!(!desk.unit().exists() && desk.list().is_empty());
    desk.user.run(&["disable", &desk.source()]).fails(1, &["not mounted at login"]);
}

#[test]
fn what_cannot_be_mounted_at_login_is_said() {
    let desk = Desk::new();
    desk.user.run(&["enable", &desk.source(), "./none"]).fails(11, &["not a directory"]);
    desk.user.run(&["enable", &desk.source(), "-o", "bogus"]).fails(2, &["bogus"]);
    assert!(!desk.unit().exists() && desk.calls().is_empty());
    fs::write(desk.user.path("calls.fail"), "").expect("written");
    let ran = desk.enable();
    assert_eq!(ran.code(), 1);
    for words in ["could not be mounted now", "Job for", "journalctl --user", "every 15 s"] {
        assert!(ran.err().contains(words), "'{words}' is not in: {}", ran.err());
    }
    assert!(desk.unit().exists(), "it is tried again");
    // Without systemd.
    fs::remove_file(desk.unit()).expect("removed");
    let mut command = desk.user.command();
    let ran = Ran(command.args(["enable", &desk.source()]).env("PATH", "/nonexistent").output().expect("runs"));
    assert!(ran.code() == 1 && ran.err().contains("needs systemd"), "{}", ran.err());
    assert!(!desk.unit().exists());
}

#[test]
fn the_unit_mounts_and_unmounts_and_mounts_again_after_a_death() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    desk.log_in();
    assert!(!desk.enable().ok().err().contains("pantheonfs login"), "the token is saved");
    let place = desk.user.path("mnt");
    let mut driver = desk.start();
    assert!(is_mounted(&place) && place.join("index.php").exists(), "the notice comes when the mount is there");
    let text = desk.user.run(&["list"]).ok().out();
    assert!(text.contains("code writable") && text.contains("at login"), "{text}");

    driver.kill().expect("killed");
    driver.wait().expect("ended");
    let mut driver = desk.start();
    fs::write(place.join("index.php"), "<?php // saved\n").expect("saved");
    Ran(desk.command("ExecStop").output().expect("runs")).ok();
    assert!(driver.wait().expect("ended").success(), "systemd does not restart what ended well");
    assert!(!is_mounted(&place));
    let saved = desk.sim.home("dev").join("code/index.php");
    assert_eq!(fs::read_to_string(saved).expect("there"), "<?php // saved\n", "it was sent before");
}

#[test]
fn a_mount_in_use_ends_with_the_session() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    desk.log_in();
    desk.enable().ok();
    let place = desk.user.path("mnt");
    let mut driver = desk.start();
    fs::write(place.join("index.php"), "<?php // in use\n").expect("saved");
    let open = fs::File::open(place.join("wp-config.php"))
        .or_else(|_| fs::File::open(place.join("index.php")))
        .expect("opened");
    let stopped = Ran(desk.command("ExecStop").output().expect("runs"));
    assert_eq!(stopped.code(), 13, "in use: {}", stopped.err());
    // What systemd does next.
    let pid = driver.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    eventually("the mount is gone although a file is open", || !is_mounted(&place));
    drop(open);
    assert!(driver.wait().expect("ended").success());
    let saved = desk.sim.home("dev").join("code/index.php");
    assert_eq!(fs::read_to_string(saved).expect("there"), "<?php // in use\n");
}

/// Checks units with systemd's own parser. `false`, loudly, where it is missing.
fn verified(around: &Environ, flags: &[&str], units: &[PathBuf]) -> bool {
    if !has_program("systemd-analyze") {
        skip("systemd-analyze is missing: units of systemd are not checked");
        return false;
    }
    let runtime = around.path("runtime");
    fs::create_dir_all(&runtime).expect("made");
    let mut command = Command::new("systemd-analyze");
    around.dress(&mut command);
    command.args(flags).args(["verify", "--man=no"]).args(units).env("XDG_RUNTIME_DIR", runtime);
    let ran = Ran(command.output().expect("runs")).ok();
    // Units of this machine may have faults of their own.
    let said: Vec<String> = ran
        .err()
        .lines()
        .filter(|line| line.contains("pantheonfs") || line.contains("mysite"))
        .map(str::to_owned)
        .collect();
    assert!(said.is_empty(), "{said:?}");
    true
}

#[test]
fn the_units_are_correct_for_systemd() {
    let desk = Desk::new();
    desk.enable().ok();
    if !verified(&desk.user, &["--user"], &[desk.unit()]) {
        return;
    }
    // The template of the package, with a program that is there.
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/packaging/pantheonfs@.service");
    let text = fs::read_to_string(template)
        .expect("readable")
        .replace("/usr/bin/pantheonfs", env!("CARGO_BIN_EXE_pantheonfs"));
    let instance = desk.user.path("pantheonfs@mysite.dev.service");
    fs::write(&instance, &text).expect("written");
    verified(&desk.user, &["--user"], std::slice::from_ref(&instance));
    // Faults are found.
    fs::write(&instance, text.replace("Type=notify", "Type=notfy")).expect("written");
    let found = std::panic::catch_unwind(|| verified(&desk.user, &["--user"], &[instance]));
    assert!(found.is_err(), "a wrong unit is accepted");
}

#[test]
fn systemd_makes_an_automount_of_the_documented_line() {
    if !Path::new(GENERATOR).exists() {
        return skip("systemd's generator for fstab is missing: automounts are not tested");
    }
    let around = Environ::new();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/AT-LOGIN.md");
    let all = fs::read_to_string(document).expect("readable");
    let line =
        all.lines().find(|line| line.contains("pantheonfs  ") && line.contains("x-systemd.automount")).expect("a line");
    fs::write(around.path("fstab"), format!("{line}\n")).expect("written");
    let units = around.path("units");
    fs::create_dir(&units).expect("made");
    let mut command = Command::new(GENERATOR);
    around.dress(&mut command);
    let ran = command.args([&units, &units, &units]).env("SYSTEMD_FSTAB", around.path("fstab")).output().expect("runs");
    Ran(ran).ok();
    let [automount, mount] = ["automount", "mount"].map(|kind| units.join(format!("home-me-mysite.{kind}")));
    let text = fs::read_to_string(&automount).expect("an automount");
    assert!(text.contains("Where=/home/me/mysite") && text.contains("TimeoutIdleSec="), "{text}");
    let text = fs::read_to_string(&mount).expect("a mount");
    assert!(text.contains("What=mysite.dev") && text.contains("Type=pantheonfs"), "{text}");
    assert!(text.contains("network-online.target") || text.contains("_netdev"), "it waits for the network: {text}");
    verified(&around, &[], &[automount, mount]);
}
