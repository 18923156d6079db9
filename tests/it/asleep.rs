//! Environments that sleep when nobody visits them: SFTP fails until the web site is visited.

use std::fs;
use std::process::Command;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::{Mounted, get, post};
use crate::common::program::{Environ, is_mounted};
use crate::common::{eventually, has_fuse, has_program, watch};

/// A site that sleeps, and where to mount it.
struct Bed {
    sim: Sim,
    around: Environ,
    site: String,
}

impl Bed {
    fn new(quirks: &[(&str, &str)]) -> Self {
        let quirks = quirks.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sim = Sim::start(&SimConfig { quirks, ..SimConfig::default() }).expect("the simulator starts");
        let around = Environ::new().with(sim.env());
        fs::create_dir(around.path("mnt")).expect("made");
        Self { site: format!("{}.dev", sim.site()), sim, around }
    }

    fn habit(&self, name: &str, value: &str) {
        post(&format!("{}/habit", self.sim.control()), &format!(r#"{{"name": "{name}", "value": "{value}"}}"#));
    }

    fn mount(&self) -> crate::common::program::Ran {
        let mnt = self.around.path("mnt");
        self.around.run(&["mount", "-v", &self.site, &mnt.to_string_lossy(), "-o", &self.sim.options()])
    }

    fn umount(&self) {
        self.around.run(&["umount", &self.around.path("mnt").to_string_lossy()]).ok();
        // The process has to end before the same environment can be mounted again.
        let lock = self.around.state().join(format!("{}/lock", self.site));
        eventually("the process has ended", || {
            let lock = fs::File::open(&lock).expect("there");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        });
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let mnt = self.around.path("mnt");
        if is_mounted(&mnt) {
            self.around.run(&["umount", "--force", &mnt.to_string_lossy()]);
        }
    }
}

#[test]
fn a_sleeping_environment_is_woken_and_waited_for() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    for how in ["closed", "sftp"] {
        let bed = Bed::new(&[("sleep", how)]);
        let ran = bed.mount().ok();
        assert!(ran.err().contains("may be asleep; waking it by dev-sim-wordpress.pantheonsite.io"), "{}", ran.err());
        assert!(fs::read(bed.around.path("mnt/index.php")).expect("read").starts_with(b"<?php"));
        bed.umount();
        // The first mount of one that is awake says nothing of it.
        assert!(!bed.mount().ok().err().contains("asleep"));
        bed.umount();
        // A tree is known now, which is no reason to begin offline.
        bed.habit("sleep", how);
        let ran = bed.mount().ok();
        assert!(ran.err().contains("waking it") && !ran.err().contains("offline"), "{}", ran.err());
    }
}

/// Since 2026 the platform's CDN leaves out the header by which older clients knew its answers: 200 alone says awake.
#[test]
fn any_200_means_awake_and_other_answers_are_shown() {
    use pantheonfs::clock::Deadline;
    use pantheonfs::control::{WakeConfig, Waker};
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let url = sim.env()["PANTHEONFS_WAKE_URL"].clone();
    for header in ["off", "on"] {
        let habit = format!(r#"{{"name": "styx-header", "value": "{header}"}}"#);
        post(&format!("{}/habit", sim.control()), &habit);
        let answer = ureq::get(format!("{url}/pantheon_healthcheck")).call().expect("an answer");
        assert_eq!(answer.headers().contains_key("X-Pantheon-Styx-Hostname"), header == "on");
        let config =
            WakeConfig { site: sim.site().into(), env: "dev".into(), url: Some(url.clone()), ..WakeConfig::default() };
        let deadline = Deadline::after(std::time::Duration::from_secs(5));
        Waker::new(config).expect("valid").wake(deadline).expect("awake");
    }
    let config = WakeConfig { site: "other".into(), env: "dev".into(), url: Some(url), ..WakeConfig::default() };
    let deadline = Deadline::after(std::time::Duration::from_secs(5));
    let error = Waker::new(config).expect("valid").wake(deadline).expect_err("another site").to_string();
    assert!(error.contains("status 404 Not Found, text/plain"), "{error}");
}

#[test]
fn waiting_for_a_sleeping_site_is_shown_on_the_terminal() {
    if !has_fuse() || !has_program("script") {
        return;
    }
    let _watch = watch();
    let bed = Bed::new(&[("sleep", "closed")]);
    let mount = format!(
        "{} mount {} {} -o {}",
        env!("CARGO_BIN_EXE_pantheonfs"),
        bed.site,
        bed.around.path("mnt").display(),
        bed.sim.options()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &mount, "/dev/null"]);
    bed.around.dress(&mut script);
    let output = script.output().expect("script runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("pantheonfs: sim-wordpress.dev does not answer and may be asleep; waking it"), "{said}");
    assert!(said.contains("is mounted on"), "{said}");
    // The terminal is gone; the mount is not.
    assert!(fs::read(bed.around.path("mnt/index.php")).is_ok());
}

#[test]
fn a_site_that_falls_asleep_while_mounted_is_woken() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5,fresh=1") else { return };
    for how in ["closed", "sftp"] {
        m.control("habit", &format!(r#"{{"name": "sleep", "value": "{how}"}}"#));
        m.control("cut", "{}");
        let name = format!("late-{how}.php");
        fs::write(m.there(&name), "new").expect("made there");
        eventually("what nobody knew is read", || fs::read(m.path(&name)).is_ok_and(|bytes| bytes == b"new"));
        fs::write(m.path("index.php"), how).expect("saved");
        assert_eq!(fs::read(m.on_server("index.php")).expect("there"), how.as_bytes());
        m.control("habit", r#"{"name": "sleep", "value": "off"}"#);
    }
}

/// The platform's servers have been such that only the ssh program can talk to them: there a sleep looks different.
#[test]
fn a_sleeping_site_is_woken_with_the_ssh_program_too() {
    if !has_fuse() || !has_program("ssh") {
        return;
    }
    let _watch = watch();
    for how in ["closed", "sftp"] {
        let bed = Bed::new(&[("sleep", how), ("host-key", "rsa-sha1")]);
        let ran = bed.mount().ok();
        assert!(ran.err().contains("waking it"), "{how}: {}", ran.err());
        let status = fs::read_to_string(bed.around.path("mnt/.pantheon/status")).expect("readable");
        assert!(status.contains("transport: ssh to "), "{status}");
        bed.habit("sleep", how);
        post(&format!("{}/cut", bed.sim.control()), "{}");
        let file = bed.around.path("mnt/wp-includes/version.php");
        eventually("it is woken again", || fs::read(&file).is_ok());
    }
}

/// Nobody pays for keeping a site awake that nobody looks at.
#[test]
fn an_unused_mount_lets_the_site_sleep() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    let visits = || get(&format!("{}/counters", m.sim_ref().control()))["visits"].as_u64().expect("a number");
    m.control("habit", r#"{"name": "sleep", "value": "closed"}"#);
    m.control("cut", "{}");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(visits(), 0);
    eventually("somebody looks", || fs::read(m.path("wp-includes/version.php")).is_ok());
    assert_eq!(visits(), 1);
}

#[test]
fn a_locked_site_is_woken_with_its_password() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let bed = Bed::new(&[("sleep", "closed"), ("lock", "locked")]);
    let ran = bed.mount().ok();
    assert!(ran.err().contains("waking it") && !ran.err().contains("sim-lock"), "{}", ran.err());
}

#[test]
fn a_frozen_site_is_reported_from_its_web_answer() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let bed = Bed::new(&[]);
    bed.mount().ok();
    bed.umount();
    for (name, value) in [("api", "error"), ("site", "frozen"), ("sleep", "closed")] {
        bed.habit(name, value);
    }
    let ran = bed.mount();
    assert_eq!(ran.code(), 3, "{}", ran.err());
    assert!(ran.err().contains("the platform has frozen the site"), "{}", ran.err());
}

#[test]
fn the_doctor_names_sleep_and_tells_it_from_a_blocked_port() {
    if !has_fuse() {
        return;
    }
    let bed = Bed::new(&[("sleep", "closed")]);
    let doctor = |options: &str| bed.around.run(&["doctor", &bed.site, "-o", options]);
    let said = doctor(&bed.sim.options()).ok().out();
    assert!(said.contains("sleep: ok: the environment was asleep; a request to dev-sim-wordpress."), "{said}");
    assert!(said.contains("all well"), "{said}");
    assert!(!doctor(&bed.sim.options()).ok().out().contains("sleep:"), "awake now");
    let elsewhere = bed.sim.options().replacen("Port=", "Port=1,comment=", 1);
    let ran = doctor(&elsewhere);
    assert_eq!(ran.code(), 6);
    assert!(ran.out().contains("sleep: ok: not asleep: dev-sim-wordpress."), "{}", ran.out());
    bed.habit("site", "frozen");
    bed.habit("sleep", "closed");
    assert_eq!(doctor(&bed.sim.options()).code(), 3);
}
