//! What a person does with the platform without ever opening the dashboard: commit, history, login, sites, doctor.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::Mounted;
use crate::common::program::{Environ, Ran};
use crate::common::{eventually, has_fuse};

fn head(m: &Mounted) -> String {
    let log = Command::new("git")
        .arg("--git-dir")
        .arg(m.sim_ref().repository())
        .args(["log", "-1", "--format=%H %s", "master"])
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&log.stdout).trim().to_owned()
}

#[test]
fn a_message_written_to_commit_commits_what_is_pending() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    fs::write(m.path("new.php"), "<?php // new\n").expect("written");
    let before = head(&m);
    fs::write(m.path(".pantheon/commit"), "Change the front page\n").expect("committed");
    let after = head(&m);
    assert_ne!(before, after);
    assert!(after.ends_with(" Change the front page"), "{after}");
    let hash = after.split(' ').next().expect("a hash").to_owned();
    let said = fs::read_to_string(m.path(".pantheon/commit")).expect("readable");
    assert!(said.starts_with(&format!("commit: {hash}\nmessage: Change the front page\n")), "{said}");
    assert!(said.contains("M index.php\n") && said.contains("A new.php\n"), "{said}");
    let pending = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(!pending.contains("index.php"), "nothing is pending any more: {pending}");
    eventually("the log has it", || {
        fs::read_to_string(m.path(".pantheon/log")).is_ok_and(|log| log.starts_with(&format!("commit {hash}")))
    });
    let error = fs::write(m.path(".pantheon/commit"), "Again\n").expect_err("nothing to commit");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    fs::write(m.path("index.php"), "<?php // goes on\n").expect("writes go on");
    assert!(fs::write(m.path(".pantheon/commit"), "  \n").is_err(), "an empty message");
}

#[test]
fn a_commit_that_the_platform_refuses_loses_nothing() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("index.php"), "precious").expect("written");
    m.control("habit", r#"{"name": "workflow", "value": "fail"}"#);
    let error = fs::write(m.path(".pantheon/commit"), "Try\n").expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(fs::read_to_string(m.path(".pantheon/status")).expect("readable").contains("build_status is building"));
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"precious");
    m.control("habit", r#"{"name": "workflow", "value": "succeed"}"#);
    fs::write(m.path("index.php"), "precious, still").expect("writes go on");
    fs::write(m.path(".pantheon/commit"), "Try again\n").expect("committed");
    assert!(head(&m).ends_with("Try again"));
}

/// The workflow of a commit succeeds seconds before the environment shows the commit.
#[test]
fn a_commit_is_reported_once_its_code_is_synchronized() {
    let Some(m) = Mounted::sim() else { return };
    let place = m.dir().to_string_lossy().into_owned();
    m.control("habit", r#"{"name": "sync", "value": "long"}"#);
    fs::write(m.path("index.php"), "changed").expect("written");
    let began = std::time::Instant::now();
    let ran = m.environ().run(&["commit", "-m", "Takes a while", "--at", &place]).ok();
    assert!(began.elapsed().as_secs() >= 8, "the platform showed it later: {:?}", began.elapsed());
    let hash = head(&m).split(' ').next().expect("a hash").to_owned();
    assert_eq!(ran.out().matches("commit: ").count(), 1, "{}", ran.out());
    assert!(ran.out().contains(&hash), "{}", ran.out());
    fs::write(m.path("index.php"), "goes on").expect("written");
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"goes on");
}

/// An environment may go on showing the commit before, although the new one is in its history: no failure. Where it is
/// in neither, that is one.
#[test]
fn the_history_decides_where_the_environment_does_not_show_the_commit() {
    let Some(m) = Mounted::sim() else { return };
    let place = m.dir().to_string_lossy().into_owned();
    let commit = |message: &str| m.environ().run(&["commit", "-m", message, "--at", &place]);
    m.control("habit", r#"{"name": "sync", "value": "unseen"}"#);
    fs::write(m.path("index.php"), "changed").expect("written");
    let said = commit("In the history").ok().out();
    assert!(said.contains(head(&m).split(' ').next().expect("a hash")), "{said}");
    m.control("habit", r#"{"name": "sync", "value": "lost"}"#);
    fs::write(m.path("index.php"), "changed again").expect("written");
    let ran = commit("Nowhere");
    assert_eq!(ran.code(), 1, "{}", ran.err());
    for word in ["neither the environment", "nor its history shows it", "check the dashboard"] {
        assert!(ran.err().contains(word), "'{word}' is not said in: {}", ran.err());
    }
}

#[test]
fn commands_print_what_the_files_contain() {
    let Some(m) = Mounted::sim() else { return };
    let place = m.dir().to_string_lossy().into_owned();
    let run = |args: &[&str]| m.environ().run(args);
    assert_eq!(run(&["mode", "--at", &place]).ok().out(), "sftp\n");
    assert_eq!(run(&["mode", "sftp", "--at", &place]).ok().out(), "sftp (already)\n");
    fs::write(m.path("index.php"), "changed").expect("written");
    run(&["mode", "git", "--at", &place]).fails(13, &["index.php", "deleted for good", "--discard"]);
    eventually("it is pending", || run(&["pending", &place]).ok().out().contains("M index.php"));
    let json = run(&["pending", "--json", &place]).ok().out();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["path"], "index.php");
    run(&["commit", "-m", " ", "--at", &place]).fails(2, &["message is empty"]);
    run(&["commit", "--at", &place]).fails(2, &["-m or -F"]);
    let said = run(&["commit", "-m", "From the command line", "--at", &place]).ok().out();
    assert!(said.starts_with("commit: ") && said.contains("M index.php"), "{said}");
    run(&["commit", "-m", "Once more", "--at", &place]).fails(2, &["nothing to commit"]);
    eventually("the log has it", || run(&["log", &place]).ok().out().contains("    From the command line"));
    assert!(run(&["connection", &place]).ok().out().contains("sftp-command: sftp "));
    assert_eq!(run(&["mode", "git", "--at", &place]).ok().out(), "git\n");
    run(&["mode", "nonsense", "--at", &place]).fails(2, &["not a mode"]);
}

#[test]
fn a_teammates_job_is_shown_and_holds_writes() {
    let Some(m) = Mounted::sim() else { return };
    m.control("job", r#"{"environment": "dev", "kind": "sync_code", "ms": 6000}"#);
    eventually("it is seen", || {
        fs::read_to_string(m.path(".pantheon/activity")).is_ok_and(|text| text.contains("sync_code"))
    });
    let status = fs::read_to_string(m.path(".pantheon/status")).expect("readable");
    assert!(status.contains("code: waiting\n") && status.contains("sync_code"), "{status}");
    fs::write(m.path("index.php"), "after the job").expect("waits, and then goes on");
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"after the job");
    eventually("it is over", || {
        fs::read_to_string(m.path(".pantheon/activity")).is_ok_and(|text| text.contains("nothing runs"))
    });
}

/// A backup of the platform takes minutes, and touches no code; so may a kind of job that nobody knows yet.
#[test]
fn jobs_that_do_not_touch_code_are_shown_and_hold_no_write() {
    let Some(m) = Mounted::sim() else { return };
    for kind in ["do_export", "clone_database", "newly_invented"] {
        m.control("job", &format!(r#"{{"environment": "dev", "kind": "{kind}", "ms": 60000}}"#));
    }
    eventually("they are seen", || {
        let text = fs::read_to_string(m.path(".pantheon/activity")).unwrap_or_default();
        ["do_export", "clone_database", "newly_invented"].iter().all(|kind| text.contains(kind))
    });
    let activity = fs::read_to_string(m.path(".pantheon/activity")).expect("readable");
    assert!(!activity.contains("writes wait"), "{activity}");
    let began = std::time::Instant::now();
    fs::write(m.path("index.php"), "during the backup").expect("saved");
    assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"during the backup");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(m.status()["code"]["writable"], true);
}

/// Counted on the simulated platform: what mounts in use ask for in a bit more than a minute.
#[test]
fn mounts_in_use_ask_the_api_seldom_and_share_what_they_learn() {
    let Some(m) = Mounted::sim() else { return };
    let other = m.environ().path("other");
    fs::create_dir(&other).expect("made");
    let feature = format!("{}.feature-x", m.sim_ref().site());
    m.environ().run(&["mount", &feature, &other.to_string_lossy(), "-o", &m.sim_ref().options()]).ok();
    std::thread::sleep(std::time::Duration::from_secs(2));
    m.control("reset", "{}");
    let began = std::time::Instant::now();
    for count in 0.. {
        if began.elapsed().as_secs() >= 62 {
            break;
        }
        for dir in [m.dir(), other.as_path()] {
            assert!(fs::metadata(dir.join(format!("wp-includes/none-{count}"))).is_err());
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    let api = crate::common::mounted::get(&format!("{}/counters", m.sim_ref().control()))["api"].take();
    m.environ().run(&["umount", &other.to_string_lossy()]).ok();
    let calls = api["calls"].as_u64().expect("a number");
    let lists = api["by_kind"]["GET /api/sites/ID/workflows"].as_u64().expect("the jobs were asked for");
    assert!(calls <= 9, "four a minute and mount: {api}");
    assert!(lists <= 2, "one list serves both mounts: {api}");
    let bytes = api["bytes"].as_u64().expect("a number");
    assert!((300_000..1_000_000).contains(&bytes), "{api}");
    eprintln!("two mounts in use, 62 s: {calls} calls, {bytes} bytes");
}

#[test]
fn logging_in_keeps_the_session_and_the_token_private() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let env = sim.env();
    let token = env["TERMINUS_MACHINE_TOKEN"].clone();
    let around = Environ::new().with(env.into_iter().filter(|(name, _)| name != "TERMINUS_MACHINE_TOKEN"));
    around.run(&["sites"]).fails(4, &["not logged in"]);
    let mut command = around.command();
    let mut child = command
        .arg("login")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(format!("{token}\n").as_bytes()).expect("told");
    let ran = Ran(child.wait_with_output().expect("ends")).ok();
    assert!(ran.out().contains("logged in as dev@sim.example"), "{}", ran.out());
    assert!(!ran.out().contains(&token) && !ran.err().contains(&token));
    let sites = around.run(&["sites"]).ok().out();
    assert!(sites.contains("sim-wordpress (wordpress)") && sites.contains("sim-wordpress.dev\tsftp mode"), "{sites}");
    assert!(sites.contains("sim-wordpress.live\tcode is read-only"), "{sites}");
    let json: serde_json::Value = serde_json::from_str(&around.run(&["sites", "--json"]).ok().out()).expect("JSON");
    assert_eq!(json[1]["name"], "sim-wordpress");
    around.run(&["sites", "nosuch"]).fails(3, &["no such site"]);
    let bad = around.command().arg("login").stdin(Stdio::null()).output().expect("runs");
    Ran(bad).fails(2, &["no token was given", "Personal Access Token"]);
}

#[test]
fn the_doctor_walks_every_step_and_changes_nothing() {
    if !has_fuse() {
        return;
    }
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let around = Environ::new().with(sim.env());
    let site = format!("{}.dev", sim.site());
    let ran = around.run(&["doctor", &site, "-o", &sim.options()]).ok();
    for word in
        ["fuse: ok", "platform: ok", "mode sftp", "dns: ok", "port: ok", "ssh and sftp: ok", "posix-rename", "all well"]
    {
        assert!(ran.out().contains(word), "{word}: {}", ran.out());
    }
    assert_eq!(fs::read_dir(sim.home("dev").join("tmp")).expect("listed").count(), 0, "nothing is left in tmp");
    crate::common::mounted::post(&format!("{}/habit", sim.control()), r#"{"name": "rename", "value": "refuse"}"#);
    let ran = around.run(&["doctor", &site, "-o", &sim.options()]).ok();
    assert!(ran.out().contains("copy, verify, delete"), "{}", ran.out());
    let ran = around.run(&["doctor", "sim-nosuch.dev", "-o", &sim.options()]);
    assert_eq!(ran.code(), 3);
    assert!(ran.out().contains("platform: FAILED: sim-nosuch: no such site"), "{}", ran.out());
    let ran = around.run(&["doctor", &site, "-o", &sim.options().replacen("Port=", "Port=1,comment=", 1)]);
    assert_eq!(ran.code(), 6);
    assert!(ran.out().contains("port: FAILED: port 1 of"), "{}", ran.out());
}
