//! Desktop notices, on a real `dbus-daemon` with a notification service that records them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pantheonfs::notify::{About, CommitInfo, Event, Notices, Tells};
use pantheonfs::sim::{Sim, SimConfig};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::mounted::post;
use crate::common::program::{Environ, is_mounted};
use crate::common::{Watch, eventually, has_fuse, has_program, watch, within};

/// Longer than events are gathered before they are told.
const GATHERED: Duration = Duration::from_secs(5);

/// What the service was given: summary, body, urgency.
type Recorded = Arc<Mutex<Vec<(String, String, u8)>>>;

struct Recorder(Recorded);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Recorder {
    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".into(), "body-markup".into()]
    }

    // The arguments are those of the specification.
    #[allow(clippy::too_many_arguments)]
    fn notify(
        &self,
        app: &str,
        _replaces: u32,
        _icon: &str,
        summary: &str,
        body: &str,
        _actions: Vec<String>,
        hints: std::collections::HashMap<String, zbus::OwnedVariant>,
        _timeout: i32,
    ) -> u32 {
        assert_eq!(app, "pantheonfs");
        let urgency = hints.get("urgency").and_then(|value| u8::try_from(value.clone()).ok()).unwrap_or(9);
        let mut all = self.0.lock();
        all.push((summary.to_owned(), body.to_owned(), urgency));
        u32::try_from(all.len()).unwrap_or(1)
    }
}

/// A session bus of the test, which ends with it.
struct Bus {
    daemon: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Bus {
    fn start() -> Option<Self> {
        if !has_program("dbus-daemon") {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("bus.conf");
        let text = format!(
            r#"<busconfig><type>session</type><listen>unix:path={}</listen><policy context="default">
               <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#,
            dir.path().join("bus").display()
        );
        fs::write(&config, text).expect("written");
        let mut command = Command::new("dbus-daemon");
        command
            .arg("--nofork")
            .arg("--print-address")
            .arg("--config-file")
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut daemon = command.spawn().expect("dbus-daemon starts");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().expect("piped")).read_line(&mut address).expect("its address");
        assert!(address.starts_with("unix:path="), "{address}");
        Some(Self { daemon, address: address.trim().to_owned(), _dir: dir })
    }

    /// Starts the service; what it is given can be read at any time.
    fn record(&self) -> Recorded {
        let recorded = Recorded::default();
        let (address, recorder) = (self.address.clone(), Recorder(recorded.clone()));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serve = async move {
            let service = zbus::connection::Builder::address(address.as_str())
                .serve_at("/org/freedesktop/Notifications", recorder)
                .name("org.freedesktop.Notifications");
            let bus = service.build().await.expect("the service starts");
            ready.send(()).expect("the test waits");
            bus.closed().await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        std::thread::spawn(move || runtime.block_on(serve));
        is_ready.recv_timeout(Duration::from_secs(20)).expect("the service is there");
        recorded
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Dev of a simulated site, mounted by a user whose session has a bus.
struct Desk {
    sim: Sim,
    around: Environ,
    _watch: Watch,
}

impl Desk {
    fn mount(address: &str, options: &str) -> Self {
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let bus = ("DBUS_SESSION_BUS_ADDRESS".to_owned(), address.to_owned());
        let git = [("user.name", "Dev"), ("user.email", "dev@sim.example")];
        let git = git.iter().enumerate().flat_map(|(number, (key, value))| {
            [
                (format!("GIT_CONFIG_KEY_{number}"), (*key).to_owned()),
                (format!("GIT_CONFIG_VALUE_{number}"), (*value).to_owned()),
            ]
        });
        let count = ("GIT_CONFIG_COUNT".to_owned(), "2".to_owned());
        let around = Environ::new().with(sim.env()).with([bus, count]).with(git);
        let desk = Self { sim, around, _watch: watch() };
        fs::create_dir(desk.path("")).expect("made");
        let source = format!("{}.dev", desk.sim.site());
        let all = format!("{},{options}", desk.sim.options());
        desk.around.run(&["mount", &source, &desk.path("").to_string_lossy(), "-o", &all]).ok();
        desk
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.around.path("mnt").join(name)
    }

    fn there(&self, name: &str) -> std::path::PathBuf {
        self.sim.home("dev").join("code").join(name)
    }

    fn control(&self, route: &str, body: &serde_json::Value) {
        post(&format!("{}/{route}", self.sim.control()), &body.to_string());
    }

    fn sync(&self) {
        fs::write(self.path(".pantheon/sync"), "now\n").expect("sent");
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(".pantheon/status.json")).expect("readable")).expect("JSON")
    }

    /// Files that another writer changes before they are saved here.
    fn conflicts(&self, count: usize) {
        let names: Vec<String> = (0..count).map(|number| format!("both-{number}.php")).collect();
        names.iter().for_each(|name| fs::write(self.path(name), "base\n").expect("written"));
        self.sync();
        names.iter().for_each(|name| drop(fs::read(self.path(name)).expect("known")));
        self.control("stall", &json!({ "stalled": true }));
        names.iter().for_each(|name| fs::write(self.path(name), "ours\n").expect("saved"));
        names.iter().for_each(|name| fs::write(self.there(name), "theirs\n").expect("changed there"));
        self.control("stall", &json!({ "stalled": false }));
        eventually("they are conflicts", || {
            self.status()["conflicts"].as_array().is_some_and(|list| list.len() == count)
        });
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the driver's log:\n{}", self.around.driver_logs());
        }
        if is_mounted(&self.path("").components().collect::<std::path::PathBuf>()) {
            self.around.run(&["umount", "--force", &self.path("").to_string_lossy()]);
        }
    }
}

#[test]
fn conflicts_are_one_notice_with_the_command_to_run() {
    if !has_fuse() {
        return;
    }
    let Some(bus) = Bus::start() else { return };
    let recorded = bus.record();
    let desk = Desk::mount(&bus.address, "");
    desk.conflicts(5);
    eventually("a notice", || !recorded.lock().is_empty());
    std::thread::sleep(GATHERED);
    let all = recorded.lock().clone();
    assert_eq!(all.len(), 1, "{all:?}");
    let (summary, body, urgency) = &all[0];
    assert_eq!(summary, &format!("{}.dev: 5 conflicts", desk.sim.site()));
    assert_eq!(*urgency, 2);
    let command = format!("pantheonfs watch {}", desk.around.path("mnt").display());
    for part in ["both-", "and 2 more", "Your versions are kept", &command] {
        assert!(body.contains(part), "'{part}' is not in {body}");
    }
}

#[test]
fn what_others_do_to_the_environment_is_told_and_what_is_done_here_is_not() {
    if !has_fuse() {
        return;
    }
    let Some(bus) = Bus::start() else { return };
    let recorded = bus.record();
    let desk = Desk::mount(&bus.address, "");
    let mode = |mode: &str| {
        eventually(&format!("the mode is {mode}"), || {
            fs::read_to_string(desk.path(".pantheon/mode")).is_ok_and(|now| now == format!("{mode}\n"))
        });
    };
    fs::write(desk.path("own.php"), "<?php // own\n").expect("written");
    fs::write(desk.path(".pantheon/commit"), "Made here\n").expect("committed");
    fs::write(desk.path(".pantheon/mode"), "git\n").expect("switched");
    fs::write(desk.path(".pantheon/mode"), "sftp\n").expect("switched back");
    std::thread::sleep(GATHERED);
    assert_eq!(*recorded.lock(), [], "nothing that was done here");
    fs::write(desk.there("theirs.php"), "<?php // theirs\n").expect("written there");
    desk.control("commit", &json!({ "environment": "dev", "message": "Fix <the> footer\n\nWhy" }));
    let told = |part: &str| recorded.lock().iter().find(|(summary, ..)| summary.contains(part)).cloned();
    let before = desk.status()["target_commit"].clone();
    eventually("the commit is known", || {
        drop(fs::read(desk.path(".pantheon/mode")));
        desk.status()["target_commit"] != before
    });
    eventually("the commit is told", || told("new commit by Team Mate").is_some());
    let (_, body, _) = told("new commit").expect("told");
    assert!(body.starts_with("Fix &lt;the&gt; footer\npantheonfs log /"), "{body}");
    desk.control("mode", &json!({ "environment": "dev", "mode": "git" }));
    mode("git");
    eventually("the switch is told", || told("switched to Git mode").is_some());
    let (_, body, urgency) = told("switched").expect("told");
    assert!(body.contains("pantheonfs mode sftp --at /") && urgency == 2, "{body}");
}

#[test]
fn a_link_that_stays_away_with_unsent_work_is_told() {
    if !has_fuse() {
        return;
    }
    let Some(bus) = Bus::start() else { return };
    let recorded = bus.record();
    let desk = Desk::mount(&bus.address, "");
    fs::write(desk.path("before.php"), "<?php\n").expect("the directory is known");
    desk.sync();
    desk.control("stall", &json!({ "stalled": true }));
    desk.control("cut", &json!({}));
    fs::write(desk.path("unsent.php"), "<?php\n").expect("saved");
    within(Duration::from_secs(150), "a notice", || !recorded.lock().is_empty());
    desk.control("stall", &json!({ "stalled": false }));
    let (summary, body, _) = recorded.lock()[0].clone();
    assert!(summary.ends_with(": no link for 1 min") || summary.ends_with(": no link for 2 min"), "{summary}");
    assert!(body.starts_with("1 changed file is not on the server.") && body.contains("pantheonfs status /"), "{body}");
}

#[test]
fn without_notices_or_without_a_service_the_mount_works_as_ever() {
    if !has_fuse() {
        return;
    }
    let Some(bus) = Bus::start() else { return };
    let desk = Desk::mount(&bus.address, "");
    desk.conflicts(1);
    eventually("the log says it once", || desk.around.driver_logs().contains("desktop notices are not shown"));
    let recorded = bus.record();
    let silent = Desk::mount(&bus.address, "notify=no");
    silent.conflicts(1);
    std::thread::sleep(GATHERED);
    assert_eq!(*recorded.lock(), []);
    let refused = silent.around.run(&["mount", "x.dev", "/nonexistent", "-o", "notify=maybe"]);
    refused.fails(2, &["notify=maybe", "yes or no"]);
}

#[test]
fn a_bus_that_does_not_answer_holds_nothing_up() {
    if !has_fuse() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _hung = UnixListener::bind(dir.path().join("bus")).expect("bound");
    let address = format!("unix:path={}", dir.path().join("bus").display());
    let desk = Desk::mount(&address, "");
    desk.conflicts(3);
    std::thread::sleep(GATHERED);
    let begun = Instant::now();
    fs::write(desk.path("after.php"), "<?php\n").expect("saved");
    desk.sync();
    desk.around.run(&["umount", &desk.path("").to_string_lossy()]).ok();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Nothing is due and no commit is known.
struct Nothing;

impl Tells for Nothing {
    fn due(&mut self, _: Instant) -> Vec<Event> {
        Vec::new()
    }

    fn commit(&self, _: &str) -> Option<CommitInfo> {
        None
    }

    fn is_own(&self, _: &CommitInfo) -> bool {
        false
    }
}

fn about() -> About {
    About { source: "mysite.dev".into(), mountpoint: "/mnt/mysite".into(), takes_code: true }
}

#[test]
fn three_hundred_conflicts_are_one_notice() {
    let Some(bus) = Bus::start() else { return };
    let recorded = bus.record();
    let notices = Notices::start(bus.address.clone(), about(), Nothing).expect("started");
    for number in 0..300 {
        notices.tell(Event::Conflict(format!("save {number}.php: another writer changed it")));
    }
    eventually("a notice", || !recorded.lock().is_empty());
    std::thread::sleep(GATHERED);
    let all = recorded.lock().clone();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].0, "mysite.dev: 300 conflicts");
}

#[test]
fn telling_never_waits_for_a_bus() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _hung = UnixListener::bind(dir.path().join("bus")).expect("bound");
    let address = format!("unix:path={}", dir.path().join("bus").display());
    let notices = Notices::start(address, about(), Nothing).expect("started");
    notices.tell(Event::Stranded("save a.php: refused".into()));
    // The thread is at the bus now.
    std::thread::sleep(Duration::from_secs(3));
    let begun = Instant::now();
    for _ in 0..100_000 {
        notices.tell(Event::Stranded("save a.php: refused".into()));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
